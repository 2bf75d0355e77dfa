use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};

use super::dpop_client::DpopClient;
use super::issuer::{AUDIENCE, NamedKey, TestIssuer};
use crate::crypto;

/// A builder for a token, from [`TestIssuer::token`]. The token is valid unless a method makes it
/// invalid.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use portcullis::testing::TestIssuer;
///
/// let issuer = TestIssuer::start()?;
/// let other = TestIssuer::start()?;
///
/// let good = issuer
///     .token()
///     .subject("alice")
///     .scope("read:messages")
///     .claim("org_id", "org_1")
///     .build();
/// let forged = issuer.token().signed_by(&other).build();
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
    /// The issuer's time in seconds since 1970, whatever `iat` is.
    now: u64,
    /// The claim for the audience, and another value that it contains.
    audience_claim: (&'static str, Option<String>),
    /// The claim for scope, and whether it is an array.
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

    /// Sets `sub`.
    pub fn subject(self, subject: &str) -> Self {
        self.claim("sub", subject)
    }

    /// Sets `scope`: scope tokens separated by spaces. After [`like_okta`](Self::like_okta) and
    /// similar methods, it writes the claim that this provider uses.
    pub fn scope(self, scope: &str) -> Self {
        match self.scope_claim {
            (claim, true) => {
                self.claim(claim, scope.split(' ').map(Value::from).collect::<Vec<_>>())
            }
            (claim, false) => self.claim(claim, scope),
        }
    }

    /// Sets `aud`, instead of [`AUDIENCE`]. After [`like_cognito`](Self::like_cognito) and similar
    /// methods, it writes the claim that this provider uses.
    pub fn audience(self, audience: &str) -> Self {
        match self.audience_claim.clone() {
            (claim, Some(other)) => self.claim(claim, json!([audience, other])),
            (claim, None) => self.claim(claim, audience),
        }
    }

    /// Sets `iss`, instead of the issuer's own.
    pub fn issued_by(self, iss: &str) -> Self {
        self.claim("iss", iss)
    }

    /// Makes the token expire an hour ago. `iat`, `nbf` and `auth_time` are moved to an hour before
    /// that, if they are later.
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

    /// Makes the token valid only in an hour (`nbf`).
    pub fn not_yet_valid(self) -> Self {
        let from = self.now + 3600;
        self.claim("nbf", from)
    }

    /// Sets how long the token is valid from now on, in whole seconds. The default is an hour.
    pub fn valid_for(self, lifetime: Duration) -> Self {
        let until = self.now.saturating_add(lifetime.as_secs());
        self.claim("exp", until)
    }

    /// Sets any claim, to any JSON value.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Binds the token to the key of a client (RFC 9449 §6.1).
    pub fn bound_to(self, client: &DpopClient) -> Self {
        self.confirmed_by("jkt", client.thumbprint())
    }

    /// Binds the token to the certificate of a client, in DER (RFC 8705 §3.1). It may be bound to a
    /// key as well.
    pub fn bound_to_certificate(self, der: &[u8]) -> Self {
        let hash = URL_SAFE_NO_PAD.encode(crypto::sha256(der));
        self.confirmed_by("x5t#S256", &hash)
    }

    fn confirmed_by(mut self, member: &str, hash: &str) -> Self {
        let confirmation = self.claims.entry("cnf").or_insert_with(|| json!({}));
        if let Some(members) = confirmation.as_object_mut() {
            members.insert(member.to_owned(), hash.into());
        }
        self
    }

    /// Removes a claim.
    pub fn without_claim(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// Sets the bytes of the payload, instead of all claims: for what no JSON library would write.
    pub fn payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = Some(payload.into());
        self
    }

    /// Sets any member of the JOSE header. `alg` and `kid` may be false: the signature is still
    /// made with the key.
    pub fn header(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// Removes a member of the header.
    pub fn without_header(mut self, name: &str) -> Self {
        self.header.remove(name);
        self
    }

    /// Signs with the newest key of another issuer, under the `kid` of this issuer: a forgery that
    /// only the signature reveals.
    pub fn signed_by(mut self, other: &TestIssuer) -> Self {
        let kid = self.header.get("kid").cloned();
        self.set_key(other.shared.lock().keys.last().cloned());
        match kid {
            Some(kid) => self.header("kid", kid),
            None => self.without_header("kid"),
        }
    }

    /// Leaves the token unsigned: `alg` is `none`, and the signature is empty (RFC 7519 §6).
    pub fn unsigned(mut self) -> Self {
        self.key = None;
        self.header("alg", "none")
    }

    /// Adds a claim after signing.
    pub fn tampered(mut self) -> Self {
        self.tampered = Some(Tampered::Payload);
        self
    }

    /// Changes one bit of the signature.
    pub fn tampered_signature(mut self) -> Self {
        self.tampered = Some(Tampered::Signature);
        self
    }

    /// Pads each part with `=`, against RFC 7515 §2, as AWS load balancers do.
    pub fn padded(mut self) -> Self {
        self.padded = true;
        self
    }

    /// Returns the token in its compact serialization (RFC 7515 §7.1).
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

    pub(super) fn into_claims(self) -> Map<String, Value> {
        self.claims
    }

    pub(super) fn iss(&self) -> &str {
        self.claims.get("iss").and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// Sets the claim that [`audience`](Self::audience) writes, and its value until then.
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
