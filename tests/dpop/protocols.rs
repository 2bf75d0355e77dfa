//! DPoP with gRPC, MCP and anonymous requests.

use portcullis::mcp::McpLayer;

use super::*;

fn grpc(token: &str, proofs: &[&str]) -> Request<Body> {
    let request = Request::post("/orders.Orders/List")
        .version(http::Version::HTTP_2)
        .header("content-type", "application/grpc");
    let request = request.header("authorization", format!("DPoP {token}"));
    let request = proofs.iter().fold(request, |request, proof| request.header("dpop", *proof));
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn grpc_requests_are_rejected_as_grpc() {
    let nonces = || Nonces::new([[7; 32]]).unwrap();
    let (plain, with_nonces) =
        (api(|dpop| dpop.max_proofs_per_key(1).unwrap()), api(|dpop| dpop.nonces(nonces())));
    let url = "https://api.example.com/orders.Orders/List";
    let send = async |api: &Api, request: Request<Body>| {
        let inner =
            service_fn(async |_: Request<Body>| Ok::<_, Infallible>(Response::new(Body::empty())));
        let response = api.layer.layer(inner).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap());
        let status = header("grpc-status").map(str::to_owned);
        (status, header("dpop-nonce").is_some(), header("www-authenticate").is_some())
    };
    let status = |number: &str| Some(number.to_owned());
    let token = plain.token();
    let proof = || plain.client.proof("POST", url, &token).at(plain.clock.now()).build();
    assert_eq!(send(&plain, grpc(&token, &[])).await, (status("16"), false, true));
    assert_eq!(send(&plain, grpc(&token, &[&proof()])).await, (None, false, false));
    let many = grpc(&token, &[&proof()]);
    assert_eq!(send(&plain, many).await, (status("8"), false, false), "too many proofs");
    let token = with_nonces.token();
    let proof = with_nonces.client.proof("POST", url, &token).build();
    assert_eq!(send(&with_nonces, grpc(&token, &[&proof])).await, (status("16"), true, true));
}

#[tokio::test]
async fn an_mcp_server_hands_out_nonces_with_each_rejection() {
    let api = api(|dpop| dpop.nonces(Nonces::new([[7; 32]]).unwrap()));
    let layer = McpLayer::new(api.layer.clone()).unwrap();
    let token = api.token();
    let send = async |nonce: Option<&str>, body: &'static str| {
        let inner =
            service_fn(async |_: Request<_>| Ok::<_, Infallible>(Response::new(Body::empty())));
        let url = "https://api.example.com/mcp";
        let proof = api.client.proof("POST", url, &token).at(api.clock.now());
        let proof = nonce.into_iter().fold(proof, ProofBuilder::nonce).build();
        let request = Request::post("/mcp")
            .header("authorization", format!("DPoP {token}"))
            .header("content-type", "application/json")
            .header("dpop", proof)
            .body(Body::from(body))
            .unwrap();
        let response = layer.layer(inner).oneshot(request).await.unwrap();
        let nonce = response.headers().get("dpop-nonce");
        (response.status(), nonce.map(|nonce| nonce.to_str().unwrap().to_owned()))
    };
    const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let (status, nonce) = send(None, PING).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let nonce = nonce.unwrap();
    assert_eq!(send(Some(&nonce), PING).await, (StatusCode::OK, None));
    // A minute later, each response has the next one.
    api.clock.advance(Duration::from_secs(60));
    assert!(send(Some(&nonce), "not JSON").await.1.is_some());
    assert!(send(Some(&nonce), PING).await.1.is_some());
}

#[tokio::test]
async fn anonymous_requests_are_those_without_credentials() {
    let api = api(|dpop| dpop);
    let token = api.token();
    let bad = || request("DPoP", &token, &[]);
    let none = || Request::get("/orders").body(Body::empty()).unwrap();
    let good = || request("DPoP", &token, &[&api.proof(&token).build()]);
    let lenient = api.layer.clone().allow_anonymous();
    let ignoring = api.layer.clone().danger_ignore_invalid();
    for (name, layer, request, status, has_token) in [
        ("none", &lenient, none(), StatusCode::OK, false),
        ("no proof", &lenient, bad(), StatusCode::UNAUTHORIZED, false),
        ("a proof", &lenient, good(), StatusCode::OK, true),
        ("no proof, ignored", &ignoring, bad(), StatusCode::OK, false),
        ("a proof, not ignored", &ignoring, good(), StatusCode::OK, true),
    ] {
        let inner = service_fn(async |request: Request<Body>| {
            let has_token = request.extensions().get::<AccessToken>().is_some();
            Ok::<_, Infallible>(Response::new(Body::from(has_token.to_string())))
        });
        let response = layer.layer(inner).oneshot(request).await.unwrap();
        assert_eq!(response.status(), status, "{name}");
        let body = axum::body::to_bytes(response.into_body(), 100).await.unwrap();
        assert_eq!(body == "true", has_token, "{name}");
    }
}
