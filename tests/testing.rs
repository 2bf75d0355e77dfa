//! Tests of the test kit.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::http::Request;
use axum::routing::get;
use axum::{Json, Router};
use portcullis::testing::{
    AUDIENCE, Behavior, TestClock, TestIssuer, TokenBuilder, assert_challenge, authenticated_as,
};
use portcullis::{AccessToken, Algorithm, Claims, Error, Issuer, ProtectLayer, Verifier};
use reqwest::{Client, StatusCode, redirect};
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// Decodes header and claims of a token without verification.
fn parts(token: &str) -> (Value, Value) {
    let part = |part: &str| {
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, part)
            .unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let mut parts = token.split('.');
    (part(parts.next().unwrap()), part(parts.next().unwrap()))
}

async fn start() -> TestIssuer {
    TestIssuer::start_with(Algorithm::EdDSA).unwrap()
}

async fn verdict(issuer: &TestIssuer, token: &str) -> &'static str {
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    verifier.verify(token).await.map_or_else(|error| error.code(), |_| "ok")
}

#[tokio::test]
async fn tokens_are_valid_unless_changed() {
    let (issuer, other) = (start().await, start().await);
    let token = || issuer.token();
    for (name, token, expected) in [
        ("unchanged", token(), "ok"),
        ("subject and scope", token().subject("alice").scope("a b"), "ok"),
        ("any claim", token().claim("org_id", "org_1"), "ok"),
        ("expired", token().expired(), "expired"),
        ("not yet valid", token().not_yet_valid(), "not_yet_valid"),
        ("another audience", token().audience("x"), "wrong_audience"),
        ("another issuer", token().issued_by("x"), "unknown_issuer"),
        ("without a claim", token().without_claim("exp"), "missing_claim"),
        ("signed by another issuer", token().signed_by(&other), "bad_signature"),
        ("tampered", token().tampered(), "bad_signature"),
        ("tampered signature", token().tampered_signature(), "bad_signature"),
        ("short lifetime", token().valid_for(Duration::from_secs(5)), "ok"),
        (
            "long lifetime, then expired",
            token().valid_for(Duration::from_secs(36_000)).expired(),
            "expired",
        ),
        ("expired, then valid again", token().expired().valid_for(Duration::from_secs(60)), "ok"),
        (
            "not yet valid, without iat",
            token().without_claim("iat").not_yet_valid(),
            "not_yet_valid",
        ),
        (
            "valid, without iat",
            token().without_claim("iat").valid_for(Duration::from_secs(60)),
            "ok",
        ),
        ("expired, without iat", token().without_claim("iat").expired(), "expired"),
        ("lifetime too long", token().valid_for(Duration::MAX), "claim_type"),
        ("unsigned", token().unsigned(), "unsupported_algorithm"),
        ("alg none, but signed", token().header("alg", "none"), "unsupported_algorithm"),
        ("another typ", token().header("typ", "dpop+jwt"), "unexpected_type"),
        ("no typ", token().without_header("typ"), "ok"),
        ("another kid", token().header("kid", "x"), "unknown_key"),
        ("no kid", token().without_header("kid"), "ok"),
        ("another payload", token().payload("x"), "malformed"),
    ] {
        assert_eq!(verdict(&issuer, &token.build()).await, expected, "{name}");
    }
}

#[test]
fn tokens_contain_the_configured_claims() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::ES256).unwrap();
    let (header, claims) =
        parts(&issuer.token().subject("alice").scope("a b").claim("n", json!([1])).build());
    assert_eq!(header, json!({ "alg": "ES256", "kid": "key-1", "typ": "at+jwt" }));
    let iat = claims["iat"].as_u64().unwrap();
    let expected = json!({
        "iss": "https://issuer.example/", "sub": "alice", "aud": AUDIENCE, "client_id": "test-client",
        "iat": iat, "exp": iat + 3600, "scope": "a b", "n": [1],
    });
    assert_eq!(claims, expected);
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() - iat;
    assert!(age < 60, "dated {age}s ago");

    // The signature is by the other issuer; `kid` and `iss` stay the same.
    let other = TestIssuer::offline_with("https://other.example/", Algorithm::RS256).unwrap();
    let (header, claims) = parts(&issuer.token().signed_by(&other).build());
    assert_eq!(
        (&header["alg"], &header["kid"], &claims["iss"]),
        (&json!("RS256"), &json!("key-1"), &json!(issuer.iss()))
    );
}

#[tokio::test]
async fn each_issuer_has_its_own_keys() {
    let (one, two) = (start().await, start().await);
    assert_ne!(one.jwks_json(), two.jwks_json());
    assert_ne!(one.iss(), two.iss());
    assert!(one.jwks().verify(&one.token().build()).is_ok());
    assert!(two.jwks().verify(&one.token().build()).is_err());
}

#[tokio::test]
async fn keys_can_be_rotated_and_withdrawn() {
    let issuer = start().await;
    let first = issuer.token().build();
    assert_eq!(issuer.rotate().unwrap(), "key-2");
    let second = issuer.token().build();
    assert_eq!(issuer.rotate_to(Algorithm::ES256).unwrap(), "key-3");
    let third = issuer.token().build();
    let verified = |token: &str| issuer.jwks().verify(token).is_ok();
    assert_eq!([&first, &second, &third].map(|token| verified(token)), [true, true, true]);
    assert_eq!(parts(&third).0["alg"], "ES256");

    issuer.withdraw_old_keys();
    assert_eq!([&first, &second, &third].map(|token| verified(token)), [false, false, true]);
    issuer.publish(json!({ "kty": "AKP" }));
    assert_eq!(issuer.jwks_json()["keys"].as_array().unwrap().len(), 2);
    assert!(verified(&third), "unsupported keys beside a usable one");
}

#[tokio::test]
async fn the_issuer_behaves_as_configured_and_counts_fetches() {
    let issuer = start().await;
    let http = Client::builder().redirect(redirect::Policy::none()).build().unwrap();
    let patience = std::cell::Cell::new(Duration::from_secs(30));
    let get = async |path: &str| {
        let url = format!("{}{path}", issuer.iss());
        http.get(url).timeout(patience.get()).send().await
    };
    const KEYS: &str = ".well-known/jwks.json";
    let keys: Value = get(KEYS).await.unwrap().json().await.unwrap();
    assert_eq!(keys, issuer.jwks_json());
    let metadata: Value =
        get(".well-known/openid-configuration").await.unwrap().json().await.unwrap();
    assert_eq!(
        metadata,
        json!({ "issuer": issuer.iss(), "jwks_uri": format!("{}{KEYS}", issuer.iss()) })
    );
    assert_eq!(get("elsewhere").await.unwrap().status(), StatusCode::NOT_FOUND);

    issuer.set_behavior(Behavior::Status(503));
    assert_eq!(get(KEYS).await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    issuer.set_behavior(Behavior::Body("odd".into()));
    assert_eq!(get(KEYS).await.unwrap().text().await.unwrap(), "odd");
    issuer.set_behavior(Behavior::Redirect("/x".into()));
    assert_eq!(get(KEYS).await.unwrap().headers()["location"], "/x");
    issuer.set_behavior(Behavior::Close);
    assert!(!get(KEYS).await.unwrap_err().is_timeout());
    issuer.set_behavior(Behavior::Hang);
    patience.set(Duration::from_millis(300));
    assert!(get(KEYS).await.unwrap_err().is_timeout());
    issuer.set_behavior(Behavior::Serve);
    patience.set(Duration::from_secs(30));
    assert_eq!(get(KEYS).await.unwrap().status(), StatusCode::OK);
    assert_eq!((issuer.metadata_fetches(), issuer.jwks_fetches()), (1, 7));
}

#[tokio::test]
async fn the_issuer_stops_when_dropped() {
    let issuer = start().await;
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    let token = issuer.token().build();
    drop(issuer);
    assert!(matches!(verifier.verify(&token).await, Err(Error::KeysUnavailable { .. })));
}

#[test]
fn an_offline_issuer_provides_documents_for_another_server() {
    let issuer =
        TestIssuer::offline_with("https://issuer.example/tenant/", Algorithm::EdDSA).unwrap();
    let body = |path: &str| {
        issuer.answer(path).map(|answer| serde_json::from_str::<Value>(answer.body()).unwrap())
    };
    assert_eq!(body("/tenant/.well-known/jwks.json"), Some(issuer.jwks_json()));
    let metadata = body("/tenant/.well-known/openid-configuration").unwrap();
    assert_eq!(metadata["jwks_uri"], "https://issuer.example/tenant/.well-known/jwks.json");
    assert!(body("/.well-known/jwks.json").is_none());
    assert!(body("/tenant/other").is_none());
}

#[tokio::test]
async fn a_test_clock_controls_tokens_and_verification() {
    let (issuer, clock) = (start().await, TestClock::new());
    issuer.set_clock(&clock);
    let verifier = Verifier::builder(issuer.issuer()).clock(&clock).build().unwrap();
    let before = clock.now();
    let token = issuer.token().build();
    clock.advance(Duration::from_secs(3600));
    assert_eq!(clock.now().duration_since(before).unwrap(), Duration::from_secs(3600));
    assert!(verifier.verify(&token).await.is_ok(), "within the leeway");
    clock.advance(Duration::from_secs(30));
    assert_eq!(verifier.verify(&token).await.unwrap_err().code(), "expired");
    assert_eq!(parts(&issuer.token().build()).1["iat"], clock.unix_seconds());
}

#[test]
fn debug_output_contains_no_key() {
    let secret = "0123456789abcdef0123456789abcdef";
    let issuer = TestIssuer::offline_with_secret(
        "https://issuer.example/",
        Algorithm::HS256,
        secret.as_bytes(),
    );
    let shown = format!("{issuer:?} {:?} {:?}", issuer.token(), issuer.issuer());
    assert!(!shown.contains(secret) && !shown.contains("48, 49, 50"), "{shown}");
}

#[test]
fn unsigned_tokens_have_no_signature_and_tampered_ones_another() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let unsigned = issuer.token().unsigned().build();
    assert!(unsigned.ends_with('.'), "{unsigned}");
    assert_eq!(parts(&unsigned).0["alg"], "none");
    let (good, tampered) = (issuer.token().build(), issuer.token().tampered_signature().build());
    let apart = |token: &str| {
        token.rsplit_once('.').map(|(signed, signature)| (signed.to_owned(), signature.to_owned()))
    };
    let ((signed, signature), (same, other)) = (apart(&good).unwrap(), apart(&tampered).unwrap());
    assert_eq!(signed, same);
    assert_eq!(signature.len(), other.len());
    assert_ne!(signature, other);
}

/// The issuer outlives the runtime that used it first.
#[test]
fn tests_can_share_an_issuer_in_a_static() {
    static ISSUER: LazyLock<TestIssuer> =
        LazyLock::new(|| TestIssuer::start_with(Algorithm::EdDSA).unwrap());
    for _ in 0..2 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        assert_eq!(runtime.block_on(verdict(&ISSUER, &ISSUER.token().build())), "ok");
    }
    assert_eq!(ISSUER.jwks_fetches(), 2);
}

#[test]
fn threads_can_share_an_issuer() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let (issuer, tokens) = (&issuer, std::sync::Mutex::new(Vec::new()));
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for _ in 0..20 {
                    tokens.lock().unwrap().push(issuer.token().build());
                    issuer.rotate().unwrap();
                }
            });
        }
    });
    let jwks = issuer.jwks();
    assert_eq!(issuer.jwks_json()["keys"].as_array().unwrap().len(), 81);
    assert!(tokens.into_inner().unwrap().iter().all(|token| jwks.verify(token).is_ok()));
}

/// Each provider's preset accepts the tokens, and later builder calls still apply.
#[tokio::test]
async fn tokens_can_imitate_those_of_providers() {
    const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    type Shape = fn(TokenBuilder) -> TokenBuilder;
    let cases: [(&str, Issuer, Shape, &[&str]); 6] = [
        (
            "Auth0",
            portcullis::providers::auth0("acme.eu.auth0.com", AUDIENCE).unwrap(),
            TokenBuilder::like_auth0,
            &["aud", "azp", "exp", "iat", "iss", "permissions", "scope", "sub"],
        ),
        (
            "Okta",
            portcullis::providers::okta("acme.okta.com", "default", AUDIENCE).unwrap(),
            TokenBuilder::like_okta,
            &["aud", "cid", "exp", "iat", "iss", "jti", "scp", "sub", "uid", "ver"],
        ),
        (
            "Entra",
            portcullis::providers::entra(TENANT, AUDIENCE).unwrap(),
            |token| token.like_entra(TENANT),
            &[
                "aud", "azp", "azpacr", "exp", "iat", "iss", "nbf", "oid", "roles", "scp", "sub",
                "tid", "ver",
            ],
        ),
        (
            "Cognito",
            portcullis::providers::cognito("eu-west-1", "eu-west-1_a1B2", ["xxxxxxxxxxxxexample"])
                .unwrap(),
            TokenBuilder::like_cognito,
            &[
                "auth_time",
                "client_id",
                "cognito:groups",
                "exp",
                "iat",
                "iss",
                "scope",
                "sub",
                "token_use",
                "username",
                "version",
            ],
        ),
        (
            "Keycloak",
            portcullis::providers::keycloak("https://sso.acme.example", "shop", AUDIENCE).unwrap(),
            TokenBuilder::like_keycloak,
            &[
                "aud",
                "azp",
                "exp",
                "iat",
                "iss",
                "preferred_username",
                "realm_access",
                "resource_access",
                "scope",
                "sid",
                "sub",
                "typ",
            ],
        ),
        (
            "Google",
            portcullis::providers::google(AUDIENCE).unwrap(),
            TokenBuilder::like_google,
            &["aud", "azp", "email", "email_verified", "exp", "iat", "iss", "scope", "sub"],
        ),
    ];
    for (name, preset, like, claims) in cases {
        let issuer = TestIssuer::offline_with(preset.iss(), Algorithm::RS256).unwrap();
        let verifier = Verifier::new(preset.jwks(issuer.jwks())).unwrap();
        let token = like(issuer.token()).scope("orders:read orders:write").subject("alice");
        let token =
            verifier.verify(&token.build()).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(token.has_scope("orders:write"), "{name}");
        assert_eq!(token.subject(), Some("alice"), "{name}");
        let other = like(issuer.token()).audience("https://other.example").build();
        assert_eq!(verifier.verify(&other).await.unwrap_err().code(), "wrong_audience", "{name}");
        let sent: serde_json::Map<String, Value> =
            serde_json::from_str(token.raw_claims()).unwrap();
        assert_eq!(sent.keys().collect::<Vec<_>>(), *claims, "{name}");
    }
}

async fn who(token: AccessToken) -> Json<Value> {
    Json(json!({ "sub": token.subject(), "iss": token.issuer(), "scope": token.scope().as_str() }))
}

#[tokio::test]
async fn handlers_can_be_tested_without_an_issuer() {
    let token = AccessToken::for_tests(
        json!({ "sub": "alice", "scope": "a b", "roles": ["admin"], "plan": "pro" }),
    );
    assert!(token.has_scope("b") && token.has_role("admin"));
    assert_eq!(token.claim("plan"), Some(&json!("pro")));
    assert_eq!(token.audience().collect::<Vec<_>>(), [AUDIENCE]);
    assert_eq!(who(token).await.0["sub"], "alice");

    let own = json!({ "iss": "https://acme.eu.auth0.com/", "aud": "another", "sub": null });
    let token = AccessToken::for_tests(&own);
    assert_eq!((token.issuer(), token.subject()), ("https://acme.eu.auth0.com/", None));

    #[derive(serde::Serialize)]
    struct Own {
        sub: &'static str,
        exp: u64,
    }
    let token = AccessToken::for_tests(Own { sub: "bob", exp: 4_102_444_800 });
    assert_eq!(token.expires_at(), SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800));
    assert_ne!(
        token.expose_token(),
        AccessToken::for_tests(Own { sub: "bob", exp: 4_102_444_800 }).expose_token()
    );
}

#[test]
fn for_tests_panics_for_claims_that_no_verifier_accepts() {
    for (name, claims, expected) in [
        ("expired", json!({ "exp": 1 }), "claims that no verifier accepts: "),
        ("not yet valid", json!({ "nbf": 4_102_444_800_u64 }), "claims that no verifier accepts: "),
        (
            "sender-constrained",
            json!({ "cnf": { "jkt": "x" } }),
            "claims that no verifier accepts: ",
        ),
        ("no issuer", json!({ "iss": null }), "claims that no verifier accepts: "),
        ("an array", json!([1]), "claims: expected an object, found [1]"),
    ] {
        let panicked = std::panic::catch_unwind(|| AccessToken::for_tests(claims)).unwrap_err();
        let said = panicked.downcast_ref::<String>().unwrap();
        assert!(said.starts_with(expected), "{name}: {said}");
    }
}

#[tokio::test]
async fn authenticated_as_does_not_bypass_the_layer() {
    let as_alice = || authenticated_as(json!({ "sub": "alice" }));
    let call = async |app: Router| {
        app.oneshot(Request::get("/").body(Body::empty()).unwrap()).await.unwrap()
    };

    let response = call(Router::new().route("/", get(who)).layer(as_alice())).await;
    assert_eq!(response.status(), 200);
    let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["sub"], "alice");

    // Outside a `ProtectLayer` it has no effect: the request has no token.
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    let protect = ProtectLayer::new(verifier.clone());
    let response =
        call(Router::new().route("/", get(who)).layer(protect.clone()).layer(as_alice())).await;
    assert_challenge(&response).status(401).realm("api").no_error();

    // Nor does the layer accept its token, which another issuer signed.
    let forged = AccessToken::for_tests(json!({ "sub": "alice", "iss": issuer.iss() }));
    assert_eq!(verifier.verify(forged.expose_token()).await.unwrap_err().code(), "bad_signature");
    let app = Router::new().route("/", get(who)).layer(protect);
    let mut request =
        Request::get("/").header("authorization", format!("Bearer {}", forged.expose_token()));
    request.extensions_mut().unwrap().insert(forged);
    let response = app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_challenge(&response).status(401).error("invalid_token").reason("bad_signature");

    // Outside `allow_anonymous`, the request is anonymous. Inside, every extractor returns alice.
    type Both = (Option<AccessToken>, Option<Claims<Value>>);
    let both = async |token: Option<AccessToken>, claims: Option<Claims<Value>>| {
        let both: Both = (token, claims);
        format!("{} {}", both.0.is_some(), both.1.is_some())
    };
    let optional = || ProtectLayer::new(verifier.clone()).allow_anonymous();
    let app = || Router::new().route("/", get(both));
    for (app, expected) in [
        (app().layer(optional()).layer(as_alice()), "false false"),
        (app().layer(as_alice()).layer(optional()), "true true"),
    ] {
        let response = call(app).await;
        assert_eq!(axum::body::to_bytes(response.into_body(), 20).await.unwrap(), expected);
    }
}
