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
. ci/processes.sh
require "dpop-clients check" npm node
node_for_oidc_provider

work_folder

(cd ci/dpop-clients && npm ci --loglevel=error >/dev/null) || fail "npm ci failed in ci/dpop-clients"
if [ -z "${PROTECTED_API:-}" ]; then
  build_examples protected_api
  PROTECTED_API=$programs/protected_api
fi

read -r port api_port < <(free_ports 2) || fail "no free ports"
issuer=http://127.0.0.1:$port
api=http://127.0.0.1:$api_port
audience=https://api.example.com

# Bypass a proxy of the environment.
export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1

node ci/dpop-clients/server.mjs --port "$port" --resource "$audience" >"$work/server.log" 2>&1 &
pids+=($!)
await "$issuer/.well-known/openid-configuration" "$!" "the authorization server"

# Run the built file instead of `cargo run`, so that the pid is that of the demo. Without
# PUBLIC_URL, proofs are made for the address that the demo listens on.
secret=$(node -p 'crypto.randomBytes(32).toString("base64url")')
RUST_LOG=portcullis=debug LISTEN="127.0.0.1:$api_port" ISSUER="$issuer" AUDIENCE="$audience" \
  REQUIRED_SCOPE=read:messages DPOP=require DPOP_NONCE_SECRET="$secret" \
  "$PROTECTED_API" >"$work/api.log" 2>&1 &
pids+=($!)
await "$api/public" "$!" "the demo API"

node ci/dpop-clients/check.mjs --issuer "$issuer" --api "$api" --audience "$audience" || fail "some cases failed"

version() { node -p 'require("./ci/dpop-clients/package.json").dependencies[process.argv[1]]' "$1"; }
echo "The demo API works with oauth4webapi $(version oauth4webapi) and openid-client $(version openid-client)," \
  "and with bound tokens of oidc-provider $(version oidc-provider)."
