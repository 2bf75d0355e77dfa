//! How this API authenticates at the introspection endpoint: RFC 6749 §2.3, RFC 7523 §2.2, RFC 8705
//! §2, RFC 6750.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use url::form_urlencoded::byte_serialize;

use super::assertion::AssertionSigner;
use crate::algorithm::Algorithm;
use crate::clock::Now;
use crate::error::{BoxError, ConfigError, FetchError};

/// The credentials of this API at the introspection endpoint (RFC 7662 §2.1).
///
/// The methods are named as in the registry of RFC 7591 §4.2 (`token_endpoint_auth_method`).
/// `Debug` shows no secret.
#[derive(Clone)]
pub struct ClientAuth(Method);

#[derive(Clone)]
enum Method {
    Secret { id: String, secret: String, place: SecretPlace },
    PrivateKeyJwt(Arc<AssertionSigner>),
    Bearer(Arc<BearerFn>),
    Certificate { id: String },
}

/// Where the secret is sent.
#[derive(Clone, Copy, PartialEq)]
enum SecretPlace {
    /// In the header, unless the metadata list only the other.
    Any,
    Header,
    Body,
}

type BearerFn =
    dyn Fn() -> Pin<Box<dyn Future<Output = Result<String, BoxError>> + Send>> + Send + Sync;

const BASIC: &str = "client_secret_basic";
const POST: &str = "client_secret_post";
const PRIVATE_KEY_JWT: &str = "private_key_jwt";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const CERTIFICATES: [&str; 2] = ["tls_client_auth", "self_signed_tls_client_auth"];

impl ClientAuth {
    /// A secret, sent as `client_secret_basic`. If the issuer's metadata list only
    /// `client_secret_post`, it is sent that way.
    pub fn client_secret(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self::secret(id, secret, SecretPlace::Any)
    }

    /// `client_secret_basic` (RFC 6749 §2.3.1): identifier and secret in the `Authorization`
    /// header, each form-encoded first.
    pub fn client_secret_basic(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self::secret(id, secret, SecretPlace::Header)
    }

    /// `client_secret_post` (RFC 6749 §2.3.1): identifier and secret in the body.
    pub fn client_secret_post(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self::secret(id, secret, SecretPlace::Body)
    }

    fn secret(id: impl Into<String>, secret: impl Into<String>, place: SecretPlace) -> Self {
        Self(Method::Secret { id: id.into(), secret: secret.into(), place })
    }

    /// `private_key_jwt` (RFC 7523 §2.2, OpenID Connect Core §9): an assertion signed with this
    /// private key. It names the issuer as its only audience, expires after 60 seconds, and is used
    /// once.
    ///
    /// `pem` is one private key: PKCS #8 (`BEGIN PRIVATE KEY`) for RSA, EC and Ed25519, or PKCS #1
    /// (`BEGIN RSA PRIVATE KEY`). `key_id` becomes the header's `kid`, for issuers that select the
    /// key by it.
    ///
    /// # Errors
    ///
    /// Returns an error if `pem` is not a private key that can sign with `algorithm`. ES512,
    /// ML-DSA and HMAC are not supported.
    pub fn private_key_jwt(
        id: impl Into<String>,
        algorithm: Algorithm,
        pem: impl AsRef<[u8]>,
        key_id: Option<&str>,
    ) -> Result<Self, ConfigError> {
        let signer = AssertionSigner::new(id.into(), algorithm, pem.as_ref(), key_id)?;
        Ok(Self(Method::PrivateKeyJwt(Arc::new(signer))))
    }

    /// An access token (RFC 6750 §2.1), which the closure returns for each question. It should
    /// cache the token. Its time counts toward the time limit of the question.
    ///
    /// ```
    /// use portcullis::{ClientAuth, Introspection};
    ///
    /// async fn token_of_this_service() -> Result<String, std::io::Error> {
    ///     std::env::var("SERVICE_TOKEN").map_err(std::io::Error::other)
    /// }
    ///
    /// let introspection = Introspection::new(ClientAuth::bearer_token(token_of_this_service));
    /// ```
    pub fn bearer_token<F, E>(token: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let token = move || {
            let token = token();
            Box::pin(async move { token.await.map_err(Into::into) }) as Pin<Box<_>>
        };
        Self(Method::Bearer(Arc::new(token)))
    }

    /// `tls_client_auth` or `self_signed_tls_client_auth` (RFC 8705 §2): the certificate of the
    /// HTTP client, which is set with [`Issuer::client`](crate::Issuer::client). The endpoint is
    /// the one in the metadata's `mtls_endpoint_aliases`, if there is one (RFC 8705 §5).
    pub fn tls_client_certificate(id: impl Into<String>) -> Self {
        Self(Method::Certificate { id: id.into() })
    }

    /// The client identifier, which signed answers have as their audience.
    pub(crate) fn client_id(&self) -> Option<&str> {
        match &self.0 {
            Method::Secret { id, .. } | Method::Certificate { id } => Some(id),
            Method::PrivateKeyJwt(signer) => Some(signer.client_id()),
            Method::Bearer(_) => None,
        }
    }

    pub(crate) fn is_certificate(&self) -> bool {
        matches!(self.0, Method::Certificate { .. })
    }

    /// What is wrong with the configuration.
    pub(crate) fn mistake(&self) -> Option<&'static str> {
        match &self.0 {
            Method::Secret { secret, .. } if secret.is_empty() => {
                Some("expected a client secret that is not empty")
            }
            _ if self.client_id().is_some_and(str::is_empty) => {
                Some("expected a client identifier that is not empty")
            }
            _ => None,
        }
    }

    pub(crate) fn is_unchanged_from(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (
                Method::Secret { id, secret, place },
                Method::Secret { id: other_id, secret: other_secret, place: other_place },
            ) => id == other_id && secret == other_secret && place == other_place,
            (Method::PrivateKeyJwt(own), Method::PrivateKeyJwt(other)) => own.is_same_as(other),
            (Method::Bearer(_), Method::Bearer(_)) => true,
            (Method::Certificate { id }, Method::Certificate { id: other }) => id == other,
            _ => false,
        }
    }

    /// The methods of which the server has to support one, by their registered names. An access
    /// token has no registered name, so it is not checked.
    pub(crate) fn methods(&self) -> &'static [&'static str] {
        match &self.0 {
            Method::Secret { place: SecretPlace::Any, .. } => &[BASIC, POST],
            Method::Secret { place: SecretPlace::Header, .. } => &[BASIC],
            Method::Secret { place: SecretPlace::Body, .. } => &[POST],
            Method::PrivateKeyJwt(_) => &[PRIVATE_KEY_JWT],
            Method::Bearer(_) => &[],
            Method::Certificate { .. } => &CERTIFICATES,
        }
    }

    /// The credentials of one question.
    ///
    /// `supported`: the methods that the metadata list. `iss`: the issuer, the audience of an
    /// assertion.
    pub(super) async fn credentials(
        &self,
        supported: &[String],
        iss: &str,
        now: Now,
    ) -> Result<Credentials, FetchError> {
        let (mut form, mut authorization) = (Vec::new(), None);
        match &self.0 {
            Method::Secret { id, secret, place } => {
                let lists = |method: &str| supported.iter().any(|one| one == method);
                let in_body = match place {
                    SecretPlace::Any => lists(POST) && !lists(BASIC),
                    SecretPlace::Header => false,
                    SecretPlace::Body => true,
                };
                if in_body {
                    form.push(("client_id", id.clone()));
                    form.push(("client_secret", secret.clone()));
                } else {
                    let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
                    let pair = format!("{}:{}", encoded(id), encoded(secret));
                    authorization = Some(header(&format!("Basic {}", STANDARD.encode(pair)))?);
                }
            }
            Method::PrivateKeyJwt(signer) => {
                form.push(("client_id", signer.client_id().to_owned()));
                form.push(("client_assertion_type", ASSERTION_TYPE.to_owned()));
                form.push(("client_assertion", signer.assertion(iss, now)?));
            }
            Method::Bearer(token) => {
                let token = token().await.map_err(|error| FetchError::Credentials(error.into()))?;
                authorization = Some(header(&format!("Bearer {token}"))?);
            }
            Method::Certificate { id } => form.push(("client_id", id.clone())),
        }
        Ok(Credentials { form, authorization })
    }
}

/// The credentials of one question.
pub(super) struct Credentials {
    /// Parameters of the form.
    pub(super) form: Vec<(&'static str, String)>,
    /// The `Authorization` header.
    pub(super) authorization: Option<HeaderValue>,
}

/// A header that is neither logged nor stored in a table of the connection (RFC 7541 §7.1.3).
fn header(value: &str) -> Result<HeaderValue, FetchError> {
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| FetchError::Credentials(Arc::from(Box::from("not a header value"))))?;
    value.set_sensitive(true);
    Ok(value)
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ClientAuth")
            .field("methods", &self.methods())
            .field("client_id", &self.client_id())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::KeyPair;

    use super::*;

    fn rsa_key() -> String {
        let keys = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
        let der = STANDARD.encode(keys.serialized_der());
        format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n")
    }

    /// An issuer whose credentials are unchanged keeps its keys and answers when it is looked up
    /// again.
    #[test]
    fn credentials_are_unchanged_if_all_parts_are() {
        struct Case {
            name: &'static str,
            one: ClientAuth,
            other: ClientAuth,
            is_unchanged: bool,
        }

        let secret = |id: &str, secret: &str| ClientAuth::client_secret(id, secret);
        let bearer =
            || ClientAuth::bearer_token(|| async { Ok::<_, std::io::Error>(String::new()) });
        let certificate = |id: &str| ClientAuth::tls_client_certificate(id);
        let (key, other_key) = (rsa_key(), rsa_key());
        let jwt = |id: &str, algorithm, key: &str, key_id| {
            ClientAuth::private_key_jwt(id, algorithm, key, key_id).unwrap()
        };
        let own_jwt = || jwt("a", Algorithm::RS256, &key, Some("1"));
        let case = |name, one, other, is_unchanged| Case { name, one, other, is_unchanged };
        for Case { name, one, other, is_unchanged } in [
            case("a secret", secret("a", "s"), secret("a", "s"), true),
            case("a secret: client", secret("a", "s"), secret("b", "s"), false),
            case("a secret: secret", secret("a", "s"), secret("a", "t"), false),
            case(
                "a secret: where it is sent",
                ClientAuth::client_secret_basic("a", "s"),
                ClientAuth::client_secret_post("a", "s"),
                false,
            ),
            case("a certificate", certificate("a"), certificate("a"), true),
            case("a certificate: client", certificate("a"), certificate("b"), false),
            case("an access token", bearer(), bearer(), true),
            case("assertions", own_jwt(), own_jwt(), true),
            case(
                "assertions: client",
                own_jwt(),
                jwt("b", Algorithm::RS256, &key, Some("1")),
                false,
            ),
            case(
                "assertions: algorithm",
                own_jwt(),
                jwt("a", Algorithm::RS384, &key, Some("1")),
                false,
            ),
            case(
                "assertions: key",
                own_jwt(),
                jwt("a", Algorithm::RS256, &other_key, Some("1")),
                false,
            ),
            case("assertions: `kid`", own_jwt(), jwt("a", Algorithm::RS256, &key, None), false),
            case("another method", secret("a", "s"), certificate("a"), false),
        ] {
            assert_eq!(one.is_unchanged_from(&other), is_unchanged, "{name}");
            assert_eq!(other.is_unchanged_from(&one), is_unchanged, "{name}, the reverse");
        }
    }
}
