//! [`ResponseEffects`]: what a request leaves to its response.

use http::header::{
    CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL,
    WWW_AUTHENTICATE,
};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};

use crate::binding::Scheme;
use crate::token_source::TokenLocation;

const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// Response headers that scripts of other origins may read only if CORS exposes them: the challenge
/// (RFC 6750 §3), the nonce for the next DPoP proof (RFC 9449 §8.2), and when to try again.
///
/// The layer does not expose them itself, because the origins are the application's decision.
///
/// ```
/// use portcullis::EXPOSED_HEADERS;
/// use tower_http::cors::CorsLayer;
///
/// let cors = CorsLayer::new().expose_headers(EXPOSED_HEADERS);
/// ```
pub const EXPOSED_HEADERS: [HeaderName; 3] = [WWW_AUTHENTICATE, DPOP_NONCE, RETRY_AFTER];

/// What is added to the response, and what is needed to build it if a handler or an extractor
/// rejects the request.
#[derive(Default)]
pub(crate) struct ResponseEffects {
    /// The scheme that the token was sent with, which challenges name first. `Bearer` if the
    /// verifier has no DPoP.
    pub(super) scheme: Scheme,
    /// `None` for most requests.
    pub(super) extra: Option<Box<Extra>>,
}

#[derive(Default)]
pub(crate) struct Extra {
    /// The token was in the query (RFC 6750 §2.3).
    no_store: bool,
    /// The nonce for the client's next DPoP proof (RFC 9449 §8.2).
    nonce: Option<HeaderValue>,
    /// The subprotocol that carried the token, which the response accepts (RFC 6455 §4.2.2).
    protocol: Option<HeaderValue>,
    /// The websocket is opened over HTTP/2 (RFC 8441 §4), where any 2xx status accepts it.
    is_connect: bool,
    /// A copy of the request, if building a rejection reads it.
    pub(super) request: Option<Parts>,
}

impl ResponseEffects {
    pub(super) fn of(location: &TokenLocation, method: &Method) -> Self {
        let is_connect = method == Method::CONNECT;
        match location {
            TokenLocation::Query(_) => Self::no_store(),
            TokenLocation::WebSocketProtocol(name) => {
                Self::with(Extra { protocol: Some(name.clone()), is_connect, ..Extra::default() })
            }
            TokenLocation::Authorization
            | TokenLocation::Header { .. }
            | TokenLocation::ApiKeyHeader(_)
            | TokenLocation::Cookie { .. } => Self::default(),
        }
    }

    pub(super) fn no_store() -> Self {
        Self::with(Extra { no_store: true, ..Extra::default() })
    }

    fn with(extra: Extra) -> Self {
        Self { scheme: Scheme::Bearer, extra: Some(Box::new(extra)) }
    }

    /// Hands out a nonce.
    pub(super) fn hand_out(&mut self, nonce: HeaderValue) {
        self.extra.get_or_insert_default().nonce = Some(nonce);
    }

    /// Keeps a copy of the request for building a rejection.
    pub(crate) fn keep(&mut self, request: Parts) {
        self.extra.get_or_insert_default().request = Some(request);
    }

    pub(crate) fn add_to<R>(self, response: &mut Response<R>) {
        let Some(mut extra) = self.extra else { return };
        extra.add_headers(response.headers_mut());
        if let Some(protocol) = extra.protocol
            && (response.status() == StatusCode::SWITCHING_PROTOCOLS
                || extra.is_connect && response.status().is_success())
        {
            // Unless the service has accepted another subprotocol.
            response.headers_mut().entry(SEC_WEBSOCKET_PROTOCOL).or_insert(protocol);
        }
    }
}

impl Extra {
    /// Adds the headers that do not depend on the response.
    pub(super) fn add_headers(&mut self, headers: &mut HeaderMap) {
        // A stored nonce would be too old for the next client.
        if self.no_store || self.nonce.is_some() {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if let Some(nonce) = self.nonce.take() {
            headers.insert(DPOP_NONCE, nonce);
        }
    }
}

/// Copies the head of the request without its extensions, which belong to the inner service.
pub(crate) fn copy(request: &Parts) -> Parts {
    let mut copy = Request::new(()).into_parts().0;
    copy.method.clone_from(&request.method);
    copy.uri.clone_from(&request.uri);
    copy.version = request.version;
    copy.headers.clone_from(&request.headers);
    copy
}
