//! tonic: an interceptor. It cannot wait, so keys are loaded before the server starts, with
//! `Verifier::warm_up`. Where it would have to wait, it answers `UNAVAILABLE`, and clients try
//! again.
//!
//! It does not know which method is called, so it cannot verify DPoP proofs.
//!
//! `ProtectLayer` is a tower layer that waits, for `Server::builder().layer(protect)`: prefer it
//! where a layer is possible (`examples/tonic.rs` of portcullis).

use portcullis::ProtectLayer;
use tonic::metadata::MetadataMap;
use tonic::service::Interceptor;
use tonic::{Code, Request, Status};

/// For `GreeterServer::with_interceptor(greeter, Protect(layer))`. Methods find the token in the
/// request's extensions.
#[derive(Clone, Debug)]
pub struct Protect(pub ProtectLayer);

impl Interceptor for Protect {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let mut copy = http::Request::new(());
        *copy.method_mut() = http::Method::POST;
        *copy.version_mut() = http::Version::HTTP_2;
        *copy.headers_mut() = request.metadata().clone().into_headers();
        let (parts, ()) = copy.into_parts();
        match self.0.try_verify_request(&parts) {
            Some(Ok(Some(token))) => {
                request.extensions_mut().insert(token);
                Ok(request)
            }
            // The layer lets requests without a token through.
            Some(Ok(None)) => Ok(request),
            Some(Err(rejection)) => {
                let code = Code::from_i32(rejection.grpc_code());
                let mut metadata = MetadataMap::from_headers(rejection.headers().clone());
                for name in ["content-type", "grpc-status", "grpc-message"] {
                    metadata.remove(name);
                }
                Err(Status::with_metadata(code, rejection.message(), metadata))
            }
            None => Err(Status::unavailable("the access token cannot be verified now")),
        }
    }
}
