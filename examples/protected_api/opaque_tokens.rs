//! Opaque access tokens of the demo's issuer: a random name for a JWT that stays at the issuer. An
//! API asks the issuer about them (RFC 7662).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

/// What opaque tokens begin with.
pub(crate) const PREFIX: &str = "demo_at_";
/// The demo's API, as a client that may introspect tokens: identifier and secret.
pub(crate) const API_CLIENT: (&str, &str) = ("demo-api", "demo-api-secret");

const MAX_KEPT: usize = 1_000;

#[derive(Default)]
pub(crate) struct OpaqueTokens(Mutex<HashMap<String, (SystemTime, String)>>);

impl OpaqueTokens {
    /// Issues an opaque token that stands for this JWT.
    pub(crate) fn issue(&self, jwt: String, now: SystemTime) -> String {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= MAX_KEPT {
            let oldest = tokens.iter().min_by_key(|(_, (issued, _))| *issued);
            let oldest = oldest.map(|(name, _)| name.clone()).unwrap_or_default();
            tokens.remove(&oldest);
        }
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
        tokens.insert(token.clone(), (now, jwt));
        token
    }

    /// The JWT that a token stands for: of a JWT, itself.
    pub(crate) fn resolve(&self, token: &str) -> String {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.get(token).map_or_else(|| token.to_owned(), |(_, jwt)| jwt.clone())
    }

    pub(crate) fn revoke(&self, token: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(token);
    }

    /// Revokes the tokens of the sessions (`sid`) for which `is_over` returns `true`.
    pub(crate) fn revoke_sessions(&self, is_over: impl Fn(&str) -> bool) {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, (_, jwt)| !session_in(jwt).is_some_and(|sid| is_over(&sid)));
    }
}

/// The `sid` of a JWT of this issuer.
fn session_in(jwt: &str) -> Option<String> {
    let payload = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    claims["sid"].as_str().map(str::to_owned)
}

/// Whether the request comes from the demo's API: `client_secret_basic` or `client_secret_post`
/// (RFC 6749 §2.3.1).
pub(crate) fn is_of_api(headers: &HeaderMap, id: Option<&str>, secret: Option<&str>) -> bool {
    let (own_id, own_secret) = API_CLIENT;
    let basic = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match basic {
        Some(value) => value
            .strip_prefix("Basic ")
            .and_then(|value| STANDARD.decode(value).ok())
            .is_some_and(|pair| pair == format!("{own_id}:{own_secret}").as_bytes()),
        None => id == Some(own_id) && secret == Some(own_secret),
    }
}
