//! The status list of a [`TestIssuer`].

use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use miniz_oxide::deflate::compress_to_vec_zlib;
use serde_json::json;

use super::issuer::{Behavior, Shared, TestIssuer};
use super::token_builder::TokenBuilder;

/// How many tokens the list has a status for, before one with a higher index is set.
const TOKENS: usize = 1024;

/// Level of compression: the usual one.
const LEVEL: u8 = 6;

/// How long the list is valid.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The status list of a [`TestIssuer`], for [`TokenBuilder::status`].
#[derive(Clone, Debug)]
pub struct TestStatusList {
    uri: String,
}

impl TestStatusList {
    /// Returns the URI of the list.
    pub fn uri(&self) -> &str {
        &self.uri
    }
}

/// What an issuer publishes.
pub(super) struct Statuses {
    state: Mutex<State>,
    pub(super) fetches: AtomicUsize,
}

struct State {
    statuses: Vec<u8>,
    behavior: Behavior,
}

impl Statuses {
    pub(super) const fn new() -> Self {
        let state = State { statuses: Vec::new(), behavior: Behavior::Serve };
        Self { state: Mutex::new(state), fetches: AtomicUsize::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn behavior(&self) -> Behavior {
        self.lock().behavior.clone()
    }

    /// The list in its compressed form, with 8 bits for each token.
    fn lst(&self) -> String {
        let mut statuses = self.lock().statuses.clone();
        statuses.resize(statuses.len().max(TOKENS), 0);
        URL_SAFE_NO_PAD.encode(compress_to_vec_zlib(&statuses, LEVEL))
    }
}

impl TestIssuer {
    /// Returns its status list (draft-ietf-oauth-status-list), which it serves beside its keys. At
    /// first, it has 1024 tokens, whose status is 0.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use portcullis::testing::TestIssuer;
    /// use portcullis::{StatusLists, Verifier};
    ///
    /// let issuer = TestIssuer::start()?;
    /// let verifier = Verifier::new(issuer.issuer().status_lists(StatusLists::new()))?;
    /// let list = issuer.status_list();
    /// issuer.set_status(7, 1);
    ///
    /// assert!(verifier.verify(&issuer.token().status(&list, 6).build()).await.is_ok());
    /// assert!(verifier.verify(&issuer.token().status(&list, 7).build()).await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn status_list(&self) -> TestStatusList {
        TestStatusList { uri: self.shared.status_list_uri() }
    }

    /// Sets the status of the token with this index: 0 is valid, 1 invalid, 2 suspended. A list
    /// that was fetched before does not change.
    pub fn set_status(&self, index: u32, status: u8) {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let mut state = self.shared.statuses.lock();
        if state.statuses.len() <= index {
            state.statuses.resize(index + 1, 0);
        }
        if let Some(byte) = state.statuses.get_mut(index) {
            *byte = status;
        }
    }

    /// Returns a builder for the JWT with its status list, as it is served now: without `ttl`, and
    /// valid for a day. Serve a changed one with [`Behavior::Body`].
    pub fn status_list_token(&self) -> TokenBuilder {
        self.shared.status_list_token()
    }

    /// Sets how requests for the status list are answered from now on.
    pub fn set_status_list_behavior(&self, behavior: Behavior) {
        self.shared.statuses.lock().behavior = behavior;
    }

    /// Returns how often the status list was requested.
    pub fn status_list_fetches(&self) -> usize {
        self.shared.statuses.fetches.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn status_list_uri(&self) -> String {
        format!("{}/status-list", self.iss().trim_end_matches('/'))
    }

    pub(super) fn status_list_token(&self) -> TokenBuilder {
        let token = ["iss", "aud", "client_id"]
            .into_iter()
            .fold(self.token(), |token, name| token.without_claim(name));
        token
            .header("typ", "statuslist+jwt")
            .subject(&self.status_list_uri())
            .valid_for(LIFETIME)
            .claim("status_list", json!({ "bits": 8, "lst": self.statuses.lst() }))
    }
}

impl TokenBuilder {
    /// Names the place of the token's status (draft-ietf-oauth-status-list §6.2).
    pub fn status(self, list: &TestStatusList, index: u32) -> Self {
        self.claim("status", json!({ "status_list": { "idx": index, "uri": list.uri } }))
    }
}
