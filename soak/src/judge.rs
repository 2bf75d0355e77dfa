//! Compares each answer with the one that the request must get.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::child::Log;
use crate::load::kind::Kind;
use crate::windows::{Cause, WINDOWS, Window};

/// After so many failures, the soak ends: the rest would say the same.
const ENOUGH: usize = 20;

/// How much later a disturbance may be noticed than its effect.
const NOTICED: Duration = Duration::from_secs(1);

/// A good request waits no longer outside of windows: the longest documented wait is 5 seconds.
const LONGEST_WAIT: Duration = Duration::from_secs(7);

/// A request that was sent.
pub(crate) struct Sent {
    pub(crate) kind: Kind,
    /// Whose token it carries.
    pub(crate) issuer: Option<usize>,
    /// What is printed of it.
    pub(crate) text: String,
    pub(crate) at: Instant,
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `Error::code()`, or the error in the body, if portcullis has rejected the request.
    pub(crate) code: String,
    pub(crate) has_retry_after: bool,
}

impl Answer {
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// No answer: the connection failed, or the time limit was reached.
pub(crate) type Answered = Result<Answer, String>;

struct Disturbance {
    cause: Cause,
    from: Instant,
    /// `None` while it lasts.
    until: Option<Instant>,
}

pub(crate) struct Judge {
    started: Instant,
    log: Log,
    disturbances: Mutex<Vec<Disturbance>>,
    totals: Mutex<Totals>,
    pub(crate) accepted: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) failed: AtomicU64,
    is_over: AtomicBool,
    slow: Mutex<(u64, Duration)>,
}

#[derive(Default)]
pub(crate) struct Totals {
    /// Good requests that were accepted.
    pub(crate) accepted: BTreeMap<Kind, u64>,
    /// Good requests by window that was open for them, whether they were lost or not.
    pub(crate) within: BTreeMap<&'static str, u64>,
    /// Good requests that were lost, by documented window.
    pub(crate) lost: BTreeMap<(&'static str, Kind), u64>,
    /// Bad requests that were rejected, by status and code.
    pub(crate) rejected: BTreeMap<(Kind, u16, String), u64>,
    pub(crate) failures: Vec<String>,
}

impl Judge {
    pub(crate) fn new(log: Log) -> Self {
        Self {
            started: Instant::now(),
            log,
            disturbances: Mutex::default(),
            totals: Mutex::default(),
            accepted: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            slow: Mutex::default(),
        }
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn begins(&self, cause: Cause) {
        let disturbance = Disturbance { cause, from: Instant::now(), until: None };
        let mut disturbances = self.disturbances();
        // Those that ended long ago concern no request any more.
        let recent = |until: Instant| until.elapsed() < Duration::from_secs(300);
        disturbances.retain(|disturbance| disturbance.until.is_none_or(recent));
        disturbances.push(disturbance);
    }

    pub(crate) fn ends(&self, cause: Cause) {
        let mut disturbances = self.disturbances();
        let lasting = disturbances.iter_mut().filter(|one| one.cause == cause);
        lasting.filter(|one| one.until.is_none()).for_each(|one| one.until = Some(Instant::now()));
    }

    /// Whether this disturbance lasts, or ended less than `within` ago.
    pub(crate) fn is_disturbed(&self, cause: Cause, within: Duration) -> bool {
        self.disturbances()
            .iter()
            .filter(|one| one.cause == cause)
            .any(|one| one.until.is_none_or(|until| until.elapsed() < within))
    }

    /// Redis was late for so long, although nothing disturbed it.
    pub(crate) fn was_slow(&self, time: Duration) {
        let mut slow = self.slow.lock().unwrap_or_else(PoisonError::into_inner);
        *slow = (slow.0 + 1, slow.1 + time);
    }

    /// How often, and for how long in all.
    pub(crate) fn slow(&self) -> (u64, Duration) {
        *self.slow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Judges the answer to a request.
    pub(crate) async fn judge(&self, sent: &Sent, answered: &Answered) {
        let ended = Instant::now();
        if let Ok(answer) = answered
            && !answer.is_success()
            && !is_right(sent, answer)
            && self.window(sent, answer, ended).is_none()
        {
            // What disturbs it may be noticed a moment later.
            tokio::time::sleep(NOTICED).await;
        }
        self.decide(sent, answered, ended);
    }

    fn decide(&self, sent: &Sent, answered: &Answered, ended: Instant) {
        let open = if sent.kind.is_good() { self.open(sent, ended) } else { Vec::new() };
        for window in &open {
            *self.totals().within.entry(window.name).or_default() += 1;
        }
        let is_late = ended - sent.at > LONGEST_WAIT && open.is_empty();
        match (sent.kind.is_good(), answered) {
            (true, Ok(_)) if is_late => {
                self.fail("LATE: a good request waited too long", sent, answered);
            }
            (true, Ok(answer)) if answer.is_success() => {
                self.accepted.fetch_add(1, Ordering::Relaxed);
                *self.totals().accepted.entry(sent.kind).or_default() += 1;
            }
            (true, Ok(answer)) => match self.window(sent, answer, ended) {
                Some(window) => {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    *self.totals().lost.entry((window.name, sent.kind)).or_default() += 1;
                }
                None => self.fail("LOST: a good request was rejected", sent, answered),
            },
            (true, Err(_)) => self.fail("LOST: a good request got no answer", sent, answered),
            (false, Ok(answer)) if answer.is_success() => {
                self.fail("LET THROUGH: a bad request was accepted", sent, answered);
                self.is_over.store(true, Ordering::SeqCst);
            }
            (false, Ok(answer))
                if is_right(sent, answer) || self.window(sent, answer, ended).is_some() =>
            {
                self.reject(sent, answer.status, &answer.code);
            }
            (false, Ok(_)) => self.fail("a bad request got an unexpected answer", sent, answered),
            // The server may close the connection of what is no HTTP.
            (false, Err(_)) if sent.kind.may_be_cut_off() => self.reject(sent, 0, ""),
            (false, Err(_)) => self.fail("a bad request got no answer", sent, answered),
        }
    }

    fn reject(&self, sent: &Sent, status: u16, code: &str) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        *self.totals().rejected.entry((sent.kind, status, code.to_owned())).or_default() += 1;
    }

    /// The documented window in which a request may get this answer. Bad requests may get the
    /// answers of all windows that are open for their issuer.
    fn window(&self, sent: &Sent, answer: &Answer, ended: Instant) -> Option<&'static Window> {
        // Clients of a 503 are told when to try again.
        if answer.status == 503 && !answer.has_retry_after {
            return None;
        }
        self.open(sent, ended)
            .into_iter()
            .find(|window| window.status == answer.status && window.code == answer.code)
    }

    /// The windows that were open for this request.
    fn open(&self, sent: &Sent, ended: Instant) -> Vec<&'static Window> {
        let disturbances = self.disturbances();
        let is_open = |window: &&Window| {
            disturbances
                .iter()
                .filter(|one| window.is_opened_by(one.cause, sent.issuer))
                .filter(|one| ended + NOTICED >= one.from + window.after)
                .any(|one| one.until.is_none_or(|until| sent.at <= until + window.lasts))
        };
        let concerns = |window: &&Window| !sent.kind.is_good() || window.kinds.contains(&sent.kind);
        WINDOWS.iter().filter(concerns).filter(is_open).collect()
    }

    /// Reports a failure that is not an answer.
    pub(crate) fn report(&self, what: String) {
        eprintln!("FAILURE after {} s: {what}", self.now().as_secs());
        self.failed.fetch_add(1, Ordering::Relaxed);
        self.totals().failures.push(what);
    }

    fn fail(&self, what: &str, sent: &Sent, answered: &Answered) {
        let ago = sent.at.elapsed();
        let mut text = format!("{what}\n  {:?}: {}\n  answer: {answered:?}", sent.kind, sent.text);
        text += &format!(", after {ago:?}");
        for one in self.disturbances().iter() {
            let since = one.from.elapsed().as_secs();
            let ended = one.until.map(|until| until.elapsed().as_secs());
            if ended.is_none_or(|ended| ended < 60) && !matches!(one.cause, Cause::Rotation(_)) {
                text += &format!(
                    "\n  disturbed: {:?} began {since} s ago, ended {ended:?} s ago",
                    one.cause
                );
            }
        }
        let since = sent.at.checked_sub(Duration::from_secs(1));
        for line in self.log.since(since) {
            text += &format!("\n  log: {line}");
        }
        self.report(text);
        if self.totals().failures.len() >= ENOUGH {
            self.is_over.store(true, Ordering::SeqCst);
        }
    }

    /// Whether there is nothing more to learn.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::SeqCst)
    }

    pub(crate) fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disturbances(&self) -> MutexGuard<'_, Vec<Disturbance>> {
        self.disturbances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a bad request got the answer that its kind must get.
fn is_right(sent: &Sent, answer: &Answer) -> bool {
    sent.kind.answers().contains(&(answer.status, &*answer.code))
}
