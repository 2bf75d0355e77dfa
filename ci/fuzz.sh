#!/usr/bin/env bash
# fuzz.sh SECONDS [TARGET…]: runs fuzz targets (fuzz/fuzz_targets), each for so many seconds, two at a
# time. Without a name, it runs all. Prints how often each was executed, and how many edges of the
# code it has covered. Fails if a target fails, and prints the input. Each target must try 1,000
# inputs besides its seeds: otherwise, it has tested nothing new. Where other programs leave it too
# little time for that, it runs for up to two minutes more.
#
# Needs a Rust toolchain and a C++ compiler. The flags are those of cargo-fuzz, which works here as
# well. CORPUS names a folder where inputs are kept from one run to the next.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:-}
[[ $seconds =~ ^[1-9][0-9]{0,5}$ ]] || {
  echo "usage: fuzz.sh SECONDS [TARGET…]" >&2
  exit 2
}
shift
. ci/requirements.sh
require fuzz.sh c++
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  for file in fuzz/fuzz_targets/*.rs; do
    targets+=("$(basename "$file" .rs)")
  done
fi

host=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/fuzz/target}
flags="-Cpasses=sancov-module --cfg fuzzing"
for flag in level=4 inline-8bit-counters pc-table trace-compares; do
  flags+=" -Cllvm-args=-sanitizer-coverage-$flag"
done
# With the target named, build scripts are not instrumented.
RUSTFLAGS=$flags cargo build --manifest-path fuzz/Cargo.toml --locked --quiet --release --bins --target "$host"

work=$(mktemp --directory)
trap 'rm -rf "$work"' EXIT
corpus=${CORPUS:-$work/corpus}

# The inputs that a target has already.
known() { find "$corpus/$1" "fuzz/seeds/$1" -type f | wc -l; }

# fuzz TARGET SECONDS [OPTION…]: runs a target, and sets `executed`.
fuzz() {
  local target=$1 seconds=$2 log=$work/$1.log
  shift 2
  # What a request may carry, in bytes: a body or a document, a token, or a header.
  local max_len=4096
  case $target in
    introspection | jwks | mcp_body | metadata | status_list) max_len=70000 ;;
    jose | jwt | logout | members | proof | security_event) max_len=20000 ;;
  esac
  # Without counting how often an edge was taken, there are about twice as many executions, and they
  # cover as many edges in less time. The timeout for one input is wall-clock time: a process of low
  # priority may wait for seconds, so it only finds inputs that take far too long.
  if "$CARGO_TARGET_DIR/$host/release/$target" -use_counters=0 -entropic=0 -max_total_time="$seconds" -max_len="$max_len" -rss_limit_mb=2048 \
    -timeout=25 -print_final_stats=1 -dict=fuzz/dictionaries/tokens.dict -artifact_prefix="$work/$target-" "$@" \
    "$corpus/$target" "fuzz/seeds/$target" >"$log" 2>&1; then
    executed=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    executed=${executed:-0}
    return
  fi
  echo "fuzz target $target failed:" >&2
  grep --extended-regexp --after-context 3 'panicked|ERROR: libFuzzer' "$log" >&2 || tail -n 20 "$log" >&2
  # In base64, so that it can be copied from a log.
  for input in "$work/$target"-*; do
    [ ! -e "$input" ] || { echo "input: $(base64 --wrap 0 "$input")" >&2; }
  done
  return 1
}

run() {
  local target=$1 executed required total covered
  mkdir -p "$corpus/$target"
  required=$(($(known "$target") + 1000))
  fuzz "$target" "$seconds" || return 1
  total=$executed
  if [ "$total" -lt "$required" ]; then
    # A new process executes all known inputs again first.
    local again
    again=$(known "$target")
    fuzz "$target" 120 -runs=$((again + required - total)) || return 1
    total=$((total + executed - again))
  fi
  if [ "$total" -lt "$required" ]; then
    echo "fuzz target $target: expected at least $required executions, found $total" >&2
    return 1
  fi
  covered=$(grep --only-matching 'cov: [0-9]*' "$work/$target.log" | tail -n 1)
  printf '%-16s %12s executions, %5s edges\n' "$target" "$total" "${covered#cov: }"
}
export -f known fuzz run
export work corpus seconds host
printf '%s\n' "${targets[@]}" | xargs --max-procs 2 --replace={} bash -c 'run {}'
