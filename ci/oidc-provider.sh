#!/usr/bin/env bash
# End-to-end check: the demo API (examples/protected_api) accepts the tokens of an independent,
# certified authorization server, npm's `oidc-provider`, and rejects those of a session that ends
# there. ci/oidc-provider/check.mjs lists the cases.
#
# Needs node, npm and cargo. Everything listens on free ports of 127.0.0.1. Takes about half a
# minute, mostly waiting until the API may fetch keys again. Can be run from any directory.
# PROTECTED_API names a built demo to check instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  echo "oidc-provider check: $*" >&2
  exit 1
}

. ci/requirements.sh
. ci/processes.sh
require "oidc-provider check" node npm
node_for_oidc_provider

work_folder

(cd ci/oidc-provider && npm ci --loglevel=error >/dev/null) || fail "npm ci failed in ci/oidc-provider"
if [ -z "${PROTECTED_API:-}" ]; then
  build_examples protected_api
  PROTECTED_API=$programs/protected_api
fi

read -r port api_port < <(free_ports 2) || fail "no free ports"
issuer=http://127.0.0.1:$port
api=http://127.0.0.1:$api_port

node ci/oidc-provider/server.mjs --port "$port" --logout-uri "$api/backchannel-logout" >"$work/server.log" 2>&1 &
pids+=($!)
await "$issuer/.well-known/openid-configuration" "$!" "the authorization server"

# Bypass a proxy of the environment. Run the built file instead of `cargo run`, so that the pid is
# that of the demo.
NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 INTROSPECTION=1 INTROSPECTION_CLIENT_ID=orders-api \
  INTROSPECTION_CLIENT_SECRET=orders-api-secret INTROSPECTION_MAX_AGE=2 \
  LOGOUT_AUDIENCE=native-logout "$PROTECTED_API" \
  --listen "127.0.0.1:$api_port" --issuer "$issuer" --audience https://api.example.com >"$work/api.log" 2>&1 &
pids+=($!)
await "$api/public" "$!" "the demo API"

node ci/oidc-provider/check.mjs --issuer "$issuer" --api "$api" || fail "some cases failed"

version=$(node -p 'require("./ci/oidc-provider/package.json").dependencies["oidc-provider"]')
echo "The demo API works with oidc-provider $version."
