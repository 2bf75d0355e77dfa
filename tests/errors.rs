//! The names of errors, which logs, metrics and clients of `Error::code` build on: they stay.

use std::sync::Arc;
use std::time::Duration;

use portcullis::testing::TestIssuer;
use portcullis::{Algorithm, Audience, ClaimsError, Error, FetchError, InvalidRequest, InvalidToken, Scope, Verifier};

#[test]
fn codes_stay() {
    let text = || "x".to_owned();
    let claims: ClaimsError = {
        let issuer = TestIssuer::offline_with("x", Algorithm::EdDSA).unwrap();
        let verifier = Verifier::new(issuer.issuer()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let token = runtime.block_on(verifier.verify(&issuer.token().build())).unwrap();
        token.claims::<u8>().unwrap_err()
    };
    let time = Duration::ZERO;
    let tokens = [
        (InvalidToken::TooLarge { limit: 1, presented: 2 }, "too_large"),
        (InvalidToken::Opaque, "opaque"),
        (InvalidToken::Encrypted, "encrypted"),
        (InvalidToken::Malformed("x"), "malformed"),
        (InvalidToken::UnsupportedAlgorithm { presented: text() }, "unsupported_algorithm"),
        (InvalidToken::Critical, "critical"),
        (InvalidToken::Type { presented: None }, "type"),
        (InvalidToken::MissingClaim("x"), "missing_claim"),
        (InvalidToken::ClaimType { claim: "x", expected: "x" }, "claim_type"),
        (InvalidToken::ClaimValue { claim: text(), expected: text() }, "claim_value"),
        (InvalidToken::MicrosoftNonce, "microsoft_nonce"),
        (InvalidToken::UnknownIssuer { presented: text(), trusted: None }, "unknown_issuer"),
        (InvalidToken::Tenant { presented: None }, "tenant"),
        (InvalidToken::Audience { expected: Audience::from("x"), presented: vec![] }, "audience"),
        (InvalidToken::Expired { expires_at: time, now: time }, "expired"),
        (InvalidToken::NotYetValid { not_before: time, now: time }, "not_yet_valid"),
        (InvalidToken::IssuedInTheFuture { issued_at: time, now: time }, "issued_in_the_future"),
        (InvalidToken::SenderConstrained, "sender_constrained"),
        (InvalidToken::UnknownKey { kid: None }, "unknown_key"),
        (InvalidToken::Signature, "signature"),
        (InvalidToken::Claims(claims), "claims"),
    ];
    for (token, code) in tokens {
        assert_eq!(token.code(), code);
        assert_eq!(Error::from(token).code(), code);
    }
    let scope = Scope::default;
    for (error, code) in [
        (Error::Missing, "missing"),
        (Error::InvalidRequest(InvalidRequest::Repeated), "invalid_request"),
        (Error::InsufficientScope { required: scope(), granted: scope() }, "insufficient_scope"),
        (Error::Forbidden { rule: text(), scope: scope() }, "forbidden"),
        (Error::InsufficientAuthentication { acr_values: vec![], max_age: None }, "insufficient_user_authentication"),
        (Error::KeysUnavailable { issuer: "x".into(), source: Arc::new(FetchError::Interrupted) }, "keys_unavailable"),
        (Error::LookupFailed { error: "x".into() }, "lookup_failed"),
    ] {
        assert_eq!(error.code(), code);
    }
}

/// Compared byte by byte, and the commonest mistake is told: on whichever side the slash is.
#[tokio::test]
async fn a_slash_too_many_or_too_few_is_named() {
    for (trusted, presented) in [
        ("https://issuer.example/", "https://issuer.example"),
        ("https://issuer.example/a", "https://issuer.example/a/"),
    ] {
        let issuer = TestIssuer::offline_with(trusted, Algorithm::EdDSA).unwrap();
        let verifier = Verifier::new(issuer.issuer()).unwrap();
        let said =
            async |iss: &str| verifier.verify(&issuer.token().issued_by(iss).build()).await.unwrap_err().to_string();
        assert!(said(presented).await.contains(&format!("{trusted:?} is: only the slash at the end differs")));
        let aliased = issuer.issuer().alias("https://alias.example").unwrap();
        let verifier = Verifier::new(aliased).unwrap();
        let error = verifier.verify(&issuer.token().issued_by("https://alias.example/").build()).await.unwrap_err();
        assert!(error.to_string().contains("\"https://alias.example\" is: only"), "the name that differs: {error}");
        assert!(said("https://other.example/").await.ends_with("\"https://other.example/\" is not trusted"));
    }
}

/// What a five-part or dotless token is, and what to do, the error says.
#[test]
fn errors_say_what_to_do() {
    for (error, words) in [
        (InvalidToken::Opaque, "ask the issuer for JWT access tokens"),
        (InvalidToken::Encrypted, "ask the issuer not to encrypt access tokens"),
        (InvalidToken::MicrosoftNonce, "ask for one with a scope of this API"),
        (
            InvalidToken::Audience { expected: Audience::client_id(["a", "b"]), presented: vec!["c".into()] },
            "client_id one of [\"a\", \"b\"], [\"c\"] came",
        ),
        (InvalidToken::Audience { expected: Audience::authorized_party(["a"]), presented: vec![] }, "azp \"a\""),
    ] {
        assert!(error.to_string().contains(words), "{error}");
    }
}
