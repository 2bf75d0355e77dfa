//! The API keys of a verifier, at run time.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::ApiKey;
use super::keys::{ApiKeys, KeySource};
use super::lookup::LookedUpKeys;
use super::text::{ApiKeyText, ShortId, prefix_of, short};
use crate::access_token::payload::VerifiedPayload;
use crate::access_token::{AccessToken, Implies, Terms};
use crate::clock::{Clock, Now};
use crate::crypto;
use crate::error::{ConfigError, Error, InvalidToken};
use crate::token::claims::RegisteredClaims;
use crate::token::profile::TokenProfile;

/// The claims of an API key, as the application configured them. Only [`TokenMaker`] creates one.
#[derive(Clone, Copy)]
pub(crate) struct ConfiguredClaims<'a>(&'a str);

impl<'a> ConfiguredClaims<'a> {
    pub(crate) fn text(self) -> &'a str {
        self.0
    }
}

/// A known key. It releases its token only for the key itself.
pub(super) struct KnownKey {
    sha256: [u8; 32],
    token: AccessToken,
}

impl KnownKey {
    /// Returns the token if `presented` is this key.
    pub(super) fn token_for(
        &self,
        presented: &[u8; 32],
        now: Now,
    ) -> Result<AccessToken, InvalidToken> {
        if !crypto::is_equal(&self.sha256, presented) {
            return Err(InvalidToken::UnknownApiKey);
        }
        if !self.token.is_good_at(now) {
            let (expires_at, now) = (self.token.expires_at(), now.wall());
            return Err(InvalidToken::Expired { expires_at, now, verified: true });
        }
        Ok(self.token.clone())
    }
}

/// What the tokens of all keys have in common.
pub(super) struct TokenMaker {
    pub(super) iss: Arc<str>,
    pub(super) verifier: u64,
    pub(super) clock: Clock,
    pub(super) implies: Option<Arc<Implies>>,
}

impl TokenMaker {
    /// The known keys of one record, by identifier.
    pub(super) fn known(
        &self,
        key: &ApiKey,
    ) -> impl Iterator<Item = Result<(String, KnownKey), ConfigError>> {
        key.hashes().map(|hash| {
            let claims = key.claims(&self.iss, hash.id())?;
            let parsed = RegisteredClaims::parse_introspected(claims.as_bytes(), &self.iss);
            let parsed = parsed
                .map_err(|error| ConfigError::new(format!("API key {:?}: {error}", hash.id())))?;
            let terms = Terms {
                issuer: Arc::clone(&self.iss),
                profile: TokenProfile::shared(),
                // This API sets the time itself.
                leeway: std::time::Duration::ZERO,
                max_token_age: None,
                names: None,
                place: None,
                verifier: self.verifier,
                clock: self.clock.clone(),
                implies: self.implies.clone(),
                revocations: None,
                #[cfg(feature = "status-list")]
                status: None,
            };
            let payload = VerifiedPayload::ApiKey(ConfiguredClaims(&claims));
            // Not the key itself, which is not stored.
            let token = AccessToken::new(hash.id(), payload, parsed, terms);
            Ok((hash.id().to_owned(), KnownKey { sha256: *hash.sha256(), token }))
        })
    }
}

/// The keys of a list.
struct KeyList {
    /// By their short identifiers: the hash that is compared is that of the whole key, with its
    /// prefix. A short key of the map is stored in it, so that no other memory is read.
    keys: HashMap<ShortId, KnownKey>,
    /// The prefixes of the keys.
    prefixes: Vec<String>,
}

impl KeyList {
    /// `prefixes`: those of earlier lists. A withdrawn key is still a key.
    fn new(keys: &[ApiKey], prefixes: &[String], maker: &TokenMaker) -> Result<Self, ConfigError> {
        let mut list = HashMap::new();
        let mut prefixes = prefixes.to_vec();
        for known in keys.iter().flat_map(|key| maker.known(key)) {
            let (id, known) = known?;
            prefixes.push(prefix_of(&id).to_owned());
            list.extend(short(&id).map(|short| (short, known)));
        }
        prefixes.sort_unstable();
        prefixes.dedup();
        Ok(Self { keys: list, prefixes })
    }
}

/// The API keys of a verifier.
pub(crate) struct ActiveApiKeys {
    maker: Arc<TokenMaker>,
    source: Source,
}

enum Source {
    List(ArcSwap<KeyList>),
    Lookup { prefix: String, keys: Arc<LookedUpKeys> },
}

/// A key that was verified, or its lookup.
pub(crate) enum KeyVerification {
    Ready(Result<AccessToken, Error>),
    Pending(Pin<Box<dyn Future<Output = Result<AccessToken, Error>> + Send>>),
}

impl ActiveApiKeys {
    pub(crate) fn new(
        keys: ApiKeys,
        verifier: u64,
        clock: Clock,
        implies: Option<Arc<Implies>>,
    ) -> Result<Self, ConfigError> {
        let maker = Arc::new(TokenMaker { iss: keys.iss, verifier, clock, implies });
        let source = match keys.source {
            KeySource::List(list) => {
                Source::List(ArcSwap::from_pointee(KeyList::new(&list, &[], &maker)?))
            }
            KeySource::Lookup { prefix, call, lifetime } => {
                let keys = Arc::new(LookedUpKeys::new(call, lifetime, Arc::clone(&maker)));
                Source::Lookup { prefix, keys }
            }
        };
        Ok(Self { maker, source })
    }

    /// Whether a token is a key, known or not: it begins as the keys do, or it has the form and the
    /// checksum of a key with another prefix, such as one of another environment.
    #[inline]
    pub(crate) fn is_key(&self, token: &str) -> bool {
        let begins =
            |prefix: &str| token.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('_'));
        let has_prefix = match &self.source {
            Source::List(list) => list.load().prefixes.iter().any(|prefix| begins(prefix)),
            Source::Lookup { prefix, .. } => begins(prefix),
        };
        has_prefix || ApiKeyText::parse(token).is_some()
    }

    /// The issuer of the tokens that handlers receive.
    pub(crate) fn iss(&self) -> &str {
        &self.maker.iss
    }

    /// The public identifier of a key, known or not.
    pub(crate) fn id_of<'a>(&self, token: &'a str) -> Option<&'a str> {
        ApiKeyText::parse(token).map(|key| key.id)
    }

    pub(crate) fn verify(&self, token: &str, now: Now) -> KeyVerification {
        let Some(presented) = ApiKeyText::parse(token) else {
            let malformed = InvalidToken::Malformed("an API key with a valid checksum");
            return KeyVerification::Ready(Err(malformed.into()));
        };
        let hash = presented.hash();
        match &self.source {
            Source::List(list) => {
                let list = list.load();
                let found = list.keys.get(&presented.short).ok_or(InvalidToken::UnknownApiKey);
                let token = found.and_then(|known| known.token_for(&hash, now));
                KeyVerification::Ready(token.map_err(Error::from))
            }
            Source::Lookup { prefix, .. } if prefix_of(presented.id) != prefix => {
                KeyVerification::Ready(Err(InvalidToken::UnknownApiKey.into()))
            }
            Source::Lookup { keys, .. } => match keys.cached(presented.id, now) {
                Some(known) => {
                    let known = known.ok_or(InvalidToken::UnknownApiKey);
                    let token = known.and_then(|known| known.token_for(&hash, now));
                    KeyVerification::Ready(token.map_err(Error::from))
                }
                None => {
                    let found = Arc::clone(keys).find(presented.id.to_owned());
                    let clock = self.maker.clock.clone();
                    KeyVerification::Pending(Box::pin(async move {
                        let known = found.await?.ok_or(InvalidToken::UnknownApiKey)?;
                        Ok(known.token_for(&hash, clock.now())?)
                    }))
                }
            },
        }
    }

    /// Replaces the keys of a list.
    pub(crate) fn replace(&self, keys: &ApiKeys) -> Result<(), ConfigError> {
        let error =
            |what: String| Err(ConfigError::new(format!("replacement of API keys: {what}")));
        let own = &*self.maker.iss;
        match (&self.source, &keys.source) {
            (Source::Lookup { .. }, _) => {
                error("expected a verifier with `ApiKeys::new`, found `ApiKeys::lookup`".to_owned())
            }
            (_, KeySource::Lookup { .. }) => {
                error("expected `ApiKeys::new`, found `ApiKeys::lookup`".to_owned())
            }
            _ if &*keys.iss != own => {
                error(format!("expected the issuer {own:?}, found {:?}", keys.iss))
            }
            (Source::List(list), KeySource::List(new)) => {
                let prefixes = list.load().prefixes.clone();
                list.store(Arc::new(KeyList::new(new, &prefixes, &self.maker)?));
                Ok(())
            }
        }
    }

    /// Drops the cached answer of the lookup for this identifier.
    pub(crate) fn forget(&self, id: &str) -> bool {
        match &self.source {
            Source::List(_) => false,
            Source::Lookup { keys, .. } => keys.forget(id),
        }
    }
}
