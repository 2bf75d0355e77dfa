//! Presets accept a token as the provider issues it and reject tokens that must not be accepted as
//! access tokens.
//!
//! The tokens follow the samples of the providers and are signed with keys of the tests.

mod clouds;
mod hosted;
mod self_hosted;
mod spiffe;

use std::collections::HashMap;

use portcullis::testing::{AUDIENCE, TestIssuer, TokenBuilder};
use portcullis::{AccessToken, Algorithm, Issuer, Jwks, ProtectLayer, Verifier, providers};
use serde_json::{Map, Value, json};

use crate::verdict::verdict;

use self::clouds::clouds;
use self::hosted::hosted;
use self::self_hosted::self_hosted;

/// A preset, and a valid token of its provider. `iat`, `nbf` and `exp` are added to its claims.
struct Provider {
    name: &'static str,
    preset: Issuer,
    algorithm: Algorithm,
    typ: Option<&'static str>,
    claims: Value,
    grants: fn(&AccessToken) -> bool,
    traps: Vec<Trap>,
}

/// A token that the preset must reject. It differs from the valid token.
struct Trap {
    name: &'static str,
    /// The header member that differs. `null` removes it.
    header: Option<(&'static str, Value)>,
    /// The claims that differ. `null` removes a claim.
    claims: Value,
    /// The error code.
    expected: &'static str,
}

/// A token with exactly these claims. A claim that is `null` is omitted.
fn token(issuer: &TestIssuer, typ: Option<&str>, claims: &Map<String, Value>) -> TokenBuilder {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut payload = json!({ "iat": now, "nbf": now, "exp": now + 300 });
    let token = match typ {
        Some(typ) => issuer.token().header("typ", typ),
        None => issuer.token().without_header("typ"),
    };
    for (name, value) in claims.iter().filter(|(_, value)| !value.is_null()) {
        payload[name] = value.clone();
    }
    token.payload(payload.to_string())
}

/// The newest key of an issuer, as the bundle of a trust domain.
fn bundle(issuer: &TestIssuer) -> Jwks {
    let mut keys = issuer.jwks_json();
    keys["keys"][0]["use"] = json!("jwt-svid");
    Jwks::from_spiffe_bundle(keys.to_string()).unwrap()
}

#[tokio::test]
async fn presets_accept_real_tokens_and_reject_traps() {
    let issuer = |algorithm| TestIssuer::offline_with("x", algorithm).unwrap();
    // Generating RSA keys is slow.
    let mut keys = HashMap::new();
    for Provider { name, preset, algorithm, typ, claims, grants, traps } in
        [clouds(), hosted(), self_hosted()].into_iter().flatten()
    {
        // The unchanged preset is valid. Below, only the keys are replaced.
        Verifier::new(preset.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (issuer, untrusted) =
            keys.entry(algorithm.name()).or_insert_with(|| (issuer(algorithm), issuer(algorithm)));
        let jwks = if preset.iss().starts_with("spiffe:") { bundle(issuer) } else { issuer.jwks() };
        let verifier = Verifier::new(preset.jwks(jwks)).unwrap();
        let claims = claims.as_object().unwrap().clone();
        let good = verifier.verify(&token(issuer, typ, &claims).build()).await;
        let good = good.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(grants(&good), "{name}: granted permissions");
        for trap in traps {
            let mut claims = claims.clone();
            claims.extend(trap.claims.as_object().unwrap().clone());
            let token = token(issuer, typ, &claims);
            let token = match trap.header {
                None => token,
                Some((header, Value::Null)) => token.without_header(header),
                Some((header, value)) => token.header(header, value),
            };
            assert_eq!(
                verdict(&verifier, &token.build()).await,
                trap.expected,
                "{name}: {}",
                trap.name
            );
        }
        // Types that no provider uses for access tokens.
        for other in [
            "logout+jwt",
            "dpop+jwt",
            "application/secevent+jwt",
            "oauth-authz-req+jwt",
            "statuslist+jwt",
        ] {
            let other = token(issuer, Some(other), &claims);
            assert_eq!(verdict(&verifier, &other.build()).await, "unexpected_type", "{name}");
        }
        assert_eq!(
            verdict(&verifier, &token(issuer, typ, &claims).signed_by(untrusted).build()).await,
            "bad_signature",
            "{name}"
        );
    }
}

/// The tokens have padded base64url, one URL per key, and a header that names the load balancer.
#[tokio::test]
async fn padded_tokens_of_aws_load_balancers_are_accepted() {
    const ARN: &str =
        "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/lb/50dc6c495c0c9188";
    let issuer = TestIssuer::offline_with("https://idp.acme.test", Algorithm::ES256).unwrap();
    let preset = providers::aws_alb(ARN, "https://idp.acme.test").unwrap();
    let verifier = Verifier::new(preset.jwks(issuer.jwks())).unwrap();
    let claims = json!({ "sub": "u-1", "email": "a@b.test", "username": "a", "iss": "https://idp.acme.test" });
    let good =
        || token(&issuer, Some("JWT"), claims.as_object().unwrap()).header("signer", ARN).padded();
    struct Case {
        name: &'static str,
        token: TokenBuilder,
        expected: &'static str,
    }
    for Case { name, token, expected } in [
        Case { name: "valid", token: good(), expected: "ok" },
        Case {
            name: "of another load balancer",
            token: good().header("signer", ARN.replace("lb/", "evil/")),
            expected: "claim_value",
        },
        Case { name: "no signer", token: good().without_header("signer"), expected: "claim_value" },
        Case {
            name: "a signer that is not a string",
            token: good().header("signer", json!([ARN])),
            expected: "claim_value",
        },
        Case {
            name: "forged",
            token: good().signed_by(&TestIssuer::offline_with("x", Algorithm::ES256).unwrap()),
            expected: "bad_signature",
        },
        Case {
            name: "of another provider",
            token: good()
                .header("x", "")
                .payload(r#"{"iss":"https://evil.test","exp":4000000000}"#),
            expected: "unknown_issuer",
        },
    ] {
        assert_eq!(verdict(&verifier, &token.build()).await, expected, "{name}");
    }
    let padded = good().build();
    for odd in [
        format!("{padded}="),
        format!("{padded}===="),
        padded.replace('.', "=."),
        padded.replace('=', ""),
    ] {
        let result = verifier.verify(&odd).await;
        assert!(result.is_err(), "{odd}");
    }
    // Other issuers must not use padding.
    let strict =
        Verifier::new(Issuer::new("https://idp.acme.test", "a").unwrap().jwks(issuer.jwks()))
            .unwrap();
    let payload = json!({ "iss": "https://idp.acme.test", "aud": "a", "exp": 4_000_000_000_u64 });
    let token = good().payload(payload.to_string()).build();
    assert_eq!(verdict(&strict, &token).await, "malformed");
    assert!(issuer.jwks().verify(&issuer.token().claim("x", "y").padded().build()).is_err());
    for arn in [
        "",
        "arn:aws:s3:::bucket",
        "arn:aws:elasticloadbalancing:evil.test/x:1:lb",
        "arn:aws:elasticloadbalancing",
    ] {
        assert!(providers::aws_alb(arn, "https://idp.acme.test").is_err(), "{arn}");
    }
}

/// Presets for gateways and `token_in_header` also set the header that carries the token.
#[tokio::test]
async fn gateway_presets_set_the_token_source() {
    use tower::{Layer as _, ServiceExt as _, service_fn};
    type Body = http_body_util::Full<bytes::Bytes>;
    for (preset, header) in [
        (providers::cloudflare_access("acme", "tag").unwrap(), "Cf-Access-Jwt-Assertion"),
        (providers::gcp_iap("tag").unwrap(), "x-goog-iap-jwt-assertion"),
        (
            providers::auth0("alb.acme.test", "tag")
                .unwrap()
                .token_in_header("x-amzn-oidc-data")
                .unwrap(),
            "x-amzn-oidc-data",
        ),
        (providers::auth0("acme.eu.auth0.com", "tag").unwrap(), "Authorization"),
    ] {
        let issuer = TestIssuer::offline_with(preset.iss(), Algorithm::ES256).unwrap();
        let keys = preset.algorithms([Algorithm::ES256]).unwrap().jwks(issuer.jwks());
        let protect = ProtectLayer::new(Verifier::new(keys).unwrap());
        let token = issuer.token().audience("tag").build();
        for name in [
            "Cf-Access-Jwt-Assertion",
            "x-goog-iap-jwt-assertion",
            "x-amzn-oidc-data",
            "Authorization",
        ] {
            let inner = service_fn(async |_: http::Request<()>| {
                Ok::<_, std::convert::Infallible>(http::Response::new(Body::default()))
            });
            let value =
                if name == "Authorization" { format!("Bearer {token}") } else { token.clone() };
            let request = http::Request::builder().header(name, value).body(()).unwrap();
            let status = protect.layer(inner).oneshot(request).await.unwrap().status();
            assert_eq!(status == 200, name == header, "{header}: {name}");
        }
    }
}

/// The tokens of other issuers are where they always are.
#[tokio::test]
async fn a_gateway_beside_a_lookup_leaves_the_authorization_header() {
    use tower::{Layer as _, ServiceExt as _, service_fn};
    type Body = http_body_util::Full<bytes::Bytes>;
    let gateway = providers::cloudflare_access("acme", "tag").unwrap();
    let gateway = gateway.algorithms([Algorithm::ES256]).unwrap();
    let keys = TestIssuer::offline_with(gateway.iss(), Algorithm::ES256).unwrap();
    let gateway = gateway.jwks(keys.jwks());
    let tenant = TestIssuer::offline("https://tenant.example/").unwrap();
    let config = tenant.issuer();
    let issuers = portcullis::Issuers::lookup(move |_| Some(config.clone()));
    let issuers = issuers.with_issuers([gateway]).unwrap();
    let protect = ProtectLayer::new(Verifier::new(issuers).unwrap());
    let of_gateway = keys.token().audience("tag").build();
    for (header, value) in [
        ("Cf-Access-Jwt-Assertion", of_gateway),
        ("Authorization", format!("Bearer {}", tenant.token().build())),
    ] {
        let inner = service_fn(async |_: http::Request<()>| {
            Ok::<_, std::convert::Infallible>(http::Response::new(Body::default()))
        });
        let request = http::Request::builder().header(header, value).body(()).unwrap();
        let status = protect.layer(inner).oneshot(request).await.unwrap().status();
        assert_eq!(status, 200, "{header}");
    }
}

#[test]
fn presets_reject_values_that_change_the_url() {
    for domain in [
        "",
        "https://acme.okta.com",
        "acme.okta.com/",
        "acme.okta.com/x",
        "a@b",
        "a?b",
        "a#b",
        "a b",
        "ACME.okta.com",
        "a\\b",
    ] {
        assert!(providers::auth0(domain, "a").is_err(), "{domain:?}");
    }
    for segment in ["", "..", ".", "a/b", "a?b", "a#b", "a%2fb", "ä"] {
        assert!(providers::okta("acme.okta.com", segment, "a").is_err(), "{segment:?}");
        assert!(providers::keycloak("https://sso.acme.test", segment, "a").is_err(), "{segment:?}");
    }
    assert!(providers::entra("common", "a").is_err());
    assert!(providers::cognito("us-west-2", "pool", Vec::<String>::new()).is_err(), "no client");
    assert!(
        providers::clerk("https://clerk.acme.test", Vec::<String>::new()).is_err(),
        "no origin"
    );
    assert!(providers::auth0("login.acme.test:8443", "a").is_ok());
}

/// Version 1.0 tokens are the most common mistake with Entra. The error names the setting that
/// fixes it.
#[tokio::test]
async fn the_error_for_entra_version_1_tokens_names_the_remedy() {
    const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    let keys = TestIssuer::offline_with("x", Algorithm::RS256).unwrap();
    for issuer in [providers::entra(TENANT, AUDIENCE), providers::entra_multi_tenant(AUDIENCE)] {
        let verifier = Verifier::new(issuer.unwrap().jwks(keys.jwks())).unwrap();
        let token = keys.token().issued_by(&format!("https://sts.windows.net/{TENANT}/")).build();
        let error = verifier.verify(&token).await.unwrap_err().to_string();
        assert!(
            error.contains("version 1.0") && error.contains("api.requestedAccessTokenVersion"),
            "{error}"
        );
        let other = keys.token().issued_by("https://sts.windows.net/someone-else/").build();
        assert!(!verifier.verify(&other).await.unwrap_err().to_string().contains("version 1.0"));
    }
}
