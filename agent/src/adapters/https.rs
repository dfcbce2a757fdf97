//! Whom an https address is believed: an authority of the operator's own, or one certificate and no
//! other. There is no list of public authorities here: a node's health page has no public name.
//!
//! TLS 1.3 only. A pinned certificate counts by itself; its names and its time are not looked at.

use crate::adapters::belief::{Belief, client, provider};
use rustls::{CertificateError, ClientConfig, Error, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// A file with certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// It is no PEM, or holds no certificate.
    #[error("the file of a health check's certificate cannot be read")]
    Pem(#[source] rustls_pki_types::pem::Error),
    /// It is not to be used with TLS.
    #[error("the certificate of a health check is not usable")]
    Tls(#[from] Error),
}

/// Believes certificates of the authorities in a PEM text, for the name that was asked, in their time.
pub fn trusting(pem: &[u8]) -> Result<TlsConnector, HttpsError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.map_err(HttpsError::Pem)?)?;
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config).into())
}

/// Believes the first certificate in a PEM text and no other.
pub fn pinning(pem: &[u8]) -> Result<TlsConnector, HttpsError> {
    let certificate = CertificateDer::from_pem_slice(pem).map_err(HttpsError::Pem)?;
    Ok(Arc::new(client(Pinned(certificate))?).into())
}

#[derive(Debug)]
struct Pinned(CertificateDer<'static>);

impl Belief for Pinned {
    fn believe(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: UnixTime,
    ) -> Result<(), Error> {
        if *leaf == self.0 {
            return Ok(());
        }
        Err(Error::InvalidCertificate(
            CertificateError::ApplicationVerificationFailure,
        ))
    }
}
