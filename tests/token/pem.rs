//! Public keys in PEM.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use portcullis::testing::{AUDIENCE, TestIssuer};
use portcullis::{Algorithm, InvalidToken, Issuer, Jwks, Verifier};

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
    let more = Jwks::from_pem(keys).unwrap_err().to_string();
    assert!(more.contains("only 4 can be tried") || cfg!(not(feature = "aws-lc-rs")), "{more}");

    // A key from PEM has no `kid` and verifies tokens with any `kid`.
    let issuer = TestIssuer::offline_with("https://issuer.example/", Algorithm::EdDSA).unwrap();
    let x = URL_SAFE_NO_PAD.decode(issuer.jwks_json()["keys"][0]["x"].as_str().unwrap()).unwrap();
    let der =
        [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00], &*x].concat();
    let pem = format!(
        "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
        STANDARD.encode(&der)
    );
    let jwks = Jwks::from_pem(&pem).unwrap();
    for token in
        [issuer.token(), issuer.token().header("kid", "any"), issuer.token().without_header("kid")]
    {
        assert!(jwks.verify(&token.build()).is_ok());
    }
    assert_eq!(jwks.verify(&issuer.token().tampered().build()), Err(InvalidToken::BadSignature));
    let verifier = Verifier::new(Issuer::new(issuer.iss(), AUDIENCE).unwrap().jwks(jwks)).unwrap();
    assert!(verifier.verify(&issuer.token().build()).await.is_ok());

    let block = |label: &str, der: &[u8]| {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----", STANDARD.encode(der))
    };
    let longer = [&*der, &[0]].concat();
    let mut unused_bits = der.clone();
    unused_bits[11] = 1;
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
