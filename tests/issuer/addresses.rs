//! From which addresses keys are fetched: never from private ones that a token names.

use portcullis::testing::AUDIENCE;
use portcullis::{Error, Issuer, Issuers, Verifier, providers};

use crate::support::start;
use crate::verdict::verdict;

/// The `iss` that is compared is also the URL that is fetched, so spellings that a URL parser would
/// change are rejected.
#[tokio::test]
async fn issuers_that_are_not_normalized_urls_are_not_discovered() {
    let evil = start().await;
    let host = evil.iss().trim_end_matches('/');
    for iss in [
        format!("{host}/acme/../"),
        format!("{host}/?.tenants.example.com"),
        format!("{host}/#.tenants.example.com"),
        format!("{host}\\acme\\..\\"),
        format!("{host}/a\tb"),
        host.replace("127.0.0.1", "0x7f.1"),
        host.replace("http", "HTTP"),
    ] {
        assert!(Verifier::new(Issuer::new(&iss, AUDIENCE).unwrap()).is_err(), "{iss:?}");
        let anybody =
            Issuers::lookup(|iss| Issuer::new(iss, AUDIENCE).ok()).danger_allow_private_addresses();
        let anybody = Verifier::new(anybody).unwrap();
        assert_eq!(
            verdict(&anybody, &evil.token().issued_by(&iss).build()).await,
            "unknown_issuer",
            "{iss:?}"
        );
    }
    assert_eq!(evil.metadata_fetches() + evil.jwks_fetches(), 0);
}

/// Plain http, for example inside a cluster, requires an explicit setting on a configured issuer.
#[tokio::test]
async fn plain_http_requires_a_configured_issuer_that_allows_it() {
    let iss = "http://keycloak.auth.svc:8080/realms/shop";
    let refused = Verifier::new(Issuer::new(iss, AUDIENCE).unwrap()).unwrap_err().to_string();
    assert!(refused.contains("danger_allow_http"), "{refused}");
    let allowed = || Issuer::new(iss, AUDIENCE).unwrap().danger_allow_http();
    assert!(Verifier::new(allowed()).is_ok());
    assert!(
        Verifier::new(providers::keycloak("http://keycloak:8080", "shop", AUDIENCE).unwrap())
            .is_err()
    );
    assert!(
        Verifier::new(
            providers::keycloak("http://keycloak:8080", "shop", AUDIENCE)
                .unwrap()
                .danger_allow_http()
        )
        .is_ok()
    );
    assert!(allowed().jwks_uri("http://keycloak:8080/certs").is_ok());
    assert!(allowed().discovery_url("http://keycloak:8080/realms/shop").is_ok());
    assert!(Issuer::new(iss, AUDIENCE).unwrap().jwks_uri("http://keycloak:8080/certs").is_err());
    for odd in ["ftp://keycloak/", "http://user:password@keycloak/", "keycloak"] {
        assert!(allowed().jwks_uri(odd).is_err(), "{odd}");
    }
    // Anyone may be able to register a resolved issuer.
    let acme = start().await;
    let looked_up =
        Issuers::lookup(|iss| Some(Issuer::new(iss, AUDIENCE).ok()?.danger_allow_http()));
    let verifier = Verifier::new(looked_up.danger_allow_private_addresses()).unwrap();
    assert_eq!(verdict(&verifier, &acme.token().build()).await, "unknown_issuer");
    assert_eq!(acme.jwks_fetches(), 0);
}

/// If anyone can register an issuer, its URLs must not cause requests inside the network of the
/// API.
#[tokio::test]
async fn keys_of_resolved_issuers_are_not_fetched_from_private_addresses() {
    let inside = start().await;
    let port = inside.iss().trim_end_matches('/').rsplit(':').next().unwrap().to_owned();
    for iss in [inside.iss().to_owned(), format!("http://localhost:{port}/")] {
        let at = |keys: Option<String>| {
            move |iss: &str| {
                let issuer = Issuer::new(iss, AUDIENCE).ok()?;
                match &keys {
                    Some(uri) => issuer.jwks_uri(uri).ok(),
                    None => Some(issuer),
                }
            }
        };
        for keys in [None, Some(format!("{iss}.well-known/jwks.json"))] {
            let verifier = Verifier::new(Issuers::lookup(at(keys.clone()))).unwrap();
            let result = verifier.verify(&inside.token().issued_by(&iss).build()).await;
            assert!(
                matches!(result, Err(Error::KeysUnavailable { .. })),
                "{iss} {keys:?}: {result:?}"
            );
        }
    }
    // A custom client resolves names by itself, but literal addresses are still rejected.
    let iss = inside.iss();
    let own = |iss: &str| Some(Issuer::new(iss, AUDIENCE).ok()?.client(reqwest::Client::new()));
    for verifier in [
        Verifier::builder(Issuers::lookup(|iss| Issuer::new(iss, AUDIENCE).ok()))
            .client(reqwest::Client::new())
            .build(),
        Verifier::new(Issuers::lookup(own)),
    ] {
        let result = verifier.unwrap().verify(&inside.token().issued_by(iss).build()).await;
        assert!(matches!(result, Err(Error::KeysUnavailable { .. })), "{result:?}");
    }
    assert_eq!(inside.metadata_fetches() + inside.jwks_fetches(), 0);
}

/// A custom client resolves names by itself, but `localhost` is rejected without resolution. Plain
/// http is allowed for loopback only.
#[tokio::test]
async fn keys_of_resolved_issuers_are_not_fetched_from_loopback_with_a_custom_client() {
    let inside = start().await;
    let port = inside.iss().rsplit(':').next().unwrap().trim_end_matches('/').to_owned();
    let client = reqwest::Client::new();
    for host in ["localhost", "api.localhost", "127.0.0.1", "[::1]"] {
        let iss = format!("http://{host}:{port}/");
        let issuers = Issuers::lookup(|iss| Issuer::new(iss, AUDIENCE).ok());
        let verifier = Verifier::builder(issuers).client(client.clone()).build().unwrap();
        let verdict = verdict(&verifier, &inside.token().issued_by(&iss).build()).await;
        assert!(["keys_unavailable", "unknown_issuer"].contains(&verdict), "{host}: {verdict}");
    }
    for host in ["localhost", "localhost.", "api.localhost"] {
        let iss = format!("https://{host}:{port}/");
        let issuers = Issuers::lookup(|iss| Issuer::new(iss, AUDIENCE).ok());
        let verifier = Verifier::builder(issuers).client(client.clone()).build().unwrap();
        let error = verifier.verify(&inside.token().issued_by(&iss).build()).await.unwrap_err();
        assert!(error.to_string().contains("expected a public address"), "{host}: {error}");
    }
    assert_eq!(inside.metadata_fetches(), 0);
}
