//! What is sent to the endpoint: which tokens, where, and with which credentials.

use std::time::Duration;

use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portcullis::testing::{AUDIENCE, TestClock, TestIssuer};
use portcullis::{Algorithm, ClientAuth, Introspection, Issuer, Jwks, Verifier};
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::{Value, json};

use crate::eventually::eventually;
use crate::support::{AuthServer, OPAQUE, Question, Reply, api, api_with, auth, builder};
use crate::verdict::verdict;

#[tokio::test]
async fn a_question_is_a_form_with_the_token() {
    let api = api(|introspection| introspection).await;
    let token = "a~b+c/d-e_f==";
    assert_eq!(verdict(&api.verifier, token).await, "ok");
    let [question] = &*api.server.questions() else { panic!("one question") };
    assert_eq!(question.form.get("token").unwrap(), token);
    assert_eq!(question.form.get("token_type_hint").unwrap(), "access_token");
    assert_eq!(question.form.len(), 2, "no credentials in the body");
    assert_eq!(question.header(CONTENT_TYPE.as_str()), "application/x-www-form-urlencoded");
    assert_eq!(question.header(ACCEPT.as_str()), "application/json");
}

/// The credentials of one question, with the methods that the metadata list.
async fn credentials(auth: ClientAuth, methods: Option<Value>) -> Option<Question> {
    let api = api_with(|server| server.issuer(Introspection::new(auth))).await;
    if let Some(methods) = methods {
        api.server.set_metadata("introspection_endpoint_auth_methods_supported", methods);
    }
    let verdict = verdict(&api.verifier, OPAQUE).await;
    let question = api.server.questions().pop();
    let expected = if question.is_some() { "ok" } else { "introspection_unavailable" };
    assert_eq!(verdict, expected);
    question
}

#[tokio::test]
async fn secrets_are_sent_as_the_endpoint_supports_it() {
    let (id, secret) = ("a:b c", "p+q%r:ü");
    let basic = format!("Basic {}", STANDARD.encode("a%3Ab+c:p%2Bq%25r%3A%C3%BC"));
    let list = |methods: &[&str]| Some(json!(methods));
    let any = || ClientAuth::client_secret(id, secret);
    let cases = [
        ("either, nothing listed", any(), None, Some("header")),
        (
            "either, both listed",
            any(),
            list(&["client_secret_post", "client_secret_basic"]),
            Some("header"),
        ),
        ("either, only the body listed", any(), list(&["client_secret_post"]), Some("body")),
        ("either, neither listed", any(), list(&["private_key_jwt"]), None),
        ("header", ClientAuth::client_secret_basic(id, secret), None, Some("header")),
        (
            "header, not listed",
            ClientAuth::client_secret_basic(id, secret),
            list(&["client_secret_post"]),
            None,
        ),
        ("body", ClientAuth::client_secret_post(id, secret), None, Some("body")),
    ];
    for (name, auth, methods, place) in cases {
        let question = credentials(auth, methods).await;
        assert_eq!(question.is_some(), place.is_some(), "{name}");
        let Some(question) = question else { continue };
        let authorization = question.header(AUTHORIZATION.as_str());
        let form = ["client_id", "client_secret"].map(|name| question.form.get(name).cloned());
        if place == Some("header") {
            assert_eq!((authorization, form), (&*basic, [None, None]), "{name}");
        } else {
            assert_eq!(authorization, "", "{name}");
            assert_eq!(form, [Some(id.to_owned()), Some(secret.to_owned())], "{name}");
        }
    }
}

#[tokio::test]
async fn access_tokens_and_certificates_authenticate() {
    let closure = || async { Ok::<_, std::io::Error>("service-token".to_owned()) };
    let question = credentials(ClientAuth::bearer_token(closure), None).await.unwrap();
    assert_eq!(question.header(AUTHORIZATION.as_str()), "Bearer service-token");

    let failing = || async { Err::<String, _>(std::io::Error::other("no token")) };
    assert!(credentials(ClientAuth::bearer_token(failing), None).await.is_none());

    let certificate = ClientAuth::tls_client_certificate("orders-api");
    let question = credentials(certificate.clone(), None).await.unwrap();
    assert_eq!(question.form.get("client_id").unwrap(), "orders-api");

    // RFC 8705 §5: a client with a certificate uses the alias.
    let api = api_with(|server| server.issuer(Introspection::new(certificate))).await;
    let alias = format!("{}mtls/introspect", api.server.iss());
    api.server.set_metadata("mtls_endpoint_aliases", json!({ "introspection_endpoint": alias }));
    api.server.set_metadata("introspection_endpoint", format!("{}no", api.server.iss()).into());
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");

    // Others do not.
    let api = api_with(|server| server.issuer(Introspection::new(self::auth()))).await;
    let alias = format!("{}no", api.server.iss());
    api.server.set_metadata("mtls_endpoint_aliases", json!({ "introspection_endpoint": alias }));
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn private_pem(keys: &KeyPair) -> String {
    pem("PRIVATE KEY", keys.serialized_der())
}

fn public_pem(keys: &KeyPair) -> String {
    pem("PUBLIC KEY", &keys.subject_public_key_info())
}

fn member<'a>(json: &'a Value, name: &str) -> &'a Value {
    json.get(name).unwrap_or(&Value::Null)
}

#[tokio::test]
async fn assertions_are_signed_for_the_issuer_and_used_once() {
    let keys = KeyPair::generate().unwrap();
    let pem = private_pem(&keys);
    let auth = ClientAuth::private_key_jwt("orders-api", Algorithm::ES256, pem, Some("key-7"));
    let auth = auth.unwrap();
    let api = api_with(|server| server.issuer(Introspection::new(auth))).await;
    let mut assertions = Vec::new();
    for number in 0..3 {
        assert_eq!(verdict(&api.verifier, &format!("{OPAQUE}{number}")).await, "ok");
        let question = api.server.questions().pop().unwrap();
        assert_eq!(question.form.get("client_id").unwrap(), "orders-api");
        assert_eq!(
            question.form.get("client_assertion_type").unwrap(),
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        );
        assertions.push(question.form.get("client_assertion").unwrap().clone());
    }
    assertions.dedup();
    assert_eq!(assertions.len(), 3, "servers reject a `jti` that they have seen");

    let signed = Jwks::from_pem(public_pem(&keys)).unwrap().verify(&assertions[2]).unwrap();
    let header: Value = serde_json::from_slice(&signed.header).unwrap();
    assert_eq!(header, json!({ "alg": "ES256", "kid": "key-7", "typ": "JWT" }));
    let claims: Value = serde_json::from_slice(&signed.payload).unwrap();
    let now = api.clock.unix_seconds();
    for (name, expected) in [
        ("iss", json!("orders-api")),
        ("sub", json!("orders-api")),
        ("aud", json!(api.server.iss())),
        ("iat", json!(now)),
        ("exp", json!(now + 60)),
    ] {
        assert_eq!(member(&claims, name), &expected, "{name}");
    }
    let jti = member(&claims, "jti").as_str().unwrap();
    assert_eq!(URL_SAFE_NO_PAD.decode(jti).unwrap().len(), 16);
}

#[tokio::test]
async fn assertions_are_signed_with_every_kind_of_key() {
    for (algorithm, kind) in [
        (Algorithm::ES256, &rcgen::PKCS_ECDSA_P256_SHA256),
        (Algorithm::ES384, &rcgen::PKCS_ECDSA_P384_SHA384),
        (Algorithm::EdDSA, &rcgen::PKCS_ED25519),
        (Algorithm::RS256, &rcgen::PKCS_RSA_SHA256),
        (Algorithm::PS384, &rcgen::PKCS_RSA_SHA256),
    ] {
        let keys = KeyPair::generate_for(kind).unwrap();
        let auth = ClientAuth::private_key_jwt("api", algorithm, private_pem(&keys), None);
        let question = credentials(auth.unwrap(), None).await.unwrap();
        let mut public = Jwks::from_pem(public_pem(&keys)).unwrap();
        if matches!(algorithm, Algorithm::RS256 | Algorithm::PS384) {
            public = public.rsa_algorithm(algorithm).unwrap();
        }
        let assertion = question.form.get("client_assertion").unwrap();
        assert!(public.verify(assertion).is_ok(), "{algorithm}");
    }
}

#[tokio::test]
async fn assertions_are_signed_with_an_rsa_key_in_pkcs_1() {
    let keys = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    // Without what precedes an RSA key of 2048 bits in PKCS #8.
    let private = pem("RSA PRIVATE KEY", &keys.serialized_der()[26..]);
    let auth = ClientAuth::private_key_jwt("api", Algorithm::RS256, private, None);
    let question = credentials(auth.unwrap(), None).await.unwrap();
    let assertion = question.form.get("client_assertion").unwrap();
    assert!(Jwks::from_pem(public_pem(&keys)).unwrap().verify(assertion).is_ok());
}

#[test]
fn private_keys_must_fit_their_algorithm() {
    let keys = KeyPair::generate().unwrap();
    let (private, public) = (private_pem(&keys), public_pem(&keys));
    let cases = [
        ("fits", Algorithm::ES256, &*private, true),
        ("another curve", Algorithm::ES384, &private, false),
        ("another type", Algorithm::RS256, &private, false),
        ("not for clients", Algorithm::HS256, &private, false),
        ("not in the backends", Algorithm::ES512, &private, false),
        ("not for assertions", Algorithm::MlDsa65, &private, false),
        ("a public key", Algorithm::ES256, &public, false),
        ("no key", Algorithm::ES256, "secret", false),
    ];
    for (name, algorithm, pem, fits) in cases {
        let auth = ClientAuth::private_key_jwt("orders-api", algorithm, pem, None);
        assert_eq!(auth.is_ok(), fits, "{name}");
        let debug = format!("{auth:?}");
        assert!(!pem.lines().any(|line| line.len() > 30 && debug.contains(line)), "{name}");
    }
}

/// A server that says of each token that it is active, and counts.
async fn server() -> AuthServer {
    let server = AuthServer::start().await;
    server.reply(Reply::json(&server.active()));
    server
}

#[tokio::test]
async fn the_form_and_prefix_of_a_token_decide_which_issuer_is_asked() {
    let (ory, other, clock) = (server().await, server().await, TestClock::new());
    let keys = TestIssuer::offline_with("https://jwt.example/", Algorithm::EdDSA).unwrap();
    keys.set_clock(&clock);
    let issuers = vec![
        ory.issuer(Introspection::new(auth()).prefix("ory_at_").prefix("ory_st_")),
        other.issuer(Introspection::new(auth())),
        keys.issuer(),
    ];
    let verifier = Verifier::builder(issuers).clock(&clock).build().unwrap();
    let jwt = keys.token().build();
    let jwe = format!("{}.a.b", keys.token().build());
    let of_ory = ory.keys().token().build();
    let cases = [
        ("a prefix", "ory_at_1.2", "ok", [1, 0]),
        ("the other prefix", "ory_st_1.2", "ok", [1, 0]),
        ("no prefix", "opaque", "ok", [0, 1]),
        ("one period", "opaque.1", "ok", [0, 1]),
        ("two periods, but no JWT", "v4.public.abc", "ok", [0, 1]),
        ("a JWT", &jwt, "ok", [0, 0]),
        ("a JWT with a mistake", &jwt.replacen('.', ".=", 1), "malformed", [0, 0]),
        ("a JWT with white space in its header", "ewogICJh.e30.YQ", "malformed", [0, 0]),
        ("an encrypted JWT", &jwe, "encrypted", [0, 0]),
        ("a JWT of an issuer that is asked about opaque tokens", &of_ory, "ok", [0, 0]),
    ];
    let mut asked = [0, 0];
    for (name, token, expected, questions) in cases {
        assert_eq!(verdict(&verifier, token).await, expected, "{name}");
        let now = [ory.asked(), other.asked()];
        assert_eq!([now[0] - asked[0], now[1] - asked[1]], questions, "{name}");
        asked = now;
    }
}

#[tokio::test]
async fn a_jwt_that_its_keys_reject_is_not_asked_about() {
    for (name, introspection) in [
        ("opaque tokens only", Introspection::new(auth())),
        ("JWTs too", Introspection::new(auth()).jwts_too()),
    ] {
        let api = api_with(|server| server.issuer(introspection)).await;
        let forger = TestIssuer::offline_with(api.server.iss(), Algorithm::ES256).unwrap();
        let forged = api.server.keys().token().signed_by(&forger).build();
        assert_eq!(verdict(&api.verifier, &forged).await, "bad_signature", "{name}");
        let unknown = api.server.keys().token().header("kid", "x").build();
        assert_eq!(verdict(&api.verifier, &unknown).await, "unknown_key", "{name}");
        assert_eq!(api.server.asked(), 0, "{name}");
    }
}

#[tokio::test]
async fn jwts_are_verified_then_asked_about() {
    let api = api(Introspection::jwts_too).await;
    let jwt = api.server.keys().token().subject("bob").claim("from", "jwt").build();
    let token = api.verifier.verify(&jwt).await.unwrap();
    assert_eq!(token.kind(), portcullis::TokenKind::Jwt);
    assert_eq!(token.subject(), Some("bob"), "the claims are those of the JWT");
    for _ in 0..5 {
        assert_eq!(verdict(&api.verifier, &jwt).await, "ok");
    }
    assert_eq!(api.server.asked(), 1, "the answer is cached");

    api.server.reply(Reply::json(&json!({ "active": false })));
    let revoked = api.server.keys().token().subject("eve").build();
    assert_eq!(verdict(&api.verifier, &revoked).await, "inactive");
    // The answer about a JWT need not repeat its claims, but may not contradict them.
    for (members, expected) in [
        (json!({ "active": true }), "ok"),
        (json!({ "active": true, "aud": "x" }), "wrong_audience"),
        (json!({ "active": true, "iss": "x" }), "unknown_issuer"),
        (json!({ "active": true, "exp": 1 }), "expired"),
    ] {
        api.server.reply(Reply::json(&members));
        let token = api.server.keys().token().subject(expected).build();
        assert_eq!(verdict(&api.verifier, &token).await, expected, "{members}");
    }
}

/// Anyone can cause a fetch of the keys, with a token whose `kid` is invented.
#[tokio::test]
async fn keys_that_are_fetched_again_and_are_the_same_void_no_answer() {
    let api = api(Introspection::jwts_too).await;
    let jwt = api.server.keys().token().build();
    assert_eq!(verdict(&api.verifier, &jwt).await, "ok");
    let fetches = || api.verifier.health()[0].fetches;
    assert_eq!(fetches(), 1);
    let forged = api.server.keys().token().header("kid", "invented").build();
    assert_eq!(verdict(&api.verifier, &forged).await, "unknown_key");
    assert_eq!(fetches(), 2);
    assert_eq!(verdict(&api.verifier, &jwt).await, "ok");
    assert_eq!(api.server.asked(), 1);
}

#[tokio::test]
async fn an_issuer_without_keys_is_asked_about_every_token() {
    let api = api(Introspection::instead_of_keys).await;
    let forger = TestIssuer::offline_with(api.server.iss(), Algorithm::ES256).unwrap();
    let token = api.verifier.verify(&forger.token().build()).await.unwrap();
    assert_eq!(token.kind(), portcullis::TokenKind::Introspected);
    assert_eq!(token.subject(), Some("alice"), "the claims are those of the answer");
    assert_eq!(verdict(&api.verifier, OPAQUE).await, "ok");
    assert_eq!(api.server.asked(), 2);
    let of_another = TestIssuer::offline("https://other.example/").unwrap().token().build();
    assert_eq!(verdict(&api.verifier, &of_another).await, "unknown_issuer");
    assert!(api.verifier.warm_up().await.is_ok(), "there are no keys to fetch");
    assert_eq!(api.verifier.health()[0].keys, 0);
}

#[tokio::test]
async fn tokens_that_are_too_long_are_not_sent() {
    let api = api(|introspection| introspection).await;
    assert_eq!(verdict(&api.verifier, &"a".repeat(16 * 1024)).await, "ok");
    assert_eq!(verdict(&api.verifier, &"a".repeat(16 * 1024 + 1)).await, "too_large");
    assert_eq!(api.server.asked(), 1);
}

#[tokio::test]
async fn the_endpoint_is_discovered_once_or_configured() {
    let api = api(|introspection| introspection).await;
    assert!(!api.verifier.health()[0].introspection.as_ref().unwrap().is_discovered);
    api.verifier.warm_up().await.unwrap();
    assert!(api.verifier.health()[0].introspection.as_ref().unwrap().is_discovered);
    let fetched = api.server.metadata_fetches();
    for number in 0..5 {
        assert_eq!(verdict(&api.verifier, &format!("{OPAQUE}{number}")).await, "ok");
    }
    assert_eq!(api.server.metadata_fetches(), fetched, "none for the tokens");

    let server = server().await;
    let url = format!("{}introspect", server.iss());
    let issuer = server.issuer(Introspection::at(url, auth()));
    let verifier = builder(issuer, &TestClock::new()).build().unwrap();
    assert_eq!(verdict(&verifier, OPAQUE).await, "ok");
    assert_eq!(server.metadata_fetches(), 0);
}

#[tokio::test]
async fn the_endpoint_is_discovered_again_if_it_may_have_moved_or_the_metadata_are_old() {
    let cases = [
        ("it answers", None, false),
        ("it is not there", Some(404), true),
        ("it fails, perhaps because of the token", Some(500), false),
    ];
    for (name, status, may_have_moved) in cases {
        let api = api(|introspection| introspection).await;
        if let Some(status) = status {
            api.server.reply(Reply::Status(status));
        }
        let expected = if status.is_none() { "ok" } else { "introspection_unavailable" };
        let ask = async |number: u64| {
            let verdict = verdict(&api.verifier, &format!("{OPAQUE}{number}")).await;
            assert_eq!(verdict, expected, "{name}");
        };
        ask(0).await;
        let first = api.server.metadata_fetches();
        for minute in 1..=5 {
            api.clock.advance(Duration::from_secs(61));
            ask(minute).await;
        }
        if may_have_moved {
            eventually(name, || api.server.metadata_fetches() > first).await;
        } else {
            // The lifetime of the metadata ends ten minutes after the first discovery.
            api.clock.advance(Duration::from_secs(600 - 5 * 61));
            ask(6).await;
            eventually(name, || api.server.metadata_fetches() == first + 1).await;
        }
    }
}

#[tokio::test]
async fn endpoints_that_must_not_receive_the_secret_are_not_asked() {
    let cases = [
        ("missing", Value::Null),
        ("not a URL", json!("introspect")),
        ("a number", json!(1)),
        ("plain http", json!("http://introspection.example/")),
        ("with a password", json!("https://a:b@introspection.example/")),
        ("too long", json!(format!("https://introspection.example/{}", "a".repeat(2048)))),
    ];
    for (name, url) in cases {
        let api = api(|introspection| introspection).await;
        api.server.set_metadata("introspection_endpoint", url);
        assert_eq!(verdict(&api.verifier, OPAQUE).await, "introspection_unavailable", "{name}");
        assert_eq!(api.server.asked(), 0, "{name}");
    }
}

#[test]
fn configurations_that_cannot_work_are_errors() {
    let issuer = |iss: &str| Issuer::new(iss, AUDIENCE).unwrap();
    let one = |introspection| vec![issuer("https://a.example/").introspection(introspection)];
    let closure = || async { Ok::<_, std::io::Error>(String::new()) };
    let introspection = || Introspection::new(auth());
    let cases = [
        (
            "two without a prefix",
            vec![
                issuer("https://a.example/").introspection(introspection()),
                issuer("https://b.example/").introspection(introspection()),
            ],
            "expected `Introspection::prefix` for all issuers but one",
        ),
        (
            "a prefix of a prefix",
            vec![
                issuer("https://a.example/").introspection(introspection().prefix("at_")),
                issuer("https://b.example/").introspection(introspection().prefix("at_b_")),
            ],
            "expected none that is the beginning of the other",
        ),
        (
            "neither opaque tokens nor JWTs",
            one(introspection().only_jwts()),
            "expected `jwts_too` or `instead_of_keys` for `only_jwts`",
        ),
        ("an empty prefix", one(introspection().prefix("")), "a prefix that is not empty"),
        (
            "an empty secret",
            one(Introspection::new(ClientAuth::client_secret("a", ""))),
            "a client secret that is not empty",
        ),
        (
            "an empty identifier",
            one(Introspection::new(ClientAuth::client_secret("", "b"))),
            "a client identifier that is not empty",
        ),
        (
            "signed answers without a client identifier",
            one(Introspection::new(ClientAuth::bearer_token(closure)).signed()),
            "with a client identifier for `signed`",
        ),
        (
            "plain http",
            one(Introspection::at("http://as.example/introspect", auth())),
            "introspection endpoint",
        ),
        ("no URL to discover at", vec![issuer("acme").introspection(introspection())], "acme"),
        (
            "an audience that the issuer does not check for JWTs",
            vec![
                Issuer::new("https://a.example/", portcullis::Audience::checked_by_issuer())
                    .unwrap()
                    .introspection(introspection()),
            ],
            "expected `Introspection::jwts_too` or `instead_of_keys`",
        ),
        (
            "many tenants",
            vec![
                Issuer::template("https://a.example/{tenantid}/", AUDIENCE)
                    .unwrap()
                    .discovery_url("https://a.example/common")
                    .unwrap()
                    .introspection(introspection()),
            ],
            "found a template",
        ),
    ];
    for (name, issuers, expected) in cases {
        let error = Verifier::new(issuers).unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    let seconds = Duration::from_secs;
    assert!(introspection().cache_for(seconds(3601)).is_err());
    assert!(introspection().max_stale(seconds(301)).is_err());
    assert!(introspection().timeout(seconds(11)).is_err());
    assert!(introspection().timeout(seconds(0)).is_err());
}
