//! What a handler gets.

use std::any::Any;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::clock::{Clock, Now};
use crate::error::{ClaimsError, Error};
use crate::issuer::Issuer;
use crate::keys::jwk::SignedPayload;
use crate::telemetry;
use crate::token::claim_path::{ClaimPath, listed_strings};
use crate::token::claims::Claims as Registered;
use crate::token::json::most_bytes_read;
use crate::token::profile::TokenProfile;
use crate::token::scope::Scope;
use crate::token_cache::Charge;

/// A *verified* access token (RFC 9068): signature, issuer, audience and time were checked by a
/// [`Verifier`](crate::Verifier), and nothing else makes one.
///
/// [`ProtectLayer`](crate::ProtectLayer) puts it into the request's extensions; with feature `axum` it is an extractor.
/// Cheap to clone. Its `Debug` shows neither the token nor claims.
///
/// ```
/// use portcullis::AccessToken;
///
/// fn greet(request: &http::Request<()>) -> String {
///     match request.extensions().get::<AccessToken>() {
///         Some(token) => format!("Hello {}", token.subject().unwrap_or("machine")),
///         None => "Hello stranger".to_owned(),
///     }
/// }
/// ```
#[derive(Clone)]
pub struct AccessToken(Arc<Inner>);

struct Inner {
    /// The token, and after it its payload, decoded.
    text: Box<str>,
    token_end: usize,
    issuer: Arc<str>,
    subject: Option<Text>,
    client_id: Option<Text>,
    scope: Scope,
    expires_at: Duration,
    /// The later one of `nbf` and `iat`.
    good_from: Duration,
    verifier: u64,
    clock: Clock,
    implies: Option<Arc<Implies>>,
    profile: Arc<TokenProfile>,
    leeway: Duration,
    /// The claims as a tree, once somebody has asked for it.
    tree: OnceLock<Value>,
    /// The claims as the application's own types, once it has asked for them.
    typed: Typed,
    /// What a cached token takes of the cache's memory.
    charge: OnceLock<Charge>,
}

/// A claim's text: as it stands in the payload, or, where that has it escaped, by itself.
enum Text {
    Within(Range<usize>),
    Own(Box<str>),
}

impl Text {
    fn new(text: &str, payload: &str) -> Self {
        // Where in the payload it stands, if it does: told by its address, so that nothing need be copied.
        let start = (text.as_ptr() as usize).checked_sub(payload.as_ptr() as usize);
        let range = start.map(|start| start..start + text.len());
        match range.filter(|range| payload.get(range.clone()) == Some(text)) {
            Some(range) => Self::Within(range),
            None => Self::Own(text.into()),
        }
    }

    fn of<'a>(&'a self, payload: &'a str) -> &'a str {
        match self {
            Self::Within(range) => payload.get(range.clone()).unwrap_or_default(),
            Self::Own(text) => text,
        }
    }
}

/// Whether one scope token that is granted implies another that is asked for.
pub(crate) type Implies = dyn Fn(&str, &str) -> bool + Send + Sync;

/// Values of any types, each kept for good: a list that only grows, so that reading it takes no lock.
#[derive(Default)]
struct Typed(OnceLock<Box<(Arc<dyn Any + Send + Sync>, Typed)>>);

impl Typed {
    /// The value of this type, which `make` makes the first time; kept if there is room.
    fn get_or<T: Any + Send + Sync, E>(
        &self,
        has_room: impl FnOnce() -> bool,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let mut last = self;
        while let Some(entry) = last.0.get() {
            if let Ok(value) = Arc::clone(&entry.0).downcast() {
                return Ok(value);
            }
            last = &entry.1;
        }
        let value = Arc::new(make()?);
        if !has_room() {
            return Ok(value);
        }
        // Another thread may have been faster: then this one is not kept.
        let _ = last
            .0
            .set(Box::new((Arc::clone(&value) as Arc<dyn Any + Send + Sync>, Typed::default())));
        Ok(value)
    }
}

impl AccessToken {
    pub(crate) fn new(
        token: &str,
        payload: &SignedPayload<'_>,
        claims: Registered<'_>,
        issuer: &Issuer,
        verifier: u64,
        clock: Clock,
        implies: Option<Arc<Implies>>,
    ) -> Self {
        // The claims were read from these bytes as UTF-8, so they are.
        let payload = std::str::from_utf8(payload.bytes()).unwrap_or_default();
        let text = |text: &str| Text::new(text, payload);
        let good_from = claims.good_from();
        Self(Arc::new(Inner {
            text: [token, payload].concat().into(),
            token_end: token.len(),
            issuer: match issuer.names().find(|name| ***name == *claims.issuer) {
                Some(name) => Arc::clone(name),
                // One tenant of a template.
                None => Arc::from(&*claims.issuer),
            },
            subject: claims.subject.as_deref().map(text),
            client_id: claims.client_id().map(text),
            scope: match &issuer.profile.scope_prefix {
                Some(prefix) => claims.scope.with_unprefixed(prefix),
                None => claims.scope,
            },
            expires_at: claims.expires_at,
            good_from,
            verifier,
            clock,
            implies,
            profile: Arc::clone(&issuer.profile),
            leeway: issuer.leeway,
            tree: OnceLock::new(),
            typed: Typed::default(),
            charge: OnceLock::new(),
        }))
    }

    /// `sub` (RFC 7519 §4.1.2): whom the token speaks for, unique at this issuer. Some machines' tokens have none.
    pub fn subject(&self) -> Option<&str> {
        self.0.subject.as_ref().map(|text| text.of(self.raw_claims()))
    }

    /// `iss` (RFC 7519 §4.1.1): one of the issuers trusted by configuration, in the spelling of the token.
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// `aud` (RFC 7519 §4.1.3): this API, and maybe others.
    pub fn audience(&self) -> impl Iterator<Item = &str> {
        let claim = self.tree().get("aud");
        let several = claim.and_then(Value::as_array).into_iter().flatten();
        claim.into_iter().chain(several).filter_map(Value::as_str)
    }

    /// The application that the token was issued to: `client_id` (RFC 9068 §2.2), else `azp`, else `cid`.
    pub fn client_id(&self) -> Option<&str> {
        self.0.client_id.as_ref().map(|text| text.of(self.raw_claims()))
    }

    /// What the token grants: `scope` (RFC 8693 §4.2), else `scp`; a string or an array.
    pub fn scope(&self) -> &Scope {
        &self.0.scope
    }

    /// Whether the token grants this scope token, by itself or by another one that implies it
    /// ([`VerifierBuilder::scope_implies`](crate::VerifierBuilder::scope_implies)).
    pub fn has_scope(&self, asked: &str) -> bool {
        let implied = || {
            let implies = self.0.implies.as_ref()?;
            Some(self.scope().iter().any(|granted| implies(granted, asked)))
        };
        self.scope().contains(asked) || implied().unwrap_or(false)
    }

    /// Asks for scope where there is no [`ProtectLayer`](crate::ProtectLayer) to do it.
    ///
    /// # Errors
    ///
    /// [`Error::InsufficientScope`] unless the token grants every token of `required`.
    pub fn require_scope(&self, required: &Scope) -> Result<(), Error> {
        match required.iter().all(|asked| self.has_scope(asked)) {
            true => Ok(()),
            false => Err(Error::InsufficientScope {
                required: required.clone(),
                granted: self.scope().clone(),
            }),
        }
    }

    /// `exp` (RFC 7519 §4.1.4).
    pub fn expires_at(&self) -> SystemTime {
        UNIX_EPOCH + self.0.expires_at
    }

    /// Ends when the token does, at `exp`, without leeway: for open streams (websockets, server-sent events), which must not outlive what they were
    /// opened with. Needs a tokio runtime with time enabled.
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
        // The wall clock may be corrected meanwhile, so it is looked at now and then.
        const AT_LEAST_EVERY: Duration = Duration::from_secs(60);
        while let Some(left) =
            self.0.expires_at.checked_sub(self.0.clock.now().unix).filter(|left| !left.is_zero())
        {
            tokio::time::sleep(left.min(AT_LEAST_EVERY)).await;
        }
    }

    /// Whether the token grants this permission: `permissions`, or where the issuer is configured to have them
    /// ([`permissions_at`](crate::Issuer::permissions_at)). Not a scope: what a user may do is not what an application was
    /// allowed to ask for.
    pub fn has_permission(&self, permission: &str) -> bool {
        // One string lists several with commas in between. What is between two commas, if nothing is, names nothing.
        let split = |name: &str| name.split(',').any(|one| one.trim() == permission);
        !permission.is_empty()
            && self.found(&self.0.profile.permissions).any(|value| match value {
                Value::String(several) => split(several),
                other => listed_strings(other).any(|name| name == permission),
            })
    }

    /// Whether the token grants this role: `roles`, or where the issuer is configured to have them
    /// ([`roles_at`](crate::Issuer::roles_at)).
    pub fn has_role(&self, role: &str) -> bool {
        !role.is_empty()
            && self.found(&self.0.profile.roles).flat_map(listed_strings).any(|name| name == role)
    }

    /// Whether the token is of a member of this group: `groups`, or where the issuer is configured to have them
    /// ([`groups_at`](crate::Issuer::groups_at)).
    pub fn in_group(&self, group: &str) -> bool {
        !group.is_empty()
            && self.found(&self.0.profile.groups).flat_map(listed_strings).any(|name| name == group)
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

    /// One claim: by its name, dots and URLs included; or, with a slash in front, by a JSON Pointer (RFC 6901) to one inside
    /// another.
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

    /// All claims, as a tree: read when it is asked for the first time, and kept with the token.
    fn tree(&self) -> &Value {
        self.0.tree.get_or_init(|| {
            if let Some(charge) = self.0.charge.get()
                && !charge.add(most_bytes_read(self.raw_claims()))
            {
                // Then the tree lives as long as the requests that hold this token, and no longer.
                charge.remove(self.expose_token());
            }
            serde_json::from_str(self.raw_claims()).unwrap_or_default()
        })
    }

    /// Whether its time has come, and has not passed.
    pub(crate) fn is_good_at(&self, now: Now) -> bool {
        let leeway = self.0.leeway;
        now.unix < self.0.expires_at + leeway && self.0.good_from <= now.unix.saturating_add(leeway)
    }

    /// It is cached from now on; this is what it takes of the cache's memory.
    pub(crate) fn charge(&self, charge: Charge) {
        // Set once: a token is cached when it is verified, and a later verification makes another `AccessToken`.
        let _ = self.0.charge.set(charge);
    }

    /// What it takes of the cache's memory, in bytes.
    pub(crate) fn charged(&self) -> usize {
        self.0.charge.get().map_or(0, Charge::bytes)
    }

    /// Bytes of memory that it takes before its claims are read.
    pub(crate) fn bytes(&self) -> usize {
        let own = |text: &Option<Text>| match text {
            Some(Text::Own(text)) => text.len(),
            _ => 0,
        };
        let Inner { text, scope, subject, client_id, .. } = &*self.0;
        size_of::<Inner>() + text.len() + scope.capacity() + own(subject) + own(client_id)
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// All claims, as your own type: read when it is asked for the first time, and kept with the token.
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
    /// [`ClaimsError`] when the claims do not fit the type. Its text has no claim in it.
    pub fn claims<T: DeserializeOwned + Send + Sync + 'static>(
        &self,
    ) -> Result<Arc<T>, ClaimsError> {
        let read = || {
            serde_json::from_str(self.raw_claims()).map_err(|error| ClaimsError::new::<T>(&error))
        };
        let has_room = || {
            let charge = self.0.charge.get();
            charge.is_none_or(|charge| {
                charge.add(most_bytes_read(self.raw_claims()) + size_of::<T>())
            })
        };
        self.0.typed.get_or(has_room, read)
    }

    /// All claims: the JSON object, exactly as signed.
    pub fn raw_claims(&self) -> &str {
        self.0.text.get(self.0.token_end..).unwrap_or_default()
    }

    /// The token itself, for those who must forward it. Whoever reads it can use it: keep it out of logs and answers.
    pub fn expose_token(&self) -> &str {
        self.0.text.get(..self.0.token_end).unwrap_or_default()
    }

    pub(crate) fn verifier(&self) -> u64 {
        self.0.verifier
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("AccessToken")
            .field("issuer", &self.0.issuer)
            .finish_non_exhaustive()
    }
}
