//! Public keys in PEM.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portcullis::testing::{AUDIENCE, TestIssuer};
use portcullis::{Algorithm, InvalidToken, Issuer, Jwks, Verifier};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;

/// An element of DER (X.690 §10).
fn element(tag: u8, contents: &[u8]) -> Vec<u8> {
    let bytes = u16::try_from(contents.len()).unwrap().to_be_bytes();
    let length = match bytes {
        [0, length @ 0..=0x7f] => vec![length],
        [0, length] => vec![0x81, length],
        [high, low] => vec![0x82, high, low],
    };
    [&[tag], &*length, contents].concat()
}

fn block(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// The elements of the issuer's RSA key: modulus and exponent.
fn rsa_numbers(issuer: &TestIssuer) -> Vec<u8> {
    let jwk = issuer.jwks_json()["keys"][0].clone();
    let number = |name: &str| {
        let number = URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
        // A leading zero makes it positive.
        element(INTEGER, &[&[0], &*number].concat())
    };
    [number("n"), number("e")].concat()
}

#[test]
fn rsa_keys_from_pem_verify_tokens_with_any_kid_whatever_their_algorithm() {
    for algorithm in [Algorithm::RS256, Algorithm::RS384] {
        let issuer = TestIssuer::offline_with("https://issuer.example/", algorithm).unwrap();
        let pem = block("RSA PUBLIC KEY", &element(SEQUENCE, &rsa_numbers(&issuer)));
        let jwks = Jwks::from_pem(pem).unwrap().rsa_algorithm(algorithm).unwrap();
        for (name, token) in [
            ("the `kid` of the issuer", issuer.token()),
            ("another one", issuer.token().header("kid", "any")),
            ("none", issuer.token().without_header("kid")),
        ] {
            assert!(jwks.verify(&token.build()).is_ok(), "{algorithm}: {name}");
        }
    }
}

/// Public keys in the formats that OpenSSL writes, and invalid documents.
#[tokio::test]
async fn public_keys_are_parsed_from_pem() {
    // `openssl genpkey -algorithm … | openssl pkey -pubout`, and of RSA also
    // `openssl rsa -RSAPublicKey_out`.
    let keys = include_str!("../data/public_keys.pem");
    let blocks: Vec<_> = keys.split_inclusive("-----\n").collect();
    let blocks: Vec<_> = blocks.chunks(2).map(<[_]>::concat).collect();
    assert_eq!(blocks.len(), 6);
    let usable = blocks.iter().filter(|block| Jwks::from_pem(block).is_ok()).count();
    assert_eq!(usable, if cfg!(feature = "aws-lc-rs") { 6 } else { 5 });
    assert_eq!(Jwks::from_pem(blocks[0].clone() + &blocks[1]).unwrap().len(), 2);
    assert_eq!(Jwks::from_pem(blocks[0].repeat(4)).unwrap().len(), 4);
    assert!(Jwks::from_pem(blocks[0].repeat(5)).is_err());
    let more = Jwks::from_pem(keys).unwrap_err().to_string();
    assert!(more.contains("only 4 can be tried") || cfg!(not(feature = "aws-lc-rs")), "{more}");

    // A key from PEM has no `kid` and verifies tokens with any `kid`.
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let x = URL_SAFE_NO_PAD.decode(issuer.jwks_json()["keys"][0]["x"].as_str().unwrap()).unwrap();
    let der =
        [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00], &*x].concat();
    let pem = block("PUBLIC KEY", &der);
    let jwks = Jwks::from_pem(&pem).unwrap();
    for token in
        [issuer.token(), issuer.token().header("kid", "any"), issuer.token().without_header("kid")]
    {
        assert!(jwks.verify(&token.build()).is_ok());
    }
    assert_eq!(jwks.verify(&issuer.token().tampered().build()), Err(InvalidToken::BadSignature));
    let verifier = Verifier::new(Issuer::new(issuer.iss(), AUDIENCE).unwrap().jwks(jwks)).unwrap();
    assert!(verifier.verify(&issuer.token().build()).await.is_ok());

    let longer = [&*der, &[0]].concat();
    let mut unused_bits = der.clone();
    unused_bits[11] = 1;
    let rsa = rsa_numbers(&TestIssuer::offline_with("x", Algorithm::RS256).unwrap());
    let more_numbers = [&*rsa, &element(INTEGER, &[1])].concat();
    let behind_rsa = [element(SEQUENCE, &rsa), element(INTEGER, &[1])].concat();
    for (name, pem) in [
        ("empty", String::new()),
        ("HTML", "<html></html>".to_owned()),
        ("no end line", "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA".to_owned()),
        ("an empty block", block("PUBLIC KEY", b"")),
        ("a private key", block("PRIVATE KEY", &der)),
        ("a certificate", block("CERTIFICATE", &der)),
        ("another label in the end line", pem.replace("END PUBLIC KEY", "END RSA KEY")),
        ("trailing data", block("PUBLIC KEY", &longer)),
        ("truncated", block("PUBLIC KEY", &der[..der.len() - 1])),
        ("unused bits", block("PUBLIC KEY", &unused_bits)),
        ("another tag", block("PUBLIC KEY", &[&[0x31], &der[1..]].concat())),
        ("a length in a byte too many", block("PUBLIC KEY", &[&[0x30, 0x81], &der[1..]].concat())),
        ("a length in two too many", block("PUBLIC KEY", &[&[0x30, 0x82, 0], &der[1..]].concat())),
        ("three RSA numbers", block("RSA PUBLIC KEY", &element(SEQUENCE, &more_numbers))),
        ("data behind an RSA key", block("RSA PUBLIC KEY", &behind_rsa)),
        ("not base64", "-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----".to_owned()),
        ("a valid and an invalid key", format!("{pem}{}", block("PUBLIC KEY", b"x"))),
        ("a point of small order", block("PUBLIC KEY", &[&der[..12], &[1], &[0; 31]].concat())),
    ] {
        assert!(Jwks::from_pem(&pem).is_err(), "{name}");
    }
    // No DER makes the parser panic or read out of bounds.
    for position in 0..der.len() {
        for value in [0, 1, 0x7f, 0x80, 0x81, 0x82, 0x84, 0xff] {
            let mut changed = der.clone();
            changed[position] = value;
            let _ = Jwks::from_pem(block("PUBLIC KEY", &changed));
            let _ = Jwks::from_pem(block("RSA PUBLIC KEY", &changed));
        }
    }
}
