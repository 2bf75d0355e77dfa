//! [`UnderWay`]: the questions in progress, one for all concurrent requests with the same token.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// The answer to a question, once there is one.
pub(crate) type Answer<T> = watch::Receiver<Option<T>>;

/// Identifies a token at its issuer: two hashes, with different keys.
pub(crate) type Key = [u64; 2];

type Questions<T> = HashMap<Key, Answer<T>>;

/// The questions that requests may join, by the key of their token.
pub(crate) struct UnderWay<T>(Mutex<Questions<T>>);

/// One question, for the task that asks it.
pub(crate) struct Asking<T> {
    under_way: Arc<UnderWay<T>>,
    key: Key,
    answer: Answer<T>,
    outcome: watch::Sender<Option<T>>,
}

/// While this exists, no question is given up.
pub(crate) struct Held<'a, T> {
    questions: MutexGuard<'a, Questions<T>>,
    asking: &'a Asking<T>,
}

impl<T> Default for UnderWay<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> UnderWay<T> {
    /// Joins the question with this key, or starts one, which the caller then has to ask.
    pub(crate) fn join(self: &Arc<Self>, key: Key) -> (Answer<T>, Option<Asking<T>>) {
        let mut questions = self.lock();
        if let Some(answer) = questions.get(&key) {
            return (answer.clone(), None);
        }
        let (outcome, answer) = watch::channel(None);
        questions.insert(key, answer.clone());
        let under_way = Arc::clone(self);
        (answer.clone(), Some(Asking { under_way, key, answer, outcome }))
    }

    /// Gives up a question that was not answered in time: later requests ask anew.
    pub(crate) fn give_up(&self, key: Key, question: &Answer<T>) {
        let mut questions = self.lock();
        if is_in(&questions, key, question) {
            questions.remove(&key);
        }
    }

    /// Gives up all questions. No answer is cached while `meanwhile` runs.
    pub(crate) fn give_up_all(&self, meanwhile: impl FnOnce()) {
        let mut questions = self.lock();
        questions.clear();
        meanwhile();
    }

    fn lock(&self) -> MutexGuard<'_, Questions<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Asking<T> {
    pub(crate) fn key(&self) -> Key {
        self.key
    }

    /// To be held while the answer is cached.
    pub(crate) fn hold(&self) -> Held<'_, T> {
        Held { questions: self.under_way.lock(), asking: self }
    }

    /// Gives the answer to the requests that wait. Requests that come later ask anew.
    pub(crate) fn end(&self, outcome: T) {
        self.under_way.give_up(self.key, &self.answer);
        self.outcome.send_replace(Some(outcome));
    }
}

impl<T> Held<'_, T> {
    /// Whether the question was given up. Its answer may be older than that to a later question, so
    /// it must not be cached.
    pub(crate) fn is_outdated(&self) -> bool {
        !is_in(&self.questions, self.asking.key, &self.asking.answer)
    }
}

/// Whether requests may still join the question.
fn is_in<T>(questions: &Questions<T>, key: Key, question: &Answer<T>) -> bool {
    questions.get(&key).is_some_and(|own| own.same_channel(question))
}
