//! Certificates for the examples with mutual TLS, and the commands to try them. In production, an
//! authority of yours issues the certificates, and a client registers its own at the issuer.

#![allow(dead_code, reason = "each example uses a part")]

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate and its private key.
pub(crate) type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// Issues the certificates of the server and of the clients. In production, that of the server may
/// come from a public authority.
pub(crate) struct Authority {
    certificate: CertificateDer<'static>,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Result<Self, rcgen::Error> {
        let mut params = rcgen::CertificateParams::default();
        // Otherwise it would have the name of the certificates that it issues.
        params.distinguished_name.push(rcgen::DnType::CommonName, "authority of the example");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        let key = rcgen::KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.into();
        Ok(Self { certificate, issuer: rcgen::Issuer::new(params, key) })
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    /// For the server at `localhost`.
    pub(crate) fn server(&self) -> Result<Identity, rcgen::Error> {
        self.issue("localhost", rcgen::ExtendedKeyUsagePurpose::ServerAuth)
    }

    pub(crate) fn client(&self, name: &str) -> Result<Identity, rcgen::Error> {
        self.issue(name, rcgen::ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn issue(
        &self,
        name: &str,
        purpose: rcgen::ExtendedKeyUsagePurpose,
    ) -> Result<Identity, rcgen::Error> {
        let key = rcgen::KeyPair::generate()?;
        let mut params = rcgen::CertificateParams::new([name.to_owned()])?;
        params.extended_key_usages = vec![purpose];
        Ok((params.signed_by(&key, &self.issuer)?.into(), key.into()))
    }
}

/// For a client that no authority knows.
pub(crate) fn self_signed(name: &str) -> Result<Identity, rcgen::Error> {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed([name.to_owned()])?;
    Ok((cert.into(), signing_key.into()))
}

/// Writes the certificates into a new folder, and prints commands that change to it and set
/// `TOKEN`.
pub(crate) fn write_files(
    authority: &Authority,
    client: &Identity,
    other: &Identity,
    token: &str,
) -> io::Result<()> {
    let folder = std::env::temp_dir().join(format!("portcullis-mutual-tls-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    std::fs::write(folder.join("authority.pem"), certificate_pem(&authority.certificate))?;
    for (name, (certificate, key)) in [("client", client), ("other", other)] {
        std::fs::write(folder.join(format!("{name}.pem")), certificate_pem(certificate))?;
        std::fs::write(folder.join(format!("{name}-key.pem")), key_pem(key))?;
    }
    println!("cd {}", folder.display());
    println!("TOKEN={token}");
    Ok(())
}

/// Prints the commands that call `url`.
pub(crate) fn print_curl(url: &str) {
    let curl = format!("curl -i {url} --cacert authority.pem");
    let token = "-H \"Authorization: Bearer $TOKEN\"";
    println!("With the client's certificate, 200:");
    println!("  {curl} --cert client.pem --key client-key.pem {token}");
    println!("With another certificate, 401:");
    println!("  {curl} --cert other.pem --key other-key.pem {token}");
    println!("Without a certificate, 401:");
    println!("  {curl} {token}");
}

pub(crate) fn certificate_pem(certificate: &CertificateDer<'_>) -> String {
    pem("CERTIFICATE", certificate)
}

/// In PKCS #8, as rcgen writes it.
pub(crate) fn key_pem(key: &PrivateKeyDer<'_>) -> String {
    pem("PRIVATE KEY", key.secret_der())
}

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
