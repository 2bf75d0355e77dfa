//! [`ResourceMetadataBuilder`]: the members of the document, and the checks of them.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use url::{Position, Url};

use super::{Inner, ResourceMetadata, WELL_KNOWN};
use crate::binding::Bindings;
use crate::error::ConfigError;
use crate::keys::url::{PlainHttp, secure_url};
use crate::token::scope::Scope;
use crate::verifier::{AuthorizationServer, Verifier};

/// Requests a refresh token. It is the client's choice, and no permission of an API.
const OFFLINE_ACCESS: &str = "offline_access";

/// Members that [`build`](ResourceMetadataBuilder::build) derives.
const DERIVED_MEMBERS: [&str; 6] = [
    "resource",
    "authorization_servers",
    "scopes_supported",
    DPOP_ALGORITHMS,
    DPOP_REQUIRED,
    CERTIFICATES,
];

/// What tokens may or must be bound to (RFC 9728 §2).
const DPOP_ALGORITHMS: &str = "dpop_signing_alg_values_supported";
const DPOP_REQUIRED: &str = "dpop_bound_access_tokens_required";
const CERTIFICATES: &str = "tls_client_certificate_bound_access_tokens";

/// Builds a [`ResourceMetadata`]. Created by [`ResourceMetadata::builder`].
#[derive(Debug)]
#[must_use]
pub struct ResourceMetadataBuilder {
    resource: String,
    /// The configured issuers of the verifier.
    issuers: Vec<AuthorizationServer>,
    servers: Option<Vec<String>>,
    scopes: Result<Scope, ConfigError>,
    scope_prefix: String,
    metadata_url: Option<String>,
    is_at_root: bool,
    audience: AudienceCheck,
    members: Vec<(String, Value)>,
    /// What tokens may be bound to.
    binding: Vec<(&'static str, Value)>,
}

/// Whether the identifier of the resource must be an audience of the issuers.
#[derive(Debug, PartialEq)]
enum AudienceCheck {
    Required,
    Waived,
}

impl ResourceMetadataBuilder {
    pub(super) fn new(resource: String, verifier: &Verifier) -> Self {
        Self {
            resource,
            issuers: verifier.authorization_servers(),
            servers: None,
            scopes: Ok(Scope::none()),
            scope_prefix: String::new(),
            metadata_url: None,
            is_at_root: true,
            audience: AudienceCheck::Required,
            members: Vec::new(),
            binding: binding(verifier.bindings()),
        }
    }

    /// Names the authorization servers (`authorization_servers`), instead of the configured issuers
    /// of the verifier. Needed if a lookup finds the issuers, if an issuer is a template, or if the
    /// authorization server is not the issuer of the tokens.
    pub fn authorization_servers<T: Into<String>>(
        mut self,
        servers: impl IntoIterator<Item = T>,
    ) -> Self {
        self.servers = Some(servers.into_iter().map(Into::into).collect());
        self
    }

    /// Names the scopes that a client needs at least (`scopes_supported`). Clients request all of
    /// them at the first sign-in, and more when a challenge names more. By default, it names no
    /// scope.
    pub fn scopes<S>(mut self, scopes: impl IntoIterator<Item = S>) -> Self
    where
        S: TryInto<Scope>,
        ConfigError: From<S::Error>,
    {
        self.scopes = self.scopes.and_then(|mut all| {
            for scope in scopes {
                all.extend(&scope.try_into()?);
            }
            Ok(all)
        });
        self
    }

    /// Sets what a client puts before the name of each scope when it requests a token, in the
    /// document and in the challenges of layers with this metadata.
    ///
    /// At Entra ID, a client requests `api://orders/notes.read`, and the token has `notes.read`. At
    /// Amazon Cognito, a client requests `orders/read`; see
    /// [`Issuer::scope_prefix`](crate::Issuer::scope_prefix).
    pub fn requested_scope_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.scope_prefix = prefix.into();
        self
    }

    /// Sets the name of the API that a client shows to its user (`resource_name`).
    pub fn name(self, name: impl Into<String>) -> Self {
        self.with("resource_name", name.into().into())
    }

    /// Sets the URL of a page for developers (`resource_documentation`).
    pub fn documentation(self, url: impl Into<String>) -> Self {
        self.with("resource_documentation", url.into().into())
    }

    /// Sets the URL of a page about how clients may use the data (`resource_policy_uri`).
    pub fn policy(self, url: impl Into<String>) -> Self {
        self.with("resource_policy_uri", url.into().into())
    }

    /// Sets the URL of the terms of service (`resource_tos_uri`).
    pub fn terms_of_service(self, url: impl Into<String>) -> Self {
        self.with("resource_tos_uri", url.into().into())
    }

    /// Sets another member. `bearer_methods_supported` (RFC 9728 §2) is `["header"]` by default;
    /// set it if a layer reads tokens elsewhere.
    pub fn member(self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.with(name, value.into())
    }

    /// Sets the URL of the document, instead of the one that RFC 9728 §3.1 derives from the
    /// resource. Use it if a gateway cannot forward the well-known URI. Clients then find the
    /// document by the challenge only.
    pub fn metadata_url(mut self, url: impl Into<String>) -> Self {
        self.metadata_url = Some(url.into());
        self
    }

    /// Serves the document only at [`ResourceMetadata::path`], and not at the well-known URI of the
    /// host: another application of this host may have a document there.
    pub fn only_at_its_path(mut self) -> Self {
        self.is_at_root = false;
        self
    }

    /// Accepts issuers whose tokens name another audience than the resource. Use it for Entra ID
    /// and Amazon Cognito, whose audience is a GUID or a client.
    ///
    /// Without this, [`build`](Self::build) returns an error: a client requests a token for the
    /// resource, gets one with the resource as its audience, and every request is rejected.
    pub fn with_another_audience(mut self) -> Self {
        self.audience = AudienceCheck::Waived;
        self
    }

    /// Builds the metadata.
    ///
    /// # Errors
    ///
    /// Returns an error
    ///
    /// - if the resource is not an `https` URL (or `http` on loopback) in its normal form, or has a
    ///   fragment (RFC 9728 §1.2)
    /// - if there is no authorization server, or one is not such a URL
    /// - if an issuer does not accept the resource as an audience
    ///   ([`with_another_audience`](Self::with_another_audience))
    /// - if a scope is invalid, or is `offline_access`, which is not a permission of an API
    /// - if another URL or member is invalid
    pub fn build(self) -> Result<ResourceMetadata, ConfigError> {
        let resource = resource_url(&self.resource)?;
        let servers = self.checked_servers()?;
        if self.audience == AudienceCheck::Required {
            self.check_audience()?;
        }
        let scopes = self.scopes?;
        if scopes.contains(OFFLINE_ACCESS) {
            return Err(ConfigError::new(format!(
                "scopes {scopes}: expected permissions of the API, found {OFFLINE_ACCESS}, which a client requests by itself"
            )));
        }
        let url = match &self.metadata_url {
            Some(url) => resource_url(url)?,
            None => inserted(&resource),
        };
        let mut document = Map::new();
        document.insert("resource".to_owned(), self.resource.clone().into());
        document.insert("authorization_servers".to_owned(), servers.into());
        document.insert("bearer_methods_supported".to_owned(), json!(["header"]));
        let requested = scopes.with_prefix(&self.scope_prefix);
        document.extend(self.binding.into_iter().map(|(name, value)| (name.to_owned(), value)));
        // RFC 9728 §2: members without a value are omitted.
        if !requested.is_empty() {
            document.insert("scopes_supported".to_owned(), requested.iter().collect());
        }
        for (name, value) in self.members {
            if DERIVED_MEMBERS.contains(&&*name) {
                return Err(ConfigError::new(format!(
                    "member {name:?}: expected a member that the builder does not set itself"
                )));
            }
            if value.as_array().is_some_and(Vec::is_empty) || value.is_null() {
                return Err(ConfigError::new(format!(
                    "member {name:?}: expected a value, and no empty array (RFC 9728 §2)"
                )));
            }
            if matches!(
                &*name,
                "resource_documentation" | "resource_policy_uri" | "resource_tos_uri"
            ) {
                secure_url(&name, value.as_str().unwrap_or_default(), PlainHttp::OnLoopback)?;
            }
            document.insert(name, value);
        }
        Ok(ResourceMetadata(Arc::new(Inner {
            resource: self.resource,
            path: url.path().to_owned(),
            query: url.query().map(str::to_owned),
            url: url.into(),
            is_at_root: self.is_at_root,
            scope_prefix: self.scope_prefix,
            document: Value::Object(document).to_string(),
        })))
    }

    fn with(mut self, name: impl Into<String>, value: Value) -> Self {
        self.members.push((name.into(), value));
        self
    }

    fn checked_servers(&self) -> Result<Vec<String>, ConfigError> {
        let Some(servers) = &self.servers else {
            if self.issuers.is_empty() {
                return Err(ConfigError::new(format!(
                    "resource {:?}: expected at least one authorization server; the verifier has no configured issuer that is one, so name it with `authorization_servers`",
                    self.resource
                )));
            }
            if let Some(template) = self.issuers.iter().find(|issuer| issuer.is_template) {
                return Err(ConfigError::new(format!(
                    "resource {:?}: expected an authorization server with one issuer, found the template {:?}; name the server with `authorization_servers`",
                    self.resource, template.iss
                )));
            }
            return Ok(self.issuers.iter().map(|issuer| issuer.iss.to_string()).collect());
        };
        if servers.is_empty() {
            return Err(ConfigError::new(format!(
                "resource {:?}: expected at least one authorization server, found an empty list",
                self.resource
            )));
        }
        for server in servers {
            let url = secure_url("authorization server", server, PlainHttp::OnLoopback)?;
            if url.query().is_some() || url.fragment().is_some() {
                return Err(ConfigError::new(format!(
                    "authorization server {server:?}: expected an issuer identifier, without query and fragment (RFC 8414 §2)"
                )));
            }
        }
        Ok(servers.clone())
    }

    fn check_audience(&self) -> Result<(), ConfigError> {
        let is_other =
            |issuer: &&AuthorizationServer| !issuer.audience.names_resource(&self.resource);
        let Some(AuthorizationServer { iss, audience, .. }) = self.issuers.iter().find(is_other)
        else {
            return Ok(());
        };
        Err(ConfigError::new(format!(
            "resource {:?}: expected the audience that issuer {iss:?} requires, found {audience}; if its tokens name another audience than the resource, call `with_another_audience`",
            self.resource
        )))
    }
}

/// What a client learns about the binding of tokens. Without DPoP and mutual TLS, nothing.
fn binding(bindings: &Bindings) -> Vec<(&'static str, Value)> {
    let mut members = Vec::new();
    if let Some(dpop) = &bindings.dpop {
        members.push((DPOP_ALGORITHMS, dpop.algorithms().collect()));
        if dpop.is_required() {
            members.push((DPOP_REQUIRED, true.into()));
        }
    }
    if bindings.verifiable().certificates {
        members.push((CERTIFICATES, true.into()));
    }
    members
}

/// A URL in its normal form. Clients normalize what the user types, and then compare it with the
/// document.
fn resource_url(text: &str) -> Result<Url, ConfigError> {
    let url = secure_url("resource", text, PlainHttp::OnLoopback)?;
    if url.fragment().is_some() {
        return Err(ConfigError::new(format!(
            "resource {text:?}: expected a URL without a fragment (RFC 9728 §1.2)"
        )));
    }
    let has_no_path = url.path() == "/" && url.query().is_none();
    let without_slash = url.as_str().strip_suffix('/').filter(|_| has_no_path);
    if url.as_str() == text || without_slash == Some(text) {
        return Ok(url);
    }
    Err(ConfigError::new(format!(
        "resource {text:?}: expected the normal form of this URL, {:?}",
        without_slash.unwrap_or(url.as_str())
    )))
}

/// RFC 9728 §3.1: the well-known URI is inserted between host and path. A slash right after the
/// host is removed.
fn inserted(resource: &Url) -> Url {
    let mut url = resource.clone();
    let path = if resource.path() == "/" { "" } else { resource.path() };
    url.set_path(&format!("{WELL_KNOWN}{path}"));
    debug_assert_eq!(url[..Position::BeforePath], resource[..Position::BeforePath]);
    url
}
