//! What fails, and when. The schedule depends on nothing but the duration and the seed.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::sleep_until;

use crate::Failure;
use crate::judge::Judge;
use crate::redis::Redis;
use crate::windows::Cause;
use crate::world::{Endpoint, MAIN, Mood, PLAIN, SHARDS, World};

#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    Endpoint(usize, Endpoint, Mood),
    /// SIGKILL; it is started again at the end.
    RedisKilled,
    /// SIGSTOP, and SIGCONT at the end.
    RedisStopped,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) what: What,
}

/// From one event to the next.
const EVERY: Duration = Duration::from_secs(18);
/// How long an event lasts, in seconds.
const LASTS: std::ops::RangeInclusive<u64> = 6..=13;
/// No event begins before, so that the first requests have been served.
const FIRST: Duration = Duration::from_secs(20);
/// No event ends later than this before the end, so that the recovery is seen.
const LAST: Duration = Duration::from_secs(40);
/// A soak of this length also has events that last longer than `max_stale`.
const LONG: Duration = Duration::from_secs(20 * 60);

pub(crate) fn schedule(duration: Duration, seed: u64) -> Vec<Event> {
    let mut random = SmallRng::seed_from_u64(seed);
    let (mut events, mut bag) = (Vec::new(), Vec::new());
    let mut at = FIRST;
    let mut has_long = false;
    loop {
        if duration >= LONG && !has_long && at >= duration / 4 {
            has_long = true;
            for what in [
                What::RedisKilled,
                What::Endpoint(World::server_of(MAIN), Endpoint::StatusList, Mood::Fail),
                What::Endpoint(1, Endpoint::Keys, Mood::Hang),
            ] {
                let lasts = Duration::from_secs(150);
                events.push(Event { at, lasts, what });
                at += lasts + EVERY;
            }
        }
        let lasts = Duration::from_secs(random.gen_range(LASTS));
        if at + lasts + LAST > duration {
            return events;
        }
        if bag.is_empty() {
            bag = kinds(&mut random);
        }
        if events.is_empty() {
            // Most requests wait while an issuer hangs. The warm-up includes it, because the server
            // keeps the memory that it needs then.
            let what = What::Endpoint(0, Endpoint::Keys, Mood::Hang);
            events.push(Event { at, lasts: Duration::from_secs(*LASTS.end()), what });
            at += EVERY;
        }
        let Some(what) = bag.pop() else { return events };
        events.push(Event { at, lasts, what });
        at += EVERY;
    }
}

/// Each kind of event once, in random order.
fn kinds(random: &mut SmallRng) -> Vec<What> {
    let main = World::server_of(MAIN);
    let mut shard = |mood| What::Endpoint(random.gen_range(0..SHARDS), Endpoint::Keys, mood);
    let mut kinds = vec![
        shard(Mood::Hang),
        shard(Mood::Fail),
        shard(Mood::Garbage),
        What::Endpoint(main, Endpoint::Keys, Mood::Hang),
        What::Endpoint(World::server_of(PLAIN), Endpoint::Keys, Mood::Fail),
        What::Endpoint(main, Endpoint::Introspection, Mood::Hang),
        What::Endpoint(main, Endpoint::Introspection, Mood::Fail),
        What::Endpoint(main, Endpoint::Introspection, Mood::Garbage),
        What::Endpoint(main, Endpoint::StatusList, Mood::Hang),
        What::Endpoint(main, Endpoint::StatusList, Mood::Garbage),
        What::RedisKilled,
        What::RedisStopped,
    ];
    kinds.shuffle(random);
    kinds
}

impl What {
    pub(crate) fn cause(self) -> Cause {
        match self {
            Self::Endpoint(server, Endpoint::Keys, _) => Cause::Keys(server),
            Self::Endpoint(_, Endpoint::Introspection, _) => Cause::Introspection,
            Self::Endpoint(_, Endpoint::StatusList, _) => Cause::StatusList,
            Self::RedisKilled | Self::RedisStopped => Cause::Redis,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, lasts) = (self.at.as_secs(), self.lasts.as_secs());
        write!(formatter, "{at:5} s, for {lasts:3} s: ")?;
        match self.what {
            What::Endpoint(server, endpoint, mood) => {
                write!(formatter, "{endpoint:?} of server {server}: {mood:?}")
            }
            What::RedisKilled => formatter.write_str("Redis is killed"),
            What::RedisStopped => formatter.write_str("Redis is stopped"),
        }
    }
}

/// Carries out the schedule.
pub(crate) async fn run(
    events: Vec<Event>,
    started: Instant,
    world: Arc<World>,
    judge: Arc<Judge>,
    mut redis: Redis,
) -> Result<(), Failure> {
    for event in events {
        sleep_until((started + event.at).into()).await;
        judge.begins(event.what.cause());
        match event.what {
            What::Endpoint(server, endpoint, mood) => world.set(server, endpoint, mood),
            What::RedisKilled => redis.kill().await?,
            What::RedisStopped => redis.signal("STOP").await?,
        }
        sleep_until((started + event.at + event.lasts).into()).await;
        match event.what {
            What::Endpoint(server, endpoint, _) => world.set(server, endpoint, Mood::Serve),
            What::RedisKilled => redis.run().await?,
            What::RedisStopped => {
                redis.signal("CONT").await?;
                redis.wait().await?;
            }
        }
        judge.ends(event.what.cause());
    }
    // It holds Redis: it ends with the soak.
    std::future::pending().await
}
