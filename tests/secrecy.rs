//! Tokens and claims are not disclosed. A single test in its file: a thread's subscriber misses
//! events whose call sites another thread reached first.

use std::convert::Infallible;
use std::io::Write;
use std::sync::{Arc, Mutex};

use http::header::AUTHORIZATION;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use portcullis::testing::{Behavior, DpopClient, TestIssuer, TokenBuilder};
use portcullis::{
    AccessToken, Algorithm, CertificateHeader, ClientAuth, ClientCertificate, ClientCertificates,
    Dpop, Introspection, Issuer, Issuers, Nonces, ProtectLayer, Verifier,
};
use tower::{Layer, ServiceExt, service_fn};

type Body = Full<bytes::Bytes>;

async fn answer(layer: &ProtectLayer, token: &str) -> Response<Body> {
    let request =
        Request::builder().header(AUTHORIZATION, format!("Bearer {token}")).body(()).unwrap();
    let inner =
        service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(Body::default())) });
    layer.layer(inner).oneshot(request).await.unwrap()
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Bodies, headers and the logs of all crates contain no token and no claim.
#[tokio::test]
async fn responses_and_logs_contain_no_token_and_no_claim() {
    struct Case {
        name: &'static str,
        token: TokenBuilder,
        status: u16,
    }

    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let issuer = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
    let layer = ProtectLayer::new(Verifier::new(issuer.issuer()).unwrap()).scope("orders:read");
    let token = || {
        issuer
            .token()
            .subject("CANARY")
            .scope("CANARY")
            .claim("name", "CANARY")
            .claim("client_id", "CANARY")
    };
    let tokens = [
        Case { name: "valid", token: token().scope("orders:read CANARY"), status: 200 },
        Case { name: "no scope", token: token(), status: 403 },
        Case { name: "wrong_audience", token: token().audience("CANARY"), status: 401 },
        Case { name: "issuer", token: token().issued_by("CANARY"), status: 401 },
        Case { name: "type of a claim", token: token().claim("exp", "CANARY"), status: 401 },
        Case { name: "payload", token: token().payload("{\"CANARY\":CANARY}"), status: 401 },
        Case { name: "expired", token: token().expired(), status: 401 },
        Case { name: "forged", token: token().tampered(), status: 401 },
        Case { name: "key", token: token().header("kid", "unknown"), status: 401 },
        Case { name: "sender-constrained", token: token().claim("cnf", "CANARY"), status: 401 },
    ];
    for Case { name, token, status } in tokens {
        let token = token.build();
        let response = answer(&layer, &token).await;
        assert_eq!(response.status(), status, "{name}");
        let headers = format!("{:?}", response.headers());
        let body = if status == 200 {
            vec![]
        } else {
            response.into_body().collect().await.unwrap().to_bytes().to_vec()
        };
        let log = log.0.lock().unwrap();
        let log = String::from_utf8_lossy(&log);
        for secret in ["CANARY"].into_iter().chain(token.split('.').skip(1)) {
            for (place, text) in
                [("headers", &*headers), ("body", &*String::from_utf8_lossy(&body)), ("log", &*log)]
            {
                assert!(!text.contains(secret), "{name}: {secret} in {place}:\n{text}");
            }
        }
    }
    // A lookup that returns another issuer, and one that fails.
    let wrong = Issuers::lookup(|_| Issuer::new("https://other.example/", "x").ok());
    let broken = Issuers::lookup_async(|_| async { Err::<Option<Issuer>, _>("away") });
    for issuers in [wrong, broken] {
        let (layer, token) = (
            ProtectLayer::new(Verifier::new(issuers).unwrap()),
            token().issued_by("CANARY").build(),
        );
        assert!(!answer(&layer, &token).await.status().is_success());
    }
    // Opaque tokens, and the API's own secret: accepted, rejected, and not answered about.
    let auth = ClientAuth::client_secret("orders-api", "CANARY");
    let introspection = Introspection::new(auth);
    let asked = issuer.issuer().introspection(introspection.clone());
    let verifier = Verifier::new(asked.clone()).unwrap();
    let layer = ProtectLayer::new(verifier.clone());
    let good = issuer.opaque_token(token());
    let debug = format!("{introspection:?} {asked:?} {verifier:?}");
    assert!(!debug.contains("CANARY"), "{debug}");
    for (token, behavior, status) in [
        (&*good, Behavior::Serve, 200),
        ("CANARY-1", Behavior::Serve, 401),
        ("CANARY-2", Behavior::Status(401), 503),
        ("CANARY-3", Behavior::Body("{\"active\":\"CANARY\"}".to_owned()), 503),
        ("CANARY-4", Behavior::Body("{\"active\":true,\"aud\":\"CANARY\"}".to_owned()), 401),
        ("CANARY-5", Behavior::Close, 503),
    ] {
        issuer.set_introspection_behavior(behavior);
        let response = answer(&layer, token).await;
        assert_eq!(response.status(), status, "{token}");
        assert!(!format!("{:?}", response.headers()).contains("CANARY"), "{token}");
        let health = format!("{:?}", verifier.health());
        assert!(!health.contains("CANARY"), "{token}: {health}");
    }
    // Proofs, nonces and certificates: accepted, and rejected for each reason that reads them.
    let client = DpopClient::new().unwrap();
    let dpop = Dpop::new("https://api.example.com").unwrap();
    let dpop = dpop.nonces(Nonces::new([b"CANARY".repeat(8)]).unwrap());
    let header = CertificateHeader::rfc9440();
    let certificates = ClientCertificates::danger_forwarded_by_any_peer(header);
    let builder = Verifier::builder(issuer.issuer()).dpop(dpop.clone());
    let verifier = builder.client_certificates(certificates.clone()).build().unwrap();
    verifier.warm_up().await.unwrap();
    let layer = ProtectLayer::new(verifier.clone());
    let key = token().bound_to(&client).build();
    let certificate = token().bound_to_certificate(b"CANARY").build();
    let send = async |scheme: &str, token: &str, proof: &str| {
        let request = Request::get("/").header(AUTHORIZATION, format!("{scheme} {token}"));
        let request = request.header("dpop", proof).header("client-cert", "CANARY");
        let inner = service_fn(async |request: Request<()>| {
            let verified = request.extensions().get::<AccessToken>().unwrap();
            let debug = format!("{verified:?} {:?}", verified.dpop_proof());
            assert!(!debug.contains("CANARY") && !debug.contains("eyJ"), "{debug}");
            Ok::<_, Infallible>(Response::new(Body::default()))
        });
        let response = layer.layer(inner).oneshot(request.body(()).unwrap()).await.unwrap();
        let headers = format!("{:?}", response.headers());
        assert!(!headers.contains("CANARY") && !headers.contains("eyJ"), "{headers}");
        let nonce = response.headers().get("dpop-nonce");
        (response.status().as_u16(), nonce.map(|nonce| nonce.to_str().unwrap().to_owned()))
    };
    let proof = || client.proof("GET", "https://api.example.com/", &key).claim("jti", "CANARY");
    let (status, nonce) = send("DPoP", &key, &proof().nonce("CANARY").build()).await;
    assert_eq!(status, 401);
    let with_nonce = || proof().nonce(nonce.as_deref().unwrap());
    for (name, scheme, token, proof, status) in [
        ("accepted", "DPoP", &key, with_nonce().build(), 200),
        ("used", "DPoP", &key, with_nonce().build(), 401),
        ("another URL", "DPoP", &key, with_nonce().claim("htu", "CANARY").build(), 401),
        ("malformed", "DPoP", &key, "CANARY".to_owned(), 401),
        ("a certificate", "Bearer", &certificate, "CANARY".to_owned(), 401),
    ] {
        assert_eq!(send(scheme, token, &proof).await.0, status, "{name}");
    }
    let certificate = ClientCertificate::from_sha256(*b"CANARYCANARYCANARYCANARYCANARYCA");
    let debug = format!("{dpop:?} {certificates:?} {certificate:?} {verifier:?} {client:?}");
    // Bytes are shown as numbers.
    for secret in ["CANARY", "67, 65, 78", "eyJ"] {
        assert!(!debug.contains(secret), "{secret}: {debug}");
    }

    let log = log.0.lock().unwrap();
    let log = String::from_utf8_lossy(&log);
    assert!(!log.contains("CANARY"), "{log}");
    assert!(!log.contains("eyJ0eXAiOiJkcG9wK2p3dCI"), "the header of a proof:\n{log}");
    assert!(!log.contains(nonce.as_deref().unwrap()), "{log}");
    for reason in [
        "proof_used",
        "proof_wrong_url",
        "proof_nonce_needed",
        "certificate_missing",
        "inactive",
        "introspection_unavailable",
        "wrong_audience",
        "unknown_issuer",
        "expired",
        "bad_signature",
        "unknown_key",
    ] {
        assert!(
            log.contains(&format!("reason=\"{reason}\"")),
            "the log contains the reason {reason}:\n{log}"
        );
    }
}
