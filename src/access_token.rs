//! What a handler gets.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;

use crate::error::{ClaimsError, Error};
use crate::issuer::Issuer;
use crate::keys::jwk::SignedPayload;
use crate::token::claims::Claims as Registered;
use crate::token::scope::Scope;

/// A *verified* access token (RFC 9068): signature, issuer, audience and time were checked by a
/// [`Verifier`](crate::Verifier), and nothing else makes one.
///
/// [`ProtectLayer`](crate::ProtectLayer) puts it into the request's extensions; with feature `axum` it is an extractor.
/// Cheap to clone. Its `Debug` shows neither the token nor claims.
///
/// ```
/// use portcullis::AccessToken;
///
/// fn greet(request: &http::Request<()>) -> String {
///     match request.extensions().get::<AccessToken>() {
///         Some(token) => format!("Hello {}", token.subject().unwrap_or("machine")),
///         None => "Hello stranger".to_owned(),
///     }
/// }
/// ```
#[derive(Clone)]
pub struct AccessToken(Arc<Inner>);

struct Inner {
    token: Box<str>,
    payload: Box<str>,
    issuer: Arc<str>,
    subject: Option<String>,
    audience: Vec<String>,
    client_id: Option<String>,
    scope: Scope,
    expires_at: Duration,
    verifier: u64,
}

impl AccessToken {
    pub(crate) fn new(
        token: &str,
        payload: &SignedPayload<'_>,
        claims: Registered<'_>,
        issuer: &Issuer,
        verifier: u64,
    ) -> Self {
        Self(Arc::new(Inner {
            token: token.into(),
            // The claims were read from these bytes as UTF-8.
            payload: String::from_utf8_lossy(payload.bytes()).into(),
            issuer: match issuer.names().find(|name| ***name == *claims.issuer) {
                Some(name) => Arc::clone(name),
                // One tenant of a template.
                None => Arc::from(&*claims.issuer),
            },
            subject: claims.subject.map(Into::into),
            audience: claims.audience.into_iter().map(Into::into).collect(),
            client_id: claims.client_id.map(Into::into),
            scope: claims.scope,
            expires_at: claims.expires_at,
            verifier,
        }))
    }

    /// `sub` (RFC 7519 §4.1.2): whom the token speaks for, unique at this issuer. Some machines' tokens have none.
    pub fn subject(&self) -> Option<&str> {
        self.0.subject.as_deref()
    }

    /// `iss` (RFC 7519 §4.1.1): one of the issuers trusted by configuration, in the spelling of the token.
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// `aud` (RFC 7519 §4.1.3): this API, and maybe others.
    pub fn audience(&self) -> impl Iterator<Item = &str> {
        self.0.audience.iter().map(String::as_str)
    }

    /// The application that the token was issued to: `client_id` (RFC 9068 §2.2), else `azp`, else `cid`.
    pub fn client_id(&self) -> Option<&str> {
        self.0.client_id.as_deref()
    }

    /// What the token grants: `scope` (RFC 8693 §4.2), else `scp`; a string or an array.
    pub fn scope(&self) -> &Scope {
        &self.0.scope
    }

    /// Asks for scope where there is no [`ProtectLayer`](crate::ProtectLayer) to do it.
    ///
    /// # Errors
    ///
    /// [`Error::InsufficientScope`] unless the token grants every token of `required`.
    pub fn require_scope(&self, required: &Scope) -> Result<(), Error> {
        match self.scope().contains_all(required) {
            true => Ok(()),
            false => Err(Error::InsufficientScope { required: required.clone(), granted: self.scope().clone() }),
        }
    }

    /// `exp` (RFC 7519 §4.1.4).
    pub fn expires_at(&self) -> SystemTime {
        UNIX_EPOCH + self.0.expires_at
    }

    /// All claims, as your own type. They are parsed anew at each call; the `Arc` is so that keeping them can come later
    /// without changing your code.
    ///
    /// ```
    /// # fn example(token: portcullis::AccessToken) -> Result<(), portcullis::ClaimsError> {
    /// #[derive(serde::Deserialize)]
    /// struct Organization {
    ///     org_id: String,
    /// }
    ///
    /// let organization = token.claims::<Organization>()?;
    /// println!("acting for {}", organization.org_id);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ClaimsError`] when the claims do not fit the type. Its text has no claim in it.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<Arc<T>, ClaimsError> {
        match serde_json::from_str(&self.0.payload) {
            Ok(claims) => Ok(Arc::new(claims)),
            Err(error) => Err(ClaimsError::new::<T>(&error)),
        }
    }

    /// All claims: the JSON object, exactly as signed.
    pub fn raw_claims(&self) -> &str {
        &self.0.payload
    }

    /// The token itself, for those who must forward it. Whoever reads it can use it: keep it out of logs and answers.
    pub fn expose_token(&self) -> &str {
        &self.0.token
    }

    pub(crate) fn verifier(&self) -> u64 {
        self.0.verifier
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AccessToken").field("issuer", &self.0.issuer).finish_non_exhaustive()
    }
}
