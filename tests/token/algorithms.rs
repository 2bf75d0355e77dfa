//! Which algorithm a key serves (RFC 7517 §4.4, RFC 9864).

use portcullis::testing::{AUDIENCE, TestIssuer};
use portcullis::{Algorithm, Issuer, Jwks, Verifier};

use crate::set;
use crate::verdict::verdict;

#[tokio::test]
async fn each_rsa_key_serves_one_algorithm() {
    struct Case {
        name: &'static str,
        config: Issuer,
        expected: &'static str,
    }

    for own in [Algorithm::RS256, Algorithm::PS256] {
        let issuer = TestIssuer::offline_with("https://issuer.example/", own).unwrap();
        let mut jwk = issuer.jwks_json()["keys"][0].clone();
        let without_alg = {
            jwk.as_object_mut().unwrap().remove("alg");
            Jwks::from_json(set(&jwk.to_string())).unwrap()
        };
        let base = || Issuer::new(issuer.iss(), AUDIENCE).unwrap();
        let only =
            |algorithms: &[Algorithm]| base().algorithms(algorithms.iter().copied()).unwrap();
        let is_own = |expected: Algorithm| if own == expected { "ok" } else { "unknown_key" };
        for Case { name, config, expected } in [
            Case { name: "the key has alg", config: base().jwks(issuer.jwks()), expected: "ok" },
            Case {
                name: "the default is RS256",
                config: base().jwks(without_alg.clone()),
                expected: is_own(Algorithm::RS256),
            },
            Case {
                name: "the issuer allows PS256",
                config: only(&[Algorithm::PS256]).jwks(without_alg.clone()),
                expected: if own == Algorithm::PS256 { "ok" } else { "unsupported_algorithm" },
            },
            Case {
                name: "the first RSA algorithm of the issuer applies",
                config: only(&[Algorithm::PS256, Algorithm::RS256]).jwks(without_alg.clone()),
                expected: is_own(Algorithm::PS256),
            },
            Case {
                name: "the issuer allows EdDSA",
                config: only(&[Algorithm::EdDSA]).jwks(issuer.jwks()),
                expected: "unsupported_algorithm",
            },
        ] {
            let verifier = Verifier::new(config).unwrap();
            assert_eq!(
                verdict(&verifier, &issuer.token().build()).await,
                expected,
                "{own}: {name}"
            );
        }
    }
}

/// RSA keys without `alg`, as in RFC 7520 §4.2 and vectors of other projects, serve the configured
/// algorithm.
#[tokio::test]
async fn rsa_keys_without_alg_serve_the_configured_algorithm() {
    struct Case {
        name: &'static str,
        issuer: Issuer,
        ok: bool,
    }

    use Algorithm::{ES256, PS256, PS384, PS512, RS256, RS384, RS512};
    let issuer = TestIssuer::offline_with("https://issuer.example/", RS256).unwrap();
    let mut set = issuer.jwks_json();
    set["keys"][0].as_object_mut().unwrap().remove("alg");
    let jwks = || Jwks::from_json(set.to_string()).unwrap();
    let verifies = |algorithm: Algorithm| {
        let signer = TestIssuer::offline_with("x", algorithm).unwrap();
        let mut own = signer.jwks_json();
        own["keys"][0].as_object_mut().unwrap().remove("alg");
        let jwks = Jwks::from_json(own.to_string()).unwrap().rsa_algorithm(algorithm).unwrap();
        jwks.verify(&signer.token().build()).is_ok()
    };
    for algorithm in [RS256, RS384, RS512, PS256, PS384, PS512] {
        assert!(verifies(algorithm), "{algorithm}");
    }
    assert!(jwks().verify(&issuer.token().build()).is_ok(), "RS256 by default");
    let other = jwks().rsa_algorithm(PS384).unwrap();
    assert!(other.verify(&issuer.token().build()).is_err(), "only the configured algorithm");
    assert!(jwks().rsa_algorithm(ES256).is_err());
    // As keys of an issuer, the issuer's configuration takes precedence over that of the set.
    let trust = |jwks: Jwks| Issuer::new(issuer.iss(), AUDIENCE).unwrap().jwks(jwks);
    let token = issuer.token().build();
    for Case { name, issuer, ok } in [
        Case {
            name: "algorithm of the set",
            issuer: trust(jwks().rsa_algorithm(PS384).unwrap()),
            ok: false,
        },
        Case { name: "default algorithm", issuer: trust(jwks()), ok: true },
        Case {
            name: "algorithm of the issuer",
            issuer: trust(jwks().rsa_algorithm(PS384).unwrap()).algorithms([RS256]).unwrap(),
            ok: true,
        },
    ] {
        assert_eq!(Verifier::new(issuer).unwrap().verify(&token).await.is_ok(), ok, "{name}");
    }
}

/// RFC 9864 §2.2: `Ed25519` is equivalent to `EdDSA` with an Ed25519 key.
#[tokio::test]
async fn ed25519_has_two_algorithm_names() {
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    for key_says in [Some("EdDSA"), Some("Ed25519"), None] {
        let mut jwk = issuer.jwks_json()["keys"][0].clone();
        match key_says {
            Some(name) => jwk["alg"] = name.into(),
            None => drop(jwk.as_object_mut().unwrap().remove("alg")),
        }
        let config = Issuer::new(issuer.iss(), AUDIENCE).unwrap();
        let verifier =
            Verifier::new(config.jwks(Jwks::from_json(set(&jwk.to_string())).unwrap())).unwrap();
        for token_says in ["EdDSA", "Ed25519"] {
            let token = issuer.token().header("alg", token_says).build();
            assert!(verifier.verify(&token).await.is_ok(), "key {key_says:?}, token {token_says}");
        }
    }
}
