//! Tokens that are bound to a key (DPoP, RFC 9449) or a certificate (RFC 8705) of the client: the
//! flags of the demo, and what they configure.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::ConnectInfo;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, ValueEnum};
use portcullis::{CertificateHeader, ClientCertificates, Dpop, Nonces, RedisStore};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};

#[derive(Args)]
pub(crate) struct SenderConstrained {
    /// Tokens that are bound to a key of the client (DPoP, RFC 9449)
    #[arg(long, env = "DPOP", value_enum, default_value_t = Mode::Accept)]
    pub(crate) dpop: Mode,
    /// How clients write the URL of this API: a DPoP proof names it [default: http://{listen}]
    #[arg(long, env = "PUBLIC_URL")]
    public_url: Option<String>,
    /// Secret of the nonces in DPoP proofs: at least 32 bytes in base64url. Each proof must then
    /// have a nonce of this API
    #[arg(long, env = "DPOP_NONCE_SECRET", hide_env_values = true)]
    dpop_nonce_secret: Option<String>,
    /// Redis or Valkey in which replicas of this demo share which DPoP proofs were used and which
    /// tokens are revoked, such as redis://127.0.0.1/
    #[arg(long, env = "REDIS_URL", hide_env_values = true)]
    redis_url: Option<String>,
    /// Header in which a proxy on this machine forwards the client's certificate: rfc9440, envoy,
    /// nginx:HEADER, aws_alb, traefik or azure. Tokens that are bound to it are then accepted
    #[arg(long, env = "CLIENT_CERTIFICATE")]
    client_certificate: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Bound tokens are rejected
    Off,
    /// Bound tokens need a proof of their key; others are bearer tokens
    Accept,
    /// Tokens that are not bound are rejected
    Require,
}

impl Mode {
    /// As the flag has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Accept => "accept",
            Self::Require => "require",
        }
    }
}

impl SenderConstrained {
    /// How clients write the URL of this API, which listens at the origin `api`.
    pub(crate) fn public_url<'a>(&'a self, api: &'a str) -> &'a str {
        self.public_url.as_deref().unwrap_or(api)
    }

    /// What replicas share, if they share anything.
    ///
    /// # Errors
    ///
    /// Returns an error if the flag is not the URL of a Redis.
    pub(crate) fn store(&self) -> Result<Option<RedisStore<ConnectionManager>>, Box<dyn Error>> {
        let store = self.redis_url.as_deref().map(redis).transpose();
        store.map_err(|error| format!("--redis-url: {error}").into())
    }

    /// How proofs are verified, or `None` if bound tokens are rejected. With `store`, replicas
    /// share which proofs were used.
    ///
    /// # Errors
    ///
    /// Returns an error that names the flag with the wrong value.
    pub(crate) fn dpop(
        &self,
        api: &str,
        store: Option<&RedisStore<ConnectionManager>>,
    ) -> Result<Option<Dpop>, Box<dyn Error>> {
        if self.dpop == Mode::Off {
            return match &self.dpop_nonce_secret {
                Some(_) => Err("--dpop-nonce-secret: expected without --dpop off".into()),
                None => Ok(None),
            };
        }
        let dpop = Dpop::new(self.public_url(api));
        let mut dpop = dpop.map_err(|error| format!("--public-url: {error}"))?;
        if self.dpop == Mode::Require {
            dpop = dpop.required();
        }
        if let Some(secret) = &self.dpop_nonce_secret {
            dpop = dpop
                .nonces(nonces(secret).map_err(|error| format!("--dpop-nonce-secret: {error}"))?);
        }
        if let Some(store) = store {
            dpop = dpop.share_replays(store.clone());
        }
        Ok(Some(dpop))
    }

    /// Where the certificate of a client is found, if tokens may be bound to one.
    ///
    /// # Errors
    ///
    /// Returns an error if the flag names no known header.
    pub(crate) fn certificates(&self) -> Result<Option<ClientCertificates>, Box<dyn Error>> {
        let Some(name) = &self.client_certificate else { return Ok(None) };
        let header = match (&**name, name.split_once(':')) {
            ("rfc9440", _) => CertificateHeader::rfc9440(),
            ("envoy", _) => CertificateHeader::envoy(),
            ("aws_alb", _) => CertificateHeader::aws_alb(),
            ("traefik", _) => CertificateHeader::traefik(),
            ("azure", _) => CertificateHeader::azure(),
            (_, Some(("nginx", header))) => CertificateHeader::nginx(header)
                .map_err(|error| format!("--client-certificate: {error}"))?,
            _ => {
                return Err(format!(
                    "--client-certificate: expected rfc9440, envoy, nginx:HEADER, aws_alb, traefik or azure, found {name}"
                )
                .into());
            }
        };
        // The proxy runs on this machine, and any other peer could write the header itself.
        Ok(Some(ClientCertificates::forwarded(header, |request| {
            let peer = request.extensions.get::<ConnectInfo<SocketAddr>>();
            peer.is_some_and(|ConnectInfo(address)| address.ip().is_loopback())
        })))
    }
}

/// Connects when it is needed, so that the demo starts while Redis is down.
fn redis(url: &str) -> Result<RedisStore<ConnectionManager>, Box<dyn Error>> {
    let client = redis::Client::open(url)?;
    // While Redis is down, it is tried twice a second.
    let config = ConnectionManagerConfig::new()
        .set_max_delay(Duration::from_millis(500))
        .set_number_of_retries(usize::MAX);
    let connection = client.get_connection_manager_lazy(config)?;
    Ok(RedisStore::new(connection, "portcullis-demo")?)
}

fn nonces(secret: &str) -> Result<Nonces, Box<dyn Error>> {
    let secret = URL_SAFE_NO_PAD.decode(secret.trim_end_matches('='));
    // The cause would repeat a byte of the secret.
    let secret = secret.map_err(|_| "expected base64url (letters, digits, - and _)")?;
    Ok(Nonces::new([secret])?)
}
