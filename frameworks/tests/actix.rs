mod support;

use actix_web::middleware::from_fn;
use actix_web::{App, test, web};
use portcullis::AccessToken;
use portcullis_frameworks::actix::protect;

async fn orders(token: web::ReqData<AccessToken>) -> String {
    format!("orders of {}", token.subject().unwrap_or("unknown"))
}

#[actix_web::test]
async fn requests_are_answered_as_by_the_layer() {
    let (layer, cases) = support::api();
    let orders = web::resource("/orders").wrap(from_fn(protect)).to(orders);
    let app = App::new().app_data(web::Data::new(layer)).service(orders);
    let app = test::init_service(app).await;
    for case in cases {
        let mut request = test::TestRequest::get().uri("/orders");
        for (name, value) in &case.headers {
            request = request.insert_header((*name, value.as_str()));
        }
        let response = test::call_service(&app, request.to_request()).await;
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let header = |name: &str| Some(headers.get(name)?.to_str().unwrap().to_owned());
        let body = test::read_body(response).await;
        case.check(status, header, &String::from_utf8_lossy(&body));
    }
}
