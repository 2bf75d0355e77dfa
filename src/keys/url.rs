//! Which URLs may be fetched: `https`, and `http` only where it is allowed.

use url::Url;

use crate::error::ConfigError;

/// Where an issuer may be reached over plain `http`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum PlainHttp {
    OnLoopback,
    Anywhere,
}

/// Like [`secure_url`], but `text` must also be a URL in its normal form, without query and
/// fragment (OpenID Connect Discovery §3, RFC 8414 §2). A parser turns `https://a/b/../c` into
/// `https://a/c`, so the issuer that is compared with `iss` would not be the one that keys are
/// fetched from.
pub(crate) fn normal_url(
    what: &str,
    text: &str,
    plain_http: PlainHttp,
) -> Result<Url, ConfigError> {
    let url = secure_url(what, text, plain_http)?;
    let same = url.as_str() == text || url.as_str().strip_suffix('/') == Some(text);
    if same && url.query().is_none() && url.fragment().is_none() {
        Ok(url)
    } else {
        Err(ConfigError::new(format!(
            "{what} {text:?}: expected a URL in its normal form, without query and fragment"
        )))
    }
}

/// Parses an absolute `https` URL without credentials. `http` is accepted on loopback, and anywhere
/// with [`PlainHttp::Anywhere`].
pub(crate) fn secure_url(
    what: &str,
    text: &str,
    plain_http: PlainHttp,
) -> Result<Url, ConfigError> {
    // May contain a password: do not quote it.
    let quoted = if text.contains('@') { "…" } else { text };
    let error = |expected| ConfigError::new(format!("{what} {quoted:?}: expected {expected}"));
    let url = Url::parse(text).map_err(|_| error("an absolute https URL"))?;
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => return Err(error("an absolute https URL")),
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(error("a URL without user and password"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback || plain_http == PlainHttp::Anywhere => Ok(url),
        "http" => Err(error(
            "https (http only on loopback, or with `danger_allow_http` inside a trusted network)",
        )),
        _ => Err(error("https")),
    }
}
