//! One issuer for many tenants, as with Microsoft Entra ID: which tenants a token may name, and
//! which keys may sign for them.

use axum::routing::get;
use axum::{Json, Router};
use portcullis::testing::{AUDIENCE, TestIssuer};
use portcullis::{Algorithm, ConfigError, Issuer, Issuers, Jwks, Verifier, providers};
use serde_json::{Value, json};

use crate::verdict::verdict;

const TEMPLATE: &str = "https://login.example/{tenantid}/v2.0";
const ACME: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const GLOBEX: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

fn iss(tenant: &str) -> String {
    TEMPLATE.replace("{tenantid}", tenant)
}

fn entra() -> TestIssuer {
    TestIssuer::offline_with("https://login.example/common/v2.0", Algorithm::EdDSA).unwrap()
}

#[tokio::test]
async fn tid_must_be_the_tenant_in_iss() {
    let entra = entra();
    let template = || Issuer::template(TEMPLATE, AUDIENCE).unwrap().jwks(entra.jwks());
    let any = Verifier::new(template()).unwrap();
    let acme_only = Verifier::new(template().tenants([ACME]).unwrap()).unwrap();
    let upper = ACME.to_uppercase();
    struct Case {
        name: &'static str,
        iss: String,
        tid: Value,
        /// With all tenants trusted.
        with_any: &'static str,
        /// With one tenant trusted.
        with_acme: &'static str,
    }
    let cases = [
        Case {
            name: "a tenant",
            iss: iss(ACME),
            tid: json!(ACME),
            with_any: "ok",
            with_acme: "ok",
        },
        Case {
            name: "another tenant",
            iss: iss(GLOBEX),
            tid: json!(GLOBEX),
            with_any: "ok",
            with_acme: "unknown_issuer",
        },
        Case {
            name: "`tid` of another tenant",
            iss: iss(ACME),
            tid: json!(GLOBEX),
            with_any: "tenant_mismatch",
            with_acme: "tenant_mismatch",
        },
        Case {
            name: "`tid` that is not a string",
            iss: iss(ACME),
            tid: json!([ACME]),
            with_any: "tenant_mismatch",
            with_acme: "tenant_mismatch",
        },
        Case {
            name: "no `tid`",
            iss: iss(ACME),
            tid: Value::Null,
            with_any: "tenant_mismatch",
            with_acme: "tenant_mismatch",
        },
        Case {
            name: "`tid` in uppercase",
            iss: iss(ACME),
            tid: json!(upper),
            with_any: "tenant_mismatch",
            with_acme: "tenant_mismatch",
        },
        Case {
            name: "not a GUID",
            iss: iss("common"),
            tid: json!("common"),
            with_any: "unknown_issuer",
            with_acme: "unknown_issuer",
        },
        Case {
            name: "no tenant",
            iss: iss(""),
            tid: json!(""),
            with_any: "unknown_issuer",
            with_acme: "unknown_issuer",
        },
        Case {
            name: "uppercase",
            iss: iss(&upper),
            tid: json!(upper),
            with_any: "unknown_issuer",
            with_acme: "unknown_issuer",
        },
        Case {
            name: "one digit too few",
            iss: iss(&ACME[1..]),
            tid: json!(&ACME[1..]),
            with_any: "unknown_issuer",
            with_acme: "unknown_issuer",
        },
        Case {
            name: "not a hexadecimal digit",
            iss: iss(&ACME.replace('b', "g")),
            tid: json!(ACME),
            with_any: "unknown_issuer",
            with_acme: "unknown_issuer",
        },
        Case {
            name: "one group too many",
            iss: iss(&format!("{ACME}-0")),
            tid: json!(format!("{ACME}-0")),
            with_any: "unknown_issuer",
            with_acme: "unknown_issuer",
        },
        Case {
            name: "an additional path segment",
            iss: iss(&format!("{ACME}/{GLOBEX}")),
            tid: json!(ACME),
            with_any: "unknown_issuer",
            with_acme: "unknown_issuer",
        },
        Case {
            name: "a trailing slash",
            iss: format!("{}/", iss(ACME)),
            tid: json!(ACME),
            with_any: "unknown_issuer",
            with_acme: "unknown_issuer",
        },
        Case {
            name: "another host",
            iss: iss(ACME).replace("login", "evil"),
            tid: json!(ACME),
            with_any: "unknown_issuer",
            with_acme: "unknown_issuer",
        },
        Case {
            name: "the template itself",
            iss: TEMPLATE.to_owned(),
            tid: json!("{tenantid}"),
            with_any: "tenant_mismatch",
            with_acme: "tenant_mismatch",
        },
    ];
    for Case { name, iss, tid, with_any, with_acme } in cases {
        let token = entra.token().issued_by(&iss).claim("tid", tid).build();
        assert_eq!(verdict(&any, &token).await, with_any, "{name}");
        assert_eq!(verdict(&acme_only, &token).await, with_acme, "{name}, one tenant trusted");
    }
    let token = entra.token().issued_by(&iss(ACME)).claim("tid", ACME).build();
    assert_eq!(
        any.verify(&token).await.unwrap().issuer(),
        iss(ACME),
        "the tenant's `iss` instead of the template"
    );
    assert_eq!(any.health().len(), 1);
}

#[tokio::test]
async fn a_key_that_names_a_tenant_verifies_no_other_tenants_tokens() {
    let entra = entra();
    struct Case {
        name: &'static str,
        key_issuer: Value,
        acme: &'static str,
        globex: &'static str,
    }
    let cases = [
        Case { name: "all tenants", key_issuer: json!(TEMPLATE), acme: "ok", globex: "ok" },
        Case {
            name: "all tenants, another version",
            key_issuer: json!("https://sts.example/{tenantid}/"),
            acme: "ok",
            globex: "ok",
        },
        Case {
            name: "one tenant",
            key_issuer: json!(iss(ACME)),
            acme: "ok",
            globex: "unknown_key",
        },
        Case {
            name: "the other tenant",
            key_issuer: json!(iss(GLOBEX)),
            acme: "unknown_key",
            globex: "ok",
        },
        Case {
            name: "neither tenant",
            key_issuer: json!("https://login.example/common"),
            acme: "unknown_key",
            globex: "unknown_key",
        },
        Case {
            name: "part of a segment",
            key_issuer: json!(format!("https://login.example/x{ACME}")),
            acme: "unknown_key",
            globex: "unknown_key",
        },
        Case {
            name: "not a string",
            key_issuer: json!(7),
            acme: "unknown_key",
            globex: "unknown_key",
        },
    ];
    for Case { name, key_issuer, acme, globex } in cases {
        let mut set = entra.jwks_json();
        set["keys"][0]["issuer"] = key_issuer;
        let jwks = Jwks::from_json(set.to_string()).unwrap();
        let verifier =
            Verifier::new(Issuer::template(TEMPLATE, AUDIENCE).unwrap().jwks(jwks.clone()))
                .unwrap();
        for (tenant, expected) in [(ACME, acme), (GLOBEX, globex)] {
            let token = entra.token().issued_by(&iss(tenant)).claim("tid", tenant).build();
            assert_eq!(verdict(&verifier, &token).await, expected, "{name}: {tenant}");
        }
        // An issuer with a single tenant has its own key set, so this member is ignored.
        let single = Verifier::new(Issuer::new(iss(ACME), AUDIENCE).unwrap().jwks(jwks)).unwrap();
        assert_eq!(
            verdict(&single, &entra.token().issued_by(&iss(ACME)).build()).await,
            "ok",
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_key_without_alg_names_its_tenant_for_each_algorithm() {
    for algorithm in [Algorithm::RS256, Algorithm::RS384] {
        let entra = TestIssuer::offline_with("https://login.example/x", algorithm).unwrap();
        let mut set = entra.jwks_json();
        let key = set["keys"][0].as_object_mut().unwrap();
        key.remove("alg");
        key.insert("issuer".to_owned(), iss(ACME).into());
        let jwks = Jwks::from_json(set.to_string()).unwrap().rsa_algorithm(algorithm).unwrap();
        let template = Issuer::template(TEMPLATE, AUDIENCE).unwrap().jwks(jwks);
        let verifier = Verifier::new(template.algorithms([algorithm]).unwrap()).unwrap();
        for (tenant, expected) in [(ACME, "ok"), (GLOBEX, "unknown_key")] {
            let token = entra.token().issued_by(&iss(tenant)).claim("tid", tenant).build();
            assert_eq!(verdict(&verifier, &token).await, expected, "{algorithm}: {tenant}");
        }
    }
}

/// Entra's metadata name the template as the issuer, at a URL that belongs to no tenant. All
/// tenants share one key set.
#[tokio::test]
async fn the_keys_of_all_tenants_are_discovered_once() {
    let entra = entra();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let metadata = json!({ "issuer": TEMPLATE, "jwks_uri": format!("{address}/keys") });
    let jwks = entra.jwks_json();
    let app = Router::new()
        .route("/common/v2.0/.well-known/openid-configuration", get(async move || Json(metadata)))
        .route("/keys", get(async move || Json(jwks)));
    let server = tokio::spawn(async move { axum::serve(listener, app).await });

    let template = Issuer::template(TEMPLATE, AUDIENCE).unwrap();
    let template = template.discovery_url(&format!("{address}/common/v2.0")).unwrap();
    let untrusted = Issuer::new(iss(GLOBEX), "https://other.example").unwrap().jwks(entra.jwks());
    let verifier =
        Verifier::new(Issuers::lookup(|_| None).with_issuers([template, untrusted]).unwrap())
            .unwrap();
    let token = |tenant| entra.token().issued_by(&iss(tenant)).claim("tid", tenant).build();
    assert_eq!(verdict(&verifier, &token(ACME)).await, "ok");
    let other = ACME.replace('7', "0");
    assert_eq!(verdict(&verifier, &token(&other)).await, "ok");
    assert_eq!(
        verdict(&verifier, &token(GLOBEX)).await,
        "wrong_audience",
        "a tenant configured by name has its own rules"
    );
    let fetches: u64 = verifier.health().iter().map(|health| health.fetches).sum();
    assert_eq!(fetches, 1);
    server.abort();
}

#[test]
fn invalid_templates_are_configuration_errors() {
    let refused = |issuer: Result<Issuer, ConfigError>| issuer.unwrap_err().to_string();
    let template = || Issuer::template(TEMPLATE, AUDIENCE).unwrap();
    let built = |issuer: Issuer| refused(Verifier::new(issuer.clone()).map(|_| issuer));
    for (said, expected) in [
        (refused(Issuer::new(TEMPLATE, AUDIENCE)), "use `template`"),
        (refused(Issuer::template(iss(ACME), AUDIENCE)), "expected {tenantid} in it"),
        (refused(Issuer::template(iss("{tenantid}{tenantid}"), AUDIENCE)), "once"),
        (refused(template().tenants(["contoso.example"])), "\"contoso.example\": expected a GUID"),
        (
            refused(Issuer::new(iss(ACME), AUDIENCE).unwrap().tenants([ACME])),
            "expected a `template`",
        ),
        (built(template()), "`discovery_url`"),
        (built(template().alias("x").unwrap().jwks(entra().jwks())), "alias \"x\""),
    ] {
        assert!(said.contains(expected), "{said}");
    }
}

/// Also with a single tenant, a key of consumer accounts must not verify tokens of an enterprise.
#[tokio::test]
async fn a_key_of_another_entra_tenant_does_not_verify_tokens_of_a_single_tenant() {
    const CONSUMERS: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";
    let keys = TestIssuer::offline_with("x", Algorithm::RS256).unwrap();
    let member = |issuer: Option<String>| {
        let mut set = keys.jwks_json();
        if let Some(issuer) = issuer {
            set["keys"][0]["issuer"] = issuer.into();
        }
        Jwks::from_json(set.to_string()).unwrap()
    };
    let token = keys
        .token()
        .issued_by(&format!("https://login.microsoftonline.com/{ACME}/v2.0"))
        .claim("tid", ACME)
        .claim("azp", "app")
        .build();
    struct Case {
        name: &'static str,
        issuer: Option<String>,
        expected: &'static str,
    }
    for Case { name, issuer, expected } in [
        Case { name: "no tenant", issuer: None, expected: "ok" },
        Case {
            name: "all tenants",
            issuer: Some("https://login.microsoftonline.com/{tenantid}/v2.0".to_owned()),
            expected: "ok",
        },
        Case {
            name: "this tenant",
            issuer: Some(format!("https://login.microsoftonline.com/{ACME}/v2.0")),
            expected: "ok",
        },
        Case {
            name: "consumers",
            issuer: Some(format!("https://login.microsoftonline.com/{CONSUMERS}/v2.0")),
            expected: "unknown_key",
        },
    ] {
        let entra = providers::entra(ACME, AUDIENCE).unwrap().jwks(member(issuer));
        assert_eq!(verdict(&Verifier::new(entra).unwrap(), &token).await, expected, "{name}");
    }
}
