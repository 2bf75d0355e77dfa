#!/usr/bin/env bash
# The lowest version that Cargo.toml allows of each direct dependency compiles. A service that keeps
# an older lock file gets these. Without dev-dependencies, which no service resolves.
#
# `-Z direct-minimal-versions` is unstable: RUSTC_BOOTSTRAP=1 allows it for this resolution alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}/minimal-versions
copy=$(mktemp --directory)
trap 'rm -r "$copy"' EXIT
# The library without what needs dev-dependencies: everything from their table on.
sed '/^\[dev-dependencies\]/,$d' Cargo.toml >"$copy/Cargo.toml"
cp -r src docs README.md "$copy"
cd "$copy"
RUSTC_BOOTSTRAP=1 cargo update --quiet -Z direct-minimal-versions
for features in "--all-features" "--no-default-features --features aws-lc-rs" "--no-default-features --features rust-crypto"; do
  # shellcheck disable=SC2086 # Several words.
  CARGO_TARGET_DIR=$target cargo check --quiet --lib $features
done
echo "The lowest versions that Cargo.toml allows compile."
