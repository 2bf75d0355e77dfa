//! Certificates that a proxy forwards: a certificate that is read is the one that a slow reader of
//! the same form finds in the header.

#![no_main]

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, Request};
use libfuzzer_sys::fuzz_target;
use portcullis::{CertificateHeader, ClientCertificates};
use portcullis_fuzz::{parts, percent_decoded};

static FORMS: LazyLock<Vec<(HeaderName, ClientCertificates)>> = LazyLock::new(|| {
    let of = CertificateHeader::rfc9440;
    let named = |name: &'static str, header: CertificateHeader| {
        let header = ClientCertificates::danger_forwarded_by_any_peer(header);
        (HeaderName::from_static(name), header)
    };
    vec![
        named("client-cert", of()),
        named("x-forwarded-client-cert", CertificateHeader::envoy()),
        named("x-cert", CertificateHeader::nginx("x-cert").expect("valid")),
        named("x-amzn-mtls-clientcert-leaf", CertificateHeader::aws_alb()),
        named("x-forwarded-tls-client-cert", CertificateHeader::traefik()),
        named("x-arr-clientcert", CertificateHeader::azure()),
        named("x-cert", CertificateHeader::haproxy("x-cert").expect("valid")),
        named("x-cert", CertificateHeader::apache("x-cert").expect("valid")),
        named("x-cert", CertificateHeader::sha256_hex("x-cert").expect("valid")),
        named("x-cert", CertificateHeader::sha256_base64("x-cert").expect("valid")),
    ]
});

// A digit for the form, and one or two header lines.
fuzz_target!(|input: &str| {
    let Some([form, value]) = parts(input) else { return };
    let Some(form) = form.parse().ok().filter(|form| *form < FORMS.len()) else { return };
    let (value, second) = match value.split_once('\n') {
        Some((first, second)) => (first, Some(second)),
        None => (value, None),
    };
    let (name, source) = &FORMS[form];
    let mut request = Request::new(()).into_parts().0;
    for value in [Some(value), second].into_iter().flatten() {
        let Ok(value) = HeaderValue::from_str(value) else { return };
        request.headers.append(name, value);
    }
    let Some(hash) = portcullis::fuzzing::certificate(&request, source) else { return };
    // Only Envoy's header is a list.
    assert!(second.is_none() || form == 1);
    let text = match second {
        Some(second) => format!("{value},{second}"),
        None => value.to_owned(),
    };
    let expected = sha256_in(form, text.trim());
    assert_eq!(expected, Some(hash.to_vec()), "{form} {text:?}");
});

/// The SHA-256 of the client's certificate, as a slow reader finds it.
fn sha256_in(form: usize, text: &str) -> Option<Vec<u8>> {
    let hash = |der: &[u8]| is_certificate(der).then(|| digest(&SHA256, der).as_ref().to_vec());
    match form {
        // RFC 9440: a byte sequence, and parameters.
        0 => match text.split(':').collect::<Vec<_>>()[..] {
            ["", der, ""] => hash(&STANDARD.decode(der).ok()?),
            ["", der, parameters, ..] if parameters.starts_with(';') => {
                hash(&STANDARD.decode(der).ok()?)
            }
            _ => None,
        },
        1 => xfcc(text),
        2 | 3 => hash(&pem(&escaped(text)?)?),
        4 => hash(&STANDARD.decode(escaped(text)?.split(',').next()?).ok()?),
        5 => {
            let chain = STANDARD.decode(text).ok()?;
            let mut ends = (1..=chain.len()).filter(|end| is_certificate(&chain[..*end]));
            hash(&chain[..ends.next()?])
        }
        6 => hash(&STANDARD.decode(text).ok()?),
        7 => hash(&pem(text)?),
        8 => hex(text),
        9 => STANDARD.decode(text).ok().filter(|hash| hash.len() == 32),
        _ => None,
    }
}

/// Whether this is one SEQUENCE with its length in definite form, as short as possible (X.690
/// §10.1).
fn is_certificate(der: &[u8]) -> bool {
    let (length, contents) = match der {
        [0x30, 0x81, length, contents @ ..] if *length > 0x7f => (usize::from(*length), contents),
        [0x30, 0x82, high, low, contents @ ..] if *high > 0 => {
            (usize::from(*high) << 8 | usize::from(*low), contents)
        }
        [0x30, length, contents @ ..] if *length < 0x80 => (usize::from(*length), contents),
        _ => return false,
    };
    contents.len() == length
}

fn escaped(text: &str) -> Option<String> {
    String::from_utf8(percent_decoded(text)).ok().filter(|text| text.is_ascii())
}

/// The DER of the first block of PEM.
fn pem(text: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (body, _) =
        rest.strip_prefix("CERTIFICATE-----")?.split_once("-----END CERTIFICATE-----")?;
    STANDARD.decode(body.replace([' ', '\t', '\r', '\n', '\x0c'], "")).ok()
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let is_hash = match text.len() {
        64 => !text.contains(':'),
        95 => text.split(':').all(|two| two.len() == 2),
        _ => false,
    };
    let digits: Vec<u8> =
        text.chars().filter_map(|one| one.to_digit(16)?.try_into().ok()).collect();
    (is_hash && digits.len() == 64)
        .then(|| digits.chunks(2).map(|two| two[0] << 4 | two[1]).collect())
}

/// `Hash` of the last element, or the hash of its `Cert`.
fn xfcc(text: &str) -> Option<Vec<u8>> {
    let mut elements = vec![vec![String::new()]];
    let (mut is_quoted, mut is_escaped) = (false, false);
    for one in text.chars() {
        if one == '"' && !is_escaped {
            is_quoted = !is_quoted;
        }
        is_escaped = is_quoted && one == '\\' && !is_escaped;
        let element = elements.last_mut()?;
        match one {
            ',' if !is_quoted => elements.push(vec![String::new()]),
            ';' if !is_quoted => element.push(String::new()),
            one => element.last_mut()?.push(one),
        }
    }
    let pairs: Vec<_> = elements.last()?.iter().filter_map(|pair| pair.split_once('=')).collect();
    let named = |name: &str| -> Vec<&str> {
        let named = pairs.iter().filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.trim_ascii().trim_matches('"')).collect()
    };
    let hash = named("hash").into_iter().map(hex);
    let cert = named("cert").into_iter().map(|cert| {
        let der = pem(&escaped(cert)?).filter(|der| is_certificate(der))?;
        Some(digest(&SHA256, &der).as_ref().to_vec())
    });
    let mut all: Vec<_> = hash.chain(cert).collect();
    all.dedup();
    // Both are the same certificate.
    let [one] = &all[..] else { return None };
    one.clone()
}
