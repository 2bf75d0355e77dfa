#!/usr/bin/env bash
# End-to-end check of DPoP (RFC 9449) with several replicas: two processes of the demo
# (examples/protected_api) share a Redis, and accept each proof once. While Redis is stopped, hangs
# or is full, they accept no proof. ci/replicas/check.mjs lists the cases.
#
# Needs node, redis-server or valkey-server, and cargo. Everything listens on free ports of
# 127.0.0.1. Takes half a minute once built. Can be run from any directory. PROTECTED_API
# names a built demo to check instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  echo "replicas check: $*" >&2
  exit 1
}

. ci/requirements.sh
. ci/processes.sh
require "replicas check" node redis-server
redis=$(find_tool redis-server)

work_folder
if [ -z "${PROTECTED_API:-}" ]; then
  build_examples protected_api
  PROTECTED_API=$programs/protected_api
fi

in_background node ci/replicas/check.mjs --demo "$PROTECTED_API" --redis "$redis" --work "$work" ||
  fail "some cases failed"

echo "Replicas that share $("$redis" --version | cut -d ' ' -f 1-3) accept each proof once."
