use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

#[test]
fn only_issuers_that_are_plain_urls_are_logged() {
    let longest = format!("https://{}", "a".repeat(192));
    for (iss, is_logged) in [
        ("https://tenant.example/", true),
        ("http://[::1]:8080/a_b~c-d", true),
        (&*longest, true),
        (&*format!("{longest}a"), false),
        ("https://", false),
        ("http://", false),
        ("tenant.example", false),
        ("ftp://tenant.example", false),
        ("https://a@b.example", false),
        ("https://b.example/?token=a", false),
        ("https://b.example/\u{1b}[2J", false),
        ("https://b.example/\n", false),
        ("https://\u{e9}.example", false),
    ] {
        let error = InvalidToken::UnknownIssuer { presented: iss.to_owned(), similar: None };
        let logged = is_logged.then(|| format!("issuer {iss:?} is not trusted"));
        assert_eq!(error.detail(), logged, "{iss:?}");
    }
}

#[test]
fn errors_say_how_old_a_token_is() {
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    for (issued_at, now, found) in [(100, 190, "90 s"), (100, 100, "0 s"), (200, 100, "0 s")] {
        let (issued_at, now) = (at(issued_at), at(now));
        let error = InvalidToken::TooOld { max_age: Duration::from_secs(60), issued_at, now };
        let expected = format!("expected a token of at most 60 s, found one of {found}");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn errors_about_claims_say_what_is_missing_or_where() {
    #[derive(Debug, serde::Deserialize)]
    struct Organization {
        #[serde(rename = "org_id")]
        _id: String,
    }
    for (claims, expected) in
        [("{}", "claim `org_id` is missing"), ("{\"org_id\":1}", "at column 11 of the payload")]
    {
        let error = serde_json::from_str::<Organization>(claims).unwrap_err();
        let error = ClaimsError::new::<Organization>(&error).to_string();
        assert!(error.contains(expected), "{claims}: {error}");
        assert!(error.contains("Organization"), "{claims}: {error}");
    }
}

#[test]
fn each_reason_to_ignore_a_key_has_a_text_of_its_own() {
    use IgnoredKeyReason::*;
    let all = [
        Malformed,
        UnsupportedType,
        Symmetric,
        Private,
        NotForVerification,
        UnsupportedAlgorithm,
        RsaSize,
        SmallOrder,
        Degenerate,
        TooMany,
        NotInThisBackend,
    ];
    let texts: BTreeSet<_> = all.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), all.len(), "{texts:?}");
    assert!(texts.iter().all(|text| !text.is_empty()));
}
