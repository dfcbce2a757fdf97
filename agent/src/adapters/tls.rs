//! Mutual TLS 1.3, the only way in and out: who is who is read from certificates.
//!
//! Every certificate of a mesh names its holder in a URI, `cbddc://MESH/node/NAME` or
//! `cbddc://MESH/user/NAME`. A node's certificate also carries its name as DNS name, so that a
//! caller notices when another host answers at a node's address.
//!
//! Not here: roles and the renewal of certificates.

mod files;
mod identity;
mod incoming;

pub use files::TlsError;
pub use identity::PeerIdentity;
pub use incoming::{ConnectInfo, HANDSHAKE_LIMIT, HANDSHAKES_MAX, TlsStream, incoming};

use crate::config::TlsFiles;
use cbddc_domain::id::NodeName;
use hyper_util::rt::TokioIo;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{DnsName, ServerName};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::transport::{Channel, Endpoint, Uri};

/// HTTP/2 window of one stream in bytes: a bundle is not slowed down by the round trips of a LAN.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// HTTP/2 window of one connection in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// This agent's identity and the mesh's authority, loaded and checked.
#[derive(Clone)]
pub struct Tls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    mesh: Arc<str>,
}

impl Tls {
    /// Loads the files and checks that they fit each other, this mesh and this node.
    pub fn load(files: &TlsFiles, mesh: &str, node: &NodeName) -> Result<Self, TlsError> {
        let loaded = files::Loaded::read(files)?;
        let found = PeerIdentity::of(&loaded.certificates[0], mesh);
        if found != Ok(PeerIdentity::Node(node.clone())) {
            return Err(TlsError::NotOurs {
                path: files.cert.clone(),
                expected: format!("cbddc://{mesh}/node/{node}"),
                found: found.map_or_else(|why| why, |identity| identity.to_string()),
            });
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = &[&rustls::version::TLS13];
        let verifier = WebPkiClientVerifier::builder_with_provider(
            Arc::clone(&loaded.roots),
            Arc::clone(&provider),
        )
        .build()
        .map_err(|source| TlsError::Authority {
            path: files.ca.clone(),
            source: Box::new(source),
        })?;
        let pair = |source| TlsError::Pair {
            cert: files.cert.clone(),
            key: files.key.clone(),
            source,
        };
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(pair)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(loaded.certificates.clone(), loaded.key.clone_key())
            .map_err(pair)?;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(pair)?
            .with_root_certificates(loaded.roots)
            .with_client_auth_cert(loaded.certificates, loaded.key)
            .map_err(pair)?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        client.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
            mesh: mesh.into(),
        })
    }

    /// Accepts only TLS 1.3 with a client certificate of the mesh's authority.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.server))
    }

    /// The mesh that certificates must name.
    pub fn mesh(&self) -> &str {
        &self.mesh
    }

    /// Connects to another agent, which must prove to be `node`, within `limit`.
    ///
    /// The channel connects again by itself when the connection breaks, under the same conditions.
    pub async fn connect(
        &self,
        address: &str,
        node: &NodeName,
        limit: Duration,
    ) -> Result<Channel, tonic::transport::Error> {
        let (config, address, node) = (
            Arc::clone(&self.client),
            address.to_owned(),
            node.to_string(),
        );
        // The address that is dialled is the mesh file's; the URI only names the peer.
        Endpoint::from_shared(format!("http://{node}"))?
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .connect_with_connector(tower::service_fn(move |_: Uri| {
                let dial = dial(Arc::clone(&config), address.clone(), node.clone());
                async move {
                    match tokio::time::timeout(limit, dial).await {
                        Ok(stream) => stream.map(TokioIo::new),
                        Err(_) => Err(io::Error::new(
                            io::ErrorKind::TimedOut,
                            format!("no connection within {} ms", limit.as_millis()),
                        )),
                    }
                }
            }))
            .await
    }
}

/// One connection: TCP, then the handshake in which the server must prove its name.
async fn dial(
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
