//! Whole requests, in process, through an axum router: what they cost beside the signature alone, which is the limit.
//!
//! `cargo run --release -p portcullis-benches --bin requests`
//!
//! One thread. Everything is measured in each of many rounds, in turn, and told as the median of each round's ratios to the
//! limit; the cost of an unprotected handler is subtracted. Allocations are counted, not timed.

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents};
use axum::body::Body;
use axum::http::{Request, header};
use axum::routing::get;
use axum::{Extension, Router};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use portcullis::testing::TestIssuer;
use portcullis::{AccessToken, Algorithm, ProtectLayer, Verifier};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tower::Service as _;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const ROUNDS: usize = 101;
const PER_ROUND: usize = 200;
const TOKENS: usize = 10_000;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(serde::Deserialize)]
struct User {
    sub: String,
}

/// The bytes that a token's signature is over, and the signature.
fn signed(token: &str) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let (input, signature) = token.rsplit_once('.').ok_or("a token has two periods")?;
    Ok((input.as_bytes().to_vec(), BASE64_URL_SAFE_NO_PAD.decode(signature)?))
}

/// The issuer's public key, parsed once.
fn parsed(issuer: &TestIssuer, algorithm: Algorithm) -> Result<ParsedPublicKey, Failure> {
    let jwk = issuer.jwks_json()["keys"][0].clone();
    let member = |name: &str| -> Result<Vec<u8>, Failure> {
        Ok(BASE64_URL_SAFE_NO_PAD.decode(jwk[name].as_str().ok_or("a key has its members")?)?)
    };
    Ok(match algorithm {
        Algorithm::RS256 => RsaPublicKeyComponents { n: member("n")?, e: member("e")? }
            .to_parsed_public_key(&signature::RSA_PKCS1_2048_8192_SHA256)?,
        Algorithm::PS256 => RsaPublicKeyComponents { n: member("n")?, e: member("e")? }
            .to_parsed_public_key(&signature::RSA_PSS_2048_8192_SHA256)?,
        Algorithm::ES256 => {
            let point = [&[4], member("x")?.as_slice(), member("y")?.as_slice()].concat();
            ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)?
        }
        _ => ParsedPublicKey::new(&signature::ED25519, member("x")?)?,
    })
}

/// What one round of requests costs, and how much it allocates.
struct Way<'a> {
    name: &'static str,
    app: Router,
    tokens: &'a [String],
    next: usize,
    ratios: Vec<f64>,
    allocations: usize,
}

impl<'a> Way<'a> {
    /// With its state given, as a server does: else axum would make the layers anew for each request.
    fn new(name: &'static str, app: Router, tokens: &'a [String]) -> Self {
        let app = app.with_state(());
        Self { name, app, tokens, next: 0, ratios: Vec::new(), allocations: 0 }
    }

    fn round(&mut self, runtime: &tokio::runtime::Runtime) -> Result<Duration, Failure> {
        let requests = (0..PER_ROUND).map(|_| {
            let request = Request::get("/");
            let request = match self.tokens.get(self.next % self.tokens.len().max(1)) {
                Some(token) => request.header(header::AUTHORIZATION, format!("Bearer {token}")),
                None => request,
            };
            self.next += 1;
            request.body(Body::empty())
        });
        let requests: Vec<_> = requests.collect::<Result<_, _>>()?;
        let app = &mut self.app;
        let region = Region::new(ALLOCATOR);
        let time = runtime.block_on(async {
            let start = Instant::now();
            for request in requests {
                let _ = black_box(app.call(request).await);
            }
            start.elapsed()
        });
        self.allocations = (region.change().allocations + region.change().reallocations) / PER_ROUND;
        Ok(time)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn measure(algorithm: Algorithm, runtime: &tokio::runtime::Runtime) -> Result<(), Failure> {
    let issuer = TestIssuer::offline_with("https://acme.eu.auth0.com/", algorithm)?;
    let token = |number: usize| {
        let token = issuer.token().subject("auth0|6553da60a54af58e29493993").scope("openid profile read:orders");
        let token = token.claim("jti", number).claim("permissions", ["read:orders", "write:orders"]);
        token.claim("https://acme.test/plan", "pro").claim("org_id", "org_9ybsU1dN2dKfDkBi").build()
    };
    let distinct: Vec<String> = (0..TOKENS).map(token).collect();
    let key = parsed(&issuer, algorithm)?;
    let pieces: Vec<_> = distinct.iter().map(|token| signed(token)).collect::<Result<_, _>>()?;

    let subject = async |token: AccessToken| token.subject().unwrap_or_default().to_owned();
    let typed = async |Extension(token): Extension<AccessToken>| {
        token.claims::<User>().map(|user| user.sub.clone()).unwrap_or_default()
    };
    let bare = Router::new().route("/", get(async || "auth0|6553da60a54af58e29493993".to_owned()));
    let verifier = |tokens: u64| Verifier::builder(issuer.issuer()).cache_tokens(tokens).build();
    let app = |verifier: Verifier| Router::new().route("/", get(subject)).route_layer(ProtectLayer::new(verifier));
    let asks = ProtectLayer::new(verifier(TOKENS as u64)?).scope("read:orders");
    let hot = Router::new().route("/", get(typed)).route_layer(asks);

    let mut unprotected = Way::new("unprotected", bare, &[]);
    let mut ways = [
        Way::new("distinct tokens, none kept", app(verifier(0)?), &distinct),
        Way::new("distinct tokens, each kept", app(verifier(100)?), &distinct),
        Way::new("the same token, scope asked for, own claims", hot, &distinct[..1]),
        Way::new("no token", app(verifier(0)?), &[]),
    ];
    let mut limits = Vec::new();
    for round in 0..ROUNDS {
        // The same bytes as the distinct tokens of this round: as cold in the processor's caches as those.
        let pieces = pieces.iter().cycle().skip(round * PER_ROUND % TOKENS).take(PER_ROUND);
        let start = Instant::now();
        for (input, signature) in pieces {
            black_box(key.verify_sig(black_box(input), signature))?;
        }
        let limit = start.elapsed();
        let handler = unprotected.round(runtime)?;
        limits.push(limit.as_secs_f64() / PER_ROUND as f64);
        unprotected.ratios.push(handler.as_secs_f64() / limit.as_secs_f64());
        for way in &mut ways {
            let time = way.round(runtime)?.as_secs_f64() - handler.as_secs_f64();
            way.ratios.push(time / limit.as_secs_f64());
        }
    }
    println!("\n{algorithm}, tokens of {} bytes; the limit: {:.1} µs", distinct[0].len(), median(limits) * 1e6);
    let handler = unprotected.allocations;
    println!("  {:<46} {:>6.3} x limit", unprotected.name, median(unprotected.ratios));
    for way in ways {
        let allocations = way.allocations.saturating_sub(handler);
        println!("  {:<46} {:>6.3} x limit, {allocations} allocations", way.name, median(way.ratios));
    }
    Ok(())
}

/// What a token takes that is kept.
fn memory(runtime: &tokio::runtime::Runtime) -> Result<(), Failure> {
    let issuer = TestIssuer::offline_with("https://acme.eu.auth0.com/", Algorithm::EdDSA)?;
    for padding in [0, 500, 2500] {
        let tokens: Vec<_> = (0..2000)
            .map(|number| issuer.token().claim("jti", number).claim("pad", "x".repeat(padding)).build())
            .collect();
        let verifier = Verifier::builder(issuer.issuer()).cache_tokens(TOKENS as u64).build()?;
        let region = Region::new(ALLOCATOR);
        for token in &tokens {
            runtime.block_on(verifier.verify(token))?;
        }
        let change = region.change();
        let bytes = (change.bytes_allocated - change.bytes_deallocated) / tokens.len();
        println!("  a token of {} bytes: {bytes} bytes", tokens[0].len());
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for algorithm in [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA] {
        measure(algorithm, &runtime)?;
    }
    println!("\nMemory of a token that is kept");
    memory(&runtime)
}
