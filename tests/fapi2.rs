//! The FAPI 2.0 Security Profile: what a verifier must be configured with, and which tokens it
//! rejects.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
#[cfg(feature = "status-list")]
use portcullis::StatusLists;
use portcullis::testing::{DpopClient, TestClock, TestIssuer, TokenBuilder};
use portcullis::{
    Algorithm, ClientAuth, ClientCertificate, ClientCertificates, ConfigError, Dpop, Error,
    Introspection, Issuer, Issuers, ProtectLayer, Revocations, TokenSource, Verifier,
    VerifierBuilder,
};
use tower::{Layer as _, ServiceExt as _, service_fn};

const ALGORITHMS: [Algorithm; 3] = [Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];
const URL: &str = "https://api.example.com/";

fn dpop() -> Dpop {
    Dpop::new("https://api.example.com").unwrap().algorithms(ALGORITHMS).unwrap()
}

fn issuer() -> Issuer {
    Issuer::new("https://issuer.example/", "https://api.example.com").unwrap().fapi2()
}

#[test]
fn a_verifier_that_lacks_something_is_not_built() {
    type Configure = fn(Issuer) -> Result<VerifierBuilder, ConfigError>;
    let cases: Vec<(&str, Configure, Option<&str>)> = vec![
        (
            "nothing",
            |issuer| Ok(Verifier::builder(issuer)),
            Some("`VerifierBuilder::dpop` or `VerifierBuilder::client_certificates`"),
        ),
        (
            "no revocation",
            |issuer| Ok(Verifier::builder(issuer).dpop(dpop())),
            Some("`VerifierBuilder::revocations`"),
        ),
        (
            "RS256 proofs",
            |issuer| {
                let dpop = Dpop::new("https://api.example.com")?;
                Ok(Verifier::builder(issuer).dpop(dpop).revocations(&Revocations::in_memory()))
            },
            Some("only PS256, ES256 or EdDSA in `Dpop::algorithms`, found RS256"),
        ),
        (
            "RS256 tokens",
            |issuer| Ok(Verifier::builder(issuer.algorithms([Algorithm::RS256])?).dpop(dpop())),
            Some("only PS256, ES256 or EdDSA in `algorithms`, found RS256"),
        ),
        (
            "tokens in a header of a gateway",
            |issuer| Ok(Verifier::builder(issuer.token_in_header("x-token")?).dpop(dpop())),
            Some("tokens in `Authorization`"),
        ),
        (
            "tokens that live long",
            |issuer| {
                Ok(Verifier::builder(issuer.max_token_age(Duration::from_secs(601))?).dpop(dpop()))
            },
            Some("`VerifierBuilder::revocations`"),
        ),
        (
            "DPoP and revocations",
            |issuer| {
                Ok(Verifier::builder(issuer).dpop(dpop()).revocations(&Revocations::in_memory()))
            },
            None,
        ),
        (
            "certificates and short lifetimes",
            |issuer| {
                let issuer = issuer.max_token_age(Duration::from_secs(600))?;
                Ok(Verifier::builder(issuer)
                    .client_certificates(ClientCertificates::from_connection()))
            },
            None,
        ),
        (
            "introspection of its JWTs",
            |issuer| {
                let auth = ClientAuth::client_secret("orders-api", "secret");
                let issuer = issuer.introspection(Introspection::new(auth).jwts_too());
                Ok(Verifier::builder(issuer).dpop(dpop()))
            },
            None,
        ),
        (
            "introspection of opaque tokens only",
            |issuer| {
                let auth = ClientAuth::client_secret("orders-api", "secret");
                Ok(Verifier::builder(issuer.introspection(Introspection::new(auth))).dpop(dpop()))
            },
            Some("`Introspection::jwts_too`"),
        ),
        #[cfg(feature = "status-list")]
        (
            "status lists that tokens need not name",
            |issuer| Ok(Verifier::builder(issuer.status_lists(StatusLists::new())).dpop(dpop())),
            Some("`StatusLists::required`"),
        ),
        #[cfg(feature = "status-list")]
        (
            "required status lists",
            |issuer| {
                let lists = StatusLists::new().required();
                Ok(Verifier::builder(issuer.status_lists(lists)).dpop(dpop()))
            },
            None,
        ),
        (
            "other algorithms only",
            |_| {
                let issuer = Issuer::new("https://issuer.example/", "https://api.example.com")?;
                let issuer = issuer.algorithms([Algorithm::RS256])?.fapi2();
                Ok(Verifier::builder(issuer).dpop(dpop()).revocations(&Revocations::in_memory()))
            },
            Some("only PS256, ES256 or EdDSA in `algorithms`, found RS256"),
        ),
        (
            "keys over plain http",
            |issuer| {
                let revocations = Revocations::in_memory();
                let issuer = issuer.danger_allow_http();
                Ok(Verifier::builder(issuer).dpop(dpop()).revocations(&revocations))
            },
            Some("`https`, found `danger_allow_http`"),
        ),
        (
            "a shared secret",
            |issuer| {
                let issuer = issuer.secret(Algorithm::HS256, &[7; 32])?;
                Ok(Verifier::builder(issuer).dpop(dpop()).revocations(&Revocations::in_memory()))
            },
            Some("public keys, found a shared secret"),
        ),
        (
            "without the profile",
            |_| {
                Ok(Verifier::builder(Issuer::new(
                    "https://issuer.example/",
                    "https://api.example.com",
                )?))
            },
            None,
        ),
        (
            "one algorithm of the profile",
            |issuer| {
                let issuer = issuer.algorithms([Algorithm::ES256])?;
                Ok(Verifier::builder(issuer).dpop(dpop()).revocations(&Revocations::in_memory()))
            },
            None,
        ),
    ];
    for (name, configure, expected) in cases {
        let built = configure(issuer()).and_then(VerifierBuilder::build).map(|_| ());
        match expected {
            None => assert!(built.is_ok(), "{name}: {built:?}"),
            Some(expected) => {
                let message = built.unwrap_err().to_string();
                assert!(message.contains(expected), "{name}: {message}");
                assert!(message.contains("https://issuer.example/"), "{name}: {message}");
            }
        }
    }
}

#[tokio::test]
async fn only_bound_tokens_are_accepted() {
    let (issuer, clock) = (
        TestIssuer::offline_with("https://issuer.example/", Algorithm::ES256).unwrap(),
        TestClock::new(),
    );
    issuer.set_clock(&clock);
    let verifier = Verifier::builder(issuer.issuer().fapi2())
        .dpop(dpop())
        .revocations(&Revocations::in_memory())
        .clock(&clock)
        .build()
        .unwrap();
    let layer = ProtectLayer::new(verifier.clone());
    let client = DpopClient::new().unwrap();
    let rsa = DpopClient::with_algorithm(Algorithm::RS256).unwrap();
    let call = async |scheme: &str, token: &str, proof: Option<String>| {
        let request = Request::get("/").header("authorization", format!("{scheme} {token}"));
        let request = proof.iter().fold(request, |request, proof| request.header("dpop", proof));
        let inner =
            service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty())));
        let request = request.body(Body::empty()).unwrap();
        let response = layer.layer(inner).oneshot(request).await.unwrap();
        response.extensions().get::<Error>().map_or("ok", Error::code)
    };
    let bound = |client: &DpopClient| issuer.token().bound_to(client).build();
    let proof = |client: &DpopClient, token: &str| {
        Some(client.proof("GET", URL, token).at(clock.now()).build())
    };
    let (token, of_rsa) = (bound(&client), bound(&rsa));
    let build = TokenBuilder::build;
    for (name, scheme, token, proof, expected) in [
        ("bound, with its proof", "DPoP", token.clone(), proof(&client, &token), "ok"),
        ("bound, without a proof", "DPoP", token.clone(), None, "proof_missing"),
        ("bound, as a bearer token", "Bearer", token.clone(), None, "sender_constrained"),
        ("not bound", "Bearer", build(issuer.token()), None, "not_bound"),
        (
            "an RS256 proof",
            "DPoP",
            of_rsa.clone(),
            proof(&rsa, &of_rsa),
            "proof_unsupported_algorithm",
        ),
    ] {
        assert_eq!(call(scheme, &token, proof).await, expected, "{name}");
    }
    let unbound = verifier.verify(&issuer.token().build()).await;
    assert_eq!(unbound.unwrap_err().code(), "not_bound");
}

#[tokio::test]
async fn tokens_are_accepted_in_authorization_only() {
    let certificate = ClientCertificate::from_der(b"a certificate");
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::ES256).unwrap();
    let builder = |issuer: Issuer| {
        Verifier::builder(issuer)
            .client_certificates(ClientCertificates::from_connection())
            .revocations(&Revocations::in_memory())
            .build()
            .unwrap()
    };
    let token = issuer.token().bound_to_certificate(b"a certificate").build();
    let origins: [&str; 0] = [];
    for (name, verifier, header, value, expected) in [
        ("Authorization", builder(issuer.issuer().fapi2()), "authorization", "Bearer ", "ok"),
        ("a cookie", builder(issuer.issuer().fapi2()), "cookie", "s=", "outside_authorization"),
        ("a header", builder(issuer.issuer().fapi2()), "x-jwt", "", "outside_authorization"),
        ("a cookie, without the profile", builder(issuer.issuer()), "cookie", "s=", "ok"),
    ] {
        let layer = || {
            ProtectLayer::new(verifier.clone()).token_sources([
                TokenSource::authorization(),
                TokenSource::cookie("s", origins).unwrap(),
                TokenSource::header("x-jwt").unwrap(),
            ])
        };
        let inner =
            service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty())));
        let request = Request::get("/").header(header, format!("{value}{token}"));
        let request = request.extension(certificate).body(Body::empty()).unwrap();
        // Nested layers agree.
        let response = layer().layer(layer().layer(inner)).oneshot(request).await.unwrap();
        let code = response.extensions().get::<Error>().map_or("ok", Error::code);
        assert_eq!(code, expected, "{name}");
    }
}

#[tokio::test]
async fn issuers_of_a_lookup_are_not_trusted_without_what_the_profile_requires() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::ES256).unwrap();
    for (name, with_revocations, expected) in
        [("without revocations", false, "unknown_issuer"), ("with", true, "sender_constrained")]
    {
        let found = issuer.issuer().fapi2();
        let builder =
            Verifier::builder(Issuers::lookup(move |_: &str| Some(found.clone()))).dpop(dpop());
        let builder =
            if with_revocations { builder.revocations(&Revocations::in_memory()) } else { builder };
        let verifier = builder.build().unwrap();
        let token = issuer.token().bound_to(&DpopClient::new().unwrap()).build();
        let code = verifier.verify(&token).await.unwrap_err().code();
        assert_eq!(code, expected, "{name}");
    }
}

#[tokio::test]
async fn a_certificate_serves_only_the_tokens_that_are_bound_to_it() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::ES256).unwrap();
    let gateway = TestIssuer::offline("https://gateway.example/").unwrap();
    let of_gateway = gateway.issuer().token_in_header("x-jwt").unwrap();
    let verifier = Verifier::builder([issuer.issuer().fapi2(), of_gateway])
        .client_certificates(ClientCertificates::from_connection())
        .revocations(&Revocations::in_memory())
        .build()
        .unwrap();
    let layer = ProtectLayer::new(verifier);
    let client = DpopClient::new().unwrap();
    let bound = || issuer.token().bound_to_certificate(b"a certificate");
    for (name, token, header, expected) in [
        ("bound to it", bound(), "authorization", "ok"),
        ("in the header of another issuer", bound(), "x-jwt", "outside_authorization"),
        ("not bound", issuer.token(), "authorization", "not_bound"),
        (
            "bound to a key, which is not verified",
            issuer.token().bound_to(&client),
            "authorization",
            "sender_constrained",
        ),
        (
            "bound to another certificate",
            issuer.token().bound_to_certificate(b"another one"),
            "authorization",
            "other_certificate",
        ),
        ("cnf is null", issuer.token().claim("cnf", ()), "authorization", "not_bound"),
    ] {
        let value = if header == "x-jwt" { token.build() } else { bearer(&token.build()) };
        let request = Request::get("/").header(header, value);
        let certificate = ClientCertificate::from_der(b"a certificate");
        let request = request.extension(certificate).body(Body::empty()).unwrap();
        let inner =
            service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty())));
        let response = layer.layer(inner).oneshot(request).await.unwrap();
        let code = response.extensions().get::<Error>().map_or("ok", Error::code);
        assert_eq!(code, expected, "{name}");
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}
