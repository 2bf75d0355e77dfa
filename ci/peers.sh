#!/usr/bin/env bash
# Checks that the other crates in the benchmarks are configured correctly: each must accept a valid
# token and reject invalid ones, otherwise its figures in docs/performance.md would mean nothing.
# Also compiles all benchmarks, with Clippy, and runs those of single steps once.
#
# Needs cargo, a C compiler, pkg-config and OpenSSL's headers (one of the crates verifies ECDSA with
# OpenSSL). Takes some minutes: it compiles 400 crates. Can be run from any directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

. ci/requirements.sh
require "peers check" openssl-headers

# Clippy as the compiler: it checks and builds in one pass, where `cargo clippy` would read 400 crates
# that the build then compiles. CLIPPY_ARGS is what `cargo clippy` itself sets.
export RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-Dwarnings__CLIPPY_HACKERY__
benches=(--manifest-path benches/Cargo.toml --locked --quiet --features peers)
cargo build "${benches[@]}" --all-targets

# The built program. `cargo run` would compile most crates again, without the features that the
# benchmarks need.
check=${CARGO_TARGET_DIR:-benches/target}/debug/check
"$check"
BACKEND=rust-crypto "$check"

# Each benchmark of a step, once: they work. Their time is not checked.
cargo test "${benches[@]}" --bench steps
