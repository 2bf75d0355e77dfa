#!/usr/bin/env bash
# The demo as somebody meets it: processes on loopback, called with curl. Answers as the README's table says, the native
# client through all its steps, and the issuer stopped before its first use and started again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  echo "demo check: $*" >&2
  exit 1
}

if ! command -v curl >/dev/null && command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
  { apt-get update && apt-get install --yes --no-install-recommends curl; } >/dev/null || true
fi
command -v curl >/dev/null || fail "curl is missing: install the package named curl."

cargo build --quiet --example protected_api --example native_client --example inspect
programs=${CARGO_TARGET_DIR:-target}/debug/examples
logs=$(mktemp -d)
pids=()

finish() {
  local status=$?
  trap - EXIT INT TERM
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait
  [ "$status" -eq 0 ] || tail -n 30 "$logs"/*.log >&2
  rm -rf "$logs"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# start NAME [ARGUMENT...]: starts a demo; sets `pid` and `api`, once it listens.
start() {
  local log=$logs/$1.log
  "$programs/protected_api" --listen 127.0.0.1:0 "${@:2}" >"$log" 2>&1 &
  pid=$!
  pids+=("$pid")
  for _ in {1..100}; do
    api=$(sed -n 's/^API on \(http:[^,]*\),.*/\1/p' "$log")
    [ -n "$api" ] && return
    kill -0 "$pid" 2>/dev/null || fail "the demo stopped"
    sleep 0.1
  done
  fail "the demo does not say where it listens"
}

# expect NAME STATUS PATTERN [CURL-ARGUMENT...]: the status, and a regular expression that the answer must match.
expect() {
  local answer status
  answer=$(curl --silent --include --max-time 10 "${@:4}") || fail "$1: curl failed with $?"
  status=$(head -n 1 <<<"$answer" | cut -d ' ' -f 2)
  [ "$status" = "$2" ] || fail "$1: expected $2, $status came: $answer"
  grep --quiet --extended-regexp --ignore-case "$3" <<<"$answer" || fail "$1: expected $3 in: $answer"
  echo "ok  $1"
}

token() {
  curl --silent "${issuer}oauth/token" -d grant_type=client_credentials -d client_id=machine \
    -d client_secret=machine-secret -d audience=https://api.example.com -d "scope=$1" |
    sed 's/.*"access_token":"\([^"]*\)".*/\1/'
}

start embedded --issuer-listen 127.0.0.1:0
issuer=$(sed -n 's/.*embedded issuer on \(http:[^ ]*\).*/\1/p' "$logs/embedded.log")
demo=$pid
reader=$(token read:messages)
writer=$(token write:messages)

expect "/public is open" 200 '"message"' "$api/public"
expect "/private without a token" 401 '^www-authenticate: Bearer realm="api".?$' "$api/private"
expect "/private with one" 200 '"claims":\{.*"sub":"machine@clients"' "$api/private" -H "Authorization: Bearer $reader"
expect "/scoped with its scope" 200 '"claims"' "$api/scoped" -H "Authorization: bearer $reader"
expect "/scoped without" 403 'error="insufficient_scope".*scope="read:messages"' "$api/scoped" -H "Authorization: Bearer $writer"
expect "/readyz" 200 '"keys":1' "$api/readyz"
expect "a changed token" 401 'error="invalid_token"' "$api/private" -H "Authorization: Bearer ${reader%????}AAAA"
expect "two tokens" 400 'error="invalid_request"' "$api/private" -H "Authorization: Bearer $reader" -H "Authorization: Bearer $reader"

"$programs/native_client" --issuer "$issuer" --api "$api" --no-browser >"$logs/native_client.log" 2>&1 || fail "the native client failed"
grep --quiet '^6\.' "$logs/native_client.log" || fail "the native client left out steps"
echo "ok  the native client went through its six steps"

inspect() {
  "$programs/inspect" --issuer "$issuer" --audience "$1" - >"$logs/inspect.log" 2>&1 <<<"$2" || true
  grep --quiet "$3" "$logs/inspect.log" || fail "inspect: expected $3 in: $(cat "$logs/inspect.log")"
  echo "ok  inspect says: $3"
}
inspect https://api.example.com "$reader" '^Accepted'
inspect https://other.example.com "$reader" '^Refused (audience)'
inspect https://api.example.com "${reader%????}AAAA" '^Refused (signature)'
inspect https://api.example.com opaque '^Refused (opaque)'

# The issuer is stopped before an API that trusts it sees its first token.
kill "$demo"
wait "$demo" 2>/dev/null || true
start alone --issuer "$issuer"
alone=$api
expect "issuer stopped: unavailable, not invalid" 503 '^retry-after: 5' "$alone/private" -H "Authorization: Bearer $reader"
expect "issuer stopped: not ready" 503 '"last_error":"' "$alone/readyz"
expect "issuer stopped: still 401 without a token" 401 '^www-authenticate: Bearer' "$alone/private"
start again --issuer-listen "${issuer:7:-1}"
reader=$(token read:messages)
for _ in {1..50}; do
  # The API waits a second after a failed fetch before it tries again.
  curl --silent --fail --output "$logs/answer.log" "$alone/private" -H "Authorization: Bearer $reader" && break
  sleep 0.2
done
expect "issuer back: served again" 200 '"claims"' "$alone/private" -H "Authorization: Bearer $reader"

"$programs/protected_api" --listen "${api:7}" >"$logs/taken.log" 2>&1 && fail "a port that is taken: expected an error"
grep --quiet 'choose another with --listen' "$logs/taken.log" || fail "a port that is taken: expected a sentence"
echo "ok  a port that is taken is said in a sentence"
echo "The demo answers as the README says."
