//! Mutual TLS 1.3 to the agents. The agents' side is `agent/src/adapters/tls.rs`; the two share no
//! code, because the client never depends on the agent.

use cbddc_domain::id::NodeName;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, DnsName, PrivateKeyDer, ServerName};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// HTTP/2 window of one stream in bytes.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// HTTP/2 window of one connection in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// Certificates or keys that cannot be used. Never contains a key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path} holds no usable {what} in PEM form")]
    NotPem {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// Others may read the key.
    #[error("others may read the key {path} (mode {mode:04o}): run `chmod 600` on it")]
    KeyMode {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Certificate and key do not belong together.
    #[error("certificate {cert} and its key cannot be used together")]
    Pair {
        /// The certificate.
        cert: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// Loads who asks and whom to trust.
pub fn client_config(ca: &Path, cert: &Path, key: &Path) -> Result<Arc<ClientConfig>, TlsError> {
    let not_pem = |path: &Path, what| TlsError::NotPem {
        path: path.to_owned(),
        what,
    };
    let mut roots = RootCertStore::empty();
    for authority in certificates(ca)? {
        roots.add(authority).map_err(|_| not_pem(ca, "authority"))?;
    }
    let mode = fs::metadata(key)
        .map_err(|source| read_error(key, source))?
        .permissions()
        .mode();
    // The owner, and at most a group that may read: 0600 or 0640.
    if mode & 0o037 != 0 {
        return Err(TlsError::KeyMode {
            path: key.to_owned(),
            mode: mode & 0o7777,
        });
    }
    let bytes = fs::read(key).map_err(|source| read_error(key, source))?;
    let private = PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| not_pem(key, "private key"))?;
    let pair = |source| TlsError::Pair {
        cert: cert.to_owned(),
        source,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(pair)?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(cert)?, private)
        .map_err(pair)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Connects to the agent at `address`, which must prove to be `node`. Bound it with a time limit.
pub async fn connect(
    config: Arc<ClientConfig>,
    address: &str,
    node: &NodeName,
) -> Result<Channel, tonic::transport::Error> {
    let (address, name) = (address.to_owned(), node.to_string());
    // The address that is dialled is the mesh file's; the URI only names the peer.
    Endpoint::from_shared(format!("http://{node}"))?
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let dial = dial(Arc::clone(&config), address.clone(), name.clone());
            async { dial.await.map(TokioIo::new) }
        }))
        .await
}

/// The certificate, in DER, that the agent at `address` proves to be `node` with. Bound it with a time
/// limit.
pub async fn shown_certificate(
    config: Arc<ClientConfig>,
    address: &str,
    node: &NodeName,
) -> io::Result<Vec<u8>> {
    let shown = shown_chain(config, address, node).await?;
    shown
        .into_iter()
        .next()
        .ok_or_else(|| io::Error::other("it showed no certificate"))
}

/// The same with its issuers' certificates behind it, as far as the agent shows them.
pub async fn shown_chain(
    config: Arc<ClientConfig>,
    address: &str,
    node: &NodeName,
) -> io::Result<Vec<Vec<u8>>> {
    let stream = dial(config, address.to_owned(), node.to_string()).await?;
    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
    Ok(shown
        .iter()
        .map(|certificate| certificate.to_vec())
        .collect())
}

/// Connects to the agent of this host through its socket. Bound it with a time limit.
pub async fn connect_socket(path: &Path) -> Result<Channel, tonic::transport::Error> {
    let path = path.to_owned();
    // The URI is never resolved.
    Endpoint::from_static("http://localhost")
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
}

async fn dial(
    config: Arc<ClientConfig>,
    address: String,
    node: String,
) -> io::Result<TlsStream<TcpStream>> {
    // Never an IP address: a certificate of the mesh names nodes, not addresses.
    let name = DnsName::try_from(node).map_err(io::Error::other)?;
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    TlsConnector::from(config)
        .connect(ServerName::DnsName(name), stream)
        .await
}

fn read_error(path: &Path, source: io::Error) -> TlsError {
    TlsError::Read {
        path: path.to_owned(),
        source,
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = fs::read(path).map_err(|source| read_error(path, source))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    found
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| TlsError::NotPem {
            path: path.to_owned(),
            what: "certificate",
        })
}
