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

find_chromium() {
  command -v chromium || command -v chromium-browser || command -v google-chrome
}

# As root on Debian, install what is missing; elsewhere, the message below says what to install.
missing=()
command -v npm >/dev/null || missing+=(nodejs npm)
find_chromium >/dev/null || missing+=(chromium)
if [ "${#missing[@]}" -gt 0 ] && command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
  { apt-get update && apt-get install --yes --no-install-recommends "${missing[@]}"; } >/dev/null || true
fi
command -v npm >/dev/null || fail "npm is missing: install Node.js 20 or later, which brings it (https://nodejs.org, or a package named nodejs)."
browser=$(find_chromium) || fail "Chromium is missing: install a package named chromium, or Google Chrome."

log=$(mktemp)
pid=
finish() {
  local status=$?
  trap - EXIT INT TERM
  [ -z "$pid" ] || kill "$pid" 2>/dev/null || true
  wait
  [ "$status" -eq 0 ] || tail -n 30 "$log" >&2
  rm -f "$log"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

(cd ci/page && npm ci --loglevel=error >/dev/null) || fail "npm ci failed in ci/page"
cargo build --quiet --example protected_api

target=${CARGO_TARGET_DIR:-target}
"$target/debug/examples/protected_api" --listen 127.0.0.1:0 --issuer-listen 127.0.0.1:0 >"$log" 2>&1 &
pid=$!
for _ in {1..100}; do
  api=$(sed -n 's/^API on \(http:[^,]*\),.*/\1/p' "$log")
  [ -n "$api" ] && break
  kill -0 "$pid" 2>/dev/null || fail "the demo stopped"
  sleep 0.1
done
[ -n "$api" ] || fail "the demo did not print its address"

rm -rf "$target/page"
NO_PROXY=127.0.0.1 no_proxy=127.0.0.1 node ci/page/check.mjs --page "$api/" --browser "$browser" --screenshots "$target/page" ||
  fail "some checks failed; screenshots are in $target/page"
echo "The page works as described; screenshots are in $target/page."
