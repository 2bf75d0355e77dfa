#!/usr/bin/env bash
# End-to-end check of tokens that are bound to a certificate (RFC 8705). The examples mutual_tls,
# mutual_tls_hyper and mutual_tls_tonic are called as they print it, by curl, `openssl s_client` and
# grpcio. The demo (examples/protected_api) receives the certificate from nginx and HAProxy.
#
# Needs nginx, haproxy, curl, openssl, python3 with venv, and cargo. Everything listens on 127.0.0.1:
# the examples on 3443 to 3445, the others on free ports. Takes half a minute once built. Can be run
# from any directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
  echo "mutual TLS check: $*" >&2
  exit 1
}

export PATH=$PATH:/usr/sbin # where Debian has nginx and haproxy
. ci/requirements.sh
. ci/processes.sh
require "mutual-tls check" nginx haproxy curl openssl venv

work_folder
# start NAME COMMAND...: runs a program in the background. Its output is in $work/NAME.log.
start() {
  : >"$work/$1.log"
  "${@:2}" >"$work/$1.log" 2>&1 &
  pids+=($!)
}

# await NAME PATTERN: waits until the output has a line that matches, at most 30 seconds and while
# the program that was started last is running. Prints the part in parentheses.
await() {
  local found
  for _ in {1..150}; do
    found=$(sed -nE "s~$2~\1~p" "$work/$1.log")
    [ -n "$found" ] && echo "$found" && return
    kill -0 "${pids[-1]}" 2>/dev/null || fail "$1 stopped"
    sleep 0.2
  done
  fail "$1 printed no line that matches $2"
}

# expect NAME STATUS PATTERN COMMAND...: checks the status of a response, and that its headers match.
expect() {
  local answer status
  answer=$("${@:4}" 2>"$work/command.log" | tr -d '\r') || fail "$1: $4 failed"
  # s_client may write the response into a line of its own output.
  status=$(grep --only-matching --max-count 1 'HTTP/1.1 [0-9]*' <<<"$answer" | cut -d ' ' -f 2) || true
  [ "$status" = "$2" ] || fail "$1: expected $2, found $status: $(tail -n 20 <<<"$answer")"
  grep --quiet --ignore-case --extended-regexp "$3" <<<"$answer" || fail "$1: expected $3: $(tail -n 20 <<<"$answer")"
  echo "ok  $1: $2"
}

description='error_description="The access token is bound to a client certificate that the request does not have"'

python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --requirement ci/mutual-tls/requirements.txt ||
  fail "pip install failed"
build_examples mutual_tls mutual_tls_hyper mutual_tls_tonic protected_api
export NO_PROXY=127.0.0.1,localhost no_proxy=127.0.0.1,localhost

# A client that sends nothing. The examples close its connection after ten seconds.
slow() {
  exec 3<>"/dev/tcp/127.0.0.1/$1"
  local status=0
  timeout 20 cat <&3 >/dev/null 2>&1 || status=$?
  [ "$status" -ne 124 ]
}

# The commands are run as they are printed, with each version of TLS.
run() {
  cd "$folder" && eval "$1"
}
# s_client NAME PATH ARGUMENT...: a request with `openssl s_client`. Prints also whether the session
# was resumed.
s_client() {
  printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer %s\r\n\r\n' "$2" "$TOKEN" |
    timeout 10 openssl s_client -connect "localhost:$1" -ign_eof -verify_return_error "${@:3}"
}

slow_pids=()
for example in mutual_tls:3443:/orders mutual_tls_hyper:3444:/; do
  IFS=: read -r name port path <<<"$example"
  start "$name" env TMPDIR="$work" "$programs/$name"
  await "$name" '^(Without a certificate, 401:)$' >/dev/null
  folder=$(await "$name" '^cd (.*)')
  TOKEN=$(await "$name" '^TOKEN=(.*)')
  slow "$port" &
  slow_pids+=($!)

  commands=0
  while read -r line && read -r command; do
    [[ $line =~ ^(.*),\ ([0-9]+):$ ]] || fail "$name: expected a command with its status, found $line"
    case=${BASH_REMATCH[1]} status=${BASH_REMATCH[2]}
    [ "$status" = 200 ] && pattern='HTTP/1.1 200' || pattern=$description
    for version in "--tlsv1.2 --tls-max 1.2" --tlsv1.3; do
      expect "$name, $case, ${version:2:7}" "$status" "$pattern" run "$command --silent --max-time 10 $version"
    done
    commands=$((commands + 1))
  done < <(grep -v -e '^cd ' -e '^TOKEN=' "$work/$name.log")
  [ "$commands" -eq 3 ] || fail "$name: expected three commands, found $commands"

  for version in tls1_2 tls1_3; do
    session=$work/$name-$version.pem
    server=("$port" "$path" -CAfile "$folder/authority.pem" "-$version")
    client=(-cert "$folder/client.pem" -key "$folder/client-key.pem")
    expect "$name, a new session, $version" 200 '^New, TLSv' s_client "${server[@]}" "${client[@]}" -sess_out "$session"
    # The session has the certificate, so the client need not send it again.
    expect "$name, a resumed session, $version" 200 '^Reused, TLSv' s_client "${server[@]}" -sess_in "$session"
    session=$work/$name-$version-other.pem
    client=(-cert "$folder/other.pem" -key "$folder/other-key.pem")
    expect "$name, a new session of another client, $version" 401 "$description" s_client "${server[@]}" "${client[@]}" -sess_out "$session"
    expect "$name, a resumed session of another client, $version" 401 '^Reused, TLSv' s_client "${server[@]}" -sess_in "$session"
  done
done

start mutual_tls_tonic env TMPDIR="$work" "$programs/mutual_tls_tonic"
TOKEN=$(await mutual_tls_tonic '^TOKEN=(.*)')
folder=$(await mutual_tls_tonic '^cd (.*)')
slow 3445 &
slow_pids+=($!)
for line in "with the client's certificate: Ok(" "with another certificate: Err(Unauthenticated)" "without a certificate: Err(Unauthenticated)"; do
  grep --quiet --fixed-strings "$line" "$work/mutual_tls_tonic.log" || fail "mutual_tls_tonic: expected $line"
  echo "ok  mutual_tls_tonic, ${line%%:*}"
done
"$work/venv/bin/python" ci/mutual-tls/grpc_client.py "$folder" "$TOKEN" || fail "some cases of grpcio failed"

# The demo behind proxies. Clients have self-signed certificates.
for name in server client other; do
  openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj "/CN=$name" -addext subjectAltName=DNS:localhost \
    -keyout "$work/$name-key.pem" -out "$work/$name.pem" 2>"$work/openssl.log" ||
    fail "openssl created no certificate: $(tail -n 3 "$work/openssl.log")"
done
start issuer "$work/venv/bin/python" ci/mutual-tls/issuer.py "$work/client.pem"
issuer=$(await issuer '^ISSUER=(.*)')
TOKEN=$(await issuer '^TOKEN=(.*)')

# Open all sockets at the same time, so that the ports differ.
read -r nginx rfc9440 envoy < <(python3 -c '
import socket
ports = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(port.getsockname()[1] for port in ports))
') || fail "no free ports"
declare -A demos
for form in nginx:ssl-client-cert rfc9440 envoy; do
  start "demo-${form%:*}" env CLIENT_CERTIFICATE="$form" "$programs/protected_api" --listen 127.0.0.1:0 --issuer "$issuer"
  demos[${form%:*}]=$(await "demo-${form%:*}" '^API on http://([^,]*),.*')
done

cat >"$work/nginx.conf" <<CONF
daemon off;
master_process off;
pid $work/nginx.pid;
error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path $work/nginx;
  proxy_temp_path $work/nginx;
  fastcgi_temp_path $work/nginx;
  uwsgi_temp_path $work/nginx;
  scgi_temp_path $work/nginx;
  server {
    listen 127.0.0.1:$nginx ssl;
    ssl_certificate $work/server.pem;
    ssl_certificate_key $work/server-key.pem;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:sessions:1m;
    # Also self-signed certificates.
    ssl_verify_client optional_no_ca;
    location / {
      proxy_pass http://${demos[nginx]};
      # Without a certificate the value is empty, and nginx sends no such header.
      proxy_set_header ssl-client-cert \$ssl_client_escaped_cert;
    }
  }
}
CONF
start nginx nginx -e stderr -c "$work/nginx.conf"

cat "$work/server.pem" "$work/server-key.pem" >"$work/server-both.pem"
cat "$work/client.pem" "$work/other.pem" >"$work/clients.pem"
cat >"$work/haproxy.cfg" <<CONF
defaults
  mode http
  timeout client 10s
  timeout connect 10s
  timeout server 10s
frontend rfc9440
  bind 127.0.0.1:$rfc9440 ssl crt $work/server-both.pem ca-file $work/clients.pem verify optional
  http-request del-header Client-Cert
  # Unlike ssl_fc_has_crt, ssl_c_used is also true in a resumed session.
  http-request set-header Client-Cert :%[ssl_c_der,base64]: if { ssl_c_used }
  default_backend rfc9440
backend rfc9440
  server demo ${demos[rfc9440]}
# As Envoy writes it, with SANITIZE_SET.
frontend envoy
  bind 127.0.0.1:$envoy ssl crt $work/server-both.pem ca-file $work/clients.pem verify optional
  http-request del-header X-Forwarded-Client-Cert
  http-request set-header X-Forwarded-Client-Cert Hash=%[ssl_c_der,sha2(256),hex,lower];Subject=\"CN=%{+Q}[ssl_c_s_dn(CN)]\" if { ssl_c_used }
  default_backend envoy
backend envoy
  server demo ${demos[envoy]}
CONF
start haproxy haproxy -db -f "$work/haproxy.cfg"

certificate() {
  openssl x509 -in "$work/client.pem" "$@"
}
escaped=$(python3 -c 'import sys, urllib.parse as p; print(p.quote(open(sys.argv[1]).read(), safe=""))' "$work/client.pem")
declare -A forged=(
  [nginx]="ssl-client-cert: $escaped"
  [rfc9440]="Client-Cert: :$(certificate -outform der | base64 --wrap 0):"
  [envoy]="X-Forwarded-Client-Cert: Hash=$(certificate -noout -fingerprint -sha256 | sed 's/.*=//; s/://g')"
)
call=(curl --silent --include --max-time 10 --cacert "$work/server.pem" --retry 20 --retry-connrefused --retry-delay 1
  --header "Authorization: Bearer $TOKEN")
own=(--cert "$work/client.pem" --key "$work/client-key.pem")
other=(--cert "$work/other.pem" --key "$work/other-key.pem")
for proxy in "nginx $nginx" "rfc9440 $rfc9440" "envoy $envoy"; do
  read -r form port <<<"$proxy"
  url=https://localhost:$port/private
  for version in "--tlsv1.2 --tls-max 1.2" --tlsv1.3; do
    read -r -a tls <<<"$version"
    name="the form $form, ${version:2:7}"
    expect "$name, its certificate" 200 '"sub":"alice"' "${call[@]}" "${tls[@]}" "${own[@]}" "$url"
    expect "$name, another certificate" 401 'x-demo-reason: other_certificate' "${call[@]}" "${tls[@]}" "${other[@]}" "$url"
    expect "$name, no certificate" 401 'x-demo-reason: certificate_missing' "${call[@]}" "${tls[@]}" "$url"
  done
  name="the form $form"
  expect "$name, a forged header, no certificate" 401 'x-demo-reason: certificate_missing' "${call[@]}" --header "${forged[$form]}" "$url"
  expect "$name, a forged header, another certificate" 401 'x-demo-reason: other_certificate' "${call[@]}" --header "${forged[$form]}" "${other[@]}" "$url"
  # The demo trusts its own machine, so without the proxy the same header is accepted.
  expect "$name, the same header without the proxy" 200 '"sub":"alice"' "${call[@]}" --header "${forged[$form]}" "http://${demos[$form]}/private"
  for version in tls1_2 tls1_3; do
    session=$work/$form-$version.pem
    server=("$port" /private -CAfile "$work/server.pem" "-$version")
    expect "$name, a new session, $version" 200 '^New, TLSv' s_client "${server[@]}" -cert "$work/client.pem" -key "$work/client-key.pem" -sess_out "$session"
    expect "$name, a resumed session, $version" 200 '^Reused, TLSv' s_client "${server[@]}" -sess_in "$session"
  done
done
if grep --quiet unreadable "$work"/demo-*.log; then fail "a proxy sent a header of another form"; fi

for pid in "${slow_pids[@]}"; do
  wait "$pid" || fail "an example did not close the connection of a client that sends nothing"
done
echo "ok  clients that send nothing are disconnected"

echo "Bound tokens need their certificate, at the examples and behind $(nginx -v 2>&1 | sed 's/.*: //') and HAProxy."
