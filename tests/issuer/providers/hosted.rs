//! Presets of identity providers that are run as a service.

use portcullis::{Algorithm, providers};
use serde_json::{Value, json};

use super::{Provider, Trap};

pub(super) fn hosted() -> Vec<Provider> {
    let api = "https://api.acme.test/";
    let rsa = Algorithm::RS256;
    vec![
        Provider {
            name: "Auth0",
            preset: providers::auth0("acme.eu.auth0.com", api).unwrap(),
            algorithm: rsa,
            typ: Some("JWT"),
            claims: json!({
                "iss": "https://acme.eu.auth0.com/", "sub": "auth0|6553da60a54af58e29493993",
                "aud": [api, "https://acme.eu.auth0.com/userinfo"], "azp": "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja",
                "scope": "openid profile read:orders", "org_id": "org_9ybsU1dN2dKfDkBi",
                "permissions": ["read:orders", "write:orders"], "https://acme.test/plan": "pro",
            }),
            grants: |token| {
                token.has_scope("read:orders")
                    && !token.has_scope("write:orders")
                    && token.has_permission("write:orders")
                    && token.claim("https://acme.test/plan").is_some_and(|plan| plan == "pro")
                    && token.client_id() == Some("K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja")
            },
            traps: vec![
                Trap {
                    name: "ID token",
                    header: None,
                    claims: json!({ "aud": "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja", "nonce": "n" }),
                    expected: "wrong_audience",
                },
                Trap {
                    name: "of another API",
                    header: None,
                    claims: json!({ "aud": "https://other.acme.test/" }),
                    expected: "wrong_audience",
                },
                Trap {
                    name: "for /userinfo only",
                    header: None,
                    claims: json!({ "aud": "https://acme.eu.auth0.com/userinfo" }),
                    expected: "wrong_audience",
                },
                Trap {
                    name: "of another tenant",
                    header: None,
                    claims: json!({ "iss": "https://evil.eu.auth0.com/" }),
                    expected: "unknown_issuer",
                },
                Trap {
                    name: "without the trailing slash",
                    header: None,
                    claims: json!({ "iss": "https://acme.eu.auth0.com" }),
                    expected: "unknown_issuer",
                },
                Trap {
                    name: "sender-constrained",
                    header: None,
                    claims: json!({ "cnf": { "jkt": "2HR2BW5-tan1aI6yIPHVOHwirAy4kQGWULoQHKUO0s4" } }),
                    expected: "sender_constrained",
                },
            ],
        },
        Provider {
            name: "Auth0, RFC 9068 profile",
            preset: providers::auth0("login.acme.test", api).unwrap().require_rfc9068(),
            algorithm: rsa,
            typ: Some("at+jwt"),
            claims: json!({
                "iss": "https://login.acme.test/", "sub": "Q9aXw2@clients", "aud": api, "client_id": "Q9aXw2",
                "jti": "73WakrfVbNJBaAmhQtEeDv", "scope": "read:orders",
            }),
            grants: |token| token.has_scope("read:orders") && token.client_id() == Some("Q9aXw2"),
            traps: vec![
                Trap {
                    name: "no jti",
                    header: None,
                    claims: json!({ "jti": null }),
                    expected: "missing_claim",
                },
                Trap {
                    name: "no client_id",
                    header: None,
                    claims: json!({ "client_id": null }),
                    expected: "missing_claim",
                },
                Trap {
                    name: "no sub",
                    header: None,
                    claims: json!({ "sub": null }),
                    expected: "missing_claim",
                },
                Trap {
                    name: "another typ",
                    header: Some(("typ", json!("JWT"))),
                    claims: json!({}),
                    expected: "unexpected_type",
                },
                Trap {
                    name: "no typ",
                    header: Some(("typ", Value::Null)),
                    claims: json!({}),
                    expected: "unexpected_type",
                },
            ],
        },
        Provider {
            name: "Okta",
            preset: providers::okta("acme.okta.com", "default", "api://default").unwrap(),
            algorithm: rsa,
            typ: None,
            claims: json!({
                "ver": 1, "jti": "AT.pKoLFoM7X4P4DrJBRvXaJzj9g0-naK1C", "iss": "https://acme.okta.com/oauth2/default",
                "aud": "api://default", "cid": "0oaipnnzumvqt5tiu1d6", "uid": "00uzrjisTQK1SlAMB1d5",
                "scp": ["openid", "orders.read"], "sub": "joe@acme.test", "groups": ["Everyone"],
            }),
            grants: |token| {
                token.has_scope("orders.read")
                    && token.in_group("Everyone")
                    && token.client_id() == Some("0oaipnnzumvqt5tiu1d6")
            },
            traps: vec![
                Trap {
                    name: "ID token",
                    header: None,
                    claims: json!({ "aud": "0oaipnnzumvqt5tiu1d6" }),
                    expected: "wrong_audience",
                },
                Trap {
                    name: "of the org authorization server",
                    header: None,
                    claims: json!({ "iss": "https://acme.okta.com" }),
                    expected: "unknown_issuer",
                },
                Trap {
                    name: "of another authorization server",
                    header: None,
                    claims: json!({ "iss": "https://acme.okta.com/oauth2/aus1" }),
                    expected: "unknown_issuer",
                },
            ],
        },
        Provider {
            name: "Supabase",
            preset: providers::supabase("abcd").unwrap(),
            algorithm: Algorithm::ES256,
            typ: Some("JWT"),
            claims: json!({
                "iss": "https://abcd.supabase.co/auth/v1", "sub": "ef0493c9", "aud": "authenticated", "role": "authenticated",
                "aal": "aal1", "is_anonymous": false, "user_metadata": { "role": "admin" },
            }),
            grants: |token| token.has_role("authenticated") && !token.has_role("admin"),
            traps: vec![Trap {
                name: "an API key",
                header: None,
                claims: json!({ "aud": null, "role": "anon" }),
                expected: "missing_claim",
            }],
        },
        Provider {
            name: "Clerk",
            preset: providers::clerk("https://clerk.acme.test", ["https://app.acme.test"]).unwrap(),
            algorithm: rsa,
            typ: Some("JWT"),
            claims: json!({
                "azp": "https://app.acme.test", "iss": "https://clerk.acme.test", "jti": "1234567890", "sid": "sess_123",
                "sub": "user_123", "v": 2, "o": { "id": "org_123", "slg": "acme", "rol": "admin", "per": "manage,read" },
            }),
            grants: |token| {
                token.has_role("admin")
                    && token.has_permission("manage")
                    && !token.has_permission("manage,read")
            },
            traps: vec![
                Trap {
                    name: "pending",
                    header: None,
                    claims: json!({ "sts": "pending" }),
                    expected: "claim_value",
                },
                Trap {
                    name: "of another origin",
                    header: None,
                    claims: json!({ "azp": "https://evil.test" }),
                    expected: "wrong_audience",
                },
                Trap {
                    name: "no azp",
                    header: None,
                    claims: json!({ "azp": null }),
                    expected: "missing_claim",
                },
                Trap {
                    name: "of a JWT template, for another service",
                    header: None,
                    claims: json!({ "aud": "convex", "sid": null }),
                    expected: "wrong_audience",
                },
                Trap {
                    name: "of a JWT template without audience",
                    header: None,
                    claims: json!({ "sid": null }),
                    expected: "claim_value",
                },
            ],
        },
        Provider {
            name: "WorkOS",
            preset: providers::workos("client_01").unwrap(),
            algorithm: rsa,
            typ: None,
            claims: json!({
                "iss": "https://api.workos.com", "sub": "user_01", "org_id": "org_01", "role": "member", "roles": ["member"],
                "permissions": ["posts:read"], "sid": "session_01", "jti": "01",
            }),
            grants: |token| token.has_role("member") && token.has_permission("posts:read"),
            traps: vec![Trap {
                name: "of another client",
                header: None,
                claims: json!({ "iss": "https://api.workos.com/user_management/client_02" }),
                expected: "unknown_issuer",
            }],
        },
        Provider {
            name: "Zitadel",
            preset: providers::zitadel("acme.zitadel.cloud", "69234237810729019").unwrap(),
            algorithm: rsa,
            typ: Some("JWT"),
            claims: json!({
                "iss": "https://acme.zitadel.cloud", "sub": "77776025198584418", "aud": ["69234237810729234", "69234237810729019"],
                "jti": "1", "urn:zitadel:iam:org:project:69234237810729019:roles": { "admin": { "1700": "acme.zitadel.cloud" } },
                "urn:zitadel:iam:org:project:roles": { "owner": { "1700": "acme.zitadel.cloud" } },
            }),
            grants: |token| token.has_role("admin") && !token.has_role("owner"),
            traps: vec![
                Trap {
                    name: "of another project",
                    header: None,
                    claims: json!({ "aud": ["69234237810729234"] }),
                    expected: "wrong_audience",
                },
                Trap {
                    name: "ID token",
                    header: None,
                    claims: json!({ "jti": null, "at_hash": "x" }),
                    expected: "claim_value",
                },
            ],
        },
        Provider {
            name: "Ory",
            preset: providers::ory("slug", api).unwrap(),
            algorithm: rsa,
            typ: Some("JWT"),
            claims: json!({
                "aud": [api], "client_id": "f1c0", "ext": { "plan": "pro" }, "iss": "https://slug.projects.oryapis.com",
                "jti": "6f2a", "scp": ["orders.read", "offline"], "sub": "user-42",
            }),
            grants: |token| {
                token.has_scope("orders.read")
                    && token.claim("/ext/plan").is_some_and(|plan| plan == "pro")
            },
            traps: vec![Trap {
                name: "no audience",
                header: None,
                claims: json!({ "aud": [] }),
                expected: "wrong_audience",
            }],
        },
        Provider {
            name: "PingOne",
            preset: providers::pingone("env-1", api).unwrap(),
            algorithm: rsa,
            typ: None,
            claims: json!({ "iss": "https://auth.pingone.com/env-1/as", "aud": [api], "client_id": "c", "sub": "1", "scope": "orders" }),
            grants: |token| token.has_scope("orders"),
            traps: vec![Trap {
                name: "of another environment",
                header: None,
                claims: json!({ "iss": "https://auth.pingone.com/env-2/as" }),
                expected: "unknown_issuer",
            }],
        },
        Provider {
            name: "Descope",
            preset: providers::descope("P2PqjhPcC8Hri2nXUY7f234F", "orders").unwrap(),
            algorithm: rsa,
            typ: Some("JWT"),
            claims: json!({
                "iss": "P2PqjhPcC8Hri2nXUY7f234F", "sub": "U2Pq", "aud": ["orders"], "permissions": ["orders.read"],
                "roles": ["Tenant Admin"], "tenants": { "T1": { "permissions": ["orders.write"], "roles": ["Admin"] } },
            }),
            grants: |token| {
                token.has_role("Tenant Admin")
                    && !token.has_role("Admin")
                    && token.has_permission("orders.read")
            },
            traps: vec![
                Trap {
                    name: "of another project",
                    header: None,
                    claims: json!({ "iss": "P2other" }),
                    expected: "unknown_issuer",
                },
                Trap {
                    name: "refresh token",
                    header: None,
                    claims: json!({ "drn": "DSR" }),
                    expected: "claim_value",
                },
            ],
        },
        Provider {
            name: "Logto",
            preset: providers::logto("acme.logto.app", api).unwrap(),
            algorithm: Algorithm::ES384,
            typ: Some("at+jwt"),
            claims: json!({ "iss": "https://acme.logto.app/oidc", "aud": api, "scope": "orders", "client_id": "c", "sub": "1" }),
            grants: |token| token.has_scope("orders"),
            traps: vec![Trap {
                name: "for another resource",
                header: None,
                claims: json!({ "aud": "https://other.acme.test" }),
                expected: "wrong_audience",
            }],
        },
    ]
}
