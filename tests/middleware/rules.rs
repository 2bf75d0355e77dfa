//! Rules: which tokens satisfy them, and how the others are rejected.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, header};
use axum::routing::get;
use portcullis::testing::{TestClock, TestIssuer, TokenBuilder};
use portcullis::{AccessToken, Error, ProtectLayer, Rule, Scope, Verifier};
use serde_json::json;
use tower::ServiceExt as _;

use crate::greeter::{answer, bearer, started_issuer, verifier};
use crate::offline_issuer;

struct Api {
    issuer: TestIssuer,
    clock: TestClock,
    verifier: Verifier,
}

fn api() -> Api {
    let (issuer, clock) = (offline_issuer(), TestClock::new());
    issuer.set_clock(&clock);
    let verifier = Verifier::builder(issuer.issuer()).clock(&clock).build().unwrap();
    Api { issuer, clock, verifier }
}

impl Api {
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
    struct Case {
        rule: Rule,
        with_all: &'static str,
        with_nothing: &'static str,
    }

    let api = api();
    let now = api.clock.unix_seconds();
    let good = api.token(
        api.issuer
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
    let bare = api.token(api.issuer.token()).await;
    const FORBIDDEN: &str = "forbidden";
    const SCOPE: &str = "insufficient_scope";
    const STEP_UP: &str = "insufficient_user_authentication";
    let cases = vec![
        Case { rule: Rule::scope("orders:read"), with_all: "ok", with_nothing: SCOPE },
        Case { rule: Rule::scope("orders:write orders:read"), with_all: "ok", with_nothing: SCOPE },
        Case {
            rule: Rule::scope("orders:read orders:delete"),
            with_all: SCOPE,
            with_nothing: SCOPE,
        },
        Case {
            rule: Rule::any_scope(["orders:delete", "orders:read"]),
            with_all: "ok",
            with_nothing: SCOPE,
        },
        Case {
            rule: Rule::any_scope(["orders:delete", "orders:read other"]),
            with_all: SCOPE,
            with_nothing: SCOPE,
        },
        Case {
            rule: Rule::any_scope(Vec::<Scope>::new()),
            with_all: FORBIDDEN,
            with_nothing: FORBIDDEN,
        },
        Case { rule: Rule::permission("refund"), with_all: "ok", with_nothing: FORBIDDEN },
        Case { rule: Rule::permission("refund:any"), with_all: FORBIDDEN, with_nothing: FORBIDDEN },
        // Scopes are not permissions, and permissions are not roles.
        Case {
            rule: Rule::permission("orders:read"),
            with_all: FORBIDDEN,
            with_nothing: FORBIDDEN,
        },
        Case { rule: Rule::role("refund"), with_all: FORBIDDEN, with_nothing: FORBIDDEN },
        Case { rule: Rule::role("support"), with_all: "ok", with_nothing: FORBIDDEN },
        Case { rule: Rule::role("Tenant Admin"), with_all: "ok", with_nothing: FORBIDDEN },
        Case { rule: Rule::role("Admin"), with_all: FORBIDDEN, with_nothing: FORBIDDEN },
        Case { rule: Rule::group("staff"), with_all: "ok", with_nothing: FORBIDDEN },
        Case { rule: Rule::group("sta"), with_all: FORBIDDEN, with_nothing: FORBIDDEN },
        Case { rule: Rule::issuer("https://issuer.example/"), with_all: "ok", with_nothing: "ok" },
        Case {
            rule: Rule::issuer("https://issuer.example"),
            with_all: FORBIDDEN,
            with_nothing: FORBIDDEN,
        },
        Case {
            rule: Rule::claim("org_id", |org| org == "org_1"),
            with_all: "ok",
            with_nothing: FORBIDDEN,
        },
        Case {
            rule: Rule::claim("org_id", |org| org == "org_2"),
            with_all: FORBIDDEN,
            with_nothing: FORBIDDEN,
        },
        Case {
            rule: Rule::claim("https://acme.example/plan.name", |plan| plan == "pro"),
            with_all: "ok",
            with_nothing: FORBIDDEN,
        },
        Case {
            rule: Rule::claim("/realm/a~1b/c~0d", |seven| *seven == 7),
            with_all: "ok",
            with_nothing: FORBIDDEN,
        },
        Case {
            rule: Rule::claim("realm/a", |_| true),
            with_all: FORBIDDEN,
            with_nothing: FORBIDDEN,
        },
        Case {
            rule: Rule::custom("hers", |token, _| token.claim("org_id").is_some()),
            with_all: "ok",
            with_nothing: FORBIDDEN,
        },
        Case { rule: Rule::acr(["silver", "gold"]), with_all: "ok", with_nothing: STEP_UP },
        Case { rule: Rule::acr(["silver"]), with_all: STEP_UP, with_nothing: STEP_UP },
        Case {
            rule: Rule::max_auth_age(Duration::from_secs(60)),
            with_all: "ok",
            with_nothing: STEP_UP,
        },
        Case {
            rule: Rule::max_auth_age(Duration::from_secs(59)),
            with_all: STEP_UP,
            with_nothing: STEP_UP,
        },
        Case { rule: Rule::claim("later", |_| true), with_all: "ok", with_nothing: FORBIDDEN },
        Case {
            rule: Rule::scope("orders:read").and(Rule::role("support")),
            with_all: "ok",
            with_nothing: SCOPE,
        },
        Case {
            rule: Rule::scope("orders:read").and(Rule::role("admin")),
            with_all: FORBIDDEN,
            with_nothing: SCOPE,
        },
        Case {
            rule: Rule::scope("orders:delete").or(Rule::role("support")),
            with_all: "ok",
            with_nothing: SCOPE,
        },
        // `insufficient_scope` is returned if and only if a scope is missing, wherever it is in the
        // rule.
        Case {
            rule: Rule::role("admin").and(Rule::scope("orders:read")),
            with_all: FORBIDDEN,
            with_nothing: SCOPE,
        },
        Case {
            rule: Rule::role("admin").or(Rule::scope("orders:delete")),
            with_all: SCOPE,
            with_nothing: SCOPE,
        },
        Case {
            rule: Rule::scope("orders:read")
                .and(Rule::role("admin"))
                .or(Rule::scope("orders:delete")),
            with_all: FORBIDDEN,
            with_nothing: SCOPE,
        },
        // An empty name matches nothing, whatever the token lists.
        Case { rule: Rule::permission(""), with_all: FORBIDDEN, with_nothing: FORBIDDEN },
        Case { rule: Rule::role(""), with_all: FORBIDDEN, with_nothing: FORBIDDEN },
        Case { rule: Rule::group(""), with_all: FORBIDDEN, with_nothing: FORBIDDEN },
        // If something else is missing, signing in again does not help.
        Case {
            rule: Rule::acr(["silver"]).and(Rule::role("admin")),
            with_all: FORBIDDEN,
            with_nothing: FORBIDDEN,
        },
        Case {
            rule: Rule::acr(["silver"]).and(Rule::role("support")),
            with_all: STEP_UP,
            with_nothing: FORBIDDEN,
        },
        Case {
            rule: Rule::role("admin").or(Rule::scope("orders:read")).and(Rule::group("staff")),
            with_all: "ok",
            with_nothing: SCOPE,
        },
    ];
    for Case { rule, with_all, with_nothing } in cases {
        assert_eq!(code(rule.check(&good)), with_all, "{rule}");
        assert_eq!(code(rule.check(&bare)), with_nothing, "{rule}, nothing granted");
    }
}

#[tokio::test]
async fn the_challenge_names_what_the_operation_requires() {
    struct Case {
        layer: ProtectLayer,
        status: u16,
        challenge: String,
    }

    const SCOPES: &str = r#"Bearer realm="api", error="insufficient_scope", error_description="The access token does not grant what this operation needs""#;
    // With an `error`, clients would request new tokens without end.
    const NO_ERROR: &str = r#"Bearer realm="api""#;
    const SIGN_IN: &str = r#"Bearer realm="api", error="insufficient_user_authentication", error_description="The user must sign in again, or in a stronger way""#;
    let api = api();
    let protect = || ProtectLayer::new(api.verifier.clone());
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    let cases = [
        Case {
            layer: protect().scope("a b").scope("c a"),
            status: 403,
            challenge: format!("{SCOPES}, scope=\"a b c\""),
        },
        Case {
            layer: protect().any_scope(["a b", "c"]),
            status: 403,
            challenge: format!("{SCOPES}, scope=\"a b\""),
        },
        Case { layer: protect().role("admin"), status: 403, challenge: NO_ERROR.to_owned() },
        Case {
            layer: protect().role("admin").scope("a"),
            status: 403,
            challenge: format!("{SCOPES}, scope=\"a\""),
        },
        Case {
            layer: protect().rule(Rule::role("x").or(Rule::scope("a")).or(Rule::scope("b"))),
            status: 403,
            challenge: format!("{SCOPES}, scope=\"a\""),
        },
        Case {
            layer: protect().permission("p").group("g"),
            status: 403,
            challenge: NO_ERROR.to_owned(),
        },
        Case {
            layer: protect().claim("org_id", |_| true),
            status: 403,
            challenge: NO_ERROR.to_owned(),
        },
        Case {
            layer: protect()
                .rule(Rule::custom("own path", |_, request| request.uri.path() == "/profiles/bob")),
            status: 403,
            challenge: NO_ERROR.to_owned(),
        },
        Case {
            layer: protect().acr(["gold", "pla\"tin"]),
            status: 401,
            challenge: format!("{SIGN_IN}, acr_values=\"gold pla\\\"tin\""),
        },
        Case {
            layer: protect().max_auth_age(minutes(5)),
            status: 401,
            challenge: format!("{SIGN_IN}, max_age=\"300\""),
        },
        Case {
            layer: protect()
                .acr(["a", "b"])
                .max_auth_age(minutes(5))
                .acr(["b", "c"])
                .max_auth_age(minutes(1)),
            status: 401,
            challenge: format!("{SIGN_IN}, acr_values=\"b\", max_age=\"60\""),
        },
        // Of alternatives, the first that a sign-in can satisfy.
        Case {
            layer: protect().rule(Rule::acr(["gold"]).or(Rule::max_auth_age(minutes(5)))),
            status: 401,
            challenge: format!("{SIGN_IN}, acr_values=\"gold\""),
        },
        Case {
            layer: protect()
                .acr(["gold"])
                .rule(Rule::issuer("https://issuer.example/").or(Rule::max_auth_age(minutes(5)))),
            status: 401,
            challenge: format!("{SIGN_IN}, acr_values=\"gold\", max_age=\"300\""),
        },
    ];
    for Case { layer, status, challenge } in cases {
        let response = api.ask(&layer, api.issuer.token()).await;
        assert_eq!(response.status().as_u16(), status, "{challenge}");
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], challenge);
    }
    let own = protect().rule(Rule::custom("own profile", |token, request| {
        request.uri.path().strip_prefix("/profiles/") == token.subject()
    }));
    assert_eq!(api.ask(&own, api.issuer.token().subject("alice")).await.status(), 200);
    assert_eq!(api.ask(&own, api.issuer.token().subject("bob")).await.status(), 403);
    let response = api.ask(&protect().without_challenge().scope("a"), api.issuer.token()).await;
    assert_eq!(
        (response.status().as_u16(), response.headers().contains_key(header::WWW_AUTHENTICATE)),
        (403, false)
    );
}

#[tokio::test]
async fn one_scope_can_imply_another() {
    struct Case {
        granted: &'static str,
        asked: &'static str,
        expected: bool,
    }

    let issuer = offline_issuer();
    let implies = |granted: &str, asked: &str| {
        asked.strip_prefix(granted).is_some_and(|rest| rest.starts_with(':'))
    };
    let verifier = Verifier::builder(issuer.issuer()).scope_implies(implies).build().unwrap();
    for Case { granted, asked, expected } in [
        Case { granted: "orders", asked: "orders:read", expected: true },
        Case { granted: "orders", asked: "orders:read orders:write", expected: true },
        Case { granted: "orders:read", asked: "orders:read", expected: true },
        Case { granted: "orders:read", asked: "orders", expected: false },
        Case { granted: "order", asked: "orders:read", expected: false },
        Case { granted: "orders", asked: "orders:read users", expected: false },
    ] {
        let token = verifier.verify(&issuer.token().scope(granted).build()).await.unwrap();
        assert_eq!(Rule::scope(asked).check(&token).is_ok(), expected, "{granted} for {asked}");
        assert_eq!(token.scope().as_str(), granted, "the scope is unchanged");
    }
}

/// An impossible `auth_time` counts as missing.
#[tokio::test]
async fn auth_time_in_the_future_is_rejected() {
    let api = api();
    let now = api.clock.unix_seconds();
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
        let token = api.token(api.issuer.token().claim("auth_time", auth_time.clone())).await;
        assert_eq!(rule.check(&token).is_ok(), expected, "{auth_time}");
    }
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

/// RFC 6749 §3.3: whole tokens, case-sensitive, in any order.
#[tokio::test]
async fn scopes_are_compared_token_by_token() {
    let issuer = started_issuer();
    let layer = ProtectLayer::new(verifier(&issuer)).scope("orders:read orders:write");
    for (granted, status) in [
        ("orders:read orders:write", 200),
        ("a orders:write b orders:read c", 200),
        ("orders:read", 403),
        ("orders:read orders:write2", 403),
        ("orders:read2 orders:write", 403),
        ("orders:read orders", 403),
        ("orders:read Orders:Write", 403),
        ("orders:readorders:write", 403),
        ("orders:read,orders:write", 403),
        ("", 403),
    ] {
        let response = answer(&layer, bearer(&issuer.token().scope(granted).build())).await;
        assert_eq!(response.status().as_u16(), status, "{granted}");
    }
}

#[test]
fn invalid_scopes_are_errors() {
    for scope in ["", " ", "a\"b", "a\\b", "a\tb", "a\nb", "é", "a\u{7f}"] {
        assert!(scope.parse::<Scope>().is_err(), "{scope:?}");
    }
    for (scope, text) in [
        ("a", "a"),
        ("a b", "a b"),
        ("  a  b a ", "a b"),
        ("https://x/y.z:w!#~", "https://x/y.z:w!#~"),
    ] {
        assert_eq!(scope.parse::<Scope>().unwrap().as_str(), text);
    }
}

#[tokio::test]
#[should_panic(expected = "scope \"a\\\"b\"")]
async fn an_invalid_scope_in_the_source_panics() {
    let _ = ProtectLayer::new(verifier(&started_issuer())).scope("a\"b");
}

/// Otherwise, the rule would accept every token.
#[tokio::test]
#[should_panic(expected = "expected at least one scope token")]
async fn a_rule_with_an_empty_scope_panics() {
    let nothing = AccessToken::for_tests(json!({})).scope().clone();
    let _ = Rule::scope(nothing);
}
