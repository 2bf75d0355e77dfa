//! [`ResourceMetadata`]: what clients must know to get a token for this API (RFC 9728).

pub(crate) mod builder;
pub(crate) mod service;

use std::fmt;
use std::sync::Arc;

use crate::error::ConfigError;
use crate::token::scope::Scope;
use crate::verifier::Verifier;
use builder::ResourceMetadataBuilder;
use service::{ResourceMetadataLayer, ResourceMetadataService};

/// The well-known URI of RFC 9728 §3, which is inserted before the path of the resource.
pub(crate) const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// The metadata of this API as a protected resource (RFC 9728): its identifier, the authorization
/// servers that issue its tokens, and the scopes that a client needs at least.
///
/// A client that has no token finds this document in two ways: by the parameter `resource_metadata`
/// of the challenge ([`ProtectLayer::resource_metadata`](crate::ProtectLayer::resource_metadata)),
/// or at the well-known URI. MCP clients require one of the two.
///
/// Every URL is configured. Nothing is taken from a request: behind a proxy, `Host` names another
/// server, and an attacker may have written it.
///
/// ```
/// use axum::{Router, routing::post};
/// use portcullis::{Issuer, ProtectLayer, ResourceMetadata, Verifier};
///
/// // What the user types into the client. It is also the audience of the tokens.
/// let url = "https://api.example.com/mcp";
/// let verifier = Verifier::new(Issuer::new("https://issuer.example.com/", url)?)?;
/// let metadata = ResourceMetadata::builder(url, &verifier)
///     .scopes(["notes:read"])
///     .name("Notes")
///     .build()?;
/// let protect = ProtectLayer::new(verifier).scope("notes:read").resource_metadata(&metadata);
/// let app: Router = Router::new()
///     .route("/mcp", post(async || "").route_layer(protect))
///     // At the root of the application: inside `nest`, a client would not find it.
///     .route_service(metadata.path(), metadata.service());
/// assert_eq!(metadata.path(), "/.well-known/oauth-protected-resource/mcp");
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct ResourceMetadata(Arc<Inner>);

struct Inner {
    resource: String,
    /// The URL of the document, and the parts of it that a request for the document has.
    url: String,
    path: String,
    query: Option<String>,
    /// Whether a layer for this resource alone also serves the well-known URI of the host.
    is_at_root: bool,
    /// What a client puts before the name of a scope.
    scope_prefix: String,
    document: String,
}

impl ResourceMetadata {
    /// Describes the resource at `resource`, whose tokens `verifier` accepts. The same as
    /// [`builder`](Self::builder) without optional members.
    ///
    /// # Errors
    ///
    /// Returns an error under the conditions of [`ResourceMetadataBuilder::build`].
    pub fn new(resource: impl Into<String>, verifier: &Verifier) -> Result<Self, ConfigError> {
        Self::builder(resource, verifier).build()
    }

    /// Like [`new`](Self::new), with optional members.
    ///
    /// `resource` is the identifier of the resource (RFC 9728 §1.2): the URL that users type into
    /// the client. Tokens must name it as their audience. For a URL without a path, use
    /// [`Audience::resource`](crate::Audience::resource) as the audience, because clients add a
    /// slash.
    pub fn builder(resource: impl Into<String>, verifier: &Verifier) -> ResourceMetadataBuilder {
        ResourceMetadataBuilder::new(resource.into(), verifier)
    }

    /// Returns the identifier of the resource, as configured.
    pub fn resource(&self) -> &str {
        &self.0.resource
    }

    /// Returns the URL of the document. Challenges name it.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// Returns the path of [`url`](Self::url), for a router at the root of the host.
    ///
    /// axum's `Router::route_service` panics for a path with a segment that begins with `:` or `*`.
    /// For such a resource, use [`layer`](Self::layer).
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// Returns the document: a JSON object.
    pub fn document(&self) -> &str {
        &self.0.document
    }

    /// Returns a service that responds with the document to every GET request, whatever its path,
    /// for a router that has selected it by [`path`](Self::path).
    ///
    /// GET and HEAD respond 200, OPTIONS 204 (a CORS preflight of any page succeeds), and other
    /// methods 405. The document needs no token.
    pub fn service(&self) -> ResourceMetadataService {
        ResourceMetadataService(self.clone())
    }

    /// Returns a layer that responds with the document at its path, and passes all other requests
    /// on. Apply it last, outside everything else: axum does not run it for requests that a layer
    /// outside it rejects, and inside `nest` not at all.
    ///
    /// The layer also serves the document at the well-known URI of the host,
    /// `/.well-known/oauth-protected-resource`, where some clients look first; see
    /// [`ResourceMetadataBuilder::only_at_its_path`]. An application with several resources needs
    /// one [`ResourceMetadataLayer`] for all of them.
    pub fn layer(&self) -> ResourceMetadataLayer {
        ResourceMetadataLayer::new([self.clone()])
    }

    /// The scope as a client requests it.
    pub(crate) fn requested(&self, scope: &Scope) -> Scope {
        scope.with_prefix(&self.0.scope_prefix)
    }

    /// Whether this document is at this path and query.
    fn is_at(&self, path: &str, query: Option<&str>) -> bool {
        // A resource may be distinguished by its query. Otherwise, a query does not matter.
        path == self.0.path && (self.0.query.is_none() || query == self.0.query.as_deref())
    }
}

impl fmt::Debug for ResourceMetadata {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ResourceMetadata")
            .field("resource", &self.0.resource)
            .field("url", &self.0.url)
            .finish_non_exhaustive()
    }
}
