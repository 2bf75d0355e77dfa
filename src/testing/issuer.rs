//! [`TestIssuer`]: an authorization server inside a test.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use serde_json::{Map, Value, json};

use super::server::{Port, Server};
use super::signing_key::SigningKey;
#[cfg(feature = "status-list")]
use super::status_list::Statuses;
use super::token_builder::TokenBuilder;
use crate::algorithm::Algorithm;
use crate::clock::TestClock;
use crate::crypto;
use crate::issuer::Issuer;
use crate::keys::jwks::Jwks;

/// The audience of the tokens of a [`TestIssuer`], and of its [`issuer`](TestIssuer::issuer).
pub const AUDIENCE: &str = "https://api.example.com";

/// An authorization server, as far as a resource server sees it: metadata, a key set, tokens, and
/// answers about them (RFC 7662).
///
/// Each has its own keys. With [`start`](Self::start), it listens on a loopback port (`iss` is
/// `http://127.0.0.1:PORT/`) and counts requests. With [`offline`](Self::offline), it has any
/// `iss`, and no port. The server has a thread of its own, so that tests can share an issuer in a
/// static. It stops when the value is dropped.
pub struct TestIssuer {
    pub(super) shared: Arc<Shared>,
    server: Option<Server>,
}

pub(super) struct Shared {
    iss: String,
    state: Mutex<State>,
    metadata_fetches: AtomicUsize,
    jwks_fetches: AtomicUsize,
    introspections: AtomicUsize,
    #[cfg(feature = "status-list")]
    pub(super) statuses: Statuses,
}

pub(super) struct State {
    /// The newest key is the last one, and signs tokens.
    pub(super) keys: Vec<Arc<NamedKey>>,
    keys_made: usize,
    kid_suffix: String,
    odd_keys: Vec<Value>,
    behavior: Behavior,
    introspection_behavior: Behavior,
    /// The claims of opaque tokens.
    opaque: HashMap<String, Map<String, Value>>,
    revoked: HashSet<String>,
    headers: HeaderMap,
    pub(super) delay: Duration,
    clock: Option<TestClock>,
}

pub(super) struct NamedKey {
    pub(super) kid: String,
    pub(super) key: SigningKey,
}

/// How a [`TestIssuer`] responds to requests for its metadata or keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Behavior {
    /// Responds as an issuer should.
    Serve,
    /// Responds with this status and an empty body.
    Status(u16),
    /// Responds with status 200 and this body, to requests for either document.
    Body(String),
    /// Responds with a redirect to this URL.
    Redirect(String),
    /// Closes the connection.
    Close,
    /// Does not respond, and keeps the connection open.
    Hang,
}

impl TestIssuer {
    /// Starts an issuer on a free loopback port. It signs with ES256, whose keys are generated in
    /// less than a millisecond.
    ///
    /// An RSA key, with [`start_with`](Self::start_with), takes a tenth of a second, and
    /// occasionally three. It is generated in the background: the first token and the first request
    /// for the key set wait for it.
    ///
    /// # Errors
    ///
    /// Returns an error if no port can be bound, or no thread can be started.
    pub fn start() -> io::Result<Self> {
        Self::start_with(Algorithm::ES256)
    }

    /// Starts an issuer that signs with this algorithm.
    ///
    /// # Errors
    ///
    /// Returns an error if no port can be bound, if no thread can be started, or if the
    /// cryptography backend cannot generate a key for this algorithm.
    pub fn start_with(algorithm: Algorithm) -> io::Result<Self> {
        let port = Port::bind()?;
        let mut issuer = Self::offline_with(&format!("http://{}/", port.address), algorithm)?;
        issuer.server = Some(Server::start(port, Arc::clone(&issuer.shared))?);
        Ok(issuer)
    }

    /// Creates an issuer without a port. It signs with ES256. Pass its [`jwks`](Self::jwks) to
    /// [`Issuer::jwks`], or call [`answer`](Self::answer) from a server of your own.
    ///
    /// # Errors
    ///
    /// Returns an error if no key can be generated.
    pub fn offline(iss: &str) -> io::Result<Self> {
        Self::offline_with(iss, Algorithm::ES256)
    }

    /// Creates an issuer without a port that signs with this algorithm.
    ///
    /// # Errors
    ///
    /// Returns an error if the cryptography backend cannot generate a key for this algorithm.
    pub fn offline_with(iss: &str, algorithm: Algorithm) -> io::Result<Self> {
        Ok(Self::with_key(iss, SigningKey::generate(algorithm)?))
    }

    /// Creates an issuer without a port that signs with a secret that it shares with the verifier:
    /// `HS256`, `HS384` or `HS512`.
    pub fn offline_with_secret(iss: &str, algorithm: Algorithm, secret: &[u8]) -> Self {
        Self::with_key(iss, SigningKey::from_secret(algorithm, secret))
    }

    fn with_key(iss: &str, key: SigningKey) -> Self {
        let state = State {
            keys: Vec::new(),
            keys_made: 0,
            kid_suffix: String::new(),
            odd_keys: Vec::new(),
            behavior: Behavior::Serve,
            introspection_behavior: Behavior::Serve,
            opaque: HashMap::new(),
            revoked: HashSet::new(),
            headers: HeaderMap::new(),
            delay: Duration::ZERO,
            clock: None,
        };
        let shared = Shared {
            iss: iss.to_owned(),
            state: Mutex::new(state),
            metadata_fetches: AtomicUsize::new(0),
            jwks_fetches: AtomicUsize::new(0),
            introspections: AtomicUsize::new(0),
            #[cfg(feature = "status-list")]
            statuses: Statuses::new(),
        };
        let issuer = Self { shared: Arc::new(shared), server: None };
        issuer.add(key);
        issuer
    }

    /// Returns the claim `iss` of its tokens.
    pub fn iss(&self) -> &str {
        &self.shared.iss
    }

    /// Returns the configuration with which a [`Verifier`](crate::Verifier) trusts this issuer, for
    /// [`AUDIENCE`]. If the issuer was started, the keys are fetched by discovery. Otherwise, the
    /// configuration contains its current keys or its secret.
    ///
    /// # Panics
    ///
    /// Panics if `iss` is empty, or if the secret is too short for its algorithm.
    pub fn issuer(&self) -> Issuer {
        let newest = self.shared.lock().keys.last().cloned();
        let secret =
            newest.as_ref().and_then(|newest| Some((newest.key.algorithm(), newest.key.secret()?)));
        let issuer = Issuer::new(self.iss(), AUDIENCE).and_then(|issuer| match secret {
            Some((algorithm, secret)) => issuer.secret(algorithm, secret),
            None if self.server.is_some() => Ok(issuer),
            None => Ok(issuer.jwks(self.jwks())),
        });
        match issuer {
            Ok(issuer) => issuer,
            Err(error) => panic!("{error}"),
        }
    }

    /// Returns a builder for a token of this issuer: for [`AUDIENCE`], valid for an hour, signed
    /// with the newest key.
    pub fn token(&self) -> TokenBuilder {
        self.shared.token()
    }

    /// Starts a logout token for a client (OpenID Connect Back-Channel Logout 1.0 §2.4). Set its
    /// `sid` with [`claim`](TokenBuilder::claim), or its [`subject`](TokenBuilder::subject).
    pub fn logout_token(&self, client_id: &str) -> TokenBuilder {
        let event = "http://schemas.openid.net/event/backchannel-logout";
        self.document("logout+jwt", client_id).claim("events", json!({ event: {} }))
    }

    /// Starts a security event token (RFC 8417) for a receiver: `event` is the URI of the event,
    /// and `subject` what it is about (RFC 9493 §3).
    pub fn security_event(&self, audience: &str, event: &str, subject: Value) -> TokenBuilder {
        let token = self.document("secevent+jwt", audience).without_claim("exp");
        token.claim("sub_id", subject).claim("events", json!({ event: {} }))
    }

    fn document(&self, typ: &str, audience: &str) -> TokenBuilder {
        let random = crypto::random::<16>().unwrap_or_default();
        let jti = URL_SAFE_NO_PAD.encode(random);
        self.token().header("typ", typ).audience(audience).without_claim("sub").claim("jti", jti)
    }

    /// Issues an opaque token with these claims. Only the issuer can read it; an API asks about it
    /// ([`Issuer::introspection`](crate::Issuer::introspection)). The endpoint, which the metadata
    /// name, accepts any client. Of the JWTs of this issuer, it says that they are active as well.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use portcullis::testing::TestIssuer;
    /// use portcullis::{ClientAuth, Introspection, Verifier};
    ///
    /// let issuer = TestIssuer::start()?;
    /// let asked = Introspection::new(ClientAuth::client_secret("orders-api", "secret"));
    /// let verifier = Verifier::new(issuer.issuer().introspection(asked))?;
    ///
    /// let token = issuer.opaque_token(issuer.token().subject("alice"));
    /// assert_eq!(verifier.verify(&token).await?.subject(), Some("alice"));
    /// assert_eq!(issuer.introspections(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn opaque_token(&self, token: TokenBuilder) -> String {
        let mut state = self.shared.lock();
        let name = format!("opaque-{}", state.opaque.len() + 1);
        state.opaque.insert(name.clone(), token.into_claims());
        name
    }

    /// Revokes a token: from now on, the answer about it is that it is not active.
    pub fn revoke(&self, token: &str) {
        self.shared.lock().revoked.insert(token.to_owned());
    }

    /// Returns the answer about a token (RFC 7662 §2.2), as the introspection endpoint sends it.
    /// Use it in a server of your own.
    pub fn introspect(&self, token: &str) -> Value {
        self.shared.introspect(token)
    }

    /// Returns how often the issuer was asked about a token.
    pub fn introspections(&self) -> usize {
        self.shared.introspections.load(Ordering::SeqCst)
    }

    /// Sets how the introspection endpoint responds from now on.
    pub fn set_introspection_behavior(&self, behavior: Behavior) {
        self.shared.lock().introspection_behavior = behavior;
    }

    /// Generates a new key for the same algorithm, publishes it beside the old keys, and signs with
    /// it from now on. Returns its `kid`.
    ///
    /// # Errors
    ///
    /// Returns an error if no key can be generated.
    pub fn rotate(&self) -> io::Result<String> {
        let algorithm = self
            .shared
            .lock()
            .keys
            .last()
            .map_or(Algorithm::ES256, |newest| newest.key.algorithm());
        self.rotate_to(algorithm)
    }

    /// Like [`rotate`](Self::rotate), to a key for this algorithm.
    ///
    /// # Errors
    ///
    /// Returns an error if the cryptography backend cannot generate a key for this algorithm.
    pub fn rotate_to(&self, algorithm: Algorithm) -> io::Result<String> {
        Ok(self.add(SigningKey::generate(algorithm)?))
    }

    fn add(&self, key: SigningKey) -> String {
        let mut state = self.shared.lock();
        state.keys_made += 1;
        let kid = format!("key-{}{}", state.keys_made, state.kid_suffix);
        state.keys.push(Arc::new(NamedKey { kid: kid.clone(), key }));
        kid
    }

    /// Appends `suffix` to the `kid` of each key, which is `key-1`, `key-2` and so on. An issuer
    /// that is restarted with new keys can then avoid the `kid`s of its old ones.
    pub fn kid_suffix(self, suffix: &str) -> Self {
        let mut state = self.shared.lock();
        suffix.clone_into(&mut state.kid_suffix);
        for (number, named) in (1..).zip(&mut state.keys) {
            // A key that is signing a token at this moment keeps its `kid`.
            if let Some(named) = Arc::get_mut(named) {
                named.kid = format!("key-{number}{suffix}");
            }
        }
        drop(state);
        self
    }

    /// Withdraws all keys except the newest.
    pub fn withdraw_old_keys(&self) {
        let mut state = self.shared.lock();
        let old = state.keys.len().saturating_sub(1);
        state.keys.drain(..old);
    }

    /// Also publishes this member of `keys`, whatever it contains, before the issuer's own keys.
    pub fn publish(&self, member: Value) {
        self.shared.lock().odd_keys.push(member);
    }

    /// Sets how to respond from now on.
    pub fn set_behavior(&self, behavior: Behavior) {
        self.shared.lock().behavior = behavior;
    }

    /// Sets a header of every response from now on, for example `Cache-Control`. With `ETag` or
    /// `Last-Modified`, a request that sends the same value back gets a 304.
    ///
    /// # Panics
    ///
    /// Panics if `value` is not a valid header value.
    pub fn set_header(&self, name: HeaderName, value: &str) {
        match HeaderValue::from_str(value) {
            Ok(value) => drop(self.shared.lock().headers.insert(name, value)),
            Err(error) => panic!("{value:?}: {error}"),
        }
    }

    /// Sets how long to wait before each response.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.lock().delay = delay;
    }

    /// Sets the clock that determines the dates of tokens.
    pub fn set_clock(&self, clock: &TestClock) {
        self.shared.lock().clock = Some(clock.clone());
    }

    /// Returns the time of the clock set with [`set_clock`](Self::set_clock), or else of the system
    /// clock.
    pub fn now(&self) -> SystemTime {
        self.shared.now()
    }

    /// Returns how often the metadata were requested.
    pub fn metadata_fetches(&self) -> usize {
        self.shared.metadata_fetches.load(Ordering::SeqCst)
    }

    /// Returns how often the key set was requested.
    pub fn jwks_fetches(&self) -> usize {
        self.shared.jwks_fetches.load(Ordering::SeqCst)
    }

    /// Returns the key set that it publishes (RFC 7517 §5).
    pub fn jwks_json(&self) -> Value {
        self.shared.jwks_json()
    }

    /// Returns its keys, ready to verify.
    ///
    /// # Panics
    ///
    /// Panics if it has no public keys because it signs with a secret.
    pub fn jwks(&self) -> Jwks {
        match Jwks::from_json(self.jwks_json().to_string()) {
            Ok(jwks) => jwks,
            Err(error) => panic!("{error}"),
        }
    }

    /// Returns the response to a GET for `path`, as the issuer's own port would send it. Use it in
    /// a server of your own that offers more than metadata and keys. Returns `None` if `path` is
    /// neither of its two paths, or if the current [`Behavior`] sends no response.
    pub fn answer(&self, path: &str) -> Option<http::Response<String>> {
        match self.shared.answer(path, None) {
            Answered::With(response) => Some(response),
            Answered::Close | Answered::Never | Answered::NotHere => None,
        }
    }
}

/// What happens to a request.
pub(super) enum Answered {
    With(http::Response<String>),
    /// The connection is closed.
    Close,
    /// There is no response, and the connection stays open.
    Never,
    /// The path is not one of the issuer's.
    NotHere,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(feature = "status-list")]
    pub(super) fn iss(&self) -> &str {
        &self.iss
    }

    fn now(&self) -> SystemTime {
        self.lock().clock.as_ref().map_or_else(SystemTime::now, TestClock::now)
    }

    pub(super) fn token(&self) -> TokenBuilder {
        let now = self.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        TokenBuilder::new(&self.iss, now, self.lock().keys.last().cloned())
    }

    /// The path of `iss`, without a trailing slash.
    fn base_path(&self) -> String {
        url::Url::parse(&self.iss)
            .map_or_else(|_| String::new(), |iss| iss.path().trim_end_matches('/').to_owned())
    }

    fn jwks_json(&self) -> Value {
        let state = self.lock();
        let own = state.keys.iter().filter_map(|named| named.key.jwk(&named.kid));
        json!({ "keys": state.odd_keys.iter().cloned().chain(own).collect::<Vec<_>>() })
    }

    fn metadata_json(&self) -> Value {
        let base = self.iss.trim_end_matches('/');
        json!({
            "issuer": self.iss,
            "jwks_uri": format!("{base}/.well-known/jwks.json"),
            "introspection_endpoint": format!("{base}/introspect"),
        })
    }

    fn introspect(&self, token: &str) -> Value {
        let inactive = json!({ "active": false });
        let of_jwt = || {
            let jwks = Jwks::from_json(self.jwks_json().to_string()).ok()?;
            serde_json::from_slice(&jwks.verify(token).ok()?.payload).ok()
        };
        let opaque = self.lock().opaque.get(token).cloned();
        let Some(mut claims) = opaque.or_else(of_jwt) else { return inactive };
        let state = self.lock();
        let now = state.clock.as_ref().map_or_else(SystemTime::now, TestClock::now);
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let has_expired = claims.get("exp").and_then(Value::as_f64).is_some_and(|exp| exp <= now);
        if has_expired || state.revoked.contains(token) {
            return inactive;
        }
        claims.insert("active".to_owned(), true.into());
        claims.entry("token_type").or_insert("Bearer".into());
        claims.into()
    }

    /// `form`: that of a POST.
    pub(super) fn answer(&self, path: &str, form: Option<&[u8]>) -> Answered {
        let asked = |form: &[u8]| {
            let mut pairs = url::form_urlencoded::parse(form);
            let token = pairs.find(|(name, _)| name == "token");
            self.introspect(&token.map(|(_, token)| token).unwrap_or_default())
        };
        const JSON: &str = "application/json";
        let document = || self.lock().behavior.clone();
        let (counter, behavior, content_type, body): (_, _, _, &dyn Fn() -> String) =
            match (path.strip_prefix(&self.base_path()), form) {
                (Some("/.well-known/openid-configuration"), None) => {
                    (&self.metadata_fetches, document(), JSON, &|| self.metadata_json().to_string())
                }
                (Some("/.well-known/jwks.json"), None) => {
                    (&self.jwks_fetches, document(), JSON, &|| self.jwks_json().to_string())
                }
                #[cfg(feature = "status-list")]
                (Some("/status-list"), None) => {
                    let (behavior, jwt) = (self.statuses.behavior(), "application/statuslist+jwt");
                    (&self.statuses.fetches, behavior, jwt, &|| self.status_list_token().build())
                }
                (Some("/introspect"), Some(form)) => {
                    let behavior = self.lock().introspection_behavior.clone();
                    (&self.introspections, behavior, JSON, &|| asked(form).to_string())
                }
                _ => return Answered::NotHere,
            };
        counter.fetch_add(1, Ordering::SeqCst);
        let mut response = http::Response::new(String::new());
        let mut location = None;
        match behavior {
            Behavior::Serve => *response.body_mut() = body(),
            Behavior::Body(body) => *response.body_mut() = body,
            Behavior::Status(status) => {
                *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
            }
            Behavior::Redirect(to) => {
                *response.status_mut() = http::StatusCode::FOUND;
                location = HeaderValue::try_from(to).ok();
            }
            Behavior::Close => return Answered::Close,
            Behavior::Hang => return Answered::Never,
        }
        *response.headers_mut() = self.lock().headers.clone();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if let Some(location) = location {
            response.headers_mut().insert(LOCATION, location);
        }
        Answered::With(response)
    }
}

impl fmt::Debug for TestIssuer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TestIssuer").field("iss", &self.shared.iss).finish_non_exhaustive()
    }
}
