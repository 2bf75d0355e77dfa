//! The checks of a request with DPoP, in order: those that cost little first, and nothing is
//! remembered before everything holds.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use http::request::Parts;

use super::Dpop;
use super::accepted::DpopProof;
use super::nonces::Nonces;
use super::proof::{Expected, Proof, ProofKey, Rejected, unverified_nonce};
use super::replays::{Refused, Replays, Use};
use super::request::{ProofRequest, only_proof};
use super::request_url::RequestUrl;
use super::shared_replays::{NotRecorded, SharedReplays};
use super::target::Base;
use crate::clock::{Clock, Now};
use crate::crypto;
use crate::error::{Error, InvalidRequest, InvalidToken, ProofError};
use crate::shared_store::StoreError;
use crate::telemetry::{self, LogThrottle, ProofOutcome};

/// The key that an access token is bound to.
pub(crate) struct KeyBinding {
    jkt: [u8; 32],
    /// The hash of the token, as its proofs have it.
    ath: Box<str>,
    /// The key of the last proof, prepared: a client's proofs have the same header.
    key: ArcSwapOption<ProofKey>,
}

impl KeyBinding {
    pub(crate) fn new(jkt: [u8; 32], token: &str) -> Self {
        let ath = URL_SAFE_NO_PAD.encode(crypto::sha256(token.as_bytes())).into();
        Self { jkt, ath, key: ArcSwapOption::empty() }
    }

    /// The thumbprint of the key.
    pub(crate) fn jkt(&self) -> [u8; 32] {
        self.jkt
    }

    /// The memory that it takes at most beside its own size, in bytes: with `ath`.
    pub(crate) const MOST_BYTES: usize = ProofKey::MOST_BYTES + 43;
}

/// A proof that holds, and was not used in this process.
pub(crate) struct Proven {
    pub(crate) proof: DpopProof,
    /// The first 16 bytes of a hash of key and `jti`.
    hash: [u8; 16],
    /// For how much longer the proof would be accepted.
    accepted_for: Duration,
}

/// DPoP of a verifier, at run time.
pub(crate) struct ActiveDpop {
    pub(super) config: Dpop,
    replays: Replays,
    shared: Option<SharedReplays>,
    failures: LogThrottle,
    clock: Clock,
}

/// The time of a proof, as replays need it.
struct Dated {
    /// The second of `iat`, or the counter of the nonce.
    second: u64,
    /// The first of them that is accepted.
    oldest: u64,
    /// That of a proof that is made now.
    current: u64,
    /// For how much longer the proof would be accepted.
    accepted_for: Duration,
}

impl ActiveDpop {
    pub(crate) fn new(config: Dpop, clock: Clock) -> Self {
        let share = config
            .max_proofs_per_key
            .unwrap_or_else(|| u32::try_from(config.max_proofs / 8).unwrap_or(u32::MAX).max(1));
        let accepted_for = match config.nonces {
            Some(_) => Nonces::ACCEPTED_FOR,
            None => config.past + config.future + Duration::from_secs(1),
        };
        let replays = Replays::new(config.max_proofs, share, accepted_for);
        let shared = config.store.clone().map(|store| SharedReplays::new(store.0, clock.clone()));
        Self { config, replays, shared, failures: LogThrottle::default(), clock }
    }

    /// The path of a request as its client wrote it, and how the URL begins if its host is one of
    /// those that are not configured.
    pub(crate) fn url<'a>(
        &self,
        request: &'a Parts,
    ) -> Result<(Cow<'a, str>, Option<Base>), InvalidRequest> {
        let url = match (&self.config.hosts, self.config.bases.first()) {
            (Some(hosts), Some(configured)) => hosts.url(request, configured)?,
            _ => RequestUrl { base: None, path: None },
        };
        let path = self.config.path_from.as_ref().and_then(|path| path(request)).or(url.path);
        let path = path.unwrap_or_else(|| match (request.uri.scheme(), request.uri.authority()) {
            // CONNECT to another server has no path (RFC 9110 §7.1), and no `htu` fits it.
            (None, Some(_)) => "*".into(),
            _ => request.uri.path().into(),
        });
        Ok((path, url.base))
    }

    /// The nonce for the client's next proof (RFC 9449 §8.2), unless that of this proof is the
    /// current one. Every response has it, whatever becomes of the request, so the proof is not
    /// verified here.
    pub(crate) fn next_nonce(&self, request: &Parts) -> Option<HeaderValue> {
        let nonces = self.config.nonces.as_ref()?;
        let now = self.clock.now().unix;
        let proof = only_proof(request).ok().flatten().and_then(|proof| proof.to_str().ok());
        let own = proof.and_then(unverified_nonce);
        let is_current =
            own.and_then(|own| nonces.find(&own, now)).is_some_and(|(_, is_current)| is_current);
        (!is_current).then(|| nonces.current(now))
    }

    /// The accepted algorithms, as the challenge lists them (RFC 9449 §7.1).
    pub(crate) fn algorithms(&self) -> impl Iterator<Item = &'static str> {
        self.config.algorithms.iter().map(|one| one.name())
    }

    pub(crate) fn is_required(&self) -> bool {
        self.config.required
    }

    /// Whether used proofs are recorded in a store that replicas share.
    pub(crate) fn shares(&self) -> bool {
        self.shared.is_some()
    }

    /// Checks the proof of a request, and records in this process that it was used.
    pub(crate) fn check(
        &self,
        request: &ProofRequest<'_>,
        binding: &KeyBinding,
        now: Now,
    ) -> Result<Proven, Error> {
        let checked = self.check_uncounted(request, binding, now);
        match &checked {
            // Counted when it is recorded there.
            Ok(_) if self.shares() => {}
            Ok(_) => telemetry::proof(ProofOutcome::Accepted),
            Err(error) => telemetry::proof(ProofOutcome::of(error)),
        }
        checked
    }

    fn check_uncounted(
        &self,
        request: &ProofRequest<'_>,
        binding: &KeyBinding,
        now: Now,
    ) -> Result<Proven, Error> {
        let header = request.proof.ok_or(ProofError::Missing)?;
        // Faster than `HeaderValue::to_str`. That the characters are base64url is checked next.
        let not_text = |_| ProofError::Malformed("a proof in ASCII");
        let proof = std::str::from_utf8(header.as_bytes()).map_err(not_text)?;
        let jws = Proof::split(proof)?;
        let expected = Expected {
            method: request.method.as_str(),
            bases: &self.config.bases,
            own: request.base.as_ref(),
            path: &request.path,
            ath: &binding.ath,
            jkt: &binding.jkt,
            algorithms: &self.config.algorithms,
        };
        let known = binding.key.load();
        let known = known.as_ref().filter(|key| key.is_of(&jws, &expected));
        let key = match known {
            Some(key) => Arc::clone(key),
            None => {
                Arc::new(ProofKey::read(&jws, &expected).map_err(|rejected| match rejected {
                    Rejected::Proof(error) => Error::from(error),
                    Rejected::OtherKey => InvalidToken::OtherKey.into(),
                })?)
            }
        };
        let proof = Proof::read(&jws, &expected)?;
        let dated = match &self.config.nonces {
            Some(nonces) => Self::check_nonce(nonces, &proof, now)?,
            None => self.check_time(&proof, now)?,
        };
        if let Some(shared) = &self.shared {
            shared.check().map_err(|reason| self.unavailable(reason))?;
        }
        let verified = proof.verify(&key)?;
        if known.is_none() && key.is_kept() {
            binding.key.store(Some(key));
        }
        let mut named = Vec::with_capacity(binding.jkt.len() + 1 + verified.jti.len());
        named.extend_from_slice(&binding.jkt);
        named.push(0);
        named.extend_from_slice(verified.jti.as_bytes());
        let [hash @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = crypto::sha256(&named);
        let Dated { second, oldest, current, accepted_for } = dated;
        let used = Use { hash, jkt: &binding.jkt, second, oldest, current, uptime: now.uptime };
        match self.replays.insert(&used) {
            Ok(kept) => telemetry::replays_kept(kept),
            Err(Refused::Used) => return Err(ProofError::Used.into()),
            Err(Refused::TooOld) if self.config.nonces.is_some() => {
                return Err(ProofError::NonceNeeded.into());
            }
            Err(Refused::TooOld) => return Err(self.wrong_time().into()),
            Err(Refused::TooMany) => return Err(Error::TooManyProofs),
            Err(Refused::Full) => {
                return Err(self.unavailable(StoreError::new("`Dpop::max_proofs` are recorded")));
            }
            Err(Refused::SetBack) => {
                let reason = "the clock of this machine was set back";
                return Err(self.unavailable(StoreError::new(reason)));
            }
        }
        let proof = DpopProof::new(request, header, binding.jkt, now);
        Ok(Proven { proof, hash, accepted_for })
    }

    /// Records in the store that replicas share that a proof was used.
    pub(crate) async fn share(&self, proven: Proven) -> Result<DpopProof, Error> {
        let Some(shared) = &self.shared else { return Ok(proven.proof) };
        let recorded = shared.insert(&proven.hash, proven.accepted_for).await;
        let recorded = recorded.map_err(|failure| match failure {
            NotRecorded::Used => ProofError::Used.into(),
            NotRecorded::Unavailable(reason) => self.unavailable(reason),
        });
        telemetry::proof(match &recorded {
            Ok(()) => ProofOutcome::Accepted,
            Err(error) => ProofOutcome::of(error),
        });
        recorded.map(|()| proven.proof)
    }

    fn check_time(&self, proof: &Proof<'_>, now: Now) -> Result<Dated, ProofError> {
        let oldest = now.unix.saturating_sub(self.config.past);
        let newest = now.unix.saturating_add(self.config.future);
        let issued_at = proof.issued_at();
        // `iat` may have been rounded down.
        if issued_at.as_secs() < oldest.as_secs() || issued_at > newest {
            return Err(self.wrong_time());
        }
        let end = issued_at.saturating_add(self.config.past + Duration::from_secs(1));
        Ok(Dated {
            second: issued_at.as_secs(),
            oldest: oldest.as_secs(),
            current: now.unix.as_secs(),
            accepted_for: end.saturating_sub(now.unix),
        })
    }

    fn check_nonce(nonces: &Nonces, proof: &Proof<'_>, now: Now) -> Result<Dated, ProofError> {
        let found = proof.nonce().and_then(|nonce| nonces.find(nonce, now.unix));
        let (counter, _) = found.ok_or(ProofError::NonceNeeded)?;
        let (oldest, current) = (*Nonces::accepted(now.unix).start(), Nonces::counter(now.unix));
        let accepted_for = Nonces::end(counter).saturating_sub(now.unix);
        Ok(Dated { second: counter, oldest, current, accepted_for })
    }

    /// That a proof was used cannot be recorded. One event per second is logged.
    fn unavailable(&self, reason: StoreError) -> Error {
        if let Some(suppressed) = self.failures.admit(self.clock.now().uptime) {
            telemetry::replays_unavailable(&reason, suppressed);
        }
        Error::ReplaysUnavailable { reason: Arc::new(reason) }
    }

    fn wrong_time(&self) -> ProofError {
        ProofError::WrongTime { past: self.config.past, future: self.config.future }
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests {
    use http::Method;

    use super::*;
    use crate::testing::DpopClient;

    #[test]
    fn the_key_of_a_long_header_is_not_kept_with_the_token() {
        let (clock, client) = (Clock::default(), DpopClient::new().unwrap());
        let dpop = Dpop::new("https://api.example.com").unwrap();
        let active = ActiveDpop::new(dpop, clock.clone());
        let jkt = URL_SAFE_NO_PAD.decode(client.thumbprint()).unwrap().try_into().unwrap();
        let binding = KeyBinding::new(jkt, "token");
        let proof = || client.proof("GET", "https://api.example.com/", "token");
        for (name, proof, is_kept) in [
            ("a long header", proof().header("x", "x".repeat(3000)), false),
            ("a short one", proof(), true),
        ] {
            let header = HeaderValue::try_from(proof.build()).unwrap();
            let request = ProofRequest {
                proof: Some(&header),
                method: &Method::GET,
                path: "/".into(),
                base: None,
            };
            assert!(active.check(&request, &binding, clock.now()).is_ok(), "{name}");
            assert_eq!(binding.key.load().is_some(), is_kept, "{name}");
        }
    }
}
