//! RFC 6750 §2: where a request has its token.

use std::fmt::Display;

use http::{HeaderName, HeaderValue};
use url::Url;

use crate::error::ConfigError;

/// Where a request may have its access token; for [`ProtectLayer::token_from`](crate::ProtectLayer::token_from).
///
/// ```
/// use portcullis::TokenSource;
///
/// let sources = [
///     TokenSource::authorization(),
///     TokenSource::cookie("__session", ["https://app.example.com"])?,
///     TokenSource::websocket_protocol("bearer")?,
/// ];
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TokenSource(pub(crate) Place);

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Place {
    Authorization,
    Header { name: HeaderName, origins: Vec<String> },
    Cookie { name: String, origins: Vec<String> },
    WebSocketProtocol(HeaderValue),
    Query(String),
}

impl TokenSource {
    /// `Authorization: Bearer …` (RFC 6750 §2.1): the default, and for most APIs the only one.
    pub fn authorization() -> Self {
        Self(Place::Authorization)
    }

    /// A header that has the token and nothing else, as a gateway in front sets it: `Cf-Access-Jwt-Assertion`,
    /// `x-goog-iap-jwt-assertion`.
    ///
    /// Gateways set it by the browser's cookie, which is sent with whatever request any page makes: one that the browser calls
    /// cross-site (`Sec-Fetch-Site`) is refused, unless its `Origin` is one of [`from_origins`](Self::from_origins).
    ///
    /// # Errors
    ///
    /// When `name` is no header's name, or `Authorization`, which has a scheme.
    pub fn header<N>(name: N) -> Result<Self, ConfigError>
    where
        N: TryInto<HeaderName>,
        N::Error: Display,
    {
        match name.try_into() {
            Ok(http::header::AUTHORIZATION) => {
                Err(ConfigError::new("token source header `Authorization`: expected `TokenSource::authorization()`"))
            }
            Ok(name) => Ok(Self(Place::Header { name, origins: Vec::new() })),
            Err(error) => Err(ConfigError::new(format!("token source: expected a header's name: {error}"))),
        }
    }

    /// A cookie. A browser sends it with whatever request any page makes, so a request's `Origin` must be one of these
    /// (`https://app.example.com`). GET, HEAD and OPTIONS may come without `Origin`, unless the browser calls them cross-site
    /// (`Sec-Fetch-Site`); websockets may not. List the API's own origin too: browsers send it with POST. A name that begins with
    /// `__Host-` keeps subdomains from setting it.
    ///
    /// # Errors
    ///
    /// When one is no origin as browsers send it: scheme, host in lower case, a port that is not the scheme's, no slash.
    pub fn cookie<T: Into<String>>(
        name: impl Into<String>,
        origins: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigError> {
        Self(Place::Cookie { name: name.into(), origins: Vec::new() }).from_origins(origins)
    }

    /// The origins whose pages may use a token from a [`cookie`](Self::cookie) or a gateway's [`header`](Self::header); of no
    /// meaning for the others.
    ///
    /// # Errors
    ///
    /// As [`cookie`](Self::cookie).
    pub fn from_origins<T: Into<String>>(mut self, own: impl IntoIterator<Item = T>) -> Result<Self, ConfigError> {
        let own: Vec<String> = own.into_iter().map(Into::into).collect();
        let is_origin = |text: &String| Url::parse(text).is_ok_and(|url| url.origin().ascii_serialization() == *text);
        if let Some(odd) = own.iter().find(|text| !is_origin(text)) {
            return Err(ConfigError::new(format!("origin {odd:?}: expected one as `https://app.example.com`")));
        }
        if let Place::Header { origins, .. } | Place::Cookie { origins, .. } = &mut self.0 {
            *origins = own;
        }
        Ok(self)
    }

    /// `Sec-WebSocket-Protocol: bearer, <token>`, since a browser's websocket sends no `Authorization`:
    /// `new WebSocket(url, ["bearer", token])`. The protocol (`bearer`, or whatever name is given here) is accepted in the
    /// answer, unless the service accepts another one.
    ///
    /// # Errors
    ///
    /// When `name` is no subprotocol's name (RFC 6455 §4.1).
    pub fn websocket_protocol(name: &str) -> Result<Self, ConfigError> {
        let is_token = !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte));
        match HeaderValue::from_str(name) {
            Ok(name) if is_token => Ok(Self(Place::WebSocketProtocol(name))),
            _ => Err(ConfigError::new(format!("token source: expected a websocket subprotocol's name, {name:?} came"))),
        }
    }

    /// A query parameter (RFC 6750 §2.3). Dangerous: addresses end up in logs, histories and `Referer` headers, and the token
    /// with them (OAuth 2.1 §5.1 forbids it). Answers to such requests get `Cache-Control: no-store`.
    pub fn danger_query(name: impl Into<String>) -> Self {
        Self(Place::Query(name.into()))
    }
}
