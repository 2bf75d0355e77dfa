//! Tokens that are accepted, then revoked in one of four ways, and rejected from then on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::Request;
use http_body_util::Full;
use tokio::time::sleep;

use super::client::{Client, Outgoing};
use super::good::orders;
use super::hostile::{event, form, session_revoked};
use super::kind::Kind;
use super::material::Left;
use super::{Job, Payload, perform};
use crate::Failure;
use crate::judge::Judge;
use crate::server::WEB_SHOP;
use crate::world::{PLAIN, World};

const EVERY: Duration = Duration::from_millis(500);

pub(crate) async fn run(
    world: Arc<World>,
    client: Arc<Client>,
    judge: Arc<Judge>,
    left: Arc<Left>,
    api_key: String,
) -> Result<(), Failure> {
    for number in 0_usize.. {
        sleep(EVERY).await;
        let name = format!("revoked-{number}");
        let token = world.token(PLAIN).subject(&name).claim("jti", &*name).claim("sid", &*name);
        let token = token.build();
        let made = Instant::now();
        let request = orders(&format!("Bearer {token}"))?;
        let job = |kind, request| Job {
            kind,
            issuer: Some(PLAIN),
            payload: Payload::Http(Box::new(request)),
            then: None,
        };
        let _ = perform(job(Kind::Revocable, request.clone()), &client, &judge).await;
        let revoke = match number % 4 {
            0 => by_application(&world, "token", &name, &api_key)?,
            1 => by_application(&world, "subject", &name, &api_key)?,
            2 => {
                let logout = world.issuer(PLAIN).logout_token(WEB_SHOP).claim("sid", &*name);
                form("/backchannel-logout", &format!("logout_token={}", logout.build()))?
            }
            _ => event(&session_revoked(&world, PLAIN, &name))?,
        };
        let (answered, _) = perform(job(Kind::Revoke, revoke), &client, &judge).await;
        if answered.is_ok_and(|answer| answer.is_success()) {
            // At once.
            let _ = perform(job(Kind::Revoked, request), &client, &judge).await;
            left.revoked.put(token, made);
        }
    }
    Ok(())
}

fn by_application(world: &World, what: &str, name: &str, key: &str) -> Result<Outgoing, Failure> {
    let iss = world.iss(PLAIN).replace(':', "%3A").replace('/', "%2F");
    Ok(Request::post(format!("/revoke/{what}/{iss}/{name}"))
        .header("host", "api.example.com")
        .header("authorization", format!("Bearer {key}"))
        .body(Full::default())?)
}
