//! Where issuers tell the demo's API that tokens are revoked: the flags, and what they configure.

use std::error::Error;

use axum::Router;
use axum::http::HeaderValue;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use portcullis::{BackChannelLogout, RedisStore, Revocations, SecurityEvents, Verifier};
use redis::aio::ConnectionManager;

use crate::embedded_issuer::SINGLE_PAGE_APP;
use crate::embedded_issuer::sign_out::{Receiver, Receivers};

const LOGOUT: &str = "/backchannel-logout";
const EVENTS: &str = "/events";

#[derive(Args)]
pub(crate) struct Revocation {
    /// Client identifier of the logout tokens (`aud`) that POST /backchannel-logout accepts (OpenID
    /// Connect Back-Channel Logout) [default: off; with the embedded issuer, that of the page]
    #[arg(long, env = "LOGOUT_AUDIENCE", value_parser = NonEmptyStringValueParser::new())]
    logout_audience: Option<String>,
    /// This API's identifier in security events (`aud`), which POST /events accepts (RFC 8935)
    /// [default: off; with the embedded issuer, the URL of /events]
    #[arg(long, env = "EVENTS_AUDIENCE", value_parser = NonEmptyStringValueParser::new())]
    events_audience: Option<String>,
    /// The exact value of the header Authorization that POST /events requires
    #[arg(
        long,
        env = "EVENTS_AUTHORIZATION",
        hide_env_values = true,
        value_parser = NonEmptyStringValueParser::new()
    )]
    events_authorization: Option<String>,
    #[arg(skip)]
    asked_for_by: AskedForBy,
}

/// Who turned the endpoints on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum AskedForBy {
    #[default]
    Flags,
    /// The embedded issuer, for its page. Its tokens must not depend on a Redis that was configured
    /// for DPoP proofs.
    EmbeddedIssuer,
}

impl Revocation {
    /// Turns both endpoints on, for the embedded issuer, and returns what that issuer must know of
    /// them. `api`: the origin of this API.
    pub(crate) fn receive_from_embedded(&mut self, api: &str) -> Receivers {
        if self.logout_audience.is_none() && self.events_audience.is_none() {
            self.asked_for_by = AskedForBy::EmbeddedIssuer;
        }
        let (logout, events) = (format!("{api}{LOGOUT}"), format!("{api}{EVENTS}"));
        let client = self.logout_audience.get_or_insert_with(|| SINGLE_PAGE_APP.to_owned());
        let receiver = self.events_audience.get_or_insert_with(|| events.clone());
        Receivers {
            logout: Receiver { url: logout, audience: client.clone() },
            events: Receiver { url: events, audience: receiver.clone() },
            authorization: self.events_authorization.clone(),
        }
    }

    /// What is revoked, or `None` if no endpoint is on. With `store`, replicas share it if a flag
    /// turned an endpoint on.
    ///
    /// # Errors
    ///
    /// Returns an error that names the flag with the wrong value.
    pub(crate) fn revocations(
        &self,
        store: Option<&RedisStore<ConnectionManager>>,
    ) -> Result<Option<Revocations>, Box<dyn Error>> {
        if let Some(value) = &self.events_authorization {
            if self.events_audience.is_none() {
                return Err("--events-authorization: expected with --events-audience".into());
            }
            // The cause would not tell more, and must not repeat the secret.
            HeaderValue::from_str(value)
                .map_err(|_| "--events-authorization: expected the value of a header")?;
        }
        if self.logout_audience.is_none() && self.events_audience.is_none() {
            return Ok(None);
        }
        let store = store.filter(|_| self.asked_for_by == AskedForBy::Flags);
        Ok(Some(match store {
            Some(store) => Revocations::shared(store.clone()),
            None => Revocations::in_memory(),
        }))
    }

    /// The endpoints that are on.
    pub(crate) fn router(&self, verifier: &Verifier, revocations: &Revocations) -> Router {
        let mut router = Router::new();
        if let Some(client) = &self.logout_audience {
            let logout = BackChannelLogout::new(verifier, revocations, [client]);
            router = router.route_service(LOGOUT, logout);
        }
        if let Some(audience) = &self.events_audience {
            let events = SecurityEvents::new(verifier, revocations, audience.as_str());
            let events = self
                .events_authorization
                .iter()
                .fold(events, |events, value| events.authorization(value));
            router = router.route_service(EVENTS, events);
        }
        router
    }
}
