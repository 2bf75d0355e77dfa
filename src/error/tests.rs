use std::time::SystemTime;

use super::*;
use crate::shared_store::StoreError;
use crate::token::audience::Audience;

/// One error of each kind, in the order of the table in docs/errors.md.
fn errors() -> Vec<Error> {
    let text = || "x".to_owned();
    let claims = ClaimsError::new::<u8>(&serde_json::from_str::<u8>("{}").unwrap_err());
    let time = SystemTime::UNIX_EPOCH;
    let scope = || Scope::try_from("x").unwrap();
    let mut errors = vec![
        Error::Missing,
        Error::InvalidRequest(InvalidRequest::RepeatedToken),
        Error::InsufficientScope { required: scope(), granted: scope() },
        Error::Forbidden { rule: text(), scope: scope() },
        Error::ClaimsMismatch(claims),
        Error::InsufficientAuthentication { acr_values: vec![], max_age: None },
        Error::KeysUnavailable { issuer: "x".into(), reason: FetchError::Interrupted },
        Error::IntrospectionUnavailable { issuer: "x".into(), reason: FetchError::Interrupted },
        Error::LookupFailed {
            reason: Box::<dyn std::error::Error + Send + Sync>::from("x").into(),
        },
        Error::AuthorizationFailed {
            reason: Box::<dyn std::error::Error + Send + Sync>::from("x").into(),
        },
        Error::TooManyProofs,
        Error::ReplaysUnavailable { reason: Arc::new(StoreError::new("down")) },
        Error::RevocationsUnavailable,
    ];
    let proofs = [
        ProofError::Missing,
        ProofError::Repeated,
        ProofError::Malformed("x"),
        ProofError::UnsupportedAlgorithm,
        ProofError::PrivateKey,
        ProofError::MissingClaim("x"),
        ProofError::OtherMethod,
        ProofError::OtherUrl { expected: text() },
        ProofError::OtherToken,
        ProofError::WrongTime { past: Duration::ZERO, future: Duration::ZERO },
        ProofError::NonceNeeded,
        ProofError::BadSignature,
        ProofError::Used,
    ];
    errors.extend(proofs.map(Error::from));
    let tokens = [
        InvalidToken::TooLarge { limit: 1, presented: 2 },
        InvalidToken::Opaque,
        InvalidToken::Encrypted,
        InvalidToken::Malformed("x"),
        InvalidToken::UnsupportedAlgorithm { presented: text() },
        InvalidToken::UnsupportedCritical,
        InvalidToken::UnexpectedType { presented: None },
        InvalidToken::MissingClaim("x"),
        InvalidToken::ClaimType { claim: "x", expected: "x" },
        InvalidToken::ClaimValue { claim: text(), expected: text() },
        InvalidToken::MicrosoftNonce,
        InvalidToken::UnknownIssuer { presented: text(), similar: None },
        InvalidToken::TenantMismatch { presented: None },
        InvalidToken::WrongAudience { expected: Audience::from("x"), presented: vec![] },
        InvalidToken::Expired { expires_at: time, now: time, verified: true },
        InvalidToken::NotYetValid { not_before: time, now: time },
        InvalidToken::IssuedInTheFuture { issued_at: time, now: time },
        InvalidToken::TooOld { issued_at: time, max_age: Duration::ZERO, now: time },
        InvalidToken::Inactive,
        InvalidToken::UnknownApiKey,
        InvalidToken::SenderConstrained,
        InvalidToken::NotBound,
        InvalidToken::OtherKey,
        InvalidToken::CertificateMissing,
        InvalidToken::OtherCertificate,
        InvalidToken::OutsideAuthorization,
        InvalidToken::Revoked,
        InvalidToken::UnknownKey { kid: None },
        InvalidToken::BadSignature,
    ];
    errors.extend(tokens.map(Error::from));
    errors
}

/// The table in the guide has one row for each error, with its code, status and RFC name.
#[test]
fn the_documented_table_of_codes_is_correct_and_complete() {
    let documented = include_str!("../../docs/errors.md");
    let rows = documented.lines().filter(|line| line.starts_with("| `"));
    let documented: Vec<_> = rows
        .map(|row| {
            let cells: Vec<_> =
                row.split(" | ").map(|cell| cell.trim_matches(['|', ' ', '`'])).collect();
            let [code, status, error, cause, cure] = cells.as_slice() else {
                panic!("expected five cells: {row}")
            };
            assert!(cause.len() > 10 && cure.len() > 10, "{code}: expected a cause and a remedy");
            ((*code).to_owned(), (*status).to_owned(), (*error).to_owned())
        })
        .collect();
    let own: Vec<_> = errors()
        .iter()
        .map(|error| {
            let word = error.oauth_error().unwrap_or("–").to_owned();
            (error.code().to_owned(), error.status().as_u16().to_string(), word)
        })
        .collect();
    assert_eq!(documented, own);
}

/// The message for an unusable kind of token says what to do about it.
#[test]
fn errors_contain_the_remedy() {
    for (error, words) in [
        (InvalidToken::Opaque, "ask the issuer for JWT access tokens"),
        (InvalidToken::Encrypted, "ask the issuer not to encrypt access tokens"),
        (InvalidToken::MicrosoftNonce, "ask for one with a scope of this API"),
        (
            InvalidToken::WrongAudience {
                expected: Audience::client_id(["a", "b"]),
                presented: vec!["c".into()],
            },
            "client_id one of [\"a\", \"b\"] and no `aud`, found [\"c\"]",
        ),
        (
            InvalidToken::WrongAudience {
                expected: Audience::authorized_party(["a"]),
                presented: vec![],
            },
            "azp \"a\"",
        ),
    ] {
        assert!(error.to_string().contains(words), "{error}");
    }
}
