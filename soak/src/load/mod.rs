//! The load: good and hostile requests at a steady rate.

pub(crate) mod client;
mod good;
mod hostile;
pub(crate) mod kind;
pub(crate) mod material;
pub(crate) mod revoker;
pub(crate) mod rotator;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::distributions::{Distribution as _, WeightedIndex};
use rand::rngs::SmallRng;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval};

use crate::Failure;
use crate::judge::{Answered, Judge, Sent};
use client::{Client, Outgoing};
use kind::{Kind, MIXTURE};
use material::{IN_USE, Material};

/// Requests at once. When so many wait for an answer, the load waits too.
const AT_ONCE: usize = 512;
/// The load sends so often, each time as many requests as are due.
const TICK: Duration = Duration::from_millis(10);

/// A request with the answer that it must get.
pub(crate) struct Job {
    pub(crate) kind: Kind,
    pub(crate) issuer: Option<usize>,
    pub(crate) payload: Payload,
    /// What to do once a good request was accepted.
    pub(crate) then: Option<Then>,
}

pub(crate) enum Payload {
    Http(Box<Outgoing>),
    /// Something that a well-behaved client library would not send.
    Bytes(Vec<u8>),
}

/// Something is left behind for hostile requests.
pub(crate) enum Then {
    Used { token: String, proof: String },
    RevokeOpaque(String),
}

/// Sends a job and has it judged.
pub(crate) async fn perform(job: Job, client: &Client, judge: &Judge) -> (Answered, Option<Then>) {
    let text = match &job.payload {
        Payload::Http(request) => {
            let text = format!("{} {} {:?}", request.method(), request.uri(), request.headers());
            text.chars().take(4000).collect()
        }
        Payload::Bytes(bytes) => {
            format!("{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(200)]))
        }
    };
    let sent = Sent { kind: job.kind, issuer: job.issuer, text, at: Instant::now() };
    let answered = match job.payload {
        Payload::Http(request) => client.send(*request).await,
        Payload::Bytes(bytes) => client.send_bytes(&bytes).await,
    };
    judge.judge(&sent, &answered).await;
    (answered, job.then)
}

/// Sends each tenant in constant use a request, so that the server has cached its keys.
pub(crate) async fn first(
    material: &mut Material,
    client: &Client,
    judge: &Judge,
) -> Result<(), Failure> {
    for tenant in (0..IN_USE).chain([crate::world::MAIN, crate::world::PLAIN]) {
        let job = good::cached(material, Kind::TenantCached, tenant)?;
        let _ = perform(job, client, judge).await;
    }
    Ok(())
}

/// Sends requests until `until`, or until the judge has seen enough.
pub(crate) async fn run(
    mut material: Material,
    client: Arc<Client>,
    judge: Arc<Judge>,
    rate: u32,
    seed: u64,
    until: Instant,
) -> Result<(), Failure> {
    let mut random = SmallRng::seed_from_u64(seed);
    let weights = WeightedIndex::new(MIXTURE.iter().map(|(_, weight)| *weight))?;
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut last = Instant::now();
    let mut due = 0.0;
    while Instant::now() < until && !judge.is_over() {
        tick.tick().await;
        // At most what is due in a tenth of a second: a machine that was busy is not flooded.
        due = (due + last.elapsed().as_secs_f64() * f64::from(rate)).min(f64::from(rate) / 10.0);
        last = Instant::now();
        while due >= 1.0 {
            due -= 1.0;
            let (kind, _) = MIXTURE[weights.sample(&mut random)];
            let job = if kind.is_good() {
                good::job(&mut material, kind, &mut random)?
            } else {
                hostile::job(&mut material, kind, &mut random)?
            };
            let Some(job) = job else { continue };
            let permit = Arc::clone(&permits).acquire_owned().await?;
            let (client, judge) = (Arc::clone(&client), Arc::clone(&judge));
            let (left, world) = (Arc::clone(&material.left), Arc::clone(&material.world));
            tokio::spawn(async move {
                let (answered, then) = perform(job, &client, &judge).await;
                drop(permit);
                let is_success = answered.is_ok_and(|answer| answer.is_success());
                if let Some(then) = then.filter(|_| is_success) {
                    leave(then, &left, &world).await;
                }
            });
        }
    }
    // Wait for those on the way.
    let all = u32::try_from(AT_ONCE)?;
    drop(permits.acquire_many(all).await?);
    Ok(())
}

async fn leave(then: Then, left: &material::Left, world: &crate::world::World) {
    match then {
        Then::Used { token, proof } => left.used.put((token, proof), Instant::now()),
        Then::RevokeOpaque(token) => {
            let made = Instant::now();
            world.issuer(crate::world::MAIN).revoke(&token);
            // docs/opaque-tokens.md: an accepted token is cached for 60 seconds.
            tokio::time::sleep(Duration::from_secs(63)).await;
            left.revoked_opaque.put(token, made);
        }
    }
}
