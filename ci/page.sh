#!/usr/bin/env bash
# Drives the demo's page in headless Chromium as a user does; ci/page/check.mjs lists the checks.
# Screenshots are written to target/page/.
#
# Needs node, npm, chromium and cargo. Everything listens on free ports of 127.0.0.1. Takes about a
# minute, mostly waiting until keys become stale. Can be run from any directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  echo "page check: $*" >&2
  exit 1
}

. ci/requirements.sh
. ci/processes.sh
require "page check" npm chromium

work_folder
(cd ci/page && npm ci --loglevel=error >/dev/null) || fail "npm ci failed in ci/page"
build_examples protected_api

target=${CARGO_TARGET_DIR:-target}
# start NAME [ARGUMENT...]: starts a demo, waits until it listens, and sets `api`.
start() {
  local log=$work/$1.log
  : >"$log"
  "$programs/protected_api" --listen 127.0.0.1:0 --issuer-listen 127.0.0.1:0 "${@:2}" >"$log" 2>&1 &
  pids+=($!)
  for _ in {1..100}; do
    api=$(sed -n 's/^API on \(http:[^,]*\),.*/\1/p' "$log")
    [ -n "$api" ] && return
    kill -0 $! 2>/dev/null || fail "the demo stopped"
    sleep 0.1
  done
  fail "the demo did not print its address"
}
start off --dpop off
off=$api
start nonces --dpop require --dpop-nonce-secret "$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')"
nonces=$api
start demo

rm -rf "$target/page"
NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 node ci/page/check.mjs --page "$api/" --nonces "$nonces/" --off "$off/" --browser "$browser" --screenshots "$target/page" ||
  fail "some checks failed; screenshots are in $target/page"
echo "The page works as described; screenshots are in $target/page."
