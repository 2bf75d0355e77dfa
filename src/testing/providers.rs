//! Tokens with the claims and headers of real issuers.

use serde_json::json;

use super::{AUDIENCE, TokenBuilder};

/// Tokens with the claims and headers that real issuers send, for the [`Issuer`](crate::Issuer)
/// constructors of the same names. `iss` stays that of the [`TestIssuer`](super::TestIssuer):
/// create one [`offline`](super::TestIssuer::offline) with the `iss` of the provider.
///
/// Entra ID, Cognito and Google sign with RS256, and their constructors accept no other algorithm.
///
/// Call these methods first, and change the token afterwards: [`scope`](Self::scope) and
/// [`audience`](Self::audience) then write the claims that this provider uses.
///
/// ```
/// use portcullis::testing::{AUDIENCE, TestIssuer};
/// use portcullis::{Issuer, Verifier};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let okta = portcullis::providers::okta("acme.okta.com", "default", AUDIENCE)?;
/// let issuer = TestIssuer::offline(okta.iss())?;
/// let verifier = Verifier::new(okta.jwks(issuer.jwks()))?;
///
/// let token = verifier.verify(&issuer.token().like_okta().scope("orders.read").build()).await?;
/// assert!(token.has_scope("orders.read"));
/// assert_eq!(token.claim("scp").and_then(|scp| scp.as_array()).map(Vec::len), Some(1));
/// # Ok(())
/// # }
/// ```
impl TokenBuilder {
    /// A token of Auth0's own profile: `typ: JWT`, `azp`, `/userinfo` beside the API in `aud`,
    /// `permissions` as with RBAC.
    ///
    /// With Auth0's RFC 9068 profile, a token is like that of
    /// [`TestIssuer::token`](super::TestIssuer::token), plus a `jti`.
    pub fn like_auth0(self) -> Self {
        let userinfo = format!("{}userinfo", self.iss());
        self.bare("JWT")
            .subject("auth0|6553da60a54af58e29493993")
            .audience_in("aud", Some(userinfo), AUDIENCE)
            .claim("azp", "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja")
            .claim("permissions", json!([]))
    }

    /// A token of an Okta custom authorization server: no `typ`, `cid`, `uid`, and scope as an
    /// array in `scp`.
    pub fn like_okta(self) -> Self {
        self.bare("")
            .scope_in("scp", true)
            .subject("joe@acme.example")
            .claim("ver", 1)
            .claim("jti", "AT.pKoLFoM7X4P4DrJBRvXaJzj9g0-naK1C")
            .claim("cid", "0oaipnnzumvqt5tiu1d6")
            .claim("uid", "00uzrjisTQK1SlAMB1d5")
    }

    /// A token of Entra ID, version 2.0, for this tenant (a GUID): `tid`, `oid`, `azp`, scope in
    /// `scp`, application roles in `roles`.
    pub fn like_entra(self, tenant: &str) -> Self {
        let from = self.now();
        self.bare("JWT")
            .scope_in("scp", false)
            .subject("HKZpfaHyWadeOouYlitjrI")
            .claim("nbf", from)
            .claim("ver", "2.0")
            .claim("tid", tenant)
            .claim("oid", "690222be-ff1a-4d56-abd1-7e4f7d38e474")
            .claim("azp", "0f1c2d3e-4b5a-4c6d-8e7f-9a0b1c2d3e4f")
            .claim("azpacr", "1")
            .claim("roles", json!([]))
    }

    /// A token of Amazon Cognito: no `aud`, but `client_id`, `token_use`, `username`, groups in
    /// `cognito:groups`.
    pub fn like_cognito(self) -> Self {
        let from = self.now();
        self.bare("")
            .without_claim("aud")
            .subject("aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee")
            .audience_in("client_id", None, "xxxxxxxxxxxxexample")
            .claim("token_use", "access")
            .claim("username", "alice")
            .claim("auth_time", from)
            .claim("version", 2)
            .claim("cognito:groups", json!([]))
    }

    /// A token of Keycloak: its own `typ` among the claims, `azp`, roles in `realm_access` and
    /// `resource_access`. For a role of a client, call
    /// `.claim("resource_access", json!({ "orders-api": { "roles": ["clerk"] } }))`.
    pub fn like_keycloak(self) -> Self {
        self.bare("JWT")
            .subject("4cc2a1d1-1b6f-4c6b-9b0e-4f3b5f9a2d11")
            .audience_in("aud", Some("account".to_owned()), AUDIENCE)
            .claim("typ", "Bearer")
            .claim("azp", "web-app")
            .claim("sid", "c8e2f2f0-1d2f-4f0e-8f3c-2f6a9a3d7b21")
            .claim("realm_access", json!({ "roles": ["offline_access"] }))
            .claim("resource_access", json!({ "account": { "roles": ["view-profile"] } }))
            .claim("preferred_username", "alice")
    }

    /// A Google ID token, as services on Google Cloud send them to each other.
    pub fn like_google(self) -> Self {
        self.bare("JWT")
            .subject("104029292853099978293")
            .claim("azp", "104029292853099978293")
            .claim("email", "worker@acme-project.iam.gserviceaccount.com")
            .claim("email_verified", true)
    }

    /// Sets this `typ`, and removes the claims that only RFC 9068 requires.
    fn bare(self, typ: &str) -> Self {
        let token = self.without_claim("client_id");
        match typ {
            "" => token.without_header("typ"),
            typ => token.header("typ", typ),
        }
    }
}
