//! RFC 6750 §2.1: where the token is in a request.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::error::{Error, InvalidRequest};

/// The token of the one `Authorization` header, if its scheme is `Bearer` (in any case, RFC 9110 §11.1).
///
/// `?access_token=` is not looked at (OAuth 2.1 §5.1): a query ends up in logs.
pub(crate) fn bearer(headers: &HeaderMap) -> Result<&str, Error> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(Error::Missing)?.as_bytes();
    if values.next().is_some() {
        return Err(Error::InvalidRequest(InvalidRequest::Repeated));
    }
    let end = value.iter().position(|byte| matches!(byte, b' ' | b'\t')).unwrap_or(value.len());
    let (scheme, credentials) = value.split_at(end);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(Error::Missing);
    }
    let spaces = credentials.iter().take_while(|byte| **byte == b' ').count();
    let token = credentials.get(spaces..).unwrap_or_default();
    is_b64token(token)
        .then(|| std::str::from_utf8(token).ok())
        .flatten()
        .ok_or(Error::InvalidRequest(InvalidRequest::Credentials))
}

/// RFC 6750 §2.1: `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`.
fn is_b64token(token: &[u8]) -> bool {
    let padding = token.iter().rev().take_while(|byte| **byte == b'=').count();
    let characters = token.get(..token.len() - padding).unwrap_or_default();
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/');
    !characters.is_empty() && characters.iter().all(legal)
}
