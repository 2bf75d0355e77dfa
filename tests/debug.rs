//! `Debug` of public types: names the type and what tells one value from another, and no secret.
//! Types that derive it are left out.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use portcullis::mcp::McpLayer;
use portcullis::testing::{DpopClient, StoreBehavior, TestIssuer, TestStore, authenticated_as};
use portcullis::{
    AccessToken, Algorithm, ApiKey, ApiKeys, BackChannelLogout, CertificateHeader, ClientAuth,
    ClientCertificate, ClientCertificates, Dpop, HttpClient, Introspection, Issuer, Issuers, Jwks,
    Nonces, ProtectLayer, RedisStore, ResourceMetadata, Revocations, Rule, SecurityEvents,
    StoreError, Verifier,
};
use serde_json::json;
use tower::{Layer as _, Service as _, ServiceExt as _, service_fn};

const ISS: &str = "https://issuer.example/";
const URL: &str = "https://api.example.com/orders";

/// What no output contains: the secrets of these tests as text and as bytes, and the beginning of
/// a JWT.
const SECRETS: [&str; 3] = ["CANARY", "67, 65, 78", "eyJ"];

struct Case {
    debug: String,
    expected: &'static str,
}

/// Whether `text` is as expected, where ` … ` stands for any text.
fn is_as(text: &str, expected: &str) -> bool {
    let parts: Vec<_> = expected.split(" … ").collect();
    let [first, middle @ .., last] = parts.as_slice() else { return text == expected };
    let rest = text.strip_prefix(first).and_then(|rest| rest.strip_suffix(last));
    middle
        .iter()
        .try_fold(rest, |rest, part| Some(rest?.split_once(part).map(|(_, rest)| rest)))
        .flatten()
        .is_some()
}

fn check(cases: impl IntoIterator<Item = Case>) {
    for Case { debug, expected } in cases {
        assert!(is_as(&debug, expected), "expected {expected}, found {debug}");
        for secret in SECRETS {
            assert!(!debug.contains(secret), "{secret}: {debug}");
        }
    }
}

fn issuer() -> Issuer {
    Issuer::new(ISS, "orders").unwrap()
}

fn offline() -> TestIssuer {
    TestIssuer::offline_with(ISS, Algorithm::EdDSA).unwrap()
}

#[test]
fn of_issuers_and_their_keys() {
    let secret = b"CANARY".repeat(8);
    let auth = || ClientAuth::client_secret_basic("orders-api", "CANARY");
    let introspection = Introspection::at("https://issuer.example/?key=CANARY", auth());
    let kid = Jwks::from_json(
        r#"{ "keys": [{ "kty": "EC" }, {
            "kty": "OKP", "crv": "Ed25519", "kid": "key-1",
            "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
        }] }"#,
    );
    check([
        Case {
            debug: format!("{:?}", issuer().algorithms([Algorithm::RS256]).unwrap()),
            expected: r#"Issuer { iss: "https://issuer.example/", audience: … "orders" … , keys: "discovery", algorithms: [RS256], .. }"#,
        },
        Case {
            debug: format!("{:?}", issuer().jwks_uri("https://keys.example/?key=CANARY").unwrap()),
            expected: r#"Issuer { … keys: "keys.example", … .. }"#,
        },
        Case {
            debug: format!("{:?}", issuer().pem_key_prefix("https://pem.example/CANARY/").unwrap()),
            expected: r#"Issuer { … keys: "pem.example", … .. }"#,
        },
        Case {
            debug: format!("{:?}", offline().issuer()),
            expected: r#"Issuer { … keys: "fixed", … .. }"#,
        },
        Case {
            debug: format!("{:?}", issuer().secret(Algorithm::HS256, &secret).unwrap()),
            expected: r#"Issuer { … keys: "secret", algorithms: [HS256], .. }"#,
        },
        Case {
            debug: format!("{:?}", Issuers::try_from(vec![issuer()]).unwrap()),
            expected: r#"Issuers { configured: [Issuer { iss: "https://issuer.example/", … .. }] }"#,
        },
        Case {
            debug: format!("{:?}", Issuers::lookup(|_| None)),
            expected: r#"Issuers { configured: [], lookup: "…" }"#,
        },
        Case {
            debug: format!("{:?}", kid.unwrap()),
            expected: r#"Jwks { keys: [(Some("key-1"), EdDSA)], ignored: [ … ] }"#,
        },
        Case {
            debug: format!("{:?}", HttpClient::from(reqwest::Client::new())),
            expected: "HttpClient(…)",
        },
        Case {
            debug: format!("{:?}", auth()),
            expected: r#"ClientAuth { methods: ["client_secret_basic"], client_id: Some("orders-api"), .. }"#,
        },
        Case {
            debug: format!("{:?}", introspection.prefix("ory_").signed()),
            expected: r#"Introspection { auth: ClientAuth { … }, prefixes: ["ory_"], jwts: Verify, signed: true, .. }"#,
        },
    ]);
}

#[test]
fn of_verifiers_and_tokens() {
    let verifier = || Verifier::builder(issuer());
    check([
        Case {
            debug: format!("{:?}", verifier()),
            expected: r#"VerifierBuilder { issuers: … "https://issuer.example/" … .. }"#,
        },
        Case {
            debug: format!("{:?}", verifier().build().unwrap()),
            expected: r#"Verifier { issuers: [Issuer { iss: "https://issuer.example/", … }], .. }"#,
        },
        Case {
            debug: format!("{:?}", AccessToken::for_tests(json!({ "iss": ISS, "sub": "CANARY" }))),
            expected: r#"AccessToken { issuer: "https://issuer.example/", .. }"#,
        },
        Case {
            debug: format!("{:?}", Rule::scope("orders:read").and(Rule::role("admin"))),
            expected: r#"Rule(scope "orders:read" and role "admin")"#,
        },
    ]);
}

#[test]
fn of_api_keys() {
    let new = ApiKey::generate("acme_live").unwrap();
    let hash = "acme_live_7Fq2kP9xLm3R:".to_owned() + &"c4".repeat(32);
    let key = || ApiKey::new("worker", hash.parse().unwrap()).scope("a b".parse().unwrap());
    let lookup = ApiKeys::lookup(URL, "acme_live", async |_| Ok::<_, StoreError>(None));
    let debug = format!("{new:?} {:?}", new.hash());
    assert!(!debug.contains(new.expose_key()), "{debug}");
    let sha256 = new.hash().to_string();
    assert!(!debug.contains(sha256.split_once(':').unwrap().1), "{debug}");
    check([
        Case {
            debug: format!("{new:?}"),
            expected: "GeneratedApiKey { hash: ApiKeyHash(\"acme_live_ … \"), .. }",
        },
        Case {
            debug: format!("{:?}", key().next(hash.parse().unwrap())),
            expected: r#"ApiKey { subject: "worker", current: ApiKeyHash("acme_live_7Fq2kP9xLm3R"), next: Some(ApiKeyHash("acme_live_7Fq2kP9xLm3R")), scope: Scope("a b"), .. }"#,
        },
        Case {
            debug: format!("{:?}", ApiKeys::new(URL, [key()]).unwrap()),
            expected: r#"ApiKeys { iss: "https://api.example.com/orders", keys: 1 }"#,
        },
        Case {
            debug: format!("{:?}", lookup.unwrap()),
            expected: r#"ApiKeys { iss: "https://api.example.com/orders", prefix: "acme_live" }"#,
        },
    ]);
}

#[tokio::test]
async fn of_bindings_and_stores() {
    let nonces = || Nonces::new([b"CANARY".repeat(8), b"canary".repeat(8)]).unwrap();
    let header = || CertificateHeader::rfc9440();
    let redis = redis::Client::open("redis://:CANARY@127.0.0.1/").unwrap();
    let redis = redis.get_connection_manager_lazy(redis::aio::ConnectionManagerConfig::new());
    let store = TestStore::new();
    store.set_behavior(StoreBehavior::Hang);
    check([
        Case {
            debug: format!("{:?}", Dpop::new(URL).unwrap().required().nonces(nonces())),
            expected: r#"Dpop { urls: ["https://api.example.com/orders"], required: true, algorithms: [ … ], past: 60s, future: 30s, nonces: Some(Nonces { … }), max_proofs: … , .. }"#,
        },
        Case { debug: format!("{:?}", nonces()), expected: "Nonces { secrets: 2, .. }" },
        Case {
            debug: format!(
                "{:?}",
                ClientCertificate::from_sha256(*b"CANARYCANARYCANARYCANARYCANARYCA")
            ),
            expected: "ClientCertificate { .. }",
        },
        Case {
            debug: format!("{:?}", ClientCertificates::from_connection()),
            expected: "ClientCertificates::from_connection",
        },
        Case {
            debug: format!("{:?}", ClientCertificates::by(|_| None)),
            expected: "ClientCertificates::by",
        },
        Case {
            debug: format!("{:?}", ClientCertificates::forwarded(header(), |_| true)),
            expected: r#"ClientCertificates::forwarded(CertificateHeader { names: ["client-cert"], … })"#,
        },
        Case {
            debug: format!("{:?}", RedisStore::new(redis.unwrap(), "orders-api").unwrap()),
            expected: r#"RedisStore { prefix: "orders-api", .. }"#,
        },
        Case { debug: format!("{:?}", StoreError::new(std::fmt::Error)), expected: "Error" },
        Case { debug: format!("{store:?}"), expected: "TestStore { behavior: Hang, .. }" },
    ]);
}

#[test]
fn of_revocations_and_receivers() {
    let revocations = Revocations::in_memory();
    let verifier = Verifier::builder(issuer()).revocations(&revocations).build().unwrap();
    let logout = BackChannelLogout::new(&verifier, &revocations, ["app"]).all_sessions();
    let events = SecurityEvents::new(&verifier, &revocations, URL).authorization("CANARY");
    check([
        Case {
            debug: format!("{revocations:?}"),
            expected: "Revocations { entries: 0, keep_for: … , max_stale: … , .. }",
        },
        Case {
            debug: format!("{logout:?}"),
            expected: r#"BackChannelLogout { clients: … "app" … , scope: AllSessions, .. }"#,
        },
        Case {
            debug: format!("{events:?}"),
            expected: r#"SecurityEvents { audience: "https://api.example.com/orders", .. }"#,
        },
    ]);
}

#[tokio::test]
async fn of_layers_services_and_futures() {
    let verifier = Verifier::new(Issuer::new(ISS, URL).unwrap().jwks(offline().jwks())).unwrap();
    let metadata = ResourceMetadata::new(URL, &verifier).unwrap();
    let protect = ProtectLayer::new(verifier);
    let mcp = McpLayer::new(protect.clone().scope("a")).unwrap().tool("t", Rule::role("admin"));
    let inner = || {
        service_fn(async |_: Request<Full<Bytes>>| {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        })
    };
    let request = || {
        let request = Request::get("/").header("authorization", "Bearer CANARY");
        request.body(Full::<Bytes>::default()).unwrap()
    };
    let rejection = protect.verify_request(&request().into_parts().0).await.unwrap_err();
    check([
        Case {
            debug: format!("{protect:?}"),
            expected: "ProtectLayer { verifier: Verifier { … }, rule: Rule(nothing), .. }",
        },
        Case {
            debug: format!("{:?}", protect.clone().scope("a").layer("inner")),
            expected: r#"Protect { inner: "inner", verifier: Verifier { … }, rule: Rule(scope "a"), .. }"#,
        },
        Case {
            debug: format!("{:?}", protect.layer(inner()).call(request())),
            expected: "ResponseFuture { .. }",
        },
        Case {
            debug: format!("{rejection:?}"),
            expected: "Rejection { error: InvalidToken(Opaque), status: 401, .. }",
        },
        Case {
            debug: format!("{mcp:?}"),
            expected: r#"McpLayer { rule: Rule(scope "a"), rules: … role "admin" … , .. }"#,
        },
        Case {
            debug: format!("{:?}", mcp.layer("inner")),
            expected: r#"Mcp { inner: "inner", .. }"#,
        },
        Case {
            debug: format!("{:?}", mcp.layer(inner()).call(request())),
            expected: "McpFuture { .. }",
        },
        Case {
            debug: format!("{metadata:?}"),
            expected: r#"ResourceMetadata { resource: "https://api.example.com/orders", url: "https://api.example.com/.well-known/oauth-protected-resource/orders", .. }"#,
        },
        Case {
            debug: format!("{:?}", metadata.layer().layer("inner")),
            expected: r#"ServeResourceMetadata { inner: "inner", resources: [ResourceMetadata { … }] }"#,
        },
    ]);
}

#[tokio::test]
async fn of_proofs() {
    let (issuer, client) = (offline(), DpopClient::new().unwrap());
    let verifier = Verifier::builder(issuer.issuer()).dpop(Dpop::new(URL).unwrap());
    let layer = ProtectLayer::new(verifier.build().unwrap());
    let token = issuer.token().bound_to(&client).build();
    let proof = client.proof("GET", URL, &token).claim("jti", "CANARY").build();
    let request = Request::get("/").header("authorization", format!("DPoP {token}"));
    let inner = service_fn(async |request: Request<()>| {
        let token = request.extensions().get::<AccessToken>().unwrap();
        Ok::<_, Infallible>(Response::new(format!("{:?}", token.dpop_proof().unwrap())))
    });
    let request = request.header("dpop", proof).body(()).unwrap();
    let response = layer.layer(inner).oneshot(request).await.unwrap();
    check([Case { debug: response.into_body(), expected: "DpopProof { .. }" }]);
}

#[test]
fn of_the_test_kit() {
    let client = DpopClient::new().unwrap();
    let debug = format!("{client:?}");
    assert!(debug.contains(&format!("thumbprint: {:?}", client.thumbprint())), "{debug}");
    check([
        Case { debug, expected: "DpopClient { thumbprint: … , .. }" },
        Case {
            debug: format!("{:?}", client.proof("GET", URL, "CANARY")),
            expected: r#"ProofBuilder { header: … "dpop+jwt" … , claims: … "GET" … , .. }"#,
        },
        Case {
            debug: format!("{:?}", offline()),
            expected: r#"TestIssuer { iss: "https://issuer.example/", .. }"#,
        },
        Case {
            debug: format!("{:?}", offline().token().subject("alice")),
            expected: r#"TokenBuilder { header: … "alg" … , claims: … "alice" … , .. }"#,
        },
        Case {
            debug: format!("{:?}", authenticated_as(json!({ "sub": "CANARY" })).layer("inner")),
            expected: r#"Authenticated { inner: "inner", .. }"#,
        },
    ]);
}
