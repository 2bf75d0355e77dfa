//! [`AccessToken`]: proof that a token was verified.

pub(crate) mod charge;
pub(crate) mod payload;
mod stored;
#[cfg(test)]
#[cfg(feature = "testing")]
mod tests;

use std::fmt;
#[cfg(feature = "status-list")]
use std::future::poll_fn;
#[cfg(feature = "status-list")]
use std::pin::pin;
use std::sync::{Arc, OnceLock};
#[cfg(feature = "status-list")]
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::binding::{Binding, Place};
use crate::clock::{Clock, Now};
use crate::dpop::accepted::DpopProof;
use crate::error::{ClaimsError, Error};
use crate::revocation::{LookedUpAt, Revocations};
#[cfg(feature = "status-list")]
use crate::status_list::lists::TokenStatus;
use crate::telemetry;
use crate::token::claim_path::{ClaimPath, listed_strings};
use crate::token::claims::RegisteredClaims;
use crate::token::json::most_bytes_read;
use crate::token::profile::TokenProfile;
use crate::token::scope::Scope;
use charge::Charge;
use payload::VerifiedPayload;
use stored::{Text, Typed};

/// A *verified* access token. Only a [`Verifier`](crate::Verifier) creates one, after it has
/// checked issuer, audience, time, and either the signature (RFC 9068) or the answer of the issuer
/// (RFC 7662), or an API key. Handlers and rules need not know which; [`kind`](Self::kind) tells.
///
/// [`ProtectLayer`](crate::ProtectLayer) inserts it into the request's extensions. With the feature
/// `axum`, it is an extractor. It is cheap to clone. Its `Debug` output contains the issuer, but
/// neither the token nor other claims.
///
/// ```
/// use portcullis::AccessToken;
///
/// fn greet(request: &http::Request<()>) -> String {
///     match request.extensions().get::<AccessToken>() {
///         Some(token) => format!("Hello {}", token.subject().unwrap_or("machine")),
///         None => "Hello guest".to_owned(),
///     }
/// }
/// ```
#[derive(Clone)]
pub struct AccessToken(
    Arc<Inner>,
    /// The proof of the request that carried the token. A cached token has none.
    Option<DpopProof>,
);

/// What a token is, and how it was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenKind {
    /// A JWT whose signature was verified with the issuer's keys, also if the issuer was then asked
    /// about it ([`Introspection::jwts_too`](crate::Introspection::jwts_too)).
    Jwt,
    /// A token whose claims are the issuer's answer about it (RFC 7662).
    Introspected,
    /// An API key ([`ApiKeys`](crate::ApiKeys)). Its claims are those of its record.
    ApiKey,
}

struct Inner {
    kind: TokenKind,
    /// The token, followed by its claims in JSON.
    text: Box<str>,
    token_end: usize,
    subject: Option<Text>,
    client_id: Option<Text>,
    scope: Scope,
    expires_at: Duration,
    /// `exp`, or the time at which the token becomes too old, if that is earlier.
    good_until: Duration,
    /// The later of `nbf` and `iat`.
    good_from: Duration,
    terms: Terms,
    issued_at: Option<Duration>,
    looked_up_at: LookedUpAt,
    /// What the token is bound to. Boxed, since most tokens are bound to nothing.
    binding: Option<Box<Binding>>,
    /// The claims as a tree, once it is needed.
    tree: OnceLock<Value>,
    /// The claims as types of the application, once they are needed.
    typed: Typed,
    /// The memory that the token takes in the cache, if it is cached.
    charge: OnceLock<Charge>,
}

/// The issuer and the verifier of a token, as far as the token needs them later.
pub(crate) struct Terms {
    /// `iss`, as spelled in the token.
    pub(crate) issuer: Arc<str>,
    pub(crate) profile: Arc<TokenProfile>,
    pub(crate) leeway: Duration,
    pub(crate) max_token_age: Option<Duration>,
    /// Every `iss` that tokens of the issuer may have, if there are several.
    pub(crate) names: Option<Arc<[Arc<str>]>>,
    /// The only place of a request where the token is accepted.
    pub(crate) place: Option<Place>,
    /// The number of the verifier. Each verifier accepts only its own tokens.
    pub(crate) verifier: u64,
    pub(crate) clock: Clock,
    pub(crate) implies: Option<Arc<Implies>>,
    pub(crate) revocations: Option<Revocations>,
    /// Where the status of the token is looked up on each request.
    #[cfg(feature = "status-list")]
    pub(crate) status: Option<TokenStatus>,
}

/// Whether a granted scope token (the first) implies a required one (the second).
pub(crate) type Implies = dyn Fn(&str, &str) -> bool + Send + Sync;

impl AccessToken {
    pub(crate) fn new(
        token: &str,
        payload: VerifiedPayload<'_>,
        claims: RegisteredClaims<'_>,
        terms: Terms,
    ) -> Self {
        let (kind, payload) = (payload.kind(), payload.text());
        let text = |text: &str| Text::new(text, payload);
        let binding = claims
            .thumbprints()
            .map(|bound_to| Box::new(Binding::new(bound_to, token, terms.place)));
        let good_from = claims.good_from();
        let good_until = claims.good_until(terms.max_token_age);
        let issued_at = claims.issued_at();
        let inner = Inner {
            kind,
            text: [token, payload].concat().into(),
            token_end: token.len(),
            subject: claims.subject.as_deref().map(text),
            client_id: claims.client_id().map(text),
            scope: match &terms.profile.scope_prefix {
                Some(prefix) => claims.scope.with_unprefixed(prefix),
                None => claims.scope,
            },
            expires_at: claims.expires_at,
            good_until,
            good_from,
            terms,
            issued_at,
            looked_up_at: LookedUpAt::default(),
            binding,
            tree: OnceLock::new(),
            typed: Typed::default(),
            charge: OnceLock::new(),
        };
        Self(Arc::new(inner), None)
    }

    /// What the token is bound to (RFC 9449 §6, RFC 8705 §3).
    pub(crate) fn binding(&self) -> Option<&Binding> {
        self.0.binding.as_deref()
    }

    /// Where its status is, if it is in a list.
    #[cfg(feature = "status-list")]
    pub(crate) fn status(&self) -> Option<&TokenStatus> {
        self.0.terms.status.as_ref()
    }

    /// `iat` (RFC 7519 §4.1.6).
    pub(crate) fn issued_at(&self) -> Option<Duration> {
        self.0.issued_at
    }

    /// Every `iss` that tokens of the issuer may have.
    pub(crate) fn issuer_names(&self) -> impl Iterator<Item = &str> {
        let others = self.0.terms.names.iter().flat_map(|names| names.iter());
        let others = others.map(|name| &**name).filter(|name| *name != self.issuer());
        std::iter::once(self.issuer()).chain(others)
    }

    /// Rejects the token if it was revoked since it was verified.
    pub(crate) fn check_revoked(&self, now: Now) -> Result<(), Error> {
        let revocations = self.0.terms.revocations.as_ref();
        revocations.map_or(Ok(()), |revocations| revocations.check(self, now))
    }

    /// When it was last looked up among the revocations.
    pub(crate) fn looked_up_at(&self) -> &LookedUpAt {
        &self.0.looked_up_at
    }

    /// The token, with the proof of its request.
    pub(crate) fn with_proof(self, proof: DpopProof) -> Self {
        Self(self.0, Some(proof))
    }

    /// Whether the token is bound to a key (RFC 9449 §6) or a certificate (RFC 8705 §3) of its
    /// client. The request then has proved that its sender has them.
    pub fn is_bound(&self) -> bool {
        self.0.binding.is_some()
    }

    /// Returns the DPoP proof of the request (RFC 9449 §4), if the token is bound to a key.
    pub fn dpop_proof(&self) -> Option<&DpopProof> {
        self.1.as_ref()
    }

    /// Returns what the token is, and how it was verified.
    pub fn kind(&self) -> TokenKind {
        self.0.kind
    }

    /// `sub` (RFC 7519 §4.1.2): the user or client that the token represents, unique at this
    /// issuer. Some machine-to-machine tokens have no subject.
    pub fn subject(&self) -> Option<&str> {
        self.0.subject.as_ref().map(|text| text.of(self.raw_claims()))
    }

    /// `iss` (RFC 7519 §4.1.1): a trusted issuer, as spelled in the token. If a JWT-SVID has no
    /// `iss`, its trust domain, such as `spiffe://example.org`
    /// ([`providers::spiffe`](crate::providers::spiffe)).
    pub fn issuer(&self) -> &str {
        &self.0.terms.issuer
    }

    pub(crate) fn issuer_name(&self) -> &Arc<str> {
        &self.0.terms.issuer
    }

    /// `aud` (RFC 7519 §4.1.3): this API, and possibly others.
    pub fn audience(&self) -> impl Iterator<Item = &str> {
        let claim = self.tree().get("aud");
        let several = claim.and_then(Value::as_array).into_iter().flatten();
        claim.into_iter().chain(several).filter_map(Value::as_str)
    }

    /// The client that the token was issued to: `client_id` (RFC 9068 §2.2), else `azp`, else
    /// `cid`.
    pub fn client_id(&self) -> Option<&str> {
        self.0.client_id.as_ref().map(|text| text.of(self.raw_claims()))
    }

    /// The granted scope: `scope` (RFC 8693 §4.2), else `scp`; a string or an array.
    pub fn scope(&self) -> &Scope {
        &self.0.scope
    }

    /// Whether the token grants this scope token, either directly or by a scope token that implies
    /// it ([`VerifierBuilder::scope_implies`](crate::VerifierBuilder::scope_implies)).
    pub fn has_scope(&self, required: &str) -> bool {
        let implied = || {
            let implies = self.0.terms.implies.as_ref()?;
            Some(self.scope().iter().any(|granted| implies(granted, required)))
        };
        self.scope().contains(required) || implied().unwrap_or(false)
    }

    /// Checks that the token grants the scope `required`, where no
    /// [`ProtectLayer`](crate::ProtectLayer) does.
    ///
    /// # Errors
    ///
    /// Returns [`Error::InsufficientScope`] if the token does not grant every scope token of
    /// `required`.
    pub fn require_scope(&self, required: &Scope) -> Result<(), Error> {
        if required.iter().all(|required| self.has_scope(required)) {
            Ok(())
        } else {
            Err(Error::InsufficientScope {
                required: required.clone(),
                granted: self.scope().clone(),
            })
        }
    }

    /// `exp` (RFC 7519 §4.1.4): when the token expires. The end of the year 9999 if it has none:
    /// only API keys and tokens that the issuer was asked about may have none.
    pub fn expires_at(&self) -> SystemTime {
        UNIX_EPOCH + self.0.expires_at
    }

    /// Waits until the token expires: until `exp` (RFC 7519 §4.1.4), or until it is older than
    /// [`Issuer::max_token_age`](crate::Issuer::max_token_age), without leeway. For open
    /// streams (websockets, server-sent events), which must not outlive the token that they were
    /// opened with. Requires a tokio runtime with time enabled.
    ///
    /// ```no_run
    /// # async fn next() -> Option<String> { None }
    /// # async fn stream(token: portcullis::AccessToken) {
    /// let expired = token.until_expired();
    /// tokio::pin!(expired);
    /// loop {
    ///     tokio::select! {
    ///         () = &mut expired => break,
    ///         message = next() => println!("{message:?}"),
    ///     }
    /// }
    /// # }
    /// ```
    pub async fn until_expired(&self) {
        // The wall clock may be corrected meanwhile, so it is read again at this interval.
        const AT_LEAST_EVERY: Duration = Duration::from_secs(60);
        while let Some(left) = self
            .0
            .good_until
            .checked_sub(self.0.terms.clock.now().unix)
            .filter(|left| !left.is_zero())
        {
            tokio::time::sleep(left.min(AT_LEAST_EVERY)).await;
        }
    }

    /// Waits until the token is revoked ([`Revocations`](crate::Revocations)), or its status in a
    /// list of its issuer is no longer valid (feature `status-list`), which is looked up every
    /// minute. Never ends without either. For open streams, beside
    /// [`until_expired`](Self::until_expired).
    pub async fn until_revoked(&self) {
        let by_revocations = async {
            match &self.0.terms.revocations {
                Some(revocations) => revocations.until_revoked(self).await,
                None => std::future::pending().await,
            }
        };
        #[cfg(not(feature = "status-list"))]
        by_revocations.await;
        #[cfg(feature = "status-list")]
        match self.status() {
            None => by_revocations.await,
            Some(status) => {
                let (mut one, mut other) = (pin!(by_revocations), pin!(status.until_revoked()));
                poll_fn(|context| {
                    let is_revoked = one.as_mut().poll(context).is_ready()
                        || other.as_mut().poll(context).is_ready();
                    if is_revoked { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            }
        }
    }

    /// Whether the token grants this permission: the claim `permissions`, or the claims that the
    /// issuer is configured with ([`permissions_at`](crate::Issuer::permissions_at)).
    ///
    /// A permission is not a scope: permissions are what a user may do, a scope is what an
    /// application was allowed to request.
    pub fn has_permission(&self, permission: &str) -> bool {
        // A string lists several permissions, separated by commas. An empty entry matches nothing.
        let split = |name: &str| name.split(',').any(|one| one.trim() == permission);
        !permission.is_empty()
            && self.found(&self.0.terms.profile.permissions).any(|value| match value {
                Value::String(several) => split(several),
                other => listed_strings(other).any(|name| name == permission),
            })
    }

    /// Whether the token grants this role: the claim `roles`, or the claims that the issuer is
    /// configured with ([`roles_at`](crate::Issuer::roles_at)).
    pub fn has_role(&self, role: &str) -> bool {
        !role.is_empty()
            && self
                .found(&self.0.terms.profile.roles)
                .flat_map(listed_strings)
                .any(|name| name == role)
    }

    /// Whether the token's subject is a member of this group: the claim `groups`, or the claims
    /// that the issuer is configured with ([`groups_at`](crate::Issuer::groups_at)).
    pub fn in_group(&self, group: &str) -> bool {
        !group.is_empty()
            && self
                .found(&self.0.terms.profile.groups)
                .flat_map(listed_strings)
                .any(|name| name == group)
    }

    fn found<'a>(&'a self, paths: &'a [ClaimPath]) -> impl Iterator<Item = &'a Value> {
        paths.iter().filter_map(|path| {
            let value = path.find(self.tree());
            if value.is_none()
                && let Some(pointer) = path.dotted(self.tree())
            {
                telemetry::dotted_claim_path(path.as_str(), &pointer);
            }
            value
        })
    }

    /// Returns one claim. `claim` is its name, which may contain dots and be a URL, or, with a
    /// leading slash, a JSON Pointer (RFC 6901) to a nested claim.
    ///
    /// ```
    /// # fn example(token: portcullis::AccessToken) {
    /// let plan = token.claim("https://acme.example/plan").and_then(|plan| plan.as_str());
    /// let namespace = token.claim("/kubernetes.io/namespace");
    /// # }
    /// ```
    pub fn claim(&self, claim: &str) -> Option<&Value> {
        ClaimPath::new(claim).find(self.tree())
    }

    /// All claims as a tree, parsed on first use and stored with the token.
    fn tree(&self) -> &Value {
        self.0.tree.get_or_init(|| {
            if let Some(charge) = self.0.charge.get()
                && !charge.add(most_bytes_read(self.raw_claims()))
            {
                // There is no memory for the tree. Without the cache, it lives only as long as the
                // requests that hold this token.
                charge.remove(self.expose_token());
            }
            serde_json::from_str(self.raw_claims()).unwrap_or_default()
        })
    }

    /// Whether the token has expired, with leeway.
    pub(crate) fn has_expired(&self, now: Now) -> bool {
        now.unix >= self.0.expires_at + self.0.terms.leeway
    }

    /// Whether `now` is before `exp`, not before `nbf` and `iat`, and the token not too old, with
    /// leeway.
    pub(crate) fn is_good_at(&self, now: Now) -> bool {
        let leeway = self.0.terms.leeway;
        now.unix < self.0.good_until + leeway && self.0.good_from <= now.unix.saturating_add(leeway)
    }

    /// Records what the token takes of the cache's memory. Called when it is cached.
    pub(crate) fn charge(&self, charge: Charge) {
        // Set only once: a token is cached when it is verified, and a later verification creates
        // another `AccessToken`.
        let _ = self.0.charge.set(charge);
    }

    /// The memory that the token takes in the cache, in bytes. 0 if it is not cached.
    pub(crate) fn charged(&self) -> usize {
        self.0.charge.get().map_or(0, Charge::bytes)
    }

    /// The memory that the token takes before its claims are read, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let own = |text: &Option<Text>| match text {
            Some(Text::Own(text)) => text.len(),
            _ => 0,
        };
        let Inner { text, scope, subject, client_id, binding, .. } = &*self.0;
        let binding = if binding.is_some() { Binding::most_bytes() } else { 0 };
        let texts = text.len() + scope.capacity() + own(subject) + own(client_id);
        size_of::<Inner>() + texts + binding
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.terms.clock
    }

    /// All claims, deserialized into your own type on first use and stored with the token.
    ///
    /// ```
    /// # fn example(token: portcullis::AccessToken) -> Result<(), portcullis::ClaimsError> {
    /// #[derive(serde::Deserialize)]
    /// struct Organization {
    ///     org_id: String,
    /// }
    ///
    /// let organization = token.claims::<Organization>()?;
    /// println!("acting for {}", organization.org_id);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if the claims do not fit the type. The error contains no claim value.
    pub fn claims<T: DeserializeOwned + Send + Sync + 'static>(
        &self,
    ) -> Result<Arc<T>, ClaimsError> {
        let read = || {
            serde_json::from_str(self.raw_claims()).map_err(|error| ClaimsError::new::<T>(&error))
        };
        let reserve = || {
            let charge = self.0.charge.get();
            charge.is_none_or(|charge| {
                charge.add(most_bytes_read(self.raw_claims()) + size_of::<T>())
            })
        };
        self.0.typed.get_or(reserve, read)
    }

    /// All claims: the JSON object, exactly as signed, or the issuer's answer (RFC 7662 §2.2).
    pub fn raw_claims(&self) -> &str {
        self.0.text.get(self.0.token_end..).unwrap_or_default()
    }

    /// The token itself, for forwarding it. Anyone who reads it can use it: keep it out of logs and
    /// responses. Of an API key, only the public identifier: keys are not stored.
    pub fn expose_token(&self) -> &str {
        self.0.text.get(..self.0.token_end).unwrap_or_default()
    }

    pub(crate) fn verifier(&self) -> u64 {
        self.0.terms.verifier
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AccessToken")
            .field("issuer", &self.0.terms.issuer)
            .finish_non_exhaustive()
    }
}
