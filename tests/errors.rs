//! The names of errors, which logs, metrics and clients of `Error::code` build on: they stay.

use portcullis::testing::TestIssuer;
use portcullis::{Algorithm, Verifier};

/// Compared byte by byte, and the commonest mistake is told: on whichever side the slash is.
#[tokio::test]
async fn a_slash_too_many_or_too_few_is_named() {
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
            "the name that differs: {error}"
        );
        assert!(
            said("https://other.example/")
                .await
                .ends_with("\"https://other.example/\" is not trusted")
        );
    }
}

/// Errors, and what handlers and layers hold, can be sent to other threads and shared.
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
    assert::<portcullis::TokenSource>();
    assert::<portcullis::Verifier>();
    assert::<portcullis::WarmUpError>();
}

/// A report of an error and its causes names each once.
#[tokio::test]
async fn a_text_says_what_its_source_does_not() {
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
