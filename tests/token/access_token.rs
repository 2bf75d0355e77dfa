//! What a verified token returns.

use std::sync::Arc;
use std::time::Duration;

use portcullis::testing::{AUDIENCE, TestIssuer, TokenBuilder};
use portcullis::{AccessToken, Algorithm, Error, Issuer, Verifier};
use serde_json::{Value, json};

use crate::{ISS, api, with_claims};

#[tokio::test]
async fn scopes_are_read_from_scope_or_scp_as_string_or_array() {
    struct Case {
        name: &'static str,
        token: TokenBuilder,
        expected: &'static str,
    }

    let api = api(|issuer| issuer);
    let token = || api.issuer.token();
    for Case { name, token, expected } in [
        Case { name: "no claim", token: token(), expected: "" },
        Case { name: "scope", token: token().claim("scope", "a b"), expected: "a b" },
        Case {
            name: "scope with extra spaces",
            token: token().claim("scope", "  a   b "),
            expected: "a b",
        },
        Case {
            name: "scope, an array",
            token: token().claim("scope", json!(["a", "b"])),
            expected: "a b",
        },
        Case { name: "scp", token: token().claim("scp", "a b"), expected: "a b" },
        Case {
            name: "scp, an array",
            token: token().claim("scp", json!(["a", "b"])),
            expected: "a b",
        },
        Case {
            name: "both: scope takes precedence",
            token: token().claim("scope", "a").claim("scp", "b"),
            expected: "a",
        },
        Case {
            name: "both: an empty scope takes precedence",
            token: token().claim("scope", "").claim("scp", "b"),
            expected: "",
        },
        Case { name: "a number grants nothing", token: token().claim("scope", 1), expected: "" },
        Case {
            name: "mixed types grant nothing",
            token: token().claim("scope", json!(["a", 1])),
            expected: "",
        },
        Case {
            name: "case is preserved",
            token: token().claim("scope", "Read read"),
            expected: "Read read",
        },
    ] {
        let token = api.verified(token).await;
        assert_eq!(token.scope().as_str(), expected, "{name}");
    }
}

/// RFC 6749 §3.3: the delimiter is a space.
#[tokio::test]
async fn scope_is_split_at_spaces_only() {
    struct Case {
        name: &'static str,
        scope: &'static str,
        grants: bool,
    }

    let api = api(|issuer| issuer);
    for Case { name, scope, grants } in [
        Case { name: "spaces", scope: "a read  b", grants: true },
        Case { name: "a tab", scope: "b\tread", grants: false },
        Case { name: "a line feed", scope: "b\nread", grants: false },
        Case { name: "a form feed", scope: "b\u{c}read", grants: false },
        Case { name: "a no-break space", scope: "b\u{a0}read", grants: false },
        Case { name: "a comma", scope: "b,read", grants: false },
    ] {
        for claim in [json!(scope), json!([scope])] {
            let token = api.verified(api.issuer.token().claim("scope", claim)).await;
            assert_eq!(token.has_scope("read"), grants, "{name}");
            assert_eq!(token.has_scope(scope), !grants, "{name}: matches only the unsplit value");
        }
    }
}

#[tokio::test]
async fn the_client_is_read_from_client_id_azp_or_cid() {
    struct Case {
        name: &'static str,
        token: TokenBuilder,
        expected: Option<&'static str>,
    }

    let api = api(|issuer| issuer);
    let token = || api.issuer.token().without_claim("client_id");
    for Case { name, token, expected } in [
        Case { name: "no claim", token: token(), expected: None },
        Case {
            name: "RFC 9068",
            token: token().claim("client_id", "c").claim("azp", "a"),
            expected: Some("c"),
        },
        Case {
            name: "OpenID Connect",
            token: token().claim("azp", "a").claim("cid", "o"),
            expected: Some("a"),
        },
        Case { name: "Okta", token: token().claim("cid", "o"), expected: Some("o") },
        Case { name: "a number", token: token().claim("cid", 7), expected: None },
    ] {
        let token = api.verified(token).await;
        assert_eq!(token.client_id(), expected, "{name}");
    }
}

/// Permissions, roles and groups are read from the claims that the issuer uses.
#[tokio::test]
async fn permissions_and_roles_are_read_from_the_configured_claims() {
    struct Case {
        name: &'static str,
        configure: fn(Issuer) -> Issuer,
        claims: Value,
        holds: fn(&AccessToken) -> bool,
        expected: bool,
    }

    let cases = vec![
        Case {
            name: "Keycloak's realm roles",
            configure: |issuer| issuer.roles_at(["/realm_access/roles"]),
            claims: json!({ "realm_access": { "roles": ["operator"] }, "roles": ["admin"] }),
            holds: |token| token.has_role("operator") && !token.has_role("admin"),
            expected: true,
        },
        Case {
            name: "client roles in addition to realm roles",
            configure: |issuer| {
                issuer.roles_at(["/realm_access/roles", "/resource_access/orders-api/roles"])
            },
            claims: json!({ "resource_access": { "orders-api": { "roles": ["reader"] }, "account": { "roles": ["owner"] } } }),
            holds: |token| token.has_role("reader") && !token.has_role("owner"),
            expected: true,
        },
        Case {
            name: "Zitadel's object",
            configure: |issuer| issuer.roles_at(["urn:zitadel:iam:org:project:roles"]),
            claims: json!({ "urn:zitadel:iam:org:project:roles": { "admin": { "1": "acme.zitadel.cloud" } } }),
            holds: |token| token.has_role("admin") && !token.has_role("1"),
            expected: true,
        },
        Case {
            name: "Zitadel's object in an array",
            configure: |issuer| issuer.roles_at(["urn:zitadel:iam:org:project:roles"]),
            claims: json!({ "urn:zitadel:iam:org:project:roles": [{ "admin": {} }, { "user": {} }] }),
            holds: |token| token.has_role("admin") && token.has_role("user"),
            expected: true,
        },
        Case {
            name: "Clerk's permissions",
            configure: |issuer| issuer.permissions_at(["/o/per"]).roles_at(["/o/rol"]),
            claims: json!({ "o": { "per": "manage,read", "rol": "admin" } }),
            holds: |token| {
                token.has_permission("manage")
                    && token.has_permission("read")
                    && token.has_role("admin")
            },
            expected: true,
        },
        Case {
            name: "a flag that is false",
            configure: |i| i,
            claims: json!({ "roles": { "admin": false } }),
            holds: |token| token.has_role("admin"),
            expected: false,
        },
        Case {
            name: "a flag that is null",
            configure: |i| i,
            claims: json!({ "roles": { "admin": null } }),
            holds: |token| token.has_role("admin"),
            expected: false,
        },
        Case {
            name: "an array of objects",
            configure: |i| i,
            claims: json!({ "roles": [{ "name": "x" }] }),
            holds: |token| token.has_role("name"),
            expected: false,
        },
        Case {
            name: "a role with a comma",
            configure: |i| i,
            claims: json!({ "roles": "Sales, EMEA" }),
            holds: |token| token.has_role("EMEA"),
            expected: false,
        },
        Case {
            name: "an array in an array",
            configure: |i| i,
            claims: json!({ "roles": [["admin"]] }),
            holds: |token| token.has_role("admin"),
            expected: false,
        },
        Case {
            name: "a number",
            configure: |i| i,
            claims: json!({ "roles": 7 }),
            holds: |token| token.has_role("7"),
            expected: false,
        },
        Case {
            name: "null",
            configure: |i| i,
            claims: json!({ "permissions": null }),
            holds: |token| token.has_permission("null"),
            expected: false,
        },
        Case {
            name: "Cognito's scopes",
            configure: |issuer| issuer.scope_prefix("https://api.example.com/"),
            claims: json!({ "scope": "openid https://api.example.com/read https://other.example/write" }),
            holds: |token| {
                let granted = ["openid", "read", "https://api.example.com/read"];
                granted.iter().all(|scope| token.has_scope(scope)) && !token.has_scope("write")
            },
            expected: true,
        },
        Case {
            name: "no scope prefix configured",
            configure: |i| i,
            claims: json!({ "scope": "orders/read" }),
            holds: |token| token.has_scope("read"),
            expected: false,
        },
        Case {
            name: "Okta's array",
            configure: |i| i,
            claims: json!({ "scp": ["a", "b c"] }),
            holds: |t| t.has_scope("a") && t.has_scope("c"),
            expected: true,
        },
    ];
    for Case { name, configure, claims, holds, expected } in cases {
        let api = api(configure);
        let token = with_claims(api.issuer.token(), &claims);
        assert_eq!(holds(&api.verified(token).await), expected, "{name}");
    }
}

/// Handlers see unescaped values.
#[tokio::test]
async fn json_escapes_in_claims_are_decoded() {
    struct Case {
        name: &'static str,
        sub: &'static str,
        client: &'static str,
        aud: String,
    }

    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let verifier = Verifier::new(issuer.issuer()).unwrap();
    for Case { name, sub, client, aud } in [
        Case {
            name: "plain",
            sub: r#""alice""#,
            client: r#""app""#,
            aud: format!(r#"["x","{AUDIENCE}"]"#),
        },
        Case {
            name: "escaped",
            sub: r#""al\u0069ce""#,
            client: r#""a\u0070p""#,
            aud: format!(r#"["\u0078","{AUDIENCE}"]"#),
        },
        Case {
            name: "whitespace",
            sub: " \n\"alice\" ",
            client: " \"app\"",
            aud: format!(" [ \"x\" , \"{AUDIENCE}\" ] "),
        },
    ] {
        let claims = format!(
            r#"{{"iss":"https://issuer.example/","sub":{sub},"client_id":{client},"aud":{aud},"scope":"a  b","exp":4000000000}}"#
        );
        let token = verifier.verify(&issuer.token().payload(claims.clone()).build()).await.unwrap();
        assert_eq!((token.subject(), token.client_id()), (Some("alice"), Some("app")), "{name}");
        assert_eq!(token.audience().collect::<Vec<_>>(), ["x", AUDIENCE], "{name}");
        assert_eq!(
            (token.scope().as_str(), token.raw_claims()),
            ("a b", claims.as_str()),
            "{name}"
        );
    }
}

/// All machines behind one gateway have an empty `sub`: they would be the same user.
#[tokio::test]
async fn an_empty_sub_is_no_subject() {
    let api = api(|issuer| issuer);
    let token = api.verified(api.issuer.token().subject("")).await;
    assert_eq!(token.subject(), None);
    let strict = crate::api(Issuer::require_rfc9068);
    let token = strict.issuer.token().header("typ", "at+jwt").subject("");
    assert_eq!(strict.verdict(token).await, "missing_claim");
}

#[tokio::test]
async fn a_verified_token_returns_the_signed_claims() {
    #[derive(serde::Deserialize)]
    struct Own {
        org_id: String,
    }

    let api = api(|issuer| issuer);
    let compact =
        api.issuer.token().subject("alice").scope("read").claim("org_id", "org_1").build();
    let token = api.verifier.verify(&compact).await.unwrap();

    assert_eq!(token.issuer(), ISS);
    assert_eq!(token.subject(), Some("alice"));
    assert_eq!(token.audience().collect::<Vec<_>>(), [AUDIENCE]);
    assert_eq!(token.client_id(), Some("test-client"));
    assert_eq!(token.expires_at(), std::time::UNIX_EPOCH + Duration::from_secs(api.now() + 3600));
    assert_eq!(token.claims::<Own>().unwrap().org_id, "org_1");
    assert_eq!(serde_json::from_str::<Value>(token.raw_claims()).unwrap()["org_id"], "org_1");
    assert_eq!(token.expose_token(), compact);
    assert!(matches!(
        token.require_scope(&"read write".parse().unwrap()),
        Err(Error::InsufficientScope { .. })
    ));
    assert_eq!(
        format!("{token:?}"),
        format!("AccessToken {{ issuer: {ISS:?}, .. }}"),
        "no token, no claims"
    );
}

#[tokio::test]
async fn errors_of_mismatched_claims_do_not_contain_their_values() {
    let api = api(|issuer| issuer);
    let token = api.verified(api.issuer.token().claim("org_id", "CANARY")).await;
    let error = token.claims::<std::collections::HashMap<String, u64>>().unwrap_err();
    assert!(!format!("{error} {error:?}").contains("CANARY"), "{error}");
}

/// Claims are parsed once per token and type.
#[tokio::test]
async fn own_claims_are_parsed_once() {
    #[derive(serde::Deserialize)]
    struct Org {
        org_id: String,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Number {
        #[serde(rename = "org_id")]
        _id: u64,
    }

    let api = api(|issuer| issuer);
    let token = api.verified(api.issuer.token().claim("org_id", "org_1")).await;
    let first = token.claims::<Org>().unwrap();
    assert_eq!(first.org_id, "org_1");
    assert!(token.claims::<Number>().unwrap_err().to_string().contains("Number"));
    let values = token.claims::<Value>().unwrap();
    assert!(Arc::ptr_eq(&first, &token.clone().claims::<Org>().unwrap()));
    assert!(Arc::ptr_eq(&values, &token.claims::<Value>().unwrap()));
}

/// A stream must not outlive the token with which it was opened.
#[tokio::test(start_paused = true)]
async fn expired_resolves_when_the_token_expires() {
    let api = api(|issuer| issuer);
    let token = api.verified(api.issuer.token()).await;
    let expired = tokio::spawn({
        let token = token.clone();
        async move { token.until_expired().await }
    });
    for _ in 0..59 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        api.clock.advance(Duration::from_secs(60));
    }
    tokio::task::yield_now().await;
    assert!(!expired.is_finished(), "one minute remains");
    api.clock.advance(Duration::from_secs(50));
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(!expired.is_finished(), "ten seconds remain");
    api.clock.advance(Duration::from_secs(10));
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(expired.is_finished());
    token.until_expired().await;
}
