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
        for (name, value) in &case.headers {
            request = request.add_header(*name, value, true);
        }
        let mut response = request.send(&service).await;
        let status = response.status_code.unwrap().as_u16();
        let headers = response.headers().clone();
        let header = |name: &str| Some(headers.get(name)?.to_str().unwrap().to_owned());
        let body = response.take_string().await.unwrap_or_default();
        case.check(status, header, &body);
    }
}
