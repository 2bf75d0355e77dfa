"""An issuer on a free port of 127.0.0.1 that binds tokens to a certificate (RFC 8705 §3.1).

Usage: issuer.py CERTIFICATE

Prints its URL, and a token that is bound to the certificate in the PEM file.
"""

import base64
import hashlib
import json
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from joserfc import jwt
from joserfc.jwk import ECKey

key = ECKey.generate_key("P-256", {"kid": "key-1", "alg": "ES256", "use": "sig"})


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        documents = {
            "/.well-known/openid-configuration": {"issuer": iss, "jwks_uri": f"{iss}/jwks"},
            "/jwks": {"keys": [key.as_dict(private=False)]},
        }
        document = documents.get(self.path)
        body = json.dumps(document).encode()
        self.send_response(200 if document else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
iss = f"http://127.0.0.1:{server.server_port}"
der = ssl.PEM_cert_to_DER_cert(Path(sys.argv[1]).read_text())
thumbprint = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
now = int(time.time())
claims = {
    "iss": iss,
    "aud": "https://api.example.com",
    "sub": "alice",
    "client_id": "client.example",
    "iat": now,
    "exp": now + 3600,
    "cnf": {"x5t#S256": thumbprint},
}
token = jwt.encode({"alg": "ES256", "kid": "key-1", "typ": "at+jwt"}, claims, key)
print(f"ISSUER={iss}")
print(f"TOKEN={token}", flush=True)
server.serve_forever()
