//! Tokens that are bound to a key of the client (DPoP, RFC 9449): the flags of the demo, and what
//! they configure.

use std::error::Error;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, ValueEnum};
use portcullis::{Dpop, Nonces};

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

    /// How proofs are verified, or `None` if bound tokens are rejected.
    ///
    /// # Errors
    ///
    /// Returns an error that names the flag with the wrong value.
    pub(crate) fn dpop(&self, api: &str) -> Result<Option<Dpop>, Box<dyn Error>> {
        if self.dpop == Mode::Off {
            return match self.dpop_nonce_secret {
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
        Ok(Some(dpop))
    }
}

fn nonces(secret: &str) -> Result<Nonces, Box<dyn Error>> {
    let secret = URL_SAFE_NO_PAD.decode(secret.trim_end_matches('='));
    // The cause would repeat a byte of the secret.
    let secret = secret.map_err(|_| "expected base64url (letters, digits, - and _)")?;
    Ok(Nonces::new([secret])?)
}
