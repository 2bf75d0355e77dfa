//! What a token says about its status: `status.status_list` (draft-ietf-oauth-status-list §6.2).

use std::borrow::Cow;

use crate::error::InvalidToken;
use crate::token::json::{self, Value};

/// Maximum length of a URI, in bytes. It is kept as long as tokens name it.
const MAX_URI: usize = 2048;

/// The place of a token's status.
#[derive(Debug, PartialEq)]
pub(super) struct Reference<'a> {
    pub(super) uri: Cow<'a, str>,
    pub(super) index: u32,
}

impl<'a> Reference<'a> {
    /// Reads the payload of a token. Unverified, it can only cause a rejection. Other members of
    /// `status` name other mechanisms, and are ignored.
    pub(super) fn read(payload: &'a [u8]) -> Result<Option<Self>, InvalidToken> {
        const EXPECTED: InvalidToken = InvalidToken::ClaimType {
            claim: "status",
            expected: "an object, whose `status_list` has `idx` and `uri`",
        };
        let text = std::str::from_utf8(payload).map_err(|_| EXPECTED)?;
        let status = match json::read_object(text, &["status"]) {
            Ok([None]) => return Ok(None),
            Ok([Some(Value::Object(status))]) => status,
            _ => return Err(EXPECTED),
        };
        let list = match json::read_object(status, &["status_list"]) {
            Ok([None]) => return Ok(None),
            Ok([Some(Value::Object(list))]) => list,
            _ => return Err(EXPECTED),
        };
        match json::read_object(list, &["idx", "uri"]) {
            Ok([Some(Value::Number(index)), Some(Value::Text(uri))])
                if index >= 0.0 && index.fract() == 0.0 && uri.len() <= MAX_URI =>
            {
                // An index above 32 bits is outside of every list, as is the highest one.
                Ok(Some(Self { uri, index: index as u32 }))
            }
            _ => Err(EXPECTED),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_strictly() {
        let uri = "https://issuer.example/1";
        let found = |index| Ok(Some((uri, index)));
        let none = Ok(None);
        let long =
            format!(r#"{{"status":{{"status_list":{{"idx":0,"uri":"{}"}}}}}}"#, "x".repeat(2049));
        let list = |list: &str| format!(r#"{{"status":{{"status_list":{list}}}}}"#);
        let wrong = Err(());
        for (name, payload, expected) in [
            ("a reference", list(r#"{"idx":7,"uri":"https://issuer.example/1"}"#), found(7)),
            ("the first", list(r#"{"idx":0,"uri":"https://issuer.example/1"}"#), found(0)),
            ("as a fraction", list(r#"{"idx":7.0,"uri":"https://issuer.example/1"}"#), found(7)),
            ("huge", list(r#"{"idx":1e300,"uri":"https://issuer.example/1"}"#), found(u32::MAX)),
            ("no status", "{}".to_owned(), none),
            ("another mechanism", r#"{"status":{"other":{}}}"#.to_owned(), none),
            ("status is text", r#"{"status":"active"}"#.to_owned(), wrong),
            ("status is null", r#"{"status":null}"#.to_owned(), wrong),
            ("the list is text", list("\"x\""), wrong),
            ("no index", list(r#"{"uri":"https://issuer.example/1"}"#), wrong),
            ("no URI", list(r#"{"idx":7}"#), wrong),
            ("negative", list(r#"{"idx":-1,"uri":"https://issuer.example/1"}"#), wrong),
            ("between two", list(r#"{"idx":0.5,"uri":"https://issuer.example/1"}"#), wrong),
            ("index as text", list(r#"{"idx":"7","uri":"https://issuer.example/1"}"#), wrong),
            ("twice", list(r#"{"idx":1,"idx":2,"uri":"https://issuer.example/1"}"#), wrong),
            ("a long URI", long, wrong),
        ] {
            let read = Reference::read(payload.as_bytes());
            let read = read.as_ref().map_err(|_| ());
            let read = read.map(|one| one.as_ref().map(|one| (&*one.uri, one.index)));
            assert_eq!(read, expected, "{name}");
        }
    }
}
