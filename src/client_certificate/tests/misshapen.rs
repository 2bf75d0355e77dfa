//! Values that are not of the configured form, and headers that mean "no certificate".

use super::*;

const NOT_DER: Outcome = Outcome::Unreadable("one DER certificate in base64");
const NOT_DER_CHAIN: Outcome = Outcome::Unreadable("DER certificates in base64");
const NOT_RFC9440: Outcome =
    Outcome::Unreadable("one DER certificate in base64 between colons (RFC 9440)");
const NOT_PEM: Outcome = Outcome::Unreadable("a PEM certificate");
const NOT_ESCAPED_PEM: Outcome = Outcome::Unreadable("a percent-encoded PEM certificate");
const WHITE_SPACE: Outcome = Outcome::Unreadable(
    "percent-encoded PEM, in nginx `$ssl_client_escaped_cert`; found white space",
);
const NOT_TRAEFIK: Outcome =
    Outcome::Unreadable("a DER certificate in base64, without BEGIN and END");
const NOT_HEX: Outcome = Outcome::Unreadable("a SHA-256 hash in hexadecimal");
const NOT_BASE64_HASH: Outcome = Outcome::Unreadable("a SHA-256 hash in base64 with padding");

fn nginx() -> CertificateHeader {
    CertificateHeader::nginx("x").unwrap()
}

fn haproxy() -> CertificateHeader {
    CertificateHeader::haproxy("x").unwrap()
}

fn apache() -> CertificateHeader {
    CertificateHeader::apache("x").unwrap()
}

fn sha256_hex() -> CertificateHeader {
    CertificateHeader::sha256_hex("x").unwrap()
}

fn sha256_base64() -> CertificateHeader {
    CertificateHeader::sha256_base64("x").unwrap()
}

#[test]
fn a_value_of_another_form_is_unreadable() {
    struct Case {
        name: &'static str,
        header: CertificateHeader,
        line: (&'static str, String),
        expected: Outcome,
    }
    let fixture = Fixture::new();
    let (base64, pem, hex) = (fixture.base64(), fixture.pem(), fixture.hex());
    let with_last_byte = [&*fixture.leaf, &[0]].concat();
    let without_last_byte = &fixture.leaf[..fixture.leaf.len() - 1];
    let chain = [&*fixture.leaf, &*fixture.issuer].concat();
    let other_alphabet = base64.replace('+', "-").replace('/', "_");
    let other_escapes = escaped(&pem, "-+").replace('+', "%20");
    let hash = STANDARD.encode(sha2::Sha256::digest(&fixture.leaf));
    let rfc9440 = |name, value| {
        let (header, line) = (CertificateHeader::rfc9440(), ("client-cert", value));
        Case { name, header, line, expected: NOT_RFC9440 }
    };
    let alb = |name, value| {
        let (header, line) = (CertificateHeader::aws_alb(), ("x-amzn-mtls-clientcert-leaf", value));
        Case { name, header, line, expected: NOT_ESCAPED_PEM }
    };
    let traefik = |name, value| {
        let line = ("x-forwarded-tls-client-cert", value);
        Case { name, header: CertificateHeader::traefik(), line, expected: NOT_TRAEFIK }
    };
    let azure = |name, value| {
        let (header, line) = (CertificateHeader::azure(), ("x-arr-clientcert", value));
        Case { name, header, line, expected: NOT_DER_CHAIN }
    };
    let case = |name, header, value, expected| Case { name, header, line: ("x", value), expected };
    let cases = [
        rfc9440("no colons", base64.clone()),
        rfc9440("no colon at the end", format!(":{base64}")),
        rfc9440("no colon at the beginning", format!("{base64}:")),
        rfc9440("a list", format!(":{base64}:, :{base64}:")),
        rfc9440("a list after a parameter", format!(":{base64}:;a=1, :{base64}:")),
        rfc9440("text after the item", format!(":{base64}:a")),
        rfc9440("white space before the parameters", format!(":{base64}: ;a")),
        rfc9440("white space in the item", format!(": {base64}:")),
        rfc9440("a string", format!("\"{base64}\"")),
        rfc9440("an empty item", "::".to_owned()),
        rfc9440("the alphabet of base64url", format!(":{other_alphabet}:")),
        rfc9440("a byte after the certificate", format!(":{}:", STANDARD.encode(&with_last_byte))),
        rfc9440("a cut certificate", format!(":{}:", STANDARD.encode(without_last_byte))),
        rfc9440("a chain", format!(":{}:", STANDARD.encode(&chain))),
        rfc9440("not DER", format!(":{}:", STANDARD.encode("certificate"))),
        case("nginx, raw PEM", nginx(), pem.replace('\n', " "), WHITE_SPACE),
        case("nginx, raw PEM with tabs", nginx(), pem.trim_end().replace('\n', "\t"), WHITE_SPACE),
        case(
            "nginx, first line of raw PEM",
            nginx(),
            "-----BEGIN CERTIFICATE-----".to_owned(),
            WHITE_SPACE,
        ),
        case("nginx, DER", nginx(), escaped(&base64, ""), NOT_ESCAPED_PEM),
        case("nginx, escape without digits", nginx(), escaped(&pem, "-") + "%", NOT_ESCAPED_PEM),
        case("nginx, escape of one digit", nginx(), escaped(&pem, "-") + "%0", NOT_ESCAPED_PEM),
        case("nginx, escape of a sign", nginx(), escaped(&pem, "-") + "%+1", NOT_ESCAPED_PEM),
        case("nginx, escape of a letter", nginx(), escaped(&pem, "-") + "%0G", NOT_ESCAPED_PEM),
        case(
            "nginx, escape of another byte",
            nginx(),
            escaped(&pem, "-") + "%C3%A9",
            NOT_ESCAPED_PEM,
        ),
        case(
            "nginx, another label",
            nginx(),
            escaped(&pem.replace("CERT", "X509 CERT"), ""),
            NOT_ESCAPED_PEM,
        ),
        case(
            "nginx, no end",
            nginx(),
            escaped(pem.split("-----END").next().unwrap(), ""),
            NOT_ESCAPED_PEM,
        ),
        alb("ALB, `+` as white space", other_escapes),
        alb("ALB, a byte after the certificate", escaped(&super::pem(&with_last_byte), "-+=/")),
        alb("ALB, a cut certificate", escaped(&super::pem(without_last_byte), "-+=/")),
        traefik("Traefik, PEM", escaped(&pem, "-")),
        traefik("Traefik, empty element", format!(",{base64}")),
        traefik("Traefik, a byte after the certificate", STANDARD.encode(&with_last_byte)),
        azure("Azure, a byte after the certificate", STANDARD.encode(&with_last_byte)),
        azure("Azure, a cut chain", STANDARD.encode(&chain[..chain.len() - 1])),
        azure("Azure, a cut certificate", STANDARD.encode(without_last_byte)),
        case("HAProxy, a chain", haproxy(), STANDARD.encode(&chain), NOT_DER),
        case("HAProxy, the alphabet of base64url", haproxy(), other_alphabet, NOT_DER),
        case("HAProxy, more padding", haproxy(), base64.clone() + "=", NOT_DER),
        case("HAProxy, white space", haproxy(), base64.replacen('+', " +", 1), NOT_DER),
        case("Apache, base64 alone", apache(), base64, NOT_PEM),
        case(
            "Apache, another label",
            apache(),
            super::pem(&fixture.leaf).replace("CERTIFICATE", "PKCS7").replace('\n', " "),
            NOT_PEM,
        ),
        case("`(null)` of another form", haproxy(), "(null)".to_owned(), NOT_DER),
        case("hash, too short", sha256_hex(), hex[2..].to_owned(), NOT_HEX),
        case("hash, too long", sha256_hex(), format!("{hex}00"), NOT_HEX),
        case("hash, not hexadecimal", sha256_hex(), format!("{}0g", &hex[2..]), NOT_HEX),
        case("hash, a sign", sha256_hex(), format!("{}+0", &hex[2..]), NOT_HEX),
        case("hash, SHA-1", sha256_hex(), hex[..40].to_owned(), NOT_HEX),
        case("hash, other separators", sha256_hex(), vec!["00"; 32].join("-"), NOT_HEX),
        case("hash, misplaced colons", sha256_hex(), "0:0".repeat(31) + "00", NOT_HEX),
        case("hash, base64", sha256_hex(), hash.clone(), NOT_HEX),
        case(
            "base64 hash, without padding",
            sha256_base64(),
            hash.trim_end_matches('=').to_owned(),
            NOT_BASE64_HASH,
        ),
        case("base64 hash, too short", sha256_base64(), STANDARD.encode([0; 31]), NOT_BASE64_HASH),
        case("base64 hash, too long", sha256_base64(), STANDARD.encode([0; 33]), NOT_BASE64_HASH),
        case(
            "base64 hash, base64url",
            sha256_base64(),
            STANDARD.encode([0xff; 32]).replace('/', "_"),
            NOT_BASE64_HASH,
        ),
        case("base64 hash, hexadecimal", sha256_base64(), hex, NOT_BASE64_HASH),
    ];
    for Case { name, header, line, expected } in cases {
        assert_eq!(fixture.find(header, &[line]), expected, "{name}");
    }
}

#[test]
fn an_unpadded_certificate_is_unreadable() {
    let mut fixture = Fixture::new();
    // A DER certificate whose base64 ends with padding: the SEQUENCE has 256 bytes.
    fixture.leaf = [&[0x30, 0x82, 1, 0][..], &[0; 256]].concat();
    let base64 = fixture.base64();
    assert_eq!(fixture.find(haproxy(), &[("x", &base64)]), Outcome::Leaf, "with padding");
    let bare = base64.trim_end_matches('=');
    assert_eq!(fixture.find(haproxy(), &[("x", bare)]), NOT_DER, "without padding");
    // The last character has bits that belong to no byte.
    let with_bits = format!("{}B=", bare.strip_suffix('A').unwrap());
    assert_eq!(fixture.find(haproxy(), &[("x", with_bits)]), NOT_DER, "bits after the last byte");
}

#[test]
fn a_header_without_a_value_means_no_certificate() {
    let fixture = Fixture::new();
    let cases = [
        ("client-cert", CertificateHeader::rfc9440()),
        ("x-forwarded-client-cert", CertificateHeader::envoy()),
        ("x", nginx()),
        ("x-amzn-mtls-clientcert-leaf", CertificateHeader::aws_alb()),
        ("x-amzn-mtls-clientcert", CertificateHeader::aws_alb()),
        ("x-forwarded-tls-client-cert", CertificateHeader::traefik()),
        ("x-arr-clientcert", CertificateHeader::azure()),
        ("x", haproxy()),
        ("x", apache()),
        ("x", sha256_hex()),
        ("x", sha256_base64()),
    ];
    for (name, header) in cases {
        assert_eq!(fixture.find(header.clone(), &[(name, "")]), Outcome::None, "{header:?}");
        assert_eq!(
            fixture.find(header.clone(), &[(name, "  ")]),
            Outcome::None,
            "{header:?}, spaces"
        );
    }
    assert_eq!(fixture.find(apache(), &[("x", "(null)")]), Outcome::None, "mod_headers");
}

#[test]
fn a_repeated_header_is_unreadable() {
    let fixture = Fixture::new();
    let line = ("x", fixture.base64());
    let expected = Outcome::Unreadable("one header line");
    assert_eq!(fixture.find(haproxy(), &[line.clone(), line.clone()]), expected, "the same twice");
    assert_eq!(fixture.find(haproxy(), &[line, ("x", String::new())]), expected, "one is empty");
}

#[test]
fn of_two_headers_of_a_load_balancer_the_clients_own_counts() {
    let fixture = Fixture::new();
    let leaf = ("x-amzn-mtls-clientcert-leaf", escaped(&fixture.pem(), "-+=/"));
    let chain = ("x-amzn-mtls-clientcert", escaped(&pem(&fixture.issuer), "-+=/"));
    let alb = CertificateHeader::aws_alb;
    assert_eq!(fixture.find(alb(), &[chain.clone(), leaf]), Outcome::Leaf, "both");
    let misshapen = ("x-amzn-mtls-clientcert-leaf", "?".to_owned());
    assert_eq!(fixture.find(alb(), &[chain, misshapen]), NOT_ESCAPED_PEM, "misshapen");
}

#[test]
fn bytes_are_bounded_and_ascii() {
    let fixture = Fixture::new();
    let escaped = escaped(&fixture.pem(), "-");
    // Text after the certificate is ignored (RFC 7468 §2).
    let padded = |bytes: usize| escaped.clone() + &"a".repeat(bytes - escaped.len());
    assert_eq!(fixture.find(nginx(), &[("x", padded(16 * 1024))]), Outcome::Leaf, "16 KiB");
    let too_long = Outcome::Unreadable("at most 16 KiB");
    assert_eq!(fixture.find(nginx(), &[("x", padded(16 * 1024 + 1))]), too_long, "one byte more");
    let not_ascii = Outcome::Unreadable("visible ASCII characters");
    let mut bytes = fixture.base64().into_bytes();
    bytes.push(0xe9);
    assert_eq!(fixture.find(haproxy(), &[("x", bytes)]), not_ascii, "not ASCII");
}
