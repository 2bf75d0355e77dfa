//! Authorization for servers of the Model Context Protocol (MCP), revision 2026-07-28 and earlier:
//! rules for single tools, resources and prompts.
//!
//! [`McpLayer`] stands around the MCP service in place of a [`ProtectLayer`]. Like that, it
//! verifies the token of each request first. Then it reads the body, finds out what it names, and
//! checks the rules of all that together with the rule of the [`ProtectLayer`].
//!
//! Works with any tower service over HTTP (Streamable HTTP transport), such as rmcp's
//! `StreamableHttpService`. The guide [MCP](crate::guide::mcp) starts from nothing.

mod body;
mod headers;
pub(crate) mod message;
mod rules;
mod service;
mod sessions;
pub(crate) mod uri;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

pub use body::McpBody;
pub use service::{Mcp, McpFuture};

use crate::access_token::AccessToken;
use crate::error::ConfigError;
use crate::middleware::config::{ProtectConfig, TokenPolicy};
use crate::middleware::layer::ProtectLayer;
use crate::middleware::rejection::EmptyBody;
use crate::rule::Rule;
use crate::token_source::{TokenLocation, TokenSource};
use message::Name;
use rules::{Requirement, Rules};
use sessions::Sessions;

/// As in rmcp. Messages are small; those with files in Base64 reach megabytes.
const BODY_LIMIT: usize = 4 * 1024 * 1024;

/// The longest time for reading a body. 4 MiB at 1.2 Mbit/s.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Number of sessions whose owner is remembered.
const SESSIONS: u64 = 10_000;

/// A [`tower_layer::Layer`] around an MCP server. Each request needs a token that the
/// [`ProtectLayer`] accepts, and that satisfies the rules of everything that the request names.
///
/// The body decides, whatever the HTTP method, because it is what the service executes. The headers
/// `Mcp-Method` and `Mcp-Name` can only cause a rejection: most clients send none, and an attacker
/// sends others.
///
/// A rule for a tool, resource or prompt applies to every method that reaches it:
///
/// | | Methods |
/// |---|---|
/// | [`tool`](Self::tool) | `tools/call` |
/// | [`prompt`](Self::prompt) | `prompts/get`, `completion/complete` |
/// | [`resource`](Self::resource) | `resources/read`, `resources/subscribe`, `resources/unsubscribe`, `resources/directory/read`, `subscriptions/listen`, `completion/complete`, `skills/get` |
///
/// and to methods that do not exist yet, if they have the same members. Everything else needs the
/// rule of the [`ProtectLayer`] only: other methods, responses, GET and DELETE.
///
/// The service gets the same bytes. Its handlers find the
/// [`AccessToken`] in the request's extensions.
///
/// ```
/// use axum::Router;
/// use portcullis::mcp::McpLayer;
/// use portcullis::{Issuer, ProtectLayer, ResourceMetadata, Rule, Verifier};
/// use tower::Layer as _;
/// # use axum::{body::Body, http::{Request, Response}};
///
/// # fn example(service: axum::routing::MethodRouter) -> Result<Router, portcullis::ConfigError> {
/// let url = "https://api.example.com/mcp";
/// let verifier = Verifier::new(Issuer::new("https://issuer.example.com/", url)?)?;
/// let metadata = ResourceMetadata::builder(url, &verifier).scopes(["notes:read"]).build()?;
/// let protect = ProtectLayer::new(verifier).scope("notes:read").resource_metadata(&metadata);
/// let mcp = McpLayer::new(protect)?
///     .tool("write_note", Rule::scope("notes:write"))
///     .resource("drafts://{id}", Rule::scope("notes:write"))
///     .prompt("summarise", Rule::scope("notes:write"));
/// let app = Router::new()
///     .nest_service("/mcp", mcp.layer(service))
///     .layer(metadata.layer());
/// # Ok(app)
/// # }
/// ```
///
/// # Rejections
///
/// | Status | When |
/// |---|---|
/// | as with [`ProtectLayer`] | without a valid token; the body is not read |
/// | 403 `insufficient_scope` | a scope is missing. The challenge names those of the base rule and of everything that the request names, so that one further sign-in suffices |
/// | 403 without `error` | a role or another condition is missing, which a sign-in would not change |
/// | 400, JSON-RPC error −32700 | the body is not JSON |
/// | 400, −32600 | the body can be understood in more than one way: a repeated member, a name that is not a string |
/// | 400, −32020 | a header says something else than the body, or is repeated |
/// | 404, −32001 | another user or client has started the session |
/// | 408, 413 | the body takes longer than [`body_timeout`](Self::body_timeout), or is larger than [`body_limit`](Self::body_limit) |
///
/// An unknown tool, prompt or method is the service's to reject.
///
/// This needs a Tokio runtime with time enabled, for the time limit of bodies.
#[must_use]
pub struct McpLayer<A = EmptyBody> {
    config: Arc<Config<A>>,
}

/// What services of one layer share.
struct Config<A> {
    protect: Arc<ProtectConfig<A>>,
    rules: Rules,
    sessions: Option<Arc<Sessions>>,
    body_limit: usize,
    body_timeout: Duration,
}

impl<A> McpLayer<A> {
    /// Creates a layer with the verifier, the rule and the rejections of `protect`.
    ///
    /// # Errors
    ///
    /// Returns an error if `protect` reads tokens in the query, which MCP forbids, or has
    /// [`danger_ignore_invalid`](ProtectLayer::danger_ignore_invalid).
    pub fn new(protect: ProtectLayer<A>) -> Result<Self, ConfigError> {
        let config = protect.config;
        let in_query =
            |TokenSource(location): &TokenSource| matches!(location, TokenLocation::Query(_));
        if config.sources.iter().any(in_query) {
            return Err(ConfigError::new(
                "McpLayer: expected tokens in headers, found a token source in the query, which MCP forbids",
            ));
        }
        if config.policy == TokenPolicy::IgnoreInvalid {
            return Err(ConfigError::new(
                "McpLayer: expected a layer that rejects invalid tokens, found `danger_ignore_invalid`",
            ));
        }
        Ok(Self {
            config: Arc::new(Config {
                protect: config,
                rules: Rules::default(),
                sessions: Some(Arc::new(Sessions::new(SESSIONS))),
                body_limit: BODY_LIMIT,
                body_timeout: BODY_TIMEOUT,
            }),
        })
    }

    /// Adds a rule for calls of the tool `name`. Rules for the same name add up.
    pub fn tool(self, name: impl Into<String>, rule: impl Into<Rule>) -> Self {
        self.with(|config| config.rules.add_tool(name.into(), &config.protect.rule, rule.into()))
    }

    /// Adds a rule for the prompt `name`. Rules for the same name add up.
    pub fn prompt(self, name: impl Into<String>, rule: impl Into<Rule>) -> Self {
        self.with(|config| config.rules.add_prompt(name.into(), &config.protect.rule, rule.into()))
    }

    /// Adds a rule for the resource `uri`. With a template such as `drafts://{id}`, the rule is for
    /// all resources that begin with the part before the first `{`, whatever follows. All rules
    /// that match a resource apply.
    ///
    /// Other spellings of the same URI match as well: upper case, percent-encoding, a default port,
    /// a user or port, more or fewer slashes, another query or fragment. Every rule applies to a
    /// URI with dot segments (`notes://a/../b`), with a backslash, or of more than 2 KiB, because
    /// it depends on the service what that means. The rule of `files://private/{id}` also applies
    /// to the directory itself, but not to those above it. A service must not ignore the scheme,
    /// and must not treat characters as equal that differ otherwise (Unicode normalization).
    pub fn resource(self, uri: impl AsRef<str>, rule: impl Into<Rule>) -> Self {
        self.with(|config| {
            config.rules.add_resource(uri.as_ref(), &config.protect.rule, rule.into());
        })
    }

    /// Sets the rule for tools, resources and prompts without a rule of their own, for servers that
    /// list what is allowed. By default, they need the rule of the [`ProtectLayer`] only.
    ///
    /// A resource in another spelling than that of its rule needs both rules: a service that
    /// compares texts may take it for another resource.
    pub fn unregistered(self, rule: impl Into<Rule>) -> Self {
        self.with(|config| config.rules.set_unregistered(&config.protect.rule, rule.into()))
    }

    /// Sets the maximum size of a request body, in bytes. The default is 4 MiB.
    pub fn body_limit(self, bytes: usize) -> Self {
        self.with(|config| config.body_limit = bytes)
    }

    /// Sets the maximum time for reading a request body. The default is 30 seconds.
    pub fn body_timeout(self, timeout: Duration) -> Self {
        self.with(|config| config.body_timeout = timeout)
    }

    /// Sets for how many sessions the layer remembers who started them; 10,000 by default, the
    /// least recently used ones are forgotten first. Of each user, the last 100 are remembered,
    /// and at most a tenth of all, so that one cannot push out the sessions of others. 0 turns the
    /// check off. Identifiers are compared byte for byte, as in rmcp.
    ///
    /// A request of another user or client with the `Mcp-Session-Id` of such a session is rejected
    /// with 404. A refreshed token of the same user and client may use it. Sessions that are not
    /// remembered, or that another process started, are left to the service.
    pub fn bind_sessions(self, capacity: u64) -> Self {
        self.with(|config| {
            config.sessions = (capacity > 0).then(|| Arc::new(Sessions::new(capacity)));
        })
    }

    /// Returns whether a token may call this tool, for a `tools/list` that shows each client only
    /// what it may call. MCP demands `cacheScope: "private"` for such a list.
    ///
    /// Rules that read the request ([`Rule::custom`]) get an empty one.
    ///
    /// ```
    /// # use portcullis::{AccessToken, mcp::McpLayer};
    /// fn visible<'a>(mcp: &McpLayer, token: &AccessToken, tools: &[&'a str]) -> Vec<&'a str> {
    ///     tools.iter().copied().filter(|tool| mcp.permits_tool(token, tool)).collect()
    /// }
    /// ```
    pub fn permits_tool(&self, token: &AccessToken, name: &str) -> bool {
        self.permits(token, Name::Tool(name))
    }

    /// As [`permits_tool`](Self::permits_tool), for a prompt.
    pub fn permits_prompt(&self, token: &AccessToken, name: &str) -> bool {
        self.permits(token, Name::Prompt(name))
    }

    /// As [`permits_tool`](Self::permits_tool), for a resource.
    pub fn permits_resource(&self, token: &AccessToken, uri: &str) -> bool {
        self.permits(token, Name::Resource(uri))
    }

    fn permits(&self, token: &AccessToken, name: Name<'_>) -> bool {
        let Config { protect, rules, .. } = &*self.config;
        match rules.of_name(name) {
            Requirement::Base => protect.rule.check(token).is_ok(),
            Requirement::One(operation) => operation.rule.check(token).is_ok(),
            Requirement::Several(operations) => {
                operations.iter().all(|operation| operation.rule.check(token).is_ok())
            }
        }
    }

    fn with(self, change: impl FnOnce(&mut Config<A>)) -> Self {
        let mut config = Arc::unwrap_or_clone(self.config);
        change(&mut config);
        Self { config: Arc::new(config) }
    }
}

impl<A> Clone for Config<A> {
    fn clone(&self) -> Self {
        Self {
            protect: Arc::clone(&self.protect),
            rules: self.rules.clone(),
            sessions: self.sessions.clone(),
            body_limit: self.body_limit,
            body_timeout: self.body_timeout,
        }
    }
}

impl<A> Clone for McpLayer<A> {
    fn clone(&self) -> Self {
        Self { config: Arc::clone(&self.config) }
    }
}

impl<A> fmt::Debug for McpLayer<A> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("McpLayer")
            .field("rule", &self.config.protect.rule)
            .field("rules", &self.config.rules)
            .finish_non_exhaustive()
    }
}

impl<S, A> Layer<S> for McpLayer<A> {
    type Service = Mcp<S, A>;

    /// Only clones an `Arc`: routers and servers may call it for each request or connection.
    fn layer(&self, inner: S) -> Mcp<S, A> {
        Mcp::new(inner, Arc::clone(&self.config))
    }
}
