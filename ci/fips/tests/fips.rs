//! What docs/fips.md says, with the FIPS module. The module counts the approved services of each
//! thread (`FIPS_service_indicator_before_call`), so the tests do not trust a list of algorithms.

use std::io::Write;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::testing::{AUDIENCE, TestIssuer};
use portcullis::{Algorithm, ApiKey, ClientCertificate, Issuer, Jwks, Verifier};

const ISS: &str = "https://issuer.example/";
const SECRET: &[u8; 64] = &[7; 64];

/// How many approved services of the module `operation` used on this thread.
fn approved_services<T>(operation: impl FnOnce() -> T) -> (u64, T) {
    // SAFETY: both functions read a counter of the thread, and have no preconditions.
    let before = unsafe { aws_lc_fips_sys::FIPS_service_indicator_before_call() };
    let result = operation();
    let after = unsafe { aws_lc_fips_sys::FIPS_service_indicator_after_call() };
    (after - before, result)
}

#[test]
fn signatures_of_each_algorithm_are_verified_by_an_approved_service() {
    use Algorithm::*;
    for algorithm in [
        RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, MlDsa44, MlDsa65,
        MlDsa87,
    ] {
        let issuer = TestIssuer::offline_with(ISS, algorithm).unwrap();
        let token = issuer.token().build();
        let jwks = issuer.jwks();
        let (services, verified) = approved_services(|| jwks.verify(&token));
        assert!(verified.is_ok(), "{algorithm}: {verified:?}");
        assert_eq!(services, 1, "{algorithm}: the whole verification is one service");

        // A hash that is computed apart would be an approved service of its own, also here.
        let tampered = issuer.token().tampered().build();
        let (services, verified) = approved_services(|| jwks.verify(&tampered));
        assert!(verified.is_err(), "{algorithm}");
        assert_eq!(services, 0, "{algorithm}: a wrong signature is the result of no service");

        let config = issuer.issuer().algorithms([algorithm]).unwrap();
        let verifier = Verifier::builder(config).require_fips().build().unwrap();
        assert!(verifier.try_verify(&token).unwrap().is_ok(), "{algorithm}");
    }
}

#[test]
fn secrets_are_used_by_an_approved_service() {
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        let issuer = TestIssuer::offline_with_secret(ISS, algorithm, SECRET);
        let verifier = Verifier::builder(issuer.issuer()).require_fips().build().unwrap();
        let token = issuer.token().build();
        let (services, verified) = approved_services(|| verifier.try_verify(&token));
        assert!(verified.unwrap().is_ok(), "{algorithm}");
        assert!(services > 0, "{algorithm}");
    }
}

#[test]
fn hashes_and_random_numbers_are_approved_services() {
    let (hash, _) = approved_services(|| ClientCertificate::from_der(b"a certificate"));
    assert!(hash > 0, "hash of a certificate");
    let (generated, key) = approved_services(|| ApiKey::generate("orders"));
    assert!(key.is_ok() && generated > 0, "API key");
}

#[test]
fn rsa_keys_outside_of_fips_186_5_are_ignored() {
    // An odd number with this many bits. Whether it has two prime factors does not matter here.
    let modulus = |bits: usize| {
        let mut bytes = vec![0xab; bits.div_ceil(8)];
        bytes[0] = 1 << ((bits - 1) % 8);
        URL_SAFE_NO_PAD.encode(bytes)
    };
    struct Case {
        name: &'static str,
        bits: usize,
        exponent: &'static str,
        is_used: bool,
    }
    let case = |name, bits, exponent, is_used| Case { name, bits, exponent, is_used };
    for Case { name, bits, exponent, is_used } in [
        case("2048 bits", 2048, "AQAB", true),
        case("3072 bits", 3072, "AQAB", true),
        case("2050 bits", 2050, "AQAB", true),
        case("an odd number of bits", 2049, "AQAB", false),
        case("exponent 3", 2048, "Aw", false),
        case("exponent 65535", 2048, "__8", false),
        case("1024 bits", 1024, "AQAB", false),
    ] {
        let json =
            format!(r#"{{"keys":[{{"kty":"RSA","n":"{}","e":"{exponent}"}}]}}"#, modulus(bits));
        let jwks = Jwks::from_json(&json);
        assert_eq!(jwks.is_ok(), is_used, "{name}: {jwks:?}");
    }
}

#[test]
fn the_built_in_http_client_is_in_fips_mode() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer({
        let log = log.clone();
        move || log.clone()
    });
    tracing::subscriber::with_default(subscriber.finish(), || {
        let issuer = Issuer::new(ISS, AUDIENCE).unwrap();
        Verifier::builder(issuer).require_fips().build().unwrap();
    });
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains(r#"event="fips_mode" module=""#), "{log}");
    assert!(
        rustls::crypto::CryptoProvider::get_default().is_none(),
        "no provider of the process is set"
    );
    assert!(rustls::crypto::aws_lc_rs::default_provider().fips());
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
