//! Decides which requests may use a token that a browser sends by itself: a cookie, or the header
//! that a gateway adds because of a cookie. Any page can make the browser send such requests
//! (cross-site request forgery, cross-site websocket hijacking). This rule tells the application's
//! own pages from all others.
//!
//! It relies on what browsers send, which `ci/gateway.sh` checks with Chromium: `Origin` with every
//! unsafe method and every websocket handshake, and `Sec-Fetch-*` with all other requests.
//! Chromium, at least, sends no `Sec-Fetch-*` with a websocket handshake, so `Origin` must suffice
//! there.

use std::net::IpAddr;

use http::Method;
use http::header::{HOST, HeaderMap, HeaderValue, ORIGIN, UPGRADE};
use http::request::Parts;

use crate::token_source::AllowedOrigins;

/// Whether the request may use a token that a browser sends by itself.
///
/// | `Origin` | `Sec-Fetch-Site` | request | passes |
/// |---|---|---|---|
/// | allowed | any | any | yes |
/// | other | `same-origin` | any | yes |
/// | the request's own host | absent, `none` | any | yes |
/// | other, or several | otherwise | any | no |
/// | absent | absent, `none`, `same-origin` | GET, HEAD, OPTIONS | yes |
/// | absent | `same-site`, `cross-site` | GET, HEAD that navigates the whole window | yes |
/// | absent | `same-site`, `cross-site` | anything else | no |
/// | absent | any | another method, a websocket | only without `Sec-Fetch-*`, and if clients other than browsers are allowed |
pub(crate) fn may_use(request: &Parts, allowed: &AllowedOrigins) -> bool {
    let headers = &request.headers;
    let site = Site::of(headers);
    let mut origins = headers.get_all(ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (Some(_), Some(_)) => false,
        (Some(origin), None) => {
            allowed.lists(origin)
                || match site {
                    Site::SameOrigin => true,
                    Site::Absent | Site::NoPage => is_own(request, origin),
                    Site::Other => false,
                }
        }
        (None, _) => match site {
            Site::Other => is_landing(request),
            _ if is_safe(request) => true,
            Site::Absent => allowed.non_browsers && !sends_fetch_metadata(headers),
            Site::NoPage | Site::SameOrigin => false,
        },
    }
}

/// What the browser reports about the page that makes the request (Fetch Metadata,
/// `Sec-Fetch-Site`).
#[derive(Clone, Copy)]
enum Site {
    /// The header is absent: a websocket handshake (at least in Chromium), plain HTTP, an old
    /// browser, or a client other than a browser.
    Absent,
    /// `none`: no page made the request, such as for a typed address or a bookmark. Also sent for a
    /// page that the browser prerenders.
    NoPage,
    SameOrigin,
    /// `same-site` (a sibling subdomain), `cross-site`, or an unknown value.
    Other,
}

impl Site {
    fn of(headers: &HeaderMap) -> Self {
        let mut sent = headers.get_all("sec-fetch-site").iter();
        match (sent.next().map(HeaderValue::as_bytes), sent.next()) {
            (None, _) => Self::Absent,
            (Some(b"none"), None) => Self::NoPage,
            (Some(b"same-origin"), None) => Self::SameOrigin,
            _ => Self::Other,
        }
    }
}

/// Whether the request opens a websocket, by an HTTP/1.1 upgrade (RFC 6455 §4.1) or CONNECT
/// (RFC 8441 §4).
pub(crate) fn is_upgrade(request: &Parts) -> bool {
    request.headers.contains_key(UPGRADE) || request.method == Method::CONNECT
}

/// Whether the method is safe (RFC 9110 §9.2.1). A websocket handshake is not, although its method
/// is GET.
fn is_safe(request: &Parts) -> bool {
    matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS) && !is_upgrade(request)
}

/// Whether the request navigates the whole window, such as after a sign-in or from a link in a
/// mail. The page that caused the navigation cannot read the response.
fn is_landing(request: &Parts) -> bool {
    let is = |name, value: &str| {
        let mut sent = request.headers.get_all(name).iter();
        matches!((sent.next(), sent.next()), (Some(one), None) if one == value)
    };
    matches!(request.method, Method::GET | Method::HEAD)
        && !is_upgrade(request)
        && is("sec-fetch-mode", "navigate")
        && is("sec-fetch-dest", "document")
}

fn sends_fetch_metadata(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"))
}

/// Whether the page's origin is the host that the request is for. `http` counts only on loopback:
/// elsewhere, an attacker on the network path can serve a page of that origin.
fn is_own(request: &Parts, origin: &HeaderValue) -> bool {
    let Some((scheme, authority)) =
        origin.to_str().ok().and_then(|origin| origin.split_once("://"))
    else {
        return false;
    };
    let port = match scheme {
        "https" => ":443",
        "http" if is_loopback(authority) => ":80",
        _ => return false,
    };
    // The authority of the request target takes precedence over `Host` (RFC 9112 §3.2.2,
    // RFC 9113 §8.3.1).
    let mut hosts = request.headers.get_all(HOST).iter();
    let own = match (request.uri.authority(), hosts.next(), hosts.next()) {
        (Some(authority), _, _) => Some(authority.as_str()),
        (None, Some(host), None) => host.to_str().ok(),
        _ => None,
    };
    let bare =
        |authority: &str| authority.strip_suffix(port).unwrap_or(authority).to_ascii_lowercase();
    own.is_some_and(|own| !own.is_empty() && bare(own) == bare(authority))
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost"
        || host.ends_with(".localhost")
        || address.is_ok_and(|address| address.is_loopback())
}
