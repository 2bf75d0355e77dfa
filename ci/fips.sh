#!/usr/bin/env bash
# The crate with the FIPS module of aws-lc-rs, as docs/fips.md configures it: ci/fips/tests check
# which services of the module are used, and that other keys and TLS providers are rejected.
#
# Needs a C compiler, Go and CMake, which compile the module. As root on Debian, it installs them.
# Takes about three minutes the first time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}/fips

missing() {
  local tool
  for tool in go cmake; do
    command -v "$tool" >/dev/null || echo "$tool"
  done
}

if [ -n "$(missing)" ] && command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
  { apt-get update && apt-get install --yes --no-install-recommends golang-go cmake; } >/dev/null || true
fi
[ -z "$(missing)" ] || {
  echo "FIPS check:" $(missing) "is missing: install the packages golang-go and cmake." >&2
  exit 1
}
cargo fmt --manifest-path ci/fips/Cargo.toml --check
cargo clippy --manifest-path ci/fips/Cargo.toml --locked --quiet --all-targets --target-dir "$target" -- -D warnings
cargo test --manifest-path ci/fips/Cargo.toml --locked --target-dir "$target"
echo "FIPS: each algorithm is verified by an approved service of the module."
