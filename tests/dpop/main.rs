//! DPoP (RFC 9449): which requests are accepted, and what the others are told.

mod binding;
mod hosts;
mod nested;
mod protocols;
mod replicas;

#[path = "../support/poll_once.rs"]
mod poll_once;

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use portcullis::testing::{DpopClient, ProofBuilder, TestClock, TestIssuer};
use portcullis::{AccessToken, Algorithm, Dpop, Error, Nonces, ProtectLayer, Verifier};
use serde_json::json;
use tower::{Layer as _, ServiceExt as _, service_fn};

const URL: &str = "https://api.example.com/orders";

struct Api {
    issuer: TestIssuer,
    client: DpopClient,
    clock: TestClock,
    layer: ProtectLayer,
}

fn api(configure: impl FnOnce(Dpop) -> Dpop) -> Api {
    let (clock, issuer) =
        (TestClock::new(), TestIssuer::offline("https://issuer.example/").unwrap());
    issuer.set_clock(&clock);
    let dpop = configure(Dpop::new("https://api.example.com").unwrap());
    let layer = layer(&issuer, &clock, dpop);
    Api { issuer, client: DpopClient::new().unwrap(), clock, layer }
}

fn layer(issuer: &TestIssuer, clock: &TestClock, dpop: Dpop) -> ProtectLayer {
    let verifier = Verifier::builder(issuer.issuer()).dpop(dpop).clock(clock).build().unwrap();
    ProtectLayer::new(verifier).scope("orders:read")
}

impl Api {
    fn token(&self) -> String {
        self.issuer.token().scope("orders:read").bound_to(&self.client).build()
    }

    fn proof(&self, token: &str) -> ProofBuilder<'_> {
        self.client.proof("GET", URL, token).at(self.clock.now())
    }

    /// The status, the code and the challenges of the response to a request.
    async fn call(
        &self,
        request: Request<Body>,
    ) -> (StatusCode, Option<&'static str>, Vec<String>) {
        let inner = service_fn(async |request: Request<Body>| {
            assert!(request.extensions().get::<AccessToken>().is_some());
            Ok::<_, Infallible>(Response::new(Body::empty()))
        });
        let response = self.layer.layer(inner).oneshot(request).await.unwrap();
        let code = response.extensions().get::<Error>().map(Error::code);
        let challenges = response.headers().get_all("www-authenticate").iter();
        let challenges = challenges.map(|line| line.to_str().unwrap().to_owned()).collect();
        (response.status(), code, challenges)
    }

    async fn code(&self, token: &str, proof: &str) -> &'static str {
        let (status, code, _) = self.call(request("DPoP", token, &[proof])).await;
        assert_eq!(status.is_success(), code.is_none());
        code.unwrap_or("ok")
    }
}

fn request(scheme: &str, token: &str, proofs: &[&str]) -> Request<Body> {
    let request =
        Request::get("/orders?page=2").header("authorization", format!("{scheme} {token}"));
    let request = proofs.iter().fold(request, |request, proof| request.header("dpop", *proof));
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_bound_token_needs_the_proof_of_its_key() {
    let api = api(|dpop| dpop);
    let (token, other) = (api.token(), DpopClient::new().unwrap());
    let unbound = api.issuer.token().scope("orders:read").build();
    let proof = || api.proof(&token);
    let of_other = other.proof("GET", URL, &token).at(api.clock.now()).build();
    for (name, scheme, token, proofs, expected) in [
        ("with its proof", "DPoP", &token, vec![proof().build()], None),
        ("in capitals", "DPOP", &token, vec![proof().build()], None),
        ("a second request", "DPoP", &token, vec![proof().build()], None),
        ("without a proof", "DPoP", &token, vec![], Some("proof_missing")),
        (
            "two proofs",
            "DPoP",
            &token,
            vec![proof().build(), proof().build()],
            Some("proof_repeated"),
        ),
        ("as a bearer token", "Bearer", &token, vec![], Some("sender_constrained")),
        ("another scheme", "Basic", &token, vec![proof().build()], Some("missing")),
        ("no token after the scheme", "DPoP", &String::new(), vec![], Some("invalid_request")),
        ("illegal characters", "DPoP", &"a,b".to_owned(), vec![], Some("invalid_request")),
        (
            "as a bearer token with a proof",
            "Bearer",
            &token,
            vec![proof().build()],
            Some("sender_constrained"),
        ),
        ("of another key", "DPoP", &token, vec![of_other.clone()], Some("other_key")),
        ("an unbound token", "Bearer", &unbound, vec![], None),
        ("an unbound token with a proof", "Bearer", &unbound, vec!["anything".to_owned()], None),
        (
            "an unbound token as DPoP",
            "DPoP",
            &unbound,
            vec![api.proof(&unbound).build()],
            Some("not_bound"),
        ),
    ] {
        let proofs: Vec<_> = proofs.iter().map(String::as_str).collect();
        let (_, code, _) = api.call(request(scheme, token, &proofs)).await;
        assert_eq!(code, expected, "{name}");
    }
    let mut both = request("DPoP", &token, &[&proof().build()]);
    both.headers_mut().append("authorization", format!("Bearer {unbound}").parse().unwrap());
    let (status, code, challenges) = api.call(both).await;
    assert_eq!((status, code), (StatusCode::BAD_REQUEST, Some("invalid_request")));
    assert!(challenges[0].starts_with("DPoP "), "{challenges:?}");
}

#[tokio::test]
async fn a_proof_is_for_one_request() {
    let api = api(|dpop| dpop);
    let (token, other) = (api.token(), api.token());
    let proof = || api.proof(&token);
    let cases = [
        ("of another method", proof().claim("htm", "POST"), "proof_wrong_method"),
        ("method in lower case", proof().claim("htm", "get"), "proof_wrong_method"),
        ("of another path", proof().claim("htu", "https://api.example.com/"), "proof_wrong_url"),
        (
            "of another host",
            proof().claim("htu", "https://other.example/orders"),
            "proof_wrong_url",
        ),
        ("with a query", proof().claim("htu", format!("{URL}?page=1#top")), "ok"),
        ("with the default port", proof().claim("htu", "https://api.example.com:443/orders"), "ok"),
        (
            "of another token",
            api.client.proof("GET", URL, &format!("{other}x")).at(api.clock.now()),
            "proof_wrong_token",
        ),
        ("tampered", proof().tampered_signature(), "proof_bad_signature"),
        ("no jti", proof().without_claim("jti"), "proof_missing_claim"),
        ("no htm", proof().without_claim("htm"), "proof_missing_claim"),
        ("no htu", proof().without_claim("htu"), "proof_missing_claim"),
        ("no iat", proof().without_claim("iat"), "proof_missing_claim"),
        ("no ath", proof().without_claim("ath"), "proof_missing_claim"),
        ("iat as text", proof().claim("iat", "1"), "proof_missing_claim"),
        ("an empty jti", proof().claim("jti", ""), "proof_malformed"),
        ("a long jti", proof().claim("jti", "j".repeat(257)), "proof_malformed"),
        ("the longest jti", proof().claim("jti", "j".repeat(256)), "ok"),
        ("no type", proof().without_header("typ"), "proof_malformed"),
        ("another type", proof().header("typ", "dpop+jwt+wrong"), "proof_malformed"),
        ("the whole media type", proof().header("typ", "application/DPoP+JWT"), "ok"),
        ("another alg", proof().header("alg", "ES384"), "proof_malformed"),
        ("alg none", proof().header("alg", "none"), "proof_unsupported_algorithm"),
        ("HMAC", proof().header("alg", "HS256"), "proof_unsupported_algorithm"),
        ("no key", proof().without_header("jwk"), "proof_malformed"),
        ("critical", proof().header("crit", json!(["x"])), "proof_malformed"),
        (
            "foreign claims",
            proof().claim("exp", 1).claim("nbf", 9_999_999_999_u64).claim("x", 1),
            "ok",
        ),
        ("foreign members", proof().header("kid", "1").header("x", 1), "ok"),
        ("a nonce that was not asked for", proof().nonce("x"), "ok"),
    ];
    for (name, proof, expected) in cases {
        assert_eq!(api.code(&token, &proof.build()).await, expected, "{name}");
    }
    let beyond_ascii = format!("{}é", proof().build());
    for wrong in ["", "x", "a.b", "a.b.c", "a.b.c.d", "é.é.é", &beyond_ascii, &"x".repeat(9000)]
    {
        assert_eq!(api.code(&token, wrong).await, "proof_malformed", "{wrong}");
    }
    let twice = proof().build();
    assert_eq!(api.code(&token, &format!("{twice}, {twice}")).await, "proof_malformed", "a list");
}

#[tokio::test]
async fn a_proof_is_used_once() {
    let api = api(|dpop| dpop);
    let token = api.token();
    let proof = api.proof(&token).build();
    assert_eq!(api.code(&token, &proof).await, "ok");
    assert_eq!(api.code(&token, &proof).await, "proof_used");
    // What is rejected for another reason does not use it up.
    let later = api.proof(&token).build();
    assert_eq!(api.code(&format!("{token}x"), &later).await, "malformed");
    let (_, code, _) = api.call(request("Bearer", &token, &[&later])).await;
    assert_eq!(code, Some("sender_constrained"));
    assert_eq!(api.code(&token, &later).await, "ok");
    // Its other signature.
    let twin = DpopClient::with_other_signature(&later).unwrap();
    assert_eq!(api.code(&token, &twin).await, "proof_used");
    // A proof that is rejected by a rule was used.
    let narrow = api.issuer.token().bound_to(&api.client).build();
    let refused = api.proof(&narrow).build();
    assert_eq!(api.code(&narrow, &refused).await, "insufficient_scope");
    assert_eq!(api.code(&narrow, &refused).await, "proof_used");
    // In its last second, too.
    api.clock.advance(Duration::from_secs(60));
    assert_eq!(api.code(&token, &later).await, "proof_used");
    api.clock.advance(Duration::from_secs(1));
    assert_eq!(api.code(&token, &later).await, "proof_wrong_time");
}

#[tokio::test]
async fn a_clock_that_is_set_back_makes_no_used_proof_good() {
    let api = api(|dpop| dpop);
    let token = api.token();
    let old = api.proof(&token).build();
    assert_eq!(api.code(&token, &old).await, "ok");
    api.clock.advance(Duration::from_secs(91));
    assert_eq!(api.code(&token, &api.proof(&token).build()).await, "ok");
    // By a minute: what may have been forgotten is rejected, and new proofs are accepted.
    api.clock.correct_by(-60);
    assert_eq!(api.code(&token, &old).await, "proof_wrong_time");
    assert_eq!(api.code(&token, &api.proof(&token).build()).await, "ok");
    // By more than that: not the fault of the client.
    for seconds in [1, 3600] {
        api.clock.correct_by(-seconds);
        let token = api.issuer.token().scope("orders:read").bound_to(&api.client).build();
        let rejected = request("DPoP", &token, &[&api.proof(&token).build()]);
        let unavailable = (StatusCode::SERVICE_UNAVAILABLE, Some("replays_unavailable"), vec![]);
        assert_eq!(api.call(rejected).await, unavailable, "{seconds} s");
    }
}

#[tokio::test]
async fn clients_may_share_the_jti_of_a_proof() {
    let api = api(|dpop| dpop);
    let other = DpopClient::new().unwrap();
    for client in [&api.client, &other] {
        let token = api.issuer.token().scope("orders:read").bound_to(client).build();
        let proof = client.proof("GET", URL, &token).at(api.clock.now()).claim("jti", "1");
        assert_eq!(api.code(&token, &proof.clone().build()).await, "ok");
        assert_eq!(api.code(&token, &proof.build()).await, "proof_used");
    }
}

#[tokio::test]
async fn proofs_of_each_algorithm_are_verified() {
    let api = api(|dpop| dpop);
    for algorithm in
        [Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA, Algorithm::PS256, Algorithm::RS256]
    {
        let client = DpopClient::with_algorithm(algorithm).unwrap();
        let token = api.issuer.token().scope("orders:read").bound_to(&client).build();
        let proof = || client.proof("GET", URL, &token).at(api.clock.now());
        // The key of the first proof is kept for the others.
        for _ in 0..2 {
            assert_eq!(api.code(&token, &proof().build()).await, "ok", "{algorithm:?}");
        }
        let tampered = proof().tampered_signature().build();
        assert_eq!(api.code(&token, &tampered).await, "proof_bad_signature", "{algorithm:?}");
        let spelled_otherwise = proof().header("kid", "1").build();
        assert_eq!(api.code(&token, &spelled_otherwise).await, "ok", "{algorithm:?}");
        let named = proof();
        let mut jwk = named.key().clone();
        jwk["alg"] = algorithm.name().into();
        assert_eq!(api.code(&token, &named.header("jwk", jwk).build()).await, "ok");
        let long = proof().header("x", "x".repeat(3000)).build();
        assert_eq!(api.code(&token, &long).await, "ok", "a header that is not kept");
        let other = DpopClient::with_algorithm(algorithm).unwrap();
        let of_other = other.proof("GET", URL, &token).at(api.clock.now()).build();
        assert_eq!(api.code(&token, &of_other).await, "other_key", "{algorithm:?}");
    }
}

#[tokio::test]
async fn a_proof_is_new() {
    let api = api(|dpop| dpop);
    let token = api.token();
    let now = api.clock.now();
    let seconds = Duration::from_secs;
    for (name, time, expected) in [
        ("an hour ago", now - seconds(3600), "proof_wrong_time"),
        ("61 s ago", now - seconds(61), "proof_wrong_time"),
        ("60 s ago", now - seconds(60), "ok"),
        ("30 s ahead", now + seconds(30), "ok"),
        ("31 s ahead", now + seconds(31), "proof_wrong_time"),
        ("an hour ahead", now + seconds(3600), "proof_wrong_time"),
    ] {
        let proof = api.proof(&token).at(time).build();
        assert_eq!(api.code(&token, &proof).await, expected, "{name}");
    }
    let fraction = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64() + 0.5;
    let proof = api.proof(&token).claim("iat", fraction).build();
    assert_eq!(api.code(&token, &proof).await, "ok");
    let proof = api.proof(&token).claim("iat", (fraction * 1000.0).floor()).build();
    assert_eq!(api.code(&token, &proof).await, "proof_missing_claim", "milliseconds");
}

#[tokio::test]
async fn challenges_name_both_schemes() {
    let (api, strict) = (api(|dpop| dpop), api(Dpop::required));
    let token = api.token();
    let bare_bearer = r#"Bearer realm="api""#;
    let algs = r#"algs="ES256 EdDSA PS256 RS256 ES384""#;
    let bare = format!(r#"DPoP realm="api", {algs}"#);
    let with = |error: &str, description: &str| {
        format!(r#"DPoP realm="api", error="{error}", error_description="{description}", {algs}"#)
    };
    let scope = r#"scope="orders:read""#;
    let missing = format!(r#"DPoP realm="api", {scope}, {algs}"#);
    let bound = "The access token is bound to a key, and may only be used with it";
    let invalid = with("invalid_dpop_proof", "The DPoP proof is invalid");
    let unbound = api.issuer.token().scope("orders:read").build();
    let narrow = api.issuer.token().bound_to(&api.client).build();
    let not_bound = with("invalid_token", "The access token is not bound to the key of the proof");
    let none = || Request::get("/").body(Body::empty()).unwrap();
    let narrow_request = request("DPoP", &narrow, &[&api.proof(&narrow).build()]);
    for (name, api, request, expected) in [
        ("no credentials", &api, none(), vec![format!("{bare_bearer}, {scope}"), missing.clone()]),
        ("no credentials, required", &strict, none(), vec![missing]),
        (
            "a bound token as bearer",
            &api,
            request("Bearer", &token, &[]),
            vec![
                format!(r#"{bare_bearer}, error="invalid_token", error_description="{bound}""#),
                bare.clone(),
            ],
        ),
        ("no proof", &api, request("DPoP", &token, &[]), vec![invalid, bare_bearer.to_owned()]),
        (
            "an unbound token as DPoP",
            &api,
            request("DPoP", &unbound, &["x"]),
            vec![not_bound, bare_bearer.to_owned()],
        ),
        (
            "without the scope",
            &api,
            narrow_request,
            vec![
                with(
                    "insufficient_scope",
                    "The access token does not grant what this operation needs",
                )
                .replace(", algs", &format!(", {scope}, algs")),
            ],
        ),
    ] {
        assert_eq!(api.call(request).await.2, expected, "{name}");
    }
}

#[tokio::test]
async fn without_dpop_bound_tokens_are_rejected() {
    let api = api(|dpop| dpop);
    let token = api.token();
    let verifier = Verifier::builder(api.issuer.issuer()).clock(&api.clock).build().unwrap();
    assert_eq!(verifier.verify(&token).await.unwrap_err().code(), "sender_constrained");
    // Without the request, there is no proof.
    let with = Verifier::builder(api.issuer.issuer())
        .dpop(Dpop::new("https://api.example.com").unwrap())
        .clock(&api.clock)
        .build()
        .unwrap();
    for _ in 0..3 {
        assert_eq!(with.verify(&token).await.unwrap_err().code(), "sender_constrained");
    }
}

#[tokio::test]
async fn with_nonces_the_clock_of_the_client_does_not_matter() {
    let api = api(|dpop| dpop.nonces(Nonces::new([[7; 32]]).unwrap()));
    let token = api.token();
    let send = async |proof: ProofBuilder<'_>, scheme: &str| {
        let inner =
            service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty())));
        let request = request(scheme, &token, &[&proof.build()]);
        let response = api.layer.layer(inner).oneshot(request).await.unwrap();
        let code = response.extensions().get::<Error>().map(Error::code);
        let header = |name| {
            let value = response.headers().get(name);
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(header("dpop-nonce").is_some(), header("cache-control").is_some());
        (code, header("dpop-nonce"))
    };
    let (code, nonce) = send(api.proof(&token), "DPoP").await;
    assert_eq!(code, Some("proof_nonce_needed"));
    let nonce = nonce.unwrap();
    let hour = Duration::from_secs(3600);
    for (name, time) in [("an hour ago", api.clock.now() - hour), ("ahead", api.clock.now() + hour)]
    {
        let sent = send(api.proof(&token).at(time).nonce(&nonce), "DPoP").await;
        assert_eq!(sent, (None, None), "{name}");
    }
    for wrong in ["", "x", &nonce[1..]] {
        let (code, next) = send(api.proof(&token).nonce(wrong), "DPoP").await;
        assert_eq!((code, next.as_deref()), (Some("proof_nonce_needed"), Some(&*nonce)));
    }
    // A minute later, the nonce is still accepted, and the next one is handed out.
    api.clock.advance(Duration::from_secs(60));
    let used = api.proof(&token).nonce(&nonce);
    let (code, next) = send(used.clone(), "DPoP").await;
    assert!(code.is_none() && next.as_ref().is_some_and(|next| *next != nonce));
    assert_eq!(send(used, "DPoP").await.0, Some("proof_used"));
    // Also on responses that reject the request, by the proof or by a rule.
    let narrow = api.issuer.token().bound_to(&api.client).build();
    let of_narrow = api.client.proof("GET", URL, &narrow).nonce(&nonce).build();
    let inner =
        service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty())));
    let forbidden = request("DPoP", &narrow, &[&of_narrow]);
    let forbidden = api.layer.layer(inner).oneshot(forbidden).await.unwrap();
    assert_eq!(forbidden.status(), StatusCode::FORBIDDEN);
    assert_eq!(forbidden.headers()["dpop-nonce"], *next.as_ref().unwrap());
    let (code, other) = send(api.proof(&token).nonce(&nonce).tampered_signature(), "DPoP").await;
    assert_eq!((code, other), (Some("proof_bad_signature"), next));
    api.clock.advance(Duration::from_secs(300));
    assert_eq!(send(api.proof(&token).nonce(&nonce), "DPoP").await.0, Some("proof_nonce_needed"));
    assert_eq!(send(api.proof(&token), "Bearer").await, (Some("sender_constrained"), None));
}

#[tokio::test]
async fn a_clock_that_is_set_back_makes_no_used_nonce_good() {
    let api = api(|dpop| dpop.nonces(Nonces::new([[7; 32]]).unwrap()));
    let token = api.issuer.token().scope("orders:read").valid_for(Duration::from_secs(3600));
    let token = token.bound_to(&api.client).build();
    let nonce = async || {
        let (parts, _) = request("DPoP", &token, &[&api.proof(&token).build()]).into_parts();
        let rejection = api.layer.verify_request(&parts).await.unwrap_err();
        rejection.headers()["dpop-nonce"].to_str().unwrap().to_owned()
    };
    let old = nonce().await;
    let used = api.proof(&token).nonce(&old).build();
    assert_eq!(api.code(&token, &used).await, "ok");
    // What was used with the nonce is forgotten.
    api.clock.advance(Duration::from_secs(300));
    let proof = api.proof(&token).nonce(&nonce().await).build();
    assert_eq!(api.code(&token, &proof).await, "ok");
    // The nonce is accepted again by its time.
    api.clock.correct_by(-120);
    assert_eq!(api.code(&token, &used).await, "proof_nonce_needed");
    let proof = api.proof(&token).nonce(&nonce().await).build();
    assert_eq!(api.code(&token, &proof).await, "ok");
}

#[tokio::test]
async fn limits_of_proofs_are_not_the_fault_of_the_token() {
    let share = api(|dpop| dpop.max_proofs_per_key(2).unwrap());
    let full = api(|dpop| dpop.max_proofs(2).unwrap().max_proofs_per_key(10).unwrap());
    for (api, status, expected) in [
        (&share, StatusCode::TOO_MANY_REQUESTS, "too_many_proofs"),
        (&full, StatusCode::SERVICE_UNAVAILABLE, "replays_unavailable"),
    ] {
        let token = api.token();
        for _ in 0..2 {
            assert_eq!(api.code(&token, &api.proof(&token).build()).await, "ok");
        }
        let rejected = request("DPoP", &token, &[&api.proof(&token).build()]);
        assert_eq!(api.call(rejected).await, (status, Some(expected), vec![]));
        let unbound = api.issuer.token().scope("orders:read").build();
        assert_eq!(api.call(request("Bearer", &unbound, &[])).await.1, None);
        api.clock.advance(Duration::from_secs(91));
        assert_eq!(api.code(&token, &api.proof(&token).build()).await, "ok");
    }
}

#[tokio::test]
async fn errors_of_handlers_are_challenged_in_the_scheme_of_the_request() {
    let api = api(|dpop| dpop);
    let token = api.token();
    let handler = async |token: AccessToken| token.require_scope(&"orders:write".parse().unwrap());
    let app = axum::Router::new()
        .route("/orders", axum::routing::get(handler).route_layer(api.layer.clone()));
    let unbound = api.issuer.token().scope("orders:read").build();
    let proof = api.proof(&token).build();
    for (request, scheme) in
        [(request("DPoP", &token, &[&proof]), "DPoP"), (request("Bearer", &unbound, &[]), "Bearer")]
    {
        let response = app.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        let challenge = response.headers()["www-authenticate"].to_str().unwrap();
        assert!(challenge.starts_with(&format!("{scheme} realm=")), "{challenge}");
        assert!(challenge.contains("insufficient_scope"), "{challenge}");
    }
}
