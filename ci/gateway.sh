#!/usr/bin/env bash
# Checks which requests of a browser may use a token in a gateway's header or in a cookie: headless
# Chromium sends the requests, examples/behind_gateway.rs responds, and a stand-in for the gateway
# records both. ci/gateway/check.mjs lists the cases.
#
# Needs node, npm, chromium, openssl and cargo. Everything listens on 127.0.0.1: the API on a free
# port, the gateway on 8443. Takes about ten seconds once built. Can be run from any directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  echo "gateway check: $*" >&2
  exit 1
}

. ci/requirements.sh
. ci/processes.sh
require "gateway check" npm openssl chromium

work_folder
(cd ci/gateway && npm ci --loglevel=error >/dev/null) || fail "npm ci failed in ci/gateway"
openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=app.test \
  -keyout "$work/key.pem" -out "$work/cert.pem" 2>"$work/openssl.log" ||
  fail "openssl created no certificate: $(tail -n 3 "$work/openssl.log")"
build_examples behind_gateway

LISTEN=127.0.0.1:0 "$programs/behind_gateway" >"$work/api.log" 2>&1 &
pids+=($!)
api=
for _ in {1..100}; do
  token=$(sed -n 's/^TOKEN=//p' "$work/api.log")
  api=$(sed -n 's,^curl .*\(http://127.0.0.1:[0-9]*\)/header.*,\1,p' "$work/api.log")
  [ -n "$token" ] && [ -n "$api" ] && break
  kill -0 "$!" 2>/dev/null || fail "the API stopped"
  sleep 0.1
done
[ -n "$api" ] || fail "the API did not print its address"

node ci/gateway/check.mjs --api "$api" --token "$token" --browser "$browser" --work "$work" ||
  fail "some cases failed"
echo "Only pages of the API's own and of configured origins may use the token; others may link to the API."
