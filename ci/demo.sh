#!/usr/bin/env bash
# End-to-end check of the demo: processes on loopback, called with curl. Checks the responses of the
# README's table, also to browsers of other origins; the native client through all its steps, also
# with tokens that are bound to a key; the issuer stopped before its first use and started again;
# the API told of sign-outs; invalid flags; and Ctrl-C.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  echo "demo check: $*" >&2
  exit 1
}

. ci/requirements.sh
. ci/processes.sh
require "demo check" curl

build_examples protected_api native_client inspect api_keys
work_folder

# start NAME [ARGUMENT...]: starts a demo, waits until it listens, and sets `pid` and `api`.
start() {
  local log=$work/$1.log
  # Now, because the process in the background may be slower than the first reader.
  : >"$log"
  "$programs/protected_api" --listen 127.0.0.1:0 "${@:2}" >"$log" 2>&1 &
  pid=$!
  pids+=("$pid")
  for _ in {1..100}; do
    api=$(sed -n 's/^API on \(http:[^,]*\),.*/\1/p' "$log")
    [ -n "$api" ] && return
    kill -0 "$pid" 2>/dev/null || fail "the demo stopped"
    sleep 0.1
  done
  fail "the demo did not print its address"
}

# expect NAME STATUS PATTERN [CURL-ARGUMENT...]: sends a request, and checks the status and that the
# response matches the regular expression.
expect() {
  local answer status
  answer=$(curl --silent --include --max-time 10 "${@:4}") || fail "$1: curl failed with $?"
  status=$(head -n 1 <<<"$answer" | cut -d ' ' -f 2)
  [ "$status" = "$2" ] || fail "$1: expected $2, found $status: $answer"
  grep --quiet --extended-regexp --ignore-case "$3" <<<"$answer" || fail "$1: expected $3 in: $answer"
  echo "ok  $1"
}

token() {
  curl --silent "${issuer}oauth/token" -d grant_type=client_credentials -d client_id=machine \
    -d client_secret=machine-secret -d "audience=${audience:-https://api.example.com}" -d "scope=$1" \
    ${format:+-d "token_format=$format"} |
    sed 's/.*"access_token":"\([^"]*\)".*/\1/'
}

start embedded --issuer-listen 127.0.0.1:0
issuer=$(sed -n 's/.*embedded issuer on \(http:[^ ]*\).*/\1/p' "$work/embedded.log")
demo=$pid
reader=$(token read:messages)
writer=$(token write:messages)

expect "/public is open" 200 '"message"' "$api/public"
expect "/private without a token" 401 '^www-authenticate: Bearer realm="api", resource_metadata="[^"]*".?$' "$api/private"
expect "/private with a token" 200 '"claims":\{.*"sub":"machine@clients"' "$api/private" -H "Authorization: Bearer $reader"
expect "/scoped with its scope" 200 '"claims"' "$api/scoped" -H "Authorization: bearer $reader"
expect "/scoped without its scope" 403 'error="insufficient_scope".*scope="read:messages"' "$api/scoped" -H "Authorization: Bearer $writer"
expect "the metadata of the API" 200 "\"authorization_servers\":\[\"$issuer\"\]" "$api/.well-known/oauth-protected-resource"
expect "a token for the URL of the API" 200 '"claims"' "$api/private" -H "Authorization: Bearer $(audience="$api" token read:messages)"
expect "/readyz" 200 '"keys":1' "$api/readyz"
expect "the reason, for the page" 401 '^x-demo-reason: bad_signature' "$api/private" -H "Authorization: Bearer ${reader%????}AAAA"
expect "a changed token" 401 'error="invalid_token"' "$api/private" -H "Authorization: Bearer ${reader%????}AAAA"
opaque=$(format=opaque token read:messages)
grep --quiet '^demo_at_' <<<"$opaque" || fail "expected an opaque token, found $opaque"
expect "an opaque token" 200 '"claims":\{"active":true' "$api/scoped" -H "Authorization: Bearer $opaque"
expect "an unknown opaque token" 401 '^x-demo-reason: inactive' "$api/private" -H "Authorization: Bearer ${opaque}x"
expect "an opaque token of another issuer" 401 '^x-demo-reason: opaque' "$api/private" -H "Authorization: Bearer ory_at_x"
expect "introspection needs the API's credentials" 401 'invalid_client' "${issuer}oauth/introspect" -d "token=$opaque"
expect "two tokens" 400 'error="invalid_request"' "$api/private" -H "Authorization: Bearer $reader" -H "Authorization: Bearer $reader"

# CORS for pages of other origins, and the headers of the demo's own page.
origin=(-H "Origin: https://elsewhere.example")
preflight=(-X OPTIONS -H "Access-Control-Request-Method: GET" -H "Access-Control-Request-Headers: authorization, dpop")
expect "a preflight needs no token" 200 '^access-control-allow-headers: authorization,dpop' "$api/private" "${origin[@]}" "${preflight[@]}"
expect "any origin may read the response" 401 '^access-control-allow-origin: \*' "$api/private" "${origin[@]}"
expect "any origin may read the challenge" 401 '^access-control-expose-headers: .*www-authenticate' "$api/private" "${origin[@]}"
expect "any origin may read the nonce" 401 '^access-control-expose-headers: .*dpop-nonce' "$api/private" "${origin[@]}"
policy="default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' ${issuer%/}; "
policy+="base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
expect "the page allows only its own files and the issuer" 200 "^content-security-policy: $policy.?$" "$api/"
expect "the state of the keys" 200 '"issuer_running":true' "$api/demo/health"
expect "no operator action without the page's header" 403 'X-Demo' -X POST "$api/demo/issuer/rotate"
expect "no operator action without it from the page itself" 403 'X-Demo' -X POST "$api/demo/issuer/rotate" -H "Origin: $api"
expect "no operator action from another page" 403 'Origin' -X POST "$api/demo/issuer/rotate" "${origin[@]}" -H "X-Demo: 1"
expect "an invalid token for the page" 200 '"token":"ey' -X POST "$api/demo/token/expired" -H "Origin: $api" -H "X-Demo: 1"
lever=(-X OPTIONS -H "Access-Control-Request-Method: POST" -H "Access-Control-Request-Headers: x-demo")
allowed=$(curl --silent --include "$api/demo/issuer/rotate" "${origin[@]}" "${lever[@]}")
grep --quiet --ignore-case '^access-control-allow' <<<"$allowed" && fail "operator action: the preflight of another page is allowed: $allowed"
echo "ok  no preflight allows an operator action"
expect "an invalid token without a browser" 200 '"token":"ey' -X POST "$api/demo/token/expired" -H "X-Demo: 1"
expect "an unknown case" 404 '"error"' -X POST "$api/demo/token/x" -H "X-Demo: 1"
expect "an unknown operator action" 404 '"error"' -X POST "$api/demo/issuer/x" -H "X-Demo: 1"

# native NAME [ARGUMENT...]: runs the native client. Its output is in the log of that name.
native() {
  "$programs/native_client" --issuer "$issuer" --api "$api" --no-browser "${@:2}" >"$work/$1.log" 2>&1
}
native bearer || fail "the native client failed"
grep --quiet '^6\.' "$work/bearer.log" || fail "the native client skipped steps"
echo "ok  the native client completed its six steps"

# Tokens that are bound to a key. Copies of one: without the key, with another one, and with a
# recorded proof.
native dpop --dpop || fail "the native client with DPoP failed"
reasons=$(sed -n 's/^ *x-demo-reason: //p' "$work/dpop.log" | tr '\n' ' ')
[ "$reasons" = "sender_constrained other_key proof_used " ] || fail "copies of a token: found $reasons"
echo "ok  the native client with DPoP: each copy of its token is rejected"
embedded=$api
start bound --issuer "$issuer" --dpop require --dpop-nonce-secret "$(head -c 32 /dev/urandom | base64 | tr '+/' '-_')"
expect "DPoP required: a bearer token" 401 '^x-demo-reason: not_bound' "$api/private" -H "Authorization: Bearer $reader"
native nonce --dpop || fail "the native client failed at an API with nonces"
[ "$(grep --count use_dpop_nonce "$work/nonce.log")" = 1 ] || fail "nonces: expected one request without"
echo "ok  nonces: the native client sends them once it knows one"
start off --issuer "$issuer" --dpop off
native off --dpop && fail "DPoP off: expected that a bound token is rejected"
grep --quiet '^error: GET /private: expected 200, found 401' "$work/off.log" || fail "DPoP off: expected 401"
native unbound || fail "DPoP off: the native client failed"
echo "ok  DPoP off: bearer tokens only"
api=$embedded
expect "an operator action" 200 'signed with key-2' -X POST "$api/demo/issuer/rotate" -H "X-Demo: 1"

# Sign-out: the issuer tells the API, which rejects the tokens from then on.
start signout --issuer-listen 127.0.0.1:0 --events-authorization 'Bearer stream-secret'
signout=$api
own=$(sed -n 's/.*embedded issuer on \(http:[^ ]*\).*/\1/p' "$work/signout.log")
# sign_in: the token response of a new session, with the verifier of RFC 7636, appendix B.
sign_in() {
  local code
  code=$(curl --silent --output /dev/null --write-out '%{redirect_url}' --get "${own}authorize" -d response_type=code \
    -d client_id=single-page-app --data-urlencode "redirect_uri=$signout/" -d audience=https://api.example.com \
    --data-urlencode 'scope=openid offline_access' -d code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM \
    -d code_challenge_method=S256 -d prompt=none | sed 's/.*[?&]code=\([^&]*\).*/\1/')
  curl --silent "${own}oauth/token" -d grant_type=authorization_code -d client_id=single-page-app -d "code=$code" \
    --data-urlencode "redirect_uri=$signout/" -d code_verifier=dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk
}
member() { sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/"; }
# What the issuer sent: `logout` or `event`.
sent() { sed "s/.*\"$1\":{[^}]*\"token\":\"\([^\"]*\)\".*/\1/" <<<"$told"; }
first=$(sign_in)
second=$(sign_in)
first_token=$(member access_token <<<"$first")
second_token=$(member access_token <<<"$second")
expect "a token of a session" 200 '"sid":"[A-Za-z0-9_-]{43}"' "$signout/private" -H "Authorization: Bearer $first_token"
expect "sign-out needs an ID token" 400 'id_token_hint' "${own}oauth/logout" -d "id_token_hint=$first_token"
told=$(curl --silent "${own}oauth/logout" --data-urlencode "id_token_hint=$(member id_token <<<"$first")")
grep --quiet '"event":{"status":202,.*"logout":{"status":200,' <<<"$told" || fail "sign-out: expected 202 and 200 of the API: $told"
echo "ok  sign-out: the API accepts the logout token and the security event"
expect "signed out: the token" 401 '^x-demo-reason: revoked' "$signout/private" -H "Authorization: Bearer $first_token"
expect "signed out: the refresh token" 400 'invalid_grant' "${own}oauth/token" -d grant_type=refresh_token \
  -d client_id=single-page-app -d "refresh_token=$(member refresh_token <<<"$first")"
expect "signed out: another session is not" 200 '"claims"' "$signout/private" -H "Authorization: Bearer $second_token"
logout=$(sent logout)
event=$(sent event)
expect "/backchannel-logout: the same logout token again" 200 '^cache-control: no-store' "$signout/backchannel-logout" -d "logout_token=$logout"
expect "/backchannel-logout: a forged one" 400 '"error":"invalid_request"' "$signout/backchannel-logout" -d "logout_token=${logout%????}AAAA"
expect "/backchannel-logout: an access token" 400 '"error":"invalid_request"' "$signout/backchannel-logout" -d "logout_token=$second_token"
expect "/backchannel-logout: not a form" 415 '^cache-control: no-store' "$signout/backchannel-logout" -H 'Content-Type: application/json' -d '{}'
# push NAME STATUS PATTERN AUTHORIZATION EVENT
push() {
  expect "/events: $1" "$2" "$3" "$signout/events" -H 'Content-Type: application/secevent+jwt' ${4:+-H "Authorization: $4"} --data-raw "$5"
}
push "the same event again" 202 '^cache-control: no-store' 'Bearer stream-secret' "$event"
push "a forged one" 400 '"err":"invalid_key"' 'Bearer stream-secret' "${event%????}AAAA"
push "a logout token" 400 '"err":"invalid_request"' 'Bearer stream-secret' "$logout"
push "another Authorization" 400 '"err":"authentication_failed"' 'Bearer guessed' "$event"
push "no Authorization" 400 '"err":"authentication_failed"' '' "$event"
curl --silent --output /dev/null "${own}oauth/logout" -d everywhere=true --data-urlencode "id_token_hint=$(member id_token <<<"$second")"
expect "signed out everywhere: another session as well" 401 '^x-demo-reason: revoked' "$signout/private" -H "Authorization: Bearer $second_token"
start client --issuer "$own" --logout-audience orders-web
expect "/backchannel-logout: of another client" 400 '"error":"invalid_request"' "$api/backchannel-logout" -d "logout_token=$logout"
expect "/events is off without --events-audience" 404 '^HTTP' -X POST "$api/events"
api=$embedded

inspect() {
  "$programs/inspect" --issuer "$issuer" --audience "$1" - >"$work/inspect.log" 2>&1 <<<"$2" || true
  grep --quiet "$3" "$work/inspect.log" || fail "inspect: expected $3 in: $(cat "$work/inspect.log")"
  echo "ok  inspect prints: $3"
}
inspect https://api.example.com "$reader" '^Accepted'
inspect https://other.example.com "$reader" '^Rejected (wrong_audience)'
inspect https://api.example.com "${reader%????}AAAA" '^Rejected (bad_signature)'
inspect https://api.example.com opaque '^Rejected (opaque)'
key=$("$programs/api_keys" generate demo_key | sed --quiet 's/^key.* //p')
inspect https://api.example.com "$key" '^error: an API key'

# Stop the issuer before an API that trusts it receives its first token.
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
  curl --silent --fail --output "$work/answer.log" "$alone/private" -H "Authorization: Bearer $reader" && break
  sleep 0.2
done
expect "issuer back: served again" 200 '"claims"' "$alone/private" -H "Authorization: Bearer $reader"

# refused NAME PATTERN ARGUMENT...: checks that the demo does not start and prints the reason.
refused() {
  timeout 10 "$programs/protected_api" "${@:3}" >"$work/refused.log" 2>&1 && fail "$1: expected an error"
  grep --quiet -- "$2" "$work/refused.log" || fail "$1: expected $2 in: $(cat "$work/refused.log")"
  echo "ok  $1: the error explains it"
}
free=(--listen 127.0.0.1:0 --issuer-listen 127.0.0.1:0)
refused "a port in use" 'choose another with --listen' --listen "${api:7}"
refused "the issuer's port in use" 'choose another with --issuer-listen' --listen 127.0.0.1:0 --issuer-listen "${api:7}"
refused "an invalid address" 'cannot listen on nowhere' --listen nowhere
refused "an unknown flag" "unexpected argument '--lissten'" --lissten 127.0.0.1:0
refused "an invalid scope" 'expected printable ASCII' "${free[@]}" --required-scope 'a"b'
refused "an issuer without https" 'https' --listen 127.0.0.1:0 --issuer http://issuer.example/
refused "a key set without its issuer" '--issuer' "${free[@]}" --jwks-uri http://127.0.0.1:1/
refused "an issuer's port with another issuer" 'cannot be used with' "${free[@]}" --issuer http://127.0.0.1:1/
refused "introspection without credentials" '--introspection-client-id' --listen 127.0.0.1:0 --issuer http://127.0.0.1:1/ --introspection
refused "credentials without introspection" '--introspection' --listen 127.0.0.1:0 --issuer http://127.0.0.1:1/ \
  --introspection-client-id x --introspection-client-secret x
refused "introspection of two issuers" 'one --issuer' --listen 127.0.0.1:0 --issuer http://127.0.0.1:1/,http://127.0.0.1:2/ \
  --introspection --introspection-client-id x --introspection-client-secret x
refused "a client without its issuer" '--issuer' "${free[@]}" --client-id x
refused "a lifetime of zero" '1..=86400' "${free[@]}" --keys-max-age 0
refused "an unknown mode of DPoP" 'off, accept, require' "${free[@]}" --dpop on
refused "an invalid public URL" '--public-url: .*https or http' "${free[@]}" --public-url api.example.com
refused "a short secret of nonces" '--dpop-nonce-secret: .*32 bytes' "${free[@]}" --dpop-nonce-secret c2VjcmV0
refused "a secret of nonces that is not base64url" '--dpop-nonce-secret: .*base64url' "${free[@]}" --dpop-nonce-secret 'a+b'
refused "an Authorization without events" '--events-audience' --listen 127.0.0.1:0 --issuer http://127.0.0.1:1/ --events-authorization x
refused "an invalid Authorization" '--events-authorization: ' "${free[@]}" --events-authorization $'a\nb'
refused "an empty client of logout tokens" '--logout-audience' "${free[@]}" --logout-audience ''
refused "nonces without DPoP" '--dpop off' "${free[@]}" --dpop off --dpop-nonce-secret c2VjcmV0
grep --quiet c2VjcmV0 <<<"$(DPOP_NONCE_SECRET=c2VjcmV0 "$programs/protected_api" --help)" && fail "--help: expected no secret"
grep --quiet c2VjcmV0 <<<"$(EVENTS_AUTHORIZATION=c2VjcmV0 "$programs/protected_api" --help)" && fail "--help: expected no secret"
echo "ok  --help prints no secret"
grep --quiet 'With a tenant of yours' <<<"$("$programs/protected_api" --help)" || fail "--help: expected examples"
echo "ok  --help has examples"

kill -INT "$pid"
for _ in {1..50}; do
  kill -0 "$pid" 2>/dev/null || break
  sleep 0.1
done
wait "$pid" || fail "Ctrl-C: expected status 0, found $?"
echo "ok  Ctrl-C stops it"
start after --issuer-listen "${issuer:7:-1}"
echo "ok  its issuer's port is free immediately"
echo "The demo behaves as the README describes."
