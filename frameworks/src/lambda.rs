//! AWS Lambda behind an API Gateway, an ALB or a function URL: a wrapper of the handler.
//!
//! Build the verifier once, outside the handler, with `Issuer::seed`: a new process then verifies
//! its first token without waiting for the issuer.

use std::future::Future;

use lambda_http::{Body, Error, Request, Response};
use portcullis::ProtectLayer;

/// For `run(service_fn(|request| protect(&layer, request, handler)))`. The handler finds the token
/// in the request's extensions.
pub async fn protect<F>(
    layer: &ProtectLayer,
    request: Request,
    handler: impl FnOnce(Request) -> F,
) -> Result<Response<Body>, Error>
where
    F: Future<Output = Result<Response<Body>, Error>>,
{
    let (mut parts, body) = request.into_parts();
    match layer.verify_request(&parts).await {
        Ok(Some(token)) => {
            parts.extensions.insert(token);
        }
        // The layer lets requests without a token through.
        Ok(None) => {}
        Err(rejection) => return Ok(rejection.into_response::<String>().map(Body::from)),
    }
    let headers = layer.response_headers(&parts);
    let mut response = handler(Request::from_parts(parts, body)).await?;
    response.headers_mut().extend(headers);
    Ok(response)
}
