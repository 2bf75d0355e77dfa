//! The checks of a request with DPoP, in order: those that cost little first, and nothing is
//! remembered before everything holds.

use std::borrow::Cow;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method};

use super::Dpop;
use super::nonces::Nonces;
use super::proof::{Expected, Proof, ProofKey, Rejected, unverified_nonce};
use super::replays::{Refused, Replays, Use};
use crate::clock::{Clock, Now};
use crate::crypto;
use crate::error::{Error, InvalidToken, ProofError};

/// The header with the proof (RFC 9449 §4.1).
const HEADER: HeaderName = HeaderName::from_static("dpop");

/// The scheme of `Authorization` that carried the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Bearer,
    Dpop,
}

/// What a request presents beside its token.
pub(crate) struct Presented<'a> {
    pub(crate) scheme: Scheme,
    pub(crate) token: Cow<'a, str>,
    /// The only header `DPoP`. `None` if the request has none.
    pub(crate) proof: Option<Cow<'a, str>>,
    pub(crate) method: Cow<'a, str>,
    pub(crate) path: Cow<'a, str>,
}

impl Presented<'_> {
    pub(crate) fn into_owned(self) -> Presented<'static> {
        let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        Presented {
            scheme: self.scheme,
            token: own(self.token),
            proof: self.proof.map(own),
            method: own(self.method),
            path: own(self.path),
        }
    }
}

/// Marks a request whose proof was accepted, for nested layers of the same verifier: a proof is
/// used once. The mark is in the request's extensions.
#[derive(Clone)]
pub(crate) struct CheckedProof {
    method: Method,
    proof: HeaderValue,
}

impl CheckedProof {
    /// The mark for a request with an accepted proof.
    pub(crate) fn of(request: &Parts) -> Option<Self> {
        let proof = request.headers.get(HEADER)?.clone();
        Some(Self { method: request.method.clone(), proof })
    }

    /// Whether the request still has the proof and the method that were checked.
    pub(crate) fn is_of(&self, request: &Parts) -> bool {
        let mut headers = request.headers.get_all(HEADER).iter();
        let is_same = headers.next() == Some(&self.proof) && headers.next().is_none();
        is_same && request.method == self.method
    }
}

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

    /// The memory that it takes at most, in bytes.
    pub(crate) const fn most_bytes() -> usize {
        size_of::<Self>() + ProofKey::MOST_BYTES
    }
}

/// DPoP of a verifier, at run time.
pub(crate) struct ActiveDpop {
    pub(super) config: Dpop,
    replays: Replays,
    clock: Clock,
}

impl ActiveDpop {
    pub(crate) fn new(config: Dpop, clock: Clock) -> Self {
        let share = config
            .max_proofs_per_key
            .unwrap_or_else(|| u32::try_from(config.max_proofs / 8).unwrap_or(u32::MAX).max(1));
        let accepted_for = match config.nonces {
            Some(_) => Nonces::ACCEPTED_FOR,
            None => config.past + config.future,
        };
        let replays = Replays::new(config.max_proofs, share, accepted_for);
        Self { config, replays, clock }
    }

    /// What a request presents. A header `DPoP` counts only with the scheme `DPoP`: some clients
    /// send it with every request.
    pub(crate) fn presented<'a>(
        &self,
        request: &'a Parts,
        token: &'a str,
        scheme: Scheme,
    ) -> Result<Presented<'a>, ProofError> {
        let proof = match scheme {
            Scheme::Bearer => None,
            Scheme::Dpop => {
                let mut headers = request.headers.get_all(HEADER).iter();
                match (headers.next(), headers.next()) {
                    (Some(_), Some(_)) => return Err(ProofError::Repeated),
                    (Some(proof), None) => {
                        let text = proof.to_str();
                        let not_ascii = |_| ProofError::Malformed("a proof in ASCII");
                        Some(text.map_err(not_ascii)?.into())
                    }
                    (None, _) => None,
                }
            }
        };
        let path = self.config.path_from.as_ref().and_then(|path| path(request));
        let path = path.unwrap_or_else(|| match (request.uri.scheme(), request.uri.authority()) {
            // CONNECT to another server has no path (RFC 9110 §7.1), and no `htu` fits it.
            (None, Some(_)) => "*".into(),
            _ => request.uri.path().into(),
        });
        Ok(Presented {
            scheme,
            token: token.into(),
            proof,
            method: request.method.as_str().into(),
            path,
        })
    }

    /// The nonce for the client's next proof (RFC 9449 §8.2), unless that of this proof is the
    /// current one. Every response has it, whatever becomes of the request, so the proof is not
    /// verified here.
    pub(crate) fn next_nonce(&self, presented: &Presented<'_>) -> Option<HeaderValue> {
        let nonces = self.config.nonces.as_ref().filter(|_| presented.scheme == Scheme::Dpop)?;
        let now = self.clock.now().unix;
        let own = presented.proof.as_deref().and_then(unverified_nonce);
        let is_current =
            own.and_then(|own| nonces.find(&own, now)).is_some_and(|(_, is_current)| is_current);
        (!is_current).then(|| nonces.current(now))
    }

    /// The accepted algorithms, as the challenge lists them (RFC 9449 §7.1).
    pub(crate) fn algs(&self) -> String {
        let names: Vec<_> = self.config.algorithms.iter().map(|one| one.name()).collect();
        names.join(" ")
    }

    pub(crate) fn is_required(&self) -> bool {
        self.config.required
    }

    /// Checks the proof of a request whose access token was verified. `binding`: what the token is
    /// bound to.
    pub(crate) fn check(
        &self,
        presented: &Presented<'_>,
        binding: Option<&KeyBinding>,
    ) -> Result<(), Error> {
        let binding = match (binding, presented.scheme) {
            (None, Scheme::Bearer) if !self.config.required => {
                return Ok(());
            }
            (None, _) => return Err(InvalidToken::NotBound.into()),
            (Some(_), Scheme::Bearer) => return Err(InvalidToken::SenderConstrained.into()),
            (Some(binding), Scheme::Dpop) => binding,
        };
        let proof = presented.proof.as_deref().ok_or(ProofError::Missing)?;
        let now = self.clock.now();
        let jws = Proof::split(proof)?;
        let expected = Expected {
            method: &presented.method,
            bases: &self.config.bases,
            path: &presented.path,
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
        let (second, oldest) = match &self.config.nonces {
            Some(nonces) => Self::check_nonce(nonces, &proof, now)?,
            None => self.check_time(&proof, now)?,
        };
        let verified = proof.verify(&key)?;
        if known.is_none() && key.is_kept() {
            binding.key.store(Some(key));
        }
        let mut named = binding.jkt.to_vec();
        named.push(0);
        named.extend_from_slice(verified.jti.as_bytes());
        let [hash @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = crypto::sha256(&named);
        let used = Use { hash, jkt: &binding.jkt, second, oldest, uptime: now.uptime };
        match self.replays.insert(&used) {
            Ok(()) => Ok(()),
            Err(Refused::Used) => Err(ProofError::Used.into()),
            Err(Refused::TooOld) if self.config.nonces.is_some() => {
                Err(ProofError::NonceNeeded.into())
            }
            Err(Refused::TooOld) => Err(self.wrong_time().into()),
            Err(Refused::TooMany) => Err(Error::TooManyProofs),
            Err(Refused::Full) => Err(Error::ReplaysUnavailable),
        }
    }

    fn check_time(&self, proof: &Proof<'_>, now: Now) -> Result<(u64, u64), ProofError> {
        let oldest = now.unix.saturating_sub(self.config.past);
        let newest = now.unix.saturating_add(self.config.future);
        let issued_at = proof.issued_at();
        // `iat` may have been rounded down.
        if issued_at.as_secs() < oldest.as_secs() || issued_at > newest {
            return Err(self.wrong_time());
        }
        Ok((issued_at.as_secs(), oldest.as_secs()))
    }

    fn check_nonce(nonces: &Nonces, proof: &Proof<'_>, now: Now) -> Result<(u64, u64), ProofError> {
        let found = proof.nonce().and_then(|nonce| nonces.find(nonce, now.unix));
        let (counter, _) = found.ok_or(ProofError::NonceNeeded)?;
        Ok((counter, Nonces::oldest(now.unix)))
    }

    fn wrong_time(&self) -> ProofError {
        ProofError::WrongTime { past: self.config.past, future: self.config.future }
    }
}
