#!/usr/bin/env bash
# Explores the interleavings of the modules that share state between threads, and checks that each
# planted fault is found. Builds loom and the explored modules, not portcullis.
# `ci/interleavings.sh 1` preempts each exploration once more, which takes minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-target}
cargo build --locked --quiet --manifest-path interleavings/Cargo.toml --target-dir "$target"
PREEMPTIONS=${1:-0} "$target/debug/portcullis-interleavings" explore
"$target/debug/portcullis-interleavings" faults
