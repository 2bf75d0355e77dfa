//! What an access token is bound to, and whether a request proves that its sender has it: a key
//! (DPoP, RFC 9449), a certificate (mutual TLS, RFC 8705), or both.

use std::borrow::Cow;

use http::request::Parts;
use http::{HeaderValue, Method};

use crate::client_certificate::ClientCertificate;
use crate::client_certificate::source::{ClientCertificates, Found};
use crate::clock::{Clock, Now};
use crate::crypto;
use crate::dpop::accepted::DpopProof;
use crate::dpop::check::{ActiveDpop, KeyBinding, Proven};
use crate::dpop::request::{ProofRequest, only_proof};
use crate::dpop::target::Base;
use crate::error::{Error, InvalidToken};
use crate::telemetry::{self, LogThrottle};
use crate::token::claims::{Thumbprints, Verifiable};

/// The scheme of `Authorization` that carried the token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Scheme {
    #[default]
    Bearer,
    Dpop,
}

/// Where in a request the token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the header `Authorization`.
    Authorization,
    /// In another header, a cookie, the query, or a websocket's subprotocol.
    Elsewhere,
}

/// What an access token is bound to.
pub(crate) struct Binding {
    /// The only place where it is accepted, if its issuer requires one.
    place: Option<Place>,
    key: Option<KeyBinding>,
    certificate: Option<[u8; 32]>,
}

impl Binding {
    pub(crate) fn new(bound_to: Thumbprints, token: &str, place: Option<Place>) -> Self {
        Self {
            place,
            key: bound_to.key.map(|jkt| KeyBinding::new(jkt, token)),
            certificate: bound_to.certificate,
        }
    }

    fn accepts(&self, found: Place) -> bool {
        self.place.is_none_or(|place| place == found)
    }

    pub(crate) fn thumbprints(&self) -> Thumbprints {
        Thumbprints { key: self.key.as_ref().map(KeyBinding::jkt), certificate: self.certificate }
    }

    /// The memory that it takes at most, in bytes.
    pub(crate) const fn most_bytes() -> usize {
        size_of::<Self>() + KeyBinding::MOST_BYTES
    }
}

/// What a request presents beside its token.
pub(crate) struct Presented<'a> {
    pub(crate) scheme: Scheme,
    place: Place,
    pub(crate) token: Cow<'a, str>,
    request: Head<'a>,
}

/// The head of a request, or what was read of it for a verification that waits.
enum Head<'a> {
    Request(&'a Parts),
    Read(Box<Result<Read, Error>>),
}

struct Read {
    proof: Option<HeaderValue>,
    method: Method,
    path: Box<str>,
    base: Option<Base>,
    certificate: Option<ClientCertificate>,
}

/// What the checks need of a request.
struct Facts<'a> {
    of_proof: ProofRequest<'a>,
    certificate: Option<ClientCertificate>,
}

impl<'a> Presented<'a> {
    pub(crate) fn new(request: &'a Parts, token: &'a str, scheme: Scheme, place: Place) -> Self {
        Self { scheme, place, token: token.into(), request: Head::Request(request) }
    }
}

/// What a verifier checks about bindings.
pub(crate) struct Bindings {
    pub(crate) dpop: Option<ActiveDpop>,
    certificates: Option<ClientCertificates>,
    /// Of headers with certificates: from peers that are not trusted, and unreadable ones.
    untrusted: LogThrottle,
    unreadable: LogThrottle,
    clock: Clock,
}

impl Bindings {
    pub(crate) fn new(
        dpop: Option<ActiveDpop>,
        certificates: Option<ClientCertificates>,
        clock: Clock,
    ) -> Self {
        let (untrusted, unreadable) = (LogThrottle::default(), LogThrottle::default());
        Self { dpop, certificates, untrusted, unreadable, clock }
    }

    /// Whether a request is only its token.
    pub(crate) fn are_none(&self) -> bool {
        self.dpop.is_none() && self.certificates.is_none()
    }

    pub(crate) fn verifiable(&self) -> Verifiable {
        Verifiable { keys: self.dpop.is_some(), certificates: self.certificates.is_some() }
    }

    /// Copies what the checks need, for a verification that waits.
    pub(crate) fn copied(&self, presented: Presented<'_>) -> Presented<'static> {
        let read = self.facts(&presented).map(|facts| Read {
            proof: facts.of_proof.proof.cloned(),
            method: facts.of_proof.method.clone(),
            path: facts.of_proof.path.into(),
            base: facts.of_proof.base,
            certificate: facts.certificate,
        });
        Presented {
            scheme: presented.scheme,
            place: presented.place,
            token: Cow::Owned(presented.token.into_owned()),
            request: Head::Read(Box::new(read)),
        }
    }

    fn facts<'a>(&self, presented: &'a Presented<'_>) -> Result<Facts<'a>, Error> {
        let request: &'a Parts = match &presented.request {
            Head::Request(request) => request,
            Head::Read(read) => {
                let read = (**read).as_ref().map_err(Clone::clone)?;
                let of_proof = ProofRequest {
                    proof: read.proof.as_ref(),
                    method: &read.method,
                    path: Cow::Borrowed(&read.path),
                    base: read.base.clone(),
                };
                return Ok(Facts { of_proof, certificate: read.certificate });
            }
        };
        // A header `DPoP` counts only with the scheme `DPoP`: some clients send it with every
        // request.
        let proof = match presented.scheme {
            Scheme::Bearer => None,
            Scheme::Dpop => only_proof(request)?,
        };
        let (path, base) = match &self.dpop {
            Some(dpop) => dpop.url(request).map_err(Error::InvalidRequest)?,
            None => (Cow::Borrowed(""), None),
        };
        let of_proof = ProofRequest { proof, method: &request.method, path, base };
        Ok(Facts { of_proof, certificate: self.certificate(request) })
    }

    fn certificate(&self, request: &Parts) -> Option<ClientCertificate> {
        match self.certificates.as_ref()?.find(request) {
            Found::Certificate(certificate) => Some(certificate),
            Found::None => None,
            Found::Untrusted => {
                if let Some(suppressed) = self.untrusted.admit(self.clock.now().uptime) {
                    telemetry::client_certificate_untrusted(suppressed);
                }
                None
            }
            Found::Unreadable(expected) => {
                if let Some(suppressed) = self.unreadable.admit(self.clock.now().uptime) {
                    telemetry::client_certificate_unreadable(&expected, suppressed);
                }
                None
            }
        }
    }

    /// Whether the check of a bound token asks a store that replicas share, so that it waits.
    pub(crate) fn waits(&self, presented: &Presented<'_>) -> bool {
        presented.scheme == Scheme::Dpop && self.dpop.as_ref().is_some_and(ActiveDpop::shares)
    }

    /// Checks what a request presents beside its token, which was verified. The proof that it
    /// returns may still have to be recorded where replicas share that.
    pub(crate) fn check(
        &self,
        presented: &Presented<'_>,
        binding: Option<&Binding>,
        now: Now,
    ) -> Result<Option<Proven>, Error> {
        let requires_key = self.dpop.as_ref().is_some_and(ActiveDpop::is_required);
        let Some(binding) = binding else {
            return match presented.scheme {
                Scheme::Bearer if !requires_key => Ok(None),
                _ => Err(InvalidToken::NotBound.into()),
            };
        };
        if !binding.accepts(presented.place) {
            return Err(InvalidToken::OutsideAuthorization.into());
        }
        let key = match (&binding.key, presented.scheme) {
            (None, Scheme::Dpop) => return Err(InvalidToken::NotBound.into()),
            (None, Scheme::Bearer) if requires_key => return Err(InvalidToken::NotBound.into()),
            (Some(_), Scheme::Bearer) => return Err(InvalidToken::SenderConstrained.into()),
            (key, _) => key.as_ref(),
        };
        let facts = self.facts(presented)?;
        if let Some(expected) = &binding.certificate {
            let found = facts.certificate.ok_or(InvalidToken::CertificateMissing)?;
            if !crypto::is_equal(expected, found.sha256()) {
                return Err(InvalidToken::OtherCertificate.into());
            }
        }
        match (key, &self.dpop) {
            (Some(key), Some(dpop)) => dpop.check(&facts.of_proof, key, now).map(Some),
            (Some(_), None) => Err(InvalidToken::SenderConstrained.into()),
            (None, _) => Ok(None),
        }
    }

    /// Whether the bindings of a token still hold, which an outer layer of this verifier checked:
    /// a proof is used once, so it is not checked again.
    pub(crate) fn still_hold(
        &self,
        binding: &Binding,
        proof: Option<&DpopProof>,
        request: &Parts,
        (scheme, place): (Scheme, Place),
    ) -> bool {
        let is_of = |proof: &DpopProof| {
            let url = self.dpop.as_ref().and_then(|dpop| dpop.url(request).ok());
            url.is_some_and(|(path, _)| proof.is_of(request, &path, self.clock.now()))
        };
        let has_proof = binding.key.is_none() || scheme == Scheme::Dpop && proof.is_some_and(is_of);
        let has_certificate = binding.certificate.as_ref().is_none_or(|expected| {
            self.certificate(request)
                .is_some_and(|found| crypto::is_equal(expected, found.sha256()))
        });
        has_proof && has_certificate && binding.accepts(place)
    }
}
