//! RFC 7519 §4.1, RFC 9068 §2.2: registered claims, and the rules for them.

use std::borrow::Cow;
use std::slice;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::audience::{Audience, AudienceClaim};
use super::json::{self, Value};
use super::scope::Scope;
use super::spiffe::TrustDomains;
use crate::clock::Now;
use crate::error::InvalidToken;

/// Latest NumericDate that is accepted: the end of the year 9999, as in RFC 3339. Up to there, the
/// sum of a date and a leeway does not overflow, and no real token has a later date.
pub(crate) const MAX_NUMERIC_DATE: f64 = 253_402_300_799.0;

/// The `exp` of a token whose issuer states none: later than any time.
const NEVER: Duration = Duration::from_secs(MAX_NUMERIC_DATE as u64);

/// What the names of events of OpenID have in common: those of logout tokens and of CAEP. Without a
/// slash, which some encoders of JSON escape.
const OPENID_EVENT: &str = "schemas.openid.net";

/// Whether an object has an event of OpenID as a member. If its text contains the name of one
/// elsewhere, it is no access token either.
fn names_event(events: &str) -> bool {
    // A name with escapes reads otherwise than it is spelled.
    let reads_so = || json::names(events).any(|name| name.contains(OPENID_EVENT));
    events.contains(OPENID_EVENT) || events.contains('\\') && reads_so()
}

/// The claims of a token, with their types, borrowed from the payload.
///
/// Parsed claims prove nothing. Until the signature is verified, they may only be used to reject
/// the token, or to find its issuer.
#[derive(Debug)]
pub(crate) struct RegisteredClaims<'a> {
    /// `iss`, or the ID of the trust domain that issued a JWT-SVID without it.
    pub(crate) issuer: Cow<'a, str>,
    /// A string or an array of strings. Some issuers send none.
    audience: Option<Value<'a>>,
    pub(crate) expires_at: Duration,
    not_before: Option<Duration>,
    issued_at: Option<Duration>,
    pub(crate) subject: Option<Cow<'a, str>>,
    client_id: Option<Cow<'a, str>>,
    azp: Option<Cow<'a, str>>,
    cid: Option<Cow<'a, str>>,
    has_jwt_id: bool,
    pub(crate) scope: Scope,
    /// Entra ID's `tid`.
    pub(crate) tenant: Option<Cow<'a, str>>,
    confirmation: Confirmation,
    /// Whether there is an event of OpenID in `events` (RFC 8417 §2.2).
    has_event: bool,
}

/// Where claims come from, which determines what they may omit.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// A JWT. Those of these trust domains may have no `iss`.
    Token(&'a TrustDomains),
    /// The answer of this issuer about a token. It may have neither `iss` nor `exp`.
    Answer(&'a str),
}

/// What a token is bound to: `cnf` (RFC 7800 §3.1).
#[derive(Clone, Copy, Debug, PartialEq)]
enum Confirmation {
    None,
    Bound(Thumbprints),
    /// A binding that cannot be verified.
    Other,
}

/// The SHA-256 hashes in `cnf`, at least one. If there are two, both bindings must hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Thumbprints {
    /// That of a key: `jkt` (RFC 9449 §6.1).
    pub(crate) key: Option<[u8; 32]>,
    /// That of a certificate: `x5t#S256` (RFC 8705 §3.1).
    pub(crate) certificate: Option<[u8; 32]>,
}

/// The bindings that a verifier is configured to verify.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Verifiable {
    pub(crate) keys: bool,
    pub(crate) certificates: bool,
}

impl Confirmation {
    fn read(cnf: Option<&Value<'_>>) -> Self {
        let text = match cnf {
            None | Some(Value::Null) => return Self::None,
            Some(Value::Object(text)) => text,
            Some(_) => return Self::Other,
        };
        // Members that are not understood are ignored (RFC 7800 §3.1).
        let Ok(members) = json::read_object(text, &["jkt", "x5t#S256"]) else { return Self::Other };
        match members.map(|member| member.map(|hash| thumbprint(&hash)).transpose()) {
            [Ok(None), Ok(None)] | [Err(_), _] | [_, Err(_)] => Self::Other,
            [Ok(key), Ok(certificate)] => Self::Bound(Thumbprints { key, certificate }),
        }
    }
}

/// A member of `cnf` that is no hash.
struct NotAHash;

/// The 32 bytes of a SHA-256 hash in base64url.
fn thumbprint(value: &Value<'_>) -> Result<[u8; 32], NotAHash> {
    let Value::Text(text) = value else { return Err(NotAHash) };
    let bytes = URL_SAFE_NO_PAD.decode(&**text).map_err(|_| NotAHash)?;
    bytes.try_into().map_err(|_| NotAHash)
}

impl<'a> RegisteredClaims<'a> {
    /// Parses the payload, which must be one JSON object in UTF-8 (RFC 7519 §7.2), strictly:
    /// RFC 8259, without duplicate members. `domains`: the trust domains whose tokens may have no
    /// `iss`.
    pub(crate) fn parse(
        payload: &'a [u8],
        domains: &'a TrustDomains,
    ) -> Result<Self, InvalidToken> {
        Self::read(payload, Source::Token(domains))
    }

    /// Parses the response of an introspection endpoint (RFC 7662 §2.2), where `iss` and `exp` are
    /// optional. `iss`: the issuer that was asked.
    pub(crate) fn parse_introspected(
        response: &'a [u8],
        iss: &'a str,
    ) -> Result<Self, InvalidToken> {
        Self::read(response, Source::Answer(iss))
    }

    fn read(payload: &'a [u8], source: Source<'a>) -> Result<Self, InvalidToken> {
        const NOT_AN_OBJECT: InvalidToken =
            InvalidToken::Malformed("a payload that is one JSON object without duplicate members");
        let text = std::str::from_utf8(payload).map_err(|_| NOT_AN_OBJECT)?;

        let wanted = [
            "iss",
            "sub",
            "aud",
            "exp",
            "nbf",
            "iat",
            "jti",
            "client_id",
            "azp",
            "cid",
            "scope",
            "scp",
            "tid",
            "cnf",
            "events",
        ];
        let [iss, sub, aud, exp, nbf, iat, jti, client_id, azp, cid, scope, scp, tid, cnf, events] =
            json::read_object(text, &wanted).map_err(|_| NOT_AN_OBJECT)?;

        let issuer = text_claim("iss", iss)?;
        // An empty `sub` identifies no subject: all machines behind one gateway would be one user.
        let subject = text_claim("sub", sub)?.filter(|subject| !subject.is_empty());
        let expires_at = numeric_date("exp", exp.as_ref())?;
        Ok(Self {
            issuer: match (issuer, source) {
                (Some(issuer), _) => issuer,
                (None, Source::Answer(asked)) => Cow::Borrowed(asked),
                (None, Source::Token(domains)) => {
                    Cow::Borrowed(domains.issuer_of(subject.as_deref())?)
                }
            },
            audience: match aud {
                None | Some(Value::Text(_) | Value::Texts(_)) => aud,
                Some(_) => return Err(wrong_type("aud", "a string or an array of strings")),
            },
            expires_at: match (expires_at, source) {
                (Some(expires_at), _) => expires_at,
                (None, Source::Answer(_)) => NEVER,
                (None, Source::Token(_)) => return Err(InvalidToken::MissingClaim("exp")),
            },
            not_before: numeric_date("nbf", nbf.as_ref())?,
            issued_at: numeric_date("iat", iat.as_ref())?,
            subject,
            client_id: passed_over(client_id),
            azp: passed_over(azp),
            cid: passed_over(cid),
            has_jwt_id: matches!(jti, Some(Value::Text(_))),
            scope: scope_claim(scope).or_else(|| scope_claim(scp)).unwrap_or_else(Scope::none),
            tenant: passed_over(tid),
            confirmation: Confirmation::read(cnf.as_ref()),
            has_event: matches!(events, Some(Value::Object(events)) if names_event(events)),
        })
    }

    fn audience(&self) -> Option<&[Cow<'a, str>]> {
        match &self.audience {
            Some(Value::Text(one)) => Some(slice::from_ref(one)),
            Some(Value::Texts(several)) => Some(several),
            _ => None,
        }
    }

    /// `iat`.
    pub(crate) fn issued_at(&self) -> Option<Duration> {
        self.issued_at
    }

    /// The later of `nbf` and `iat`.
    pub(crate) fn good_from(&self) -> Duration {
        self.not_before.max(self.issued_at).unwrap_or_default()
    }

    /// `exp`, or the time at which the token becomes too old, if that is earlier.
    pub(crate) fn good_until(&self, max_age: Option<Duration>) -> Duration {
        let too_old = self.issued_at.zip(max_age).map(|(issued, age)| issued.saturating_add(age));
        too_old.map_or(self.expires_at, |too_old| too_old.min(self.expires_at))
    }

    /// The client that the token was issued to: `client_id` (RFC 9068), `azp` (OpenID Connect) or
    /// `cid` (Okta).
    pub(crate) fn client_id(&self) -> Option<&str> {
        [&self.client_id, &self.azp, &self.cid].into_iter().flatten().next().map(|one| &**one)
    }

    /// Checks that the claims required by RFC 9068 §2.2 are present. `iss` and `exp` are always
    /// required.
    pub(crate) fn check_rfc9068(&self) -> Result<(), InvalidToken> {
        for (name, is_there) in [
            ("aud", self.audience.is_some()),
            ("sub", self.subject.is_some()),
            ("client_id", self.client_id.is_some()),
            ("iat", self.issued_at.is_some()),
            ("jti", self.has_jwt_id),
        ] {
            if !is_there {
                return Err(InvalidToken::MissingClaim(name));
            }
        }
        Ok(())
    }

    /// Rejects a logout token or a security event, whose issuers may set the `typ` of every JWT.
    pub(crate) fn check_no_event(&self) -> Result<(), InvalidToken> {
        if self.has_event {
            let expected = "an access token, not a logout token or security event".to_owned();
            return Err(InvalidToken::ClaimValue { claim: "events".to_owned(), expected });
        }
        Ok(())
    }

    /// Whether there is an `aud`.
    pub(crate) fn has_audience(&self) -> bool {
        self.audience.is_some()
    }

    /// Checks `aud` (RFC 7519 §4.1.3), or what is configured for issuers that send none.
    pub(crate) fn check_audience(&self, expected: &Audience) -> Result<(), InvalidToken> {
        let rejection =
            |presented| Err(InvalidToken::WrongAudience { expected: expected.clone(), presented });
        let party = match expected.claim() {
            AudienceClaim::Any | AudienceClaim::Issuer if !expected.names_aud() => return Ok(()),
            AudienceClaim::Audience | AudienceClaim::Any | AudienceClaim::Issuer => None,
            AudienceClaim::ClientId => {
                Some(self.client_id().ok_or(InvalidToken::MissingClaim("client_id"))?)
            }
            AudienceClaim::AuthorizedParty => {
                Some(self.azp.as_deref().ok_or(InvalidToken::MissingClaim("azp"))?)
            }
        };
        if let Some(party) = party.filter(|party| !expected.contains(party)) {
            return rejection(vec![party.to_owned()]);
        }
        match self.audience() {
            None if expected.claim() == AudienceClaim::Audience => {
                Err(InvalidToken::MissingClaim("aud"))
            }
            None => Ok(()),
            // A token for another API is rejected, whichever client it was issued to.
            Some(several) if expected.accepts_aud(several) => Ok(()),
            Some(several) => {
                rejection(several.iter().map(|one| one.clone().into_owned()).collect())
            }
        }
    }

    /// Checks the time, and rejects sender-constrained tokens (RFC 9068 §4, RFC 7519 §4.1.4 to
    /// §4.1.6).
    pub(crate) fn check_time(
        &self,
        leeway: Duration,
        max_age: Option<Duration>,
        now: Now,
    ) -> Result<(), InvalidToken> {
        if now.unix >= self.expires_at + leeway {
            let (expires_at, now) = (UNIX_EPOCH + self.expires_at, now.wall());
            return Err(InvalidToken::Expired { expires_at, now, verified: false });
        }
        let latest = now.unix.saturating_add(leeway);
        if let Some(not_before) = self.not_before.filter(|date| *date > latest) {
            let (not_before, now) = (UNIX_EPOCH + not_before, now.wall());
            return Err(InvalidToken::NotYetValid { not_before, now });
        }
        if let Some(issued_at) = self.issued_at.filter(|date| *date > latest) {
            let (issued_at, now) = (UNIX_EPOCH + issued_at, now.wall());
            return Err(InvalidToken::IssuedInTheFuture { issued_at, now });
        }
        if let Some(max_age) = max_age {
            let issued_at = self.issued_at.ok_or(InvalidToken::MissingClaim("iat"))?;
            if now.unix >= issued_at.saturating_add(max_age).saturating_add(leeway) {
                let (issued_at, now) = (UNIX_EPOCH + issued_at, now.wall());
                return Err(InvalidToken::TooOld { issued_at, max_age, now });
            }
        }
        Ok(())
    }

    /// Rejects a token with a binding that cannot be verified (RFC 9449 §7.2, RFC 8705 §3): the
    /// token alone does not prove that the client is the one it was issued to.
    pub(crate) fn check_binding(&self, verifiable: Verifiable) -> Result<(), InvalidToken> {
        let holds = match self.confirmation {
            Confirmation::None => true,
            Confirmation::Bound(Thumbprints { key, certificate }) => {
                (verifiable.keys || key.is_none())
                    && (verifiable.certificates || certificate.is_none())
            }
            Confirmation::Other => false,
        };
        if holds { Ok(()) } else { Err(InvalidToken::SenderConstrained) }
    }

    /// What the token is bound to.
    pub(crate) fn thumbprints(&self) -> Option<Thumbprints> {
        match self.confirmation {
            Confirmation::Bound(thumbprints) => Some(thumbprints),
            Confirmation::None | Confirmation::Other => None,
        }
    }
}

/// A payload that is not one JSON object with a string `iss`.
#[derive(Debug)]
pub(crate) struct NotAnIssuer;

/// The `iss` of a payload. Unverified, it may only be used to find the issuer.
pub(crate) fn issuer_of(payload: &str) -> Result<Cow<'_, str>, NotAnIssuer> {
    match json::read_object(payload, &["iss"]) {
        Ok([Some(Value::Text(iss))]) => Ok(iss),
        _ => Err(NotAnIssuer),
    }
}

fn wrong_type(claim: &'static str, expected: &'static str) -> InvalidToken {
    InvalidToken::ClaimType { claim, expected }
}

fn text_claim<'a>(
    claim: &'static str,
    value: Option<Value<'a>>,
) -> Result<Option<Cow<'a, str>>, InvalidToken> {
    match value {
        None => Ok(None),
        Some(Value::Text(text)) => Ok(Some(text)),
        Some(_) => Err(wrong_type(claim, "a string")),
    }
}

/// A claim that RFC 7519 does not define. A value of an unexpected type is ignored, not rejected.
fn passed_over(value: Option<Value<'_>>) -> Option<Cow<'_, str>> {
    match value {
        Some(Value::Text(text)) => Some(text),
        _ => None,
    }
}

/// Parses a NumericDate (RFC 7519 §2): seconds since 1970, with an optional fraction.
pub(crate) fn numeric_date(
    claim: &'static str,
    value: Option<&Value<'_>>,
) -> Result<Option<Duration>, InvalidToken> {
    let seconds = match value {
        None => return Ok(None),
        Some(Value::Number(seconds)) if *seconds <= MAX_NUMERIC_DATE => *seconds,
        Some(_) => {
            return Err(wrong_type(claim, "a number of seconds since 1970, up to the year 9999"));
        }
    };
    match Duration::try_from_secs_f64(seconds) {
        Ok(date) => Ok(Some(date)),
        Err(_) => Err(wrong_type(claim, "a number of seconds since 1970, not negative")),
    }
}

/// Parses scope as one string (RFC 8693 §4.2) or as an array of strings. Any other value grants
/// nothing.
fn scope_claim(value: Option<Value<'_>>) -> Option<Scope> {
    match value? {
        Value::Text(text) => Some(Scope::granted([&*text])),
        Value::Texts(texts) => Some(Scope::granted(texts.iter().map(|text| &**text))),
        _ => None,
    }
}
