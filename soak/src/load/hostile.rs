//! Hostile requests: none may be accepted, at any time.

use axum::http::Request;
use bytes::Bytes;
use http_body_util::Full;
use portcullis::ApiKey;
use rand::Rng as _;
use rand::rngs::SmallRng;
use serde_json::json;

use super::client::Outgoing;
use super::good::{orders, proven, tool_call, url};
use super::kind::Kind;
use super::material::{IN_USE, Material, VALID_STATUSES};
use super::{Job, Payload};
use crate::Failure;
use crate::server::{EVENTS, EVENTS_SECRET, WEB_SHOP};
use crate::world::{MAIN, PLAIN, TENANTS, World};

const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

/// Returns `None` if no request of this kind is possible yet.
pub(super) fn job(
    material: &mut Material,
    kind: Kind,
    random: &mut SmallRng,
) -> Result<Option<Job>, Failure> {
    let bytes = match kind {
        Kind::ManyHeaders => many_headers(),
        Kind::WithdrawnKey => {
            let Some((issuer, token)) = material.left.withdrawn.any(random) else {
                return Ok(None);
            };
            let payload = Payload::Http(Box::new(orders(&format!("Bearer {token}"))?));
            return Ok(Some(Job { kind, issuer: Some(issuer), payload, then: None }));
        }
        Kind::NoHttp => (0..300).map(|_| random.r#gen::<u8>()).chain(*b"\r\n\r\n").collect(),
        _ => {
            let victim = victim(random);
            let Some(request) = request(material, kind, victim, random)? else { return Ok(None) };
            let payload = Payload::Http(Box::new(request));
            let issuer = issuer(kind, victim);
            return Ok(Some(Job { kind, issuer, payload, then: None }));
        }
    };
    Ok(Some(Job { kind, issuer: None, payload: Payload::Bytes(bytes), then: None }))
}

fn request(
    material: &mut Material,
    kind: Kind,
    victim: usize,
    random: &mut SmallRng,
) -> Result<Option<Outgoing>, Failure> {
    let world = &material.world;
    let number: u64 = random.r#gen();
    let token = world.token(victim).claim("jti", number.to_string());
    let left = &material.left;
    let token = match kind {
        Kind::WrongSignature if number.is_multiple_of(2) => token.tampered(),
        Kind::WrongSignature => token.tampered_signature(),
        Kind::WrongAudience => token.audience("https://other.example"),
        Kind::Expired => token.expired(),
        Kind::Unsigned => token.unsigned(),
        Kind::UnknownKid => token.header("kid", format!("unknown-{number}")),
        Kind::UnknownIssuer if number.is_multiple_of(2) => {
            material.attacker.token().issued_by(&format!("https://issuer-{number}.example/"))
        }
        // At the server of a tenant.
        Kind::UnknownIssuer => token.issued_by(&format!("{}-{number}", world.iss(victim))),
        Kind::OtherTenant => token.issued_by(&world.iss((victim + 1) % IN_USE)),
        Kind::MissingScope => token.scope("orders:write orders:readx"),
        Kind::TooLarge => token.claim("filler", "x".repeat(17 * 1024)),
        Kind::StatusRevoked => {
            let main = world.token(MAIN).claim("jti", number.to_string());
            main.status(&material.list, random.gen_range(VALID_STATUSES..1000))
        }
        Kind::McpForbidden => return tool_call(&material.mcp(), "write_note").map(Some),
        Kind::McpBroken => return broken(&material.mcp(), number).map(Some),
        Kind::McpWithoutToken => {
            let mut request = tool_call("", "read_note")?;
            request.headers_mut().remove("authorization");
            return Ok(Some(request));
        }
        Kind::ForgedLogout | Kind::LogoutOtherAudience | Kind::LogoutWithoutEvents => {
            let token = world.issuer(PLAIN).logout_token(WEB_SHOP).claim("sid", "1");
            let forged = match kind {
                Kind::ForgedLogout => token.tampered(),
                Kind::LogoutOtherAudience => token.audience("other-client"),
                _ => token.without_claim("events"),
            };
            return form("/backchannel-logout", &format!("logout_token={}", forged.build()))
                .map(Some);
        }
        Kind::ForgedEvent | Kind::EventOtherAudience | Kind::EventWithoutEvents => {
            let subject =
                json!({ "format": "iss_sub", "iss": world.iss(PLAIN), "sub": "test-subject" });
            let issuer = world.issuer(PLAIN);
            let token = issuer.security_event(EVENTS, SESSION_REVOKED, subject);
            let forged = match kind {
                Kind::ForgedEvent => token.tampered(),
                Kind::EventOtherAudience => token.audience("https://other.example/events"),
                _ => token.without_claim("events"),
            };
            return event(&forged.build()).map(Some);
        }
        Kind::NoToken => {
            return Ok(Some(Request::get("/orders").header("host", "a").body(Full::default())?));
        }
        Kind::TwoTokens => {
            let value = format!("Bearer {}", token.build());
            let request = Request::get("/orders").header("host", "a");
            let request = request.header("authorization", &value).header("authorization", &value);
            return Ok(Some(request.body(Full::default())?));
        }
        Kind::UsedProof => {
            let Some((token, proof)) = left.used.any(random) else { return Ok(None) };
            return proven(&token, &proof).map(Some);
        }
        Kind::OtherKey => {
            let (client, token) = material.bound(random);
            let other = &material.clients[(client + 1) % material.clients.len()];
            return proven(&token, &other.proof("GET", &url(), &token).build()).map(Some);
        }
        _ => {
            let text = match kind {
                Kind::Garbage => garbage(&token.build(), random),
                Kind::InventedOpaque => format!("opaque-x{number}"),
                Kind::BoundAsBearer => material.bound(random).1,
                Kind::InventedApiKey => ApiKey::generate("soak_live")?.expose_key().to_owned(),
                Kind::WrongApiKey => other_secret(&material.api_keys, random),
                Kind::RevokedOpaque => left.revoked_opaque.any(random).unwrap_or_default(),
                Kind::Revoked => left.revoked.any(random).unwrap_or_default(),
                _ => String::new(),
            };
            if text.is_empty() {
                return Ok(None);
            }
            return orders(&format!("Bearer {text}")).map(Some);
        }
    };
    orders(&format!("Bearer {}", token.build())).map(Some)
}

/// The issuer whose disturbances may change the answer.
fn issuer(kind: Kind, victim: usize) -> Option<usize> {
    Some(match kind {
        Kind::OtherTenant => (victim + 1) % IN_USE,
        Kind::McpForbidden
        | Kind::McpBroken
        | Kind::Revoked
        | Kind::ForgedLogout
        | Kind::LogoutOtherAudience
        | Kind::LogoutWithoutEvents
        | Kind::ForgedEvent
        | Kind::EventOtherAudience
        | Kind::EventWithoutEvents => PLAIN,
        Kind::UsedProof
        | Kind::OtherKey
        | Kind::BoundAsBearer
        | Kind::StatusRevoked
        | Kind::InventedOpaque
        | Kind::RevokedOpaque => MAIN,
        Kind::WrongSignature
        | Kind::WrongAudience
        | Kind::Expired
        | Kind::Unsigned
        | Kind::UnknownKid
        | Kind::MissingScope
        | Kind::Garbage => victim,
        _ => return None,
    })
}

/// Whose tokens are forged: mostly an issuer in constant use, sometimes any tenant.
fn victim(random: &mut SmallRng) -> usize {
    match random.gen_range(0..10) {
        0 => random.gen_range(0..TENANTS),
        1 => PLAIN,
        _ => random.gen_range(0..IN_USE),
    }
}

fn garbage(token: &str, random: &mut SmallRng) -> String {
    match random.gen_range(0..5) {
        0 => token.replacen('.', "", 1),
        1 => format!("{token}.{token}"),
        // Shorter in any case: an `A` may be the last character that the token had.
        2 => token[..random.gen_range(1..token.len() - 1)].to_owned() + "A",
        3 => "eyJhbGciOiJFZERTQSJ9.e30.AAAA".to_owned(),
        // Letters in other places, so that most often the JSON is broken.
        _ => token.chars().rev().collect(),
    }
}

/// The characters of the checksum of an API key.
const CHECKSUM: usize = 6;

fn other_secret(keys: &[String], random: &mut SmallRng) -> String {
    let chosen = random.gen_range(0..keys.len() - 1);
    let (Some((id, _)), Some((_, secret))) =
        (keys[chosen].rsplit_once('_'), keys[chosen + 1].rsplit_once('_'))
    else {
        return String::new();
    };
    let unchecked = format!("{id}_{}", &secret[..secret.len() - CHECKSUM]);
    let checksum = checksum_of(&unchecked);
    unchecked + &checksum
}

/// CRC-32 (ISO-HDLC), as six digits in base 62: the end of an API key.
fn checksum_of(text: &str) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut crc = u32::MAX;
    for byte in text.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    let crc = !crc;
    let digit = |place: u32| char::from(DIGITS[(crc / 62_u32.pow(place) % 62) as usize]);
    (0..6).rev().map(digit).collect()
}

fn broken(token: &str, number: u64) -> Result<Outgoing, Failure> {
    let mut request = tool_call(token, "read_note")?;
    let body = match number % 5 {
        0 => r#"{"jsonrpc":"2.0","#.to_owned(),
        1 => r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","method":"ping"}"#.to_owned(),
        // Another tool than the header says.
        2 => r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"write_note"}}"#
            .to_owned(),
        3 => r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":["read_note"]}}"#
            .to_owned(),
        _ => format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000)),
    };
    *request.body_mut() = Full::new(Bytes::from(body));
    Ok(request)
}

pub(super) fn form(path: &str, form: &str) -> Result<Outgoing, Failure> {
    Ok(Request::post(path)
        .header("host", "api.example.com")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(form.to_owned())))?)
}

pub(super) fn event(token: &str) -> Result<Outgoing, Failure> {
    Ok(Request::post("/events")
        .header("host", "api.example.com")
        .header("authorization", EVENTS_SECRET)
        .header("content-type", "application/secevent+jwt")
        .header("accept", "application/json")
        .body(Full::new(Bytes::from(token.to_owned())))?)
}

/// The event by which an issuer ends this session.
pub(super) fn session_revoked(world: &World, issuer: usize, sid: &str) -> String {
    let subject = json!({ "format": "complex", "session": { "format": "opaque", "id": sid } });
    world.issuer(issuer).security_event(EVENTS, SESSION_REVOKED, subject).build()
}

fn many_headers() -> Vec<u8> {
    let headers: String = (0..200).map(|number| format!("x-{number}: {number}\r\n")).collect();
    format!("GET /orders HTTP/1.1\r\nhost: a\r\n{headers}\r\n").into_bytes()
}
