"""Calls the example mutual_tls_tonic with grpcio, another implementation of gRPC and of TLS.

Usage: grpc_client.py FOLDER TOKEN

FOLDER has the certificates that the example has written.
"""

import sys
from pathlib import Path

import grpc

folder, token = Path(sys.argv[1]), sys.argv[2]
DESCRIPTION = 'error_description="The access token is bound to a client certificate that the request does not have"'


def call(name):
    """Returns the code of the response, and its challenge."""
    pem = {
        "root_certificates": (folder / "authority.pem").read_bytes(),
        "private_key": name and (folder / f"{name}-key.pem").read_bytes(),
        "certificate_chain": name and (folder / f"{name}.pem").read_bytes(),
    }
    with grpc.secure_channel("localhost:3445", grpc.ssl_channel_credentials(**pem)) as channel:
        # The request is empty, so its encoding and that of the response need no generated code.
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        try:
            response = check(b"", metadata=[("authorization", f"Bearer {token}")], timeout=10)
            assert response == b"\x08\x01", response  # status: SERVING
            return grpc.StatusCode.OK, ""
        except grpc.RpcError as error:
            metadata = [*(error.initial_metadata() or ()), *(error.trailing_metadata() or ())]
            return error.code(), dict(metadata).get("www-authenticate", "")


failed = False
for case, name, expected, description in [
    ("its certificate", "client", grpc.StatusCode.OK, ""),
    ("another certificate", "other", grpc.StatusCode.UNAUTHENTICATED, DESCRIPTION),
    ("no certificate", None, grpc.StatusCode.UNAUTHENTICATED, DESCRIPTION),
]:
    code, challenge = call(name)
    passed = code == expected and description in challenge
    failed |= not passed
    print(f"{'ok ' if passed else 'FAILED'} grpcio, {case}: {code.name}", challenge if not passed else "")
sys.exit(failed)
