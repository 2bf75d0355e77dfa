//! The requests that every framework has to answer the same way.

use portcullis::testing::TestIssuer;
use portcullis::{ProtectLayer, Verifier};

pub struct Case {
    pub name: &'static str,
    pub token: Option<String>,
    pub status: u16,
    /// What the challenge contains, or the body if there is no challenge.
    pub says: &'static str,
}

/// A layer that requires `orders:read`, and requests for it.
pub fn api() -> (ProtectLayer, [Case; 4]) {
    let issuer = TestIssuer::offline("https://issuer.example/").unwrap();
    let layer = ProtectLayer::new(Verifier::new(issuer.issuer()).unwrap()).scope("orders:read");
    let token = || issuer.token().subject("alice");
    let cases = [
        Case {
            name: "a token with the scope",
            token: Some(token().scope("orders:read").build()),
            status: 200,
            says: "orders of alice",
        },
        Case { name: "no token", token: None, status: 401, says: "scope=\"orders:read\"" },
        Case {
            name: "an invalid token",
            token: Some(token().tampered().build()),
            status: 401,
            says: "error=\"invalid_token\"",
        },
        Case {
            name: "a token without the scope",
            token: Some(token().build()),
            status: 403,
            says: "error=\"insufficient_scope\"",
        },
    ];
    (layer, cases)
}

impl Case {
    pub fn authorization(&self) -> Option<String> {
        self.token.as_ref().map(|token| format!("Bearer {token}"))
    }

    pub fn check(&self, status: u16, challenge: Option<&str>, body: &str) {
        assert_eq!(status, self.status, "{}", self.name);
        let text = challenge.unwrap_or(body);
        assert!(text.contains(self.says), "{}: {text}", self.name);
    }
}
