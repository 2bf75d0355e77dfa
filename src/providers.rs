//! Presets: one constructor for each well-known provider.
//!
//! A preset returns an ordinary [`Issuer`], which all its methods can adjust. It contains what is
//! specific to the provider: the form of `iss`, the location of the keys, the claim that names the
//! audience, what distinguishes access tokens from other tokens, and the location of permissions
//! and roles.
//!
//! [cookies]: crate::guide::rules#cookies-and-gateways
//! [keycloak-roles]: crate::guide::recipes#roles-of-realm-and-client-in-keycloak
//! [local-development]: crate::guide::local_development
//!
#![cfg_attr(any(doc, doctest), doc = include_str!("../docs/providers.md"))]

use url::Url;

use crate::algorithm::Algorithm;
use crate::error::ConfigError;
use crate::issuer::Issuer;
use crate::keys::url::{PlainHttp, secure_url};
use crate::token::audience::Audience;
use crate::token::profile::Condition;
use crate::token::spiffe::TrustDomain;
use crate::token::tenant;

/// Auth0: `https://{domain}/`, with the domain of the tenant or a custom domain.
///
/// With RBAC, require a [`permission`](crate::ProtectLayer::permission); otherwise any application
/// gets the scopes that it requests. If the API uses the RFC 9068 profile, add
/// [`require_rfc9068`](Issuer::require_rfc9068).
///
/// ```
/// let issuer = portcullis::providers::auth0("acme.eu.auth0.com", "https://api.example.com")?;
/// assert_eq!(issuer.iss(), "https://acme.eu.auth0.com/");
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
///
/// # Errors
///
/// Returns an error if `domain` is not a host name, or under the conditions of [`Issuer::new`]. The
/// same applies to every preset that takes a domain.
pub fn auth0(domain: &str, audience: impl Into<Audience>) -> Result<Issuer, ConfigError> {
    Issuer::new(format!("https://{}/", host(domain)?), audience)
}

/// Okta: a custom authorization server, `https://{domain}/oauth2/{server}`, such as `default`.
/// Access tokens of the org authorization server are for Okta only and cannot be verified by other
/// services. Prefer `uid` to the subject, which is the login and may change.
///
/// # Errors
///
/// Returns an error if `domain` is not a host name.
pub fn okta(
    domain: &str,
    server: &str,
    audience: impl Into<Audience>,
) -> Result<Issuer, ConfigError> {
    Issuer::new(format!("https://{}/oauth2/{}", host(domain)?, segment(server)?), audience)
}

/// Microsoft Entra ID, one tenant, tokens of version 2.0. The audience is the client ID of the API,
/// a GUID. (Tokens are of version 1.0 unless `api.requestedAccessTokenVersion` is 2 in the manifest
/// of the API.) Application tokens have [`role`](crate::ProtectLayer::role)s and no scope. Any
/// application of the tenant may get a token without either, so require a scope or a role.
///
/// # Errors
///
/// Returns an error if `tenant` is not a lowercase GUID.
pub fn entra(tenant: &str, audience: impl Into<Audience>) -> Result<Issuer, ConfigError> {
    if !tenant::is_tenant(tenant) {
        return Err(ConfigError::new(format!("tenant {tenant:?}: expected a GUID in lower case")));
    }
    let mut issuer =
        Issuer::new(format!("https://login.microsoftonline.com/{tenant}/v2.0"), audience)?;
    // Required by Microsoft for a single tenant as well: a key whose `issuer` names another tenant
    // must not be used for this one.
    issuer.profile().tenant = Some(tenant.to_owned());
    issuer
        .require_claim("tid", [tenant])
        // If users sign in to the app registration of the API, its ID tokens have the same
        // audience, and no `azp`.
        .require_claim_present("azp")
        .algorithms([Algorithm::RS256])
}

/// Microsoft Entra ID, tokens of version 2.0, of every tenant worldwide unless restricted with
/// [`tenants`](Issuer::tenants). See [`template`](Issuer::template).
///
/// # Errors
///
/// Returns an error if the audience is empty.
pub fn entra_multi_tenant(audience: impl Into<Audience>) -> Result<Issuer, ConfigError> {
    Issuer::template("https://login.microsoftonline.com/{tenantid}/v2.0", audience)?
        .discovery_url("https://login.microsoftonline.com/common/v2.0")?
        .require_claim_present("azp")
        .algorithms([Algorithm::RS256])
}

/// Amazon Cognito. Its access tokens have no audience; `clients` are the app clients that may call
/// this API. Scopes have the form `{resource server}/{name}`, which
/// [`scope_prefix`](Issuer::scope_prefix) shortens. Tokens bound to a resource have an audience and
/// are rejected unless it is configured:
/// [`audience`](Issuer::audience)`(Audience::client_id(clients).aud_if_present([api]))`.
///
/// # Errors
///
/// Returns an error if `region` or `pool` contains an unsupported character, or if `clients` is
/// empty.
pub fn cognito<T: Into<String>>(
    region: &str,
    pool: &str,
    clients: impl IntoIterator<Item = T>,
) -> Result<Issuer, ConfigError> {
    let iss = format!("https://cognito-idp.{}.amazonaws.com/{}", host(region)?, segment(pool)?);
    with_keys(&iss, Audience::client_id(clients), "/.well-known/jwks.json")?
        .require_claim("token_use", ["access"])
        .groups_at(["cognito:groups"])
        .algorithms([Algorithm::RS256])
}

/// Keycloak: `{base}/realms/{realm}`. Tokens have the audience of the API only after a client scope
/// with an audience mapper adds it. Roles are those of the realm; for the roles of a client, use
/// [`roles_at`](Issuer::roles_at)`(["/resource_access/{client}/roles"])`.
///
/// # Errors
///
/// Returns an error if `base` is not a URL. [`Verifier::new`](crate::Verifier::new) returns an
/// error if `base` is an `http` URL that is not on loopback and
/// [`danger_allow_http`](Issuer::danger_allow_http) was not called.
pub fn keycloak(
    base: &str,
    realm: &str,
    audience: impl Into<Audience>,
) -> Result<Issuer, ConfigError> {
    // Plain HTTP is accepted here; `Verifier::new` rejects it without `danger_allow_http`.
    secure_url("base", base, PlainHttp::Anywhere)?;
    let issuer = Issuer::new(
        format!("{}/realms/{}", base.trim_end_matches('/'), segment(realm)?),
        audience,
    )?;
    // Keycloak's own claim in the payload. Refresh and ID tokens are signed with the same keys and
    // have the header `typ: JWT`.
    Ok(issuer.require_claim("typ", ["Bearer"]).roles_at(["/realm_access/roles"]))
}

/// Google ID tokens, which services on Google Cloud send each other. The audience is the URL of the
/// receiving service. Google's *access* tokens are opaque. **Any Google account can get such a
/// token**: require an `email` or `sub` that you know.
///
/// # Errors
///
/// Returns an error if the audience is empty.
pub fn google(audience: impl Into<Audience>) -> Result<Issuer, ConfigError> {
    Issuer::new("https://accounts.google.com", audience)?
        .alias("accounts.google.com")?
        .algorithms([Algorithm::RS256])
}

/// Firebase Authentication of a project. As its documentation requires, `sub` must not be empty and
/// `auth_time` must be in the past.
///
/// # Errors
///
/// Returns an error if `project` contains an unsupported character.
pub fn firebase(project: &str) -> Result<Issuer, ConfigError> {
    Issuer::new(format!("https://securetoken.google.com/{}", segment(project)?), project)?
        .jwks_uri("https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com")?
        .claim_rule("sub", Condition::Text)
        .claim_rule("auth_time", Condition::Past)
        .algorithms([Algorithm::RS256])
}

/// Supabase Auth of a project with asymmetric signing keys; older projects sign with a
/// [`secret`](Issuer::secret). Its claim `role` is read as a role. Never authorize by
/// `user_metadata`, because users can write it. A user who has a second factor but has not used it
/// has `aal` `aal1`, and anonymous users have `is_anonymous`: require what the route needs with
/// [`claim`](crate::ProtectLayer::claim).
///
/// # Errors
///
/// Returns an error if `project` is not valid in a host name.
pub fn supabase(project: &str) -> Result<Issuer, ConfigError> {
    let iss = format!("https://{}.supabase.co/auth/v1", host(project)?);
    let issuer = with_keys(&iss, "authenticated", "/.well-known/jwks.json")?.roles_at(["role"]);
    issuer.algorithms([Algorithm::ES256, Algorithm::RS256, Algorithm::EdDSA])
}

/// Clerk session tokens. `frontend_api` is a URL such as `https://clerk.example.com`. The tokens
/// have no audience: `origins` are the origins of the web apps that may call this API, and tokens
/// without `azp` (from native apps) are rejected. Tokens of pending sessions are rejected. To read
/// tokens from the `__session` cookie, use [`TokenSource::cookie`](crate::TokenSource::cookie).
///
/// In tokens of version 2, a permission (`manage`) holds for at least one feature, not for every
/// feature. The claims `fea` and `o.fpm` say for which; they are not read. A role is `admin` in
/// version 2, and `org:admin` in version 1.
///
/// # Errors
///
/// Returns an error if `frontend_api` is not an `https` URL, or if `origins` is empty.
pub fn clerk<T: Into<String>>(
    frontend_api: &str,
    origins: impl IntoIterator<Item = T>,
) -> Result<Issuer, ConfigError> {
    let iss = frontend_api.trim_end_matches('/');
    with_keys(iss, Audience::authorized_party(origins), "/.well-known/jwks.json")?
        .reject_claim("sts", ["pending"])
        // Tokens of a JWT template, which are for other services, have no `sid`.
        .require_claim_present("sid")
        .permissions_at(["/o/per", "org_permissions"])
        .roles_at(["/o/rol", "org_role"])
        .algorithms([Algorithm::RS256])
}

/// WorkOS AuthKit. **No claim of its access tokens names the audience**: only the URL of the keys
/// is specific to the client. If that is not enough, require `org_id`, or add a claim with a JWT
/// template and [require](Issuer::require_claim) it.
///
/// # Errors
///
/// Returns an error if `client` contains an unsupported character.
pub fn workos(client: &str) -> Result<Issuer, ConfigError> {
    let client = segment(client)?;
    Issuer::new("https://api.workos.com", Audience::danger_any_audience())?
        .alias(format!("https://api.workos.com/user_management/{client}"))?
        .jwks_uri(&format!("https://api.workos.com/sso/jwks/{client}"))?
        .roles_at(["roles", "role"])
        .algorithms([Algorithm::RS256])
}

/// Zitadel. Set the application to JWT access tokens. The audience is the project ID. Its tokens
/// have no scope claim: require a [`role`](crate::ProtectLayer::role), which counts in whichever
/// organization it was granted. The client must request the scope
/// `urn:zitadel:iam:org:projects:roles`.
///
/// # Errors
///
/// Returns an error if `domain` is not a host name.
pub fn zitadel(domain: &str, project: &str) -> Result<Issuer, ConfigError> {
    let issuer = Issuer::new(format!("https://{}", host(domain)?), project)?;
    // ID tokens have the same audience, and no `jti`. Roles are read only from the claim that names
    // the project: the claim without a project is about the project of the requesting client.
    Ok(issuer
        .require_claim_present("jti")
        .roles_at([format!("urn:zitadel:iam:org:project:{project}:roles")]))
}

/// Ory Network. Set the project or the client to JWT access tokens. Custom claims are under `ext`.
///
/// # Errors
///
/// Returns an error if `project` is not valid in a host name.
pub fn ory(project: &str, audience: impl Into<Audience>) -> Result<Issuer, ConfigError> {
    Issuer::new(format!("https://{}.projects.oryapis.com", host(project)?), audience)
}

/// Authentik: `https://{domain}/application/o/{application}/`. Select a signing key for the
/// provider. The audience is the client ID, in ID tokens as well; the claim `uid` distinguishes
/// access tokens from them.
///
/// # Errors
///
/// Returns an error if `domain` is not a host name.
pub fn authentik(
    domain: &str,
    application: &str,
    client: impl Into<Audience>,
) -> Result<Issuer, ConfigError> {
    let iss = format!("https://{}/application/o/{}/", host(domain)?, segment(application)?);
    Ok(Issuer::new(iss, client)?.require_claim_present("uid"))
}

/// Authelia. Set `access_token_signed_response_alg` for the client; otherwise, its access tokens
/// are opaque. `typ` is `at+jwt`.
///
/// # Errors
///
/// Returns an error if `domain` is not a host name.
pub fn authelia(domain: &str, audience: impl Into<Audience>) -> Result<Issuer, ConfigError> {
    Ok(Issuer::new(format!("https://{}", host(domain)?), audience)?.require_rfc9068())
}

/// Kanidm. Each client has its own issuer, and its name is the audience. `typ` is `at+jwt`.
///
/// # Errors
///
/// Returns an error if `domain` is not a host name.
pub fn kanidm(domain: &str, client: &str) -> Result<Issuer, ConfigError> {
    let iss = format!("https://{}/oauth2/openid/{}", host(domain)?, segment(client)?);
    Ok(Issuer::new(iss, client)?.require_rfc9068())
}

/// PingOne: `https://auth.pingone.com/{environment}/as`. For another region or a custom domain, use
/// [`Issuer::new`].
///
/// # Errors
///
/// Returns an error if `environment` contains an unsupported character.
pub fn pingone(environment: &str, audience: impl Into<Audience>) -> Result<Issuer, ConfigError> {
    Issuer::new(format!("https://auth.pingone.com/{}/as", segment(environment)?), audience)
}

/// Curity. Configure JWT access tokens, which have `purpose: access_token`.
///
/// # Errors
///
/// Returns an error if `iss` is empty.
pub fn curity(iss: &str, audience: impl Into<Audience>) -> Result<Issuer, ConfigError> {
    Ok(Issuer::new(iss, audience)?.require_claim("purpose", ["access_token"]))
}

/// Duende IdentityServer at this URL. `typ`, if present, is `at+jwt`. A token has an audience only
/// if its scopes belong to an API resource.
///
/// # Errors
///
/// Returns an error if `iss` is empty.
pub fn duende(iss: &str, audience: impl Into<Audience>) -> Result<Issuer, ConfigError> {
    Issuer::new(iss, audience)?.allowed_types(["at+jwt"])
}

/// Descope: `iss` is the bare project ID, or `https://api.descope.com/{project}`. Permissions and
/// roles are those of the user outside of any tenant; those in a tenant are at
/// `/tenants/{tenant}/roles`. Tokens have an audience only if the token format of the project
/// includes it. Otherwise, use [`Audience::danger_any_audience`], since the keys of the project
/// sign for no other service. Refresh tokens are signed with the same keys, and are rejected.
///
/// # Errors
///
/// Returns an error if `project` contains an unsupported character.
pub fn descope(project: &str, audience: impl Into<Audience>) -> Result<Issuer, ConfigError> {
    let at = format!("https://api.descope.com/{}", segment(project)?);
    let issuer = Issuer::new(project, audience)?.reject_claim("drn", ["DSR"]);
    issuer.jwks_uri(&format!("{at}/.well-known/jwks.json"))?.alias(at)
}

/// Logto: `https://{domain}/oidc`. The audience is the indicator of the API resource; tokens
/// without one are opaque.
///
/// # Errors
///
/// Returns an error if `domain` is not a host name.
pub fn logto(domain: &str, audience: impl Into<Audience>) -> Result<Issuer, ConfigError> {
    Issuer::new(format!("https://{}/oidc", host(domain)?), audience)
}

/// GitHub Actions ID tokens of workflows in these repositories (`owner/name`). The issuer is the
/// same for all of GitHub. If not every branch may call this API, require `ref` or `environment` as
/// well.
///
/// # Errors
///
/// Returns an error if the audience is empty. [`Verifier::new`](crate::Verifier::new) returns an
/// error if `repositories` is empty.
pub fn github_actions<T: Into<String>>(
    repositories: impl IntoIterator<Item = T>,
    audience: impl Into<Audience>,
) -> Result<Issuer, ConfigError> {
    Issuer::new("https://token.actions.githubusercontent.com", audience)?
        .require_claim("repository", repositories.into_iter().map(Into::into))
        .algorithms([Algorithm::RS256])
}

/// Kubernetes service account tokens (projected, with an audience). `iss` is the issuer of the
/// cluster, often `https://kubernetes.default.svc.cluster.local`. Fetching the keys needs the
/// certificate authority of the cluster ([`client`](Issuer::client)). Allow unauthenticated access
/// to the keys with a ClusterRoleBinding of `system:service-account-issuer-discovery`, because a
/// client cannot be given a bearer token that rotates.
///
/// # Errors
///
/// Returns an error if `iss` is empty.
pub fn kubernetes(iss: &str, audience: impl Into<Audience>) -> Result<Issuer, ConfigError> {
    Ok(Issuer::new(iss, audience)?.groups_at(["/kubernetes.io/namespace"]))
}

/// Sign in with Apple: identity tokens. The audience is the bundle ID or service ID of the app.
///
/// # Errors
///
/// Returns an error if the audience is empty.
pub fn apple(audience: impl Into<Audience>) -> Result<Issuer, ConfigError> {
    with_keys("https://appleid.apple.com", audience, "/auth/keys")?.algorithms([Algorithm::RS256])
}

/// Cloudflare Access in front of the service: `https://{team}.cloudflareaccess.com`. The audience
/// is the AUD tag of the application. The token is in `Cf-Access-Jwt-Assertion`.
///
/// # Errors
///
/// Returns an error if `team` is not valid in a host name.
pub fn cloudflare_access(team: &str, audience: impl Into<Audience>) -> Result<Issuer, ConfigError> {
    let iss = format!("https://{}.cloudflareaccess.com", host(team)?);
    with_keys(&iss, audience, "/cdn-cgi/access/certs")?
        .token_in_header("cf-access-jwt-assertion")?
        .algorithms([Algorithm::RS256])
}

/// Google Cloud Identity-Aware Proxy in front of the service. The audience is
/// `/projects/{number}/global/backendServices/{id}` or `/projects/{number}/apps/{id}`. The token is
/// in `x-goog-iap-jwt-assertion`. Health checks carry no token, so leave their path outside the
/// layer.
///
/// # Errors
///
/// Returns an error if the audience is empty.
pub fn gcp_iap(audience: impl Into<Audience>) -> Result<Issuer, ConfigError> {
    Issuer::new("https://cloud.google.com/iap", audience)?
        .jwks_uri("https://www.gstatic.com/iap/verify/public_key-jwk")?
        .token_in_header("x-goog-iap-jwt-assertion")?
        .algorithms([Algorithm::ES256])
}

/// An AWS Application Load Balancer in front of the service, which signs users in and describes
/// them in `x-amzn-oidc-data`. `iss` is the issuer of the identity provider. `load_balancer` is the
/// ARN of the load balancer: it is what ties a token to this API, because the keys are shared by
/// all load balancers of the region. Make the API reachable only through the load balancer.
///
/// The access token of the identity provider is in `x-amzn-oidc-accesstoken`. To verify it instead,
/// use [`token_in_header`](Issuer::token_in_header) of an ordinary issuer.
///
/// # Errors
///
/// Returns an error if `load_balancer` is not the ARN of a load balancer.
pub fn aws_alb(load_balancer: &str, iss: &str) -> Result<Issuer, ConfigError> {
    let parts: Vec<_> = load_balancer.split(':').collect();
    let [_, _, "elasticloadbalancing", region, _, _] = parts.as_slice() else {
        return Err(ConfigError::new(format!("load balancer {load_balancer:?}: expected its ARN")));
    };
    let mut issuer = Issuer::new(iss, Audience::danger_any_audience())?
        .pem_key_prefix(&format!("https://public-keys.auth.elb.{}.amazonaws.com/", host(region)?))?
        .token_in_header("x-amzn-oidc-data")?
        .algorithms([Algorithm::ES256])?;
    issuer.profile().padding = true;
    issuer.profile().signer = Some(load_balancer.to_owned());
    Ok(issuer)
}

/// A SPIFFE trust domain, such as `example.org`: JWT-SVIDs, as SPIRE issues them to workloads. The
/// keys are those of its bundle that have the `use` `jwt-svid`. Set the URL of the bundle endpoint
/// (profile `https_web`) with [`jwks_uri`](Issuer::jwks_uri), or the bundle itself with
/// [`Jwks::from_spiffe_bundle`](crate::Jwks::from_spiffe_bundle) and [`jwks`](Issuer::jwks).
///
/// `sub` must be the SPIFFE ID of a workload in exactly this trust domain,
/// `spiffe://{trust_domain}/{path}` (JWT-SVID §3.1); `aud` and `exp` must be present. **Any
/// workload of the trust domain can request a token for your audience**: require the `sub` of those
/// that you know.
///
/// JWT-SVIDs need no `iss`. Without it, `sub` names the issuer, among the configured trust domains
/// only: a lookup ([`Issuers::lookup`](crate::Issuers::lookup)) is not asked.
/// [`AccessToken::issuer`](crate::AccessToken::issuer) is then the ID of the trust domain,
/// `spiffe://{trust_domain}`. An `iss` that is present must be that ID or an
/// [`alias`](Issuer::alias), for a SPIRE server that is configured with a `jwt_issuer`.
///
/// ```
/// use portcullis::{Verifier, providers};
///
/// let spire = providers::spiffe("example.org", "orders")?
///     .jwks_uri("https://spire.example.org:8443/")?
///     .alias("https://oidc.example.org")?;
/// assert_eq!(spire.iss(), "spiffe://example.org");
/// let verifier = Verifier::new(spire)?;
/// # Ok::<(), portcullis::ConfigError>(())
/// ```
///
/// A fetched bundle is fresh for as long as its `spiffe_refresh_hint` says, between 60 seconds and
/// 1 hour, unless the response has `Cache-Control` or [`keys_max_age`](Issuer::keys_max_age) is
/// set. `spiffe_sequence` is not read.
///
/// The algorithms are those of JWT-SVID §2.1, without `EdDSA`. SPIRE's keys have no `alg`: RSA keys
/// are used with `RS256`, unless [`algorithms`](Issuer::algorithms) has another one first.
///
/// # Errors
///
/// Returns an error if `trust_domain` is empty, is longer than 255 bytes, or contains a character
/// other than `a-z`, `0-9`, `.`, `-` and `_` (SPIFFE-ID §2.1), or if the audience is empty.
/// [`Verifier::new`](crate::Verifier::new) returns an error if no bundle is set.
pub fn spiffe(trust_domain: &str, audience: impl Into<Audience>) -> Result<Issuer, ConfigError> {
    let domain = TrustDomain::new(trust_domain)?;
    let mut issuer = Issuer::new(domain.id(), audience)?
        .allowed_types(["JWT", "JOSE"])?
        .claim_rule("sub", Condition::In(domain.clone()))
        .algorithms([
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::ES256,
            Algorithm::ES384,
            Algorithm::ES512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ])?;
    issuer.profile().trust_domain = Some(domain);
    Ok(issuer)
}

/// Creates an issuer whose keys are at a path under `iss`.
fn with_keys(iss: &str, audience: impl Into<Audience>, path: &str) -> Result<Issuer, ConfigError> {
    Issuer::new(iss, audience)?.jwks_uri(&format!("{}{path}", iss.trim_end_matches('/')))
}

/// Checks that `name` is a host name, optionally with a port, because it becomes part of a URL.
fn host(name: &str) -> Result<&str, ConfigError> {
    let url = format!("https://{name}/");
    match Url::parse(&url) {
        Ok(parsed)
            if parsed.as_str() == url && parsed.path() == "/" && parsed.username().is_empty() =>
        {
            Ok(name)
        }
        _ => Err(ConfigError::new(format!(
            "domain {name:?}: expected a host name in lower case, without scheme and path"
        ))),
    }
}

/// Checks that `name` is one path segment.
fn segment(name: &str) -> Result<&str, ConfigError> {
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    if !name.is_empty() && !name.starts_with('.') && name.bytes().all(is_plain) {
        Ok(name)
    } else {
        Err(ConfigError::new(format!("{name:?}: expected letters, digits, `-`, `.`, `_` and `~`")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::issuer::KeySource;

    #[test]
    fn keys_are_where_the_providers_have_them() {
        let cases = [
            (
                cognito("eu-west-1", "p", ["c"]),
                "https://cognito-idp.eu-west-1.amazonaws.com/p/.well-known/jwks.json",
            ),
            (
                firebase("p"),
                "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com",
            ),
            (supabase("p"), "https://p.supabase.co/auth/v1/.well-known/jwks.json"),
            (
                clerk("https://clerk.a.test/", ["https://a.test"]),
                "https://clerk.a.test/.well-known/jwks.json",
            ),
            (workos("client_1"), "https://api.workos.com/sso/jwks/client_1"),
            (descope("P2", "a"), "https://api.descope.com/P2/.well-known/jwks.json"),
            (apple("a"), "https://appleid.apple.com/auth/keys"),
            (
                cloudflare_access("acme", "a"),
                "https://acme.cloudflareaccess.com/cdn-cgi/access/certs",
            ),
            (gcp_iap("a"), "https://www.gstatic.com/iap/verify/public_key-jwk"),
            (
                aws_alb(
                    "arn:aws:elasticloadbalancing:eu-west-1:1:loadbalancer/app/lb/5",
                    "https://idp.test",
                ),
                "https://public-keys.auth.elb.eu-west-1.amazonaws.com/",
            ),
        ];
        for (issuer, expected) in cases {
            match issuer.unwrap().key_source {
                KeySource::JwksUri(url) | KeySource::PemByKid(url) => {
                    assert_eq!(url.as_str(), expected);
                }
                _ => panic!("{expected}: expected an address"),
            }
        }
        let discovered = [
            (auth0("a.auth0.com", "a"), "https://a.auth0.com/"),
            (entra_multi_tenant("a"), "https://login.microsoftonline.com/common/v2.0"),
            (keycloak("https://sso.test/", "r", "a"), "https://sso.test/realms/r"),
            (google("a"), "https://accounts.google.com/"),
        ];
        for (issuer, expected) in discovered {
            assert_eq!(issuer.unwrap().metadata_url().unwrap().as_str(), expected);
        }
    }
}
