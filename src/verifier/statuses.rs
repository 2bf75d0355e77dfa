//! The status of a verified token, in the list that it names (draft-ietf-oauth-status-list).

use tracing::Instrument as _;

use super::{Verification, Verifier};
use crate::access_token::AccessToken;
use crate::clock::Now;
use crate::error::Error;
use crate::keys::remote::Fetching;
use crate::status_list::slot::StatusCheck;
use crate::telemetry;

impl Verifier {
    /// Looks up the status of a verified token in the list that it names. On each request, also of
    /// a cached token.
    pub(super) fn begin_status(&self, token: AccessToken, now: Now) -> Verification {
        match self.status(&token, now) {
            StatusCheck::Valid => Verification::Ready(Ok(token)),
            StatusCheck::Pending(fetching) => {
                let waiting = self.clone().status_after(fetching, token);
                Verification::Pending(Box::pin(waiting.instrument(telemetry::waiting())))
            }
            rejected => Verification::Ready(Err(self.log_status(&token, rejected))),
        }
    }

    /// Whether the status of a token that was accepted before is still valid. Never waits.
    pub(super) fn has_valid_status(&self, token: &AccessToken, now: Now) -> bool {
        matches!(self.status(token, now), StatusCheck::Valid)
    }

    fn status(&self, token: &AccessToken, now: Now) -> StatusCheck {
        token.status().map_or(StatusCheck::Valid, |status| status.check(now))
    }

    async fn status_after(
        self,
        fetching: Fetching,
        token: AccessToken,
    ) -> Result<AccessToken, Error> {
        fetching.finished().await;
        let now = self.0.clock.now();
        // It may have been revoked, or may have expired, while the list was fetched.
        self.check_still_good(&token, now)?;
        match self.status(&token, now) {
            StatusCheck::Valid => Ok(token),
            rejected => Err(self.log_status(&token, rejected)),
        }
    }

    fn log_status(&self, token: &AccessToken, check: StatusCheck) -> Error {
        let error = match check {
            StatusCheck::Rejected(reason) => reason.into(),
            _ => Error::RevocationsUnavailable,
        };
        self.log_rejection(token.expose_token(), error)
    }
}
