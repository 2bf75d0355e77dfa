//! The command line.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use crate::Failure;
use crate::plant::Plant;

pub(crate) enum Role {
    /// Reads its configuration from the first line of its input, and ends with its input.
    Server,
    Load(Settings),
}

pub(crate) struct Settings {
    pub(crate) duration: Duration,
    /// Where the table, the plot and the log of the server go.
    pub(crate) out: PathBuf,
    /// For the files of Redis.
    pub(crate) work: PathBuf,
    pub(crate) redis: PathBuf,
    /// Requests per second, good and hostile.
    pub(crate) rate: u32,
    /// Decides the chaos and the mixture of requests.
    pub(crate) seed: u64,
    pub(crate) plant: Plant,
}

const USAGE: &str = "soak load MINUTES --out DIR --work DIR --redis FILE [--rate PER_SECOND] \
                     [--seed NUMBER] [--plant leak|files|accept|lose|status|late|stuck]";

pub(crate) fn read() -> Result<Role, Failure> {
    let mut arguments = env::args().skip(1);
    match arguments.next().as_deref() {
        Some("server") => return Ok(Role::Server),
        Some("load") => {}
        _ => return Err(format!("usage: {USAGE}").into()),
    }
    let minutes: u64 = arguments.next().ok_or(USAGE)?.parse()?;
    let (mut out, mut work, mut redis) = (None, None, None);
    let (mut rate, mut seed, mut plant) = (1000, 1, Plant::Nothing);
    while let Some(option) = arguments.next() {
        let value = arguments.next().ok_or(USAGE)?;
        match &*option {
            "--out" => out = Some(value.into()),
            "--work" => work = Some(value.into()),
            "--redis" => redis = Some(value.into()),
            "--rate" => rate = value.parse()?,
            "--seed" => seed = value.parse()?,
            "--plant" => plant = value.parse()?,
            _ => return Err(format!("{option}: usage: {USAGE}").into()),
        }
    }
    Ok(Role::Load(Settings {
        duration: Duration::from_secs(60 * minutes),
        out: out.ok_or(USAGE)?,
        work: work.ok_or(USAGE)?,
        redis: redis.ok_or(USAGE)?,
        rate: std::cmp::max(rate, 50),
        seed,
        plant,
    }))
}
