//! One soak from its start to its verdict.

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::Failure;
use crate::arguments::Settings;
use crate::chaos::{self, Event};
use crate::child::Server;
use crate::judge::{Judge, Totals};
use crate::load::client::Client;
use crate::load::kind::{Kind, MIXTURE};
use crate::load::material::Material;
use crate::load::{self, revoker, rotator};
use crate::plot;
use crate::recorder::{self, Sample};
use crate::redis::Redis;
use crate::slow;
use crate::windows::{FEWEST, FEWEST_HOSTILE, LOST_AT_MOST, UNAVAILABLE_AT_MOST, WINDOWS};
use crate::world::{MAIN, PLAIN, TENANTS, World};

pub(crate) async fn run(settings: Settings) -> Result<ExitCode, Failure> {
    let mut interrupted = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        ended = soak(settings) => ended,
        // Dropping the soak ends the server and Redis.
        _ = interrupted.0.recv() => Ok(ExitCode::from(130)),
        _ = interrupted.1.recv() => Ok(ExitCode::from(143)),
    }
}

async fn soak(settings: Settings) -> Result<ExitCode, Failure> {
    fs::create_dir_all(&settings.out)?;
    let world = World::start().await?;
    let redis = Redis::start(&settings.redis, &settings.work).await?;
    let port = redis.port;
    let (mut material, hashes) = Material::new(Arc::clone(&world))?;
    let config = json!({
        "configured": [world.iss(MAIN), world.iss(PLAIN)],
        "tenants": (0..TENANTS).map(|tenant| world.iss(tenant)).collect::<Vec<_>>(),
        "redis": redis.url(),
        "api_keys": hashes,
        "plant": settings.plant.name(),
    });
    let mut server = Server::start(&config, &settings.out.join("server.log")).await?;
    println!(
        "server {} at {}; {} requests per second, seed {}",
        server.id, server.address, settings.rate, settings.seed
    );
    let events = chaos::schedule(settings.duration, settings.seed);
    events.iter().for_each(|event| println!("{event}"));

    let client = Arc::new(Client::new(&server.address));
    client.open().await?;
    let started = Instant::now();
    let judge = Arc::new(Judge::new(server.log.clone()));
    let samples = Arc::new(Mutex::new(Vec::new()));
    load::first(&mut material, &client, &judge).await?;

    let (left, key) = (Arc::clone(&material.left), material.api_keys[0].clone());
    let until = started + settings.duration;
    let ended = tokio::select! {
        ended = load::run(material, Arc::clone(&client), Arc::clone(&judge), settings.rate, settings.seed, until) => ended,
        ended = chaos::run(events.clone(), started, Arc::clone(&world), Arc::clone(&judge), redis) => ended,
        ended = rotator::run(Arc::clone(&world), Arc::clone(&client), Arc::clone(&judge), Arc::clone(&left), events.clone(), settings.seed) => ended,
        ended = revoker::run(Arc::clone(&world), Arc::clone(&client), Arc::clone(&judge), left, key) => ended,
        ended = slow::run(port, Arc::clone(&judge)) => ended,
        ended = recorder::run(server.id, Arc::clone(&client), Arc::clone(&judge), Arc::clone(&samples)) => ended,
    };
    if let Err(error) = ended {
        judge.report(format!("the soak could not go on: {error}"));
    }
    if !server.is_alive() {
        judge.report(format!("the server has ended:\n{}", server.log.since(None).join("\n")));
    }
    if server.log.panics() > 0 {
        judge.report(format!("the server has panicked {} times: server.log", server.log.panics()));
    }
    let metrics = metrics(&client).await.unwrap_or_default();
    client.close();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let samples = samples.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let passed = conclude(&settings, &judge, &samples, &events, &metrics)?;
    server.stop().await;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// At least this part of the intended requests must be sent.
const SENT: f64 = 0.9;

/// The kinds of which no request was answered as it must be. A soak that sends none would pass.
fn missing(totals: &Totals) -> Vec<Kind> {
    let kinds = MIXTURE.iter().map(|(kind, _)| *kind).chain([Kind::Revocable, Kind::Revoke]);
    let is_missing = |kind: &Kind| match kind.answers().first() {
        Some((status, code)) => {
            !totals.rejected.contains_key(&(*kind, *status, (*code).to_owned()))
        }
        None => !totals.accepted.contains_key(kind),
    };
    kinds.filter(is_missing).collect()
}

/// Prints for each window how long it was open for the requests that it concerns, and how many of
/// them were lost. Returns whether both are within their limits.
fn windows(totals: &Totals, now: Duration) -> bool {
    println!("Windows, by the requests that they concern:");
    let mut hold = true;
    for window in WINDOWS {
        let of = |kind: &&Kind| window.kinds.contains(kind);
        let accepted: u64 = window.kinds.iter().filter_map(|kind| totals.accepted.get(kind)).sum();
        let all_lost: u64 =
            totals.lost.iter().filter(|((_, kind), _)| of(&kind)).map(|(_, count)| count).sum();
        let lost: u64 = totals
            .lost
            .iter()
            .filter(|((name, _), _)| *name == window.name)
            .map(|(_, count)| count)
            .sum();
        let within = totals.within.get(window.name).copied().unwrap_or_default();
        let open = part(within, accepted + all_lost);
        let is_short = open <= window.open_at_most;
        let are_few = within < FEWEST || part(lost, within) <= window.lost_at_most;
        hold &= is_short && are_few;
        println!(
            "  {} open {:5.1} % ({:.0} s), limit {:.0} %; {:5.1} % of {within} lost, limit {:.0} %: {}",
            match (is_short, are_few) {
                (true, true) => "ok  ",
                (false, _) => "LONG",
                (true, false) => "LOST",
            },
            100.0 * open,
            open * now.as_secs_f64(),
            100.0 * window.open_at_most,
            100.0 * part(lost, within),
            100.0 * window.lost_at_most,
            window.name
        );
    }
    let lost: u64 = totals.lost.values().sum();
    let lost = part(lost, lost + totals.accepted.values().sum::<u64>());
    println!(
        "Lost: {:.2} % of all good requests; limit {:.0} %.",
        100.0 * lost,
        100.0 * LOST_AT_MOST
    );
    hold && lost <= LOST_AT_MOST
}

/// Prints how the hostile requests of each kind were rejected. Returns whether few enough were
/// answered 503 because a window was open, instead of for their own reason.
fn hostile(totals: &Totals) -> bool {
    println!("Hostile requests, rejected: all; 503 in an open window; by status and code");
    let mut kinds: BTreeMap<_, (u64, u64, Vec<String>)> = BTreeMap::new();
    for ((kind, status, code), count) in &totals.rejected {
        let (all, unavailable, answers) = kinds.entry(kind).or_default();
        *all += count;
        // No kind has 503 as its own answer.
        if *status == 503 {
            *unavailable += count;
        }
        let status = if *status == 0 { "closed".to_owned() } else { status.to_string() };
        answers.push(format!("{count} × {status} {code}").trim_end().to_owned());
    }
    let mut hold = true;
    for (kind, (all, unavailable, answers)) in kinds {
        let part = part(unavailable, all);
        let are_few = all <= FEWEST_HOSTILE || part <= UNAVAILABLE_AT_MOST;
        hold &= are_few;
        println!(
            "  {} {:19} {all:7} {unavailable:6} {:5.1} %  {}",
            if are_few { "ok  " } else { "MANY" },
            format!("{kind:?}"),
            100.0 * part,
            answers.join(", ")
        );
    }
    println!("Limit for 503: {:.0} % of a kind.", 100.0 * UNAVAILABLE_AT_MOST);
    hold
}

fn part(count: u64, of: u64) -> f64 {
    count as f64 / of.max(1) as f64
}

/// The part of the requests at the intended rate that was answered. Fewer are sent when the machine
/// is busy, or when too many wait for an answer.
fn sent_part(settings: &Settings, judge: &Judge) -> f64 {
    let answered = [&judge.accepted, &judge.lost, &judge.rejected, &judge.failed];
    let answered: u64 = answered.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    let time = judge.now().min(settings.duration);
    answered as f64 / (time.as_secs_f64() * f64::from(settings.rate))
}

async fn metrics(client: &Client) -> Result<Value, Failure> {
    let request = Request::get("/stats").header("host", "a").body(Full::default())?;
    Ok(serde_json::from_slice::<Value>(&client.body(request).await?)?["metrics"].clone())
}

/// Writes the table and the plot, prints the totals, and returns the verdict.
fn conclude(
    settings: &Settings,
    judge: &Judge,
    samples: &[Sample],
    events: &[Event],
    metrics: &Value,
) -> Result<bool, Failure> {
    let warm_up = recorder::warm_up(settings.duration);
    fs::write(settings.out.join("samples.tsv"), recorder::table(samples))?;
    fs::write(settings.out.join("soak.svg"), plot::svg(samples, events, warm_up))?;
    fs::write(settings.out.join("metrics.json"), serde_json::to_string_pretty(metrics)?)?;

    let totals = judge.totals();
    println!("\nGood requests, accepted:");
    totals.accepted.iter().for_each(|(kind, count)| println!("{count:10}  {kind:?}"));
    println!("Good requests, lost in a documented window:");
    totals.lost.iter().for_each(|((name, kind), count)| println!("{count:10}  {name} ({kind:?})"));
    let are_rejected = hostile(&totals);
    let happened = events.iter().filter(|event| event.at < judge.now()).count();
    println!("Events of chaos: {happened} of {}", events.len());

    let (times, time) = judge.slow();
    println!("Redis was late {times} times because the machine was busy, {time:.1?} in all.");
    let is_busy = time > judge.now() / 10;
    if is_busy {
        println!("The machine is too busy for a soak.");
    }

    let windows_hold = windows(&totals, judge.now());
    let sent = sent_part(settings, judge);
    println!(
        "Sent: {:.1} % of the intended requests; at least {:.0} %.",
        100.0 * sent,
        100.0 * SENT
    );

    let mut is_flat = true;
    println!("Growth from the first to the last third, after {} s of warm-up:", warm_up.as_secs());
    for (line, holds) in recorder::flat(samples, warm_up) {
        println!("  {} {line}", if holds { "ok  " } else { "GROWS" });
        is_flat &= holds;
    }
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{} good requests accepted, {} lost in documented windows, {} hostile ones rejected, {} failures.",
        count(&judge.accepted),
        count(&judge.lost),
        count(&judge.rejected),
        totals.failures.len()
    );
    let missing = missing(&totals);
    if !missing.is_empty() {
        println!("Never answered as expected, so the soak shows nothing about them: {missing:?}");
    }
    let passed = is_flat
        && windows_hold
        && are_rejected
        && sent >= SENT
        && totals.failures.is_empty()
        && missing.is_empty()
        && !is_busy;
    println!("{}", if passed { "The soak has passed." } else { "The soak has FAILED." });
    Ok(passed)
}
