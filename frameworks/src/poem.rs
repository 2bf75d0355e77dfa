//! poem: a middleware for `EndpointExt::around`. Handlers receive `Data<&AccessToken>`.

use std::sync::Arc;

use poem::{Endpoint, IntoResponse as _, Request, Response, Result};
use portcullis::{ProtectLayer, Rejection};

/// For `.around(move |endpoint, request| protect(layer.clone(), endpoint, request))`.
pub async fn protect<E: Endpoint>(
    layer: ProtectLayer,
    endpoint: Arc<E>,
    mut request: Request,
) -> Result<Response> {
    let head = parts(&request)?;
    match layer.verify_request(&head).await {
        Ok(Some(token)) => {
            request.set_data(token);
        }
        // The layer lets requests without a token through.
        Ok(None) => {}
        Err(rejection) => return Ok(response(rejection)),
    }
    let mut response = endpoint.call(request).await?.into_response();
    response.headers_mut().extend(layer.response_headers(&head));
    Ok(response)
}

fn parts(request: &Request) -> Result<http::request::Parts> {
    let mut copy = http::Request::builder()
        .method(request.method())
        .uri(request.uri())
        .version(request.version())
        .body(())
        .map_err(poem::error::BadRequest)?;
    *copy.headers_mut() = request.headers().clone();
    Ok(copy.into_parts().0)
}

/// The response of a rejection, also for errors of handlers (`ProtectLayer::rejection`).
pub fn response(rejection: Rejection) -> Response {
    let (head, body) = rejection.into_response::<String>().into_parts();
    let mut response = Response::builder().status(head.status).body(body);
    response.headers_mut().extend(head.headers);
    response
}
