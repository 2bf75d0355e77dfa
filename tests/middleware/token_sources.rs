//! Where a request may carry its token, and how a request without a token or with two is rejected.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use axum::routing::any;
use portcullis::testing::TestIssuer;
use portcullis::{AccessToken, Error, InvalidRequest, ProtectLayer, TokenSource};
use tower::ServiceExt as _;

use crate::{offline_issuer, protect};

pub(crate) fn everywhere(issuer: &TestIssuer) -> ProtectLayer {
    protect(issuer).token_sources([
        TokenSource::authorization(),
        TokenSource::header("x-goog-iap-jwt-assertion")
            .unwrap()
            .from_origins(["https://app.example"])
            .unwrap(),
        TokenSource::cookie("__session", ["https://app.example", "https://admin.example"]).unwrap(),
        TokenSource::websocket_protocol("bearer").unwrap(),
        TokenSource::danger_query("access_token"),
    ])
}

pub(crate) async fn ask(
    layer: &ProtectLayer,
    method: &str,
    uri: &str,
    headers: &[(&str, String)],
) -> Response<Body> {
    let switch = async || (StatusCode::SWITCHING_PROTOCOLS, [(header::UPGRADE, "websocket")]);
    let app = Router::new()
        .route("/", any(async |token: AccessToken| token.subject().unwrap_or_default().to_owned()))
        .route("/ws", any(switch))
        .route(
            "/chat",
            any(async || {
                (StatusCode::SWITCHING_PROTOCOLS, [(header::SEC_WEBSOCKET_PROTOCOL, "chat")])
            }),
        )
        .route_layer(layer.clone());
    let request = Request::builder().method(method).uri(uri);
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
    app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

/// Returns `ok`, or the code of the error. It also tells apart the reasons of status 400.
pub(crate) fn outcome(response: &Response<Body>) -> &'static str {
    match response.extensions().get::<Error>() {
        None => "ok",
        Some(Error::InvalidRequest(InvalidRequest::RepeatedToken)) => "repeated",
        Some(Error::InvalidRequest(InvalidRequest::MalformedCredentials)) => "credentials",
        Some(Error::InvalidRequest(InvalidRequest::ForbiddenOrigin)) => "origin",
        Some(error) => error.code(),
    }
}

#[tokio::test]
async fn tokens_are_read_from_the_configured_sources() {
    struct Case {
        name: &'static str,
        method: &'static str,
        uri: &'static str,
        headers: Vec<(&'static str, &'static str)>,
        expected: &'static str,
    }

    struct Unconfigured<'a> {
        name: &'static str,
        uri: &'a str,
        headers: Vec<(&'static str, String)>,
    }

    let issuer = offline_issuer();
    let layer = everywhere(&issuer);
    let token = issuer.token().build();
    let t = |text: &str| text.replace("TOKEN", &token);
    const UPGRADE: (&str, &str) = ("upgrade", "websocket");
    let cases = vec![
        Case { name: "no token", method: "GET", uri: "/", headers: vec![], expected: "missing" },
        Case {
            name: "authorization",
            method: "GET",
            uri: "/",
            headers: vec![("authorization", "Bearer TOKEN")],
            expected: "ok",
        },
        Case {
            name: "a gateway's header",
            method: "GET",
            uri: "/",
            headers: vec![("x-goog-iap-jwt-assertion", "TOKEN")],
            expected: "ok",
        },
        Case {
            name: "the header twice",
            method: "GET",
            uri: "/",
            headers: vec![("x-goog-iap-jwt-assertion", "TOKEN"); 2],
            expected: "repeated",
        },
        Case {
            name: "the header with a scheme",
            method: "GET",
            uri: "/",
            headers: vec![("x-goog-iap-jwt-assertion", "Bearer TOKEN")],
            expected: "credentials",
        },
        Case {
            name: "the header, empty",
            method: "GET",
            uri: "/",
            headers: vec![("x-goog-iap-jwt-assertion", "")],
            expected: "credentials",
        },
        Case {
            name: "a cookie",
            method: "GET",
            uri: "/",
            headers: vec![("cookie", "a=b; __session=TOKEN; c=d")],
            expected: "ok",
        },
        Case {
            name: "a cookie in quotes",
            method: "GET",
            uri: "/",
            headers: vec![("cookie", "__session=\"TOKEN\"")],
            expected: "ok",
        },
        Case {
            name: "a cookie in a second header",
            method: "GET",
            uri: "/",
            headers: vec![("cookie", "a=b"), ("cookie", "__session=TOKEN")],
            expected: "ok",
        },
        Case {
            name: "two cookies",
            method: "GET",
            uri: "/",
            headers: vec![("cookie", "__session=TOKEN; __session=TOKEN")],
            expected: "repeated",
        },
        Case {
            name: "cookies with longer names",
            method: "GET",
            uri: "/",
            headers: vec![("cookie", "__session_2=TOKEN; x__session=TOKEN")],
            expected: "missing",
        },
        Case {
            name: "an empty cookie",
            method: "GET",
            uri: "/",
            headers: vec![("cookie", "__session=")],
            expected: "missing",
        },
        Case {
            name: "an empty cookie beside a header",
            method: "GET",
            uri: "/",
            headers: vec![("cookie", "__session="), ("authorization", "Bearer TOKEN")],
            expected: "ok",
        },
        Case {
            name: "a WebSocket subprotocol",
            method: "GET",
            uri: "/",
            headers: vec![UPGRADE, ("sec-websocket-protocol", "bearer, TOKEN")],
            expected: "ok",
        },
        Case {
            name: "a subprotocol among others",
            method: "GET",
            uri: "/",
            headers: vec![UPGRADE, ("sec-websocket-protocol", "chat,bearer,TOKEN,v2")],
            expected: "ok",
        },
        Case {
            name: "a subprotocol in two headers",
            method: "GET",
            uri: "/",
            headers: vec![
                UPGRADE,
                ("sec-websocket-protocol", "bearer"),
                ("sec-websocket-protocol", "TOKEN"),
            ],
            expected: "ok",
        },
        Case {
            name: "other subprotocols",
            method: "GET",
            uri: "/",
            headers: vec![UPGRADE, ("sec-websocket-protocol", "chat, TOKEN")],
            expected: "missing",
        },
        Case {
            name: "a subprotocol without a WebSocket",
            method: "POST",
            uri: "/",
            headers: vec![("sec-websocket-protocol", "bearer, TOKEN")],
            expected: "missing",
        },
        Case {
            name: "two tokens in the subprotocol",
            method: "GET",
            uri: "/",
            headers: vec![UPGRADE, ("sec-websocket-protocol", "bearer, TOKEN, bearer, TOKEN")],
            expected: "repeated",
        },
        Case {
            name: "the subprotocol without a token",
            method: "GET",
            uri: "/",
            headers: vec![UPGRADE, ("sec-websocket-protocol", "bearer")],
            expected: "credentials",
        },
        Case {
            name: "the query",
            method: "GET",
            uri: "/?a=b&access_token=TOKEN",
            headers: vec![],
            expected: "ok",
        },
        Case {
            name: "the query twice",
            method: "GET",
            uri: "/?access_token=TOKEN&access_token=TOKEN",
            headers: vec![],
            expected: "repeated",
        },
        Case {
            name: "the query, empty",
            method: "GET",
            uri: "/?access_token=",
            headers: vec![],
            expected: "credentials",
        },
        Case {
            name: "the query, no value",
            method: "GET",
            uri: "/?access_token",
            headers: vec![],
            expected: "missing",
        },
        Case {
            name: "the query, another name",
            method: "GET",
            uri: "/?xaccess_token=TOKEN",
            headers: vec![],
            expected: "missing",
        },
        Case {
            name: "header and query",
            method: "GET",
            uri: "/?access_token=TOKEN",
            headers: vec![("authorization", "Bearer TOKEN")],
            expected: "repeated",
        },
        Case {
            name: "header and cookie",
            method: "GET",
            uri: "/",
            headers: vec![("authorization", "Bearer TOKEN"), ("cookie", "__session=TOKEN")],
            expected: "repeated",
        },
        Case {
            name: "Basic and a cookie",
            method: "GET",
            uri: "/",
            headers: vec![("authorization", "Basic YTpi"), ("cookie", "__session=TOKEN")],
            expected: "ok",
        },
    ];
    for Case { name, method, uri, headers, expected } in cases {
        let headers: Vec<_> = headers.into_iter().map(|(name, value)| (name, t(value))).collect();
        let response = ask(&layer, method, &t(uri), &headers).await;
        assert_eq!(outcome(&response), expected, "{name}");
    }
    let default = protect(&issuer);
    for Unconfigured { name, uri, headers } in [
        Unconfigured { name: "cookie", uri: "/", headers: vec![("cookie", t("__session=TOKEN"))] },
        Unconfigured { name: "query", uri: &t("/?access_token=TOKEN"), headers: vec![] },
        Unconfigured {
            name: "websocket",
            uri: "/",
            headers: vec![("sec-websocket-protocol", t("bearer, TOKEN"))],
        },
    ] {
        assert_eq!(
            outcome(&ask(&default, "GET", uri, &headers).await),
            "missing",
            "{name}: only if configured"
        );
    }
}

/// RFC 8441 §4: over HTTP/2, any 2xx response to CONNECT accepts a WebSocket.
#[tokio::test]
async fn a_websocket_over_http_2_receives_its_subprotocol() {
    let issuer = offline_issuer();
    let token = issuer.token().build();
    let offer = [("sec-websocket-protocol", format!("bearer, {token}"))];
    let response = ask(&everywhere(&issuer), "CONNECT", "/", &offer).await;
    assert_eq!(
        (response.status(), &response.headers()[header::SEC_WEBSOCKET_PROTOCOL]),
        (StatusCode::OK, &"bearer".parse().unwrap())
    );
    let wrong = [("sec-websocket-protocol", "bearer, a.b.c".to_owned())];
    let response = ask(&everywhere(&issuer), "CONNECT", "/", &wrong).await;
    assert!(
        response.status() == 401
            && !response.headers().contains_key(header::SEC_WEBSOCKET_PROTOCOL)
    );
}

#[tokio::test]
async fn response_headers_depend_on_the_source_of_the_token() {
    struct Case<'a> {
        name: &'static str,
        token: &'a str,
        status: u16,
    }

    let issuer = offline_issuer();
    let layer = everywhere(&issuer);
    let (good, expired) = (issuer.token().build(), issuer.token().expired().build());
    for Case { name, token, status } in [
        Case { name: "accepted", token: &good, status: 200 },
        Case { name: "rejected", token: &expired, status: 401 },
    ] {
        let response = ask(&layer, "GET", &format!("/?access_token={token}"), &[]).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()[header::CACHE_CONTROL]),
            (status, &"no-store".parse().unwrap()),
            "{name}"
        );
    }
    for uri in
        [format!("/?access_token={good}&access_token={good}"), "/?access_token=%20".to_owned()]
    {
        let response = ask(&layer, "GET", &uri, &[]).await;
        assert_eq!(
            (response.status().as_u16(), response.headers().contains_key(header::CACHE_CONTROL)),
            (400, true)
        );
    }
    let response = ask(&layer, "GET", "/", &[("authorization", format!("Bearer {good}"))]).await;
    assert!(!response.headers().contains_key(header::CACHE_CONTROL));
    for (uri, accepted) in [("/ws", Some("bearer")), ("/chat", Some("chat")), ("/", None)] {
        let headers = [
            ("upgrade", "websocket".to_owned()),
            ("sec-websocket-protocol", format!("bearer, {good}")),
        ];
        let response = ask(&layer, "GET", uri, &headers).await;
        let protocols: Vec<_> =
            response.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().collect();
        assert_eq!(protocols, Vec::from_iter(accepted), "{uri}");
    }
}

#[test]
fn invalid_sources_are_errors() {
    assert!(TokenSource::header("Authorization").is_err());
    assert!(TokenSource::header("no header").is_err());
    for origin in [
        "https://app.example/",
        "https://App.example",
        "app.example",
        "https://app.example:443",
        "null",
        "",
    ] {
        assert!(TokenSource::cookie("a", [origin]).is_err(), "{origin}");
    }
    assert!(
        TokenSource::cookie("a", ["https://app.example:8443", "http://localhost:3000"]).is_ok()
    );
    for name in ["", "a b", "a,b", "ä"] {
        assert!(TokenSource::websocket_protocol(name).is_err(), "{name}");
    }
}
