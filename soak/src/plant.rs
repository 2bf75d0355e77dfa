//! Flaws that can be planted in the server, to see that the soak finds them.

use std::fs::File;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

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
}

const AT_FIRST: u64 = 10_000;
const ONE_IN: u64 = 2_000;
const IN_ROW: u64 = 20;

static REQUESTS: AtomicU64 = AtomicU64::new(0);
static LEAKED: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());
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
        }
    }

    /// Called for each response; returns the status that is sent.
    pub(crate) fn act(self, status: StatusCode) -> StatusCode {
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
            Self::Status if status == StatusCode::FORBIDDEN => return StatusCode::UNAUTHORIZED,
            _ => {}
        }
        status
    }
}

impl FromStr for Plant {
    type Err = Failure;

    fn from_str(name: &str) -> Result<Self, Failure> {
        [Self::Nothing, Self::Leak, Self::Files, Self::Accept, Self::Lose, Self::Status]
            .into_iter()
            .find(|plant| plant.name() == name)
            .ok_or_else(|| {
                format!("plant {name}: expected leak, files, accept, lose or status").into()
            })
    }
}
