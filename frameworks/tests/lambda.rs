mod support;

use lambda_http::{Body, Request, Response};
use portcullis::AccessToken;
use portcullis_frameworks::lambda::protect;

async fn orders(request: Request) -> Result<Response<Body>, lambda_http::Error> {
    let token = request.extensions().get::<AccessToken>();
    let subject = token.and_then(AccessToken::subject).unwrap_or("unknown");
    Ok(Response::new(format!("orders of {subject}").into()))
}

#[tokio::test]
async fn requests_are_answered_as_by_the_layer() {
    let (layer, cases) = support::api();
    for case in cases {
        let mut request = http::Request::get("/orders");
        for (name, value) in &case.headers {
            request = request.header(*name, value);
        }
        let request = request.body(Body::Empty).unwrap();
        let response = protect(&layer, request, orders).await.unwrap();
        let header = |name: &str| Some(response.headers().get(name)?.to_str().unwrap().to_owned());
        let body = String::from_utf8_lossy(response.body());
        case.check(response.status().as_u16(), header, &body);
    }
}
