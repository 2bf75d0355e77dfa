//! What the tokens of one issuer contain, beyond the RFCs.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde_json::Value;

use super::claim_path::ClaimPath;
use super::spiffe::TrustDomain;
use super::token_type::AllowedTypes;
use crate::error::InvalidToken;

/// How to read the tokens of one issuer, and what they must contain.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TokenProfile {
    pub(crate) typ: AllowedTypes,
    pub(crate) claims: Vec<ClaimRequirement>,
    /// Whether parts may be padded with `=`.
    pub(crate) padding: bool,
    /// The only tenant of the issuer, for key sets whose keys name a tenant.
    pub(crate) tenant: Option<String>,
    /// The trust domain that the issuer is: its tokens are JWT-SVIDs, and its keys a SPIFFE bundle.
    pub(crate) trust_domain: Option<TrustDomain>,
    /// The required value of the header's `signer`, if any.
    pub(crate) signer: Option<String>,
    /// Prefix of scope tokens that are also granted without it.
    pub(crate) scope_prefix: Option<String>,
    pub(crate) permissions: Vec<ClaimPath>,
    pub(crate) roles: Vec<ClaimPath>,
    pub(crate) groups: Vec<ClaimPath>,
}

impl TokenProfile {
    /// The profile of most issuers. Shared by all of them: with a copy for each of thousands of
    /// tenants, every request would touch different memory.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: LazyLock<Arc<TokenProfile>> = LazyLock::new(Arc::default);
        Arc::clone(&SHARED)
    }
}

impl Default for TokenProfile {
    fn default() -> Self {
        Self {
            typ: AllowedTypes::default(),
            claims: Vec::new(),
            padding: false,
            tenant: None,
            trust_domain: None,
            signer: None,
            scope_prefix: None,
            permissions: vec![ClaimPath::new("permissions")],
            roles: vec![ClaimPath::new("roles")],
            groups: vec![ClaimPath::new("groups")],
        }
    }
}

/// A requirement for the value of one claim.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClaimRequirement {
    pub(crate) path: ClaimPath,
    pub(crate) is: Condition,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Condition {
    /// Present, and one of these values or an array that contains one of them.
    OneOf(Vec<Value>),
    /// Absent, or none of these values.
    NoneOf(Vec<Value>),
    Present,
    Absent,
    /// A string that is not empty.
    Text,
    /// A date that is not in the future.
    Past,
    /// The SPIFFE ID of a workload in this trust domain.
    In(TrustDomain),
}

impl ClaimRequirement {
    /// `latest`: the current time plus the allowed clock skew, since 1970.
    pub(crate) fn check(&self, claims: &Value, latest: Duration) -> Result<(), InvalidToken> {
        let value = self.path.find(claims);
        let among = |values: &[Value]| match value {
            Some(Value::Array(several)) => several.iter().any(|one| values.contains(one)),
            Some(one) => values.contains(one),
            None => false,
        };
        let holds = match &self.is {
            Condition::OneOf(allowed) => among(allowed),
            Condition::NoneOf(denied) => !among(denied),
            Condition::Present => value.is_some_and(|value| !value.is_null()),
            Condition::Absent => value.is_none(),
            Condition::Text => value.and_then(Value::as_str).is_some_and(|text| !text.is_empty()),
            Condition::Past => {
                value.and_then(Value::as_f64).is_some_and(|date| date <= latest.as_secs_f64())
            }
            Condition::In(domain) => {
                value.and_then(Value::as_str).is_some_and(|id| domain.contains(id))
            }
        };
        if holds {
            Ok(())
        } else {
            Err(InvalidToken::ClaimValue {
                claim: self.path.as_str().to_owned(),
                expected: self.is.to_string(),
            })
        }
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list =
            |values: &[Value]| values.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
        match self {
            Self::OneOf(allowed) if allowed.len() == 1 => formatter.write_str(&list(allowed)),
            Self::OneOf(allowed) => write!(formatter, "one of {}", list(allowed)),
            Self::NoneOf(denied) => write!(formatter, "none of {}", list(denied)),
            Self::Present => formatter.write_str("it to be present"),
            Self::Absent => formatter.write_str("it to be absent"),
            Self::Text => formatter.write_str("a string that is not empty"),
            Self::Past => formatter.write_str("a date in the past"),
            Self::In(domain) => write!(formatter, "a SPIFFE ID in {}", domain.id()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_say_which_values_a_claim_may_have() {
        for (is, expected) in [
            (Condition::OneOf(vec![json!("a")]), "\"a\""),
            (Condition::OneOf(vec![json!("a"), json!(1)]), "one of \"a\", 1"),
            (Condition::NoneOf(vec![json!("a"), json!(null)]), "none of \"a\", null"),
            (Condition::Present, "it to be present"),
            (Condition::Absent, "it to be absent"),
            (Condition::Text, "a string that is not empty"),
            (Condition::Past, "a date in the past"),
            (
                Condition::In(TrustDomain::new("acme.example").unwrap()),
                "a SPIFFE ID in spiffe://acme.example",
            ),
        ] {
            assert_eq!(is.to_string(), expected);
        }
    }
}
