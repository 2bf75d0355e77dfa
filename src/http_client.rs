//! [`HttpClient`], which fetches metadata and keys, and the clients of one verifier.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use reqwest::Client;

use crate::crypto::Fips;
use crate::error::ConfigError;
use crate::introspection::client::{CONNECTIONS, CONNECTIONS_OF_RESOLVED};
use crate::keys::remote::AddressPolicy;
use crate::keys::remote::fetch::{Connections, default_client};

/// The HTTP client that fetches metadata and keys, created from a `reqwest::Client` of version
/// 0.13.
///
/// The type is opaque, so that supporting a later version of `reqwest` only adds a `From`
/// implementation and is not a breaking change.
///
/// ```
/// use portcullis::{Issuer, Verifier};
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let issuer = Issuer::new("https://acme.eu.auth0.com/", "https://api.example.com")?;
/// let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
/// let verifier = Verifier::builder(issuer).client(client).build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct HttpClient(pub(crate) reqwest::Client);

impl From<reqwest::Client> for HttpClient {
    fn from(client: reqwest::Client) -> Self {
        Self(client)
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("HttpClient(…)")
    }
}

/// What a client is for: how long its connections stay open depends on it.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Purpose {
    Keys,
    Introspection,
    /// The same, of an issuer that a lookup returned.
    IntrospectionOfResolved,
}

/// The clients of one verifier. Each is created when it is needed, and once: loading the root
/// certificates of the system takes tens of milliseconds.
pub(crate) struct HttpClients {
    /// The application's own client, for every purpose.
    own: Option<HttpClient>,
    fips: Fips,
    created: Mutex<Vec<(AddressPolicy, Purpose, Client)>>,
}

impl HttpClients {
    pub(crate) fn new(own: Option<HttpClient>, fips: Fips) -> Self {
        Self { own, fips, created: Mutex::default() }
    }

    /// `own`: the issuer's own client. It takes precedence.
    pub(crate) fn get(
        &self,
        own: Option<&HttpClient>,
        addresses: AddressPolicy,
        purpose: Purpose,
    ) -> Result<Client, ConfigError> {
        if let Some(own) = own.or(self.own.as_ref()) {
            return Ok(own.0.clone());
        }
        let mut created = self.created.lock().unwrap_or_else(PoisonError::into_inner);
        let is_this = |(policy, use_for, _): &&(AddressPolicy, Purpose, Client)| {
            (*policy, *use_for) == (addresses, purpose)
        };
        if let Some((_, _, client)) = created.iter().find(is_this) {
            return Ok(client.clone());
        }
        let connections = match purpose {
            Purpose::Keys => Connections::FOR_KEYS,
            Purpose::Introspection => CONNECTIONS,
            Purpose::IntrospectionOfResolved => CONNECTIONS_OF_RESOLVED,
        };
        self.fips.check_tls()?;
        let client = default_client(addresses, connections)?;
        created.push((addresses, purpose, client.clone()));
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that may connect to any address is not used where only public ones are allowed.
    #[test]
    fn each_policy_and_purpose_has_a_client_of_its_own() {
        let clients = HttpClients::new(None, Fips::NotRequired);
        let uses = [
            (AddressPolicy::Any, Purpose::Keys),
            (AddressPolicy::PublicOnly, Purpose::Keys),
            (AddressPolicy::Any, Purpose::Introspection),
            (AddressPolicy::PublicOnly, Purpose::IntrospectionOfResolved),
        ];
        for _ in 0..2 {
            for (addresses, purpose) in uses {
                clients.get(None, addresses, purpose).unwrap();
            }
        }
        let created = clients.created.lock().unwrap();
        let created: Vec<_> =
            created.iter().map(|(policy, use_for, _)| (*policy, *use_for)).collect();
        assert!(created == uses, "{} clients", created.len());
    }
}
