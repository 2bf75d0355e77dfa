//! Rules and handlers that need a bound token, and what a client learns about DPoP.

use axum::Router;
use axum::routing::get;
use portcullis::testing::{assert_challenge, assert_dpop_challenge};
use portcullis::{DpopProof, EXPOSED_HEADERS, ResourceMetadata, Rule};

use super::*;

#[tokio::test]
async fn a_route_may_require_a_bound_token() {
    let api = api(|dpop| dpop);
    let bound = api.token();
    let unbound = api.issuer.token().scope("orders:read").build();
    let layer = api.layer.clone().bound();
    let app = || Router::new().route("/orders", get(async || "")).route_layer(layer.clone());
    let proof = api.proof(&bound).build();
    let response = app().oneshot(request("DPoP", &bound, &[&proof])).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let response = app().oneshot(request("Bearer", &unbound, &[])).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_dpop_challenge(&response)
        .status(401)
        .error("invalid_token")
        .reason("not_bound")
        .parameter(
            "error_description",
            "An access token that is bound to a key or certificate of the client is needed",
        );
    assert_challenge(&response).no_error();

    let either = Rule::bound().or(Rule::role("legacy"));
    assert_eq!(
        either.to_string(),
        "bound to a key or certificate of the client or role \"legacy\""
    );
    let verifier = Verifier::new(api.issuer.issuer()).unwrap();
    let legacy = verifier.verify(&api.issuer.token().claim("roles", "legacy").build()).await;
    assert!(either.check(&legacy.unwrap()).is_ok());
    let other = verifier.verify(&unbound).await.unwrap();
    let admin = Rule::scope("admin");
    for both in [Rule::bound().and(admin.clone()), admin.and(Rule::bound())] {
        assert_eq!(both.check(&other).unwrap_err().code(), "not_bound", "{both}");
    }
    assert_eq!(either.check(&other).unwrap_err().code(), "not_bound");
    assert!(!other.is_bound());
}

#[tokio::test]
async fn a_verifier_may_require_bound_tokens() {
    for (name, is_required, expected) in [("by default", false, 200), ("required", true, 401)] {
        let api = api(|dpop| if is_required { dpop.required() } else { dpop });
        let (bound, unbound) = (api.token(), api.issuer.token().scope("orders:read").build());
        let app =
            || Router::new().route("/orders", get(async || "")).route_layer(api.layer.clone());
        let proof = api.proof(&bound).build();
        let response = app().oneshot(request("DPoP", &bound, &[&proof])).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{name}: bound");
        // At last from the cache.
        for _ in 0..3 {
            let response = app().oneshot(request("Bearer", &unbound, &[])).await.unwrap();
            assert_eq!(response.status().as_u16(), expected, "{name}: unbound");
            if is_required {
                assert_dpop_challenge(&response).error("invalid_token").reason("not_bound");
            }
        }
    }
}

#[tokio::test]
async fn handlers_receive_the_proof() {
    let api = api(|dpop| dpop);
    let token = api.token();
    let required = async |proof: DpopProof| {
        assert!(!format!("{proof:?}").contains("eyJ"));
        let digest = proof.claim("content_digest").and_then(|digest| digest.as_str());
        format!("{} {}", proof.thumbprint(), digest.unwrap_or("none"))
    };
    let optional =
        async |proof: Option<DpopProof>| if proof.is_some() { "proof" } else { "no proof" };
    let app = Router::new()
        .route("/orders", get(required))
        .route("/optional", get(optional))
        .layer(api.layer.clone());
    let unbound = api.issuer.token().scope("orders:read").build();
    let digest = api.proof(&token).claim("content_digest", "abc").build();
    let optional = api.client.proof("GET", "https://api.example.com/optional", &token);
    let optional = optional.at(api.clock.now()).build();
    let thumbprint = api.client.thumbprint();
    for (name, path, request, expected) in [
        (
            "a claim",
            "/orders",
            request("DPoP", &token, &[&digest]),
            Some(format!("{thumbprint} abc")),
        ),
        ("unbound", "/orders", request("Bearer", &unbound, &[]), None),
        ("optional", "/optional", request("DPoP", &token, &[&optional]), Some("proof".into())),
        ("absent", "/optional", request("Bearer", &unbound, &[]), Some("no proof".into())),
    ] {
        let mut request = request;
        *request.uri_mut() = path.parse().unwrap();
        let response = app.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        let found = (status == StatusCode::OK).then(|| String::from_utf8(body.to_vec()).unwrap());
        assert_eq!(found, expected, "{name}");
        assert!(matches!(status, StatusCode::OK | StatusCode::UNAUTHORIZED), "{name}: {status}");
    }
}

#[test]
fn the_metadata_name_the_bindings() {
    let issuer = TestIssuer::offline("https://issuer.example/").unwrap();
    let metadata = |dpop: Option<Dpop>| {
        let trusted = issuer.issuer().audience("https://api.example.com").unwrap();
        let mut verifier = Verifier::builder(trusted);
        if let Some(dpop) = dpop {
            verifier = verifier.dpop(dpop);
        }
        let verifier = verifier.build().unwrap();
        let metadata = ResourceMetadata::builder("https://api.example.com", &verifier).build();
        serde_json::from_str::<serde_json::Value>(metadata.unwrap().document()).unwrap()
    };
    let dpop = || Dpop::new("https://api.example.com").unwrap();
    let (algorithms, required) =
        ("dpop_signing_alg_values_supported", "dpop_bound_access_tokens_required");
    let none = metadata(None);
    assert_eq!((&none[algorithms], &none[required]), (&json!(null), &json!(null)));
    let accepted = metadata(Some(dpop().algorithms([Algorithm::ES256]).unwrap()));
    assert_eq!((&accepted[algorithms], &accepted[required]), (&json!(["ES256"]), &json!(null)));
    assert_eq!(metadata(Some(dpop().required()))[required], json!(true));
}

#[test]
fn invalid_settings_are_errors() {
    let dpop = || Dpop::new("https://api.example.com").unwrap();
    let seconds = Duration::from_secs;
    for (name, result, expected) in [
        ("no scheme", Dpop::new("api.example.com"), "expected an absolute"),
        ("another scheme", Dpop::new("wss://api.example.com"), "expected an absolute"),
        ("a query", Dpop::new("https://api.example.com?x"), "expected an absolute"),
        ("a user", Dpop::new("https://me:secret@api.example.com"), "\"with a user\""),
        ("a second URL", dpop().also_at("/v1"), "expected an absolute"),
        ("no algorithm", dpop().algorithms([]), "expected asymmetric ones, found none"),
        ("HMAC", dpop().algorithms([Algorithm::HS256]), "expected asymmetric ones, found HS256"),
        ("ML-DSA", dpop().algorithms([Algorithm::MlDsa44]), "or EdDSA, found ML-DSA-44"),
        (
            "twice",
            dpop().algorithms([Algorithm::ES256; 2]),
            "expected each once, found ES256 twice",
        ),
        ("a long past", dpop().window(seconds(301), seconds(1)), "at most 300s"),
        ("a long future", dpop().window(seconds(1), seconds(301)), "at most 300s"),
        ("no proofs", dpop().max_proofs(0), "expected at least 1, found 0"),
        ("no proofs of a key", dpop().max_proofs_per_key(0), "expected at least 1, found 0"),
    ] {
        let message = result.map(|_| ()).unwrap_err().to_string();
        assert!(message.contains(expected), "{name}: {message}");
        assert!(!message.contains("secret"), "{name}: {message}");
    }
    assert!(EXPOSED_HEADERS.iter().any(|name| name == "dpop-nonce"));
}
