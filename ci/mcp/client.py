"""The Python client, PyPI's mcp, as the registered client `native`.

Usage: python client.py ISSUER SERVER
"""

import asyncio
import http.cookiejar
import json
import sys
import urllib.error
import urllib.request
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx2
from mcp.client import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata

ISSUER, SERVER = sys.argv[1:]
# Where the authorization server redirects to. Nothing listens there: the browser stops before.
REDIRECT = "http://127.0.0.1:49152/callback"
failed = False


def check(name, actual, wanted):
    global failed
    if actual == wanted:
        print(f"ok  Python: {name}")
    else:
        failed = True
        print(f"FAIL Python: {name}: expected {wanted!r}, got {actual!r}")


class Stop(urllib.request.HTTPRedirectHandler):
    """Turns a redirect into an HTTPError, so that the browser follows it by itself."""

    def redirect_request(self, *_):
        return None


def browser(url):
    """Follows the redirects of a sign-in up to the client's; returns the parameters of that."""
    cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
    opener = urllib.request.build_opener(Stop, cookies)
    for _ in range(12):
        if url.startswith(REDIRECT):
            return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        try:
            opener.open(url)
            raise RuntimeError(f"{url} does not redirect")
        except urllib.error.HTTPError as response:
            if "location" not in response.headers:
                raise
            url = urljoin(url, response.headers["location"])
    raise RuntimeError(f"no redirect to {REDIRECT} within 12 hops")


def sign_ins():
    with urllib.request.urlopen(f"{ISSUER}/ci/requests") as response:
        return json.load(response)["signIns"]


class Memory:
    """What the client remembers: its registration and its tokens."""

    def __init__(self):
        self.tokens = None
        self.client = OAuthClientInformationFull(
            client_id="native",
            redirect_uris=[REDIRECT],
            token_endpoint_auth_method="none",
            grant_types=["authorization_code"],
        )

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


memory = Memory()


def provider():
    answer = {}

    async def redirect(url):
        answer.update(await asyncio.to_thread(browser, url))

    async def callback():
        return AuthorizationCodeResult(
            code=answer["code"], state=answer.get("state"), iss=answer.get("iss")
        )

    metadata = OAuthClientMetadata(
        client_name="check",
        redirect_uris=[REDIRECT],
        token_endpoint_auth_method="none",
        grant_types=["authorization_code"],
    )
    return OAuthClientProvider(SERVER, metadata, memory, redirect, callback)


async def main():
    seen = []  # method, Mcp-Method and status of each request

    async def record(response):
        request = response.request
        seen.append((request.method, request.headers.get("mcp-method"), response.status_code))

    async def call(client, tool, arguments=None):
        result = await client.call_tool(tool, arguments or {})
        return result.content[0].text

    async def rejected(client, tool):
        seen.clear()
        try:
            return f"no error: {await call(client, tool)}"
        except Exception:
            return [status for method, _, status in seen if method == "POST"]

    def connection():
        return httpx2.AsyncClient(auth=provider(), event_hooks={"response": [record]}, timeout=20)

    before = len(sign_ins())
    async with connection() as http_client:
        async with Client(streamable_http_client(SERVER, http_client=http_client)) as client:
            check("the first request", seen[0], ("POST", "server/discover", 401))
            requests = sign_ins()[before:]
            check("one sign-in", len(requests), 1)
            check("that requests the scope of the challenge", requests[0]["scope"], "notes:read")
            check("for the resource", requests[0]["resource"], SERVER)
            check("with PKCE", requests[0].get("code_challenge_method"), "S256")

            who = json.loads(await call(client, "whoami"))
            check("whoami: the subject of the token", who["subject"], "alice")
            check("whoami: the client of the token", who["client"], "native")

            before = len(sign_ins())
            note = {"id": "python", "text": "hello"}
            written = "written: notes://python"
            check("write_note: succeeds", await call(client, "write_note", note), written)
            requests = sign_ins()[before:]
            check("write_note: in exactly one further sign-in", len(requests), 1)
            scopes = sorted(requests[0]["scope"].split())
            check("that requests all scopes of the operation", scopes, ["notes:read", "notes:write"])
            check("write_note: succeeds again", await call(client, "write_note", note), written)
            check("write_note: without another sign-in", len(sign_ins()) - before, 1)

            before = len(sign_ins())
            check("admin: one request, 403", await rejected(client, "admin"), [403])

    async with connection() as http_client:
        async with Client(streamable_http_client(SERVER, http_client=http_client)) as client:
            statuses = await rejected(client, "admin")
            check("admin: one request, 403 after another connect", statuses, [403])
    check("admin: no further sign-in", len(sign_ins()) - before, 0)


asyncio.run(main())
sys.exit(failed)
