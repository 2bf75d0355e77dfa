//! Where a request may have its token, and what is answered where it has none, or two.

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use axum::routing::any;
use portcullis::testing::TestIssuer;
use portcullis::{AccessToken, Algorithm, Error, InvalidRequest, ProtectLayer, TokenSource, Verifier};
use tower::ServiceExt as _;

fn issuer() -> TestIssuer {
    TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap()
}

fn everywhere(issuer: &TestIssuer) -> ProtectLayer {
    ProtectLayer::new(Verifier::new(issuer.issuer()).unwrap()).token_from([
        TokenSource::authorization(),
        TokenSource::header("x-goog-iap-jwt-assertion").unwrap().from_origins(["https://app.example"]).unwrap(),
        TokenSource::cookie("__session", ["https://app.example", "https://admin.example"]).unwrap(),
        TokenSource::websocket_protocol("bearer").unwrap(),
        TokenSource::danger_query("access_token"),
    ])
}

async fn ask(layer: &ProtectLayer, method: &str, uri: &str, headers: &[(&str, String)]) -> Response<Body> {
    let switch = async || (StatusCode::SWITCHING_PROTOCOLS, [(header::UPGRADE, "websocket")]);
    let app = Router::new()
        .route("/", any(async |token: AccessToken| token.subject().unwrap_or_default().to_owned()))
        .route("/ws", any(switch))
        .route("/chat", any(async || (StatusCode::SWITCHING_PROTOCOLS, [(header::SEC_WEBSOCKET_PROTOCOL, "chat")])))
        .route_layer(layer.clone());
    let request = Request::builder().method(method).uri(uri);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
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
async fn a_token_is_found_where_it_may_be() {
    let issuer = issuer();
    let layer = everywhere(&issuer);
    let token = issuer.token().build();
    let t = |text: &str| text.replace("TOKEN", &token);
    const UPGRADE: (&str, &str) = ("upgrade", "websocket");
    type Headers = Vec<(&'static str, &'static str)>;
    let cases: Vec<(&str, &str, &str, Headers, &str)> = vec![
        ("nowhere", "GET", "/", vec![], "missing"),
        ("authorization", "GET", "/", vec![("authorization", "Bearer TOKEN")], "ok"),
        ("a gateway's header", "POST", "/", vec![("x-goog-iap-jwt-assertion", "TOKEN")], "ok"),
        ("the header twice", "GET", "/", vec![("x-goog-iap-jwt-assertion", "TOKEN"); 2], "repeated"),
        ("the header with a scheme", "GET", "/", vec![("x-goog-iap-jwt-assertion", "Bearer TOKEN")], "credentials"),
        ("the header empty", "GET", "/", vec![("x-goog-iap-jwt-assertion", "")], "credentials"),
        ("a cookie", "GET", "/", vec![("cookie", "a=b; __session=TOKEN; c=d")], "ok"),
        ("a cookie in quotes", "GET", "/", vec![("cookie", "__session=\"TOKEN\"")], "ok"),
        ("a cookie in a second line", "GET", "/", vec![("cookie", "a=b"), ("cookie", "__session=TOKEN")], "ok"),
        ("two cookies", "GET", "/", vec![("cookie", "__session=TOKEN; __session=TOKEN")], "repeated"),
        ("a cookie of a longer name", "GET", "/", vec![("cookie", "__session_2=TOKEN; x__session=TOKEN")], "missing"),
        ("a cookie, emptied", "GET", "/", vec![("cookie", "__session=")], "missing"),
        (
            "an emptied cookie beside a header",
            "GET",
            "/",
            vec![("cookie", "__session="), ("authorization", "Bearer TOKEN")],
            "ok",
        ),
        (
            "an image on another site",
            "GET",
            "/",
            vec![("cookie", "__session=TOKEN"), ("sec-fetch-site", "cross-site")],
            "origin",
        ),
        (
            "an image on the same site",
            "GET",
            "/",
            vec![("cookie", "__session=TOKEN"), ("sec-fetch-site", "same-site")],
            "ok",
        ),
        (
            "the app on another site",
            "POST",
            "/",
            vec![("cookie", "__session=TOKEN"), ("sec-fetch-site", "cross-site"), ("origin", "https://app.example")],
            "ok",
        ),
        (
            "a form on another site, by a gateway",
            "POST",
            "/",
            vec![
                ("x-goog-iap-jwt-assertion", "TOKEN"),
                ("sec-fetch-site", "cross-site"),
                ("origin", "https://evil.example"),
            ],
            "origin",
        ),
        (
            "a page of the same site, by a gateway",
            "POST",
            "/",
            vec![
                ("x-goog-iap-jwt-assertion", "TOKEN"),
                ("sec-fetch-site", "same-origin"),
                ("origin", "https://api.example"),
            ],
            "ok",
        ),
        (
            "a page that may, by a gateway",
            "POST",
            "/",
            vec![
                ("x-goog-iap-jwt-assertion", "TOKEN"),
                ("sec-fetch-site", "cross-site"),
                ("origin", "https://app.example"),
            ],
            "ok",
        ),
        (
            "a cookie from the app",
            "POST",
            "/",
            vec![("cookie", "__session=TOKEN"), ("origin", "https://app.example")],
            "ok",
        ),
        (
            "from the other app",
            "GET",
            "/",
            vec![("cookie", "__session=TOKEN"), ("origin", "https://admin.example")],
            "ok",
        ),
        (
            "from elsewhere",
            "GET",
            "/",
            vec![("cookie", "__session=TOKEN"), ("origin", "https://evil.example")],
            "origin",
        ),
        ("from a sandbox", "POST", "/", vec![("cookie", "__session=TOKEN"), ("origin", "null")], "origin"),
        (
            "of a longer name",
            "POST",
            "/",
            vec![("cookie", "__session=TOKEN"), ("origin", "https://app.example.evil.example")],
            "origin",
        ),
        ("from nowhere, unsafe", "POST", "/", vec![("cookie", "__session=TOKEN")], "origin"),
        ("from nowhere, unsafe too", "DELETE", "/", vec![("cookie", "__session=TOKEN")], "origin"),
        (
            "a websocket from nowhere",
            "GET",
            "/",
            vec![("cookie", "__session=TOKEN"), ("upgrade", "websocket")],
            "origin",
        ),
        ("a websocket's protocol", "GET", "/", vec![UPGRADE, ("sec-websocket-protocol", "bearer, TOKEN")], "ok"),
        ("among others", "GET", "/", vec![UPGRADE, ("sec-websocket-protocol", "chat,bearer,TOKEN,v2")], "ok"),
        (
            "in two lines",
            "GET",
            "/",
            vec![UPGRADE, ("sec-websocket-protocol", "bearer"), ("sec-websocket-protocol", "TOKEN")],
            "ok",
        ),
        ("other protocols", "GET", "/", vec![UPGRADE, ("sec-websocket-protocol", "chat, TOKEN")], "missing"),
        ("no websocket", "POST", "/", vec![("sec-websocket-protocol", "bearer, TOKEN")], "missing"),
        (
            "two in one",
            "GET",
            "/",
            vec![UPGRADE, ("sec-websocket-protocol", "bearer, TOKEN, bearer, TOKEN")],
            "repeated",
        ),
        ("the protocol alone", "GET", "/", vec![UPGRADE, ("sec-websocket-protocol", "bearer")], "credentials"),
        ("the query", "GET", "/?a=b&access_token=TOKEN", vec![], "ok"),
        ("the query twice", "GET", "/?access_token=TOKEN&access_token=TOKEN", vec![], "repeated"),
        ("the query, empty", "GET", "/?access_token=", vec![], "credentials"),
        ("the query, no value", "GET", "/?access_token", vec![], "missing"),
        ("the query, another name", "GET", "/?xaccess_token=TOKEN", vec![], "missing"),
        ("header and query", "GET", "/?access_token=TOKEN", vec![("authorization", "Bearer TOKEN")], "repeated"),
        (
            "header and cookie",
            "GET",
            "/",
            vec![("authorization", "Bearer TOKEN"), ("cookie", "__session=TOKEN")],
            "repeated",
        ),
        ("Basic and a cookie", "GET", "/", vec![("authorization", "Basic YTpi"), ("cookie", "__session=TOKEN")], "ok"),
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
            "{name}: only where it is asked for"
        );
    }
}

#[tokio::test]
async fn answers_are_marked_by_where_the_token_was() {
    let issuer = issuer();
    let layer = everywhere(&issuer);
    let (good, expired) = (issuer.token().build(), issuer.token().expired().build());
    for (name, token, status) in [("let through", &good, 200), ("refused", &expired, 401)] {
        let response = ask(&layer, "GET", &format!("/?access_token={token}"), &[]).await;
        assert_eq!(
            (response.status().as_u16(), &response.headers()[header::CACHE_CONTROL]),
            (status, &"no-store".parse().unwrap()),
            "{name}"
        );
    }
    for uri in [format!("/?access_token={good}&access_token={good}"), "/?access_token=%20".to_owned()] {
        let response = ask(&layer, "GET", &uri, &[]).await;
        assert_eq!((response.status().as_u16(), response.headers().contains_key(header::CACHE_CONTROL)), (400, true));
    }
    let response = ask(&layer, "GET", "/", &[("authorization", format!("Bearer {good}"))]).await;
    assert!(!response.headers().contains_key(header::CACHE_CONTROL));
    for (uri, accepted) in [("/ws", Some("bearer")), ("/chat", Some("chat")), ("/", None)] {
        let headers = [("upgrade", "websocket".to_owned()), ("sec-websocket-protocol", format!("bearer, {good}"))];
        let response = ask(&layer, "GET", uri, &headers).await;
        let protocols: Vec<_> = response.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().collect();
        assert_eq!(protocols, Vec::from_iter(accepted), "{uri}");
    }
}

#[test]
fn sources_that_cannot_work_are_refused() {
    assert!(TokenSource::header("Authorization").is_err());
    assert!(TokenSource::header("no header").is_err());
    for origin in ["https://app.example/", "https://App.example", "app.example", "https://app.example:443", "null", ""]
    {
        assert!(TokenSource::cookie("a", [origin]).is_err(), "{origin}");
    }
    assert!(TokenSource::cookie("a", ["https://app.example:8443", "http://localhost:3000"]).is_ok());
    for name in ["", "a b", "a,b", "ä"] {
        assert!(TokenSource::websocket_protocol(name).is_err(), "{name}");
    }
}
