//! The table of used DPoP proofs.

use std::sync::Arc;
use std::time::Duration;

use super::{Exploration, join, spawn};
use crate::dpop::replays::{Refused, Replays, Use};
use crate::hash::{BuildHasher as _, RandomState};

const MINUTE: Duration = Duration::from_secs(60);
const KEY: [u8; 32] = [7; 32];

fn proof(number: u8, second: u64, oldest: u64) -> Use<'static> {
    let (hash, uptime) = ([number; 16], Duration::from_secs(10));
    Use { hash, jkt: &KEY, second, oldest, current: oldest + 60, uptime }
}

fn table(most: usize, share: u32) -> Arc<Replays> {
    Arc::new(Replays::new(most, share, MINUTE))
}

/// Three requests with the same proof. For one of them, the earliest second is a later one already.
pub(super) const ONE_USE_OF_A_PROOF: Exploration = Exploration {
    name: "of the uses of one proof, exactly one is accepted",
    preemptions: 3,
    run: || {
        let replays = table(10, 10);
        let use_at = |oldest| {
            let replays = Arc::clone(&replays);
            move || replays.insert(&proof(1, 100, oldest))
        };
        let others = [spawn(use_at(40)), spawn(use_at(60))];
        let mut results = vec![use_at(100)()];
        results.extend(others.map(join));
        let accepted = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(accepted, 1, "one of {results:?}");
        let refused = results.iter().filter(|result| **result == Err(Refused::Used)).count();
        assert_eq!(refused, 2, "the others were used before: {results:?}");
        assert_eq!(replays.live(), 1);
    },
};

/// A used proof comes again, with a clock that was read before its second ended. Meanwhile the
/// table drops its second: for another proof, or because it is full.
pub(super) const NO_USE_OF_A_DROPPED_PROOF: Exploration = Exploration {
    name: "a used proof is not accepted again after the table has dropped its second",
    preemptions: 3,
    run: || {
        for most in [1, 10] {
            let replays = table(most, 10);
            assert_eq!(replays.insert(&proof(1, 100, 40)), Ok(1));
            let again = {
                let replays = Arc::clone(&replays);
                spawn(move || replays.insert(&proof(1, 100, 40)))
            };
            assert!(replays.insert(&proof(2, 130, 101)).is_ok());
            let again = join(again);
            // A full table may say so, before it drops the second.
            assert!(again.is_err(), "accepted again");
        }
    },
};

/// Three proofs at once, two of a second that the third one ends, in a table for two.
pub(super) const LIVE_PROOFS_ARE_COUNTED: Exploration = Exploration {
    name: "the number of remembered proofs is exact, and over the limit by those inserted at once",
    preemptions: 2,
    run: || {
        let replays = table(2, 10);
        let insert = |proof: Use<'static>| {
            let replays = Arc::clone(&replays);
            move || replays.insert(&proof)
        };
        let others = [spawn(insert(proof(1, 100, 40))), spawn(insert(proof(2, 100, 40)))];
        let mut results = vec![insert(proof(3, 130, 101))()];
        results.extend(others.map(join));
        for result in &results {
            assert!(result.is_err() || matches!(result, Ok(1..=4)), "{results:?}");
        }
        // All proofs of the first second are dropped now, and the third one is not.
        let expected = 1 + usize::from(results[0].is_ok());
        assert_eq!(replays.insert(&proof(4, 130, 101)), Ok(expected), "after {results:?}");
        assert_eq!(replays.live(), expected);
    },
};

/// A number whose proof is in this shard of the table, of two.
fn number_in(shard: usize) -> u8 {
    let is_in = |number: &u8| RandomState::new().hash_one([*number; 16]) as usize % 2 == shard;
    (0..=u8::MAX).find(is_in).expect("both shards are used")
}

/// Two proofs of a key that may use one. They are in different parts of the table.
pub(super) const SHARE_OF_A_KEY: Exploration = Exploration {
    name: "a key uses no more than its share of the table",
    preemptions: 3,
    run: || {
        let replays = table(10, 1);
        let other = {
            let replays = Arc::clone(&replays);
            spawn(move || replays.insert(&proof(number_in(0), 100, 40)))
        };
        let results = [replays.insert(&proof(number_in(1), 100, 40)), join(other)];
        let accepted = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(accepted, 1, "one of {results:?}");
        assert!(results.contains(&Err(Refused::TooMany)), "{results:?}");
    },
};
