#!/usr/bin/env bash
# Checks that the other crates in the benchmarks are configured correctly: each must accept a valid
# token and reject invalid ones, otherwise its figures in docs/performance.md would mean nothing.
# Also compiles all benchmarks.
#
# Needs cargo, a C compiler, pkg-config and OpenSSL's headers (one of the crates verifies ECDSA with
# OpenSSL). Takes some minutes: it compiles 400 crates. Can be run from any directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

has_openssl() {
  command -v pkg-config >/dev/null && pkg-config --exists openssl
}

# As root on Debian, install what is missing; elsewhere, the message below says what to install.
if ! has_openssl && command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
  { apt-get update && apt-get install --yes --no-install-recommends pkg-config libssl-dev; } >/dev/null || true
fi
has_openssl || {
  echo "peers check: OpenSSL's headers are missing: install pkg-config and libssl-dev (or openssl-devel)." >&2
  exit 1
}
cargo clippy --manifest-path benches/Cargo.toml --locked --quiet --all-targets --features peers -- -D warnings
cargo run --manifest-path benches/Cargo.toml --locked --quiet --features peers --bin check
BACKEND=rust-crypto cargo run --manifest-path benches/Cargo.toml --locked --quiet --features peers --bin check
