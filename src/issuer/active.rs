//! A trusted issuer at run time: its configuration and its keys.

use std::borrow::Cow;
use std::sync::{Arc, Weak};

use super::introspecting::client_of;
use super::{Issuer, KeySource};
use crate::clock::{Clock, Now};
use crate::error::{ConfigError, Error, FetchError, InvalidToken};
use crate::health::IssuerHealth;
use crate::http_client::{HttpClients, Purpose};
use crate::introspection::JwtPolicy;
use crate::introspection::answer::IntrospectedPayload;
use crate::introspection::client::IntrospectionClient;
use crate::keys::jwk::{Jwk, SetFormat, SignedPayload};
use crate::keys::jwks::Jwks;
use crate::keys::remote::{
    AddressPolicy, Fetching, KeysState, Location, MAX_WAITS, Mismatch, RefetchOutcome, RemoteJwks,
    Source,
};
use crate::keys::url::PlainHttp;
#[cfg(feature = "status-list")]
use crate::status_list::budget::ResolvedBudget;
#[cfg(feature = "status-list")]
use crate::status_list::lists::{ActiveStatusLists, CheckedReference, TokenStatus};
use crate::telemetry::{IssuerName, LogThrottle};
use crate::token::claims::RegisteredClaims;
use crate::token::json::most_bytes_read;
use crate::token::jws::{Header, Jws};
use crate::token::token_type::AllowedTypes;

/// Upper bound, in bytes, on the memory that reading the claims of an unverified token may take.
/// Reading that much takes about as long as verifying a signature. Real claims stay under 16 KiB.
const MOST_BYTES_UNVERIFIED: usize = 64 * 1024;

/// An [`Issuer`] at run time: its configuration and its keys.
pub(crate) struct ActiveIssuer {
    pub(crate) config: Issuer,
    keys: ActiveKeys,
    /// Every `iss` that its tokens may have, if there are several.
    pub(crate) names: Option<Arc<[Arc<str>]>>,
    /// Asks the issuer about its tokens.
    pub(crate) introspection: Option<IntrospectionClient>,
    /// The lists with the status of its tokens.
    #[cfg(feature = "status-list")]
    pub(crate) status_lists: Option<ActiveStatusLists>,
}

/// How an issuer came to be trusted.
pub(crate) enum Provenance {
    /// Configured by the application.
    Configured,
    /// Resolved by the lookup. Anyone may be able to register such an issuer.
    Resolved {
        addresses: AddressPolicy,
        /// Limits the log events about resolved issuers.
        throttle: Arc<LogThrottle>,
        /// Limits what the status lists of resolved issuers take.
        #[cfg(feature = "status-list")]
        status_lists: Arc<ResolvedBudget>,
    },
}

enum ActiveKeys {
    /// The issuer is asked about every token.
    Unused,
    Secret(Arc<Jwk>),
    Fixed(Jwks),
    Remote(Arc<RemoteJwks>),
}

impl ActiveKeys {
    fn of(
        config: &Issuer,
        issuer: IssuerName,
        addresses: AddressPolicy,
        clients: &HttpClients,
        clock: &Clock,
    ) -> Result<Self, ConfigError> {
        if !config.needs_keys() {
            return Ok(Self::Unused);
        }
        let rsa = config.rsa_algorithm();
        // `Issuer::algorithms` takes precedence over the algorithm of the set.
        let prepared = |jwks: &Jwks| {
            jwks.with_rsa_algorithm(match &config.algorithms {
                Cow::Borrowed(_) => jwks.own_rsa_algorithm().unwrap_or(rsa),
                Cow::Owned(_) => rsa,
            })
        };
        let location = match &config.key_source {
            KeySource::Secret(key) => return Ok(Self::Secret(Arc::clone(key))),
            KeySource::Fixed(jwks) => return Ok(Self::Fixed(prepared(jwks))),
            KeySource::JwksUri(uri) => Location::Jwks(uri.clone()),
            KeySource::PemByKid(prefix) => Location::PemByKid(prefix.clone()),
            KeySource::Discovery { .. } => {
                Location::Discovery { at: config.metadata_url()?, same_origin: config.same_origin }
            }
        };
        let client = clients.get(config.client.as_ref(), addresses, Purpose::Keys)?;
        let (algorithms, policy, plain_http) =
            (config.algorithms.clone(), config.key_policy.clone(), config.plain_http);
        let format = match config.profile.trust_domain {
            Some(_) => SetFormat::SpiffeBundle,
            None => SetFormat::Jwks,
        };
        let source =
            Source { issuer, location, format, rsa, algorithms, policy, addresses, plain_http };
        let seed = config.seed.as_ref().map(prepared);
        Ok(Self::Remote(RemoteJwks::new(source, client, clock.clone(), seed)))
    }
}

impl ActiveIssuer {
    pub(crate) fn new(
        config: Issuer,
        provenance: Provenance,
        clients: &HttpClients,
        clock: &Clock,
    ) -> Result<Self, ConfigError> {
        config.check()?;
        #[cfg(feature = "status-list")]
        let of_resolved = match &provenance {
            Provenance::Configured => None,
            Provenance::Resolved { status_lists, .. } => Some(Arc::clone(status_lists)),
        };
        let (throttle, addresses) = match provenance {
            Provenance::Configured => (None, AddressPolicy::Any),
            Provenance::Resolved { .. } if config.plain_http == PlainHttp::Anywhere => {
                return Err(ConfigError::new(format!(
                    "issuer {:?}: expected https for an issuer that the lookup returns, found `danger_allow_http`; configure the issuer instead",
                    config.iss
                )));
            }
            Provenance::Resolved { .. }
                if config
                    .introspection
                    .as_ref()
                    .is_some_and(|introspection| introspection.jwts == JwtPolicy::Verify) =>
            {
                return Err(ConfigError::new(format!(
                    "issuer {:?}: expected `Introspection::jwts_too` or `instead_of_keys` for an issuer that the lookup returns: its opaque tokens do not name it",
                    config.iss
                )));
            }
            Provenance::Resolved { throttle, addresses, .. } => (Some(throttle), addresses),
        };
        let name = IssuerName { iss: Arc::clone(&config.iss), throttle };
        let introspection = client_of(&config, &name, addresses, clients, clock)?;
        #[cfg(feature = "status-list")]
        let status_lists =
            ActiveStatusLists::new(&config, &name, addresses, of_resolved, clients, clock)?;
        let keys = ActiveKeys::of(&config, name, addresses, clients, clock)?;
        let names = (!config.aliases.is_empty()).then(|| config.names().map(Arc::clone).collect());
        Ok(Self {
            config,
            keys,
            names,
            introspection,
            #[cfg(feature = "status-list")]
            status_lists,
        })
    }

    /// draft-ietf-oauth-rfc8725bis §3.1: the issuer's configuration determines the accepted
    /// algorithms, not the token.
    pub(crate) fn check_algorithm(&self, header: &Header<'_>) -> Result<(), InvalidToken> {
        if self.config.accepts(header.algorithm) {
            return Ok(());
        }
        Err(InvalidToken::UnsupportedAlgorithm { presented: header.algorithm.name().to_owned() })
    }

    /// The tenant of a document, for which its key must be.
    pub(crate) fn tenant_of<'a>(&'a self, iss: &'a str) -> Option<&'a str> {
        match &self.config.template {
            Some(template) => template.tenant(iss),
            None => self.config.profile.tenant.as_deref(),
        }
    }

    /// The tenant of the token. For an issuer with many tenants, also checks that `tid` matches
    /// `iss`.
    pub(crate) fn check_tenant<'a>(
        &'a self,
        claims: &'a RegisteredClaims<'_>,
    ) -> Result<Option<&'a str>, InvalidToken> {
        match &self.config.template {
            Some(template) => template.check(&claims.issuer, claims.tenant.as_deref()).map(Some),
            None => Ok(self.config.profile.tenant.as_deref()),
        }
    }

    /// Checks the token against this issuer's profile: `typ` and the configured claim requirements.
    pub(crate) fn check_profile(
        &self,
        jws: &Jws<'_>,
        header: &Header<'_>,
        claims: &RegisteredClaims<'_>,
        now: Now,
    ) -> Result<(), InvalidToken> {
        let profile = &self.config.profile;
        if !profile.padding {
            jws.check_unpadded()?;
        }
        if let Some(signer) = &profile.signer
            && header.signer.as_deref() != Some(signer)
        {
            let expected = format!("{signer:?} in the header");
            return Err(InvalidToken::ClaimValue { claim: "signer".to_owned(), expected });
        }
        profile.typ.check(header.typ.as_deref())?;
        if profile.typ == AllowedTypes::Rfc9068 {
            claims.check_rfc9068()?;
        }
        if self.checks_claims_late(jws) {
            Ok(())
        } else {
            // The payload is unverified: it can only cause a rejection.
            self.check_claims(jws, now)
        }
    }

    /// Reads where the status of a token is, if it is in a list that is looked up. The payload is
    /// unverified: it can only cause a rejection. `tenant`: that of the token, for an issuer with
    /// many.
    #[cfg(feature = "status-list")]
    pub(crate) fn status_reference(
        &self,
        jws: &Jws<'_>,
        tenant: Option<&str>,
    ) -> Result<Option<CheckedReference>, InvalidToken> {
        let Some(lists) = &self.status_lists else { return Ok(None) };
        lists.reference(jws.unverified_payload(), tenant)
    }

    /// The status of a token that was verified.
    #[cfg(feature = "status-list")]
    pub(crate) fn status(
        self: &Arc<Self>,
        reference: Option<CheckedReference>,
    ) -> Result<Option<TokenStatus>, Error> {
        match (&self.status_lists, reference) {
            (Some(lists), Some(reference)) => lists.status(reference, self).map(Some),
            _ => Ok(None),
        }
    }

    /// Whether the claim requirements are checked after the signature instead of before it. That is
    /// so if reading the claims costs more than the signature: an attacker could cause that cost
    /// with unsigned tokens.
    pub(crate) fn checks_claims_late(&self, jws: &Jws<'_>) -> bool {
        !self.config.profile.claims.is_empty()
            && std::str::from_utf8(jws.unverified_payload())
                .is_ok_and(|payload| most_bytes_read(payload) > MOST_BYTES_UNVERIFIED)
    }

    /// Checks the configured claim requirements of the issuer's answer about a token.
    pub(crate) fn check_introspected(
        &self,
        payload: IntrospectedPayload<'_>,
        now: Now,
    ) -> Result<(), InvalidToken> {
        self.check_requirements(payload.text().as_bytes(), now)
    }

    /// Checks the configured claim requirements.
    pub(crate) fn check_claims(&self, jws: &Jws<'_>, now: Now) -> Result<(), InvalidToken> {
        self.check_requirements(jws.unverified_payload(), now)
    }

    fn check_requirements(&self, payload: &[u8], now: Now) -> Result<(), InvalidToken> {
        let rules = &self.config.profile.claims;
        if rules.is_empty() {
            return Ok(());
        }
        let claims = serde_json::from_slice(payload)
            .map_err(|_| InvalidToken::Malformed("a payload whose numbers fit into 64 bits"))?;
        let latest = now.unix.saturating_add(self.config.leeway);
        rules.iter().try_for_each(|rule| rule.check(&claims, latest))
    }

    /// Whether the cached keys verify the signature. Never fetches keys.
    pub(crate) fn verifies_with_cached_keys(
        &self,
        jws: &Jws<'_>,
        header: &Header<'_>,
        tenant: Option<&str>,
        now: Now,
    ) -> bool {
        let verifies = |jwks: &Jwks| jwks.verify_signature(jws, header, tenant).is_ok();
        match &self.keys {
            ActiveKeys::Unused => false,
            ActiveKeys::Secret(key) => key.verify(jws).is_some(),
            ActiveKeys::Fixed(jwks) => verifies(jwks),
            ActiveKeys::Remote(remote) => remote.cached(now).is_some_and(|jwks| verifies(&jwks)),
        }
    }

    /// Selects the key and verifies the signature, or returns the fetch to wait for. `waits` is the
    /// number of fetches that this request has waited for.
    pub(crate) fn verify_signature<'a>(
        &self,
        jws: &'a Jws<'_>,
        header: &Header<'_>,
        tenant: Option<&str>,
        waits: u8,
        now: Now,
    ) -> Result<SignatureCheck<'a>, Error> {
        let remote = match &self.keys {
            ActiveKeys::Unused => return Err(InvalidToken::BadSignature.into()),
            ActiveKeys::Secret(key) => {
                return Ok(SignatureCheck::Ready(
                    key.verify(jws).ok_or(InvalidToken::BadSignature)?,
                    None,
                ));
            }
            ActiveKeys::Fixed(jwks) => {
                return Ok(SignatureCheck::Ready(
                    jwks.verify_signature(jws, header, tenant)?,
                    None,
                ));
            }
            ActiveKeys::Remote(remote) => remote,
        };
        if !remote.may_have(header.kid.as_deref()) {
            return Err(
                InvalidToken::UnknownKey { kid: header.kid.as_deref().map(str::to_owned) }.into()
            );
        }
        loop {
            let jwks = match remote.keys(header.kid.as_deref(), now) {
                KeysState::Ready(jwks) => jwks,
                // Wait again if the keys were dropped during the fetch.
                KeysState::Pending(fetching, failure)
                    if waits == 0 || failure.is_none() && waits < MAX_WAITS =>
                {
                    return Ok(SignatureCheck::Pending(fetching));
                }
                KeysState::Pending(_, failure) | KeysState::Unavailable(failure) => {
                    return Err(self.keys_unavailable(failure));
                }
            };
            match jwks.verify_signature(jws, header, tenant) {
                // The signature may be that of a new key, either without a `kid` or with the `kid`
                // of an old key.
                Err(rejection @ (InvalidToken::UnknownKey { .. } | InvalidToken::BadSignature)) => {
                    let kid = header.kid.as_deref();
                    let is_forged = rejection == InvalidToken::BadSignature;
                    let mismatch = if is_forged || kid.is_some_and(|kid| jwks.has_kid(kid)) {
                        Mismatch::Signature
                    } else {
                        Mismatch::Kid
                    };
                    match remote.refetch(&jwks, kid, mismatch, waits, now) {
                        RefetchOutcome::Pending(fetching) => {
                            return Ok(SignatureCheck::Pending(fetching));
                        }
                        RefetchOutcome::Retry => {}
                        // Unavailable, not invalid: the issuer may have published the key, but
                        // cannot be reached.
                        RefetchOutcome::Rejected(Some(failure)) if !is_forged => {
                            return Err(self.keys_unavailable(Some(failure)));
                        }
                        RefetchOutcome::Rejected(_) => return Err(rejection.into()),
                    }
                }
                Err(error) => return Err(error.into()),
                Ok(payload) => {
                    remote.mark_established();
                    return Ok(SignatureCheck::Ready(payload, Some(jwks)));
                }
            }
        }
    }

    /// Whether a fetch could bring a key with this `kid`.
    pub(crate) fn may_fetch_key(&self, kid: Option<&str>) -> bool {
        matches!(&self.keys, ActiveKeys::Remote(remote) if remote.may_have(kid))
    }

    /// Whether these are still the issuer's keys. Like every use of the keys, this may start a
    /// refresh before they expire.
    pub(crate) fn recheck(&self, keys: Option<&Weak<Jwks>>, now: Now) -> bool {
        match (&self.keys, keys) {
            (ActiveKeys::Unused | ActiveKeys::Secret(_) | ActiveKeys::Fixed(_), None) => true,
            (ActiveKeys::Remote(remote), Some(keys)) => remote.recheck(keys, now),
            _ => false,
        }
    }

    /// Drops fetched keys and status lists: the next token causes another fetch.
    pub(crate) fn forget_fetched(&self) {
        #[cfg(feature = "status-list")]
        if let Some(lists) = &self.status_lists {
            lists.forget();
        }
        if let ActiveKeys::Remote(remote) = &self.keys {
            remote.forget();
        }
    }

    /// Starts to fetch keys that are not cached yet. Returns `None` if there is nothing to wait
    /// for.
    pub(crate) fn warm_up(&self, now: Now) -> Option<Fetching> {
        match &self.keys {
            ActiveKeys::Unused | ActiveKeys::Secret(_) | ActiveKeys::Fixed(_) => None,
            ActiveKeys::Remote(remote) => {
                remote.can_warm_up().then(|| remote.warm_up(now)).flatten()
            }
        }
    }

    pub(crate) fn health(&self, now: Now) -> IssuerHealth {
        let iss = &self.config.iss;
        let keys = match &self.keys {
            ActiveKeys::Remote(remote) => remote.health(now),
            ActiveKeys::Fixed(jwks) => {
                IssuerHealth::fixed(iss, jwks.len(), jwks.ignored().to_vec())
            }
            ActiveKeys::Secret(_) => IssuerHealth::fixed(iss, 1, Vec::new()),
            ActiveKeys::Unused => IssuerHealth::fixed(iss, 0, Vec::new()),
        };
        IssuerHealth {
            introspection: self.introspection.as_ref().map(IntrospectionClient::health),
            #[cfg(feature = "status-list")]
            status_lists: self.status_lists.as_ref().map(ActiveStatusLists::health),
            needs_keys: !matches!(self.keys, ActiveKeys::Unused),
            ..keys
        }
    }

    /// Whether the keys can be fetched before the first token arrives.
    pub(crate) fn can_warm_up(&self) -> bool {
        match &self.keys {
            ActiveKeys::Unused | ActiveKeys::Secret(_) | ActiveKeys::Fixed(_) => true,
            ActiveKeys::Remote(remote) => remote.can_warm_up(),
        }
    }

    fn keys_unavailable(&self, failure: Option<Arc<FetchError>>) -> Error {
        let reason = failure.map_or(FetchError::Interrupted, |failure| (*failure).clone());
        Error::KeysUnavailable { issuer: Arc::clone(&self.config.iss), reason }
    }
}

/// A verified signature, or the fetch to wait for.
pub(crate) enum SignatureCheck<'a> {
    /// With the key set that contains the key, if the set can change.
    Ready(SignedPayload<'a>, Option<Arc<Jwks>>),
    Pending(Fetching),
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;
    use crate::algorithm::Algorithm;
    use crate::crypto::Fips;

    #[test]
    fn claims_up_to_64_kib_are_checked_before_the_signature() {
        let issuer = Issuer::new("https://issuer.example/", "https://api.example.com")
            .and_then(|issuer| issuer.secret(Algorithm::HS256, &[7; 32]))
            .unwrap()
            .require_claim("org", ["acme"]);
        let clients = HttpClients::new(None, Fips::NotRequired);
        let clock = Clock::default();
        let issuer = ActiveIssuer::new(issuer, Provenance::Configured, &clients, &clock).unwrap();
        let claims = |padding: usize| {
            format!("{{\"a\":[{}],\"b\":\"{}\"}}", ["{}"; 75].join(","), "x".repeat(padding))
        };
        for (bytes, is_late) in [(64 * 1024 - 1, false), (64 * 1024, false), (64 * 1024 + 1, true)]
        {
            let claims = claims(bytes - most_bytes_read(&claims(0)));
            assert_eq!(most_bytes_read(&claims), bytes);
            let token = format!("e30.{}.e30", URL_SAFE_NO_PAD.encode(claims));
            let jws = Jws::split(&token).unwrap();
            assert_eq!(issuer.checks_claims_late(&jws), is_late, "{bytes} bytes");
        }
    }
}
