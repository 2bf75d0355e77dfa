#!/usr/bin/env bash
# mutants.sh NUMBER/OF [FILE [TEST…]]: changes the code in the ways that cargo-mutants lists, one at a
# time, and fails if the tests miss a change that ci/mutants/accepted.txt does not list. `1/1` takes
# all changes, `1/400` each four-hundredth. With FILE, only those of files whose path contains it.
# With TEST, only those that the tests in src/ and in tests/TEST reach, and only these tests run.
#
# ci/mutants/src/main.rs says how it works. Installs cargo-mutants for the list. Takes the time of a
# build and of running each test once, then about a second for a change. RESULTS names a file where
# the changes are recorded that are caught: another run of the same commit leaves them out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

shard=${1:-}
[[ $shard =~ ^[1-9][0-9]*/[1-9][0-9]*$ ]] || {
  echo "usage: mutants.sh NUMBER/OF [FILE [TEST…]]" >&2
  exit 2
}
command -v cargo-mutants >/dev/null || cargo install --locked --quiet --debug cargo-mutants
target=${CARGO_TARGET_DIR:-$PWD/target}
# Always the same folder, so that another run replaces what this one has built.
copy=$target/mutants
rm -rf "$copy"
mkdir -p "$copy"
trap 'rm -rf "$copy"' EXIT
git archive HEAD | tar --extract --directory "$copy"
COMMIT=$(git rev-parse HEAD) CARGO_INCREMENTAL=0 cargo run --manifest-path ci/mutants/Cargo.toml --locked --quiet --target-dir "$target" -- \
  "$copy" "$target" "$shard" ci/mutants/accepted.txt "${@:2}"
