//! Faults that can be planted in the server, to see that the soak finds them.

use std::fs::File;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::http::StatusCode;

use crate::Failure;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Plant {
    Nothing,
    /// 64 bytes of each request are never freed.
    Leak,
    /// One in 2,000 requests leaves a file open.
    Files,
    /// Of 2,000 responses, the rejections among the first 20 become 200, after the first 10,000.
    Accept,
    /// Of the same responses, successes become 503.
    Lose,
    /// Each 403 becomes a 401.
    Status,
    /// Of the same responses, successes come 8 seconds late.
    Late,
    /// After the first `replays_unavailable`, each request with a proof is answered so.
    Stuck,
}

const AT_FIRST: u64 = 10_000;
const ONE_IN: u64 = 2_000;
const IN_ROW: u64 = 20;
const LATE: Duration = Duration::from_secs(8);
const UNAVAILABLE: &str = "replays_unavailable";

/// The faults that `--plant` knows.
const ALL: [Plant; 8] = [
    Plant::Nothing,
    Plant::Leak,
    Plant::Files,
    Plant::Accept,
    Plant::Lose,
    Plant::Status,
    Plant::Late,
    Plant::Stuck,
];

static REQUESTS: AtomicU64 = AtomicU64::new(0);
static LEAKED: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());
static IS_STUCK: AtomicBool = AtomicBool::new(false);
static OPEN: Mutex<Vec<File>> = Mutex::new(Vec::new());

impl Plant {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Leak => "leak",
            Self::Files => "files",
            Self::Accept => "accept",
            Self::Lose => "lose",
            Self::Status => "status",
            Self::Late => "late",
            Self::Stuck => "stuck",
        }
    }

    /// Called for each request; returns the code of the error that is sent instead of an answer.
    pub(crate) fn instead(self, has_proof: bool) -> Option<&'static str> {
        let is_stuck = self == Self::Stuck && has_proof && IS_STUCK.load(Ordering::Relaxed);
        is_stuck.then_some(UNAVAILABLE)
    }

    /// Called for each response, with its status and code; returns the status that is sent.
    pub(crate) async fn act(self, status: StatusCode, code: Option<&str>) -> StatusCode {
        let number = REQUESTS.fetch_add(1, Ordering::Relaxed);
        let is_due = number.is_multiple_of(ONE_IN);
        let is_late = number > AT_FIRST && number % ONE_IN < IN_ROW;
        match self {
            Self::Leak => {
                let mut leaked = LEAKED.lock().unwrap_or_else(PoisonError::into_inner);
                leaked.push(vec![1; 64].into());
            }
            Self::Files if is_due => {
                if let Ok(file) = File::open("/dev/null") {
                    OPEN.lock().unwrap_or_else(PoisonError::into_inner).push(file);
                }
            }
            Self::Accept if is_late && status.is_client_error() => return StatusCode::OK,
            Self::Lose if is_late && status.is_success() => {
                return StatusCode::SERVICE_UNAVAILABLE;
            }
            Self::Late if is_late && status.is_success() => tokio::time::sleep(LATE).await,
            Self::Stuck if code == Some(UNAVAILABLE) => IS_STUCK.store(true, Ordering::Relaxed),
            Self::Status if status == StatusCode::FORBIDDEN => return StatusCode::UNAUTHORIZED,
            _ => {}
        }
        status
    }
}

impl FromStr for Plant {
    type Err = Failure;

    fn from_str(name: &str) -> Result<Self, Failure> {
        ALL.into_iter().find(|plant| plant.name() == name).ok_or_else(|| {
            let names = ALL.map(Self::name).join(", ");
            format!("plant {name}: expected one of {names}").into()
        })
    }
}
