//! Presets accept a token as the provider issues it and reject tokens that must not be accepted as
//! access tokens.
//!
//! The tokens follow the samples of the providers and are signed with keys of the tests.

use std::collections::HashMap;

use portcullis::testing::{TestIssuer, TokenBuilder};
use portcullis::{AccessToken, Algorithm, Audience, Issuer, ProtectLayer, Verifier};
use serde_json::{Map, Value, json};

/// A preset, a valid token of its provider (`iat`, `nbf` and `exp` are added), and traps: the
/// changed claims and the expected error code.
struct Provider {
    name: &'static str,
    preset: Issuer,
    algorithm: Algorithm,
    typ: Option<&'static str>,
    claims: Value,
    grants: fn(&AccessToken) -> bool,
    traps: Vec<(&'static str, Value, &'static str)>,
}

const ACME: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const OTHER: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

#[allow(clippy::too_many_lines)]
fn providers() -> Vec<Provider> {
    let api = "https://api.acme.test/";
    let rsa = Algorithm::RS256;
    vec![
        Provider {
            name: "Auth0",
            preset: portcullis::providers::auth0("acme.eu.auth0.com", api).unwrap(),
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
                (
                    "ID token",
                    json!({ "aud": "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja", "nonce": "n" }),
                    "wrong_audience",
                ),
                ("of another API", json!({ "aud": "https://other.acme.test/" }), "wrong_audience"),
                (
                    "for /userinfo only",
                    json!({ "aud": "https://acme.eu.auth0.com/userinfo" }),
                    "wrong_audience",
                ),
                (
                    "of another tenant",
                    json!({ "iss": "https://evil.eu.auth0.com/" }),
                    "unknown_issuer",
                ),
                (
                    "without the trailing slash",
                    json!({ "iss": "https://acme.eu.auth0.com" }),
                    "unknown_issuer",
                ),
                (
                    "sender-constrained",
                    json!({ "cnf": { "jkt": "2HR2BW5-tan1aI6yIPHVOHwirAy4kQGWULoQHKUO0s4" } }),
                    "sender_constrained",
                ),
            ],
        },
        Provider {
            name: "Auth0, RFC 9068 profile",
            preset: portcullis::providers::auth0("login.acme.test", api).unwrap().require_rfc9068(),
            algorithm: rsa,
            typ: Some("at+jwt"),
            claims: json!({
                "iss": "https://login.acme.test/", "sub": "Q9aXw2@clients", "aud": api, "client_id": "Q9aXw2",
                "jti": "73WakrfVbNJBaAmhQtEeDv", "scope": "read:orders",
            }),
            grants: |token| token.has_scope("read:orders") && token.client_id() == Some("Q9aXw2"),
            traps: vec![
                ("no jti", json!({ "jti": null }), "missing_claim"),
                ("no client_id", json!({ "client_id": null }), "missing_claim"),
                ("no sub", json!({ "sub": null }), "missing_claim"),
                ("another typ", json!({ "typ ": "JWT" }), "unexpected_type"),
                ("no typ", json!({ "typ ": null }), "unexpected_type"),
            ],
        },
        Provider {
            name: "Okta",
            preset: portcullis::providers::okta("acme.okta.com", "default", "api://default")
                .unwrap(),
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
                ("ID token", json!({ "aud": "0oaipnnzumvqt5tiu1d6" }), "wrong_audience"),
                (
                    "of the org authorization server",
                    json!({ "iss": "https://acme.okta.com" }),
                    "unknown_issuer",
                ),
                (
                    "of another authorization server",
                    json!({ "iss": "https://acme.okta.com/oauth2/aus1" }),
                    "unknown_issuer",
                ),
            ],
        },
        Provider {
            name: "Entra",
            preset: portcullis::providers::entra(ACME, "6e74172b-be56-4843-9ff4-e66a39bb12e3")
                .unwrap(),
            algorithm: rsa,
            typ: Some("JWT"),
            claims: json!({
                "aud": "6e74172b-be56-4843-9ff4-e66a39bb12e3", "iss": format!("https://login.microsoftonline.com/{ACME}/v2.0"),
                "azp": "0f1c", "azpacr": "1", "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474", "tid": ACME, "ver": "2.0",
                "scp": "access_as_user Orders.Read", "roles": ["Orders.Approver"], "sub": "HKZpfaHyWadeOouYlitjrI",
            }),
            grants: |token| token.has_scope("Orders.Read") && token.has_role("Orders.Approver"),
            traps: vec![
                ("wrong tid", json!({ "tid": OTHER }), "claim_value"),
                ("no tid", json!({ "tid": null }), "claim_value"),
                (
                    "of another tenant",
                    json!({ "iss": format!("https://login.microsoftonline.com/{OTHER}/v2.0") }),
                    "unknown_issuer",
                ),
                ("ID token", json!({ "azp": null, "scp": null, "nonce": "n" }), "claim_value"),
                (
                    "version 1.0",
                    json!({ "iss": format!("https://sts.windows.net/{ACME}/") }),
                    "unknown_issuer",
                ),
                (
                    "for Graph",
                    json!({ "aud": "00000003-0000-0000-c000-000000000000", "nonce ": "x" }),
                    "microsoft_nonce",
                ),
                (
                    "for Graph, version 1.0",
                    json!({ "iss": format!("https://sts.windows.net/{ACME}/"), "nonce ": "x" }),
                    "microsoft_nonce",
                ),
                (
                    "for another API",
                    json!({ "aud": "00000003-0000-0000-c000-000000000000" }),
                    "wrong_audience",
                ),
            ],
        },
        Provider {
            name: "Entra, many tenants",
            preset: portcullis::providers::entra_multi_tenant(
                "6e74172b-be56-4843-9ff4-e66a39bb12e3",
            )
            .unwrap(),
            algorithm: rsa,
            typ: Some("JWT"),
            claims: json!({
                "aud": "6e74172b-be56-4843-9ff4-e66a39bb12e3", "iss": format!("https://login.microsoftonline.com/{OTHER}/v2.0"),
                "tid": OTHER, "scp": "Orders.Read", "sub": "x", "azp": "0f1c",
            }),
            grants: |token| token.has_scope("Orders.Read"),
            traps: vec![
                ("wrong tid", json!({ "tid": ACME }), "tenant_mismatch"),
                ("no tid", json!({ "tid": null }), "tenant_mismatch"),
                ("ID token", json!({ "azp": null, "scp": null, "nonce": "n" }), "claim_value"),
                (
                    "of no tenant",
                    json!({ "iss": "https://login.microsoftonline.com/common/v2.0" }),
                    "unknown_issuer",
                ),
            ],
        },
        Provider {
            name: "Cognito",
            preset: portcullis::providers::cognito(
                "us-west-2",
                "us-west-2_EXAMPLE",
                ["app-1", "app-2"],
            )
            .unwrap()
            .scope_prefix("orders/"),
            algorithm: rsa,
            typ: None,
            claims: json!({
                "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "cognito:groups": ["admins"], "version": 2,
                "iss": "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_EXAMPLE", "client_id": "app-1",
                "token_use": "access", "scope": "openid orders/read", "username": "jane",
            }),
            grants: |token| token.has_scope("read") && token.in_group("admins"),
            traps: vec![
                (
                    "ID token",
                    json!({ "token_use": "id", "client_id": null, "aud": "app-1", "azp": "app-1" }),
                    "wrong_audience",
                ),
                (
                    "bound to another API (RFC 8707)",
                    json!({ "aud": "https://other-api.example" }),
                    "wrong_audience",
                ),
                ("not an access token", json!({ "token_use": "id" }), "claim_value"),
                ("no token_use", json!({ "token_use": null }), "claim_value"),
                ("of another app", json!({ "client_id": "app-3" }), "wrong_audience"),
                ("no client_id", json!({ "client_id": null, "aud": "app-1" }), "missing_claim"),
            ],
        },
        Provider {
            name: "Cognito, with resource binding",
            preset: portcullis::providers::cognito("us-west-2", "us-west-2_EXAMPLE", ["app-1"])
                .unwrap()
                .audience(Audience::client_id(["app-1"]).aud_if_present(["https://api.acme.test"]))
                .unwrap(),
            algorithm: rsa,
            typ: None,
            claims: json!({
                "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "aud": "https://api.acme.test", "client_id": "app-1",
                "iss": "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_EXAMPLE", "token_use": "access",
            }),
            grants: |token| token.client_id() == Some("app-1"),
            traps: vec![
                (
                    "bound to another API",
                    json!({ "aud": "https://other-api.example" }),
                    "wrong_audience",
                ),
                ("of another app", json!({ "client_id": "app-3" }), "wrong_audience"),
            ],
        },
        Provider {
            name: "Keycloak",
            preset: portcullis::providers::keycloak("https://sso.acme.test/", "prod", "orders-api")
                .unwrap(),
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
                ("ID token", json!({ "typ": "ID" }), "claim_value"),
                ("refresh token", json!({ "typ": "Refresh" }), "claim_value"),
                ("offline token", json!({ "typ": "Offline" }), "claim_value"),
                ("no typ claim", json!({ "typ": null }), "claim_value"),
                ("for `account` only", json!({ "aud": "account" }), "wrong_audience"),
                ("no audience", json!({ "aud": null }), "missing_claim"),
                (
                    "of another realm",
                    json!({ "iss": "https://sso.acme.test/realms/test" }),
                    "unknown_issuer",
                ),
            ],
        },
        Provider {
            name: "Google",
            preset: portcullis::providers::google("https://orders-abc-ew.a.run.app").unwrap(),
            algorithm: rsa,
            typ: Some("JWT"),
            claims: json!({
                "aud": "https://orders-abc-ew.a.run.app", "azp": "1137", "email": "caller@proj.iam.gserviceaccount.com",
                "email_verified": true, "iss": "accounts.google.com", "sub": "1137",
            }),
            grants: |token| token.claim("email_verified").is_some_and(|verified| verified == true),
            traps: vec![(
                "of another service",
                json!({ "aud": "https://other-abc-ew.a.run.app" }),
                "wrong_audience",
            )],
        },
        Provider {
            name: "Firebase",
            preset: portcullis::providers::firebase("acme-prod").unwrap(),
            algorithm: rsa,
            typ: Some("JWT"),
            claims: json!({
                "iss": "https://securetoken.google.com/acme-prod", "aud": "acme-prod", "user_id": "Zx1", "sub": "Zx1",
                "auth_time": 1_794_990_000, "admin": true, "firebase": { "sign_in_provider": "password", "tenant": "acme-x1" },
            }),
            grants: |token| {
                token.claim("/firebase/tenant").is_some_and(|tenant| tenant == "acme-x1")
            },
            traps: vec![
                (
                    "of another project",
                    json!({ "aud": "evil", "iss": "https://securetoken.google.com/evil" }),
                    "unknown_issuer",
                ),
                ("another audience", json!({ "aud": "evil" }), "wrong_audience"),
                ("an empty subject", json!({ "sub": "" }), "claim_value"),
                ("no subject", json!({ "sub": null }), "claim_value"),
                (
                    "auth_time in the future",
                    json!({ "auth_time": 4_000_000_000_u64 }),
                    "claim_value",
                ),
                ("no auth_time", json!({ "auth_time": null }), "claim_value"),
            ],
        },
        Provider {
            name: "Supabase",
            preset: portcullis::providers::supabase("abcd").unwrap(),
            algorithm: Algorithm::ES256,
            typ: Some("JWT"),
            claims: json!({
                "iss": "https://abcd.supabase.co/auth/v1", "sub": "ef0493c9", "aud": "authenticated", "role": "authenticated",
                "aal": "aal1", "is_anonymous": false, "user_metadata": { "role": "admin" },
            }),
            grants: |token| token.has_role("authenticated") && !token.has_role("admin"),
            traps: vec![("an API key", json!({ "aud": null, "role": "anon" }), "missing_claim")],
        },
        Provider {
            name: "Clerk",
            preset: portcullis::providers::clerk(
                "https://clerk.acme.test",
                ["https://app.acme.test"],
            )
            .unwrap(),
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
                ("pending", json!({ "sts": "pending" }), "claim_value"),
                ("of another origin", json!({ "azp": "https://evil.test" }), "wrong_audience"),
                ("no azp", json!({ "azp": null }), "missing_claim"),
                (
                    "of a JWT template, for another service",
                    json!({ "aud": "convex", "sid": null }),
                    "wrong_audience",
                ),
                ("of a JWT template without audience", json!({ "sid": null }), "claim_value"),
            ],
        },
        Provider {
            name: "WorkOS",
            preset: portcullis::providers::workos("client_01").unwrap(),
            algorithm: rsa,
            typ: None,
            claims: json!({
                "iss": "https://api.workos.com", "sub": "user_01", "org_id": "org_01", "role": "member", "roles": ["member"],
                "permissions": ["posts:read"], "sid": "session_01", "jti": "01",
            }),
            grants: |token| token.has_role("member") && token.has_permission("posts:read"),
            traps: vec![(
                "of another client",
                json!({ "iss": "https://api.workos.com/user_management/client_02" }),
                "unknown_issuer",
            )],
        },
        Provider {
            name: "Zitadel",
            preset: portcullis::providers::zitadel("acme.zitadel.cloud", "69234237810729019")
                .unwrap(),
            algorithm: rsa,
            typ: Some("JWT"),
            claims: json!({
                "iss": "https://acme.zitadel.cloud", "sub": "77776025198584418", "aud": ["69234237810729234", "69234237810729019"],
                "jti": "1", "urn:zitadel:iam:org:project:69234237810729019:roles": { "admin": { "1700": "acme.zitadel.cloud" } },
                "urn:zitadel:iam:org:project:roles": { "owner": { "1700": "acme.zitadel.cloud" } },
            }),
            grants: |token| token.has_role("admin") && !token.has_role("owner"),
            traps: vec![
                ("of another project", json!({ "aud": ["69234237810729234"] }), "wrong_audience"),
                ("ID token", json!({ "jti": null, "at_hash": "x" }), "claim_value"),
            ],
        },
        Provider {
            name: "Ory",
            preset: portcullis::providers::ory("slug", api).unwrap(),
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
            traps: vec![("no audience", json!({ "aud": [] }), "wrong_audience")],
        },
        Provider {
            name: "Authentik",
            preset: portcullis::providers::authentik("sso.acme.test", "orders", "client-1")
                .unwrap(),
            algorithm: rsa,
            typ: Some("JWT"),
            claims: json!({
                "iss": "https://sso.acme.test/application/o/orders/", "aud": "client-1", "azp": "client-1", "sub": "1",
                "scope": "openid orders", "groups": ["staff"], "uid": "u", "nonce": "n",
            }),
            grants: |token| token.has_scope("orders") && token.in_group("staff"),
            traps: vec![("ID token", json!({ "uid": null, "at_hash": "x" }), "claim_value")],
        },
        Provider {
            name: "Authelia",
            preset: portcullis::providers::authelia("auth.acme.test", api).unwrap(),
            algorithm: Algorithm::ES256,
            typ: Some("at+jwt"),
            claims: json!({
                "iss": "https://auth.acme.test", "aud": [api], "client_id": "c", "jti": "1", "sub": "1", "scp": ["orders"],
            }),
            grants: |token| token.has_scope("orders"),
            traps: vec![
                ("ID token", json!({ "typ ": "JWT" }), "unexpected_type"),
                ("no audience", json!({ "aud": [] }), "wrong_audience"),
            ],
        },
        Provider {
            name: "Kanidm",
            preset: portcullis::providers::kanidm("idm.acme.test", "orders").unwrap(),
            algorithm: Algorithm::ES256,
            typ: Some("at+jwt"),
            claims: json!({
                "iss": "https://idm.acme.test/oauth2/openid/orders", "sub": "9d1e6f0a", "aud": "orders", "jti": "7f3c",
                "client_id": "orders", "scope": "openid groups orders_read",
            }),
            grants: |token| token.has_scope("orders_read"),
            traps: vec![
                ("ID token", json!({ "typ ": "JWT" }), "unexpected_type"),
                (
                    "of another client",
                    json!({ "iss": "https://idm.acme.test/oauth2/openid/other" }),
                    "unknown_issuer",
                ),
            ],
        },
        Provider {
            name: "PingOne",
            preset: portcullis::providers::pingone("env-1", api).unwrap(),
            algorithm: rsa,
            typ: None,
            claims: json!({ "iss": "https://auth.pingone.com/env-1/as", "aud": [api], "client_id": "c", "sub": "1", "scope": "orders" }),
            grants: |token| token.has_scope("orders"),
            traps: vec![(
                "of another environment",
                json!({ "iss": "https://auth.pingone.com/env-2/as" }),
                "unknown_issuer",
            )],
        },
        Provider {
            name: "Curity",
            preset: portcullis::providers::curity("https://login.acme.test/oauth/v2", api).unwrap(),
            algorithm: rsa,
            typ: Some("JWT"),
            claims: json!({ "iss": "https://login.acme.test/oauth/v2", "aud": api, "sub": "1", "purpose": "access_token", "scope": "orders" }),
            grants: |token| token.has_scope("orders"),
            traps: vec![
                ("ID token", json!({ "purpose": "id" }), "claim_value"),
                ("no purpose", json!({ "purpose": null }), "claim_value"),
            ],
        },
        Provider {
            name: "Duende",
            preset: portcullis::providers::duende("https://ids.acme.test", "invoice").unwrap(),
            algorithm: rsa,
            typ: Some("at+jwt"),
            claims: json!({
                "iss": "https://ids.acme.test", "aud": ["invoice", "customer"], "scope": ["invoice.read", "customer.read"],
                "client_id": "mobile", "sub": "88421113", "jti": "C9D0",
            }),
            grants: |token| token.has_scope("invoice.read") && token.has_scope("customer.read"),
            traps: vec![
                ("ID token", json!({ "typ ": "JWT" }), "unexpected_type"),
                ("no API resource", json!({ "aud": null }), "missing_claim"),
            ],
        },
        Provider {
            name: "Descope",
            preset: portcullis::providers::descope("P2PqjhPcC8Hri2nXUY7f234F", "orders").unwrap(),
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
                ("of another project", json!({ "iss": "P2other" }), "unknown_issuer"),
                ("refresh token", json!({ "drn": "DSR" }), "claim_value"),
            ],
        },
        Provider {
            name: "Logto",
            preset: portcullis::providers::logto("acme.logto.app", api).unwrap(),
            algorithm: Algorithm::ES384,
            typ: Some("at+jwt"),
            claims: json!({ "iss": "https://acme.logto.app/oidc", "aud": api, "scope": "orders", "client_id": "c", "sub": "1" }),
            grants: |token| token.has_scope("orders"),
            traps: vec![(
                "for another resource",
                json!({ "aud": "https://other.acme.test" }),
                "wrong_audience",
            )],
        },
        Provider {
            name: "GitHub Actions",
            preset: portcullis::providers::github_actions(["acme/app"], api).unwrap(),
            algorithm: rsa,
            typ: Some("JWT"),
            claims: json!({
                "aud": api, "sub": "repo:acme/app:ref:refs/heads/main", "repository": "acme/app", "ref": "refs/heads/main",
                "environment": "prod", "iss": "https://token.actions.githubusercontent.com", "jti": "1",
            }),
            grants: |token| {
                token.claim("environment").is_some_and(|environment| environment == "prod")
            },
            traps: vec![
                ("of another repository", json!({ "repository": "evil/app" }), "claim_value"),
                ("no repository", json!({ "repository": null }), "claim_value"),
                (
                    "the default audience",
                    json!({ "aud": "https://github.com/acme" }),
                    "wrong_audience",
                ),
            ],
        },
        Provider {
            name: "Kubernetes",
            preset: portcullis::providers::kubernetes(
                "https://kubernetes.default.svc.cluster.local",
                "https://orders.acme.svc",
            )
            .unwrap(),
            algorithm: rsa,
            typ: None,
            claims: json!({
                "aud": ["https://orders.acme.svc"], "iss": "https://kubernetes.default.svc.cluster.local",
                "kubernetes.io": { "namespace": "prod", "serviceaccount": { "name": "web" } },
                "sub": "system:serviceaccount:prod:web",
            }),
            grants: |token| {
                token.in_group("prod")
                    && token
                        .claim("/kubernetes.io/serviceaccount/name")
                        .is_some_and(|name| name == "web")
            },
            traps: vec![(
                "for the cluster's own API",
                json!({ "aud": ["https://kubernetes.default.svc.cluster.local"] }),
                "wrong_audience",
            )],
        },
        Provider {
            name: "Apple",
            preset: portcullis::providers::apple("com.acme.app").unwrap(),
            algorithm: rsa,
            typ: None,
            claims: json!({ "iss": "https://appleid.apple.com", "aud": "com.acme.app", "sub": "1", "email_verified": "true" }),
            grants: |token| token.subject() == Some("1"),
            traps: vec![("of another app", json!({ "aud": "com.evil.app" }), "wrong_audience")],
        },
        Provider {
            name: "Cloudflare Access",
            preset: portcullis::providers::cloudflare_access("acme", "32eafc7626e737").unwrap(),
            algorithm: rsa,
            typ: Some("JWT"),
            claims: json!({
                "aud": ["32eafc7626e737"], "email": "a@b.test", "iss": "https://acme.cloudflareaccess.com", "type": "app",
                "sub": "7335d417", "country": "DE",
            }),
            grants: |token| token.claim("email").is_some_and(|email| email == "a@b.test"),
            traps: vec![("of another application", json!({ "aud": ["0"] }), "wrong_audience")],
        },
        Provider {
            name: "Google IAP",
            preset: portcullis::providers::gcp_iap("/projects/123/global/backendServices/456")
                .unwrap(),
            algorithm: Algorithm::ES256,
            typ: Some("JWT"),
            claims: json!({
                "iss": "https://cloud.google.com/iap", "sub": "accounts.google.com:1137", "email": "a@b.test",
                "aud": "/projects/123/global/backendServices/456",
            }),
            grants: |token| token.subject() == Some("accounts.google.com:1137"),
            traps: vec![(
                "for another backend",
                json!({ "aud": "/projects/123/global/backendServices/457" }),
                "wrong_audience",
            )],
        },
    ]
}

/// A token with exactly these claims. A claim that is `null` is omitted; a name with a trailing
/// space denotes a header member.
fn token(issuer: &TestIssuer, typ: Option<&str>, claims: &Map<String, Value>) -> TokenBuilder {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut payload = json!({ "iat": now, "nbf": now, "exp": now + 300 });
    let mut token = match typ {
        Some(typ) => issuer.token().header("typ", typ),
        None => issuer.token().without_header("typ"),
    };
    for (name, value) in claims {
        match (name.strip_suffix(' '), value) {
            (Some(header), Value::Null) => token = token.without_header(header),
            (Some(header), value) => token = token.header(header, value.clone()),
            (None, Value::Null) => {}
            (None, value) => payload[name] = value.clone(),
        }
    }
    token.payload(payload.to_string())
}

async fn verdict(verifier: &Verifier, token: TokenBuilder) -> &'static str {
    verifier.verify(&token.build()).await.map_or_else(|error| error.code(), |_| "ok")
}

#[tokio::test]
async fn presets_accept_real_tokens_and_reject_traps() {
    let issuer = |algorithm| TestIssuer::offline_with("x", algorithm).unwrap();
    // Generating RSA keys is slow.
    let mut keys = HashMap::new();
    for Provider { name, preset, algorithm, typ, claims, grants, traps } in providers() {
        // The unchanged preset is valid. Below, only the keys are replaced.
        Verifier::new(preset.clone()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (issuer, untrusted) =
            keys.entry(algorithm.name()).or_insert_with(|| (issuer(algorithm), issuer(algorithm)));
        let verifier = Verifier::new(preset.jwks(issuer.jwks())).unwrap();
        let claims = claims.as_object().unwrap().clone();
        let good = verifier.verify(&token(issuer, typ, &claims).build()).await;
        let good = good.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(grants(&good), "{name}: granted permissions");
        for (trap, changes, expected) in traps {
            let mut claims = claims.clone();
            claims.extend(changes.as_object().unwrap().clone());
            assert_eq!(
                verdict(&verifier, token(issuer, typ, &claims)).await,
                expected,
                "{name}: {trap}"
            );
        }
        // Types that no provider uses for access tokens.
        for other in [
            "logout+jwt",
            "dpop+jwt",
            "application/secevent+jwt",
            "oauth-authz-req+jwt",
            "statuslist+jwt",
        ] {
            let other = token(issuer, Some(other), &claims);
            assert_eq!(verdict(&verifier, other).await, "unexpected_type", "{name}");
        }
        assert_eq!(
            verdict(&verifier, token(issuer, typ, &claims).signed_by(untrusted)).await,
            "bad_signature",
            "{name}"
        );
    }
}

/// The tokens have padded base64url, one URL per key, and a header that names the load balancer.
#[tokio::test]
async fn padded_tokens_of_aws_load_balancers_are_accepted() {
    const ARN: &str =
        "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/lb/50dc6c495c0c9188";
    let issuer = TestIssuer::offline_with("https://idp.acme.test", Algorithm::ES256).unwrap();
    let preset = portcullis::providers::aws_alb(ARN, "https://idp.acme.test").unwrap();
    let verifier = Verifier::new(preset.jwks(issuer.jwks())).unwrap();
    let claims = json!({ "sub": "u-1", "email": "a@b.test", "username": "a", "iss": "https://idp.acme.test" });
    let good =
        || token(&issuer, Some("JWT"), claims.as_object().unwrap()).header("signer", ARN).padded();
    for (name, token, expected) in [
        ("valid", good(), "ok"),
        (
            "of another load balancer",
            good().header("signer", ARN.replace("lb/", "evil/")),
            "claim_value",
        ),
        ("no signer", good().without_header("signer"), "claim_value"),
        ("a signer that is not a string", good().header("signer", json!([ARN])), "claim_value"),
        (
            "forged",
            good().signed_by(&TestIssuer::offline_with("x", Algorithm::ES256).unwrap()),
            "bad_signature",
        ),
        (
            "of another provider",
            good().header("x", "").payload(r#"{"iss":"https://evil.test","exp":4000000000}"#),
            "unknown_issuer",
        ),
    ] {
        assert_eq!(verdict(&verifier, token).await, expected, "{name}");
    }
    let padded = good().build();
    for odd in [
        format!("{padded}="),
        format!("{padded}===="),
        padded.replace('.', "=."),
        padded.replace('=', ""),
    ] {
        let result = verifier.verify(&odd).await;
        assert!(result.is_err(), "{odd}");
    }
    // Other issuers must not use padding.
    let strict =
        Verifier::new(Issuer::new("https://idp.acme.test", "a").unwrap().jwks(issuer.jwks()))
            .unwrap();
    assert_eq!(
        verdict(
            &strict,
            good().payload(
                json!({ "iss": "https://idp.acme.test", "aud": "a", "exp": 4_000_000_000_u64 })
                    .to_string()
            )
        )
        .await,
        "malformed"
    );
    assert!(issuer.jwks().verify(&issuer.token().claim("x", "y").padded().build()).is_err());
    for arn in [
        "",
        "arn:aws:s3:::bucket",
        "arn:aws:elasticloadbalancing:evil.test/x:1:lb",
        "arn:aws:elasticloadbalancing",
    ] {
        assert!(portcullis::providers::aws_alb(arn, "https://idp.acme.test").is_err(), "{arn}");
    }
}

/// Presets for gateways and `token_in_header` also set the header that carries the token.
#[tokio::test]
async fn gateway_presets_set_the_token_source() {
    use tower::{Layer as _, ServiceExt as _, service_fn};
    type Body = http_body_util::Full<bytes::Bytes>;
    for (preset, header) in [
        (
            portcullis::providers::cloudflare_access("acme", "tag").unwrap(),
            "Cf-Access-Jwt-Assertion",
        ),
        (portcullis::providers::gcp_iap("tag").unwrap(), "x-goog-iap-jwt-assertion"),
        (
            portcullis::providers::auth0("alb.acme.test", "tag")
                .unwrap()
                .token_in_header("x-amzn-oidc-data")
                .unwrap(),
            "x-amzn-oidc-data",
        ),
        (portcullis::providers::auth0("acme.eu.auth0.com", "tag").unwrap(), "Authorization"),
    ] {
        let issuer = TestIssuer::offline_with(preset.iss(), Algorithm::ES256).unwrap();
        let keys = preset.algorithms([Algorithm::ES256]).unwrap().jwks(issuer.jwks());
        let protect = ProtectLayer::new(Verifier::new(keys).unwrap());
        let token = issuer.token().audience("tag").build();
        for name in [
            "Cf-Access-Jwt-Assertion",
            "x-goog-iap-jwt-assertion",
            "x-amzn-oidc-data",
            "Authorization",
        ] {
            let inner = service_fn(async |_: http::Request<()>| {
                Ok::<_, std::convert::Infallible>(http::Response::new(Body::default()))
            });
            let value =
                if name == "Authorization" { format!("Bearer {token}") } else { token.clone() };
            let request = http::Request::builder().header(name, value).body(()).unwrap();
            let status = protect.layer(inner).oneshot(request).await.unwrap().status();
            assert_eq!(status == 200, name == header, "{header}: {name}");
        }
    }
}

#[test]
fn presets_reject_values_that_change_the_url() {
    for domain in [
        "",
        "https://acme.okta.com",
        "acme.okta.com/",
        "acme.okta.com/x",
        "a@b",
        "a?b",
        "a#b",
        "a b",
        "ACME.okta.com",
        "a\\b",
    ] {
        assert!(portcullis::providers::auth0(domain, "a").is_err(), "{domain:?}");
    }
    for segment in ["", "..", ".", "a/b", "a?b", "a#b", "a%2fb", "ä"] {
        assert!(portcullis::providers::okta("acme.okta.com", segment, "a").is_err(), "{segment:?}");
        assert!(
            portcullis::providers::keycloak("https://sso.acme.test", segment, "a").is_err(),
            "{segment:?}"
        );
    }
    assert!(portcullis::providers::entra("common", "a").is_err());
    assert!(
        portcullis::providers::cognito("us-west-2", "pool", Vec::<String>::new()).is_err(),
        "no client"
    );
    assert!(
        portcullis::providers::clerk("https://clerk.acme.test", Vec::<String>::new()).is_err(),
        "no origin"
    );
    assert!(portcullis::providers::auth0("login.acme.test:8443", "a").is_ok());
}
