//! RFC 9701 §5: a signed answer.

use std::borrow::Cow;
use std::slice;
use std::time::Duration;

use crate::clock::Now;
use crate::keys::jwk::SignedPayload;
use crate::token::claims::numeric_date;
use crate::token::json::{Value, read_object};
use crate::token::jws::Header;
use crate::token::token_type::short;

/// The media type of a signed answer.
pub(crate) const MEDIA_TYPE: &str = "application/token-introspection+jwt";

/// How old a signed answer may be. It is made for each question.
const MAX_AGE: Duration = Duration::from_secs(60);

/// Who has to have signed an answer, for which client, and when.
pub(crate) struct Expected<'a> {
    pub(crate) iss: &'a str,
    pub(crate) client_id: &'a str,
    pub(crate) leeway: Duration,
    pub(crate) now: Now,
}

/// Checks the type of the JWT, before its signature.
pub(crate) fn check_type(header: &Header<'_>) -> Result<(), &'static str> {
    let typ = header.typ.as_deref().map(short);
    if typ.is_some_and(|typ| typ.eq_ignore_ascii_case("token-introspection+jwt")) {
        Ok(())
    } else {
        Err("a signed answer with the `typ` `token-introspection+jwt`")
    }
}

/// Checks the claims of a signed answer, and returns the answer in it.
///
/// `exp` is not required: RFC 9701 §5 says that it should not be there.
pub(crate) fn read<'a>(
    payload: &SignedPayload<'a>,
    expected: &Expected<'_>,
) -> Result<&'a str, &'static str> {
    const NOT_AN_OBJECT: &str = "a signed answer that is one JSON object without duplicate members";
    let text = std::str::from_utf8(payload.bytes()).map_err(|_| NOT_AN_OBJECT)?;
    let wanted = ["iss", "aud", "iat", "exp", "token_introspection"];
    let [iss, aud, iat, exp, answer] = read_object(text, &wanted).map_err(|_| NOT_AN_OBJECT)?;
    if !matches!(iss, Some(Value::Text(iss)) if iss == expected.iss) {
        return Err("a signed answer whose `iss` is the issuer");
    }
    let audience: &[Cow<'_, str>] = match &aud {
        Some(Value::Text(one)) => slice::from_ref(one),
        Some(Value::Texts(several)) => several,
        _ => &[],
    };
    if !audience.iter().any(|one| one == expected.client_id) {
        return Err("a signed answer whose `aud` is this client");
    }
    let date = |claim, value: &Option<Value<'_>>| numeric_date(claim, value.as_ref());
    let (Ok(Some(issued_at)), Ok(expires_at)) = (date("iat", &iat), date("exp", &exp)) else {
        return Err("a signed answer whose `iat` is a date");
    };
    let Expected { leeway, now, .. } = expected;
    let is_recent = issued_at <= now.unix.saturating_add(*leeway)
        && now.unix < issued_at.saturating_add(MAX_AGE).saturating_add(*leeway);
    if !is_recent || expires_at.is_some_and(|end| now.unix >= end.saturating_add(*leeway)) {
        return Err("a signed answer of the last 60 seconds");
    }
    match answer {
        Some(Value::Object(answer)) => Ok(answer),
        _ => Err("a signed answer whose `token_introspection` is an object"),
    }
}
