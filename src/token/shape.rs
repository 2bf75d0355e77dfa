//! What one issuer's tokens look like, beyond what the RFCs say.

use serde_json::Value;

use super::path::ClaimPath;
use super::typ::TypRule;
use crate::error::InvalidToken;

/// How to read the tokens of one issuer, and what must be in them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shape {
    pub(crate) typ: TypRule,
    pub(crate) claims: Vec<ClaimRule>,
    /// Whether parts may end with `=`.
    pub(crate) padding: bool,
    /// The header's `signer`, if it must have one.
    pub(crate) signer: Option<String>,
    /// What scope tokens begin with that are granted without it, too.
    pub(crate) scope_prefix: Option<String>,
    pub(crate) permissions: Vec<ClaimPath>,
    pub(crate) roles: Vec<ClaimPath>,
    pub(crate) groups: Vec<ClaimPath>,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            typ: TypRule::default(),
            claims: Vec::new(),
            padding: false,
            signer: None,
            scope_prefix: None,
            permissions: vec![ClaimPath::new("permissions")],
            roles: vec![ClaimPath::new("roles")],
            groups: vec![ClaimPath::new("groups")],
        }
    }
}

/// A rule over one claim's value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClaimRule {
    pub(crate) path: ClaimPath,
    pub(crate) is: Is,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Is {
    /// There, and one of these strings, or an array with one of them.
    OneOf(Vec<String>),
    /// Not there, or none of these strings.
    NoneOf(Vec<String>),
    Absent,
}

impl ClaimRule {
    pub(crate) fn check(&self, claims: &Value) -> Result<(), InvalidToken> {
        let value = self.path.find(claims);
        let is = |allowed: &[String], value: &Value| {
            value.as_str().is_some_and(|text| allowed.iter().any(|one| one == text))
        };
        let among = |allowed: &[String]| match value {
            Some(Value::Array(several)) => several.iter().any(|one| is(allowed, one)),
            Some(one) => is(allowed, one),
            None => false,
        };
        let holds = match &self.is {
            Is::OneOf(allowed) => among(allowed),
            Is::NoneOf(refused) => !among(refused),
            Is::Absent => value.is_none(),
        };
        match holds {
            true => Ok(()),
            false => {
                Err(InvalidToken::ClaimValue { claim: self.path.as_str().to_owned(), expected: self.is.to_string() })
            }
        }
    }
}

impl std::fmt::Display for Is {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OneOf(allowed) => match allowed.as_slice() {
                [one] => write!(formatter, "{one:?}"),
                several => write!(formatter, "one of {several:?}"),
            },
            Self::NoneOf(refused) => write!(formatter, "none of {refused:?}"),
            Self::Absent => formatter.write_str("none"),
        }
    }
}
