#!/usr/bin/env bash
# Are the neighbours that portcullis is measured beside set up fairly? Each must let a good token through and refuse bad ones, or
# its figures in docs/performance.md would mean nothing. Also compiles all measurements.
#
# Needs cargo, a C compiler, pkg-config and OpenSSL's headers (one neighbour verifies ECDSA with them). Takes some minutes: it
# compiles 400 crates. Runnable from anywhere.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

has_openssl() {
  command -v pkg-config >/dev/null && pkg-config --exists openssl
}

# A bare Debian machine gets what is missing; anywhere else the sentence below says what to do.
if ! has_openssl && command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
  { apt-get update && apt-get install --yes --no-install-recommends pkg-config libssl-dev; } >/dev/null || true
fi
has_openssl || {
  echo "neighbours check: OpenSSL's headers are missing: install pkg-config and libssl-dev (or openssl-devel)." >&2
  exit 1
}
cargo clippy --manifest-path benches/Cargo.toml --locked --quiet --all-targets --features peers -- -D warnings
cargo run --manifest-path benches/Cargo.toml --locked --quiet --features peers --bin check
BACKEND=rust-crypto cargo run --manifest-path benches/Cargo.toml --locked --quiet --features peers --bin check
