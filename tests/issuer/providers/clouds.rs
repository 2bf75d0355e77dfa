//! Presets of cloud platforms: their users, workloads and gateways.

use portcullis::{Algorithm, Audience, providers};
use serde_json::json;

use super::{Provider, Trap};

const ACME: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const OTHER: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";

pub(super) fn clouds() -> Vec<Provider> {
    let api = "https://api.acme.test/";
    let rsa = Algorithm::RS256;
    vec![
        Provider {
            name: "Entra",
            preset: providers::entra(ACME, "6e74172b-be56-4843-9ff4-e66a39bb12e3").unwrap(),
            algorithm: rsa,
            typ: Some("JWT"),
            claims: json!({
                "aud": "6e74172b-be56-4843-9ff4-e66a39bb12e3", "iss": format!("https://login.microsoftonline.com/{ACME}/v2.0"),
                "azp": "0f1c", "azpacr": "1", "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474", "tid": ACME, "ver": "2.0",
                "scp": "access_as_user Orders.Read", "roles": ["Orders.Approver"], "sub": "HKZpfaHyWadeOouYlitjrI",
            }),
            grants: |token| token.has_scope("Orders.Read") && token.has_role("Orders.Approver"),
            traps: vec![
                Trap {
                    name: "wrong tid",
                    header: None,
                    claims: json!({ "tid": OTHER }),
                    expected: "claim_value",
                },
                Trap {
                    name: "no tid",
                    header: None,
                    claims: json!({ "tid": null }),
                    expected: "claim_value",
                },
                Trap {
                    name: "of another tenant",
                    header: None,
                    claims: json!({ "iss": format!("https://login.microsoftonline.com/{OTHER}/v2.0") }),
                    expected: "unknown_issuer",
                },
                Trap {
                    name: "ID token",
                    header: None,
                    claims: json!({ "azp": null, "scp": null, "nonce": "n" }),
                    expected: "claim_value",
                },
                Trap {
                    name: "version 1.0",
                    header: None,
                    claims: json!({ "iss": format!("https://sts.windows.net/{ACME}/") }),
                    expected: "unknown_issuer",
                },
                Trap {
                    name: "for Graph",
                    header: Some(("nonce", json!("x"))),
                    claims: json!({ "aud": "00000003-0000-0000-c000-000000000000" }),
                    expected: "microsoft_nonce",
                },
                Trap {
                    name: "for Graph, version 1.0",
                    header: Some(("nonce", json!("x"))),
                    claims: json!({ "iss": format!("https://sts.windows.net/{ACME}/") }),
                    expected: "microsoft_nonce",
                },
                Trap {
                    name: "for another API",
                    header: None,
                    claims: json!({ "aud": "00000003-0000-0000-c000-000000000000" }),
                    expected: "wrong_audience",
                },
            ],
        },
        Provider {
            name: "Entra, many tenants",
            preset: providers::entra_multi_tenant("6e74172b-be56-4843-9ff4-e66a39bb12e3").unwrap(),
            algorithm: rsa,
            typ: Some("JWT"),
            claims: json!({
                "aud": "6e74172b-be56-4843-9ff4-e66a39bb12e3", "iss": format!("https://login.microsoftonline.com/{OTHER}/v2.0"),
                "tid": OTHER, "scp": "Orders.Read", "sub": "x", "azp": "0f1c",
            }),
            grants: |token| token.has_scope("Orders.Read"),
            traps: vec![
                Trap {
                    name: "wrong tid",
                    header: None,
                    claims: json!({ "tid": ACME }),
                    expected: "tenant_mismatch",
                },
                Trap {
                    name: "no tid",
                    header: None,
                    claims: json!({ "tid": null }),
                    expected: "tenant_mismatch",
                },
                Trap {
                    name: "ID token",
                    header: None,
                    claims: json!({ "azp": null, "scp": null, "nonce": "n" }),
                    expected: "claim_value",
                },
                Trap {
                    name: "of no tenant",
                    header: None,
                    claims: json!({ "iss": "https://login.microsoftonline.com/common/v2.0" }),
                    expected: "unknown_issuer",
                },
            ],
        },
        Provider {
            name: "Cognito",
            preset: providers::cognito("us-west-2", "us-west-2_EXAMPLE", ["app-1", "app-2"])
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
                Trap {
                    name: "ID token",
                    header: None,
                    claims: json!({ "token_use": "id", "client_id": null, "aud": "app-1", "azp": "app-1" }),
                    expected: "wrong_audience",
                },
                Trap {
                    name: "bound to another API (RFC 8707)",
                    header: None,
                    claims: json!({ "aud": "https://other-api.example" }),
                    expected: "wrong_audience",
                },
                Trap {
                    name: "not an access token",
                    header: None,
                    claims: json!({ "token_use": "id" }),
                    expected: "claim_value",
                },
                Trap {
                    name: "no token_use",
                    header: None,
                    claims: json!({ "token_use": null }),
                    expected: "claim_value",
                },
                Trap {
                    name: "of another app",
                    header: None,
                    claims: json!({ "client_id": "app-3" }),
                    expected: "wrong_audience",
                },
                Trap {
                    name: "no client_id",
                    header: None,
                    claims: json!({ "client_id": null, "aud": "app-1" }),
                    expected: "missing_claim",
                },
            ],
        },
        Provider {
            name: "Cognito, with resource binding",
            preset: providers::cognito("us-west-2", "us-west-2_EXAMPLE", ["app-1"])
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
                Trap {
                    name: "bound to another API",
                    header: None,
                    claims: json!({ "aud": "https://other-api.example" }),
                    expected: "wrong_audience",
                },
                Trap {
                    name: "of another app",
                    header: None,
                    claims: json!({ "client_id": "app-3" }),
                    expected: "wrong_audience",
                },
            ],
        },
        Provider {
            name: "Google",
            preset: providers::google("https://orders-abc-ew.a.run.app").unwrap(),
            algorithm: rsa,
            typ: Some("JWT"),
            claims: json!({
                "aud": "https://orders-abc-ew.a.run.app", "azp": "1137", "email": "caller@proj.iam.gserviceaccount.com",
                "email_verified": true, "iss": "accounts.google.com", "sub": "1137",
            }),
            grants: |token| token.claim("email_verified").is_some_and(|verified| verified == true),
            traps: vec![Trap {
                name: "of another service",
                header: None,
                claims: json!({ "aud": "https://other-abc-ew.a.run.app" }),
                expected: "wrong_audience",
            }],
        },
        Provider {
            name: "Firebase",
            preset: providers::firebase("acme-prod").unwrap(),
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
                Trap {
                    name: "of another project",
                    header: None,
                    claims: json!({ "aud": "evil", "iss": "https://securetoken.google.com/evil" }),
                    expected: "unknown_issuer",
                },
                Trap {
                    name: "another audience",
                    header: None,
                    claims: json!({ "aud": "evil" }),
                    expected: "wrong_audience",
                },
                Trap {
                    name: "an empty subject",
                    header: None,
                    claims: json!({ "sub": "" }),
                    expected: "claim_value",
                },
                Trap {
                    name: "no subject",
                    header: None,
                    claims: json!({ "sub": null }),
                    expected: "claim_value",
                },
                Trap {
                    name: "auth_time in the future",
                    header: None,
                    claims: json!({ "auth_time": 4_000_000_000_u64 }),
                    expected: "claim_value",
                },
                Trap {
                    name: "no auth_time",
                    header: None,
                    claims: json!({ "auth_time": null }),
                    expected: "claim_value",
                },
            ],
        },
        Provider {
            name: "Apple",
            preset: providers::apple("com.acme.app").unwrap(),
            algorithm: rsa,
            typ: None,
            claims: json!({ "iss": "https://appleid.apple.com", "aud": "com.acme.app", "sub": "1", "email_verified": "true" }),
            grants: |token| token.subject() == Some("1"),
            traps: vec![Trap {
                name: "of another app",
                header: None,
                claims: json!({ "aud": "com.evil.app" }),
                expected: "wrong_audience",
            }],
        },
        Provider {
            name: "GitHub Actions",
            preset: providers::github_actions(["acme/app"], api).unwrap(),
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
                Trap {
                    name: "of another repository",
                    header: None,
                    claims: json!({ "repository": "evil/app" }),
                    expected: "claim_value",
                },
                Trap {
                    name: "no repository",
                    header: None,
                    claims: json!({ "repository": null }),
                    expected: "claim_value",
                },
                Trap {
                    name: "the default audience",
                    header: None,
                    claims: json!({ "aud": "https://github.com/acme" }),
                    expected: "wrong_audience",
                },
            ],
        },
        Provider {
            name: "Kubernetes",
            preset: providers::kubernetes(
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
            traps: vec![Trap {
                name: "for the cluster's own API",
                header: None,
                claims: json!({ "aud": ["https://kubernetes.default.svc.cluster.local"] }),
                expected: "wrong_audience",
            }],
        },
        Provider {
            name: "Cloudflare Access",
            preset: providers::cloudflare_access("acme", "32eafc7626e737").unwrap(),
            algorithm: rsa,
            typ: Some("JWT"),
            claims: json!({
                "aud": ["32eafc7626e737"], "email": "a@b.test", "iss": "https://acme.cloudflareaccess.com", "type": "app",
                "sub": "7335d417", "country": "DE",
            }),
            grants: |token| token.claim("email").is_some_and(|email| email == "a@b.test"),
            traps: vec![Trap {
                name: "of another application",
                header: None,
                claims: json!({ "aud": ["0"] }),
                expected: "wrong_audience",
            }],
        },
        Provider {
            name: "Google IAP",
            preset: providers::gcp_iap("/projects/123/global/backendServices/456").unwrap(),
            algorithm: Algorithm::ES256,
            typ: Some("JWT"),
            claims: json!({
                "iss": "https://cloud.google.com/iap", "sub": "accounts.google.com:1137", "email": "a@b.test",
                "aud": "/projects/123/global/backendServices/456",
            }),
            grants: |token| token.subject() == Some("accounts.google.com:1137"),
            traps: vec![Trap {
                name: "for another backend",
                header: None,
                claims: json!({ "aud": "/projects/123/global/backendServices/457" }),
                expected: "wrong_audience",
            }],
        },
    ]
}
