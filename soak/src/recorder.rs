//! One sample of the server per second, and the check that nothing of it grows.

use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::http::Request;
use http_body_util::Full;
use serde_json::Value;
use tokio::time::{MissedTickBehavior, interval};

use crate::Failure;
use crate::judge::Judge;
use crate::load::client::Client;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Seconds since the start.
    pub(crate) at: f64,
    /// Resident memory, in bytes.
    pub(crate) rss: f64,
    /// Bytes on the heap of Rust. What the C library of the cryptography holds is not counted.
    pub(crate) heap: f64,
    pub(crate) files: f64,
    pub(crate) threads: f64,
    /// Requests since the start.
    pub(crate) accepted: u64,
    pub(crate) lost: u64,
    pub(crate) rejected: u64,
    pub(crate) failed: u64,
}

impl Sample {
    fn requests(&self) -> u64 {
        self.accepted + self.lost + self.rejected + self.failed
    }
}

/// What must not grow, and by how much it may.
pub(crate) struct Limit {
    name: &'static str,
    of: fn(&Sample) -> f64,
    unit: &'static str,
    /// How many of the sample's units make one of `unit`.
    per_unit: f64,
    /// Growth from the first to the last third after the warm-up, as a part of the former, and for
    /// what does not depend on the size.
    part: f64,
    at_least: f64,
}

const MIB: f64 = 1024.0 * 1024.0;

const LIMITS: [Limit; 4] = [
    // The allocator keeps the pages of the moment when most requests waited, which may be late.
    Limit {
        name: "resident memory",
        of: |sample| sample.rss,
        unit: " MiB",
        per_unit: MIB,
        part: 0.08,
        at_least: 6.0 * MIB,
    },
    // Exact, so a narrower limit: 10 bytes per request in 5 minutes, less than one in an hour.
    // Some bounded tables, such as those of unknown `kid`s, fill for longer than the warm-up.
    Limit {
        name: "heap",
        of: |sample| sample.heap,
        unit: " MiB",
        per_unit: MIB,
        part: 0.03,
        at_least: MIB,
    },
    // Connections of clients are kept; those to issuers come and go.
    Limit {
        name: "open files",
        of: |sample| sample.files,
        unit: "",
        per_unit: 1.0,
        part: 0.05,
        at_least: 10.0,
    },
    Limit {
        name: "threads",
        of: |sample| sample.threads,
        unit: "",
        per_unit: 1.0,
        part: 0.0,
        at_least: 2.0,
    },
];

/// Samples of which the lowest counts for the slope. While an issuer hangs, requests that wait take
/// memory and connections, which is no growth.
const LOWEST_OF: usize = 20;

/// What of the time the caches take to fill: a fifth, and at least as long as used proofs are
/// remembered (two minutes), but not more than half.
pub(crate) fn warm_up(duration: Duration) -> Duration {
    (duration / 5).max(Duration::from_secs(140)).min(duration / 2)
}

/// Reads the memory and the file descriptors of the server.
pub(crate) async fn sample(id: u32, client: &Client, judge: &Judge) -> Result<Sample, Failure> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let field = |name: &str| -> f64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.unwrap_or_default()
    };
    let files = fs::read_dir(format!("/proc/{id}/fd"))?.count();
    let request = Request::get("/stats").header("host", "a").body(Full::default())?;
    let stats: Value = serde_json::from_slice(&client.body(request).await?)?;
    Ok(Sample {
        at: judge.now().as_secs_f64(),
        rss: field("VmRSS:") * 1024.0,
        heap: stats["heap"].as_f64().unwrap_or_default(),
        files: files as f64,
        threads: field("Threads:"),
        accepted: judge.accepted.load(Ordering::Relaxed),
        lost: judge.lost.load(Ordering::Relaxed),
        rejected: judge.rejected.load(Ordering::Relaxed),
        failed: judge.failed.load(Ordering::Relaxed),
    })
}

/// Takes samples until it is dropped, and sends each to `samples`.
pub(crate) async fn run(
    id: u32,
    client: Arc<Client>,
    judge: Arc<Judge>,
    samples: Arc<std::sync::Mutex<Vec<Sample>>>,
) -> Result<(), Failure> {
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tick.tick().await;
        let sample = sample(id, &client, &judge).await?;
        let count = {
            let mut samples = samples.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            samples.push(sample);
            samples.len()
        };
        if count % 30 == 0 {
            println!(
                "{:5.0} s  {:6.1} MiB resident, {:6.1} MiB heap, {:3} files; {} accepted, {} lost in windows, {} rejected, {} failures",
                sample.at,
                sample.rss / MIB,
                sample.heap / MIB,
                sample.files,
                sample.accepted,
                sample.lost,
                sample.rejected,
                sample.failed
            );
        }
    }
}

pub(crate) fn table(samples: &[Sample]) -> String {
    let mut table =
        "second\trss_bytes\theap_bytes\tfiles\tthreads\taccepted_per_s\tlost_per_s\trejected_per_s\tfailed_per_s\n"
            .to_owned();
    let mut before = Sample::default();
    for sample in samples {
        let per_second =
            |now: u64, then: u64| (now - then) as f64 / (sample.at - before.at).max(0.001);
        let _ = writeln!(
            table,
            "{:.1}\t{}\t{}\t{}\t{}\t{:.1}\t{:.1}\t{:.1}\t{:.1}",
            sample.at,
            sample.rss,
            sample.heap,
            sample.files,
            sample.threads,
            per_second(sample.accepted, before.accepted),
            per_second(sample.lost, before.lost),
            per_second(sample.rejected, before.rejected),
            per_second(sample.failed, before.failed),
        );
        before = *sample;
    }
    table
}

/// Whether what is limited is flat after the warm-up: a line for each, and whether it holds.
pub(crate) fn flat(samples: &[Sample], warm_up: Duration) -> Vec<(String, bool)> {
    let warm: Vec<_> = samples.iter().filter(|one| one.at >= warm_up.as_secs_f64()).collect();
    let third = warm.len() / 3;
    if third < 10 {
        return vec![("too few samples to say whether memory is flat".to_owned(), false)];
    }
    let (first, last) = (&warm[..third], &warm[warm.len() - third..]);
    let requests = last[third / 2].requests() - first[third / 2].requests();
    let check = |limit: &Limit| {
        let (from, to) = (median(first, limit.of), median(last, limit.of));
        let allowed = (from * limit.part).max(limit.at_least);
        // By the line through all samples: what grows only at the end counts as well.
        let by_slope = slope(&warm, limit.of) * (warm[warm.len() - 1].at - warm[0].at);
        let holds = to - from <= allowed && by_slope <= 1.5 * allowed;
        let (unit, per_unit) = (limit.unit, limit.per_unit);
        let line = format!(
            "{}: {:.1}{unit}, then {:.1}{unit}; slope {:+.2}{unit}; limit {:+.2}{unit}; {:+.2} per request",
            limit.name,
            from / per_unit,
            to / per_unit,
            by_slope / per_unit,
            allowed / per_unit,
            (to - from) / requests.max(1) as f64,
        );
        (line, holds)
    };
    LIMITS.iter().map(check).collect()
}

fn median(samples: &[&Sample], of: fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<_> = samples.iter().map(|sample| of(sample)).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Of the line with the least squares through the lowest of every few samples, per second.
fn slope(samples: &[&Sample], of: fn(&Sample) -> f64) -> f64 {
    let lowest = samples.chunks(LOWEST_OF).map(|few| {
        let at = few.iter().map(|one| one.at).sum::<f64>() / few.len() as f64;
        (at, few.iter().map(|one| of(one)).fold(f64::INFINITY, f64::min))
    });
    let points: Vec<_> = lowest.collect();
    let mean =
        |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
    let (at, value) = (mean(|point| point.0), mean(|point| point.1));
    let together: f64 = points.iter().map(|point| (point.0 - at) * (point.1 - value)).sum();
    let alone: f64 = points.iter().map(|point| (point.0 - at).powi(2)).sum();
    if alone == 0.0 { 0.0 } else { together / alone }
}
