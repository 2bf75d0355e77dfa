#!/usr/bin/env bash
# End-to-end check: the demo API (examples/protected_api) asks an independent authorization server,
# PyPI's `canaille`, about its opaque tokens. ci/introspection/check.py lists the cases.
#
# Needs python3 with venv, and cargo. Everything listens on free ports of 127.0.0.1. Takes about half
# a minute. Can be run from any directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  echo "introspection check: $*" >&2
  exit 1
}

. ci/requirements.sh
. ci/processes.sh
require "introspection check" venv

work_folder
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --requirement ci/introspection/requirements.txt ||
  fail "pip install failed"
build_examples protected_api

# Open both sockets at the same time, so that the ports differ.
read -r port api_port < <(python3 -c '
import socket
both = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(one.getsockname()[1] for one in both))
') || fail "no free ports"
issuer=http://127.0.0.1:$port
api=http://127.0.0.1:$api_port

# await URL PID NAME: waits for a 200 from URL, at most 30 seconds and while PID is running.
await() {
  for _ in {1..150}; do
    kill -0 "$2" 2>/dev/null || fail "$3 stopped before it responded to $1"
    python3 -c '
import sys, urllib.request as r
r.build_opener(r.ProxyHandler({})).open(sys.argv[1], timeout=5)
' "$1" 2>/dev/null && return
    sleep 0.2
  done
  fail "$3 does not respond to $1"
}

"$work/venv/bin/python" ci/introspection/server.py "$port" >"$work/server.log" 2>&1 &
pids+=($!)
await "$issuer/.well-known/openid-configuration" "$!" "the authorization server"

NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 INTROSPECTION=1 INTROSPECTION_CLIENT_ID=orders-api \
  INTROSPECTION_CLIENT_SECRET=orders-api-secret INTROSPECTION_MAX_AGE=2 \
  "$programs/protected_api" --listen "127.0.0.1:$api_port" --issuer "$issuer" \
  --audience orders-api --required-scope profile >"$work/api.log" 2>&1 &
pids+=($!)
await "$api/public" "$!" "the demo API"

"$work/venv/bin/python" ci/introspection/check.py "$issuer" "$api" "$work/server.log" || fail "some cases failed"

echo "The demo API works with $(cat ci/introspection/requirements.txt)."
