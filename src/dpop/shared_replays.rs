//! Used proofs in a store that replicas share: a proof that was accepted by one of them is used at
//! all of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::time::timeout;

use crate::breaker::{Breaker, Limits};
use crate::clock::Clock;
use crate::shared_store::{SharedStore, StoreError};
use crate::telemetry;

/// How long a request waits for the store. A store on the same network answers within a
/// millisecond.
const LIMIT: Duration = Duration::from_millis(250);

/// While the store is down, requests are rejected at once.
const SUSPENSIONS: Limits =
    Limits { failures: 3, first: Duration::from_secs(1), longest: Duration::from_secs(5) };

/// How far the clocks of two replicas may be apart, and how far they may be set back together. For
/// that much longer, the one behind accepts a proof that the other one recorded. Nonces allow for
/// the same difference.
const CLOCK_DIFFERENCE: Duration = Duration::from_secs(60);

/// Why a proof is not accepted.
pub(super) enum NotRecorded {
    /// It was used before, at this replica or another one.
    Used,
    Unavailable(StoreError),
}

/// The used proofs of all replicas.
pub(super) struct SharedReplays {
    store: Arc<dyn SharedStore>,
    breaker: Mutex<Breaker>,
    /// Why the store was suspended.
    last: Mutex<Option<StoreError>>,
    clock: Clock,
}

impl SharedReplays {
    pub(super) fn new(store: Arc<dyn SharedStore>, clock: Clock) -> Self {
        Self {
            store,
            breaker: Mutex::new(Breaker::new(SUSPENSIONS)),
            last: Mutex::default(),
            clock,
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last(&self) -> MutexGuard<'_, Option<StoreError>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn suspended(&self) -> StoreError {
        let last = self.last().as_ref().map_or_else(String::new, ToString::to_string);
        StoreError::new(format!(
            "the store is not asked for a while after failures; the last: {last}"
        ))
    }

    /// Returns an error while the store is suspended. A proof that cannot be recorded need not be
    /// verified.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.breaker().check(self.clock.now().uptime).map_err(|_| self.suspended())
    }

    /// Records a proof. If that cannot be done, the proof is not accepted: another replica might
    /// accept it as well.
    pub(super) async fn insert(
        &self,
        hash: &[u8; 16],
        accepted_for: Duration,
    ) -> Result<(), NotRecorded> {
        let admission = self.breaker().admit(LIMIT, self.clock.now().uptime);
        let admission = admission.map_err(|_| NotRecorded::Unavailable(self.suspended()))?;
        let question = Question { breaker: &self.breaker, is_answered: false };
        let key = format!("proof:{}", URL_SAFE_NO_PAD.encode(hash));
        let lifetime = accepted_for + CLOCK_DIFFERENCE;
        let answer = timeout(LIMIT, self.store.insert_if_absent(&key, lifetime)).await;
        question.end();
        match answer.unwrap_or_else(|_| Err(StoreError::timeout(LIMIT))) {
            Ok(is_new) => {
                if self.breaker().succeeded() {
                    telemetry::replays_available();
                }
                if is_new { Ok(()) } else { Err(NotRecorded::Used) }
            }
            Err(error) => {
                let now = self.clock.now().uptime;
                self.breaker().failed(admission, 1.0, now);
                *self.last() = Some(error.clone());
                Err(NotRecorded::Unavailable(error))
            }
        }
    }
}

/// A question to the store. If its request is dropped, because the client is gone, another one may
/// find out whether the store responds again.
struct Question<'a> {
    breaker: &'a Mutex<Breaker>,
    is_answered: bool,
}

impl Question<'_> {
    fn end(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.breaker.lock().unwrap_or_else(PoisonError::into_inner).not_sent();
        }
    }
}
