//! Finds the access token in a request (RFC 6750 §2).

use http::header::{
    AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL,
};
use http::request::Parts;

use super::origin::{is_upgrade, may_use};
use crate::binding::{Place, Scheme};
use crate::error::{Error, InvalidRequest};
use crate::token_source::{TokenLocation, TokenSource};

/// The token of a request, and the location where it was found.
#[derive(Debug)]
pub(crate) struct Credentials<'a> {
    pub(crate) token: &'a str,
    pub(crate) location: &'a TokenLocation,
    pub(crate) scheme: Scheme,
}

impl Credentials<'_> {
    pub(crate) fn place(&self) -> Place {
        match self.location {
            TokenLocation::Authorization => Place::Authorization,
            _ => Place::Elsewhere,
        }
    }
}

/// Returns the token that the request has in one of the `sources`. A second token is an error: a
/// request may use only one method to send its token (RFC 6750 §2).
pub(crate) fn find<'a>(
    request: &'a Parts,
    sources: &'a [TokenSource],
    accepts_dpop: bool,
) -> Result<Credentials<'a>, Error> {
    let (mut found, mut is_of_another_page) = (None, false);
    for TokenSource(location) in sources {
        let (headers, mut scheme) = (&request.headers, Scheme::Bearer);
        let token = match location {
            TokenLocation::Authorization => {
                authorization(headers, accepts_dpop)?.map(|(used, token)| {
                    scheme = used;
                    token
                })
            }
            TokenLocation::Header { name, .. } | TokenLocation::ApiKeyHeader(name) => {
                header(headers, name)?
            }
            TokenLocation::Cookie { name, .. } => cookie(headers, name)?,
            TokenLocation::WebSocketProtocol(name) if is_upgrade(request) => {
                websocket_protocol(headers, name)?
            }
            TokenLocation::WebSocketProtocol(_) => None,
            TokenLocation::Query(name) => query(request.uri.query().unwrap_or_default(), name)?,
        };
        let Some(token) = token else { continue };
        if found.replace(Credentials { token, location, scheme }).is_some() {
            return Err(Error::InvalidRequest(InvalidRequest::RepeatedToken));
        }
        // Reported after the loop: a request with two tokens has two, whatever its origin.
        if let TokenLocation::Header { allowed, .. } | TokenLocation::Cookie { allowed, .. } =
            location
        {
            is_of_another_page = !may_use(request, allowed);
        }
    }
    if is_of_another_page {
        Err(Error::InvalidRequest(InvalidRequest::ForbiddenOrigin))
    } else {
        found.ok_or(Error::Missing)
    }
}

/// Whether the query has a token, well-formed or not.
pub(crate) fn has_query(request: &Parts, sources: &[TokenSource]) -> bool {
    sources.iter().any(|TokenSource(location)| match location {
        TokenLocation::Query(name) => {
            !matches!(query(request.uri.query().unwrap_or_default(), name), Ok(None))
        }
        _ => false,
    })
}

/// Returns the token of the only `Authorization` header, if its scheme is `Bearer` or, where it is
/// accepted, `DPoP`. The scheme is case-insensitive (RFC 9110 §11.1).
fn authorization(headers: &HeaderMap, accepts_dpop: bool) -> Result<Option<(Scheme, &str)>, Error> {
    let Some(value) = only(headers.get_all(AUTHORIZATION).iter())? else { return Ok(None) };
    let value = value.as_bytes();
    let end = value.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(value.len());
    let (scheme, credentials) = value.split_at(end);
    let scheme = if scheme.eq_ignore_ascii_case(b"bearer") {
        Scheme::Bearer
    } else if accepts_dpop && scheme.eq_ignore_ascii_case(b"dpop") {
        Scheme::Dpop
    } else {
        return Ok(None);
    };
    let spaces = credentials.iter().take_while(|byte| **byte == b' ').count();
    checked(credentials.get(spaces..).unwrap_or_default()).map(|token| Some((scheme, token)))
}

/// The scheme that a request used, for its challenge.
pub(crate) fn scheme_of(headers: &HeaderMap) -> Scheme {
    let is_dpop = headers.get(AUTHORIZATION).is_some_and(|value| {
        let scheme = value.as_bytes().split(|byte| matches!(byte, b' ' | b'\t')).next();
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"dpop"))
    });
    if is_dpop { Scheme::Dpop } else { Scheme::Bearer }
}

/// Returns the value of the only header `name`, which is the token without a scheme.
fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Error> {
    let Some(value) = only(headers.get_all(name).iter())? else { return Ok(None) };
    // AWS load balancers pad each part of the token with `=`.
    let text = value.to_str().ok().filter(|text| {
        !text.is_empty() && all(text.as_bytes(), |byte| is_legal(byte) | (byte == b'='))
    });
    text.map(Some).ok_or(Error::InvalidRequest(InvalidRequest::MalformedCredentials))
}

/// Returns the value of the only cookie `name` (RFC 6265 §4.2.1). HTTP/2 may split the `Cookie`
/// header into several lines.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Error> {
    let pairs =
        headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    let values = pairs
        .filter_map(|pair| pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    // A cookie with an empty value counts as absent.
    let values = values.filter(|value| !value.is_empty());
    let unquoted = |value: &'a [u8]| {
        value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
    };
    only(values)?.map(|value| checked(unquoted(value))).transpose()
}

/// Returns the token, which follows `name` in the list of offered subprotocols (RFC 6455 §4.1).
fn websocket_protocol<'a>(
    headers: &'a HeaderMap,
    name: &HeaderValue,
) -> Result<Option<&'a str>, Error> {
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let mut offered =
        lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let mut found = Vec::new();
    while let Some(one) = offered.next() {
        if one == name.as_bytes() {
            found.push(offered.next().unwrap_or_default());
        }
    }
    only(found.into_iter())?.map(checked).transpose()
}

fn query<'a>(query: &'a str, name: &str) -> Result<Option<&'a str>, Error> {
    let values = query.split('&').filter_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    only(values)?.map(|value| checked(value.as_bytes())).transpose()
}

/// Returns the first item. A second one is an error.
fn only<T>(mut several: impl Iterator<Item = T>) -> Result<Option<T>, Error> {
    match (several.next(), several.next()) {
        (_, Some(_)) => Err(Error::InvalidRequest(InvalidRequest::RepeatedToken)),
        (one, None) => Ok(one),
    }
}

/// Checks that `token` is a b64token (RFC 6750 §2.1):
/// `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`.
fn checked(token: &[u8]) -> Result<&str, Error> {
    let padding = token.iter().rev().take_while(|byte| **byte == b'=').count();
    let characters = token.get(..token.len() - padding).unwrap_or_default();
    let is_b64token = !characters.is_empty() && all(characters, is_legal);
    let text = std::str::from_utf8(token).ok().filter(|_| is_b64token);
    text.ok_or(Error::InvalidRequest(InvalidRequest::MalformedCredentials))
}

/// Whether a b64token may contain `byte`, apart from the padding.
///
/// Branch-free, so that the compiler processes 16 bytes at a time in [`all`]. Every byte of every
/// token is checked: with a branch per byte, this cost more than all other work except the
/// signature.
fn is_legal(byte: u8) -> bool {
    let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    // `-`, `.`, `/` and the digits are contiguous in ASCII.
    let digit = byte.wrapping_sub(b'-') < 13;
    letter | digit | (byte == b'_') | (byte == b'~') | (byte == b'+')
}

fn all(bytes: &[u8], is_legal: impl Fn(u8) -> bool) -> bool {
    bytes.iter().fold(true, |all, byte| all & is_legal(*byte))
}
