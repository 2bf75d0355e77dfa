//! The MCP headers, which repeat parts of the body for gateways. They can only cause a rejection:
//! many clients send none, and an attacker sends others.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::message::Body;

const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub(super) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// A value that is no visible ASCII is in Base64, between these.
const BASE64: (&[u8], &[u8]) = (b"=?base64?", b"?=");

/// A header that is repeated, or that says something else than the body.
#[derive(Debug, PartialEq)]
pub(super) struct Mismatch(pub(super) &'static str);

/// Checks that each header has one value. If two servers read different ones, they disagree.
pub(super) fn check_repetition(headers: &HeaderMap) -> Result<(), Mismatch> {
    for (name, expected) in [
        (&METHOD, "one header Mcp-Method"),
        (&NAME, "one header Mcp-Name"),
        (&PROTOCOL_VERSION, "one header MCP-Protocol-Version"),
        (&SESSION_ID, "one header Mcp-Session-Id"),
    ] {
        if headers.get_all(name).iter().nth(1).is_some() {
            return Err(Mismatch(expected));
        }
    }
    Ok(())
}

/// Checks that the headers say what the body says.
pub(super) fn check(headers: &HeaderMap, body: &Body<'_>) -> Result<(), Mismatch> {
    let message = match body {
        Body::One(message) => message,
        Body::Batch(_) if !headers.contains_key(METHOD) && !headers.contains_key(NAME) => {
            return Ok(());
        }
        Body::Batch(_) => return Err(Mismatch("no header Mcp-Method or Mcp-Name for a batch")),
    };
    if let Some(value) = headers.get(METHOD)
        && message.method.as_deref().map(str::as_bytes) != Some(value.as_bytes())
    {
        return Err(Mismatch("the method of the body in Mcp-Method"));
    }
    if let (Some(value), Some(name)) = (headers.get(NAME), message.header_name()) {
        let Some(value) = decoded(value) else {
            return Err(Mismatch("valid Base64 in Mcp-Name"));
        };
        if value != name.as_bytes() {
            return Err(Mismatch("the name in the body in Mcp-Name"));
        }
    }
    Ok(())
}

fn decoded(value: &HeaderValue) -> Option<Vec<u8>> {
    let value = value.as_bytes();
    match value.strip_prefix(BASE64.0).and_then(|rest| rest.strip_suffix(BASE64.1)) {
        Some(encoded) => STANDARD.decode(encoded).ok(),
        None => Some(value.to_vec()),
    }
}
