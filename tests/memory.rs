//! The memory that cached tokens take is bounded by the configuration, whatever a tenant writes
//! into its tokens. These tests have a binary of their own, because they count the allocations of
//! the whole process.

use std::sync::Arc;

use peak_alloc::PeakAlloc;
use portcullis::testing::{TestClock, TestIssuer};
use portcullis::{AccessToken, Algorithm, Verifier};
use serde_json::{Value, json};
use tokio::sync::Mutex;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Serializes the tests, because each measures the whole process.
static ALONE: Mutex<()> = Mutex::const_new(());

const MEGABYTE: usize = 1_000_000;

/// The JSON that takes the most memory when read: each `{"":0}`, 7 bytes with its comma, becomes a
/// node of a B-tree.
fn dear(members: usize) -> Value {
    json!(vec![json!({ "": 0 }); members])
}

struct Fixture {
    issuer: TestIssuer,
    clock: TestClock,
    verifier: Verifier,
    start: usize,
}

fn fixture(tokens: u64) -> Fixture {
    let clock = TestClock::new();
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    issuer.set_clock(&clock);
    let builder = Verifier::builder(issuer.issuer()).clock(&clock);
    let start = MEMORY.current_usage();
    let verifier = builder.token_cache_capacity(tokens).build().unwrap();
    Fixture { issuer, clock, verifier, start }
}

impl Fixture {
    /// Verifies `tokens` distinct tokens three times each, and reads their claims with `read`.
    /// Returns the length of all tokens.
    async fn fill(
        &self,
        tokens: usize,
        name: &str,
        claim: &Value,
        read: impl Fn(&AccessToken),
    ) -> usize {
        let mut bytes = 0;
        for number in 0..tokens {
            let token = self.issuer.token().claim("jti", number).claim(name, claim.clone()).build();
            bytes += token.len();
            for _ in 0..3 {
                read(&self.verifier.verify(&token).await.unwrap());
            }
        }
        bytes
    }

    fn taken(&self) -> usize {
        MEMORY.current_usage().saturating_sub(self.start)
    }
}

/// A tenant tries to exhaust memory with its claims. They are read as a tree and as the
/// application's own type.
#[tokio::test]
async fn tokens_with_expensive_claims_take_no_more_memory_than_others() {
    let _alone = ALONE.lock().await;
    type Read = fn(&AccessToken);
    let ways: [(&str, Read); 3] = [
        ("a rule", |token| assert!(!token.has_role("admin"))),
        ("an own type", |token| drop(token.claims::<Value>().unwrap())),
        ("both", |token| {
            assert!(!token.has_role("admin"));
            let _: Arc<Value> = token.claims().unwrap();
        }),
    ];
    for (name, read) in ways {
        // A tenth of the default of 10,000 tokens and 80 MB, so that the test takes seconds.
        let fixture = fixture(1000);
        let bytes = fixture.fill(219, "profile", &dear(1703), read).await;
        assert!(bytes > 3_200_000, "{bytes}");
        let taken = fixture.taken();
        assert!(taken <= 12 * MEGABYTE, "{name}: {bytes} bytes of tokens take {taken}");
    }
}

/// The bound is 8 KiB per token of the capacity plus the table, whatever the tokens contain.
#[tokio::test]
async fn the_documented_bound_holds() {
    let _alone = ALONE.lock().await;
    for capacity in [50, 100_000] {
        for (name, claim) in [
            ("an ordinary token", json!("x".repeat(300))),
            ("a long token", json!("x".repeat(11_000))),
            ("groups", json!(vec!["0a1b2c3d-0000-4000-8000-0123456789ab"; 300])),
            ("short strings", json!(vec!["a"; 2900])),
            ("numbers", json!(vec![7; 5000])),
            ("objects, as many as are cached", dear(120)),
            (
                "an object of many members",
                Value::Object((0..900).map(|n| (n.to_string(), json!(0))).collect()),
            ),
            ("a long scope", json!("a ".repeat(5_500))),
            ("nested", json!(vec![json!([[[[[[[[[[]]]]]]]]]]); 400])),
        ] {
            let fixture = fixture(capacity);
            let most = usize::try_from(capacity).unwrap() * (8192 + 64) + MEGABYTE / 10;
            // More tokens than fit, or enough to show that the bound covers more than the table.
            let is_scope = name == "a long scope";
            let tokens = if capacity == 50 { 150 } else { 40 };
            fixture
                .fill(tokens, if is_scope { "scope" } else { "profile" }, &claim, |token| {
                    assert!(!token.has_role("admin"));
                    drop(token.claims::<Value>().unwrap());
                })
                .await;
            let taken = fixture.taken();
            assert!(taken <= most, "{name}, {capacity} tokens: {taken} bytes, more than {most}");
        }
    }
}

/// Counted memory is freed when the verifier is dropped and when expired tokens are evicted.
#[tokio::test]
async fn memory_of_evicted_tokens_and_dropped_verifiers_is_freed() {
    let _alone = ALONE.lock().await;
    let fixture = fixture(100);
    let read = |token: &AccessToken| assert!(!token.has_role("admin"));
    for round in 0..5 {
        fixture.fill(60, "groups", &json!(vec!["group"; 1200 + round]), read).await;
        fixture.clock.advance(std::time::Duration::from_secs(301));
        let token = fixture.issuer.token().claim("round", round).build();
        for _ in 0..2 {
            fixture.verifier.verify(&token).await.unwrap();
        }
        let (one, other) = (
            fixture.verifier.verify(&token).await.unwrap(),
            fixture.verifier.verify(&token).await.unwrap(),
        );
        let typed = |token: &AccessToken| token.claims::<Value>().unwrap();
        assert!(Arc::ptr_eq(&typed(&one), &typed(&other)), "round {round}: a new token fits");
    }
    let Fixture { verifier, start, issuer, .. } = fixture;
    drop((verifier, issuer));
    assert!(MEMORY.current_usage() < start + MEGABYTE);
}

/// Cached tokens do not keep withdrawn key sets and evicted tenants alive.
#[tokio::test]
async fn cached_tokens_do_not_keep_old_key_sets_alive() {
    let _alone = ALONE.lock().await;
    let clock = TestClock::new();
    let issuer = TestIssuer::start_with(Algorithm::EdDSA).unwrap();
    issuer.set_clock(&clock);
    // 99 RSA keys, which are large in memory.
    let rsa =
        TestIssuer::offline_with("x", Algorithm::RS256).unwrap().jwks_json()["keys"][0].clone();
    for number in 0..99 {
        let mut key = rsa.clone();
        key["kid"] = number.to_string().into();
        issuer.publish(key);
    }
    let verifier = Verifier::builder(issuer.issuer()).clock(&clock).build().unwrap();
    let round = async |number: usize| {
        clock.advance(std::time::Duration::from_secs(10));
        let junk = issuer.token().header("kid", format!("junk-{number}")).build();
        assert!(verifier.verify(&junk).await.is_err());
        let token = issuer.token().claim("jti", number).claim("exp", 4_000_000_000_u64).build();
        for _ in 0..2 {
            verifier.verify(&token).await.unwrap();
        }
    };
    for number in 0..20 {
        round(number).await;
    }
    let before = MEMORY.current_usage();
    for number in 20..220 {
        round(number).await;
    }
    let more = MEMORY.current_usage().saturating_sub(before);
    assert!(more < 4 * MEGABYTE, "200 more sets and tokens take {more} bytes");
}

/// One tenant's large tokens do not use up the memory for all others.
#[tokio::test]
async fn large_tokens_do_not_keep_other_tokens_out_of_the_cache() {
    let _alone = ALONE.lock().await;
    let fixture = fixture(200);
    let read = |token: &AccessToken| assert!(!token.has_role("admin"));
    fixture.fill(60, "profile", &dear(120), read).await;
    let mut hits = 0;
    for number in 0..100 {
        let token = fixture.issuer.token().claim("honest", number).build();
        let claims =
            async || fixture.verifier.verify(&token).await.unwrap().claims::<Value>().unwrap();
        for _ in 0..3 {
            claims().await;
        }
        hits += usize::from(Arc::ptr_eq(&claims().await, &claims().await));
    }
    assert!(hits >= 90, "{hits} of 100 are cached");
}
