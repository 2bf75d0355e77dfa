#!/usr/bin/env bash
# soak.sh MINUTES [OUT_DIR] [OPTION...]: calls a server that has most features of the crate for so
# long, with good and hostile requests of 10,000 tenants, while keys rotate, issuers and
# introspection fail, and Redis is killed and stopped. Fails if a good request is lost outside of a
# documented window (soak/src/windows.rs), if a hostile one is accepted or rejected for another
# reason than its own, if a window is open for too long or too many requests are lost in it, or if
# memory or open files grow after the warm-up.
#
# In less than 5 minutes, the caches would not be full. OUT_DIR gets samples.tsv, the plot soak.svg,
# metrics.json and the log of the server; it is target/soak by default. Options are those of the
# program: `--rate PER_SECOND`, 1000 by default; `--seed NUMBER`, 1 by default; `--plant NAME` plants
# the fault leak, files, accept, lose, status, late or stuck in the server, which the soak must then
# find.
#
# Needs Linux, cargo, redis-server or valkey-server. Everything listens on free ports of 127.0.0.1.
set -euo pipefail

minutes=${1:-}
[[ $minutes =~ ^[1-9][0-9]{0,3}$ ]] && [ "$minutes" -ge 5 ] && [ "$minutes" -le 1440 ] || {
  echo "usage: soak.sh MINUTES [OUT_DIR] [OPTION...] (5 to 1440 minutes)" >&2
  exit 2
}
shift
out=
if [ $# -gt 0 ] && [[ $1 != --* ]]; then
  out=$(realpath -m "$1")
  shift
fi

cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
out=${out:-$target/soak}

. ci/requirements.sh
. ci/processes.sh
require soak redis-server
redis=$(find_tool redis-server)

# Optimized, as a service is: without, two cores do not bear the load.
cargo build --locked --quiet --release --manifest-path soak/Cargo.toml --target-dir "$target"

# In memory where that is possible: a disk that stalls for 250 ms is a Redis that does not answer.
work_folder --in-memory
status=0
in_background "$target/release/soak" load "$minutes" --out "$out" --work "$work" --redis "$redis" "$@" || status=$?
[ "$status" -eq 0 ] || {
  echo "soak: failed; see above, and $out" >&2
  exit "$status"
}
echo "In $minutes minutes, no good request was lost outside of the documented windows, no hostile one was accepted, and nothing grew. Plot: $out/soak.svg"
