//! The URL of a request whose host is not configured: a host for each tenant.
//!
//! The client chooses `Host`, and a proxy may forward what it likes. So the application decides
//! which hosts are its own, and headers of a proxy count only if the request comes from it.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{FORWARDED, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName};

use super::target::Base;
use crate::error::InvalidRequest;

/// Maximum length of a host or a prefix, in bytes.
const MAX_BYTES: usize = 1024;

type IsOwn = dyn Fn(&str) -> bool + Send + Sync;
type IsTrusted = dyn Fn(&Parts) -> bool + Send + Sync;

/// Which hosts of requests are those of this API.
#[derive(Clone)]
pub(super) struct OwnHosts {
    pub(super) is_own: Arc<IsOwn>,
    pub(super) forwarded: Option<(ForwardedUrl, Arc<IsTrusted>)>,
}

/// The headers in which a proxy forwards the host that a client used, and the path prefix that it
/// stripped, for [`Dpop::forwarded_url`](crate::Dpop::forwarded_url).
#[derive(Clone, Debug)]
#[must_use]
pub struct ForwardedUrl(Form);

#[derive(Clone, Copy, Debug)]
enum Form {
    /// RFC 7239 §4.
    Forwarded,
    XForwarded,
    Envoy,
}

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_ENVOY_ORIGINAL_PATH: HeaderName = HeaderName::from_static("x-envoy-original-path");

impl ForwardedUrl {
    /// `Forwarded` (RFC 7239): `host` of the last element, which the nearest proxy appended.
    pub fn rfc7239() -> Self {
        Self(Form::Forwarded)
    }

    /// `X-Forwarded-Host` and `X-Forwarded-Prefix`: the last value of each, which the nearest proxy
    /// appended.
    pub fn x_forwarded() -> Self {
        Self(Form::XForwarded)
    }

    /// Envoy, which keeps the host, and forwards the path before a rewrite in
    /// `X-Envoy-Original-Path`.
    pub fn envoy() -> Self {
        Self(Form::Envoy)
    }
}

/// What a proxy forwards.
#[derive(Default)]
struct Forwarded<'a> {
    host: Option<&'a str>,
    /// What comes before the path of the request.
    prefix: Option<&'a str>,
    /// What stands for the path of the request.
    path: Option<&'a str>,
}

/// The URL of a request, as far as it is not configured.
pub(crate) struct RequestUrl<'a> {
    /// Scheme, host and prefix, if the host is one of this API's.
    pub(crate) base: Option<Base>,
    pub(crate) path: Option<Cow<'a, str>>,
}

impl OwnHosts {
    /// `configured`: scheme and prefix of this API's URLs.
    pub(super) fn url<'a>(
        &self,
        request: &'a Parts,
        configured: &Base,
    ) -> Result<RequestUrl<'a>, InvalidRequest> {
        let trusted = self.forwarded.as_ref().filter(|(_, is_trusted)| is_trusted(request));
        let forwarded = match trusted {
            Some((ForwardedUrl(form), _)) => form.read(&request.headers)?,
            None => Forwarded::default(),
        };
        let path = forwarded.path.map(Cow::Borrowed).or_else(|| {
            let prefix = forwarded.prefix?.trim_end_matches('/');
            Some(Cow::Owned(format!("{prefix}{}", request.uri.path())))
        });
        let Some(authority) = forwarded.host.or(own_authority(request)?) else {
            return Ok(RequestUrl { base: None, path });
        };
        let base = configured.at(authority).ok_or(InvalidRequest::MalformedUrl)?;
        let is_own = (self.is_own)(base.authority());
        Ok(RequestUrl { base: is_own.then_some(base), path })
    }
}

/// The authority that the request names (RFC 9112 §3.3, RFC 9113 §8.3.1).
fn own_authority(request: &Parts) -> Result<Option<&str>, InvalidRequest> {
    // The application may read either of them.
    match (request.uri.authority(), single(&request.headers, &HOST)?) {
        (Some(authority), Some(host)) if !authority.as_str().eq_ignore_ascii_case(host) => {
            Err(InvalidRequest::MalformedUrl)
        }
        (Some(authority), _) => Ok(Some(authority.as_str())),
        (None, host) => Ok(host),
    }
}

impl Form {
    fn read(self, headers: &HeaderMap) -> Result<Forwarded<'_>, InvalidRequest> {
        let read = match self {
            Self::Forwarded => Forwarded {
                host: match last(headers, &FORWARDED)? {
                    Some(element) => host_of(element)?,
                    None => None,
                },
                ..Forwarded::default()
            },
            Self::XForwarded => Forwarded {
                host: last(headers, &X_FORWARDED_HOST)?,
                prefix: last(headers, &X_FORWARDED_PREFIX)?,
                path: None,
            },
            Self::Envoy => Forwarded {
                path: single(headers, &X_ENVOY_ORIGINAL_PATH)?
                    .and_then(|path| path.split(['?', '#']).next()),
                ..Forwarded::default()
            },
        };
        let is_prefix = |prefix: &str| {
            prefix.is_empty()
                || prefix.starts_with('/')
                    && !prefix.contains("//")
                    && !prefix.split('/').any(|segment| matches!(segment, "." | ".."))
                    // Without escapes: `%2e%2e` is a dot segment as well.
                    && !prefix.contains(['?', '#', '\\', '%'])
        };
        let is_path = read.path.is_none_or(|path| path.starts_with('/'));
        if read.prefix.is_none_or(is_prefix) && is_path {
            Ok(read)
        } else {
            Err(InvalidRequest::MalformedUrl)
        }
    }
}

/// The last value of a list, which may have several lines (RFC 9110 §5.3). No value has a comma
/// inside quotation marks: no host has one.
fn last<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, InvalidRequest> {
    let Some(line) = headers.get_all(name).iter().next_back() else { return Ok(None) };
    let line = line.to_str().map_err(|_| InvalidRequest::MalformedUrl)?;
    match line.rsplit(',').next().map(str::trim) {
        Some(value) if !value.is_empty() && value.len() <= MAX_BYTES => Ok(Some(value)),
        _ => Err(InvalidRequest::MalformedUrl),
    }
}

fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a str>, InvalidRequest> {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some(line), None) => line.to_str().map(Some).map_err(|_| InvalidRequest::MalformedUrl),
        (Some(_), Some(_)) => Err(InvalidRequest::MalformedUrl),
    }
}

/// The `host` of an element of `Forwarded` (RFC 7239 §4): `host=api.example.com` or, with a port,
/// `host="api.example.com:8443"`.
fn host_of(element: &str) -> Result<Option<&str>, InvalidRequest> {
    let mut hosts = element.split(';').filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("host").then_some(value)
    });
    match (hosts.next(), hosts.next()) {
        (None, _) => Ok(None),
        (Some(host), None) => {
            let inner = host.strip_prefix('"').map_or(Some(host), |rest| rest.strip_suffix('"'));
            inner.filter(|host| !host.is_empty()).map(Some).ok_or(InvalidRequest::MalformedUrl)
        }
        (Some(_), Some(_)) => Err(InvalidRequest::MalformedUrl),
    }
}
