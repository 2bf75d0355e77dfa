//! Requests, answers, failures, time and clients that go away, in thousands of orders: what a verifier promises of its keys
//! holds in all of them. (What the rules alone promise is searched exhaustively beside `keys/schedule.rs`.)
//!
//! The orders are drawn, and always the same ones. The issuer's server answers when the walk says so.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use portcullis::testing::{AUDIENCE, TestClock, TestIssuer};
use portcullis::{Algorithm, Issuer, Verifier};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

const WALKS: u64 = 60;
const STEPS: usize = 120;
const LIFETIME: Duration = Duration::from_secs(600);
const MAX_STALE: Duration = Duration::from_secs(3600);

/// SplitMix64: small, and the same everywhere.
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

/// Requests for the key set that wait for their answer.
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

    /// Those that are still waited for by the other side.
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
    /// A token of a key of the newest set that was answered, and when.
    served: Option<(String, Duration)>,
    fetches: u64,
    /// When the fetch under way was started.
    since: Option<Duration>,
    requests: JoinSet<&'static str>,
    trail: Vec<String>,
}

impl Walk {
    /// With and without tokens that were verified before: the promises are the same.
    async fn start(cached_tokens: u64) -> Self {
        let (server, clock) = (Server::default(), TestClock::new());
        let keys = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
        keys.set_clock(&clock);
        let uri = server.start().await;
        let issuer =
            Issuer::new(keys.iss(), AUDIENCE).and_then(|issuer| issuer.jwks_uri(&uri)).unwrap();
        // No fetch ends by itself: answers come when the walk says so.
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

    /// Lives for ever, as far as the walk is concerned.
    fn token(&self, kid: Option<&str>) -> String {
        let token = self.keys.token().claim("exp", 4_000_000_000_u64);
        kid.map_or_else(|| token.clone(), |kid| token.clone().header("kid", kid)).build()
    }

    fn request(&mut self, token: String, stays: bool) {
        if stays {
            let verifier = self.verifier.clone();
            self.requests.spawn(async move {
                verifier.verify(&token).await.map_or_else(|error| error.code(), |_| "ok")
            });
        } else {
            let mut request = pin!(self.verifier.verify(&token));
            let _ = request.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
    }

    fn fetching(&self) -> bool {
        self.verifier.health()[0].fetching
    }

    /// Lets everything run that can: what is asked arrives, what was answered is taken in.
    async fn settle(&mut self) {
        for _ in 0..5 {
            tokio::task::yield_now().await;
        }
        let mut turns = 0;
        while self.verifier.health()[0].fetches < self.fetches
            || self.fetching() != (self.server.waiting() > 0)
        {
            turns += 1;
            assert!(
                turns < 5000,
                "what was asked does not arrive, or what was answered: {:?}",
                self.trail
            );
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
                // While a fetch is under way, not so long that it is given up.
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
        // The check is a request, too.
        self.settle().await;
    }

    fn answer(&mut self, answer: Answer) {
        let good = answer.0 == StatusCode::OK && answer.1.contains("kty");
        if self.server.waiting() > 0 && self.server.answer(answer) {
            self.trail.push(format!("answered, well: {good}"));
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
        let mut request = pin!(self.verifier.verify(token));
        match request.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(_)) => assert!(age < LIFETIME + MAX_STALE, "too old: {:?}", self.trail),
            Poll::Ready(Err(error)) => {
                assert!(
                    age >= LIFETIME + MAX_STALE,
                    "a good set is lost: {error} {:?}",
                    self.trail
                );
            }
            Poll::Pending => {
                assert!(age >= LIFETIME, "a request with a fresh key waits: {:?}", self.trail);
            }
        }
    }

    /// Every waiter ends, once what is asked is answered.
    async fn end(mut self) {
        for _ in 0..2000 {
            if self.requests.is_empty() {
                return;
            }
            self.settle().await;
            self.answer((StatusCode::NOT_FOUND, String::new()));
            while self.requests.try_join_next().is_some() {}
        }
        panic!("{} requests wait for ever: {:?}", self.requests.len(), self.trail);
    }
}

#[tokio::test]
async fn promises_hold_in_every_order() {
    for seed in 0..WALKS {
        let (mut walk, mut dice) = (Walk::start(seed % 2 * 100).await, Dice(seed));
        for _ in 0..STEPS {
            walk.step(&mut dice).await;
        }
        walk.end().await;
    }
}
