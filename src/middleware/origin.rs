//! Which requests of a browser may use a token that the browser sends by itself: a cookie, or the header that a gateway
//! adds because of a cookie. Any page can have the browser make such requests (cross-site request forgery, cross-site
//! websocket hijacking); this rule tells the application's own pages from all others.
//!
//! It relies on what browsers send, proven with Chromium by `ci/gateway.sh`: `Origin` with every unsafe method and every
//! websocket handshake, `Sec-Fetch-*` with all other requests, but never with a websocket handshake.

use std::net::IpAddr;

use http::header::{HOST, HeaderMap, HeaderValue, ORIGIN, UPGRADE};
use http::{Method, Request};

use crate::token_source::AllowedOrigins;

/// Whether the request may use a token that a browser sends by itself.
///
/// | `Origin` | `Sec-Fetch-Site` | request | passes |
/// |---|---|---|---|
/// | listed | any | any | yes |
/// | other | `same-origin` | any | yes |
/// | the request's own host | absent, `none` | any | yes |
/// | other, or several | otherwise | any | no |
/// | absent | absent, `none`, `same-origin` | GET, HEAD, OPTIONS | yes |
/// | absent | `same-site`, `cross-site` | GET, HEAD that navigates the whole window | yes |
/// | absent | `same-site`, `cross-site` | anything else | no |
/// | absent | any | another method, a websocket | no, unless no `Sec-Fetch-*` is sent and clients other than browsers are allowed |
pub(crate) fn may_use<B>(request: &Request<B>, allowed: &AllowedOrigins) -> bool {
    let headers = request.headers();
    let site = Site::of(headers);
    let mut origins = headers.get_all(ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (Some(_), Some(_)) => false,
        (Some(origin), None) => {
            allowed.lists(origin)
                || match site {
                    Site::SameOrigin => true,
                    Site::Unsaid | Site::NoPage => is_own(request, origin),
                    Site::Other => false,
                }
        }
        (None, _) => match site {
            Site::Other => is_landing(request),
            _ if is_safe(request) => true,
            Site::Unsaid => allowed.non_browsers && !sends_fetch_metadata(headers),
            Site::NoPage | Site::SameOrigin => false,
        },
    }
}

/// What the browser says of the page that makes the request (Fetch Metadata, `Sec-Fetch-Site`).
#[derive(Clone, Copy)]
enum Site {
    /// Nothing: a websocket handshake, plain http, an old browser, or no browser.
    Unsaid,
    /// `none`: no page, such as an address typed or a bookmark. Also a page that the browser renders ahead.
    NoPage,
    SameOrigin,
    /// `same-site` (a sibling subdomain), `cross-site`, or anything unknown.
    Other,
}

impl Site {
    fn of(headers: &HeaderMap) -> Self {
        let mut sent = headers.get_all("sec-fetch-site").iter();
        match (sent.next().map(HeaderValue::as_bytes), sent.next()) {
            (None, _) => Self::Unsaid,
            (Some(b"none"), None) => Self::NoPage,
            (Some(b"same-origin"), None) => Self::SameOrigin,
            _ => Self::Other,
        }
    }
}

/// RFC 6455 §4.1, RFC 8441 §4.
pub(crate) fn is_upgrade<B>(request: &Request<B>) -> bool {
    request.headers().contains_key(UPGRADE) || request.method() == Method::CONNECT
}

/// RFC 9110 §9.2.1. A websocket's handshake is a GET by name only.
fn is_safe<B>(request: &Request<B>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS)
        && !is_upgrade(request)
}

/// Whether the whole window goes there: the page after a sign-in, a link in a mail. The page that caused it reads nothing.
fn is_landing<B>(request: &Request<B>) -> bool {
    let is = |name, value: &str| {
        let mut sent = request.headers().get_all(name).iter();
        matches!((sent.next(), sent.next()), (Some(one), None) if one == value)
    };
    matches!(*request.method(), Method::GET | Method::HEAD)
        && !is_upgrade(request)
        && is("sec-fetch-mode", "navigate")
        && is("sec-fetch-dest", "document")
}

fn sends_fetch_metadata(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with("sec-fetch-"))
}

/// Whether the page is of the host that the request is for. Over `http` only on loopback: elsewhere, whoever is between the
/// browser and the network can write a page of that origin.
fn is_own<B>(request: &Request<B>, origin: &HeaderValue) -> bool {
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
    // RFC 9112 §3.2.2, RFC 9113 §8.3.1: the target's authority, where there is one, counts before `Host`.
    let mut hosts = request.headers().get_all(HOST).iter();
    let own = match (request.uri().authority(), hosts.next(), hosts.next()) {
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
