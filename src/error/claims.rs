//! Verified claims that do not fit the type that the application expects.

/// The verified claims do not fit the requested type.
///
/// The message of the parser is dropped because it quotes the claims. Only the name of a missing
/// field is stored, which comes from the type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the claims do not fit `{type_name}`: {}", what(.missing.as_deref(), *.column))]
pub struct ClaimsError {
    type_name: &'static str,
    missing: Option<String>,
    column: usize,
}

impl ClaimsError {
    pub(crate) fn new<T>(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let field = text.strip_prefix("missing field `").and_then(|rest| rest.split_once('`'));
        // Accept only a plain name, because a custom `Deserialize` can produce any message.
        let is_name = |name: &str| {
            name.len() <= 128
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._~:/$#".contains(&byte))
        };
        let missing = field.map(|(name, _)| name).filter(|name| is_name(name)).map(str::to_owned);
        Self { type_name: std::any::type_name::<T>(), missing, column: error.column() }
    }

    /// Returns the JSON name of the field for which there is no claim, or `None` if the claims do
    /// not fit for another reason.
    pub fn missing_field(&self) -> Option<&str> {
        self.missing.as_deref()
    }
}

fn what(missing: Option<&str>, column: usize) -> String {
    match missing {
        Some(field) => format!("claim `{field}` is missing"),
        None => format!("at column {column} of the payload"),
    }
}
