//! TLS of probes: the configuration, made once, and the handshake.
//!
//! Nothing is remembered from one probe to the next: each asks for a whole handshake, because that is what a new client
//! of the backend would meet.

use super::ProbeError;
use super::connection::Connection;
use super::words;
use ringway_core::model::{Address, ProbeTls};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use tokio_rustls::TlsConnector;

pub(super) struct Tls {
    connector: TlsConnector,
    /// `None`: the backend's own.
    server_name: Option<ServerName<'static>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// The error is a whole sentence. `alpn`: protocols to offer; none: the extension is left out.
    pub(super) fn new(probe: &ProbeTls, alpn: &[&[u8]]) -> Result<Self, String> {
        let server_name = probe.server_name.as_deref().map(parse_name).transpose()?;
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS cannot be set up for probes: {error}"))?;
        let mut config = if probe.verify {
            let roots = match &probe.authorities {
                Some(path) => authorities_of(path)?,
                None => authorities_of_the_system()?,
            };
            builder.with_root_certificates(roots).with_no_client_auth()
        } else {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate))
                .with_no_client_auth()
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config.resumption = Resumption::disabled();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            server_name,
        })
    }

    /// Over a connection that stands; the caller bounds the time.
    pub(super) async fn handshake(
        &self,
        connection: Box<dyn Connection>,
        address: &Address,
        name: Option<&str>,
    ) -> Result<Box<dyn Connection>, ProbeError> {
        let server_name = self.server_name.clone().unwrap_or_else(|| own_name(address, name));
        match self.connector.connect(server_name, connection).await {
            Ok(secured) => Ok(Box::new(secured)),
            Err(error) => Err(fault(&error)),
        }
    }
}

fn parse_name(name: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| format!("\"{name}\" cannot be sent as a TLS server name; write a DNS name or an IP address"))
}

/// Of the backend: its DNS name, else its IP address, which is not sent (RFC 6066 has no SNI for addresses) but is what a
/// certificate is verified for. A UNIX socket is on this machine.
fn own_name(address: &Address, name: Option<&str>) -> ServerName<'static> {
    let ip = match address {
        Address::Inet(address) => address.ip(),
        Address::Unix(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
    };
    name.and_then(|name| ServerName::try_from(name.to_owned()).ok())
        .unwrap_or(ServerName::IpAddress(ip.into()))
}

fn authorities_of(path: &Path) -> Result<RootCertStore, String> {
    let unreadable = |error: pem::Error| format!("the file of authorities {} cannot be read: {error}", path.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        roots.add(certificate.map_err(unreadable)?).map_err(|error| {
            format!(
                "the file of authorities {} holds a certificate that cannot be used: {error}",
                path.display()
            )
        })?;
    }
    if roots.is_empty() {
        return Err(format!(
            "the file of authorities {} holds no certificate; they begin with -----BEGIN CERTIFICATE-----",
            path.display()
        ));
    }
    Ok(roots)
}

fn authorities_of_the_system() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    // Stores hold certificates of all ages; the few that are not understood are left out, as elsewhere.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(
            "this system has no certificate authorities to verify backends with; install them (ca-certificates) or \
             name a file of authorities"
                .to_owned(),
        );
    }
    Ok(roots)
}

/// What went wrong in a handshake: of the socket, or of what was said.
fn fault(error: &io::Error) -> ProbeError {
    let told = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let Some(told) = told else {
        return words::fault(error, " in the TLS handshake");
    };
    ProbeError::Failed(match told {
        Error::InvalidCertificate(why) => format!("TLS: {}", certificate_words(why)),
        Error::AlertReceived(alert) => format!("TLS: the backend refuses the handshake ({alert:?})"),
        Error::InvalidMessage(_) => "the answer is not TLS".to_owned(),
        other => format!("TLS: {other}"),
    })
}

fn certificate_words(why: &CertificateError) -> String {
    match why {
        // The second: of an authority that merely has the name of a trusted one, perhaps because it was made anew.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the certificate is not signed by a trusted authority".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "the certificate has expired".to_owned(),
        CertificateError::NotValidForName => "the certificate is not valid for the name".to_owned(),
        CertificateError::NotValidForNameContext { expected, .. } => {
            format!("the certificate is not valid for {}", expected.to_str())
        }
        other => format!("the certificate is refused: {other}"),
    }
}

/// Takes whatever certificate a backend shows.
///
/// Right for a probe, and only for one: the question is whether the backend lives. Nothing secret is sent, the answer is
/// believed about as much as one without TLS would be, and a certificate that expires must not take every backend of a
/// pool out at the same moment. Who wants the certificate to count says `verify: true`. Signatures are not looked at
/// either, because certificates that our library cannot read (version 1, rare keys) are in use too.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    /// All that a backend may have a key for, those included that we could not verify.
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::ECDSA_NISTP521_SHA512,
            SignatureScheme::ED25519,
            SignatureScheme::ED448,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::RSA_PKCS1_SHA256,
            SignatureScheme::RSA_PKCS1_SHA384,
            SignatureScheme::RSA_PKCS1_SHA512,
            SignatureScheme::ECDSA_SHA1_Legacy,
            SignatureScheme::RSA_PKCS1_SHA1,
        ]
    }
}
