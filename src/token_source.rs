//! RFC 6750 §2: where a request has its token.

use std::fmt::Display;

use http::{HeaderName, HeaderValue};
use url::Url;

use crate::error::ConfigError;

/// Where a request may have its access token; for [`ProtectLayer::token_sources`](crate::ProtectLayer::token_sources).
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
#[must_use]
pub struct TokenSource(pub(crate) TokenLocation);

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TokenLocation {
    Authorization,
    Header { name: HeaderName, allowed: AllowedOrigins },
    Cookie { name: String, allowed: AllowedOrigins },
    WebSocketProtocol(HeaderValue),
    Query(String),
}

/// Whose requests may use a token that a browser sends by itself, beside the API's own pages.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct AllowedOrigins {
    listed: Vec<String>,
    /// Clients that are no browsers, which send neither `Origin` nor `Sec-Fetch-*`.
    pub(crate) non_browsers: bool,
}

impl AllowedOrigins {
    pub(crate) fn lists(&self, origin: &HeaderValue) -> bool {
        self.listed.iter().any(|listed| listed.as_bytes() == origin.as_bytes())
    }
}

impl TokenSource {
    /// `Authorization: Bearer …` (RFC 6750 §2.1): the default, and for most APIs the only one.
    pub fn authorization() -> Self {
        Self(TokenLocation::Authorization)
    }

    /// A header that carries the token and nothing else, as a gateway in front sets it: `Cf-Access-Jwt-Assertion`,
    /// `x-goog-iap-jwt-assertion`.
    ///
    /// A gateway sets it because of a cookie, and a browser sends cookies with requests that any page makes. So the same
    /// rule holds as for a [`cookie`](Self::cookie): requests of the API's own origin pass, and navigations to it; unsafe
    /// methods, websockets and requests of other pages need an `Origin` that is listed in
    /// [`from_origins`](Self::from_origins). Machines behind the gateway send no `Origin`:
    /// [`allow_non_browsers`](Self::allow_non_browsers) lets them use unsafe methods.
    ///
    /// # Errors
    ///
    /// Returns an error if `name` is not a header name, or if it is `Authorization`, which has a scheme.
    pub fn header<N>(name: N) -> Result<Self, ConfigError>
    where
        N: TryInto<HeaderName>,
        N::Error: Display,
    {
        match name.try_into() {
            Ok(http::header::AUTHORIZATION) => Err(ConfigError::new(
                "token source header `Authorization`: expected `TokenSource::authorization()`",
            )),
            Ok(name) => {
                Ok(Self(TokenLocation::Header { name, allowed: AllowedOrigins::default() }))
            }
            Err(error) => {
                Err(ConfigError::new(format!("token source: expected a header's name: {error}")))
            }
        }
    }

    /// A cookie. A browser sends it with requests that any page makes, so not every request may use it:
    ///
    /// - Requests of the API's own origin and of `origins` (`https://app.example.com`) may, whatever they do.
    /// - GET, HEAD and OPTIONS may without `Origin`, unless the browser says that a page of a sibling subdomain or of
    ///   another site makes them (`Sec-Fetch-Site`).
    /// - A navigation of the whole window may (the page after a sign-in, a link in a mail), from wherever it comes.
    /// - Unsafe methods and websockets may not without `Origin`, and nothing may with another one.
    ///
    /// What may not is answered 400, or, with [`optional`](crate::ProtectLayer::allow_anonymous), treated as without a token. The
    /// API's own origin is that of the `Host` header (over `http` on loopback only), or what the browser calls
    /// `same-origin`: list it if a proxy rewrites `Host` and the API has websockets. A name that begins with `__Host-` keeps
    /// subdomains from setting the cookie.
    ///
    /// # Errors
    ///
    /// Returns an error if an origin is not one as browsers send it: scheme, host in lower case, a port that is not the
    /// scheme's, no slash.
    pub fn cookie<T: Into<String>>(
        name: impl Into<String>,
        origins: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigError> {
        Self(TokenLocation::Cookie { name: name.into(), allowed: AllowedOrigins::default() })
            .from_origins(origins)
    }

    /// Other origins whose pages may use a token from a [`cookie`](Self::cookie) or a gateway's [`header`](Self::header).
    ///
    /// # Errors
    ///
    /// Returns an error if an origin is not one as browsers send it (see [`cookie`](Self::cookie)), or if this is neither a
    /// cookie nor a header.
    pub fn from_origins<T: Into<String>>(
        mut self,
        origins: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigError> {
        let origins: Vec<String> = origins.into_iter().map(Into::into).collect();
        let is_origin = |text: &String| {
            Url::parse(text).is_ok_and(|url| url.origin().ascii_serialization() == *text)
        };
        if let Some(odd) = origins.iter().find(|text| !is_origin(text)) {
            return Err(ConfigError::new(format!(
                "origin {odd:?}: expected one as `https://app.example.com`"
            )));
        }
        self.allowed("from_origins")?.listed = origins;
        Ok(self)
    }

    /// Lets clients that are no browsers use a [`cookie`](Self::cookie) or a gateway's [`header`](Self::header) with any
    /// method: requests with neither `Origin` nor a `Sec-Fetch-*` header. Every current browser sends one of them with
    /// unsafe methods and websockets. For machines behind a gateway, such as those with a Cloudflare service token.
    ///
    /// ```
    /// use portcullis::TokenSource;
    ///
    /// let source = TokenSource::header("cf-access-jwt-assertion")?.allow_non_browsers()?;
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if this is neither a cookie nor a header.
    pub fn allow_non_browsers(mut self) -> Result<Self, ConfigError> {
        self.allowed("allow_non_browsers")?.non_browsers = true;
        Ok(self)
    }

    fn allowed(&mut self, method: &str) -> Result<&mut AllowedOrigins, ConfigError> {
        match &mut self.0 {
            TokenLocation::Header { allowed, .. } | TokenLocation::Cookie { allowed, .. } => {
                Ok(allowed)
            }
            other => Err(ConfigError::new(format!(
                "{method}: expected a cookie or a header, found {other:?}"
            ))),
        }
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
            && name
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte));
        match HeaderValue::from_str(name) {
            Ok(name) if is_token => Ok(Self(TokenLocation::WebSocketProtocol(name))),
            _ => Err(ConfigError::new(format!(
                "token source: expected a websocket subprotocol's name, {name:?} came"
            ))),
        }
    }

    /// A query parameter (RFC 6750 §2.3). Dangerous: addresses end up in logs, histories and `Referer` headers, and the token
    /// with them (OAuth 2.1 §5.1 forbids it). Answers to such requests get `Cache-Control: no-store`.
    pub fn danger_query(name: impl Into<String>) -> Self {
        Self(TokenLocation::Query(name.into()))
    }
}
