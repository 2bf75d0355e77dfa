//! Invalid configurations are errors that name what is invalid.

use std::time::Duration;

use portcullis::testing::{AUDIENCE, TestIssuer};
use portcullis::{
    Algorithm, ClientAuth, ConfigError, Introspection, Issuer, Issuers, Verifier, providers,
};

#[test]
fn invalid_lists_of_issuers_are_errors() {
    let issuer = |iss: &str| Issuer::new(iss, AUDIENCE).unwrap();
    struct Case {
        name: &'static str,
        issuers: Vec<Issuer>,
        sentence: &'static str,
    }
    for Case { name, issuers, sentence } in [
        Case {
            name: "duplicate issuer",
            issuers: vec![issuer("https://a.example"), issuer("https://a.example")],
            sentence: "in the list twice",
        },
        Case { name: "no issuer", issuers: vec![], sentence: "the list is empty" },
    ] {
        let error = Verifier::new(issuers).unwrap_err().to_string();
        assert!(error.contains(sentence), "{name}: {error}");
    }
    let differing = vec![issuer("https://a.example"), issuer("https://a.example/")];
    assert!(
        Verifier::new(differing).is_ok(),
        "issuers that differ in a trailing slash are distinct"
    );
}

#[test]
fn invalid_configurations_are_errors_that_name_the_value() {
    let issuer = || Issuer::new("https://issuer.example/", AUDIENCE);
    let verifier = |issuer: Issuer| Verifier::new(issuer).map(drop);
    let secret = [7; 32];
    let fixed = || TestIssuer::offline_with("x", Algorithm::EdDSA).unwrap().jwks();
    struct Case {
        name: &'static str,
        result: Result<(), ConfigError>,
        sentence: &'static str,
    }
    let cases = [
        Case {
            name: "empty issuer",
            result: Issuer::new("", AUDIENCE).map(drop),
            sentence: "issuer \"\"",
        },
        Case {
            name: "empty audience",
            result: Issuer::new("https://a.example", "").map(drop),
            sentence: "audience",
        },
        Case {
            name: "no audience",
            result: Issuer::new("https://a.example", Vec::<String>::new()).map(drop),
            sentence: "audience",
        },
        Case {
            name: "issuer with a newline",
            result: Issuer::new("https://a.example/\n", "a").map(drop),
            sentence: "without surrounding whitespace",
        },
        Case {
            name: "audience with a space",
            result: Issuer::new("https://a.example/", "a ").map(drop),
            sentence: "audience \"a \"",
        },
        Case {
            name: "one empty audience",
            result: Issuer::new("https://a.example", ["a", " "]).map(drop),
            sentence: "audience",
        },
        Case {
            name: "keys over http",
            result: issuer().and_then(|i| i.jwks_uri("http://keys.example/jwks")).map(drop),
            sentence: "http://keys.example/jwks",
        },
        Case {
            name: "keys at a file",
            result: issuer().and_then(|i| i.jwks_uri("file:///jwks")).map(drop),
            sentence: "file:///jwks",
        },
        Case {
            name: "keys at a relative URL",
            result: issuer().and_then(|i| i.jwks_uri("jwks")).map(drop),
            sentence: "jwks",
        },
        Case {
            name: "discovery over http",
            result: Issuer::new("http://a.example", "a").and_then(verifier),
            sentence: "http only on loopback",
        },
        Case {
            name: "discovery without a URL",
            result: Issuer::new("P2Pqj", "a").and_then(verifier),
            sentence: "jwks_uri",
        },
        Case {
            name: "short secret",
            result: issuer().and_then(|i| i.secret(Algorithm::HS256, &secret[1..])).map(drop),
            sentence: "at least 32 bytes, found 31",
        },
        Case {
            name: "secret for RSA",
            result: issuer().and_then(|i| i.secret(Algorithm::RS256, &secret)).map(drop),
            sentence: "RS256",
        },
        Case {
            name: "HMAC with remote keys",
            result: issuer().and_then(|i| i.algorithms([Algorithm::HS256])).map(drop),
            sentence: "HS256",
        },
        Case {
            name: "no algorithm",
            result: issuer().and_then(|i| i.algorithms([])).map(drop),
            sentence: "algorithms []",
        },
        Case {
            name: "long leeway",
            result: issuer().and_then(|i| i.leeway(Duration::from_secs(301))).map(drop),
            sentence: "301s",
        },
        Case {
            name: "no lifetime",
            result: issuer().and_then(|i| i.keys_max_age(Duration::ZERO)).map(drop),
            sentence: "0ns",
        },
        Case {
            name: "lifetime too short",
            result: issuer().and_then(|i| i.keys_max_age(Duration::from_millis(999))).map(drop),
            sentence: "999ms",
        },
        Case {
            name: "lifetime too long",
            result: issuer().and_then(|i| i.keys_max_age(Duration::from_secs(86_401))).map(drop),
            sentence: "86401s",
        },
        Case {
            name: "stale too long",
            result: issuer().and_then(|i| i.keys_max_stale(Duration::from_secs(86_401))).map(drop),
            sentence: "86401s",
        },
        Case {
            name: "fetch timeout too long",
            result: issuer()
                .and_then(|i| i.keys_fetch_timeout(Duration::from_millis(60_001)))
                .map(drop),
            sentence: "60.001s",
        },
        Case {
            name: "same origin without discovery",
            result: issuer()
                .and_then(|i| i.jwks_uri("https://keys.example/"))
                .map(Issuer::require_same_origin_keys)
                .and_then(verifier),
            sentence: "`require_same_origin_keys`",
        },
        Case {
            name: "algorithms of a secret",
            result: issuer()
                .and_then(|i| i.secret(Algorithm::HS256, &secret))
                .and_then(|i| i.algorithms([Algorithm::RS256]))
                .map(drop),
            sentence: "no call after `secret`",
        },
        Case {
            name: "alias with a space",
            result: issuer().and_then(|i| i.alias("a ")).map(drop),
            sentence: "issuer \"a \"",
        },
        Case {
            name: "refresh_after zero",
            result: Verifier::new(Issuers::lookup(|_| None).refresh_after(Duration::ZERO))
                .map(drop),
            sentence: "refresh_after 0ns",
        },
        Case {
            name: "refresh_after too long",
            result: Verifier::new(Issuers::lookup(|_| None).refresh_after(Duration::MAX)).map(drop),
            sentence: "refresh_after",
        },
        Case {
            name: "a claim without allowed values",
            result: providers::github_actions(Vec::<String>::new(), "a")
                .map(|i| i.jwks(fixed()))
                .and_then(verifier),
            sentence: "claim \"repository\"",
        },
        Case {
            name: "max_cached zero",
            result: Verifier::new(Issuers::lookup(|_| None).max_cached(0)).map(drop),
            sentence: "max_cached",
        },
        Case {
            name: "tenants without a template",
            result: issuer().and_then(|i| i.tenants(["a"])).map(drop),
            sentence: "a `template`",
        },
        Case {
            name: "fetch timeout zero",
            result: issuer().and_then(|i| i.keys_fetch_timeout(Duration::ZERO)).map(drop),
            sentence: "0ns",
        },
    ];
    for Case { name, result, sentence } in cases {
        let error = result.expect_err(name).to_string();
        assert!(error.contains(sentence), "{name}: {error}");
    }
    for iss in
        ["http://localhost:1/", "http://127.0.0.1:1/", "http://127.9.9.9/", "http://[::1]:1/"]
    {
        assert!(Issuer::new(iss, "a").and_then(verifier).is_ok(), "{iss} is loopback");
    }
    // Only keys are discovered at `iss`. An issuer that is asked instead needs no URL as its name.
    let asked = Introspection::at("https://a.example/", ClientAuth::client_secret("id", "secret"));
    let asked = Issuer::new("P2Pqj", "a").unwrap().introspection(asked.instead_of_keys());
    assert!(verifier(asked).is_ok(), "asked instead of keys");
    for iss in [
        "http://localhost.example/",
        "http://128.0.0.1/",
        "http://[::2]/",
        "http://127.0.0.1.example/",
    ] {
        assert!(Issuer::new(iss, "a").and_then(verifier).is_err(), "{iss} is not loopback");
    }
}
