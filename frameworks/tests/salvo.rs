mod support;

use portcullis::AccessToken;
use portcullis_frameworks::salvo::Protect;
use salvo::prelude::*;
use salvo::test::{ResponseExt as _, TestClient};

#[handler]
async fn orders(depot: &mut Depot) -> String {
    let token = depot.get_typed::<AccessToken>().unwrap();
    format!("orders of {}", token.subject().unwrap_or("unknown"))
}

#[tokio::test]
async fn requests_are_answered_as_by_the_layer() {
    let (layer, cases) = support::api();
    let router = Router::with_path("orders").hoop(Protect(layer)).get(orders);
    let service = Service::new(router);
    for case in cases {
        let mut request = TestClient::get("http://127.0.0.1/orders");
        if let Some(authorization) = case.authorization() {
            request = request.add_header("authorization", authorization, true);
        }
        let mut response = request.send(&service).await;
        let status = response.status_code.unwrap().as_u16();
        let challenge = response.headers().get("www-authenticate").cloned();
        let challenge = challenge.as_ref().map(|value| value.to_str().unwrap());
        let body = response.take_string().await.unwrap_or_default();
        case.check(status, challenge, &body);
    }
}
