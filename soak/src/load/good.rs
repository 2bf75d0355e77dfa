//! Good requests: each must be accepted, except in a documented window.

use axum::http::Request;
use bytes::Bytes;
use http_body_util::Full;
use portcullis::testing::AUDIENCE;
use rand::Rng as _;
use rand::rngs::SmallRng;

use super::client::Outgoing;
use super::kind::Kind;
use super::material::{IN_USE, Material, VALID_STATUSES};
use super::{Job, Payload, Then};
use crate::Failure;
use crate::world::{MAIN, PLAIN};

/// A call of a tool, as clients of the revision 2026-07-28 send it.
pub(super) fn tool_call(token: &str, tool: &str) -> Result<Outgoing, Failure> {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{{}},
        "_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}}}}"#
    );
    Ok(Request::post("/mcp")
        .header("host", "api.example.com")
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", "2026-07-28")
        .header("mcp-method", "tools/call")
        .header("mcp-name", tool)
        .body(Full::new(Bytes::from(body)))?)
}

/// A request to the API with this value of `Authorization`.
pub(super) fn orders(authorization: &str) -> Result<Outgoing, Failure> {
    Ok(Request::get("/orders")
        .header("host", "api.example.com")
        .header("authorization", authorization)
        .body(Full::default())?)
}

/// A request to the API with a proof.
pub(super) fn proven(token: &str, proof: &str) -> Result<Outgoing, Failure> {
    Ok(Request::get("/orders")
        .header("host", "api.example.com")
        .header("authorization", format!("DPoP {token}"))
        .header("dpop", proof)
        .body(Full::default())?)
}

/// The URL that proofs are made for.
pub(super) fn url() -> String {
    format!("{AUDIENCE}/orders")
}

/// A request with a token that may have been sent before.
pub(super) fn cached(material: &mut Material, kind: Kind, issuer: usize) -> Result<Job, Failure> {
    let token = material.cached(issuer);
    of(kind, issuer, &token)
}

fn of(kind: Kind, issuer: usize, token: &str) -> Result<Job, Failure> {
    let payload = Payload::Http(orders(&format!("Bearer {token}"))?.into());
    Ok(Job { kind, issuer: Some(issuer), payload, then: None })
}

pub(super) fn job(
    material: &mut Material,
    kind: Kind,
    random: &mut SmallRng,
) -> Result<Option<Job>, Failure> {
    let new = |issuer: usize, random: &mut SmallRng| {
        material.world.token(issuer).claim("jti", random.r#gen::<u64>().to_string()).build()
    };
    let tenant = random.gen_range(0..IN_USE);
    Ok(Some(match kind {
        Kind::TenantCached => cached(material, kind, tenant)?,
        Kind::TenantNew => of(kind, tenant, &new(tenant, random))?,
        Kind::TenantRare => {
            let tenant = material.next_tenant();
            let token = material.world.token(tenant).build();
            of(kind, tenant, &token)?
        }
        Kind::PlainCached => cached(material, kind, PLAIN)?,
        Kind::PlainNew => of(kind, PLAIN, &new(PLAIN, random))?,
        Kind::OpaqueCached => {
            let token = material.opaque(random);
            of(kind, MAIN, &token)?
        }
        Kind::OpaqueNew => {
            let token = material.new_opaque();
            let job = of(kind, MAIN, &token)?;
            let then = random.gen_bool(0.2).then_some(Then::RevokeOpaque(token));
            Job { then, ..job }
        }
        Kind::Bound => {
            let (client, token) = material.bound(random);
            let proof = material.clients[client].proof("GET", &url(), &token).build();
            let payload = Payload::Http(proven(&token, &proof)?.into());
            let then = Some(Then::Used { token, proof });
            Job { kind, issuer: Some(MAIN), payload, then }
        }
        Kind::ApiKey => {
            let key = &material.api_keys[random.gen_range(0..material.api_keys.len())];
            let payload = Payload::Http(orders(&format!("Bearer {key}"))?.into());
            Job { kind, issuer: None, payload, then: None }
        }
        Kind::Status => {
            let token = material.world.token(MAIN);
            let token = token.status(&material.list, random.gen_range(0..VALID_STATUSES));
            of(kind, MAIN, &token.build())?
        }
        Kind::Mcp => {
            let token = material.mcp();
            let payload = Payload::Http(tool_call(&token, "read_note")?.into());
            Job { kind, issuer: Some(PLAIN), payload, then: None }
        }
        _ => return Ok(None),
    }))
}
