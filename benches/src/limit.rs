//! The limit: the cost of the signature alone, which every verification includes.

use std::hint::black_box;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use portcullis::Algorithm;
use portcullis::testing::{TestIssuer, TokenBuilder};
use serde_json::Value;

use crate::contenders::Failure;

pub const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];

/// A prime. Its multiples modulo a round number visit every value, each far from the previous one.
pub const FAR: usize = 7_919;

/// Distinct tokens like those of Auth0.
pub fn tokens(issuer: &TestIssuer, count: usize) -> Vec<String> {
    tokens_with(issuer, count, |token| token)
}

/// The same, each changed.
pub fn tokens_with(
    issuer: &TestIssuer,
    count: usize,
    change: impl Fn(TokenBuilder) -> TokenBuilder,
) -> Vec<String> {
    let token = |number: usize| {
        let token = issuer
            .token()
            .subject("auth0|6553da60a54af58e29493993")
            .scope("openid profile read:orders");
        let token = token
            .claim("jti", format!("{number:016x}"))
            .claim("permissions", ["read:orders", "write:orders"]);
        let token =
            token.claim("https://acme.test/plan", "pro").claim("org_id", "org_9ybsU1dN2dKfDkBi");
        change(token).build()
    };
    (0..count).map(token).collect()
}

/// The signatures of some tokens, and keys of aws-lc-rs that are parsed once.
pub struct Limit {
    /// The same key, parsed several times if each issuer has its own.
    keys: Vec<ParsedPublicKey>,
    pieces: Vec<Piece>,
}

impl Limit {
    pub fn new(
        issuer: &TestIssuer,
        algorithm: Algorithm,
        tokens: &[String],
    ) -> Result<Self, Failure> {
        let jwk = &issuer.jwks_json()["keys"][0];
        Ok(Self { keys: vec![parsed(jwk, algorithm)?], pieces: pieces(tokens)? })
    }

    /// The signatures of DPoP proofs, all by the key that the first one names.
    pub fn of_proofs(algorithm: Algorithm, proofs: &[String]) -> Result<Self, Failure> {
        let header = proofs.first().and_then(|proof| proof.split('.').next());
        let header = BASE64_URL_SAFE_NO_PAD.decode(header.ok_or("a proof has a header")?)?;
        let header: Value = serde_json::from_slice(&header)?;
        Ok(Self { keys: vec![parsed(&header["jwk"], algorithm)?], pieces: pieces(proofs)? })
    }

    /// With `count` keys, used in no particular order.
    pub fn with_keys(
        mut self,
        issuer: &TestIssuer,
        algorithm: Algorithm,
        count: usize,
    ) -> Result<Self, Failure> {
        let jwk = &issuer.jwks_json()["keys"][0];
        self.keys = (0..count).map(|_| parsed(jwk, algorithm)).collect::<Result<_, _>>()?;
        Ok(self)
    }

    /// Whether the signature of a token is valid. Nothing else is checked.
    pub fn holds(&self, token: &str) -> bool {
        let Some((input, signature)) = token.rsplit_once('.') else { return false };
        BASE64_URL_SAFE_NO_PAD
            .decode(signature)
            .is_ok_and(|signature| self.keys[0].verify_sig(input.as_bytes(), &signature).is_ok())
    }

    /// Measures the verification of `count` signatures, starting with number `from`.
    pub fn time(&self, from: usize, count: usize) -> Result<Duration, Failure> {
        let numbers = from..from + count;
        let start = Instant::now();
        for number in numbers {
            let (input, signature) = &self.pieces[number % self.pieces.len()];
            let key = &self.keys[number * FAR % self.keys.len()];
            black_box(key.verify_sig(black_box(input), signature))?;
        }
        Ok(start.elapsed())
    }
}

/// A signing input and its signature.
type Piece = (Vec<u8>, Vec<u8>);

fn pieces(tokens: &[String]) -> Result<Vec<Piece>, Failure> {
    let signed = |token: &String| -> Result<_, Failure> {
        let (input, signature) = token.rsplit_once('.').ok_or("a token has two periods")?;
        Ok((input.as_bytes().to_vec(), BASE64_URL_SAFE_NO_PAD.decode(signature)?))
    };
    tokens.iter().map(signed).collect()
}

fn parsed(jwk: &Value, algorithm: Algorithm) -> Result<ParsedPublicKey, Failure> {
    let member = |name: &str| -> Result<Vec<u8>, Failure> {
        Ok(BASE64_URL_SAFE_NO_PAD.decode(jwk[name].as_str().ok_or("a key has its members")?)?)
    };
    Ok(match algorithm {
        Algorithm::RS256 => RsaPublicKeyComponents { n: member("n")?, e: member("e")? }
            .to_parsed_public_key(&signature::RSA_PKCS1_2048_8192_SHA256)?,
        Algorithm::PS256 => RsaPublicKeyComponents { n: member("n")?, e: member("e")? }
            .to_parsed_public_key(&signature::RSA_PSS_2048_8192_SHA256)?,
        Algorithm::ES256 => {
            let point = [&[4], member("x")?.as_slice(), member("y")?.as_slice()].concat();
            ParsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point)?
        }
        Algorithm::EdDSA => ParsedPublicKey::new(&signature::ED25519, member("x")?)?,
        other => return Err(format!("{other} is not measured").into()),
    })
}
