//! RFC 7515 §4.1.9, RFC 8725 §3.11: the type of a JWT.

use crate::error::{ConfigError, InvalidToken};

/// Types of JWTs that are not access tokens, by their specifications. An issuer may sign them with
/// the same keys, and some have every claim of an access token, so they are always rejected,
/// whatever is configured.
const OTHER_KINDS: [&str; 23] = [
    "authorization-details+jwt",
    "client-authentication+jwt",
    "dc+sd-jwt",
    "dpop+jwt",
    "entity-statement+jwt",
    "id_token+jwt",
    "jag+jwt",
    "kb+jwt",
    "logout+jwt",
    "oauth-authz-req+jwt",
    "oauth-client-attestation+jwt",
    "oauth-client-attestation-pop+jwt",
    "oauth-id-jag+jwt",
    "openid4vci-proof+jwt",
    "sd-jwt",
    "secevent+jwt",
    "statuslist+jwt",
    "token-introspection+jwt",
    "trust-mark+jwt",
    "txntoken+jwt",
    "vc+sd-jwt",
    "wit+jwt",
    "wpt+jwt",
];

/// Which values of the header's `typ` are accepted, as configured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AllowedTypes {
    /// `at+jwt`, with every claim that RFC 9068 §2.2 requires.
    Rfc9068,
    /// One of these, if `typ` is present.
    OneOf(Vec<String>),
    /// Any type that is not in [`OTHER_KINDS`].
    Any,
}

impl Default for AllowedTypes {
    fn default() -> Self {
        Self::OneOf(["JWT", "at+jwt"].map(str::to_owned).to_vec())
    }
}

impl AllowedTypes {
    pub(crate) fn one_of(types: Vec<String>) -> Result<Self, ConfigError> {
        match types.iter().find(|typ| reject_other_jwt_types(Some(typ)).is_err()) {
            Some(other) => {
                Err(ConfigError::new(format!("typ {other:?}: expected a type of access tokens")))
            }
            None => Ok(Self::OneOf(types.into_iter().map(|typ| short(&typ).to_owned()).collect())),
        }
    }

    pub(crate) fn check(&self, typ: Option<&str>) -> Result<(), InvalidToken> {
        let fits = match (self, typ) {
            (Self::Any, _) | (Self::OneOf(_), None) => true,
            (Self::Rfc9068, typ) => {
                typ.is_some_and(|typ| short(typ).eq_ignore_ascii_case("at+jwt"))
            }
            (Self::OneOf(types), Some(typ)) => {
                types.iter().any(|one| one.eq_ignore_ascii_case(short(typ)))
            }
        };
        if fits {
            Ok(())
        } else {
            Err(InvalidToken::UnexpectedType { presented: typ.map(str::to_owned) })
        }
    }
}

/// Rejects JWTs whose `typ` is in [`OTHER_KINDS`], whatever the issuer.
pub(crate) fn reject_other_jwt_types(typ: Option<&str>) -> Result<(), InvalidToken> {
    match typ {
        // The parameters of the media type do not matter.
        Some(typ) if typ.split(';').next().is_some_and(|kind| is_other_kind(kind.trim())) => {
            Err(InvalidToken::UnexpectedType { presented: Some(typ.to_owned()) })
        }
        _ => Ok(()),
    }
}

fn is_other_kind(kind: &str) -> bool {
    OTHER_KINDS.iter().any(|other| other.eq_ignore_ascii_case(short(kind)))
}

/// Whether `typ` is this type, with or without `application/`.
pub(crate) fn is(typ: &str, kind: &str) -> bool {
    short(typ).eq_ignore_ascii_case(kind)
}

/// Strips `application/`, which may be omitted. Media types are case-insensitive.
pub(crate) fn short(typ: &str) -> &str {
    const APPLICATION: &str = "application/";
    match typ.get(..APPLICATION.len()) {
        Some(start) if start.eq_ignore_ascii_case(APPLICATION) => {
            typ.get(APPLICATION.len()..).unwrap_or_default()
        }
        _ => typ,
    }
}
