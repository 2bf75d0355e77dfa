//! Routers that shorten the path, layers within layers, and checks outside tower.

use axum::Router;
use axum::extract::OriginalUri;
use axum::routing::get;

use super::*;

async fn status(app: Router, request: Request<Body>) -> StatusCode {
    app.oneshot(request).await.unwrap().status()
}

/// A request for `/v1/orders`, as its client wrote it.
fn versioned(api: &Api, token: &str) -> Request<Body> {
    let url = "https://api.example.com/v1/orders";
    let proof = api.client.proof("GET", url, token).at(api.clock.now()).build();
    let request = Request::get("/v1/orders").header("authorization", format!("DPoP {token}"));
    request.header("dpop", proof).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn a_nested_router_knows_the_url_of_the_client() {
    let api = api(|dpop| dpop);
    let token = api.token();
    let routes = || Router::new().route("/orders", get(async || ""));
    let with = |dpop: Dpop| layer(&api.issuer, &api.clock, dpop);
    let plain = || Dpop::new("https://api.example.com").unwrap();
    let outside = Router::new().nest("/v1", routes()).layer(with(plain()));
    let inside = |dpop: Dpop| Router::new().nest("/v1", routes().layer(with(dpop)));
    let original = plain().path_from(|request| {
        let original = request.extensions.get::<OriginalUri>()?;
        Some(original.path().into())
    });
    for (name, app, expected) in [
        ("layer outside", outside, StatusCode::OK),
        ("layer inside", inside(plain()), StatusCode::UNAUTHORIZED),
        (
            "layer inside, with the prefix in the URL",
            inside(Dpop::new("https://api.example.com/v1").unwrap()),
            StatusCode::OK,
        ),
        ("layer inside, with the original path", inside(original), StatusCode::OK),
    ] {
        assert_eq!(status(app, versioned(&api, &token)).await, expected, "{name}");
    }
}

#[tokio::test]
async fn nested_layers_use_a_proof_once() {
    let api = api(|dpop| dpop);
    let token = api.token();
    let handler = async |token: AccessToken| token.dpop_proof().is_some().to_string();
    let inner = Router::new().route("/orders", get(handler)).layer(api.layer.clone());
    let app = Router::new().nest("/v1", inner).layer(api.layer.clone());
    let first = versioned(&api, &token);
    let again = first.headers().clone();
    assert_eq!(status(app.clone(), first).await, StatusCode::OK);
    let mut replayed = versioned(&api, &token);
    *replayed.headers_mut() = again;
    assert_eq!(status(app, replayed).await, StatusCode::UNAUTHORIZED);
}

/// What a service between two layers does to a request.
type Change = fn(&mut Request<Body>);

#[tokio::test]
async fn an_inner_layer_notices_another_proof_or_method() {
    let api = api(|dpop| dpop);
    let token = api.token();
    let changes: [(&str, Change, StatusCode); 7] = [
        ("nothing", |_| {}, StatusCode::OK),
        (
            "the beginning of the path",
            |request| *request.uri_mut() = "/".parse().unwrap(),
            StatusCode::OK,
        ),
        (
            "the path",
            |request| *request.uri_mut() = "/other".parse().unwrap(),
            StatusCode::UNAUTHORIZED,
        ),
        (
            "the scheme",
            |request| {
                let credentials = request.headers()["authorization"].to_str().unwrap();
                let bearer = credentials.replace("DPoP", "Bearer").parse().unwrap();
                request.headers_mut().insert("authorization", bearer);
            },
            StatusCode::UNAUTHORIZED,
        ),
        (
            "the method",
            |request| *request.method_mut() = http::Method::DELETE,
            StatusCode::UNAUTHORIZED,
        ),
        (
            "the proof",
            |request| {
                request.headers_mut().insert("dpop", "x".parse().unwrap());
            },
            StatusCode::UNAUTHORIZED,
        ),
        (
            "a second proof",
            |request| {
                request.headers_mut().append("dpop", "x".parse().unwrap());
            },
            StatusCode::UNAUTHORIZED,
        ),
    ];
    for (name, change, expected) in changes {
        let innermost =
            service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty())));
        let inner = api.layer.layer(innermost);
        let between = service_fn(move |mut request: Request<Body>| {
            change(&mut request);
            inner.clone().oneshot(request)
        });
        let request = request("DPoP", &token, &[&api.proof(&token).build()]);
        let response = api.layer.layer(between).oneshot(request).await.unwrap();
        assert_eq!(response.status(), expected, "{name}");
    }
}

#[tokio::test]
async fn a_kept_token_is_no_proof_for_another_request() {
    let api = api(|dpop| dpop);
    let token = api.issuer.token().scope("orders:read").valid_for(Duration::from_secs(7200));
    let token = token.bound_to(&api.client).build();
    let proof = api.proof(&token).build();
    let (parts, _) = request("DPoP", &token, &[&proof]).into_parts();
    let kept = api.layer.verify_request(&parts).await.unwrap().unwrap();
    for (name, uri, scheme, later, expected) in [
        ("behind a check outside tower", "/orders", "DPoP", 0, None),
        ("after a long queue", "/orders", "DPoP", 300, None),
        ("another path", "/admin", "DPoP", 0, Some("proof_wrong_url")),
        ("as a bearer token", "/orders", "Bearer", 0, Some("sender_constrained")),
        ("later", "/orders", "DPoP", 1, Some("proof_wrong_time")),
    ] {
        api.clock.advance(Duration::from_secs(later));
        let mut again = request(scheme, &token, &[&proof]);
        *again.uri_mut() = uri.parse().unwrap();
        again.extensions_mut().insert(kept.clone());
        assert_eq!(api.call(again).await.1, expected, "{name}");
    }
}

#[tokio::test]
async fn a_check_outside_tower_hands_out_the_nonce_and_serves_an_inner_layer() {
    let api = api(|dpop| dpop.nonces(Nonces::new([[7; 32]]).unwrap()));
    let token = api.token();
    let head = |proof: &str| request("DPoP", &token, &[proof]).into_parts().0;

    let without = head(&api.proof(&token).build());
    let rejection = api.layer.verify_request(&without).await.unwrap_err();
    assert_eq!(rejection.error().oauth_error(), Some("use_dpop_nonce"));
    let nonce = rejection.headers()["dpop-nonce"].to_str().unwrap().to_owned();

    let mut accepted = head(&api.proof(&token).nonce(&nonce).build());
    let verified = api.layer.verify_request(&accepted).await.unwrap().unwrap();
    assert!(api.layer.response_headers(&accepted).is_empty(), "the nonce is the current one");
    accepted.extensions.insert(verified);
    let inner =
        service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty())));
    let inner = api.layer.layer(inner);
    let behind = inner.clone().oneshot(Request::from_parts(accepted.clone(), Body::empty()));
    assert_eq!(behind.await.unwrap().status(), StatusCode::OK);
    accepted.extensions.clear();
    let again = inner.oneshot(Request::from_parts(accepted, Body::empty()));
    assert_eq!(again.await.unwrap().status(), StatusCode::UNAUTHORIZED);

    api.clock.advance(Duration::from_secs(60));
    let later = head(&api.proof(&token).nonce(&nonce).build());
    assert!(api.layer.verify_request(&later).await.is_ok());
    let headers = api.layer.response_headers(&later);
    assert_ne!(headers["dpop-nonce"], *nonce);
    assert_eq!(headers["cache-control"], "no-store");
    let of_a_handler = api.layer.rejection(Error::Missing, &later);
    assert!(of_a_handler.headers().contains_key("dpop-nonce"));
}

#[tokio::test]
async fn the_host_of_the_request_does_not_count() {
    let api = api(|dpop| dpop);
    let token = api.token();
    let proof = |host: &str| {
        let url = format!("https://{host}/orders");
        api.client.proof("GET", &url, &token).at(api.clock.now()).build()
    };
    for (name, uri, host, expected) in [
        ("own host", "/orders", "api.example.com", "ok"),
        ("another API's proof and host", "/orders", "other.example", "proof_wrong_url"),
        (
            "the same in absolute form",
            "https://other.example/orders",
            "other.example",
            "proof_wrong_url",
        ),
        ("authority form", "other.example:443", "other.example", "proof_wrong_url"),
    ] {
        let mut request = request("DPoP", &token, &[&proof(host)]);
        *request.uri_mut() = uri.parse().unwrap();
        for name in ["host", "x-forwarded-host", "forwarded"] {
            request.headers_mut().append(name, host.parse().unwrap());
        }
        assert_eq!(api.call(request).await.1.unwrap_or("ok"), expected, "{name}");
    }
}

/// CONNECT to another server has no path (RFC 9110 §7.1).
#[tokio::test]
async fn no_url_fits_a_request_without_a_path() {
    let api = api(|dpop| dpop);
    let token = api.token();
    for htu in ["https://api.example.com", "https://api.example.com/", "https://other.example:443"]
    {
        let proof = api.client.proof("CONNECT", htu, &token).at(api.clock.now()).build();
        let mut request = request("DPoP", &token, &[&proof]);
        *request.method_mut() = http::Method::CONNECT;
        *request.uri_mut() = "other.example:443".parse().unwrap();
        assert_eq!(api.call(request).await.1, Some("proof_wrong_url"), "{htu}");
    }
}
