//! Which of several issuers is asked about an opaque token (RFC 7662), and where.

use std::sync::Arc;

use super::Issuer;
use super::active::ActiveIssuer;
use crate::clock::Clock;
use crate::error::ConfigError;
use crate::http_client::{HttpClients, Purpose};
use crate::introspection::client::{Access, IntrospectionClient};
use crate::introspection::endpoint::{Discovery, EndpointLocation};
use crate::keys::remote::AddressPolicy;
use crate::keys::remote::fetch::check_address;
use crate::keys::url::secure_url;
use crate::telemetry::IssuerName;
use crate::token::jws::has_jwt_form;

/// The configured issuers that are asked about opaque tokens.
pub(super) struct IntrospectingIssuers {
    by_prefix: Vec<(String, Arc<ActiveIssuer>)>,
    /// The issuer of opaque tokens without one of the prefixes.
    other: Option<Arc<ActiveIssuer>>,
}

impl IntrospectingIssuers {
    /// Returns an error if it is not clear which issuer a token belongs to.
    pub(super) fn new(issuers: Vec<Arc<ActiveIssuer>>) -> Result<Self, ConfigError> {
        let mut introspecting = Self { by_prefix: Vec::new(), other: None };
        for issuer in issuers {
            let Some(introspection) =
                issuer.config.introspection.as_ref().filter(|introspection| introspection.opaque)
            else {
                continue;
            };
            for prefix in &introspection.prefixes {
                let overlaps = |(other, _): &&(String, Arc<ActiveIssuer>)| {
                    other.starts_with(prefix.as_str()) || prefix.starts_with(other.as_str())
                };
                if let Some((other, of)) = introspecting.by_prefix.iter().find(overlaps) {
                    return Err(ConfigError::new(format!(
                        "prefixes {prefix:?} of {:?} and {other:?} of {:?}: expected none that is the beginning of the other",
                        issuer.config.iss, of.config.iss
                    )));
                }
                introspecting.by_prefix.push((prefix.clone(), Arc::clone(&issuer)));
            }
            if introspection.prefixes.is_empty()
                && let Some(other) = introspecting.other.replace(Arc::clone(&issuer))
            {
                return Err(ConfigError::new(format!(
                    "introspection of {:?} and {:?}: expected `Introspection::prefix` for all issuers but one",
                    other.config.iss, issuer.config.iss
                )));
            }
        }
        Ok(introspecting)
    }

    /// Returns an error if opaque tokens begin as the API keys with this prefix do.
    pub(super) fn check_api_keys(&self, prefix: &str) -> Result<(), ConfigError> {
        let begins_as_key = |(opaque, _): &&(String, Arc<ActiveIssuer>)| {
            opaque.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('_'))
        };
        match self.by_prefix.iter().find(begins_as_key) {
            Some((opaque, of)) => Err(ConfigError::new(format!(
                "prefix of API keys {prefix:?}: expected none with which the opaque tokens {opaque:?} of {:?} begin",
                of.config.iss
            ))),
            None => Ok(()),
        }
    }

    /// The issuer to ask about this token. `None` if no issuer is to be asked, or if it has the
    /// form of a JWT.
    #[inline]
    pub(super) fn find(&self, token: &str) -> Option<&Arc<ActiveIssuer>> {
        if self.by_prefix.is_empty() && self.other.is_none() {
            return None;
        }
        let with_prefix = self.by_prefix.iter().find(|(prefix, _)| token.starts_with(prefix));
        let issuer = with_prefix.map(|(_, issuer)| issuer).or(self.other.as_ref());
        issuer.filter(|_| !has_jwt_form(token))
    }
}

/// The client for the endpoint of this issuer. Returns `None` if it is not asked about tokens.
pub(super) fn client_of(
    issuer: &Issuer,
    name: &IssuerName,
    addresses: AddressPolicy,
    clients: &HttpClients,
    clock: &Clock,
) -> Result<Option<IntrospectionClient>, ConfigError> {
    let Some(introspection) = issuer.introspection.clone() else { return Ok(None) };
    let (plain_http, policy) = (issuer.plain_http, issuer.key_policy.clone());
    let purpose = if name.is_configured() {
        Purpose::Introspection
    } else {
        Purpose::IntrospectionOfResolved
    };
    let http = clients.get(issuer.client.as_ref(), addresses, purpose)?;
    let endpoint = match &introspection.url {
        Some(url) => {
            let url = secure_url("introspection endpoint", url, plain_http)?;
            check_address(&url, addresses).map_err(|error| ConfigError::new(error.to_string()))?;
            EndpointLocation::at(url)
        }
        None => EndpointLocation::discovered(Discovery {
            iss: Arc::clone(&name.iss),
            at: issuer.metadata_url()?,
            same_origin: !name.is_configured(),
            plain_http,
            policy: policy.clone(),
            http: http.clone(),
            addresses,
            auth: introspection.auth.clone(),
            clock: clock.clone(),
        }),
    };
    let access = Access { endpoint, http, policy };
    Ok(Some(IntrospectionClient::new(introspection, name.clone(), access, clock.clone())))
}
