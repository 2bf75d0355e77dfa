//! Where the certificate is found.

use super::*;

#[test]
fn only_the_configured_source_is_read() {
    struct Case {
        name: &'static str,
        source: ClientCertificates,
        lines: Vec<(&'static str, String)>,
        expected: Outcome,
    }
    let fixture = Fixture::new();
    let forwarded = || {
        let from_proxy = |parts: &Parts| parts.headers.contains_key("x-proxy-secret");
        ClientCertificates::forwarded(CertificateHeader::azure(), from_proxy)
    };
    let header = ("x-arr-clientcert", fixture.base64());
    let secret = ("x-proxy-secret", "secret".to_owned());
    let case = |name, source, lines, expected| Case { name, source, lines, expected };
    let cases = [
        case(
            "the connection",
            ClientCertificates::from_connection(),
            vec![header.clone(), secret.clone()],
            Outcome::Issuer,
        ),
        case(
            "a closure",
            ClientCertificates::by(|parts| {
                let hash = parts.extensions.get::<[u8; 32]>()?;
                Some(ClientCertificate::from_sha256(*hash))
            }),
            vec![header.clone(), secret.clone()],
            Outcome::OtherCertificate,
        ),
        case("the proxy", forwarded(), vec![header.clone(), secret.clone()], Outcome::Leaf),
        case("another peer", forwarded(), vec![header.clone()], Outcome::Untrusted),
        case(
            "another peer, misshapen",
            forwarded(),
            vec![("x-arr-clientcert", "?".to_owned())],
            Outcome::Untrusted,
        ),
        case("the proxy, no certificate", forwarded(), vec![secret.clone()], Outcome::None),
        case("another peer, no certificate", forwarded(), vec![], Outcome::None),
        case(
            "the proxy, another header",
            ClientCertificates::danger_forwarded_by_any_peer(CertificateHeader::traefik()),
            vec![header.clone(), secret],
            Outcome::None,
        ),
        case(
            "any peer",
            ClientCertificates::danger_forwarded_by_any_peer(CertificateHeader::azure()),
            vec![header],
            Outcome::Leaf,
        ),
    ];
    for Case { name, source, lines, expected } in cases {
        let mut request = request(&lines);
        request.extensions.insert(ClientCertificate::from_der(&fixture.issuer));
        request.extensions.insert([1_u8; 32]);
        assert_eq!(fixture.outcome(source.find(&request)), expected, "{name}");
    }
    for source in [ClientCertificates::from_connection(), ClientCertificates::by(|_| None)] {
        let found = source.find(&request::<&str>(&[]));
        assert_eq!(fixture.outcome(found), Outcome::None, "{source:?} without a certificate");
    }
}
