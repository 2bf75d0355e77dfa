//! What the fuzz targets in `fuzz/` call beside the public API. Exists only where `cargo fuzz` has
//! set `--cfg fuzzing`, and is no part of the public API.
//!
//! The functions return plain values, so that a target can compare them with what another
//! implementation finds.

use std::time::Duration;

use http::HeaderMap;
use http::request::Parts;
use serde_json::{Value as Json, json};
use url::Url;

use crate::algorithm::Algorithm;
use crate::client_certificate::source::{ClientCertificates, Found};
use crate::dpop::proof::{Expected, Proof, ProofKey};
use crate::dpop::target::{Base, is_target};
use crate::introspection::answer;
use crate::keys::remote::cache_control;
use crate::keys::remote::discovery::{Member, Metadata};
use crate::keys::remote::schedule::model::{Event, World};
use crate::keys::url::PlainHttp;
use crate::mcp::message::{Body, Name};
use crate::mcp::uri::{Match, Pattern, Uri};
use crate::middleware::credentials;
use crate::status_list::list::StatusList;
use crate::token::json::{Value, read_object};
use crate::token::jws::Jws;
use crate::token_source::TokenSource;

/// The members of one JSON object with these names, as the reader of tokens finds them. A number is
/// an `f64`, and what is not read is `Err`.
#[expect(clippy::type_complexity, reason = "the only use")]
pub fn members(text: &str, names: &[&str; 4]) -> Option<[Option<Result<Json, ()>>; 4]> {
    let values = read_object(text, names).ok()?;
    Some(values.map(|value| value.map(|value| as_json(&value))))
}

fn as_json(value: &Value<'_>) -> Result<Json, ()> {
    match value {
        Value::Text(text) => Ok(json!(text)),
        Value::Number(number) => Ok(json!(number)),
        Value::Texts(texts) => Ok(json!(texts)),
        Value::Object(text) => serde_json::from_str(text).map_err(drop),
        Value::Bool(is) => Ok(json!(is)),
        Value::Null => Ok(Json::Null),
        Value::Other => Err(()),
    }
}

/// Header, payload and signature of a compact JWS, and whether a part is padded.
pub fn split_jws(compact: &str) -> Option<([Vec<u8>; 3], bool)> {
    let jws = Jws::split(compact).ok()?;
    let parts = [jws.header_bytes(), jws.unverified_payload(), jws.signature()];
    Some((parts.map(<[u8]>::to_vec), jws.is_padded))
}

/// `alg`, `kid` and `typ` of a JOSE header that is accepted.
#[expect(clippy::type_complexity, reason = "the only use")]
pub fn jose_header(compact: &str) -> Option<(String, Option<String>, Option<String>)> {
    let jws = Jws::split(compact).ok()?;
    let header = jws.header().ok()?;
    let owned = |text: Option<std::borrow::Cow<'_, str>>| text.map(|text| text.into_owned());
    Some((header.algorithm.to_string(), owned(header.kid.clone()), owned(header.typ.clone())))
}

/// The token that a request has in one of the sources. `Err`: the code of the rejection.
pub fn token(
    request: &Parts,
    sources: &[TokenSource],
    accepts_dpop: bool,
) -> Result<String, &'static str> {
    let found = credentials::find(request, sources, accepts_dpop);
    found.map(|found| found.token.to_owned()).map_err(|error| error.code())
}

/// Returns the SHA-256 of the certificate that a request was forwarded with, or `None` if the
/// request has no certificate or an invalid one.
pub fn certificate(request: &Parts, source: &ClientCertificates) -> Option<[u8; 32]> {
    match source.find(request) {
        Found::Certificate(certificate) => Some(*certificate.sha256()),
        Found::None | Found::Untrusted | Found::Unreadable(_) => None,
    }
}

/// Whether a proof's `htu` is the URL of a request with this path at an API with this base.
pub fn is_htu(htu: &str, path: &str, base: &str) -> Option<bool> {
    let base = Base::new(base)?;
    Some(is_target(htu, path, std::iter::once(&base)))
}

/// Whether a DPoP proof is accepted for this request, apart from its time and its signature. `jkt`:
/// the thumbprint that the token is bound to.
pub fn proof_fits(
    text: &str,
    method: &str,
    base: &str,
    path: &str,
    ath: &str,
    jkt: &[u8; 32],
) -> bool {
    let Some(base) = Base::new(base) else { return false };
    let bases = [base];
    let algorithms = [Algorithm::ES256, Algorithm::EdDSA, Algorithm::PS256, Algorithm::RS256];
    let expected =
        Expected { method, bases: &bases, own: None, path, ath, jkt, algorithms: &algorithms };
    let Ok(jws) = Proof::split(text) else { return false };
    ProofKey::read(&jws, &expected).is_ok() && Proof::read(&jws, &expected).is_ok()
}

/// What an introspection answer says about the token: active or not.
pub fn is_active(answer: &str) -> Option<bool> {
    answer::read(answer).ok().map(|payload| payload.is_some())
}

/// Whether an active answer is about an access token.
pub fn is_access_token(answer: &str) -> bool {
    match answer::read(answer) {
        Ok(Some(payload)) => answer::check_kind(payload, true, false).is_ok(),
        _ => false,
    }
}

/// The lifetime that the headers of a response give.
pub fn lifetime(headers: &HeaderMap) -> Option<Duration> {
    cache_control::lifetime(headers)
}

/// The `jwks_uri` of an issuer's metadata.
pub fn jwks_uri(document: &[u8], url: &Url, iss: &str) -> Option<Url> {
    let metadata = Metadata::read(url.clone(), document, iss, None).ok()?;
    metadata.endpoint(&Member::JWKS_URI, PlainHttp::OnLoopback).ok()
}

/// A status list: the memory that it takes, and what returns the status of an index.
#[expect(clippy::type_complexity, reason = "the only use")]
pub fn status_list(
    payload: &str,
    uri: &str,
) -> Option<(usize, impl Fn(u32) -> Option<u8> + use<>)> {
    let list = StatusList::read(payload, uri).ok()?;
    Some((list.bytes(), move |index| list.get(index)))
}

/// The messages of an MCP body: the method of each, and the names that rules may be registered for.
#[expect(clippy::type_complexity, reason = "the only use")]
pub fn mcp_messages(body: &[u8]) -> Option<Vec<(Option<String>, Vec<(&'static str, String)>)>> {
    let body = Body::read(body).ok()?;
    let read = |message: &crate::mcp::message::Message<'_>| {
        let mut names = Vec::new();
        message.names(|name| {
            names.push(match name {
                Name::Tool(name) => ("tool", name.to_owned()),
                Name::Prompt(name) => ("prompt", name.to_owned()),
                Name::Resource(name) => ("resource", name.to_owned()),
            });
        });
        (message.method.as_deref().map(str::to_owned), names)
    };
    Some(body.messages().iter().map(read).collect())
}

/// Whether the rule for a registered URI may apply to a URI of a request, and whether it does for
/// every service.
pub fn uri_matches(registered: &str, uri: &str) -> (bool, bool) {
    match Pattern::new(registered).matches(&Uri::new(uri)) {
        Match::No => (false, false),
        Match::Possible => (true, false),
        Match::Certain => (true, true),
    }
}

/// Lets events happen to the schedule of an issuer's key set, and checks its invariants after each.
/// A byte is an event.
pub fn schedule(events: &[u8]) {
    let mut world = World::new();
    for event in events {
        world.happen(match event {
            0..64 => Event::Request,
            64..96 => Event::Answer(event % 2 == 0),
            96..128 => Event::Forged,
            128..160 => Event::Junk(["a", "b", "c", "d"][usize::from(event % 4)]),
            // From 1 to 63 seconds, and from a minute to three hours.
            160..224 => Event::Passes(u64::from(event - 160)),
            224.. => Event::Passes(u64::from(event - 223) * 337),
        });
    }
}
