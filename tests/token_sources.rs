//! Where a request may carry its token, and how a request without a token or with two is rejected.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use axum::routing::any;
use portcullis::testing::TestIssuer;
use portcullis::{
    AccessToken, Algorithm, Error, InvalidRequest, ProtectLayer, TokenSource, Verifier,
};
use tower::ServiceExt as _;

fn issuer() -> TestIssuer {
    TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap()
}

fn everywhere(issuer: &TestIssuer) -> ProtectLayer {
    ProtectLayer::new(Verifier::new(issuer.issuer()).unwrap()).token_sources([
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

async fn ask(
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

fn verdict(response: &Response<Body>) -> &'static str {
    match response.extensions().get::<Error>() {
        None => "ok",
        Some(Error::InvalidRequest(InvalidRequest::Repeated)) => "repeated",
        Some(Error::InvalidRequest(InvalidRequest::Credentials)) => "credentials",
        Some(Error::InvalidRequest(InvalidRequest::Origin)) => "origin",
        Some(error) => error.code(),
    }
}

#[tokio::test]
async fn tokens_are_read_from_the_configured_sources() {
    let issuer = issuer();
    let layer = everywhere(&issuer);
    let token = issuer.token().build();
    let t = |text: &str| text.replace("TOKEN", &token);
    const UPGRADE: (&str, &str) = ("upgrade", "websocket");
    type Headers = Vec<(&'static str, &'static str)>;
    let cases: Vec<(&str, &str, &str, Headers, &str)> = vec![
        ("no token", "GET", "/", vec![], "missing"),
        ("authorization", "GET", "/", vec![("authorization", "Bearer TOKEN")], "ok"),
        ("a gateway's header", "GET", "/", vec![("x-goog-iap-jwt-assertion", "TOKEN")], "ok"),
        (
            "the header twice",
            "GET",
            "/",
            vec![("x-goog-iap-jwt-assertion", "TOKEN"); 2],
            "repeated",
        ),
        (
            "the header with a scheme",
            "GET",
            "/",
            vec![("x-goog-iap-jwt-assertion", "Bearer TOKEN")],
            "credentials",
        ),
        ("the header, empty", "GET", "/", vec![("x-goog-iap-jwt-assertion", "")], "credentials"),
        ("a cookie", "GET", "/", vec![("cookie", "a=b; __session=TOKEN; c=d")], "ok"),
        ("a cookie in quotes", "GET", "/", vec![("cookie", "__session=\"TOKEN\"")], "ok"),
        (
            "a cookie in a second header",
            "GET",
            "/",
            vec![("cookie", "a=b"), ("cookie", "__session=TOKEN")],
            "ok",
        ),
        (
            "two cookies",
            "GET",
            "/",
            vec![("cookie", "__session=TOKEN; __session=TOKEN")],
            "repeated",
        ),
        (
            "cookies with longer names",
            "GET",
            "/",
            vec![("cookie", "__session_2=TOKEN; x__session=TOKEN")],
            "missing",
        ),
        ("an empty cookie", "GET", "/", vec![("cookie", "__session=")], "missing"),
        (
            "an empty cookie beside a header",
            "GET",
            "/",
            vec![("cookie", "__session="), ("authorization", "Bearer TOKEN")],
            "ok",
        ),
        (
            "a WebSocket subprotocol",
            "GET",
            "/",
            vec![UPGRADE, ("sec-websocket-protocol", "bearer, TOKEN")],
            "ok",
        ),
        (
            "a subprotocol among others",
            "GET",
            "/",
            vec![UPGRADE, ("sec-websocket-protocol", "chat,bearer,TOKEN,v2")],
            "ok",
        ),
        (
            "a subprotocol in two headers",
            "GET",
            "/",
            vec![
                UPGRADE,
                ("sec-websocket-protocol", "bearer"),
                ("sec-websocket-protocol", "TOKEN"),
            ],
            "ok",
        ),
        (
            "other subprotocols",
            "GET",
            "/",
            vec![UPGRADE, ("sec-websocket-protocol", "chat, TOKEN")],
            "missing",
        ),
        (
            "a subprotocol without a WebSocket",
            "POST",
            "/",
            vec![("sec-websocket-protocol", "bearer, TOKEN")],
            "missing",
        ),
        (
            "two tokens in the subprotocol",
            "GET",
            "/",
            vec![UPGRADE, ("sec-websocket-protocol", "bearer, TOKEN, bearer, TOKEN")],
            "repeated",
        ),
        (
            "the subprotocol without a token",
            "GET",
            "/",
            vec![UPGRADE, ("sec-websocket-protocol", "bearer")],
            "credentials",
        ),
        ("the query", "GET", "/?a=b&access_token=TOKEN", vec![], "ok"),
        ("the query twice", "GET", "/?access_token=TOKEN&access_token=TOKEN", vec![], "repeated"),
        ("the query, empty", "GET", "/?access_token=", vec![], "credentials"),
        ("the query, no value", "GET", "/?access_token", vec![], "missing"),
        ("the query, another name", "GET", "/?xaccess_token=TOKEN", vec![], "missing"),
        (
            "header and query",
            "GET",
            "/?access_token=TOKEN",
            vec![("authorization", "Bearer TOKEN")],
            "repeated",
        ),
        (
            "header and cookie",
            "GET",
            "/",
            vec![("authorization", "Bearer TOKEN"), ("cookie", "__session=TOKEN")],
            "repeated",
        ),
        (
            "Basic and a cookie",
            "GET",
            "/",
            vec![("authorization", "Basic YTpi"), ("cookie", "__session=TOKEN")],
            "ok",
        ),
    ];
    for (name, method, uri, headers, expected) in cases {
        let headers: Vec<_> = headers.into_iter().map(|(name, value)| (name, t(value))).collect();
        let response = ask(&layer, method, &t(uri), &headers).await;
        assert_eq!(verdict(&response), expected, "{name}");
    }
    let default = ProtectLayer::new(Verifier::new(issuer.issuer()).unwrap());
    for (name, uri, headers) in [
        ("cookie", "/", vec![("cookie", t("__session=TOKEN"))]),
        ("query", &*t("/?access_token=TOKEN"), vec![]),
        ("websocket", "/", vec![("sec-websocket-protocol", t("bearer, TOKEN"))]),
    ] {
        assert_eq!(
            verdict(&ask(&default, "GET", uri, &headers).await),
            "missing",
            "{name}: only if configured"
        );
    }
}

/// A request of a browser, or of another client, with a token that browsers send automatically.
struct Browser {
    name: &'static str,
    method: &'static str,
    host: &'static str,
    headers: &'static [(&'static str, &'static str)],
    passes: bool,
}

const SITE: &str = "sec-fetch-site";
const MODE: &str = "sec-fetch-mode";
const DEST: &str = "sec-fetch-dest";
const LANDING: [(&str, &str); 3] = [(SITE, "cross-site"), (MODE, "navigate"), (DEST, "document")];
const WEBSOCKET: (&str, &str) = ("upgrade", "websocket");

/// Requests as Chromium sends them (checked by `ci/gateway.sh`), and requests that no browser
/// sends.
fn browsers() -> Vec<Browser> {
    let case =
        |name, method, host, headers, passes| Browser { name, method, host, headers, passes };
    let api = "api.example";
    vec![
        // Without `Origin`.
        case(
            "a typed address",
            "GET",
            api,
            &[(SITE, "none"), (MODE, "navigate"), (DEST, "document")],
            true,
        ),
        case(
            "a request of the API's own page",
            "GET",
            api,
            &[(SITE, "same-origin"), (MODE, "cors")],
            true,
        ),
        case(
            "an image of the API's own page",
            "GET",
            api,
            &[(SITE, "same-origin"), (DEST, "image")],
            true,
        ),
        case("a client that is not a browser", "GET", api, &[], true),
        case("HEAD", "HEAD", api, &[], true),
        case("OPTIONS", "OPTIONS", api, &[], true),
        case("the page after a sign-in, or a link in an email", "GET", api, &LANDING, true),
        case("the same by HEAD", "HEAD", api, &LANDING, true),
        case(
            "a link on a sibling subdomain",
            "GET",
            api,
            &[(SITE, "same-site"), (MODE, "navigate"), (DEST, "document")],
            true,
        ),
        case(
            "cross-site fetch",
            "GET",
            api,
            &[(SITE, "cross-site"), (MODE, "no-cors"), (DEST, "empty")],
            false,
        ),
        case(
            "cross-site image",
            "GET",
            api,
            &[(SITE, "cross-site"), (MODE, "no-cors"), (DEST, "image")],
            false,
        ),
        case(
            "cross-site iframe",
            "GET",
            api,
            &[(SITE, "cross-site"), (MODE, "navigate"), (DEST, "iframe")],
            false,
        ),
        case("cross-site, no other metadata", "GET", api, &[(SITE, "cross-site")], false),
        case(
            "sibling image",
            "GET",
            api,
            &[(SITE, "same-site"), (MODE, "no-cors"), (DEST, "image")],
            false,
        ),
        case("an unknown site", "GET", api, &[(SITE, "other")], false),
        case("two sites", "GET", api, &[(SITE, "same-origin"), (SITE, "cross-site")], false),
        case(
            "a navigation with two modes",
            "GET",
            api,
            &[(SITE, "cross-site"), (MODE, "navigate"), (MODE, "cors"), (DEST, "document")],
            false,
        ),
        case("a navigation by POST", "POST", api, &LANDING, false),
        case("an unsafe method without an origin", "POST", api, &[], false),
        case("another unsafe method without an origin", "DELETE", api, &[], false),
        case(
            "an unsafe method of the own page without an origin",
            "POST",
            api,
            &[(SITE, "same-origin")],
            false,
        ),
        case("a WebSocket without an origin", "GET", api, &[WEBSOCKET], false),
        case("a WebSocket over HTTP/2 without an origin", "CONNECT", api, &[], false),
        case(
            "a navigation by WebSocket",
            "GET",
            api,
            &[WEBSOCKET, (SITE, "cross-site"), (MODE, "navigate"), (DEST, "document")],
            false,
        ),
        // With `Origin`.
        case(
            "the own page",
            "POST",
            api,
            &[(SITE, "same-origin"), ("origin", "https://api.example")],
            true,
        ),
        case(
            "the own page, behind a proxy that rewrites Host",
            "POST",
            "10.0.0.7",
            &[(SITE, "same-origin"), ("origin", "https://api.example")],
            true,
        ),
        case(
            "the own page without a referrer",
            "POST",
            api,
            &[(SITE, "same-origin"), ("origin", "null")],
            true,
        ),
        case(
            "the own page, an old browser",
            "POST",
            api,
            &[("origin", "https://api.example")],
            true,
        ),
        case(
            "a host in uppercase",
            "POST",
            "API.example",
            &[("origin", "https://api.example")],
            true,
        ),
        case(
            "the default port of https",
            "POST",
            "api.example:443",
            &[("origin", "https://api.example")],
            true,
        ),
        case(
            "the same port",
            "POST",
            "api.example:8443",
            &[("origin", "https://api.example:8443")],
            true,
        ),
        case(
            "another port",
            "POST",
            "api.example:8443",
            &[("origin", "https://api.example")],
            false,
        ),
        case(
            "a WebSocket of the own page",
            "GET",
            api,
            &[WEBSOCKET, ("origin", "https://api.example")],
            true,
        ),
        case(
            "a WebSocket of the own page over HTTP/2",
            "CONNECT",
            api,
            &[("origin", "https://api.example")],
            true,
        ),
        case(
            "the own host over http: forgeable by the network",
            "POST",
            api,
            &[("origin", "http://api.example")],
            false,
        ),
        case(
            "the own host over http, on loopback",
            "POST",
            "localhost:3000",
            &[("origin", "http://localhost:3000")],
            true,
        ),
        case(
            "the same by address",
            "POST",
            "127.0.0.1:3000",
            &[("origin", "http://127.0.0.1:3000")],
            true,
        ),
        case("the same by IPv6", "POST", "[::1]:3000", &[("origin", "http://[::1]:3000")], true),
        case(
            "http page, https API, same host",
            "POST",
            api,
            &[(SITE, "cross-site"), ("origin", "http://api.example")],
            false,
        ),
        case(
            "cross-site WebSocket without Sec-Fetch-Site",
            "GET",
            api,
            &[WEBSOCKET, ("origin", "https://evil.example")],
            false,
        ),
        case("the same over HTTP/2", "CONNECT", api, &[("origin", "https://evil.example")], false),
        case(
            "cross-site form",
            "POST",
            api,
            &[(SITE, "cross-site"), ("origin", "https://evil.example")],
            false,
        ),
        case(
            "cross-site form, an old browser",
            "POST",
            api,
            &[("origin", "https://evil.example")],
            false,
        ),
        case(
            "sibling POST",
            "POST",
            api,
            &[(SITE, "same-site"), ("origin", "https://user.api.example")],
            false,
        ),
        case(
            "sibling WebSocket",
            "GET",
            api,
            &[WEBSOCKET, ("origin", "https://user.api.example")],
            false,
        ),
        case(
            "the own host as a prefix",
            "POST",
            api,
            &[("origin", "https://api.example.evil.example")],
            false,
        ),
        case("a sandboxed page", "POST", api, &[(SITE, "cross-site"), ("origin", "null")], false),
        case("a sandboxed page, an old browser", "POST", api, &[("origin", "null")], false),
        case("an empty origin", "POST", api, &[("origin", "")], false),
        case(
            "two origins",
            "POST",
            api,
            &[("origin", "https://api.example"), ("origin", "https://api.example")],
            false,
        ),
        case("no host", "POST", "", &[("origin", "https://")], false),
        case("GET with another origin", "GET", api, &[("origin", "https://evil.example")], false),
        case(
            "a navigation with another origin",
            "GET",
            api,
            &[
                (SITE, "cross-site"),
                (MODE, "navigate"),
                (DEST, "document"),
                ("origin", "https://evil.example"),
            ],
            false,
        ),
        // With a configured origin.
        case(
            "a configured origin on another site",
            "POST",
            api,
            &[(SITE, "cross-site"), ("origin", "https://app.example")],
            true,
        ),
        case("its WebSocket", "GET", api, &[WEBSOCKET, ("origin", "https://app.example")], true),
        case(
            "its WebSocket over HTTP/2",
            "CONNECT",
            api,
            &[("origin", "https://app.example")],
            true,
        ),
        case("its GET", "GET", api, &[("origin", "https://app.example")], true),
        case(
            "a configured origin as a prefix",
            "POST",
            api,
            &[("origin", "https://app.example.evil.example")],
            false,
        ),
    ]
}

/// The same rule applies to a cookie and to a gateway's header.
#[tokio::test]
async fn cookies_and_gateway_headers_are_accepted_only_from_allowed_pages() {
    let issuer = issuer();
    let token = issuer.token().build();
    for Browser { name, method, host, headers, passes } in browsers() {
        for (place, header, value) in [
            ("header", "x-goog-iap-jwt-assertion", token.clone()),
            ("cookie", "cookie", format!("__session={token}")),
        ] {
            let mut all = vec![(header, value)];
            all.extend(headers.iter().map(|(name, value)| (*name, (*value).to_owned())));
            // RFC 9113 §8.3.1: over HTTP/2 the host is in the URI.
            let uri = if method == "CONNECT" { format!("https://{host}/") } else { "/".to_owned() };
            if method != "CONNECT" {
                all.push(("host", host.to_owned()));
            }
            let expected = if passes { "ok" } else { "origin" };
            assert_eq!(
                verdict(&ask(&everywhere(&issuer), method, &uri, &all).await),
                expected,
                "{name}, by {place}"
            );
            // If anonymous requests are allowed, requests of other pages are anonymous.
            let optional = everywhere(&issuer).allow_anonymous();
            let response = ask(&optional, method, &uri, &all).await;
            assert_eq!(
                verdict(&response),
                if passes { "ok" } else { "missing" },
                "{name}, by {place}, optional"
            );
        }
    }
}

/// Machines behind a gateway send no `Origin`. Browsers always send it with unsafe methods.
#[tokio::test]
async fn clients_other_than_browsers_can_be_allowed() {
    let issuer = issuer();
    let token = issuer.token().build();
    let source = TokenSource::header("x-assertion").unwrap();
    let strict = everywhere(&issuer).token_sources([source.clone()]);
    let machines = everywhere(&issuer).token_sources([source.allow_non_browsers().unwrap()]);
    type Headers = &'static [(&'static str, &'static str)];
    let cases: [(&str, &str, Headers, bool); 6] = [
        ("POST", "POST", &[], true),
        ("a WebSocket", "GET", &[WEBSOCKET], true),
        ("a browser's POST", "POST", &[(SITE, "same-origin")], false),
        ("another browser header", "POST", &[(MODE, "cors")], false),
        ("a page of another origin", "POST", &[("origin", "https://evil.example")], false),
        ("cross-site image", "GET", &[(SITE, "cross-site"), (DEST, "image")], false),
    ];
    for (name, method, headers, passes) in cases {
        let mut all = vec![("x-assertion", token.clone())];
        all.extend(headers.iter().map(|(name, value)| (*name, (*value).to_owned())));
        assert_eq!(verdict(&ask(&strict, method, "/", &all).await), "origin", "{name}");
        let expected = if passes { "ok" } else { "origin" };
        assert_eq!(verdict(&ask(&machines, method, "/", &all).await), expected, "{name}");
    }
    assert!(TokenSource::authorization().allow_non_browsers().is_err());
    let websocket = TokenSource::websocket_protocol("bearer").unwrap();
    assert!(
        websocket.from_origins(["https://app.example"]).is_err(),
        "origins would have no effect"
    );
}

/// RFC 8441 §4: over HTTP/2, any 2xx response to CONNECT accepts a WebSocket.
#[tokio::test]
async fn a_websocket_over_http_2_receives_its_subprotocol() {
    let issuer = issuer();
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
    let issuer = issuer();
    let layer = everywhere(&issuer);
    let (good, expired) = (issuer.token().build(), issuer.token().expired().build());
    for (name, token, status) in [("accepted", &good, 200), ("rejected", &expired, 401)] {
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

/// All sources are read before an origin is rejected, so a second token beside a cookie is
/// detected.
#[tokio::test]
async fn a_cookie_from_another_origin_does_not_hide_a_second_token() {
    let issuer = issuer();
    let token = issuer.token().build();
    let sources =
        || [TokenSource::cookie("a", Vec::<String>::new()).unwrap(), TokenSource::authorization()];
    let headers = [
        ("cookie", format!("a={token}")),
        ("origin", "https://evil.example".to_owned()),
        ("authorization", format!("Bearer {token}")),
    ];
    for layer in [
        everywhere(&issuer).token_sources(sources()),
        everywhere(&issuer).token_sources(sources()).allow_anonymous(),
    ] {
        assert_eq!(verdict(&ask(&layer, "GET", "/", &headers).await), "repeated");
        assert_ne!(verdict(&ask(&layer, "GET", "/", &headers[..2]).await), "ok");
    }
}
