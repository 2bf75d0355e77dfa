//! actix-web: a middleware function. Handlers receive `web::ReqData<AccessToken>`.

use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _, HttpResponse, HttpResponseBuilder, error, web};
use portcullis::{ProtectLayer, Rejection};

/// For `.wrap(middleware::from_fn(protect))`, with the layer in `.app_data(web::Data::new(layer))`.
pub async fn protect<B: MessageBody>(
    layer: web::Data<ProtectLayer>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B, BoxBody>>, Error> {
    let head = parts(&request)?;
    match layer.verify_request(&head).await {
        Ok(Some(token)) => {
            request.extensions_mut().insert(token);
        }
        // The layer lets requests without a token through.
        Ok(None) => {}
        Err(rejection) => {
            return Ok(request.into_response(response(rejection)).map_into_right_body());
        }
    }
    let mut answered = next.call(request).await?;
    for (name, value) in &layer.response_headers(&head) {
        answered.response_mut().headers_mut().insert(
            HeaderName::try_from(name.as_str()).map_err(error::ErrorInternalServerError)?,
            HeaderValue::from_bytes(value.as_bytes()).map_err(error::ErrorInternalServerError)?,
        );
    }
    Ok(answered.map_into_left_body())
}

/// actix-web uses version 0.2 of the crate `http`, so the head of the request is copied.
fn parts(request: &ServiceRequest) -> Result<http::request::Parts, Error> {
    let mut copy =
        http::Request::builder().method(request.method().as_str()).uri(request.uri().to_string());
    for (name, value) in request.headers() {
        copy = copy.header(name.as_str(), value.as_bytes());
    }
    let copy = copy.body(()).map_err(error::ErrorBadRequest)?;
    Ok(copy.into_parts().0)
}

/// The response of a rejection, also for errors of handlers (`ProtectLayer::rejection`).
pub fn response(rejection: Rejection) -> HttpResponse {
    let (head, body) = rejection.into_response::<String>().into_parts();
    let status = actix_web::http::StatusCode::from_u16(head.status.as_u16());
    let mut response =
        HttpResponseBuilder::new(status.unwrap_or(actix_web::http::StatusCode::UNAUTHORIZED));
    for (name, value) in &head.headers {
        response.append_header((name.as_str(), value.as_bytes()));
    }
    response.body(body)
}
