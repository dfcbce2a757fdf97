//! Whom a client of TLS believes to be the right server. TLS 1.3 only; a kind of client says what it
//! makes of a certificate, and the rest is the same for all.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, DnsName, ServerName, UnixTime};
use std::sync::Arc;
use std::{fmt, io};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What somebody makes of a server's certificate.
pub(crate) trait Belief: fmt::Debug + Send + Sync + 'static {
    /// Whether whoever shows it is the right one.
    fn believe(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error>;
}

/// The primitives of every connection.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A client without a certificate of its own.
pub(crate) fn client(belief: impl Belief) -> Result<ClientConfig, Error> {
    let provider = provider();
    let server = Server::new(belief, &provider);
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(server))
        .with_no_client_auth())
}

/// One connection: TCP, then the handshake in which the server must prove its name.
pub(crate) async fn dial(
    config: Arc<ClientConfig>,
    address: String,
    node: String,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    // Never an IP address: a certificate of the mesh names nodes, not addresses.
    let name = DnsName::try_from(node).map_err(io::Error::other)?;
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(config)
        .connect(ServerName::DnsName(name), stream)
        .await
}

/// The refusal of everything older.
pub(crate) fn only_tls13() -> Error {
    Error::General("only TLS 1.3 is spoken".to_owned())
}

/// A server as a belief sees it.
#[derive(Debug)]
pub(crate) struct Server<B> {
    belief: B,
    algorithms: WebPkiSupportedAlgorithms,
}

impl<B: Belief> Server<B> {
    pub(crate) fn new(belief: B, provider: &CryptoProvider) -> Self {
        Self {
            belief,
            algorithms: provider.signature_verification_algorithms,
        }
    }
}

impl<B: Belief> ServerCertVerifier for Server<B> {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.belief.believe(leaf, others, name, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
