//! Keys that are fetched one by one, each at an address that ends with its `kid`, as AWS load balancers publish theirs.

use std::sync::Arc;

use url::Url;

use super::fetch::{self, Fetched, Validators};
use super::{Carryover, Download, RemoteJwks};
use crate::error::FetchError;
use crate::keys::jwk::Jwk;
use crate::keys::jwks::Jwks;

/// Keys kept that were fetched one by one.
const MAX_BY_KID: usize = 4;

impl RemoteJwks {
    /// The keys at hand, and that of this name, each by itself. One that does not exist (any more) is left out; any other failure
    /// is one of the whole, and so is that there is none.
    pub(super) async fn fetch_by_kid(
        &self,
        prefix: &Url,
        kid: Option<&str>,
        known: Carryover,
    ) -> Result<Download, FetchError> {
        let current = self.current.load_full();
        let at_hand = current.iter().flat_map(|jwks| jwks.kids()).filter(|one| Some(*one) != kid);
        let (mut keys, mut lifetime) = (Vec::new(), None);
        // The one that is asked for first: only one that exists takes another's place.
        for name in kid.into_iter().chain(at_hand) {
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
                    lifetime = lifetime.or(hint);
                }
                Err(FetchError::Status { status: 400 | 403 | 404 | 410, .. }) => {}
                Err(error) => return Err(error),
                Ok(Fetched::NotModified { .. }) => {
                    return Err(FetchError::Status { url: fetch::redacted(&url), status: 304 });
                }
            }
        }
        // That a key does not exist is an answer, not a failure: else whoever names one that does not, first thing, would have
        // the others wait. That all those at hand are gone is rather a failure of the server.
        let had_some = current.is_some_and(|jwks| !jwks.is_empty());
        if keys.is_empty() && had_some {
            return Err(FetchError::NoUsableKey {
                url: fetch::redacted(prefix),
                ignored: Vec::new(),
            });
        }
        Ok(Download {
            jwks: Some(Jwks::of(keys)),
            lifetime: self.source.policy.lifetime(lifetime),
            known,
        })
    }
}
