//! Rules: which tokens satisfy them, and how the others are rejected.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, header};
use axum::routing::get;
use portcullis::testing::{TestClock, TestIssuer, TokenBuilder};
use portcullis::{AccessToken, Algorithm, Error, Issuer, ProtectLayer, Rule, Scope, Verifier};
use serde_json::json;
use tower::ServiceExt as _;

struct World {
    issuer: TestIssuer,
    clock: TestClock,
    verifier: Verifier,
}

fn world(configure: impl Fn(Issuer) -> Issuer) -> World {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let clock = TestClock::new();
    issuer.set_clock(&clock);
    let verifier = Verifier::builder(configure(issuer.issuer())).clock(&clock).build().unwrap();
    World { issuer, clock, verifier }
}

impl World {
    async fn token(&self, token: TokenBuilder) -> AccessToken {
        self.verifier.verify(&token.build()).await.unwrap()
    }

    async fn ask(&self, layer: &ProtectLayer, token: TokenBuilder) -> Response<Body> {
        let app = Router::new().route("/{*path}", get(async || "")).route_layer(layer.clone());
        let request = Request::get("/profiles/alice")
            .header(header::AUTHORIZATION, format!("Bearer {}", token.build()));
        app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }
}

fn code(result: Result<(), Error>) -> &'static str {
    result.map_or_else(|error| error.code(), |()| "ok")
}

#[tokio::test]
async fn each_rule_checks_its_own_claim() {
    let world = world(|issuer| issuer);
    let now = world.clock.unix_seconds();
    let good = world.token(
        world
            .issuer
            .token()
            .scope("orders:read orders:write")
            .claim("permissions", ["refund"])
            .claim("roles", ["Tenant Admin", "support"])
            .claim("groups", "staff")
            .claim("org_id", "org_1")
            .claim("https://acme.example/plan.name", "pro")
            .claim("realm", json!({ "a/b": { "c~d": 7 } }))
            .claim("acr", "gold")
            .claim("auth_time", now - 60)
            .claim("later", 1),
    );
    let good = good.await;
    let bare = world.token(world.issuer.token()).await;
    const FORBIDDEN: &str = "forbidden";
    const SCOPE: &str = "insufficient_scope";
    const STEP_UP: &str = "insufficient_user_authentication";
    let cases: Vec<(Rule, &str, &str)> = vec![
        (Rule::scope("orders:read"), "ok", SCOPE),
        (Rule::scope("orders:write orders:read"), "ok", SCOPE),
        (Rule::scope("orders:read orders:delete"), SCOPE, SCOPE),
        (Rule::any_scope(["orders:delete", "orders:read"]), "ok", SCOPE),
        (Rule::any_scope(["orders:delete", "orders:read other"]), SCOPE, SCOPE),
        (Rule::any_scope(Vec::<Scope>::new()), FORBIDDEN, FORBIDDEN),
        (Rule::permission("refund"), "ok", FORBIDDEN),
        (Rule::permission("refund:any"), FORBIDDEN, FORBIDDEN),
        // Scopes are not permissions, and permissions are not roles.
        (Rule::permission("orders:read"), FORBIDDEN, FORBIDDEN),
        (Rule::role("refund"), FORBIDDEN, FORBIDDEN),
        (Rule::role("support"), "ok", FORBIDDEN),
        (Rule::role("Tenant Admin"), "ok", FORBIDDEN),
        (Rule::role("Admin"), FORBIDDEN, FORBIDDEN),
        (Rule::group("staff"), "ok", FORBIDDEN),
        (Rule::group("sta"), FORBIDDEN, FORBIDDEN),
        (Rule::issuer("https://issuer.example/"), "ok", "ok"),
        (Rule::issuer("https://issuer.example"), FORBIDDEN, FORBIDDEN),
        (Rule::claim("org_id", |org| org == "org_1"), "ok", FORBIDDEN),
        (Rule::claim("org_id", |org| org == "org_2"), FORBIDDEN, FORBIDDEN),
        (Rule::claim("https://acme.example/plan.name", |plan| plan == "pro"), "ok", FORBIDDEN),
        (Rule::claim("/realm/a~1b/c~0d", |seven| *seven == 7), "ok", FORBIDDEN),
        (Rule::claim("realm/a", |_| true), FORBIDDEN, FORBIDDEN),
        (Rule::custom("hers", |token, _| token.claim("org_id").is_some()), "ok", FORBIDDEN),
        (Rule::acr(["silver", "gold"]), "ok", STEP_UP),
        (Rule::acr(["silver"]), STEP_UP, STEP_UP),
        (Rule::max_auth_age(Duration::from_secs(60)), "ok", STEP_UP),
        (Rule::max_auth_age(Duration::from_secs(59)), STEP_UP, STEP_UP),
        (Rule::claim("later", |_| true), "ok", FORBIDDEN),
        (Rule::scope("orders:read").and(Rule::role("support")), "ok", SCOPE),
        (Rule::scope("orders:read").and(Rule::role("admin")), FORBIDDEN, SCOPE),
        (Rule::scope("orders:delete").or(Rule::role("support")), "ok", SCOPE),
        // `insufficient_scope` is returned if and only if a scope is missing, wherever it is in the
        // rule.
        (Rule::role("admin").and(Rule::scope("orders:read")), FORBIDDEN, SCOPE),
        (Rule::role("admin").or(Rule::scope("orders:delete")), SCOPE, SCOPE),
        (
            Rule::scope("orders:read").and(Rule::role("admin")).or(Rule::scope("orders:delete")),
            FORBIDDEN,
            SCOPE,
        ),
        // An empty name matches nothing, whatever the token lists.
        (Rule::permission(""), FORBIDDEN, FORBIDDEN),
        (Rule::role(""), FORBIDDEN, FORBIDDEN),
        (Rule::group(""), FORBIDDEN, FORBIDDEN),
        // If something else is missing, signing in again does not help.
        (Rule::acr(["silver"]).and(Rule::role("admin")), FORBIDDEN, FORBIDDEN),
        (Rule::acr(["silver"]).and(Rule::role("support")), STEP_UP, FORBIDDEN),
        (Rule::role("admin").or(Rule::scope("orders:read")).and(Rule::group("staff")), "ok", SCOPE),
    ];
    for (rule, with_all, with_nothing) in cases {
        assert_eq!(code(rule.check(&good)), with_all, "{rule}");
        assert_eq!(code(rule.check(&bare)), with_nothing, "{rule}, nothing granted");
    }
}

#[tokio::test]
async fn the_challenge_names_what_the_operation_requires() {
    const SCOPES: &str = r#"Bearer realm="api", error="insufficient_scope", error_description="The access token does not grant what this operation needs""#;
    // With an `error`, clients would request new tokens without end.
    const NO_ERROR: &str = r#"Bearer realm="api""#;
    const SIGN_IN: &str = r#"Bearer realm="api", error="insufficient_user_authentication", error_description="The user must sign in again, or in a stronger way""#;
    let world = world(|issuer| issuer);
    let protect = || ProtectLayer::new(world.verifier.clone());
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let cases = [
        (protect().scope("a b").scope("c a"), 403, format!("{SCOPES}, scope=\"a b c\"")),
        (protect().any_scope(["a b", "c"]), 403, format!("{SCOPES}, scope=\"a b\"")),
        (protect().role("admin"), 403, NO_ERROR.to_owned()),
        (protect().role("admin").scope("a"), 403, format!("{SCOPES}, scope=\"a\"")),
        (
            protect().rule(Rule::role("x").or(Rule::scope("a")).or(Rule::scope("b"))),
            403,
            format!("{SCOPES}, scope=\"a\""),
        ),
        (protect().permission("p").group("g"), 403, NO_ERROR.to_owned()),
        (protect().claim("org_id", |_| true), 403, NO_ERROR.to_owned()),
        (
            protect()
                .rule(Rule::custom("own path", |_, request| request.uri.path() == "/profiles/bob")),
            403,
            NO_ERROR.to_owned(),
        ),
        (
            protect().acr(["gold", "pla\"tin"]),
            401,
            format!("{SIGN_IN}, acr_values=\"gold pla\\\"tin\""),
        ),
        (protect().max_auth_age(minutes(5)), 401, format!("{SIGN_IN}, max_age=\"300\"")),
        (
            protect()
                .acr(["a", "b"])
                .max_auth_age(minutes(5))
                .acr(["b", "c"])
                .max_auth_age(minutes(1)),
            401,
            format!("{SIGN_IN}, acr_values=\"b\", max_age=\"60\""),
        ),
    ];
    for (layer, status, challenge) in cases {
        let response = world.ask(&layer, world.issuer.token()).await;
        assert_eq!(response.status().as_u16(), status, "{challenge}");
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], challenge);
    }
    let own = protect().rule(Rule::custom("own profile", |token, request| {
        request.uri.path().strip_prefix("/profiles/") == token.subject()
    }));
    assert_eq!(world.ask(&own, world.issuer.token().subject("alice")).await.status(), 200);
    assert_eq!(world.ask(&own, world.issuer.token().subject("bob")).await.status(), 403);
    let response = world.ask(&protect().without_challenge().scope("a"), world.issuer.token()).await;
    assert_eq!(
        (response.status().as_u16(), response.headers().contains_key(header::WWW_AUTHENTICATE)),
        (403, false)
    );
}

#[tokio::test]
async fn one_scope_can_imply_another() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let implies = |granted: &str, asked: &str| {
        asked.strip_prefix(granted).is_some_and(|rest| rest.starts_with(':'))
    };
    let verifier = Verifier::builder(issuer.issuer()).scope_implies(implies).build().unwrap();
    for (granted, asked, expected) in [
        ("orders", "orders:read", true),
        ("orders", "orders:read orders:write", true),
        ("orders:read", "orders:read", true),
        ("orders:read", "orders", false),
        ("order", "orders:read", false),
        ("orders", "orders:read users", false),
    ] {
        let token = verifier.verify(&issuer.token().scope(granted).build()).await.unwrap();
        assert_eq!(Rule::scope(asked).check(&token).is_ok(), expected, "{granted} for {asked}");
        assert_eq!(token.scope().as_str(), granted, "the scope is unchanged");
    }
}

/// An impossible `auth_time` counts as missing.
#[tokio::test]
async fn auth_time_in_the_future_is_rejected() {
    let world = world(|issuer| issuer);
    let now = world.clock.unix_seconds();
    let rule = Rule::max_auth_age(Duration::from_secs(300));
    let cases = [
        (json!(now), true),
        (json!(now + 30), true),
        (json!(now + 31), false),
        (json!(now * 1000), false),
        (json!(1e18), false),
        (json!(-1), false),
        (json!(now.to_string()), false),
    ];
    for (auth_time, expected) in cases {
        let token = world.token(world.issuer.token().claim("auth_time", auth_time.clone())).await;
        assert_eq!(rule.check(&token).is_ok(), expected, "{auth_time}");
    }
}

/// Permissions, roles and groups are read from the claims that the issuer uses.
#[tokio::test]
async fn permissions_and_roles_are_read_from_the_configured_claims() {
    type Configure = fn(Issuer) -> Issuer;
    type Holds = fn(&AccessToken) -> bool;
    let cases: Vec<(&str, Configure, serde_json::Value, Holds, bool)> = vec![
        (
            "Keycloak's realm roles",
            |issuer| issuer.roles_at(["/realm_access/roles"]),
            json!({ "realm_access": { "roles": ["operator"] }, "roles": ["admin"] }),
            |token| token.has_role("operator") && !token.has_role("admin"),
            true,
        ),
        (
            "client roles in addition to realm roles",
            |issuer| issuer.roles_at(["/realm_access/roles", "/resource_access/orders-api/roles"]),
            json!({ "resource_access": { "orders-api": { "roles": ["reader"] }, "account": { "roles": ["owner"] } } }),
            |token| token.has_role("reader") && !token.has_role("owner"),
            true,
        ),
        (
            "Zitadel's object",
            |issuer| issuer.roles_at(["urn:zitadel:iam:org:project:roles"]),
            json!({ "urn:zitadel:iam:org:project:roles": { "admin": { "1": "acme.zitadel.cloud" } } }),
            |token| token.has_role("admin") && !token.has_role("1"),
            true,
        ),
        (
            "Zitadel's object in an array",
            |issuer| issuer.roles_at(["urn:zitadel:iam:org:project:roles"]),
            json!({ "urn:zitadel:iam:org:project:roles": [{ "admin": {} }, { "user": {} }] }),
            |token| token.has_role("admin") && token.has_role("user"),
            true,
        ),
        (
            "Clerk's permissions",
            |issuer| issuer.permissions_at(["/o/per"]).roles_at(["/o/rol"]),
            json!({ "o": { "per": "manage,read", "rol": "admin" } }),
            |token| {
                token.has_permission("manage")
                    && token.has_permission("read")
                    && token.has_role("admin")
            },
            true,
        ),
        (
            "a flag that is false",
            |i| i,
            json!({ "roles": { "admin": false } }),
            |token| token.has_role("admin"),
            false,
        ),
        (
            "a flag that is null",
            |i| i,
            json!({ "roles": { "admin": null } }),
            |token| token.has_role("admin"),
            false,
        ),
        (
            "an array of objects",
            |i| i,
            json!({ "roles": [{ "name": "x" }] }),
            |token| token.has_role("name"),
            false,
        ),
        (
            "a role with a comma",
            |i| i,
            json!({ "roles": "Sales, EMEA" }),
            |token| token.has_role("EMEA"),
            false,
        ),
        (
            "an array in an array",
            |i| i,
            json!({ "roles": [["admin"]] }),
            |token| token.has_role("admin"),
            false,
        ),
        ("a number", |i| i, json!({ "roles": 7 }), |token| token.has_role("7"), false),
        (
            "null",
            |i| i,
            json!({ "permissions": null }),
            |token| token.has_permission("null"),
            false,
        ),
        (
            "Cognito's scopes",
            |issuer| issuer.scope_prefix("https://api.example.com/"),
            json!({ "scope": "openid https://api.example.com/read https://other.example/write" }),
            |token| {
                let granted = ["openid", "read", "https://api.example.com/read"];
                granted.iter().all(|scope| token.has_scope(scope)) && !token.has_scope("write")
            },
            true,
        ),
        (
            "no scope prefix configured",
            |i| i,
            json!({ "scope": "orders/read" }),
            |token| token.has_scope("read"),
            false,
        ),
        (
            "Okta's array",
            |i| i,
            json!({ "scp": ["a", "b c"] }),
            |t| t.has_scope("a") && t.has_scope("c"),
            true,
        ),
    ];
    for (name, configure, claims, holds, expected) in cases {
        let world = world(configure);
        let claims = claims.as_object().unwrap().clone();
        let token = claims
            .into_iter()
            .fold(world.issuer.token(), |token, (name, value)| token.claim(&name, value));
        assert_eq!(holds(&world.token(token).await), expected, "{name}");
    }
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
    let world = world(|issuer| issuer);
    let token = world.token(world.issuer.token().claim("org_id", "org_1")).await;
    let first = token.claims::<Org>().unwrap();
    assert_eq!(first.org_id, "org_1");
    assert!(token.claims::<Number>().unwrap_err().to_string().contains("Number"));
    let values = token.claims::<serde_json::Value>().unwrap();
    assert!(std::sync::Arc::ptr_eq(&first, &token.clone().claims::<Org>().unwrap()));
    assert!(std::sync::Arc::ptr_eq(&values, &token.claims::<serde_json::Value>().unwrap()));
}

/// A stream must not outlive the token with which it was opened.
#[tokio::test(start_paused = true)]
async fn expired_resolves_when_the_token_expires() {
    let world = world(|issuer| issuer);
    let token = world.token(world.issuer.token()).await;
    let expired = tokio::spawn({
        let token = token.clone();
        async move { token.until_expired().await }
    });
    for _ in 0..59 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        world.clock.advance(Duration::from_secs(60));
    }
    tokio::task::yield_now().await;
    assert!(!expired.is_finished(), "one minute remains");
    world.clock.advance(Duration::from_secs(50));
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(!expired.is_finished(), "ten seconds remain");
    world.clock.advance(Duration::from_secs(10));
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(expired.is_finished());
    token.until_expired().await;
}

#[test]
fn a_rule_displays_its_requirements() {
    let rule = Rule::scope("a b")
        .and(Rule::role("admin").or(Rule::acr(["gold"])))
        .and(Rule::custom("own profile", |_, _| true));
    assert_eq!(
        rule.to_string(),
        "scope \"a b\" and (role \"admin\" or acr of [\"gold\"]) and own profile"
    );
    assert_eq!(format!("{rule:?}"), format!("Rule({rule})"));
    assert!(std::panic::catch_unwind(|| Rule::scope("a\"b")).is_err());
    assert!(std::panic::catch_unwind(|| Rule::any_scope(["a", ""])).is_err());
}
