use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::issuer::{AUDIENCE, NamedKey, TestIssuer};

/// A token to be, from [`TestIssuer::token`]: good, until you make it something else.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use portcullis::testing::TestIssuer;
///
/// let issuer = TestIssuer::start()?;
/// let stranger = TestIssuer::start()?;
///
/// let good = issuer.token().subject("alice").scope("read:messages").claim("org_id", "org_1").build();
/// let forged = issuer.token().signed_by(&stranger).build();
/// let unnamed = issuer.token().without_header("kid").build();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct TokenBuilder {
    header: Map<String, Value>,
    claims: Map<String, Value>,
    payload: Option<Vec<u8>>,
    key: Option<Arc<NamedKey>>,
    /// When it is made, in seconds since 1970; whatever `iat` says.
    now: u64,
    /// The claim that says whom it is for, and who else stands in it.
    audience_claim: (&'static str, Option<String>),
    /// The claim that scope is written to, and whether as an array.
    scope_claim: (&'static str, bool),
    tampered: Option<Tampered>,
    padded: bool,
}

#[derive(Clone, Copy)]
enum Tampered {
    Payload,
    Signature,
}

impl TokenBuilder {
    pub(super) fn new(iss: &str, now: Duration, key: Option<Arc<NamedKey>>) -> Self {
        let now = now.as_secs();
        let claims = json!({
            "iss": iss,
            "sub": "test-subject",
            "aud": AUDIENCE,
            "client_id": "test-client",
            "iat": now,
            "exp": now + 3600,
        });
        let mut builder = Self {
            header: object(json!({ "typ": "at+jwt" })),
            claims: object(claims),
            payload: None,
            key: None,
            now,
            audience_claim: ("aud", None),
            scope_claim: ("scope", false),
            tampered: None,
            padded: false,
        };
        builder.set_key(key);
        builder
    }

    /// `sub`.
    pub fn subject(self, subject: &str) -> Self {
        self.claim("sub", subject)
    }

    /// `scope`: tokens with spaces between. ResponseEffects [`like_okta`](Self::like_okta) and its kin, as that provider writes it.
    pub fn scope(self, scope: &str) -> Self {
        match self.scope_claim {
            (claim, true) => {
                self.claim(claim, scope.split(' ').map(Value::from).collect::<Vec<_>>())
            }
            (claim, false) => self.claim(claim, scope),
        }
    }

    /// `aud`, in place of [`AUDIENCE`]. ResponseEffects [`like_cognito`](Self::like_cognito) and its kin, as that provider writes it.
    pub fn audience(self, audience: &str) -> Self {
        match self.audience_claim.clone() {
            (claim, Some(other)) => self.claim(claim, json!([audience, other])),
            (claim, None) => self.claim(claim, audience),
        }
    }

    /// `iss`, in place of the issuer's own.
    pub fn issued_by(self, iss: &str) -> Self {
        self.claim("iss", iss)
    }

    /// Expired an hour ago; `iat`, `nbf` and `auth_time`, if they are later than an hour before, are set to that.
    pub fn expired(mut self) -> Self {
        let (issued, expired) = (self.now.saturating_sub(7200), self.now.saturating_sub(3600));
        for name in ["iat", "nbf", "auth_time"] {
            if let Some(date) = self
                .claims
                .get_mut(name)
                .filter(|date| date.as_u64().is_some_and(|date| date > issued))
            {
                *date = issued.into();
            }
        }
        self.claim("exp", expired)
    }

    /// Not valid for another hour (`nbf`).
    pub fn not_yet_valid(self) -> Self {
        let from = self.now + 3600;
        self.claim("nbf", from)
    }

    /// Good for so long from now on, in whole seconds; an hour unless said.
    pub fn valid_for(self, lifetime: Duration) -> Self {
        let until = self.now.saturating_add(lifetime.as_secs());
        self.claim("exp", until)
    }

    /// Any claim, of any JSON type.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Not this claim.
    pub fn without_claim(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// These bytes as payload, in place of all claims: for what no JSON library would write.
    pub fn payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = Some(payload.into());
        self
    }

    /// Any member of the JOSE header. It may lie about `alg` and `kid`; the signature stays that of the key.
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// Not this member of the header.
    pub fn without_header(mut self, name: &str) -> Self {
        self.header.remove(name);
        self
    }

    /// Signed with the newest key of another issuer, under the `kid` of ours: the forgery that only the signature shows.
    pub fn signed_by(mut self, other: &TestIssuer) -> Self {
        let kid = self.header.get("kid").cloned();
        self.set_key(other.shared.lock().keys.last().cloned());
        match kid {
            Some(kid) => self.header("kid", kid),
            None => self.without_header("kid"),
        }
    }

    /// Signed by nobody: `alg` is `none`, and the signature empty (RFC 7519 §6).
    pub fn unsigned(mut self) -> Self {
        self.key = None;
        self.header("alg", "none")
    }

    /// One claim added after signing.
    pub fn tampered(mut self) -> Self {
        self.tampered = Some(Tampered::Payload);
        self
    }

    /// One bit of the signature changed.
    pub fn tampered_signature(mut self) -> Self {
        self.tampered = Some(Tampered::Signature);
        self
    }

    /// Each part padded with `=`, against RFC 7515 §2, as AWS load balancers do.
    pub fn padded(mut self) -> Self {
        self.padded = true;
        self
    }

    /// The token, in its compact form (RFC 7515 §7.1).
    pub fn build(self) -> String {
        let part = |bytes: &[u8]| {
            if self.padded { URL_SAFE.encode(bytes) } else { URL_SAFE_NO_PAD.encode(bytes) }
        };
        let payload =
            |claims: &Map<String, Value>| Value::Object(claims.clone()).to_string().into_bytes();
        let header = part(Value::Object(self.header).to_string().as_bytes());
        let signed = self.payload.unwrap_or_else(|| payload(&self.claims));
        let signing_input = format!("{header}.{}", part(&signed));
        let mut signature =
            self.key.map(|named| named.key.sign(signing_input.as_bytes())).unwrap_or_default();
        match self.tampered {
            None => {}
            Some(Tampered::Payload) => {
                let mut claims = self.claims;
                claims.insert("tampered".to_owned(), Value::Bool(true));
                return format!("{header}.{}.{}", part(&payload(&claims)), part(&signature));
            }
            Some(Tampered::Signature) => {
                if let Some(byte) = signature.first_mut() {
                    *byte ^= 1;
                }
            }
        }
        format!("{signing_input}.{}", part(&signature))
    }

    pub(super) fn iss(&self) -> &str {
        self.claims.get("iss").and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// For [`audience`](Self::audience), and [`AUDIENCE`] until then.
    pub(super) fn audience_in(
        mut self,
        claim: &'static str,
        other: Option<String>,
        first: &str,
    ) -> Self {
        self.audience_claim = (claim, other);
        self.audience(first)
    }

    pub(super) fn scope_in(mut self, claim: &'static str, is_list: bool) -> Self {
        self.scope_claim = (claim, is_list);
        self
    }

    fn set_key(&mut self, key: Option<Arc<NamedKey>>) {
        if let Some(named) = &key {
            self.header.insert("alg".to_owned(), named.key.algorithm().name().into());
            self.header.insert("kid".to_owned(), named.kid.clone().into());
        }
        self.key = key;
    }
}

impl std::fmt::Debug for TokenBuilder {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("TokenBuilder")
            .field("header", &self.header)
            .field("claims", &self.claims)
            .finish_non_exhaustive()
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}
