//! Claims that only verification creates.

use super::TokenKind;
use crate::api_key::active::ConfiguredClaims;
use crate::introspection::answer::IntrospectedPayload;
use crate::keys::jwk::SignedPayload;

/// Claims that can be trusted, and why. Each variant holds a type that only the code that verifies
/// creates.
#[derive(Clone, Copy)]
pub(crate) enum VerifiedPayload<'a> {
    Signed(SignedPayload<'a>),
    Introspected(IntrospectedPayload<'a>),
    ApiKey(ConfiguredClaims<'a>),
}

impl<'a> VerifiedPayload<'a> {
    pub(super) fn kind(self) -> TokenKind {
        match self {
            Self::Signed(_) => TokenKind::Jwt,
            Self::Introspected(_) => TokenKind::Introspected,
            Self::ApiKey(_) => TokenKind::ApiKey,
        }
    }

    pub(super) fn text(self) -> &'a str {
        match self {
            // The claims were parsed from these bytes as UTF-8, so this does not fail.
            Self::Signed(payload) => std::str::from_utf8(payload.bytes()).unwrap_or_default(),
            Self::Introspected(payload) => payload.text(),
            Self::ApiKey(claims) => claims.text(),
        }
    }
}
