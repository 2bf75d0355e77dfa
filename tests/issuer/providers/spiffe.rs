//! JWT-SVIDs of SPIFFE trust domains: tokens without `iss`, whose subject names the issuer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portcullis::testing::{AUDIENCE, Behavior, TestClock, TestIssuer, TokenBuilder};
use portcullis::{Algorithm, Audience, Issuer, Issuers, Jwks, Verifier, providers};
use serde_json::{Value, json};

use crate::verdict::verdict;

const DOMAIN: &str = "spiffe://example.org";
const WORKLOAD: &str = "spiffe://example.org/ns/prod/sa/web";
/// The `iss` of a SPIRE server that is configured with a `jwt_issuer`.
const OIDC: &str = "https://oidc.example.org";

/// A token as SPIRE issues it: no `iss`, and the SPIFFE ID of a workload as its subject.
fn svid(issuer: &TestIssuer) -> TokenBuilder {
    let token = issuer.token().without_claim("iss").without_claim("client_id");
    token.header("typ", "JWT").subject(WORKLOAD)
}

/// The newest key of an issuer, as a bundle has it: without `alg`. `null` omits `use`.
fn member(issuer: &TestIssuer, used: Value) -> Value {
    let mut member = issuer.jwks_json()["keys"][0].clone();
    let members = member.as_object_mut().unwrap();
    members.remove("alg");
    members.remove("use");
    if !used.is_null() {
        members.insert("use".to_owned(), used);
    }
    member
}

/// The bundle of a trust domain, with the certificate of another key.
fn bundle(issuer: &TestIssuer, certified: &TestIssuer) -> String {
    let mut certificate = member(certified, json!("x509-svid"));
    certificate["x5c"] =
        json!(["MIIBzDCCAVOgAwIBAgIJAJM4DhRH0vmuMAoGCCqGSM49BAMEMB4xCzAJBgNVBAYT"]);
    let keys = [certificate, member(issuer, json!("jwt-svid"))];
    json!({ "keys": keys, "spiffe_sequence": 12, "spiffe_refresh_hint": 300 }).to_string()
}

fn offline(algorithm: Algorithm) -> TestIssuer {
    TestIssuer::offline_with(DOMAIN, algorithm).unwrap()
}

#[tokio::test]
async fn jwt_svids_are_accepted_by_their_subject() {
    struct Case {
        name: &'static str,
        token: TokenBuilder,
        expected: &'static str,
    }

    let spire = offline(Algorithm::ES256);
    let (other, oidc, certified) =
        (offline(Algorithm::ES256), offline(Algorithm::EdDSA), offline(Algorithm::ES256));
    let trust = |name: &str, keys: &TestIssuer| {
        let bundle = Jwks::from_spiffe_bundle(bundle(keys, &certified)).unwrap();
        providers::spiffe(name, AUDIENCE).unwrap().jwks(bundle)
    };
    let verifier = Verifier::new([
        trust("example.org", &spire).alias(OIDC).unwrap(),
        trust("other.example", &other),
        Issuer::new("https://idp.example/", AUDIENCE).unwrap().jwks(oidc.jwks()),
    ])
    .unwrap();
    let svid = || svid(&spire);
    let of = |subject: &str| svid().subject(subject);
    let longest = |bytes: usize| format!("{DOMAIN}/{}", "a".repeat(bytes - DOMAIN.len() - 1));

    for Case { name, token, expected } in [
        Case { name: "valid", token: svid(), expected: "ok" },
        Case { name: "no typ", token: svid().without_header("typ"), expected: "ok" },
        Case { name: "JOSE", token: svid().header("typ", "JOSE"), expected: "ok" },
        Case { name: "no kid", token: svid().without_header("kid"), expected: "ok" },
        Case { name: "no iat", token: svid().without_claim("iat"), expected: "ok" },
        Case {
            name: "several audiences",
            token: svid().claim("aud", json!(["orders", AUDIENCE])),
            expected: "ok",
        },
        Case {
            name: "an access token",
            token: svid().header("typ", "at+jwt"),
            expected: "unexpected_type",
        },
        Case {
            name: "a workload identity token",
            token: svid().header("typ", "wit+jwt"),
            expected: "unexpected_type",
        },
        Case {
            name: "another audience",
            token: svid().audience("spiffe://example.org/orders"),
            expected: "wrong_audience",
        },
        Case { name: "no aud", token: svid().without_claim("aud"), expected: "missing_claim" },
        Case { name: "no exp", token: svid().without_claim("exp"), expected: "missing_claim" },
        Case { name: "expired", token: svid().expired(), expected: "expired" },
        // The subject.
        Case { name: "no sub", token: svid().without_claim("sub"), expected: "missing_claim" },
        Case { name: "an empty sub", token: of(""), expected: "missing_claim" },
        Case {
            name: "a list",
            token: svid().claim("sub", json!([WORKLOAD])),
            expected: "claim_type",
        },
        Case { name: "no path", token: of(DOMAIN), expected: "claim_value" },
        Case { name: "an empty path", token: of("spiffe://example.org/"), expected: "claim_value" },
        Case {
            name: "a slash at the end",
            token: of("spiffe://example.org/web/"),
            expected: "claim_value",
        },
        Case {
            name: "an empty segment",
            token: of("spiffe://example.org//web"),
            expected: "claim_value",
        },
        Case {
            name: "a relative segment",
            token: of("spiffe://example.org/ns/../web"),
            expected: "claim_value",
        },
        Case {
            name: "a dot segment",
            token: of("spiffe://example.org/./web"),
            expected: "claim_value",
        },
        Case {
            name: "dots in a name",
            token: of("spiffe://example.org/.../v1.0/a_B-c"),
            expected: "ok",
        },
        Case {
            name: "percent-encoded",
            token: of("spiffe://example.org/we%62"),
            expected: "claim_value",
        },
        Case { name: "a query", token: of("spiffe://example.org/web?x"), expected: "claim_value" },
        Case {
            name: "a fragment",
            token: of("spiffe://example.org/web#x"),
            expected: "claim_value",
        },
        Case {
            name: "white space",
            token: of("spiffe://example.org/web "),
            expected: "claim_value",
        },
        Case { name: "2048 bytes", token: of(&longest(2048)), expected: "ok" },
        Case { name: "2049 bytes", token: of(&longest(2049)), expected: "claim_value" },
        // The trust domain.
        Case {
            name: "an unknown trust domain",
            token: of("spiffe://example.net/web"),
            expected: "claim_value",
        },
        Case {
            name: "another trust domain",
            token: of("spiffe://other.example/web"),
            expected: "bad_signature",
        },
        Case {
            name: "a longer domain",
            token: of("spiffe://example.org.evil/web"),
            expected: "claim_value",
        },
        Case {
            name: "a subdomain",
            token: of("spiffe://a.example.org/web"),
            expected: "claim_value",
        },
        Case { name: "a prefix", token: of("spiffe://example.or/web"), expected: "claim_value" },
        Case { name: "upper case", token: of("spiffe://Example.org/web"), expected: "claim_value" },
        Case {
            name: "a scheme in upper case",
            token: of("SPIFFE://example.org/web"),
            expected: "claim_value",
        },
        Case {
            name: "another scheme",
            token: of("https://example.org/web"),
            expected: "claim_value",
        },
        Case { name: "a port", token: of("spiffe://example.org:443/web"), expected: "claim_value" },
        Case {
            name: "user information",
            token: of("spiffe://example.org@evil.test/web"),
            expected: "claim_value",
        },
        Case { name: "a user", token: of("spiffe://me@example.org/web"), expected: "claim_value" },
        // Tokens with `iss`.
        Case { name: "the trust domain as iss", token: svid().issued_by(DOMAIN), expected: "ok" },
        Case { name: "an alias as iss", token: svid().issued_by(OIDC), expected: "ok" },
        Case {
            name: "an untrusted iss",
            token: svid().issued_by("https://evil.test"),
            expected: "unknown_issuer",
        },
        Case { name: "an empty iss", token: svid().issued_by(""), expected: "unknown_issuer" },
        Case {
            name: "null as iss",
            token: svid().claim("iss", Value::Null),
            expected: "claim_type",
        },
        Case {
            name: "the iss of another issuer",
            token: svid().issued_by("https://idp.example/"),
            expected: "unknown_key",
        },
        Case {
            name: "the iss of another trust domain",
            token: svid().issued_by("spiffe://other.example"),
            expected: "claim_value",
        },
        Case {
            name: "iss, and the subject of another trust domain",
            token: of("spiffe://other.example/web").issued_by(OIDC),
            expected: "claim_value",
        },
        Case {
            name: "iss, and a subject without a path",
            token: of(DOMAIN).issued_by(OIDC),
            expected: "claim_value",
        },
        Case {
            name: "iss, and no subject",
            token: svid().issued_by(OIDC).without_claim("sub"),
            expected: "claim_value",
        },
        // The signature.
        Case {
            name: "HS256",
            token: svid().header("alg", "HS256"),
            expected: "unsupported_algorithm",
        },
        Case {
            name: "EdDSA",
            token: svid().header("alg", "EdDSA"),
            expected: "unsupported_algorithm",
        },
        Case { name: "none", token: svid().unsigned(), expected: "unsupported_algorithm" },
        Case { name: "forged", token: svid().signed_by(&other), expected: "bad_signature" },
        Case {
            name: "signed with a certificate",
            token: svid().signed_by(&certified),
            expected: "bad_signature",
        },
        Case { name: "tampered", token: svid().tampered(), expected: "bad_signature" },
        // Tokens of the other issuer.
        Case {
            name: "of an OAuth issuer",
            token: oidc.token().issued_by("https://idp.example/"),
            expected: "ok",
        },
        Case {
            name: "of an OAuth issuer, without iss",
            token: oidc.token().without_claim("iss"),
            expected: "claim_value",
        },
    ] {
        assert_eq!(verdict(&verifier, &token.build()).await, expected, "{name}");
    }
    for (token, issuer) in
        [(svid(), DOMAIN), (svid().issued_by(DOMAIN), DOMAIN), (svid().issued_by(OIDC), OIDC)]
    {
        let token = verifier.verify(&token.build()).await.unwrap();
        assert_eq!((token.issuer(), token.subject()), (issuer, Some(WORKLOAD)));
    }
}

#[tokio::test]
async fn rsa_and_ec_keys_of_a_bundle_verify_and_ed25519_keys_do_not() {
    for (algorithm, expected) in [
        (Algorithm::RS256, "ok"),
        (Algorithm::ES256, "ok"),
        (Algorithm::ES384, "ok"),
        (Algorithm::EdDSA, "unsupported_algorithm"),
    ] {
        let spire = offline(algorithm);
        let preset = providers::spiffe("example.org", AUDIENCE).unwrap();
        let keys = bundle(&spire, &offline(Algorithm::ES256));
        let verifier = Verifier::new(preset.jwks(Jwks::from_spiffe_bundle(keys).unwrap())).unwrap();
        assert_eq!(verdict(&verifier, &svid(&spire).build()).await, expected, "{algorithm}");
    }
    // RSA keys of a bundle have no `alg`.
    let spire = offline(Algorithm::PS256);
    let keys = Jwks::from_spiffe_bundle(bundle(&spire, &offline(Algorithm::ES256))).unwrap();
    let preset = providers::spiffe("example.org", AUDIENCE).unwrap().jwks(keys);
    for (name, preset, expected) in [
        ("default", preset.clone(), "unknown_key"),
        ("PS256 first", preset.algorithms([Algorithm::PS256]).unwrap(), "ok"),
    ] {
        let verifier = Verifier::new(preset).unwrap();
        assert_eq!(verdict(&verifier, &svid(&spire).build()).await, expected, "{name}");
    }
}

/// Without a configured trust domain, `sub` never names the issuer, whatever the name of an issuer.
#[tokio::test]
async fn only_configured_trust_domains_issue_tokens_without_iss() {
    let spire = offline(Algorithm::ES256);
    let ordinary = || Issuer::new(DOMAIN, AUDIENCE).unwrap().jwks(spire.jwks());
    let asked = Arc::new(AtomicUsize::new(0));
    let lookup = |issuer: Issuer| {
        let asked = Arc::clone(&asked);
        Issuers::lookup(move |iss: &str| {
            asked.fetch_add(1, Ordering::Relaxed);
            (iss == issuer.iss()).then(|| issuer.clone())
        })
    };
    let own = Jwks::from_spiffe_bundle(bundle(&spire, &offline(Algorithm::ES256))).unwrap();
    let preset = |name| providers::spiffe(name, AUDIENCE).unwrap().jwks(own.clone());
    for (name, issuers, expected) in [
        ("an ordinary issuer", Issuers::from(ordinary()), "missing_claim"),
        ("a lookup", lookup(ordinary()), "missing_claim"),
        ("a trust domain of a lookup", lookup(preset("example.org")), "missing_claim"),
        (
            "another trust domain, and a lookup",
            lookup(ordinary()).with_issuers([preset("other.example")]).unwrap(),
            "claim_value",
        ),
        (
            "a trust domain, and a lookup",
            lookup(ordinary()).with_issuers([preset("example.org")]).unwrap(),
            "ok",
        ),
    ] {
        let verifier = Verifier::new(issuers).unwrap();
        assert_eq!(verdict(&verifier, &svid(&spire).build()).await, expected, "{name}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0, "no lookup of an unverified subject");
}

#[tokio::test]
async fn keys_are_used_as_the_document_says() {
    /// The `use` of a key, and whether the key verifies tokens.
    struct Case {
        used: Value,
        in_bundle: &'static str,
        in_jwks: &'static str,
    }
    const NONE: &str = "keys_unavailable";

    for Case { used, in_bundle, in_jwks } in [
        Case { used: json!("jwt-svid"), in_bundle: "ok", in_jwks: NONE },
        Case { used: json!("x509-svid"), in_bundle: NONE, in_jwks: NONE },
        Case { used: json!("sig"), in_bundle: NONE, in_jwks: "ok" },
        Case { used: Value::Null, in_bundle: NONE, in_jwks: "ok" },
        Case { used: json!("enc"), in_bundle: NONE, in_jwks: NONE },
        Case { used: json!("JWT-SVID"), in_bundle: NONE, in_jwks: NONE },
        Case { used: json!(["jwt-svid"]), in_bundle: NONE, in_jwks: NONE },
    ] {
        let server = TestIssuer::start().unwrap();
        let document = json!({ "keys": [member(&server, used.clone())] }).to_string();
        server.set_behavior(Behavior::Body(document.clone()));
        let uri = format!("{}.well-known/jwks.json", server.iss());
        for (config, parsed, expected) in [
            (
                providers::spiffe("example.org", AUDIENCE).unwrap(),
                Jwks::from_spiffe_bundle(&document),
                in_bundle,
            ),
            (Issuer::new(DOMAIN, AUDIENCE).unwrap(), Jwks::from_json(&document), in_jwks),
        ] {
            let verifier = Verifier::new(config.jwks_uri(&uri).unwrap()).unwrap();
            let token = svid(&server).issued_by(DOMAIN).build();
            assert_eq!(verdict(&verifier, &token).await, expected, "{used}");
            assert_eq!(parsed.is_ok(), expected == "ok", "{used}");
        }
    }
}

/// Without `Cache-Control`, a bundle is fetched again as often as it says.
#[tokio::test]
async fn the_refresh_hint_of_a_bundle_sets_its_lifetime() {
    struct Case {
        name: &'static str,
        hint: Value,
        fetches: usize,
    }

    for Case { name, hint, fetches } in [
        Case { name: "300 seconds", hint: json!(300), fetches: 2 },
        Case { name: "too short", hint: json!(0), fetches: 2 },
        Case { name: "longer than the test", hint: json!(900), fetches: 1 },
        Case { name: "none: ten minutes", hint: Value::Null, fetches: 1 },
        Case { name: "not a number", hint: json!("300"), fetches: 1 },
        Case { name: "negative", hint: json!(-1), fetches: 1 },
    ] {
        let (clock, server) = (TestClock::new(), TestIssuer::start().unwrap());
        server.set_clock(&clock);
        let keys = [member(&server, json!("jwt-svid"))];
        let document = json!({ "keys": keys, "spiffe_refresh_hint": hint });
        server.set_behavior(Behavior::Body(document.to_string()));
        let uri = format!("{}.well-known/jwks.json", server.iss());
        let preset = providers::spiffe("example.org", AUDIENCE).unwrap().jwks_uri(&uri).unwrap();
        let verifier = Verifier::builder(preset).clock(&clock).build().unwrap();
        assert_eq!(verdict(&verifier, &svid(&server).build()).await, "ok", "{name}");
        assert_eq!(server.jwks_fetches(), 1, "{name}");
        clock.advance(Duration::from_secs(301));
        assert_eq!(verdict(&verifier, &svid(&server).build()).await, "ok", "{name}");
        assert_eq!(server.jwks_fetches(), fetches, "{name}");
    }
}

#[test]
fn misconfigured_trust_domains_are_reported() {
    for (name, is_valid) in [
        ("example.org", true),
        ("a", true),
        ("prod_1.my-domain", true),
        (&*"a".repeat(255), true),
        (&*"a".repeat(256), false),
        ("", false),
        ("Example.org", false),
        ("example.org:8443", false),
        ("me@example.org", false),
        ("spiffe://example.org", false),
        ("example.org/", false),
        ("example.org/web", false),
        ("example.org?x", false),
        ("exa mple.org", false),
        ("ex%61mple.org", false),
        ("exämple.org", false),
    ] {
        assert_eq!(providers::spiffe(name, AUDIENCE).is_ok(), is_valid, "{name:?}");
    }
    assert!(providers::spiffe("example.org", "").is_err(), "no audience");

    let preset = || providers::spiffe("example.org", AUDIENCE).unwrap();
    let url = "https://spire.example.org/";
    let other_keys = offline(Algorithm::ES256).jwks();
    for (name, issuer) in [
        ("no bundle", preset()),
        ("discovery", preset().discovery_url(url).unwrap()),
        ("keys in PEM", preset().pem_key_prefix(url).unwrap()),
        ("a JWK Set", preset().jwks(other_keys)),
        ("a secret", preset().secret(Algorithm::HS256, &[7; 32]).unwrap()),
    ] {
        let error = Verifier::new(issuer).unwrap_err().to_string();
        assert!(error.contains("bundle of the trust domain"), "{name}: {error}");
    }
    let no_aud = [
        ("client_id", Audience::client_id(["web"])),
        ("authorized_party", Audience::authorized_party(["web"])),
        ("any", Audience::danger_any_audience()),
    ];
    for (name, audience) in no_aud {
        let issuer = providers::spiffe("example.org", audience).unwrap().jwks_uri(url).unwrap();
        let error = Verifier::new(issuer).unwrap_err().to_string();
        assert!(error.contains("expected an audience"), "{name}: {error}");
    }
    let fetched = || preset().jwks_uri(url).unwrap();
    assert!(Verifier::new(fetched()).is_ok());
    assert!(Verifier::new([fetched(), fetched()]).is_err(), "the same trust domain twice");
}
