#!/usr/bin/env bash
# Checks that the other crates in the benchmarks are configured correctly: each must accept a valid
# token and reject invalid ones, otherwise its figures in docs/performance.md would mean nothing.
# Also compiles all benchmarks.
#
# Needs cargo, a C compiler, pkg-config and OpenSSL's headers (one of the crates verifies ECDSA with
# OpenSSL). Takes some minutes: it compiles 400 crates. Can be run from any directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

. ci/requirements.sh
require "peers check" openssl-headers

cargo clippy --manifest-path benches/Cargo.toml --locked --quiet --all-targets --features peers -- -D warnings
cargo run --manifest-path benches/Cargo.toml --locked --quiet --features peers --bin check
BACKEND=rust-crypto cargo run --manifest-path benches/Cargo.toml --locked --quiet --features peers --bin check
