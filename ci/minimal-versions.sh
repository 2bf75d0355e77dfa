#!/usr/bin/env bash
# The lowest version that Cargo.toml allows of each direct dependency compiles. A service that keeps
# an older lock file gets these. Without dev-dependencies, which no service resolves.
#
# The crate `redis` requires later versions of some of them (for platforms where it is not used, too),
# so a service with that feature has those. Only its own lowest version is checked.
#
# `-Z direct-minimal-versions` is unstable: RUSTC_BOOTSTRAP=1 allows it for this resolution alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}/minimal-versions
copy=$(mktemp --directory)
trap 'rm -r "$copy"' EXIT
cp -r src docs README.md "$copy"

# The library without what needs dev-dependencies: everything from their table on.
sed '/^\[dev-dependencies\]/,$d' Cargo.toml >"$copy/Cargo.toml.all"
cd "$copy"

check() {
  for features; do
    # shellcheck disable=SC2086 # Several words.
    CARGO_TARGET_DIR=$target cargo check --quiet --lib --no-default-features $features
  done
}

sed --expression '/^redis = {/d' --expression 's/^redis = .*/redis = []/' Cargo.toml.all >Cargo.toml
RUSTC_BOOTSTRAP=1 cargo update --quiet -Z direct-minimal-versions
check "--features aws-lc-rs,rust-crypto,axum,mcp,metrics,status-list,testing" "--features aws-lc-rs" "--features rust-crypto"

cp Cargo.toml.all Cargo.toml
rm Cargo.lock
lowest=$(sed -n 's/^redis = { version = "\([0-9.]*\)".*/\1/p' Cargo.toml)
cargo update --quiet
cargo update --quiet --package redis --precise "$lowest.0"
check "--features aws-lc-rs,redis"
echo "The lowest versions that Cargo.toml allows compile."
