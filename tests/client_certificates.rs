//! Access tokens that are bound to a certificate of the client (RFC 8705 §3): which requests are
//! accepted, and what the others are told. The headers of proxies are tested beside their parser.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portcullis::testing::{DpopClient, TestClock, TestIssuer};
use portcullis::{
    AccessToken, CertificateHeader, ClientCertificate, ClientCertificates, Dpop, Error,
    ProtectLayer, ResourceMetadata, Verifier, VerifierBuilder,
};
use serde_json::{Value, json};
use tower::{Layer as _, ServiceExt as _, service_fn};

/// The binding needs only the hash, so anything that is one DER SEQUENCE will do.
const OWN: &[u8] = b"0\x1dthe certificate of the client";
const OTHER: &[u8] = b"0\x0banother one";
const URL: &str = "https://api.example.com/";

struct Api {
    issuer: TestIssuer,
    clock: TestClock,
}

impl Api {
    fn new() -> Self {
        let (issuer, clock) =
            (TestIssuer::offline("https://issuer.example/").unwrap(), TestClock::new());
        issuer.set_clock(&clock);
        Self { issuer, clock }
    }

    fn layer(&self, configure: impl FnOnce(VerifierBuilder) -> VerifierBuilder) -> ProtectLayer {
        let builder = Verifier::builder(self.issuer.issuer()).clock(&self.clock);
        ProtectLayer::new(configure(builder).build().unwrap())
    }

    fn with_certificates(&self) -> ProtectLayer {
        self.layer(|builder| builder.client_certificates(ClientCertificates::from_connection()))
    }
}

fn request(scheme: &str, token: &str) -> Request<Body> {
    let request = Request::get("/").header("authorization", format!("{scheme} {token}"));
    request.body(Body::empty()).unwrap()
}

fn with_certificate(mut request: Request<Body>, der: &[u8]) -> Request<Body> {
    request.extensions_mut().insert(ClientCertificate::from_der(der));
    request
}

fn with_proof(mut request: Request<Body>, proof: &str) -> Request<Body> {
    request.headers_mut().insert("dpop", proof.parse().unwrap());
    request
}

/// The code of the error, or `ok`.
async fn code(layer: &ProtectLayer, request: Request<Body>) -> &'static str {
    response(layer, request).await.extensions().get::<Error>().map_or("ok", Error::code)
}

async fn response(layer: &ProtectLayer, request: Request<Body>) -> Response<Body> {
    let inner = service_fn(async |request: Request<Body>| {
        assert!(request.extensions().get::<AccessToken>().is_some());
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    layer.layer(inner).oneshot(request).await.unwrap()
}

#[tokio::test]
async fn a_bound_token_needs_its_certificate() {
    let api = Api::new();
    let bound = api.issuer.token().bound_to_certificate(OWN).build();
    let unbound = api.issuer.token().build();
    let (with, without) = (api.with_certificates(), api.layer(|builder| builder));
    let (own, other) =
        (|request| with_certificate(request, OWN), |request| with_certificate(request, OTHER));
    let of = |token: &str| request("Bearer", token);
    for (name, layer, request, expected) in [
        ("its certificate", &with, own(of(&bound)), "ok"),
        ("another certificate", &with, other(of(&bound)), "other_certificate"),
        ("no certificate", &with, of(&bound), "certificate_missing"),
        ("a header that is not configured", &with, header(of(&bound), OWN), "certificate_missing"),
        ("an unbound token", &with, of(&unbound), "ok"),
        ("an unbound token with a certificate", &with, own(of(&unbound)), "ok"),
        ("not configured", &without, own(of(&bound)), "sender_constrained"),
    ] {
        // From the second time on, the token is cached.
        for _ in 0..3 {
            assert_eq!(code(layer, copy(&request)).await, expected, "{name}");
        }
    }
    assert_eq!(code(&with, own(request("DPoP", &bound))).await, "missing", "no DPoP configured");
}

fn copy(request: &Request<Body>) -> Request<Body> {
    let mut copy = Request::get("/").body(Body::empty()).unwrap();
    copy.headers_mut().clone_from(request.headers());
    *copy.extensions_mut() = request.extensions().clone();
    copy
}

/// With the header of RFC 9440.
fn header(mut request: Request<Body>, der: &[u8]) -> Request<Body> {
    let value = format!(":{}:", STANDARD.encode(der));
    request.headers_mut().insert("client-cert", value.parse().unwrap());
    request
}

#[tokio::test]
async fn confirmations_are_verified_or_rejected() {
    let api = Api::new();
    let client = DpopClient::new().unwrap();
    let hash = URL_SAFE_NO_PAD.encode(aws_lc_hash(OWN));
    let both = api.layer(|builder| {
        builder
            .client_certificates(ClientCertificates::from_connection())
            .dpop(Dpop::new("https://api.example.com").unwrap())
    });
    let certificates = api.with_certificates();
    let keys = api.layer(|builder| builder.dpop(Dpop::new("https://api.example.com").unwrap()));
    let jkt = client.thumbprint();
    let with_both = json!({ "jkt": jkt, "x5t#S256": hash });
    struct Case<'a> {
        name: &'a str,
        layer: &'a ProtectLayer,
        cnf: Value,
        certificate: &'a [u8],
        expected: &'a str,
    }
    for Case { name, layer, cnf, certificate, expected } in [
        Case {
            name: "both hold",
            layer: &both,
            cnf: with_both.clone(),
            certificate: OWN,
            expected: "ok",
        },
        Case {
            name: "both, the certificate is wrong",
            layer: &both,
            cnf: with_both.clone(),
            certificate: OTHER,
            expected: "other_certificate",
        },
        Case {
            name: "both, the key is wrong",
            layer: &both,
            cnf: json!({ "jkt": hash, "x5t#S256": hash }),
            certificate: OWN,
            expected: "other_key",
        },
        Case {
            name: "both, only certificates configured",
            layer: &certificates,
            cnf: with_both.clone(),
            certificate: OWN,
            expected: "missing",
        },
        Case {
            name: "both, only DPoP configured",
            layer: &keys,
            cnf: with_both,
            certificate: OWN,
            expected: "sender_constrained",
        },
        Case {
            name: "a certificate, sent as DPoP",
            layer: &both,
            cnf: json!({ "x5t#S256": hash }),
            certificate: OWN,
            expected: "not_bound",
        },
        Case {
            name: "an unknown member beside a known one",
            layer: &both,
            cnf: json!({ "jkt": jkt, "kid": "1" }),
            certificate: OWN,
            expected: "ok",
        },
        Case {
            name: "an unknown member alone",
            layer: &both,
            cnf: json!({ "kid": "1" }),
            certificate: OWN,
            expected: "sender_constrained",
        },
        Case {
            name: "a key in place of a hash",
            layer: &both,
            cnf: json!({ "jwk": {} }),
            certificate: OWN,
            expected: "sender_constrained",
        },
        Case {
            name: "empty",
            layer: &both,
            cnf: json!({}),
            certificate: OWN,
            expected: "sender_constrained",
        },
        Case {
            name: "text",
            layer: &both,
            cnf: json!("x"),
            certificate: OWN,
            expected: "sender_constrained",
        },
        Case {
            name: "an array",
            layer: &both,
            cnf: json!([{ "jkt": jkt }]),
            certificate: OWN,
            expected: "sender_constrained",
        },
        Case {
            name: "a short hash",
            layer: &both,
            cnf: json!({ "x5t#S256": "AAAA" }),
            certificate: OWN,
            expected: "sender_constrained",
        },
        Case {
            name: "a hash with padding",
            layer: &both,
            cnf: json!({ "x5t#S256": format!("{hash}=") }),
            certificate: OWN,
            expected: "sender_constrained",
        },
        Case {
            name: "a hash of another type",
            layer: &both,
            cnf: json!({ "jkt": jkt, "x5t#S256": 1 }),
            certificate: OWN,
            expected: "sender_constrained",
        },
        Case {
            name: "null counts as absent",
            layer: &both,
            cnf: json!(null),
            certificate: OWN,
            expected: "not_bound",
        },
    ] {
        let token = api.issuer.token().claim("cnf", cnf).build();
        let proof = client.proof("GET", URL, &token).at(api.clock.now()).build();
        let request = with_certificate(with_proof(request("DPoP", &token), &proof), certificate);
        assert_eq!(code(layer, request).await, expected, "{name}");
    }
    // Sent as a bearer token.
    for (name, layer, token, expected) in [
        (
            "both",
            &both,
            api.issuer.token().bound_to(&client).bound_to_certificate(OWN),
            "sender_constrained",
        ),
        ("a certificate", &both, api.issuer.token().bound_to_certificate(OWN), "ok"),
        (
            "both, only certificates configured",
            &certificates,
            api.issuer.token().bound_to(&client).bound_to_certificate(OWN),
            "sender_constrained",
        ),
    ] {
        let request = with_certificate(request("Bearer", &token.build()), OWN);
        assert_eq!(code(layer, request).await, expected, "{name}");
    }
}

fn aws_lc_hash(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}

#[tokio::test]
async fn with_dpop_required_a_certificate_is_not_enough() {
    let api = Api::new();
    let layer = api.layer(|builder| {
        builder
            .client_certificates(ClientCertificates::from_connection())
            .dpop(Dpop::new("https://api.example.com").unwrap().required())
    });
    let token = api.issuer.token().bound_to_certificate(OWN).build();
    let rejected = response(&layer, with_certificate(request("Bearer", &token), OWN)).await;
    assert_eq!(rejected.extensions().get::<Error>().unwrap().code(), "not_bound");
    let challenges: Vec<_> = rejected.headers().get_all("www-authenticate").iter().collect();
    assert_eq!(challenges.len(), 1);
    assert!(challenges[0].to_str().unwrap().starts_with("DPoP realm=\"api\", error=\"invalid_t"));
}

#[tokio::test]
async fn a_proxy_forwards_the_certificate() {
    let api = Api::new();
    let token = api.issuer.token().bound_to_certificate(OWN).build();
    let forwarded =
        |source: ClientCertificates| api.layer(|builder| builder.client_certificates(source));
    let trusting =
        forwarded(ClientCertificates::forwarded(CertificateHeader::rfc9440(), |request| {
            request.headers.get("x-proxy").is_some_and(|secret| secret == "s3cret")
        }));
    let any =
        forwarded(ClientCertificates::danger_forwarded_by_any_peer(CertificateHeader::rfc9440()));
    let by = forwarded(ClientCertificates::by(|request| {
        request.extensions.get::<Vec<u8>>().map(|der| ClientCertificate::from_der(der))
    }));
    let bare = || request("Bearer", &token);
    let proxied = |mut request: Request<Body>| {
        request.headers_mut().insert("x-proxy", "s3cret".parse().unwrap());
        request
    };
    let mut closure = bare();
    closure.extensions_mut().insert(OWN.to_vec());
    let mut misshapen = bare();
    misshapen.headers_mut().insert("client-cert", "x".parse().unwrap());
    for (name, layer, request, expected) in [
        ("by the proxy", &trusting, proxied(header(bare(), OWN)), "ok"),
        ("another one", &trusting, proxied(header(bare(), OTHER)), "other_certificate"),
        ("by another peer", &trusting, header(bare(), OWN), "certificate_missing"),
        ("misshapen", &trusting, proxied(misshapen), "certificate_missing"),
        (
            "the certificate of the proxy itself",
            &trusting,
            with_certificate(proxied(bare()), OWN),
            "certificate_missing",
        ),
        ("by any peer", &any, header(bare(), OWN), "ok"),
        ("by a closure", &by, closure, "ok"),
        ("by no closure", &by, with_certificate(bare(), OWN), "certificate_missing"),
    ] {
        assert_eq!(code(layer, request).await, expected, "{name}");
    }
}

#[tokio::test]
async fn the_challenge_says_that_the_certificate_is_missing() {
    let api = Api::new();
    let token = api.issuer.token().bound_to_certificate(OWN).build();
    let rejected = response(&api.with_certificates(), request("Bearer", &token)).await;
    assert_eq!(rejected.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        rejected.headers()["www-authenticate"],
        "Bearer realm=\"api\", error=\"invalid_token\", error_description=\"The access token is bound to a client certificate that the request does not have\""
    );
}

#[tokio::test]
async fn nested_layers_check_the_certificate_again() {
    let api = Api::new();
    let layer = api.with_certificates();
    let token = api.issuer.token().bound_to_certificate(OWN).build();
    for (name, between, expected) in
        [("the same", OWN, StatusCode::OK), ("replaced", OTHER, StatusCode::UNAUTHORIZED)]
    {
        let inner =
            service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty())));
        let inner = layer.layer(inner);
        let service = layer.layer(service_fn(move |request| {
            inner.clone().oneshot(with_certificate(request, between))
        }));
        let request = with_certificate(request("Bearer", &token), OWN);
        assert_eq!(service.oneshot(request).await.unwrap().status(), expected, "{name}");
    }
}

#[tokio::test]
async fn without_a_request_bound_tokens_are_rejected() {
    let api = Api::new();
    let builder = Verifier::builder(api.issuer.issuer()).clock(&api.clock);
    let verifier =
        builder.client_certificates(ClientCertificates::from_connection()).build().unwrap();
    let token = api.issuer.token().bound_to_certificate(OWN).build();
    assert_eq!(verifier.verify(&token).await.unwrap_err().code(), "sender_constrained");
    let (parts, ()) = with_certificate(request("Bearer", &token), OWN).map(|_| ()).into_parts();
    let accepted = ProtectLayer::new(verifier).verify_request(&parts).await;
    let accepted = accepted.unwrap().unwrap();
    assert!(accepted.is_bound() && accepted.dpop_proof().is_none());
}

#[test]
fn the_metadata_say_that_tokens_may_be_bound_to_certificates() {
    let issuer = TestIssuer::offline("https://issuer.example/").unwrap();
    let issuer = issuer.issuer().audience("https://api.example.com").unwrap();
    let verifier =
        Verifier::builder(issuer).client_certificates(ClientCertificates::from_connection());
    let metadata = ResourceMetadata::builder("https://api.example.com", &verifier.build().unwrap());
    let document: Value = serde_json::from_str(metadata.build().unwrap().document()).unwrap();
    assert_eq!(document["tls_client_certificate_bound_access_tokens"], true);
}
