//! RFC 7515 §4.1.9, RFC 8725 §3.11: which kind of JWT it is.

use crate::error::{ConfigError, InvalidToken};

/// JWTs that are something else than an access token, by their specifications' own word. An issuer may sign them with the
/// same keys, and some have all claims that an access token has, so none of them passes, whatever is configured.
const OTHER_KINDS: [&str; 21] = [
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
];

/// What the header's `typ` must be, by configuration.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AllowedTypes {
    /// `at+jwt`, with every claim that RFC 9068 §2.2 requires.
    Rfc9068,
    /// If it is there, one of these.
    OneOf(Vec<String>),
    /// Any but the kinds above.
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
                Err(ConfigError::new(format!("typ {other:?}: expected one of access tokens")))
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
        match fits {
            true => Ok(()),
            false => Err(InvalidToken::UnexpectedType { presented: typ.map(str::to_owned) }),
        }
    }
}

/// Refuses what is another kind of JWT by its own word, whoever the issuer is.
pub(crate) fn reject_other_jwt_types(typ: Option<&str>) -> Result<(), InvalidToken> {
    match typ {
        // Whatever parameters it has.
        Some(typ) if typ.split(';').next().is_some_and(|kind| is_other_kind(kind.trim())) => {
            Err(InvalidToken::UnexpectedType { presented: Some(typ.to_owned()) })
        }
        _ => Ok(()),
    }
}

fn is_other_kind(kind: &str) -> bool {
    OTHER_KINDS.iter().any(|other| other.eq_ignore_ascii_case(short(kind)))
}

/// Without `application/`, which may be left out. Media types have no case.
fn short(typ: &str) -> &str {
    const APPLICATION: &str = "application/";
    match typ.get(..APPLICATION.len()) {
        Some(start) if start.eq_ignore_ascii_case(APPLICATION) => {
            typ.get(APPLICATION.len()..).unwrap_or_default()
        }
        _ => typ,
    }
}
