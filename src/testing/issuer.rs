//! [`TestIssuer`]: an authorization server inside a test.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use serde_json::{Value, json};

use super::server::{Port, Server};
use super::signing_key::SigningKey;
use super::token_builder::TokenBuilder;
use crate::algorithm::Algorithm;
use crate::clock::TestClock;
use crate::issuer::Issuer;
use crate::keys::jwks::Jwks;

/// The audience of a [`TestIssuer`]'s tokens, and of its [`issuer`](TestIssuer::issuer).
pub const AUDIENCE: &str = "https://api.example.com";

/// An authorization server as far as a resource server sees one: metadata, a key set, tokens.
///
/// Each has keys of its own. [`start`](Self::start)ed, it answers on a loopback port (`iss` is `http://127.0.0.1:PORT/`) and
/// counts what it was asked; [`offline`](Self::offline), it has any `iss` you like and no port. It serves on a thread of its
/// own, so that tests may share one in a static, and stops when dropped.
pub struct TestIssuer {
    pub(super) shared: Arc<Shared>,
    server: Option<Server>,
}

pub(super) struct Shared {
    iss: String,
    state: Mutex<State>,
    metadata_fetches: AtomicUsize,
    jwks_fetches: AtomicUsize,
}

pub(super) struct State {
    /// The newest last; tokens are signed with it.
    pub(super) keys: Vec<Arc<NamedKey>>,
    keys_made: usize,
    kid_suffix: String,
    odd_keys: Vec<Value>,
    behavior: Behavior,
    headers: HeaderMap,
    pub(super) delay: Duration,
    clock: Option<TestClock>,
}

pub(super) struct NamedKey {
    pub(super) kid: String,
    pub(super) key: SigningKey,
}

/// How a [`TestIssuer`] answers those who ask for its metadata or keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Behavior {
    /// As it should.
    Serve,
    /// With this status and an empty body.
    Status(u16),
    /// With status 200 and this body, whichever of the two documents is asked for.
    Body(String),
    /// With a redirect to this address.
    Redirect(String),
    /// By closing the connection.
    Close,
    /// Not at all; the connection stays open.
    Hang,
}

impl TestIssuer {
    /// Starts an issuer on a free loopback port. It signs with ES256, whose keys are made in less than a millisecond. An RSA
    /// key, with [`start_with`](Self::start_with), takes a tenth of a second and now and then three: it is made in the
    /// background, and the first token, or whoever asks for the key set, waits for it.
    ///
    /// # Errors
    ///
    /// When no port, or no thread, can be had.
    pub fn start() -> io::Result<Self> {
        Self::start_with(Algorithm::ES256)
    }

    /// Starts an issuer that signs with this algorithm.
    ///
    /// # Errors
    ///
    /// When no port, or no thread, can be had, or the cryptography chosen by feature cannot make such a key.
    pub fn start_with(algorithm: Algorithm) -> io::Result<Self> {
        let port = Port::bind()?;
        let mut issuer = Self::offline_with(&format!("http://{}/", port.address), algorithm)?;
        issuer.server = Some(Server::start(port, Arc::clone(&issuer.shared))?);
        Ok(issuer)
    }

    /// An issuer without a port. It signs with ES256; give its [`jwks`](Self::jwks) to [`Issuer::jwks`], or let a server of
    /// your own [`answer`](Self::answer).
    ///
    /// # Errors
    ///
    /// When no key can be made.
    pub fn offline(iss: &str) -> io::Result<Self> {
        Self::offline_with(iss, Algorithm::ES256)
    }

    /// An issuer without a port that signs with this algorithm.
    ///
    /// # Errors
    ///
    /// When the cryptography chosen by feature cannot make such a key.
    pub fn offline_with(iss: &str, algorithm: Algorithm) -> io::Result<Self> {
        Ok(Self::with_key(iss, SigningKey::generate(algorithm)?))
    }

    /// An issuer without a port that signs with a secret shared with whoever verifies: `HS256`, `HS384` or `HS512`.
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
            headers: HeaderMap::new(),
            delay: Duration::ZERO,
            clock: None,
        };
        let shared = Shared {
            iss: iss.to_owned(),
            state: Mutex::new(state),
            metadata_fetches: AtomicUsize::new(0),
            jwks_fetches: AtomicUsize::new(0),
        };
        let issuer = Self { shared: Arc::new(shared), server: None };
        issuer.add(key);
        issuer
    }

    /// The claim `iss` of its tokens.
    pub fn iss(&self) -> &str {
        &self.shared.iss
    }

    /// What a [`Verifier`](crate::Verifier) needs to trust it, for [`AUDIENCE`]: keys by discovery if it was started, else
    /// the keys, or the secret, that it has now.
    ///
    /// # Panics
    ///
    /// When `iss` is empty, or the secret too short for its algorithm: your test made this issuer.
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

    /// A token to be: from this issuer, for [`AUDIENCE`], valid for an hour, signed with the newest key.
    pub fn token(&self) -> TokenBuilder {
        let now = self.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        TokenBuilder::new(&self.shared.iss, now, self.shared.lock().keys.last().cloned())
    }

    /// Makes a new key of the same algorithm, publishes it beside the old ones, and signs with it from now on. Returns
    /// its `kid`.
    ///
    /// # Errors
    ///
    /// When no key can be made.
    pub fn rotate(&self) -> io::Result<String> {
        let algorithm = self
            .shared
            .lock()
            .keys
            .last()
            .map_or(Algorithm::ES256, |newest| newest.key.algorithm());
        self.rotate_to(algorithm)
    }

    /// As [`rotate`](Self::rotate), to a key of this algorithm.
    ///
    /// # Errors
    ///
    /// When the cryptography chosen by feature cannot make such a key.
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

    /// Adds this to the names of its keys, which are `key-1`, `key-2` and so on: so that an issuer which is started anew, with
    /// new keys, does not give them the names of the old ones.
    pub fn kid_suffix(self, suffix: &str) -> Self {
        let mut state = self.shared.lock();
        suffix.clone_into(&mut state.kid_suffix);
        for (number, named) in (1..).zip(&mut state.keys) {
            // Of a key that signs a token at this moment, the name stays.
            if let Some(named) = Arc::get_mut(named) {
                named.kid = format!("key-{number}{suffix}");
            }
        }
        drop(state);
        self
    }

    /// Withdraws every key but the newest.
    pub fn withdraw_old_keys(&self) {
        let mut state = self.shared.lock();
        let old = state.keys.len().saturating_sub(1);
        state.keys.drain(..old);
    }

    /// Publishes this member of `keys` too, first in the set, whatever it is.
    pub fn publish(&self, member: Value) {
        self.shared.lock().odd_keys.push(member);
    }

    /// How to answer from now on.
    pub fn set_behavior(&self, behavior: Behavior) {
        self.shared.lock().behavior = behavior;
    }

    /// A header of each answer from now on, `Cache-Control` say. With an `ETag` or `Last-Modified`, whoever sends that value
    /// back is answered 304.
    ///
    /// # Panics
    ///
    /// When `value` is none that a header can have.
    pub fn set_header(&self, name: HeaderName, value: &str) {
        match HeaderValue::from_str(value) {
            Ok(value) => drop(self.shared.lock().headers.insert(name, value)),
            Err(error) => panic!("{value:?}: {error}"),
        }
    }

    /// How long to wait before each answer.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.lock().delay = delay;
    }

    /// Dates tokens by this clock.
    pub fn set_clock(&self, clock: &TestClock) {
        self.shared.lock().clock = Some(clock.clone());
    }

    /// What its clock shows: the one that it was given, or else the machine's.
    pub fn now(&self) -> SystemTime {
        self.shared.lock().clock.as_ref().map_or_else(SystemTime::now, TestClock::now)
    }

    /// How often its metadata were asked for.
    pub fn metadata_fetches(&self) -> usize {
        self.shared.metadata_fetches.load(Ordering::SeqCst)
    }

    /// How often its key set was asked for.
    pub fn jwks_fetches(&self) -> usize {
        self.shared.jwks_fetches.load(Ordering::SeqCst)
    }

    /// The key set that it publishes (RFC 7517 §5).
    pub fn jwks_json(&self) -> Value {
        self.shared.jwks_json()
    }

    /// Its keys, ready to verify.
    ///
    /// # Panics
    ///
    /// When it has none to publish: it signs with a secret.
    pub fn jwks(&self) -> Jwks {
        match Jwks::from_json(self.jwks_json().to_string()) {
            Ok(jwks) => jwks,
            Err(error) => panic!("{error}"),
        }
    }

    /// Answers a GET for `path` as its own port would: for a server of your own that offers more than metadata and keys.
    /// `None` if the path is none of its two, or if it shall not answer at all.
    pub fn answer(&self, path: &str) -> Option<http::Response<String>> {
        match self.shared.answer(path) {
            Answered::With(response) => Some(response),
            Answered::Close | Answered::Never | Answered::NotHere => None,
        }
    }
}

/// What becomes of a request.
pub(super) enum Answered {
    With(http::Response<String>),
    /// The connection ends.
    Close,
    Never,
    /// The path is none of the issuer's.
    NotHere,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The path of `iss`, without a slash at its end.
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
        json!({ "issuer": self.iss, "jwks_uri": format!("{base}/.well-known/jwks.json") })
    }

    pub(super) fn answer(&self, path: &str) -> Answered {
        let (counter, body): (_, fn(&Self) -> Value) = match path.strip_prefix(&self.base_path()) {
            Some("/.well-known/openid-configuration") => {
                (&self.metadata_fetches, Self::metadata_json)
            }
            Some("/.well-known/jwks.json") => (&self.jwks_fetches, Self::jwks_json),
            _ => return Answered::NotHere,
        };
        counter.fetch_add(1, Ordering::SeqCst);
        let behavior = self.lock().behavior.clone();
        let mut response = http::Response::new(String::new());
        let mut location = None;
        match behavior {
            Behavior::Serve => *response.body_mut() = body(self).to_string(),
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
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
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
