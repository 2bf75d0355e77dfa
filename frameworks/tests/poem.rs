mod support;

use poem::test::TestClient;
use poem::web::Data;
use poem::{EndpointExt as _, Route, get, handler};
use portcullis::AccessToken;
use portcullis_frameworks::poem::protect;

#[handler]
fn orders(token: Data<&AccessToken>) -> String {
    format!("orders of {}", token.subject().unwrap_or("unknown"))
}

#[tokio::test]
async fn requests_are_answered_as_by_the_layer() {
    let (layer, cases) = support::api();
    let route =
        get(orders).around(move |endpoint, request| protect(layer.clone(), endpoint, request));
    let client = TestClient::new(Route::new().at("/orders", route));
    for case in cases {
        let mut request = client.get("/orders");
        for (name, value) in &case.headers {
            request = request.header(*name, value);
        }
        let response = request.send().await.0;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let header = |name: &str| Some(headers.get(name)?.to_str().unwrap().to_owned());
        let body = response.into_body().into_string().await.unwrap();
        case.check(status, header, &body);
    }
}
