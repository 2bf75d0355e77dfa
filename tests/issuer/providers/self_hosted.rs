//! Presets of identity providers that one runs oneself.

use portcullis::{Algorithm, providers};
use serde_json::json;

use super::{Provider, Trap};

pub(super) fn self_hosted() -> Vec<Provider> {
    let api = "https://api.acme.test/";
    let rsa = Algorithm::RS256;
    vec![
        Provider {
            name: "Keycloak",
            preset: providers::keycloak("https://sso.acme.test/", "prod", "orders-api").unwrap(),
            algorithm: rsa,
            typ: Some("JWT"),
            claims: json!({
                "iss": "https://sso.acme.test/realms/prod", "aud": ["orders-api", "account"], "typ": "Bearer", "azp": "mobile-app",
                "sub": "f1c4f64e", "jti": "onrtro:5d1c", "acr": "1", "realm_access": { "roles": ["operator"] },
                "resource_access": { "orders-api": { "roles": ["reader"] } }, "scope": "openid orders:read",
            }),
            grants: |token| {
                token.has_role("operator")
                    && !token.has_role("reader")
                    && token.has_scope("orders:read")
            },
            traps: vec![
                Trap {
                    name: "ID token",
                    header: None,
                    claims: json!({ "typ": "ID" }),
                    expected: "claim_value",
                },
                Trap {
                    name: "refresh token",
                    header: None,
                    claims: json!({ "typ": "Refresh" }),
                    expected: "claim_value",
                },
                Trap {
                    name: "offline token",
                    header: None,
                    claims: json!({ "typ": "Offline" }),
                    expected: "claim_value",
                },
                Trap {
                    name: "no typ claim",
                    header: None,
                    claims: json!({ "typ": null }),
                    expected: "claim_value",
                },
                Trap {
                    name: "for `account` only",
                    header: None,
                    claims: json!({ "aud": "account" }),
                    expected: "wrong_audience",
                },
                Trap {
                    name: "no audience",
                    header: None,
                    claims: json!({ "aud": null }),
                    expected: "missing_claim",
                },
                Trap {
                    name: "of another realm",
                    header: None,
                    claims: json!({ "iss": "https://sso.acme.test/realms/test" }),
                    expected: "unknown_issuer",
                },
            ],
        },
        Provider {
            name: "SPIRE",
            preset: providers::spiffe("acme.test", "orders")
                .unwrap()
                .jwks_uri("https://spire.acme.test:8443/")
                .unwrap(),
            algorithm: rsa,
            typ: Some("JWT"),
            claims: json!({ "sub": "spiffe://acme.test/ns/prod/sa/web", "aud": ["orders"] }),
            grants: |token| {
                token.issuer() == "spiffe://acme.test"
                    && token.subject() == Some("spiffe://acme.test/ns/prod/sa/web")
            },
            traps: vec![
                Trap {
                    name: "for another workload",
                    header: None,
                    claims: json!({ "aud": ["spiffe://acme.test/ns/prod/sa/billing"] }),
                    expected: "wrong_audience",
                },
                Trap {
                    name: "of another trust domain",
                    header: None,
                    claims: json!({ "sub": "spiffe://acme.test.evil/ns/prod/sa/web" }),
                    expected: "claim_value",
                },
                Trap {
                    name: "workload identity token",
                    header: Some(("typ", json!("wit+jwt"))),
                    claims: json!({}),
                    expected: "unexpected_type",
                },
            ],
        },
        Provider {
            name: "Authentik",
            preset: providers::authentik("sso.acme.test", "orders", "client-1").unwrap(),
            algorithm: rsa,
            typ: Some("JWT"),
            claims: json!({
                "iss": "https://sso.acme.test/application/o/orders/", "aud": "client-1", "azp": "client-1", "sub": "1",
                "scope": "openid orders", "groups": ["staff"], "uid": "u", "nonce": "n",
            }),
            grants: |token| token.has_scope("orders") && token.in_group("staff"),
            traps: vec![Trap {
                name: "ID token",
                header: None,
                claims: json!({ "uid": null, "at_hash": "x" }),
                expected: "claim_value",
            }],
        },
        Provider {
            name: "Authelia",
            preset: providers::authelia("auth.acme.test", api).unwrap(),
            algorithm: Algorithm::ES256,
            typ: Some("at+jwt"),
            claims: json!({
                "iss": "https://auth.acme.test", "aud": [api], "client_id": "c", "jti": "1", "sub": "1", "scp": ["orders"],
            }),
            grants: |token| token.has_scope("orders"),
            traps: vec![
                Trap {
                    name: "ID token",
                    header: Some(("typ", json!("JWT"))),
                    claims: json!({}),
                    expected: "unexpected_type",
                },
                Trap {
                    name: "no audience",
                    header: None,
                    claims: json!({ "aud": [] }),
                    expected: "wrong_audience",
                },
            ],
        },
        Provider {
            name: "Kanidm",
            preset: providers::kanidm("idm.acme.test", "orders").unwrap(),
            algorithm: Algorithm::ES256,
            typ: Some("at+jwt"),
            claims: json!({
                "iss": "https://idm.acme.test/oauth2/openid/orders", "sub": "9d1e6f0a", "aud": "orders", "jti": "7f3c",
                "client_id": "orders", "scope": "openid groups orders_read",
            }),
            grants: |token| token.has_scope("orders_read"),
            traps: vec![
                Trap {
                    name: "ID token",
                    header: Some(("typ", json!("JWT"))),
                    claims: json!({}),
                    expected: "unexpected_type",
                },
                Trap {
                    name: "of another client",
                    header: None,
                    claims: json!({ "iss": "https://idm.acme.test/oauth2/openid/other" }),
                    expected: "unknown_issuer",
                },
            ],
        },
        Provider {
            name: "Curity",
            preset: providers::curity("https://login.acme.test/oauth/v2", api).unwrap(),
            algorithm: rsa,
            typ: Some("JWT"),
            claims: json!({ "iss": "https://login.acme.test/oauth/v2", "aud": api, "sub": "1", "purpose": "access_token", "scope": "orders" }),
            grants: |token| token.has_scope("orders"),
            traps: vec![
                Trap {
                    name: "ID token",
                    header: None,
                    claims: json!({ "purpose": "id" }),
                    expected: "claim_value",
                },
                Trap {
                    name: "no purpose",
                    header: None,
                    claims: json!({ "purpose": null }),
                    expected: "claim_value",
                },
            ],
        },
        Provider {
            name: "Duende",
            preset: providers::duende("https://ids.acme.test", "invoice").unwrap(),
            algorithm: rsa,
            typ: Some("at+jwt"),
            claims: json!({
                "iss": "https://ids.acme.test", "aud": ["invoice", "customer"], "scope": ["invoice.read", "customer.read"],
                "client_id": "mobile", "sub": "88421113", "jti": "C9D0",
            }),
            grants: |token| token.has_scope("invoice.read") && token.has_scope("customer.read"),
            traps: vec![
                Trap {
                    name: "ID token",
                    header: Some(("typ", json!("JWT"))),
                    claims: json!({}),
                    expected: "unexpected_type",
                },
                Trap {
                    name: "no API resource",
                    header: None,
                    claims: json!({ "aud": null }),
                    expected: "missing_claim",
                },
            ],
        },
    ]
}
