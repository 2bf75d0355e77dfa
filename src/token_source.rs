//! Where a request carries its access token (RFC 6750 §2).

use std::fmt::Display;

use http::{HeaderName, HeaderValue};
use url::Url;

use crate::error::ConfigError;

/// A location where a request may carry its access token (RFC 6750 §2), for
/// [`ProtectLayer::token_sources`](crate::ProtectLayer::token_sources).
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
    Header {
        name: HeaderName,
        allowed: AllowedOrigins,
    },
    Cookie {
        name: String,
        allowed: AllowedOrigins,
    },
    /// Only for API keys.
    ApiKeyHeader(HeaderName),
    WebSocketProtocol(HeaderValue),
    Query(String),
}

/// The requests that may use a token that a browser sends by itself, in addition to those of the
/// API's own pages.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct AllowedOrigins {
    listed: Vec<String>,
    /// Allows clients other than browsers, which send neither `Origin` nor `Sec-Fetch-*`.
    pub(crate) non_browsers: bool,
}

impl AllowedOrigins {
    pub(crate) fn lists(&self, origin: &HeaderValue) -> bool {
        self.listed.iter().any(|listed| listed.as_bytes() == origin.as_bytes())
    }
}

impl TokenSource {
    /// The header `Authorization: Bearer …` (RFC 6750 §2.1): the default, and the only location
    /// that most APIs need.
    pub fn authorization() -> Self {
        Self(TokenLocation::Authorization)
    }

    /// A header that carries only the token, as set by a gateway in front of the API:
    /// `Cf-Access-Jwt-Assertion`, `x-goog-iap-jwt-assertion`.
    ///
    /// A gateway sets it because of a cookie, and a browser sends cookies with requests that any
    /// page makes. The rule is therefore the same as for a [`cookie`](Self::cookie): requests of
    /// the API's own origin and navigations to it may use the token. Requests of other pages need
    /// an `Origin` that is listed in [`from_origins`](Self::from_origins). Unsafe methods and
    /// websockets always need an `Origin`. Machines behind the gateway send none:
    /// [`allow_non_browsers`](Self::allow_non_browsers) lets them use unsafe methods.
    ///
    /// # Errors
    ///
    /// Returns an error if `name` is not a valid header name, or if it is `Authorization`, whose
    /// value has a scheme.
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
                Err(ConfigError::new(format!("token source: expected a header name: {error}")))
            }
        }
    }

    /// A cookie (RFC 6265 §4.2.1). A browser sends it with requests that any page makes, so only
    /// some requests may use it:
    ///
    /// - Every request of the API's own origin or of one of `origins` (`https://app.example.com`).
    /// - GET, HEAD and OPTIONS without `Origin`, unless `Sec-Fetch-Site` reports a page of a
    ///   sibling subdomain or of another site.
    /// - Navigations of the whole window, from any page: the page after a sign-in, a link in a
    ///   mail.
    ///
    /// Unsafe methods and websockets without `Origin` may not use it, nor may any request with
    /// another `Origin`. Such a request is rejected with 400 or, with
    /// [`allow_anonymous`](crate::ProtectLayer::allow_anonymous), treated as a request without a
    /// token.
    ///
    /// The API's own origin is that of the `Host` header (with `http` on loopback only), or what
    /// the browser reports as `same-origin`. List it in `origins` if a proxy rewrites `Host` and
    /// the API has websockets. A name that starts with `__Host-` prevents subdomains from setting
    /// the cookie.
    ///
    /// # Errors
    ///
    /// Returns an error if an origin is not spelled as browsers send it: scheme, host in lowercase,
    /// port unless it is the default of the scheme, no trailing slash.
    pub fn cookie<T: Into<String>>(
        name: impl Into<String>,
        origins: impl IntoIterator<Item = T>,
    ) -> Result<Self, ConfigError> {
        Self(TokenLocation::Cookie { name: name.into(), allowed: AllowedOrigins::default() })
            .from_origins(origins)
    }

    /// Sets the other origins whose pages may use a token from a [`cookie`](Self::cookie) or a
    /// gateway's [`header`](Self::header).
    ///
    /// # Errors
    ///
    /// Returns an error if an origin is not spelled as browsers send it (see
    /// [`cookie`](Self::cookie)), or if this source is neither a cookie nor a header.
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
                "origin {odd:?}: expected an origin such as `https://app.example.com`"
            )));
        }
        self.allowed("from_origins")?.listed = origins;
        Ok(self)
    }

    /// Lets clients other than browsers use a [`cookie`](Self::cookie) or a gateway's
    /// [`header`](Self::header) with any method: requests with neither `Origin` nor a `Sec-Fetch-*`
    /// header. Every current browser sends one of them with unsafe methods and websockets. Use it
    /// for machines behind a gateway, such as those with a Cloudflare service token.
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
    /// Returns an error if this source is neither a cookie nor a header.
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

    /// The header `Sec-WebSocket-Protocol: bearer, <token>` (RFC 6455 §4.1), for browsers, which
    /// cannot send `Authorization` with a websocket: `new WebSocket(url, ["bearer", token])`.
    /// `name` is the subprotocol before the token, here `bearer`. The response accepts it, unless
    /// the service accepts another one.
    ///
    /// # Errors
    ///
    /// Returns an error if `name` is not a valid subprotocol name (RFC 6455 §4.1).
    pub fn websocket_protocol(name: &str) -> Result<Self, ConfigError> {
        let is_token = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte));
        match HeaderValue::from_str(name) {
            Ok(name) if is_token => Ok(Self(TokenLocation::WebSocketProtocol(name))),
            _ => Err(ConfigError::new(format!(
                "token source: expected a websocket subprotocol name, found {name:?}"
            ))),
        }
    }

    /// A header that carries only an API key ([`ApiKeys`](crate::ApiKeys)), such as `X-Api-Key`,
    /// for clients that cannot send `Authorization: Bearer`. An access token is rejected there.
    ///
    /// Browsers do not send such a header by themselves, so no rule about origins applies.
    ///
    /// ```
    /// use portcullis::TokenSource;
    ///
    /// let sources = [TokenSource::authorization(), TokenSource::api_key_header("x-api-key")?];
    /// # Ok::<(), portcullis::ConfigError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if `name` is not a valid header name, or if it is `Authorization`.
    pub fn api_key_header<N>(name: N) -> Result<Self, ConfigError>
    where
        N: TryInto<HeaderName>,
        N::Error: Display,
    {
        match Self::header(name)?.0 {
            TokenLocation::Header { name, .. } => Ok(Self(TokenLocation::ApiKeyHeader(name))),
            other => Ok(Self(other)),
        }
    }

    /// A query parameter (RFC 6750 §2.3). Dangerous: URLs end up in logs, browser histories and
    /// `Referer` headers, and the token with them. OAuth 2.1 §5.1 forbids it. Responses to such
    /// requests have `Cache-Control: no-store`.
    pub fn danger_query(name: impl Into<String>) -> Self {
        Self(TokenLocation::Query(name.into()))
    }
}
