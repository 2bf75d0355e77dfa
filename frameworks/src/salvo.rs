//! salvo: a hoop. Handlers find the token with `depot.get_typed::<AccessToken>()`.

use portcullis::ProtectLayer;
use salvo::{Depot, FlowCtrl, Handler, Request, Response, async_trait};

/// For `Router::new().hoop(Protect(layer))`.
#[derive(Clone, Debug)]
pub struct Protect(pub ProtectLayer);

#[async_trait]
impl Handler for Protect {
    async fn handle(
        &self,
        request: &mut Request,
        depot: &mut Depot,
        response: &mut Response,
        flow: &mut FlowCtrl,
    ) {
        let head = parts(request);
        match self.0.verify_request(&head).await {
            Ok(Some(token)) => {
                depot.insert_typed(token);
            }
            // The layer lets requests without a token through.
            Ok(None) => {}
            Err(rejection) => {
                let (head, body) = rejection.into_response::<String>().into_parts();
                response.status_code(head.status);
                response.headers_mut().extend(head.headers);
                response.body(body);
                flow.skip_rest();
                return;
            }
        }
        response.headers_mut().extend(self.0.response_headers(&head));
    }
}

fn parts(request: &Request) -> http::request::Parts {
    let mut copy = http::Request::new(());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy.into_parts().0
}
