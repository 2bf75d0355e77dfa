//! RFC 7515: the compact serialization (§7.1), split and decoded once, and the JOSE header (§4).

use std::borrow::Cow;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use std::sync::LazyLock;

use base64::Engine as _;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use base64::engine::general_purpose::{GeneralPurpose, URL_SAFE_NO_PAD};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use base64::engine::{Simd, general_purpose::NO_PAD};

use super::json::{self, Value};
use crate::algorithm::Algorithm;
use crate::error::InvalidToken;

/// Maximum length of a compact JWS, in bytes.
///
/// Tokens with many group names reach about 10 KiB; most servers reject header lines above 8 to
/// 16 KiB anyway.
pub(crate) const MAX_BYTES: usize = 16 * 1024;

/// Maximum length of a `kid`, in bytes. Real ones stay under 100; the limit bounds what stores
/// them.
pub(crate) const MAX_KID_BYTES: usize = 512;

/// Canonical base64url without padding, with SIMD where the library supports it. The parts of a
/// token are so long that decoding then takes a third of the time.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
static BASE64URL: LazyLock<Simd> = LazyLock::new(|| Simd::url_safe(NO_PAD));
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
static BASE64URL: GeneralPurpose = URL_SAFE_NO_PAD;

/// The three parts of a compact JWS, split and decoded, but not verified.
pub(crate) struct Jws<'a> {
    /// Header and payload as received, with the period between them: what was signed
    /// (RFC 7515 §5.2).
    pub(crate) signing_input: &'a str,
    /// The header as received, encoded.
    pub(crate) encoded_header: &'a str,
    /// All three parts decoded, in one buffer.
    decoded: Vec<u8>,
    header_end: usize,
    payload_end: usize,
    /// Whether a part is padded with `=`, against RFC 7515 §2.
    pub(crate) is_padded: bool,
}

impl<'a> Jws<'a> {
    /// Splits and decodes a compact JWS. Each part must be canonical base64url (RFC 7515 §2,
    /// draft-ietf-oauth-rfc8725bis §3.14). Padding, which one gateway adds, is left for the caller
    /// to reject.
    pub(crate) fn split(compact: &'a str) -> Result<Self, InvalidToken> {
        Self::split_within(compact, MAX_BYTES)
    }

    /// Like [`split`](Self::split), for a document that may have another length than a token.
    pub(crate) fn split_within(compact: &'a str, limit: usize) -> Result<Self, InvalidToken> {
        if compact.len() > limit {
            return Err(InvalidToken::TooLarge { limit, presented: compact.len() });
        }
        let misshapen = |what| match compact.bytes().filter(|byte| *byte == b'.').count() {
            0 => InvalidToken::Opaque,
            2 => InvalidToken::Malformed(what),
            4 => InvalidToken::Encrypted,
            _ => InvalidToken::Malformed("three parts separated by periods"),
        };
        let Some((header, payload, signature)) = parts(compact) else {
            return Err(misshapen("three parts separated by periods"));
        };
        let signing_input = compact.get(..header.len() + 1 + payload.len()).unwrap_or_default();
        let mut decoded = Vec::with_capacity(compact.len() / 4 * 3 + 3);
        let mut is_padded = false;
        let mut decode = |part: &str, what| {
            let bare = part.trim_end_matches('=');
            is_padded |= bare.len() < part.len();
            let fits = bare.len() == part.len()
                || part.len().is_multiple_of(4) && part.len() - bare.len() <= 2;
            match BASE64URL.decode_vec(bare, &mut decoded) {
                Ok(()) if fits => Ok(decoded.len()),
                _ => Err(misshapen(what)),
            }
        };
        let header_end = decode(header, "a header in base64url without padding")?;
        let payload_end = decode(payload, "a payload in base64url without padding")?;
        decode(signature, "a signature in base64url without padding")?;
        let encoded_header = header;
        Ok(Self { signing_input, encoded_header, decoded, header_end, payload_end, is_padded })
    }

    /// Returns an error if a part is padded.
    pub(crate) fn check_unpadded(&self) -> Result<(), InvalidToken> {
        if self.is_padded {
            Err(InvalidToken::Malformed("base64url without padding"))
        } else {
            Ok(())
        }
    }

    /// Parses the JOSE header.
    pub(crate) fn header(&self) -> Result<Header<'_>, InvalidToken> {
        Header::parse(self.part(0, self.header_end))
    }

    pub(crate) fn header_bytes(&self) -> &[u8] {
        self.part(0, self.header_end)
    }

    /// The payload. Nothing in it has been verified yet.
    pub(crate) fn unverified_payload(&self) -> &[u8] {
        self.part(self.header_end, self.payload_end)
    }

    pub(crate) fn signature(&self) -> &[u8] {
        self.part(self.payload_end, self.decoded.len())
    }

    fn part(&self, from: usize, to: usize) -> &[u8] {
        self.decoded.get(from..to).unwrap_or_default()
    }
}

/// Whether a token has the form of a JWT, signed or encrypted: three or five parts, of which the
/// first is a JSON object in base64url. One with a mistake in it is a malformed JWT, and not an
/// opaque token, which would be sent to the issuer of those.
pub(crate) fn has_jwt_form(token: &str) -> bool {
    // `{` is followed by `"`, or by white space.
    let begins = token.starts_with("ey") || token.starts_with("ew");
    begins && matches!(token.bytes().filter(|byte| *byte == b'.').count(), 2 | 4)
}

/// Splits at the first two periods. A third one becomes part of the signature, where it is not
/// valid base64url.
fn parts(compact: &str) -> Option<(&str, &str, &str)> {
    let (header, rest) = compact.split_once('.')?;
    let (payload, signature) = rest.split_once('.')?;
    Some((header, payload, signature))
}

/// The members of a JOSE header that are used (RFC 7515 §4.1). `jku`, `jwk`, `x5u` and `x5c` are
/// not: a key that comes with the token proves nothing.
#[derive(Debug)]
pub(crate) struct Header<'a> {
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: Option<Cow<'a, str>>,
    pub(crate) typ: Option<Cow<'a, str>>,
    /// Whether the member `nonce` is present, as in tokens for Microsoft's own APIs.
    pub(crate) has_nonce: bool,
    /// The member `signer` of AWS load balancers: which of them signed the token.
    pub(crate) signer: Option<Cow<'a, str>>,
}

impl<'a> Header<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, InvalidToken> {
        const NOT_AN_OBJECT: InvalidToken =
            InvalidToken::Malformed("a header that is one JSON object");
        let text = std::str::from_utf8(bytes).map_err(|_| NOT_AN_OBJECT)?;
        let wanted = ["alg", "kid", "typ", "crit", "nonce", "signer"];
        let [alg, kid, typ, crit, nonce, signer] =
            json::read_object(text, &wanted).map_err(|_| NOT_AN_OBJECT)?;

        // RFC 7515 §4.1.11: a token must be rejected if an extension named in `crit` is not
        // understood. None is supported here, and an empty or malformed list is itself not allowed.
        if crit.is_some() {
            return Err(InvalidToken::UnsupportedCritical);
        }
        let Some(Value::Text(alg)) = alg else {
            return Err(InvalidToken::Malformed("a header whose `alg` is a string"));
        };
        let Some(algorithm) = Algorithm::from_name(&alg) else {
            return Err(InvalidToken::UnsupportedAlgorithm { presented: alg.into_owned() });
        };
        let kid = text_member(kid, "a header whose `kid` is a string")?;
        if kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID_BYTES) {
            return Err(InvalidToken::Malformed("a `kid` of at most 512 bytes"));
        }
        let typ = text_member(typ, "a header whose `typ` is a string")?;
        // Other issuers may use a member with this name for any value.
        let signer = match signer {
            Some(Value::Text(signer)) => Some(signer),
            _ => None,
        };
        Ok(Self { algorithm, kid, typ, has_nonce: nonce.is_some(), signer })
    }
}

fn text_member<'a>(
    value: Option<Value<'a>>,
    expected: &'static str,
) -> Result<Option<Cow<'a, str>>, InvalidToken> {
    match value {
        None => Ok(None),
        Some(Value::Text(text)) => Ok(Some(text)),
        Some(_) => Err(InvalidToken::Malformed(expected)),
    }
}
