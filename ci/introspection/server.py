"""The authorization server of this check: canaille on 127.0.0.1, in memory.

Usage: server.py PORT

`app` gets access tokens for `orders-api`, which may ask about them: opaque ones for itself, and JWTs
for a user. `other-app` gets tokens for itself.
"""

import datetime
import sys

from canaille import create_app
from canaille.app import models
from canaille.backends import Backend
from werkzeug.serving import run_simple

port = int(sys.argv[1])
app = create_app(
    {
        "SECRET_KEY": "only for this check",
        "SERVER_NAME": f"127.0.0.1:{port}",
        "PREFERRED_URL_SCHEME": "http",
        "CANAILLE": {"DATABASE": "memory"},
        "CANAILLE_OIDC": {},
    }
)


def client(name, **more):
    return models.Client(
        client_id=name,
        client_secret=f"{name}-secret",
        client_name=name,
        client_id_issued_at=datetime.datetime.now(datetime.timezone.utc),
        token_endpoint_auth_method="client_secret_basic",
        redirect_uris=["https://app.example/callback"],
        response_types=[],
        **more,
    )


with app.app_context(), Backend.instance.session():
    api = client("orders-api", grant_types=[])
    Backend.instance.save(api)
    caller = client(
        "app",
        grant_types=["client_credentials", "password", "refresh_token"],
        scope=["openid", "profile", "email"],
        id_token_signed_response_alg="RS256",
    )
    caller.audience = [caller, api]
    Backend.instance.save(caller)
    other = client("other-app", grant_types=["client_credentials"], scope=["profile"])
    other.audience = [other]
    Backend.instance.save(other)
    Backend.instance.save(
        models.User(user_name="alice", family_name="Example", emails=["a@example.com"], password="secret")
    )

run_simple("127.0.0.1", port, app, threaded=True)
