//! Keys that are fetched one by one, each from a URL that ends with its `kid`, as AWS load
//! balancers publish them.

use std::sync::Arc;

use url::Url;

use super::fetch::{self, Fetched, Validators};
use super::{Carryover, Download, RemoteJwks, Revalidation};
use crate::crypto;
use crate::error::FetchError;
use crate::keys::jwk::Jwk;
use crate::keys::jwks::Jwks;

/// Maximum number of cached keys that were fetched one by one.
const MAX_BY_KID: usize = 4;

impl RemoteJwks {
    /// Fetches the key with this `kid`, and each cached key again. A key that does not exist (any
    /// more) is left out. Any other failure fails the whole fetch, and so does the loss of all
    /// cached keys.
    pub(super) async fn fetch_by_kid(
        &self,
        prefix: &Url,
        kid: Option<&str>,
        mut carryover: Carryover,
    ) -> Result<Download, FetchError> {
        let current = self.current.load_full();
        let cached = current.iter().flat_map(|jwks| jwks.kids()).filter(|one| Some(*one) != kid);
        let (mut keys, mut documents, mut lifetime) = (Vec::new(), Vec::new(), None);
        // The requested key first. It replaces a cached key only if it exists.
        for name in kid.into_iter().chain(cached) {
            if keys.len() == MAX_BY_KID {
                break;
            }
            let mut url = prefix.clone();
            url.set_path(&format!("{}{name}", prefix.path()));
            match self.http().get(&url, &Validators::default()).await {
                Ok(Fetched::Document { body, lifetime: hint, .. }) => {
                    let expected = "a P-256 public key in PEM";
                    let key = Jwk::from_pem(name, &body);
                    let url = fetch::redacted(&url);
                    keys.push(Arc::new(key.ok_or(FetchError::InvalidDocument { url, expected })?));
                    documents.push((name, crypto::sha256(&body)));
                    lifetime = lifetime.or(hint);
                }
                Err(FetchError::Status { status: 400 | 403 | 404 | 410, .. }) => {}
                Err(error) => return Err(error),
                Ok(Fetched::NotModified { .. }) => {
                    return Err(FetchError::Status { url: fetch::redacted(&url), status: 304 });
                }
            }
        }
        // A key that does not exist is a result, not a failure. Otherwise, the first token after a
        // start could name such a key, and all others would have to wait. If all cached keys are
        // gone, that is more likely a failure of the server.
        let had_some = current.as_ref().is_some_and(|jwks| !jwks.is_empty());
        if keys.is_empty() && had_some {
            return Err(FetchError::NoUsableKey {
                url: fetch::redacted(prefix),
                ignored: Vec::new(),
            });
        }
        // A new set would make every cached token be verified again, and anyone can name a key that
        // does not exist.
        let (sha256, known) = (sha256_of_all(documents), carryover.revalidation.take());
        let is_known = known.is_some_and(|known| known.sha256 == sha256);
        let (from, validators) = (prefix.clone(), Validators::default());
        carryover.revalidation = Some(Revalidation { from, validators, sha256, hint: None });
        Ok(Download {
            jwks: (!is_known).then(|| Jwks::of(keys)),
            lifetime: self.source.policy.lifetime(lifetime),
            carryover,
        })
    }
}

/// One SHA-256 for keys with their names, in any order. A name contains no NUL.
fn sha256_of_all(mut documents: Vec<(&str, [u8; 32])>) -> [u8; 32] {
    documents.sort_unstable();
    let parts = documents.iter().flat_map(|(name, sha256)| [name.as_bytes(), b"\0", sha256]);
    crypto::sha256(&parts.collect::<Vec<_>>().concat())
}
