//! Certificates that a proxy forwards: what is read stands in the header.

#![no_main]

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, Request};
use libfuzzer_sys::fuzz_target;
use portcullis::{CertificateHeader, ClientCertificates};
use portcullis_fuzz::parts;

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
    let text = value.trim();
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    match form {
        0 => {
            let der = text.trim_matches(':');
            let der = STANDARD.decode(der).expect("base64");
            assert_eq!(digest(&SHA256, &der).as_ref(), hash);
        }
        1 if second.is_none() && !text.contains("Cert=") => {
            assert!(text.to_ascii_lowercase().contains(&hex), "{text:?}");
        }
        8 => assert_eq!(text.replace(':', "").to_ascii_lowercase(), hex),
        _ => {}
    }
});
