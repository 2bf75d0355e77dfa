//! The requests that every framework has to answer the same way.

use std::time::Duration;

use portcullis::testing::{DpopClient, TestClock, TestIssuer};
use portcullis::{Dpop, Nonces, ProtectLayer, Verifier};

pub struct Case {
    pub name: &'static str,
    pub headers: Vec<(&'static str, String)>,
    pub status: u16,
    /// What the challenge contains, or the body if there is no challenge.
    pub says: &'static str,
    /// Whether the response has a nonce for the next DPoP proof.
    pub hands_out_a_nonce: bool,
}

/// A layer that requires `orders:read`, and requests for it.
pub fn api() -> (ProtectLayer, [Case; 6]) {
    let (issuer, clock) =
        (TestIssuer::offline("https://issuer.example/").unwrap(), TestClock::new());
    issuer.set_clock(&clock);
    let dpop = Dpop::new("http://127.0.0.1").unwrap().nonces(Nonces::new([[7; 32]]).unwrap());
    let verifier = Verifier::builder(issuer.issuer()).dpop(dpop).clock(&clock).build().unwrap();
    let layer = ProtectLayer::new(verifier).scope("orders:read");
    let token = || issuer.token().subject("alice");
    let bearer = |token: String| vec![("authorization", format!("Bearer {token}"))];

    let client = DpopClient::new().unwrap();
    let bound = token().scope("orders:read").bound_to(&client).build();
    let proof = || client.proof("GET", "http://127.0.0.1/orders", &bound);
    let with = |proof| vec![("authorization", format!("DPoP {bound}")), ("dpop", proof)];
    let without_nonce = with(proof().build());
    let request = without_nonce
        .iter()
        .fold(http::Request::get("/orders"), |request, header| request.header(header.0, &header.1));
    let (head, ()) = request.body(()).unwrap().into_parts();
    let rejection = layer.try_verify_request(&head).unwrap().unwrap_err();
    let nonce = rejection.headers()["dpop-nonce"].to_str().unwrap().to_owned();
    // It is still accepted, and the next one is handed out.
    clock.advance(Duration::from_secs(60));
    let with_nonce = with(proof().nonce(&nonce).build());

    let case = |name, headers, status, says, hands_out_a_nonce| Case {
        name,
        headers,
        status,
        says,
        hands_out_a_nonce,
    };
    let scoped = bearer(token().scope("orders:read").build());
    let tampered = bearer(token().tampered().build());
    let unscoped = bearer(token().build());
    let cases = [
        case("a token with the scope", scoped, 200, "orders of alice", false),
        case("no token", vec![], 401, "scope=\"orders:read\"", false),
        case("an invalid token", tampered, 401, "error=\"invalid_token\"", false),
        case("a token without the scope", unscoped, 403, "error=\"insufficient_scope\"", false),
        case("a proof without a nonce", without_nonce, 401, "error=\"use_dpop_nonce\"", true),
        case("a proof with a nonce", with_nonce, 200, "orders of alice", true),
    ];
    (layer, cases)
}

impl Case {
    /// `header`: the first value of a header of the response.
    pub fn check(&self, status: u16, header: impl Fn(&str) -> Option<String>, body: &str) {
        assert_eq!(status, self.status, "{}", self.name);
        let text = header("www-authenticate").unwrap_or_else(|| body.to_owned());
        assert!(text.contains(self.says), "{}: {text}", self.name);
        assert_eq!(header("dpop-nonce").is_some(), self.hands_out_a_nonce, "{}", self.name);
    }
}
