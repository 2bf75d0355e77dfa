//! A token with what the explored modules use of it.

pub(crate) mod charge;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use loom::sync::atomic::{AtomicUsize, Ordering, fence};

use crate::clock::START;
use crate::revocation::LookedUpAt;
use charge::Charge;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    Jwt,
}

pub(crate) struct AccessToken(Arc<Inner>);

struct Inner {
    text: String,
    bytes: usize,
    looked_up_at: LookedUpAt,
    charge: OnceLock<Charge>,
    /// The reference count of the `Arc`, so that loom knows that all uses of the token happen
    /// before its charge is released.
    references: AtomicUsize,
}

impl Clone for AccessToken {
    fn clone(&self) -> Self {
        self.0.references.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl Drop for AccessToken {
    fn drop(&mut self) {
        if self.0.references.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
        }
    }
}

impl AccessToken {
    /// A token that takes this many bytes.
    pub(crate) fn new(text: &str, bytes: usize) -> Self {
        Self(Arc::new(Inner {
            text: text.to_owned(),
            bytes,
            looked_up_at: LookedUpAt::default(),
            charge: OnceLock::new(),
            references: AtomicUsize::new(1),
        }))
    }

    pub(crate) fn expose_token(&self) -> &str {
        &self.0.text
    }

    pub(crate) fn kind(&self) -> TokenKind {
        TokenKind::Jwt
    }

    pub(crate) fn issued_at(&self) -> Option<Duration> {
        Some(Duration::from_secs(START))
    }

    pub(crate) fn subject(&self) -> Option<&str> {
        Some("user")
    }

    pub(crate) fn client_id(&self) -> Option<&str> {
        None
    }

    pub(crate) fn raw_claims(&self) -> &str {
        ""
    }

    pub(crate) fn issuer_names(&self) -> impl Iterator<Item = &str> {
        std::iter::once("issuer")
    }

    pub(crate) fn looked_up_at(&self) -> &LookedUpAt {
        &self.0.looked_up_at
    }

    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes
    }

    pub(crate) fn charge(&self, charge: Charge) {
        let _ = self.0.charge.set(charge);
    }

    pub(crate) fn charged(&self) -> usize {
        self.0.charge.get().map_or(0, Charge::bytes)
    }

    /// Reads the claims, which then take this many bytes.
    pub(crate) fn read_claims(&self, bytes: usize) {
        if let Some(charge) = self.0.charge.get()
            && !charge.add(bytes)
        {
            charge.remove(self.expose_token());
        }
    }
}
