#!/usr/bin/env bash
# End-to-end check of DPoP (RFC 9449): two independent clients, npm's `oauth4webapi` and
# `openid-client`, get tokens that are bound to their keys from an independent authorization server,
# `oidc-provider`, and call the demo API (examples/protected_api) with them. Both servers require
# their own nonces. ci/dpop-clients/check.mjs lists the cases.
#
# Needs node, npm and cargo. Everything listens on free ports of 127.0.0.1. Takes a few seconds once
# built. Can be run from any directory. PROTECTED_API names a built demo to check instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  echo "dpop-clients check: $*" >&2
  exit 1
}

. ci/requirements.sh
require "dpop-clients check" npm node
# Below Node.js 22, oidc-provider only warns, but it needs these two functions. Node.js 20.20 has
# them.
node -e 'process.exit(URL.parse && crypto.hash ? 0 : 1)' ||
  fail "Node.js $(node --version) is too old for oidc-provider: install 22 or later (https://nodejs.org)."

logs=$(mktemp -d)
server_pid=
api_pid=

stop() {
  local pid=$1
  [ -n "$pid" ] && kill "$pid" 2>/dev/null || return 0
  for _ in {1..50}; do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
}

finish() {
  local status=$?
  trap - EXIT INT TERM
  stop "$api_pid"
  stop "$server_pid"
  if [ "$status" -ne 0 ]; then
    for log in "$logs"/*.log; do
      [ -e "$log" ] && echo "--- last lines of $(basename "$log")" && tail -n 30 "$log"
    done >&2
  fi
  rm -rf "$logs"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# await URL PID NAME: waits for a 200 from URL, at most 30 seconds and while PID is running.
await() {
  for _ in {1..150}; do
    kill -0 "$2" 2>/dev/null || fail "$3 stopped before it responded to $1"
    node -e 'fetch(process.argv[1]).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))' "$1" && return
    sleep 0.2
  done
  fail "$3 does not respond to $1"
}

(cd ci/dpop-clients && npm ci --loglevel=error >/dev/null) || fail "npm ci failed in ci/dpop-clients"
if [ -z "${PROTECTED_API:-}" ]; then
  build_examples protected_api
  PROTECTED_API=$programs/protected_api
fi

# Open both sockets at the same time, so that the ports differ.
read -r port api_port < <(node -e '
  const { createServer } = require("node:net");
  const listen = () => new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => resolve(server));
  });
  Promise.all([listen(), listen()]).then((servers) => {
    console.log(servers.map((server) => server.address().port).join(" "));
    for (const server of servers) server.close();
  });
') || fail "no free ports"
issuer=http://127.0.0.1:$port
api=http://127.0.0.1:$api_port
audience=https://api.example.com

# Bypass a proxy of the environment.
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1

node ci/dpop-clients/server.mjs --port "$port" --resource "$audience" >"$logs/server.log" 2>&1 &
server_pid=$!
await "$issuer/.well-known/openid-configuration" "$server_pid" "the authorization server"

# Run the built file instead of `cargo run`, so that the pid is that of the demo. Without
# PUBLIC_URL, proofs are made for the address that the demo listens on.
secret=$(node -p 'crypto.randomBytes(32).toString("base64url")')
RUST_LOG=portcullis=debug LISTEN="127.0.0.1:$api_port" ISSUER="$issuer" AUDIENCE="$audience" \
  REQUIRED_SCOPE=read:messages DPOP=require DPOP_NONCE_SECRET="$secret" \
  "$PROTECTED_API" >"$logs/api.log" 2>&1 &
api_pid=$!
await "$api/public" "$api_pid" "the demo API"

node ci/dpop-clients/check.mjs --issuer "$issuer" --api "$api" --audience "$audience" || fail "some cases failed"

version() { node -p 'require("./ci/dpop-clients/package.json").dependencies[process.argv[1]]' "$1"; }
echo "The demo API works with oauth4webapi $(version oauth4webapi) and openid-client $(version openid-client)," \
  "and with bound tokens of oidc-provider $(version oidc-provider)."
