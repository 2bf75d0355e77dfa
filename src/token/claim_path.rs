//! Where a claim is: a name, or a JSON Pointer.

use serde_json::Value;

/// A claim name, which may contain dots or be a URL, or, with a leading slash, a JSON Pointer
/// (RFC 6901) to a nested claim: `/realm_access/roles`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClaimPath(String);

impl ClaimPath {
    pub(crate) fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the JSON Pointer that was probably meant by dots between nested names, as other
    /// libraries use them. Returns `None` if the claims have no value at that pointer.
    pub(crate) fn dotted(&self, claims: &Value) -> Option<String> {
        if !self.0.contains('.') || self.0.contains('/') {
            return None;
        }
        let pointer = format!("/{}", self.0.replace('.', "/"));
        claims.pointer(&pointer).is_some().then_some(pointer)
    }

    pub(crate) fn find<'a>(&self, claims: &'a Value) -> Option<&'a Value> {
        if self.0.starts_with('/') { claims.pointer(&self.0) } else { claims.get(&self.0) }
    }
}

/// The strings that a claim lists: one string, the strings of an array, or the names of an object's
/// members whose values are objects (Zitadel's roles, also within an array). `{"admin": false}`
/// lists nothing. A string is not split: a role `Tenant Admin` is not the role `Admin`.
pub(crate) fn listed_strings(value: &Value) -> Box<dyn Iterator<Item = &str> + '_> {
    match value {
        Value::Array(several) => {
            Box::new(several.iter().filter(|one| !one.is_array()).flat_map(listed_strings))
        }
        Value::Object(members) => {
            Box::new(members.iter().filter(|(_, value)| value.is_object()).map(|(name, _)| &**name))
        }
        one => Box::new(one.as_str().into_iter()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pointer_is_suggested_for_dots_between_nested_names_only() {
        let claims = json!({ "a": { "b": 1, "c.d": 2 }, "b": 3 });
        for (path, expected) in [
            ("a.b", Some("/a/b")),
            ("a.c", None),
            ("a", None),
            ("b", None),
            ("/a.b", None),
            ("a/b", None),
            ("a/b.c", None),
        ] {
            assert_eq!(ClaimPath::new(path).dotted(&claims).as_deref(), expected, "{path}");
        }
    }
}
