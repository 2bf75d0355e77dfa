//! Nonces that this API hands out for proofs (RFC 9449 §9), without state: a counter of minutes and
//! its HMAC. All replicas with the same secret accept one another's nonces.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use jsonwebtoken::EncodingKey;

use crate::crypto;
use crate::error::ConfigError;
use crate::keys::signature::PROVIDER;

/// How long one nonce is handed out.
const PERIOD: u64 = 60;

/// How many earlier nonces are accepted: a client with a slow clock or a slow user has five
/// minutes.
const EARLIER: u64 = 4;

/// How many later ones: another replica's clock may be ahead.
const LATER: u64 = 1;

/// Minimum length of a secret, in bytes: that of the hash (RFC 2104 §3).
const MIN_SECRET_BYTES: usize = 32;

/// Bytes of the HMAC in a nonce.
const MAC_BYTES: usize = 16;

const CONTEXT: &[u8] = b"portcullis dpop nonce";

/// Nonces for DPoP proofs (RFC 9449 §9), for [`Dpop::nonces`](crate::Dpop::nonces).
///
/// A nonce takes the place of the client's clock: proofs cannot be made ahead of time, and clients
/// with a wrong clock are served. Each client needs one further request every few minutes.
#[derive(Clone)]
pub struct Nonces {
    secrets: Arc<[EncodingKey]>,
    valid: Arc<ArcSwapOption<Valid>>,
}

/// The nonces of one minute.
struct Valid {
    counter: u64,
    current: HeaderValue,
    /// Each accepted nonce, and its counter.
    accepted: Vec<(String, u64)>,
}

impl Nonces {
    /// How long a nonce is accepted.
    pub(crate) const ACCEPTED_FOR: Duration = Duration::from_secs((EARLIER + LATER + 1) * PERIOD);

    /// Nonces that all replicas with the same secrets accept. The first secret makes them, and all
    /// of them verify: to replace a secret, add the new one as the last everywhere, then move it to
    /// the front, then remove the old one.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no secret, or if one has fewer than 32 bytes.
    pub fn new<S: AsRef<[u8]>>(secrets: impl IntoIterator<Item = S>) -> Result<Self, ConfigError> {
        let secrets: Vec<_> = secrets.into_iter().collect();
        if let Some(short) = secrets.iter().find(|one| one.as_ref().len() < MIN_SECRET_BYTES) {
            return Err(ConfigError::new(format!(
                "secret of nonces: expected at least {MIN_SECRET_BYTES} bytes, found {}",
                short.as_ref().len()
            )));
        }
        if secrets.is_empty() {
            return Err(ConfigError::new("secrets of nonces: expected at least one, found none"));
        }
        let secrets = secrets.iter().map(|one| EncodingKey::from_secret(one.as_ref())).collect();
        Ok(Self { secrets, valid: Arc::default() })
    }

    /// Nonces that only this process accepts. With several replicas, clients would be asked for a
    /// new nonce with nearly every request.
    ///
    /// # Errors
    ///
    /// Returns an error if the system has no random numbers.
    pub fn of_this_process() -> Result<Self, ConfigError> {
        let secret = crypto::random::<32>();
        Self::new(secret.into_iter().map(Vec::from))
            .map_err(|_| ConfigError::new("no random numbers"))
    }

    /// The nonce to hand out now.
    pub(crate) fn current(&self, unix: Duration) -> HeaderValue {
        self.valid(unix).current.clone()
    }

    /// The counter of an accepted nonce, and whether it is the current one.
    pub(crate) fn find(&self, nonce: &str, unix: Duration) -> Option<(u64, bool)> {
        let valid = self.valid(unix);
        let mut found = None;
        // All are compared, and each in constant time.
        for (own, counter) in &valid.accepted {
            if crypto::is_equal_text(own, nonce) {
                found = Some((*counter, *counter == valid.counter));
            }
        }
        found
    }

    /// The counter of the nonce that is handed out now.
    pub(crate) fn counter(unix: Duration) -> u64 {
        unix.as_secs() / PERIOD
    }

    /// The counters that are accepted.
    pub(crate) fn accepted(unix: Duration) -> RangeInclusive<u64> {
        let counter = Self::counter(unix);
        counter.saturating_sub(EARLIER)..=counter.saturating_add(LATER)
    }

    /// When a counter is no longer accepted.
    pub(crate) fn end(counter: u64) -> Duration {
        Duration::from_secs(counter.saturating_add(EARLIER + 1).saturating_mul(PERIOD))
    }

    fn valid(&self, unix: Duration) -> Arc<Valid> {
        let counter = Self::counter(unix);
        if let Some(valid) = &*self.valid.load()
            && valid.counter == counter
        {
            return Arc::clone(valid);
        }
        let counters = Self::accepted(unix);
        let accepted = self.secrets.iter().flat_map(|secret| {
            counters.clone().filter_map(|counter| Some((nonce(secret, counter)?, counter)))
        });
        let current = self.secrets.first().and_then(|secret| nonce(secret, counter));
        let current = current.unwrap_or_default();
        let valid = Arc::new(Valid {
            counter,
            // Base64url is a valid header value.
            current: HeaderValue::try_from(current).unwrap_or(HeaderValue::from_static("none")),
            accepted: accepted.collect(),
        });
        self.valid.store(Some(Arc::clone(&valid)));
        valid
    }
}

/// `None` if the backend fails.
fn nonce(secret: &EncodingKey, counter: u64) -> Option<String> {
    let signer = (PROVIDER.signer_factory)(&jsonwebtoken::Algorithm::HS256, secret).ok()?;
    let counter = counter.to_be_bytes();
    let mac = signer.try_sign(&[CONTEXT, &counter[..]].concat()).ok()?;
    let bytes = [&counter[..], mac.get(..MAC_BYTES)?].concat();
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

impl fmt::Debug for Nonces {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Nonces")
            .field("secrets", &self.secrets.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRETS: [[u8; 32]; 2] = [[1; 32], [2; 32]];

    fn at(minute: u64) -> Duration {
        Duration::from_secs(minute * PERIOD + 7)
    }

    fn text(nonce: &HeaderValue) -> &str {
        nonce.to_str().unwrap()
    }

    #[test]
    fn nonces_are_accepted_for_five_minutes() {
        let (nonces, replica) =
            (Nonces::new([SECRETS[0]]).unwrap(), Nonces::new([SECRETS[0]]).unwrap());
        let nonce = nonces.current(at(100));
        for (minute, expected) in [
            (98, None),
            (99, Some((100, false))),
            (100, Some((100, true))),
            (101, Some((100, false))),
            (104, Some((100, false))),
            (105, None),
        ] {
            assert_eq!(replica.find(text(&nonce), at(minute)), expected, "minute {minute}");
        }
        assert_eq!(nonces.current(at(100)), nonce);
        assert_ne!(nonces.current(at(101)), nonce);
        for wrong in ["", "x", &text(&nonce)[1..], &format!("{}A", text(&nonce))] {
            assert_eq!(nonces.find(wrong, at(100)), None, "{wrong:?}");
        }
    }

    #[test]
    fn secrets_are_replaced_without_a_rejected_nonce() {
        let [old, new] = SECRETS;
        let with = |secrets: &[[u8; 32]]| Nonces::new(secrets).unwrap();
        let (first, second, third) = (with(&[old, new]), with(&[new, old]), with(&[new]));
        let (before, after) = (with(&[old]).current(at(5)), second.current(at(5)));
        assert!(first.find(text(&before), at(5)).is_some());
        assert!(first.find(text(&after), at(5)).is_some());
        assert!(second.find(text(&before), at(5)).is_some());
        assert!(third.find(text(&after), at(5)).is_some());
        assert!(third.find(text(&before), at(5)).is_none());
    }

    #[test]
    fn secrets_are_long() {
        assert!(Nonces::new([[0_u8; 31]]).is_err());
        assert!(Nonces::new(Vec::<Vec<u8>>::new()).is_err());
        let one = Nonces::of_this_process().unwrap();
        let other = Nonces::of_this_process().unwrap();
        assert_ne!(one.current(at(1)), other.current(at(1)));
        assert!(!format!("{one:?}").contains("EncodingKey"));
    }
}
