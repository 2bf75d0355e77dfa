"""Sends opaque tokens of the authorization server in server.py to the demo API.

Usage: check.py ISSUER API SERVER_LOG
"""

import json
import sys
import time
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

issuer, api, server_log = sys.argv[1:]
# Bypasses a proxy of the environment.
opener = build_opener(ProxyHandler({}))
# The demo is started with INTROSPECTION_MAX_AGE=2.
MAX_AGE_SECONDS = 2


def send(request):
    """Returns the status, the headers and the body."""
    try:
        with opener.open(request, timeout=20) as response:
            return response.status, response.headers, response.read().decode()
    except HTTPError as error:
        return error.code, error.headers, error.read().decode()


def basic(client):
    pair = b64encode(f"{client}:{client}-secret".encode()).decode()
    return {"Authorization": f"Basic {pair}"}


def at_issuer(path, client="app", **form):
    return send(Request(issuer + path, urlencode(form).encode(), basic(client)))


def tokens(client="app", **form):
    status, _, body = at_issuer("/oauth/token", client, **form)
    assert status == 200, f"token request: {status} {body}"
    return json.loads(body)


def machine(scope="profile", client="app"):
    return tokens(client, grant_type="client_credentials", scope=scope)["access_token"]


def user(scope):
    return tokens(grant_type="password", username="alice", password="secret", scope=scope)


def call(path, token):
    return send(Request(api + path, headers={"Authorization": f"Bearer {token}"}))


def expect(wanted, found):
    assert found == wanted, f"expected {wanted!r}, found {found!r}"


def rejected(token, status, reason, path="/private"):
    found, headers, _ = call(path, token)
    expect((status, reason), (found, headers["X-Demo-Reason"]))


def questions():
    with open(server_log) as log:
        return log.read().count("POST /oauth/introspect")


def accepted_claims(token):
    status, headers, body = call("/private", token)
    expect((200, None), (status, headers["X-Demo-Reason"]))
    claims = json.loads(body)["claims"]
    expect(issuer, claims["iss"])
    assert "orders-api" in claims["aud"], claims
    return claims


def accepted_token():
    """an opaque token is accepted"""
    token = machine()
    assert "." not in token, "expected an opaque token"
    expect("app", accepted_claims(token)["client_id"])


def verified_jwt():
    """a JWT of the same issuer is verified with its keys"""
    before = questions()
    token = user("openid profile")["access_token"]
    expect(3, len(token.split(".")))
    expect("alice", accepted_claims(token)["sub"])
    expect(before, questions())


def scopes():
    """the scope of the answer counts"""
    expect(200, call("/scoped", machine("profile"))[0])
    rejected(machine("email"), 403, "insufficient_scope", "/scoped")


def unknown():
    """an unknown token is 401, and asked about once"""
    before = questions()
    for _ in range(3):
        rejected("unknown", 401, "inactive")
    expect(before + 1, questions())


def of_another_api():
    """a token for another API only is 401"""
    rejected(machine(client="other-app"), 401, "inactive")


def refresh_token():
    """a refresh token is 401"""
    rejected(user("profile")["refresh_token"], 401, "inactive")


def concurrent():
    """50 concurrent requests with a new token are one question"""
    before, token = questions(), machine()
    with ThreadPoolExecutor(50) as pool:
        statuses = list(pool.map(lambda _: call("/private", token)[0], range(50)))
    expect([200] * 50, statuses)
    expect(before + 1, questions())


def revoked():
    """a revoked token is rejected when its answer ends"""
    token = machine()
    expect(200, call("/private", token)[0])
    expect(200, at_issuer("/oauth/revoke", token=token)[0])
    end = time.monotonic() + MAX_AGE_SECONDS + 5
    while call("/private", token)[0] == 200:
        assert time.monotonic() < end, "still accepted"
        time.sleep(0.1)
    rejected(token, 401, "inactive")


failed = 0
cases = [accepted_token, verified_jwt, scopes, unknown, of_another_api, refresh_token, concurrent, revoked]
for case in cases:
    try:
        case()
        print(f"ok  {case.__doc__}")
    except Exception as error:
        failed += 1
        print(f"FAIL {case.__doc__}: {error}")
print(f"{len(cases) - failed} of {len(cases)} cases passed")
sys.exit(1 if failed else 0)
