mod misshapen;
mod source;
mod xfcc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::request::Parts;
use sha2::Digest as _;

use super::ClientCertificate;
use super::header::CertificateHeader;
use super::source::{ClientCertificates, Found};
use crate::error::ConfigError;

/// Certificates in DER: one of a client, and that of the authority that issued it.
struct Fixture {
    leaf: Vec<u8>,
    issuer: Vec<u8>,
}

#[derive(Debug, PartialEq)]
enum Outcome {
    None,
    Leaf,
    Issuer,
    OtherCertificate,
    Untrusted,
    /// With what was expected.
    Unreadable(&'static str),
}

impl Fixture {
    /// The base64 of the client's certificate has a `+` and a `/`, which the forms treat
    /// differently.
    fn new() -> Self {
        let key = || rcgen::KeyPair::generate().unwrap();
        let authority = rcgen::CertificateParams::default();
        let authority_key = key();
        let issuer = authority.self_signed(&authority_key).unwrap().der().to_vec();
        let authority = rcgen::Issuer::new(authority, authority_key);
        let client_key = key();
        let leaf = (1_u64..).find_map(|serial| {
            let mut client = rcgen::CertificateParams::default();
            client.serial_number = Some(serial.into());
            let leaf = client.signed_by(&client_key, &authority).unwrap().der().to_vec();
            let base64 = STANDARD.encode(&leaf);
            (base64.contains('+') && base64.contains('/')).then_some(leaf)
        });
        Self { leaf: leaf.unwrap(), issuer }
    }

    fn base64(&self) -> String {
        STANDARD.encode(&self.leaf)
    }

    fn pem(&self) -> String {
        pem(&self.leaf)
    }

    fn pem_chain(&self) -> String {
        pem(&self.leaf) + &pem(&self.issuer)
    }

    fn hex(&self) -> String {
        hex(&self.leaf)
    }

    fn outcome(&self, found: Found) -> Outcome {
        match found {
            Found::None => Outcome::None,
            Found::Certificate(certificate) => {
                let is_of = |der: &[u8]| *certificate.sha256() == *sha2::Sha256::digest(der);
                if is_of(&self.leaf) {
                    Outcome::Leaf
                } else if is_of(&self.issuer) {
                    Outcome::Issuer
                } else {
                    Outcome::OtherCertificate
                }
            }
            Found::Untrusted => Outcome::Untrusted,
            Found::Unreadable(unreadable) => Outcome::Unreadable(unreadable.expected),
        }
    }

    /// What is found in a request with these header lines.
    fn find<V: AsRef<[u8]>>(&self, header: CertificateHeader, lines: &[(&str, V)]) -> Outcome {
        let source = ClientCertificates::danger_forwarded_by_any_peer(header);
        self.outcome(source.find(&request(lines)))
    }
}

fn request<V: AsRef<[u8]>>(lines: &[(&str, V)]) -> Parts {
    let request = lines.iter().fold(http::Request::builder(), |request, (name, value)| {
        request.header(*name, value.as_ref())
    });
    request.body(()).unwrap().into_parts().0
}

fn pem(der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let lines = base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap());
    let body: String = lines.map(|line| format!("{line}\n")).collect();
    format!("-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
}

fn hex(der: &[u8]) -> String {
    sha2::Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Percent-encodes all but letters, digits, and what is kept.
fn escaped(text: &str, kept: &str) -> String {
    let escape = |character: char| {
        if character.is_ascii_alphanumeric() || kept.contains(character) {
            character.to_string()
        } else {
            format!("%{:02X}", u32::from(character))
        }
    };
    text.chars().map(escape).collect()
}

#[test]
fn each_form_identifies_the_same_certificate() {
    struct Case {
        name: &'static str,
        header: CertificateHeader,
        line: (&'static str, String),
    }
    let fixture = Fixture::new();
    let (base64, pem, hex) = (fixture.base64(), fixture.pem(), fixture.hex());
    let upper = hex.to_uppercase();
    let colons: Vec<_> =
        upper.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap()).collect();
    let case = |name, header, line| Case { name, header, line };
    let nginx = || CertificateHeader::nginx("ssl-client-cert").unwrap();
    let hash = || CertificateHeader::sha256_hex("CloudFront-Viewer-Cert-Sha256").unwrap();
    let cases = [
        case("RFC 9440", CertificateHeader::rfc9440(), ("Client-Cert", format!(":{base64}:"))),
        case(
            "RFC 9440, parameters",
            CertificateHeader::rfc9440(),
            ("client-cert", format!("  :{base64}:;a=1;b  ")),
        ),
        case(
            "Envoy, hash",
            CertificateHeader::envoy(),
            ("X-Forwarded-Client-Cert", format!("By=spiffe://mesh/api;Hash={hex}")),
        ),
        case(
            "Envoy, certificate",
            CertificateHeader::envoy(),
            ("x-forwarded-client-cert", format!("Cert=\"{}\"", escaped(&pem, "-."))),
        ),
        case("nginx", nginx(), ("ssl-client-cert", escaped(&pem, "-._~"))),
        case(
            "nginx, lowercase escapes",
            nginx(),
            ("ssl-client-cert", escaped(&pem, "-").replace("%0A", "%0a")),
        ),
        case("nginx, chain", nginx(), ("ssl-client-cert", escaped(&fixture.pem_chain(), "-._~"))),
        case(
            "ALB, verified",
            CertificateHeader::aws_alb(),
            ("X-Amzn-Mtls-Clientcert-Leaf", escaped(&pem, "-._~+=/")),
        ),
        case(
            "ALB, passed through",
            CertificateHeader::aws_alb(),
            ("X-Amzn-Mtls-Clientcert", escaped(&fixture.pem_chain(), "-._~+=/")),
        ),
        case(
            "Traefik",
            CertificateHeader::traefik(),
            ("X-Forwarded-Tls-Client-Cert", base64.clone()),
        ),
        case(
            "Traefik, chain",
            CertificateHeader::traefik(),
            (
                "X-Forwarded-Tls-Client-Cert",
                format!("{base64},{}", STANDARD.encode(&fixture.issuer)),
            ),
        ),
        case(
            "Traefik, older",
            CertificateHeader::traefik(),
            ("X-Forwarded-Tls-Client-Cert", escaped(&base64, "-._~")),
        ),
        case("Azure", CertificateHeader::azure(), ("X-ARR-ClientCert", base64.clone())),
        case(
            "Azure, chain",
            CertificateHeader::azure(),
            ("X-ARR-ClientCert", STANDARD.encode([&*fixture.leaf, &*fixture.issuer].concat())),
        ),
        case(
            "HAProxy",
            CertificateHeader::haproxy("X-SSL-Client-DER").unwrap(),
            ("x-ssl-client-der", base64.clone()),
        ),
        case(
            "Apache",
            CertificateHeader::apache("X-Client-Cert").unwrap(),
            ("x-client-cert", pem.replace('\n', " ")),
        ),
        case("hash in hexadecimal", hash(), ("cloudfront-viewer-cert-sha256", hex)),
        case("upper case", hash(), ("cloudfront-viewer-cert-sha256", upper.clone())),
        case("colons", hash(), ("cloudfront-viewer-cert-sha256", colons.join(":"))),
        case(
            "hash in base64",
            CertificateHeader::sha256_base64("X-Client-Cert-Hash").unwrap(),
            ("x-client-cert-hash", STANDARD.encode(sha2::Sha256::digest(&fixture.leaf))),
        ),
    ];
    for Case { name, header, line } in cases {
        assert_eq!(fixture.find(header, &[line]), Outcome::Leaf, "{name}");
    }
}

/// RFC 8705 appendix A.
#[test]
fn the_example_of_the_rfc_has_the_hash_of_the_rfc() {
    let der = STANDARD
        .decode(concat!(
            "MIIBBjCBrAIBAjAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARtdGxzMB4XDTE4MTAx",
            "ODEyMzcwOVoXDTIyMDUwMjEyMzcwOVowDzENMAsGA1UEAwwEbXRsczBZMBMGByqG",
            "SM49AgEGCCqGSM49AwEHA0IABNcnyxwqV6hY8QnhxxzFQ03C7HKW9OylMbnQZjjJ",
            "/Au08/coZwxS7LfA4vOLS9WuneIXhbGGWvsDSb0tH6IxLm8wCgYIKoZIzj0EAwID",
            "SQAwRgIhAP0RC1E+vwJD/D1AGHGzuri+hlV/PpQEKTWUVeORWz83AiEA5x2eXZOV",
            "bUlJSGQgjwD5vaUaKlLR50Q2DmFfQj1L+SY="
        ))
        .unwrap();
    let expected = b"A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0";
    let certificate = ClientCertificate::from_der(&der);
    let hash = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(certificate.sha256());
    assert_eq!(hash.as_bytes(), expected);
    assert_eq!(format!("{certificate:?}"), "ClientCertificate { .. }");
}

#[test]
fn names_of_headers_are_checked() {
    type Named = fn(&'static str) -> Result<CertificateHeader, ConfigError>;
    let cases: [(&str, Named); 5] = [
        ("nginx", |name| CertificateHeader::nginx(name)),
        ("haproxy", |name| CertificateHeader::haproxy(name)),
        ("apache", |name| CertificateHeader::apache(name)),
        ("sha256_hex", |name| CertificateHeader::sha256_hex(name)),
        ("sha256_base64", |name| CertificateHeader::sha256_base64(name)),
    ];
    for (name, header) in cases {
        assert!(header("X-Client-Cert").is_ok(), "{name}");
        let message = header("not a header").unwrap_err().to_string();
        assert!(message.contains("expected a header name"), "{name}: {message}");
    }
}
