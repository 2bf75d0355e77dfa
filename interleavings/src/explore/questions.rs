//! Questions about tokens: one for all requests with the same token.

use std::sync::Arc;

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicUsize, Ordering};

use super::{Exploration, join, poll_and_cancel, spawn, wait};
use crate::tokio::runtime::{self, Handle};
use crate::verifier::introspections::under_way::{Answer, Asking, Key, UnderWay};

const TOKEN: Key = [7, 7];

/// What an issuer answers: the number of the question, or that it was interrupted.
type Outcome = Result<usize, ()>;

#[derive(Clone)]
struct Issuer {
    under_way: Arc<UnderWay<Outcome>>,
    asked: Arc<AtomicUsize>,
    asking: Arc<AtomicUsize>,
    /// How many questions were in progress at once, at most.
    most_at_once: Arc<AtomicUsize>,
    /// The latest answer that may be used again.
    cached: Arc<Mutex<Option<usize>>>,
}

/// A question in a task of its own, as in `question.rs`.
struct Question {
    issuer: Issuer,
    result: Option<Outcome>,
    asking: Asking<Outcome>,
}

impl Question {
    async fn run(mut self) {
        let at_once = self.issuer.asking.fetch_add(1, Ordering::AcqRel) + 1;
        self.issuer.most_at_once.fetch_max(at_once, Ordering::AcqRel);
        let number = self.issuer.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.remember(number);
        self.issuer.asking.fetch_sub(1, Ordering::AcqRel);
        self.result = Some(Ok(number));
    }

    fn remember(&self, number: usize) {
        let held = self.asking.hold();
        if !held.is_outdated() {
            *self.issuer.cached.lock().expect("no panic") = Some(number);
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.asking.end(self.result.take().unwrap_or(Err(())));
    }
}

impl Issuer {
    fn new() -> Self {
        Self {
            under_way: Arc::default(),
            asked: Arc::default(),
            asking: Arc::default(),
            most_at_once: Arc::default(),
            cached: Arc::default(),
        }
    }

    fn question(&self) -> Answer<Outcome> {
        let (answer, asking) = self.under_way.join(TOKEN);
        if let Some(asking) = asking {
            let question = Question { issuer: self.clone(), result: None, asking };
            Handle::try_current().expect("a runtime").spawn(question.run());
        }
        answer
    }

    fn request(&self) -> Outcome {
        let outcome = wait(self.question().wait_for(Option::is_some));
        outcome.expect("a question ends with an answer").expect("waited for")
    }

    fn cached(&self) -> Option<usize> {
        *self.cached.lock().expect("no panic")
    }

    /// Drops the cached answer.
    fn forget(&self) {
        self.under_way.give_up_all(|| *self.cached.lock().expect("no panic") = None);
    }
}

/// Two requests with the same token, one of them after another one that is canceled.
pub(super) const ONE_QUESTION: Exploration = Exploration {
    name: "requests with one token share one question at a time, and each gets an answer",
    preemptions: 2,
    run: || {
        let issuer = Issuer::new();
        let other = {
            let issuer = issuer.clone();
            spawn(move || issuer.request())
        };
        poll_and_cancel(issuer.question().wait_for(Option::is_some));
        let outcomes = [issuer.request(), join(other)];
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        runtime::join_all();
        assert_eq!(issuer.most_at_once.load(Ordering::Acquire), 1, "questions at once");
    },
};

/// A request after the answer to another one. An answer is shared with those that wait for it only:
/// whether it may be used again, the cache decides.
pub(super) const NO_ANSWER_FROM_BEFORE: Exploration = Exploration {
    name: "no request gets the answer to a question that had ended before",
    preemptions: 3,
    run: || {
        let issuer = Issuer::new();
        let first = issuer.request();
        assert_eq!(first, Ok(1));
        assert_eq!(issuer.request(), Ok(2), "a request after the answer");
        runtime::join_all();
    },
};

/// A question that was not answered in time is given up, and asked again.
pub(super) const NO_OUTDATED_ANSWER: Exploration = Exploration {
    name: "the late answer to a question that was given up does not replace a later answer",
    preemptions: 3,
    run: || {
        let issuer = Issuer::new();
        let (answer, asking) = issuer.under_way.join(TOKEN);
        let late = Question { issuer: issuer.clone(), result: None, asking: asking.expect("new") };
        issuer.under_way.give_up(TOKEN, &answer);
        let other = {
            let issuer = issuer.clone();
            spawn(move || issuer.request())
        };
        // Its answer is from before that to the other question.
        late.remember(0);
        drop(late);
        assert_eq!(join(other), Ok(1), "an answer to a question of its own");
        assert_eq!(issuer.cached(), Some(1));
        runtime::join_all();
    },
};

/// An issuer is forgotten while it is asked.
pub(super) const NO_ANSWER_AFTER_FORGETTING: Exploration = Exploration {
    name: "no answer to a question from before an issuer was forgotten is used after that",
    preemptions: 3,
    run: || {
        let issuer = Issuer::new();
        let first = issuer.question();
        issuer.forget();
        assert_eq!(issuer.cached(), None, "cached before the issuer was forgotten");
        let mut second = issuer.question();
        assert!(!second.same_channel(&first), "joined a question from before");
        assert!(wait(second.wait_for(Option::is_some)).is_ok());
        runtime::join_all();
    },
};

/// The runtime of a question is shut down.
pub(super) const DROPPED_QUESTION_ENDS: Exploration = Exploration {
    name: "a question that is dropped wakes all requests, and the next request asks anew",
    preemptions: 3,
    run: || {
        let issuer = Issuer::new();
        let (_, asking) = issuer.under_way.join(TOKEN);
        let dropped =
            Question { issuer: issuer.clone(), result: None, asking: asking.expect("new") };
        let other = {
            let issuer = issuer.clone();
            spawn(move || issuer.request())
        };
        drop(dropped);
        let outcome = join(other);
        assert!(matches!(outcome, Err(()) | Ok(1)), "{outcome:?}");
        assert!(issuer.request().is_ok(), "the next request");
        runtime::join_all();
    },
};
