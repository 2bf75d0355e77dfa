//! The messages of errors and the traits of public types. The codes of errors are tested in
//! `src/error/tests.rs`.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use portcullis::testing::{TestClock, TestIssuer, TokenBuilder};
use portcullis::{
    AccessToken, AccessTokenRejection, Algorithm, Error, InvalidRequest, InvalidToken, Rule,
    StoreError, Verifier,
};

/// `iss` is compared byte by byte. The error reports the most common mistake, a trailing slash on
/// one side only.
#[tokio::test]
async fn a_differing_trailing_slash_is_reported() {
    for (trusted, presented) in [
        ("https://issuer.example/", "https://issuer.example"),
        ("https://issuer.example/a", "https://issuer.example/a/"),
    ] {
        let issuer = TestIssuer::offline_with(trusted, Algorithm::EdDSA).unwrap();
        let verifier = Verifier::new(issuer.issuer()).unwrap();
        let said = async |iss: &str| {
            verifier.verify(&issuer.token().issued_by(iss).build()).await.unwrap_err().to_string()
        };
        assert!(
            said(presented)
                .await
                .contains(&format!("{trusted:?} is: only the slash at the end differs"))
        );
        let aliased = issuer.issuer().alias("https://alias.example").unwrap();
        let verifier = Verifier::new(aliased).unwrap();
        let error = verifier
            .verify(&issuer.token().issued_by("https://alias.example/").build())
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("\"https://alias.example\" is: only"),
            "names the alias that differs: {error}"
        );
        assert!(
            said("https://other.example/")
                .await
                .ends_with("\"https://other.example/\" is not trusted")
        );
    }
}

/// Public types can be sent to other threads and shared between them.
#[test]
fn public_types_are_send_and_sync() {
    fn assert<T: Send + Sync + 'static>() {}
    assert::<portcullis::AccessToken>();
    assert::<portcullis::Audience>();
    assert::<portcullis::Claims<String>>();
    assert::<portcullis::ConfigError>();
    assert::<portcullis::Error>();
    assert::<portcullis::FetchError>();
    assert::<portcullis::HttpClient>();
    assert::<portcullis::Issuer>();
    assert::<portcullis::IssuerHealth>();
    assert::<portcullis::Issuers>();
    assert::<portcullis::Jwks>();
    assert::<portcullis::Protect<()>>();
    assert::<portcullis::ProtectLayer>();
    assert::<portcullis::Rule>();
    assert::<portcullis::Scope>();
    assert::<portcullis::StatusListHealth>();
    assert::<portcullis::TokenSource>();
    assert::<portcullis::Verifier>();
    assert::<portcullis::WarmUpError>();
}

/// The text of an error does not repeat the text of its source, so a report of the whole chain has
/// no duplicates.
#[tokio::test]
async fn an_error_does_not_repeat_its_source() {
    let issuer = TestIssuer::start().unwrap();
    issuer.set_behavior(portcullis::testing::Behavior::Status(500));
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    for token in [issuer.token().build(), "opaque".to_owned()] {
        let error = verifier.verify(&token).await.unwrap_err();
        let mut causes = Vec::new();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            causes.push(error.to_string());
            cause = error.source();
        }
        assert!(
            causes.iter().all(|cause| !error.to_string().contains(cause)),
            "{error}: {causes:?}"
        );
    }
}

#[tokio::test]
async fn errors_about_time_have_the_times_that_were_compared() {
    struct Case {
        name: &'static str,
        token: fn(TokenBuilder, u64) -> TokenBuilder,
        claim: i64,
    }

    let (issuer, clock) =
        (TestIssuer::offline("https://issuer.example/").unwrap(), TestClock::new());
    issuer.set_clock(&clock);
    let config = issuer.issuer().max_token_age(Duration::from_secs(600)).unwrap();
    let verifier = Verifier::builder(config).clock(&clock).build().unwrap();
    for Case { name, token, claim } in [
        Case { name: "exp", token: |token, now| token.claim("exp", now - 100), claim: -100 },
        Case { name: "nbf", token: |token, now| token.claim("nbf", now + 200), claim: 200 },
        Case { name: "iat", token: |token, now| token.claim("iat", now + 300), claim: 300 },
        Case { name: "age", token: |token, now| token.claim("iat", now - 700), claim: -700 },
    ] {
        let unix = clock.unix_seconds();
        let token = token(issuer.token(), unix).build();
        let Err(Error::InvalidToken(error)) = verifier.verify(&token).await else {
            panic!("{name}: accepted");
        };
        let (compared, now) = match error {
            InvalidToken::Expired { expires_at, now, .. } if name == "exp" => (expires_at, now),
            InvalidToken::NotYetValid { not_before, now, .. } if name == "nbf" => (not_before, now),
            InvalidToken::IssuedInTheFuture { issued_at, now, .. } if name == "iat" => {
                (issued_at, now)
            }
            InvalidToken::TooOld { issued_at, now, .. } if name == "age" => (issued_at, now),
            other => panic!("{name}: {other:?}"),
        };
        let unix = Duration::from_secs(unix.checked_add_signed(claim).unwrap());
        assert_eq!(compared, std::time::UNIX_EPOCH + unix, "{name}");
        assert_eq!(now, clock.now(), "{name}");
    }
}

#[test]
fn errors_say_what_was_expected() {
    let sign_in = |rule: Rule| {
        rule.check(&AccessToken::for_tests(serde_json::json!({ "sub": "alice" }))).unwrap_err()
    };
    let (acr, age) = (Rule::acr(["gold", "silver"]), Rule::max_auth_age(Duration::from_secs(300)));
    let cases: [(Box<dyn StdError>, &str); 9] = [
        (InvalidRequest::RepeatedToken.into(), "one access token, in one place"),
        (
            InvalidRequest::MalformedCredentials.into(),
            "one b64token (RFC 6750 §2.1); in `Authorization`, after `Bearer` and a space",
        ),
        (InvalidRequest::MalformedUrl.into(), "one valid host, and a valid path prefix"),
        (
            InvalidRequest::ForbiddenOrigin.into(),
            "an `Origin` that may use the cookie or the gateway's header",
        ),
        (
            sign_in(acr.clone()).into(),
            "expected the user to sign in by one of [\"gold\", \"silver\"]",
        ),
        (sign_in(age.clone()).into(), "expected the user to sign in within 300s"),
        (
            sign_in(acr.and(age)).into(),
            "expected the user to sign in by one of [\"gold\", \"silver\"] within 300s",
        ),
        (AccessTokenRejection::NotProtected.into(), "no `ProtectLayer` verified this request"),
        (
            AccessTokenRejection::Rejected(Error::InvalidRequest(InvalidRequest::RepeatedToken))
                .into(),
            "malformed request: expected one access token, in one place",
        ),
    ];
    for (error, text) in cases {
        assert_eq!(error.to_string(), text);
    }
}

/// The error of a store stands for that of the store's own client, with its text and its cause.
#[test]
fn the_error_of_a_store_is_that_of_its_client() {
    #[derive(Debug)]
    struct Down(fmt::Error);

    impl fmt::Display for Down {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("the store is down")
        }
    }

    impl StdError for Down {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&self.0)
        }
    }

    let error = StoreError::new(Down(fmt::Error));
    assert_eq!(error.to_string(), "the store is down");
    assert_eq!(format!("{error:?}"), format!("{:?}", Down(fmt::Error)));
    assert!(error.source().is_some_and(|cause| cause.is::<fmt::Error>()));
    assert!(StoreError::new("down").source().is_none());
}
