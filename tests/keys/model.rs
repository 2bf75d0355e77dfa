//! Random walks: requests, responses, failures, the passing of time and dropped requests in
//! thousands of orders. The verifier's guarantees about its keys hold in all of them. (The
//! guarantees of the scheduling rules alone are searched exhaustively beside
//! `keys/remote/schedule.rs`.)
//!
//! The orders are pseudorandom with fixed seeds. The issuer's server responds when the walk says
//! so.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use portcullis::testing::{AUDIENCE, TestClock, TestIssuer};
use portcullis::{Algorithm, Issuer, Verifier};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::poll_once::poll_once;
use crate::verdict::verdict;

const WALKS: u64 = 60;
const STEPS: usize = 120;
const LIFETIME: Duration = Duration::from_secs(600);
const MAX_STALE: Duration = Duration::from_secs(3600);

/// SplitMix64: small and deterministic on every platform.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }
}

type Answer = (StatusCode, String);

/// Requests for the key set that wait for a response.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<VecDeque<oneshot::Sender<Answer>>>>);

impl Server {
    async fn start(&self) -> String {
        let waiting = self.clone();
        let router = Router::new().fallback(async move || {
            let (answer, answered) = oneshot::channel();
            waiting.0.lock().unwrap().push_back(answer);
            answered.await.unwrap_or((StatusCode::NOT_FOUND, String::new()))
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/keys", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        uri
    }

    /// The number of requests whose client still waits.
    fn waiting(&self) -> usize {
        let mut waiting = self.0.lock().unwrap();
        waiting.retain(|answer| !answer.is_closed());
        waiting.len()
    }

    fn answer(&self, answer: Answer) -> bool {
        self.0.lock().unwrap().pop_front().is_some_and(|waiting| waiting.send(answer).is_ok())
    }
}

struct Walk {
    server: Server,
    keys: TestIssuer,
    clock: TestClock,
    verifier: Verifier,
    now: Duration,
    /// A token signed with a key of the newest set that was served, and the time when it was
    /// served.
    served: Option<(String, Duration)>,
    fetches: u64,
    /// When the fetch in progress was started.
    since: Option<Duration>,
    requests: JoinSet<&'static str>,
    trail: Vec<String>,
}

impl Walk {
    /// Starts with or without a token cache: the guarantees are the same.
    async fn start(cached_tokens: u64) -> Self {
        let (server, clock) = (Server::default(), TestClock::new());
        let keys = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
        keys.set_clock(&clock);
        let uri = server.start().await;
        let issuer =
            Issuer::new(keys.iss(), AUDIENCE).and_then(|issuer| issuer.jwks_uri(&uri)).unwrap();
        // No fetch ends by itself: responses arrive when the walk says so.
        let issuer = issuer.keys_fetch_timeout(Duration::from_secs(60)).unwrap();
        let verifier = Verifier::builder(issuer)
            .clock(&clock)
            .token_cache_capacity(cached_tokens)
            .build()
            .unwrap();
        let (requests, trail) = (JoinSet::new(), Vec::new());
        let (now, since, served, fetches) = (Duration::ZERO, None, None, 0);
        Self { server, keys, clock, verifier, now, served, fetches, since, requests, trail }
    }

    /// Does not expire during the walk.
    fn token(&self, kid: Option<&str>) -> String {
        let token = self.keys.token().claim("exp", 4_000_000_000_u64);
        kid.map_or_else(|| token.clone(), |kid| token.clone().header("kid", kid)).build()
    }

    fn request(&mut self, token: String, stays: bool) {
        if stays {
            let verifier = self.verifier.clone();
            self.requests.spawn(async move { verdict(&verifier, &token).await });
        } else {
            let _ = poll_once(pin!(self.verifier.verify(&token)));
        }
    }

    fn fetching(&self) -> bool {
        self.verifier.health()[0].fetching
    }

    /// Runs every task until it blocks: sent requests arrive and responses are processed.
    async fn settle(&mut self) {
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        let mut turns = 0;
        while self.verifier.health()[0].fetches < self.fetches
            || self.fetching() != (self.server.waiting() > 0)
        {
            turns += 1;
            assert!(turns < 5000, "a request or a response does not arrive: {:?}", self.trail);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.since = if self.fetching() { self.since.or(Some(self.now)) } else { None };
        while let Some(verdict) = self.requests.try_join_next() {
            let verdict = verdict.unwrap();
            assert!(
                ["ok", "unknown_key", "keys_unavailable"].contains(&verdict),
                "{verdict}: {:?}",
                self.trail
            );
        }
    }

    async fn step(&mut self, dice: &mut Dice) {
        match dice.below(10) {
            0..3 => {
                // While a fetch is in progress, advance less than the time until it is abandoned.
                let longest = self
                    .since
                    .map_or(3000, |since| 59_u64.saturating_sub((self.now - since).as_secs()));
                let seconds = [1, 5, 10, 60, 500, 3000][dice.below(6) as usize].min(longest);
                self.trail.push(format!("{seconds} s pass"));
                self.now += Duration::from_secs(seconds);
                self.clock.advance(Duration::from_secs(seconds));
            }
            3..6 => {
                let stays = dice.below(3) > 0;
                self.trail.push(format!("request, stays: {stays}"));
                self.request(self.token(None), stays);
            }
            6 => {
                let kid = format!("junk-{}", dice.below(3));
                let stays = dice.below(3) > 0;
                self.trail.push(format!("{kid}, stays: {stays}"));
                self.request(self.token(Some(&kid)), stays);
            }
            7 => {
                self.trail.push("rotate".into());
                self.keys.rotate().unwrap();
            }
            8 => self.answer((StatusCode::OK, self.keys.jwks_json().to_string())),
            _ => {
                let bad =
                    [(404, ""), (200, "<html>"), (200, "{\"keys\":[]}")][dice.below(3) as usize];
                self.answer((StatusCode::from_u16(bad.0).unwrap(), bad.1.to_owned()));
            }
        }
        self.settle().await;
        self.check();
        // The check also sends a request.
        self.settle().await;
    }

    fn answer(&mut self, answer: Answer) {
        let good = answer.0 == StatusCode::OK && answer.1.contains("kty");
        if self.server.waiting() > 0 && self.server.answer(answer) {
            self.trail.push(format!("answered, good set: {good}"));
            self.fetches += 1;
            if good {
                self.served = Some((self.token(None), self.now));
            }
        }
    }

    fn check(&self) {
        assert!(self.server.waiting() <= 1, "two fetches at once: {:?}", self.trail);
        let Some((token, since)) = &self.served else { return };
        let age = self.now - *since;
        match poll_once(pin!(self.verifier.verify(token))) {
            Poll::Ready(Ok(_)) => assert!(
                age < LIFETIME + MAX_STALE,
                "stale keys are used too long: {:?}",
                self.trail
            ),
            Poll::Ready(Err(error)) => {
                assert!(
                    age >= LIFETIME + MAX_STALE,
                    "a valid set is lost: {error} {:?}",
                    self.trail
                );
            }
            Poll::Pending => {
                assert!(
                    age >= LIFETIME,
                    "a request waits although its key is fresh: {:?}",
                    self.trail
                );
            }
        }
    }

    /// Every waiting request ends once all fetches are answered.
    async fn end(mut self) {
        for _ in 0..2000 {
            if self.requests.is_empty() {
                return;
            }
            self.settle().await;
            self.answer((StatusCode::NOT_FOUND, String::new()));
            while self.requests.try_join_next().is_some() {}
        }
        panic!("{} requests wait forever: {:?}", self.requests.len(), self.trail);
    }
}

#[tokio::test]
async fn guarantees_about_keys_hold_in_every_order() {
    for seed in 0..WALKS {
        let (mut walk, mut dice) = (Walk::start(seed % 2 * 100).await, Dice(seed));
        for _ in 0..STEPS {
            walk.step(&mut dice).await;
        }
        walk.end().await;
    }
}
