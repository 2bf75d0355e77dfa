//! Issuers that begin to sign with another key, and withdraw the one before.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::sleep;

use super::client::Client;
use super::good::orders;
use super::kind::Kind;
use super::material::{IN_USE, Left};
use super::{Job, Payload, perform};
use crate::Failure;
use crate::chaos::Event;
use crate::judge::Judge;
use crate::windows::Cause;
use crate::world::{MAIN, PLAIN, World};

/// From one rotation to the next.
const EVERY: Duration = Duration::from_secs(4);
/// An issuer whose keys could not be fetched a moment ago, or cannot in a moment, does not rotate:
/// a token with its new key would be answered 503 until the keys are fetched.
const APART: Duration = Duration::from_secs(40);
const SOON: Duration = Duration::from_secs(12);
/// The old key is published for this long.
const OVERLAP: Duration = Duration::from_secs(15);
/// Longest time until the keys are fetched again; their lifetime is 60 seconds.
const FETCHED: Duration = Duration::from_secs(120);

pub(crate) async fn run(
    world: Arc<World>,
    client: Arc<Client>,
    judge: Arc<Judge>,
    left: Arc<Left>,
    events: Vec<Event>,
    seed: u64,
) -> Result<(), Failure> {
    let mut random = SmallRng::seed_from_u64(seed ^ 0xF00D);
    for number in 0_usize.. {
        sleep(EVERY).await;
        let issuer = match number % 5 {
            0 => PLAIN,
            1 => MAIN,
            _ => random.gen_range(0..IN_USE),
        };
        let cause = Cause::Keys(World::server_of(issuer));
        let is_soon = |event: &Event| {
            let now = judge.now();
            event.what.cause() == cause && event.at >= now && event.at < now + SOON
        };
        if judge.is_disturbed(cause, APART) || events.iter().any(is_soon) {
            continue;
        }
        let old = world.token(issuer).claim("jti", format!("old-{number}")).build();
        // The server caches it.
        let payload = Payload::Http(orders(&format!("Bearer {old}"))?.into());
        let job = Job { kind: Kind::TenantNew, issuer: Some(issuer), payload, then: None };
        let _ = perform(job, &client, &judge).await;
        judge.begins(Cause::Rotation(issuer));
        world.rotate(issuer)?;
        judge.ends(Cause::Rotation(issuer));
        tokio::spawn(withdraw(Arc::clone(&world), Arc::clone(&left), issuer, old));
    }
    Ok(())
}

/// Withdraws the old keys, and leaves a token of theirs once the server must have noticed.
async fn withdraw(world: Arc<World>, left: Arc<Left>, issuer: usize, old: String) {
    let made = Instant::now();
    sleep(OVERLAP).await;
    let keys = world.issuer(issuer);
    keys.withdraw_old_keys();
    let (fetches, since) = (keys.jwks_fetches(), Instant::now());
    while since.elapsed() < FETCHED {
        sleep(Duration::from_secs(1)).await;
        if keys.jwks_fetches() > fetches {
            // The answer may be on its way.
            sleep(Duration::from_secs(2)).await;
            left.withdrawn.put((issuer, old), made);
            return;
        }
    }
}
