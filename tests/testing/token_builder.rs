//! The tokens of `TestIssuer`.

use std::time::{Duration, SystemTime};

use portcullis::testing::{AUDIENCE, TestIssuer, TokenBuilder};
use portcullis::{Algorithm, Issuer, Verifier, providers};
use serde_json::{Value, json};

use crate::{parts, start, verdict};

#[tokio::test]
async fn tokens_are_valid_unless_changed() {
    struct Case {
        name: &'static str,
        token: TokenBuilder,
        expected: &'static str,
    }

    let (issuer, other) = (start().await, start().await);
    let token = || issuer.token();
    for Case { name, token, expected } in [
        Case { name: "unchanged", token: token(), expected: "ok" },
        Case {
            name: "subject and scope",
            token: token().subject("alice").scope("a b"),
            expected: "ok",
        },
        Case { name: "any claim", token: token().claim("org_id", "org_1"), expected: "ok" },
        Case { name: "expired", token: token().expired(), expected: "expired" },
        Case { name: "not yet valid", token: token().not_yet_valid(), expected: "not_yet_valid" },
        Case { name: "another audience", token: token().audience("x"), expected: "wrong_audience" },
        Case { name: "another issuer", token: token().issued_by("x"), expected: "unknown_issuer" },
        Case {
            name: "without a claim",
            token: token().without_claim("exp"),
            expected: "missing_claim",
        },
        Case {
            name: "signed by another issuer",
            token: token().signed_by(&other),
            expected: "bad_signature",
        },
        Case { name: "tampered", token: token().tampered(), expected: "bad_signature" },
        Case {
            name: "tampered signature",
            token: token().tampered_signature(),
            expected: "bad_signature",
        },
        Case {
            name: "short lifetime",
            token: token().valid_for(Duration::from_secs(5)),
            expected: "ok",
        },
        Case {
            name: "long lifetime, then expired",
            token: token().valid_for(Duration::from_secs(36_000)).expired(),
            expected: "expired",
        },
        Case {
            name: "expired, then valid again",
            token: token().expired().valid_for(Duration::from_secs(60)),
            expected: "ok",
        },
        Case {
            name: "not yet valid, without iat",
            token: token().without_claim("iat").not_yet_valid(),
            expected: "not_yet_valid",
        },
        Case {
            name: "valid, without iat",
            token: token().without_claim("iat").valid_for(Duration::from_secs(60)),
            expected: "ok",
        },
        Case {
            name: "expired, without iat",
            token: token().without_claim("iat").expired(),
            expected: "expired",
        },
        Case {
            name: "lifetime too long",
            token: token().valid_for(Duration::MAX),
            expected: "claim_type",
        },
        Case { name: "unsigned", token: token().unsigned(), expected: "unsupported_algorithm" },
        Case {
            name: "alg none, but signed",
            token: token().header("alg", "none"),
            expected: "unsupported_algorithm",
        },
        Case {
            name: "another typ",
            token: token().header("typ", "dpop+jwt"),
            expected: "unexpected_type",
        },
        Case { name: "no typ", token: token().without_header("typ"), expected: "ok" },
        Case { name: "another kid", token: token().header("kid", "x"), expected: "unknown_key" },
        Case { name: "no kid", token: token().without_header("kid"), expected: "ok" },
        Case { name: "another payload", token: token().payload("x"), expected: "malformed" },
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

/// Each provider's preset accepts the tokens, and later builder calls still apply.
#[tokio::test]
async fn tokens_can_imitate_those_of_providers() {
    struct Case {
        name: &'static str,
        preset: Issuer,
        like: fn(TokenBuilder) -> TokenBuilder,
        claims: &'static [&'static str],
    }

    const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    let cases = [
        Case {
            name: "Auth0",
            preset: providers::auth0("acme.eu.auth0.com", AUDIENCE).unwrap(),
            like: TokenBuilder::like_auth0,
            claims: &["aud", "azp", "exp", "iat", "iss", "permissions", "scope", "sub"],
        },
        Case {
            name: "Okta",
            preset: providers::okta("acme.okta.com", "default", AUDIENCE).unwrap(),
            like: TokenBuilder::like_okta,
            claims: &["aud", "cid", "exp", "iat", "iss", "jti", "scp", "sub", "uid", "ver"],
        },
        Case {
            name: "Entra",
            preset: providers::entra(TENANT, AUDIENCE).unwrap(),
            like: |token| token.like_entra(TENANT),
            claims: &[
                "aud", "azp", "azpacr", "exp", "iat", "iss", "nbf", "oid", "roles", "scp", "sub",
                "tid", "ver",
            ],
        },
        Case {
            name: "Cognito",
            preset: providers::cognito("eu-west-1", "eu-west-1_a1B2", ["xxxxxxxxxxxxexample"])
                .unwrap(),
            like: TokenBuilder::like_cognito,
            claims: &[
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
        },
        Case {
            name: "Keycloak",
            preset: providers::keycloak("https://sso.acme.example", "shop", AUDIENCE).unwrap(),
            like: TokenBuilder::like_keycloak,
            claims: &[
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
        },
        Case {
            name: "Google",
            preset: providers::google(AUDIENCE).unwrap(),
            like: TokenBuilder::like_google,
            claims: &["aud", "azp", "email", "email_verified", "exp", "iat", "iss", "scope", "sub"],
        },
    ];
    for Case { name, preset, like, claims } in cases {
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
        assert_eq!(sent.keys().collect::<Vec<_>>(), claims, "{name}");
    }
}
