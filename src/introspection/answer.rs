//! RFC 7662 §2.2: the answer about a token, read strictly.

use crate::error::InvalidToken;
use crate::token::json::{Value, read_object};
use crate::token::token_type::short;

/// The answer about an active token. Only [`read`] creates one, so the type is proof that the
/// issuer was asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IntrospectedPayload<'a>(&'a str);

impl<'a> IntrospectedPayload<'a> {
    /// The answer: one JSON object.
    pub(crate) fn text(&self) -> &'a str {
        self.0
    }
}

/// Reads an answer. Returns `None` if the token is not active, and what was expected if it is
/// no answer.
///
/// `active` must be a Boolean. A server that sends `"true"` or `1` may send `"false"` as well, and
/// what it means is a guess: such an answer is neither yes nor no.
pub(crate) fn read(answer: &str) -> Result<Option<IntrospectedPayload<'_>>, &'static str> {
    match read_object(answer, &["active"]) {
        Ok([Some(Value::Bool(active))]) => Ok(active.then_some(IntrospectedPayload(answer))),
        Ok(_) => Err("an answer whose `active` is true or false"),
        Err(_) => Err("one JSON object without duplicate members"),
    }
}

/// What an access token is called, in `token_type` (RFC 7662 §2.2) and in the members that some
/// servers add.
const ACCESS_TOKENS: [&str; 5] = ["bearer", "access_token", "access-token", "access", "at+jwt"];

/// Checks that the answer is about an access token. Issuers answer the same way about their refresh
/// tokens and ID tokens, which must not open an API. `named`: whether the answer has to say so,
/// because nothing else in it does. `is_bound`: whether a proof of the client's key will be
/// verified.
pub(crate) fn check_kind(
    payload: IntrospectedPayload<'_>,
    named: bool,
    is_bound: bool,
) -> Result<(), InvalidToken> {
    // `token_use` of Ory Hydra, `token_usage` of OpenIddict, `typ` of Keycloak.
    let members = ["token_type", "token_use", "token_usage", "typ"];
    let values = read_object(payload.text(), &members).unwrap_or_default();
    let mut is_named = false;
    for value in values.into_iter().flatten() {
        match value {
            Value::Null => {}
            // Bound to a key of the client (RFC 9449 §7.1).
            Value::Text(kind) if kind.eq_ignore_ascii_case("DPoP") => {
                if !is_bound {
                    return Err(InvalidToken::SenderConstrained);
                }
                is_named = true;
            }
            // The `typ` of any JWT: it says nothing.
            Value::Text(kind) if kind.eq_ignore_ascii_case("JWT") => {}
            Value::Text(kind)
                if ACCESS_TOKENS.iter().any(|one| one.eq_ignore_ascii_case(short(&kind))) =>
            {
                is_named = true;
            }
            Value::Text(kind) => {
                let presented = Some(kind.chars().take(64).collect());
                return Err(InvalidToken::UnexpectedType { presented });
            }
            _ => return Err(InvalidToken::UnexpectedType { presented: None }),
        }
    }
    if named && !is_named {
        return Err(InvalidToken::MissingClaim("token_type"));
    }
    Ok(())
}
