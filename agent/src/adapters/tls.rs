//! Mutual TLS 1.3, the only way in and out: who is who is read from certificates.
//!
//! Every certificate of a mesh names its holder in a URI, `cbddc://MESH/node/NAME` or
//! `cbddc://MESH/user/NAME/ROLE`. A caller goes on only with the node that it meant to call. Who
//! shows no certificate gets through the handshake, and then no further than the table of calls
//! allows (`grpc/access.rs`).
//!
//! Certificate and authorities may be replaced while connections are open: each new connection
//! uses the newest.

mod caller;
mod files;
mod incoming;
mod room;
mod sparing;
mod verify;

pub use caller::{Caller, ConnectInfo, Shown};
pub use files::TlsError;
pub use incoming::{
    HANDSHAKE_LIMIT, HANDSHAKES_MAX, STRANGER_BYTES_MAX, STRANGERS_MAX, TlsStream, incoming,
};
pub use sparing::LINES_MAX;

use crate::adapters::belief::{Server, dial, provider};
use crate::adapters::clock::TrustedTime;
use crate::config::TlsFiles;
use cbddc_domain::id::NodeName;
use cbddc_domain::roster::TrustEntry;
use cbddc_pki::certificate::Facts;
use cbddc_pki::name::Holder;
use cbddc_pki::signature::{Roots, Signature, Signer};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, ServerConfig};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio_rustls::TlsAcceptor;
use tonic::transport::{Channel, Endpoint, Uri};
use verify::Verifier;

/// HTTP/2 window of one stream in bytes: a bundle is not slowed down by the round trips of a LAN.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// HTTP/2 window of one connection in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// Where an identity comes from.
#[derive(Debug, Clone)]
pub struct IdentityFiles {
    /// What the host was given.
    pub given: TlsFiles,
    /// Where the agent keeps the certificate that it renewed, for the same key.
    pub renewed: PathBuf,
}

/// This agent's identity and the mesh's authorities, loaded and checked.
#[derive(Clone)]
pub struct Tls {
    inner: Arc<Inner>,
}

struct Inner {
    files: IdentityFiles,
    mesh: Arc<str>,
    node: NodeName,
    time: TrustedTime,
    current: RwLock<Arc<Current>>,
}

/// What new connections use.
struct Current {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    roots: Arc<Roots>,
    roots_der: Vec<Vec<u8>>,
    newest: bool,
    former: Option<Arc<Roots>>,
    signer: Signer,
    facts: Facts,
}

impl Tls {
    /// Loads the files and checks that they fit each other, this mesh and this node. Where the mesh
    /// has named its authorities (`trust`), those count beside the files'.
    pub fn load(
        files: IdentityFiles,
        mesh: &str,
        node: &NodeName,
        trust: Option<&TrustEntry>,
        time: TrustedTime,
    ) -> Result<Self, TlsError> {
        let mesh: Arc<str> = mesh.into();
        let current = Current::load(&files, &mesh, node, trust, &time)?;
        // Who signs for the mesh never signs ahead.
        time.at_least(current.facts.not_before);
        let inner = Inner {
            files,
            mesh,
            node: node.clone(),
            time,
            current: RwLock::new(Arc::new(current)),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Loads everything again; connections that are open go on as they are.
    pub fn reload(&self, trust: Option<&TrustEntry>) -> Result<(), TlsError> {
        let inner = &self.inner;
        let current = Current::load(&inner.files, &inner.mesh, &inner.node, trust, &inner.time)?;
        inner.time.at_least(current.facts.not_before);
        let mut held = inner
            .current
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        *held = Arc::new(current);
        Ok(())
    }

    fn current(&self) -> Arc<Current> {
        let held = self.inner.current.read();
        Arc::clone(&held.unwrap_or_else(PoisonError::into_inner))
    }

    /// Accepts TLS 1.3, with a client certificate of the mesh's authorities or with none.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current().server))
    }

    /// The mesh that certificates must name.
    pub fn mesh(&self) -> &str {
        &self.inner.mesh
    }

    /// This node.
    pub fn node(&self) -> &NodeName {
        &self.inner.node
    }

    /// This host's idea of time.
    pub fn time(&self) -> &TrustedTime {
        &self.inner.time
    }

    /// What the own certificate says.
    pub fn facts(&self) -> Facts {
        self.current().facts.clone()
    }

    /// Whether the own certificate comes from the newest of the mesh's authorities.
    pub fn is_newest(&self) -> bool {
        self.current().newest
    }

    /// The files.
    pub fn files(&self) -> &IdentityFiles {
        &self.inner.files
    }

    /// The authorities' certificates in DER.
    pub fn roots_der(&self) -> Vec<Vec<u8>> {
        self.current().roots_der.clone()
    }

    /// Checks signatures of the mesh.
    pub fn roots(&self) -> Arc<Roots> {
        Arc::clone(&self.current().roots)
    }

    /// Checks signatures whose certificates come from authorities that were replaced.
    pub fn former(&self) -> Option<Arc<Roots>> {
        self.current().former.clone()
    }

    /// Signs with the own key.
    pub fn sign(&self, message: &[u8]) -> Signature {
        self.current().signer.sign(message)
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
        let (tls, address, node) = (self.clone(), address.to_owned(), node.to_string());
        // The address that is dialled is the roster's; the URI only names the peer.
        Endpoint::from_shared(format!("http://{node}"))?
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .connect_with_connector(tower::service_fn(move |_: Uri| {
                let config = Arc::clone(&tls.current().client);
                let dial = dial(config, address.clone(), node.clone());
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

impl Current {
    fn load(
        files: &IdentityFiles,
        mesh: &Arc<str>,
        node: &NodeName,
        trust: Option<&TrustEntry>,
        time: &TrustedTime,
    ) -> Result<Self, TlsError> {
        let loaded = files::Loaded::read(files, mesh, node, trust)?;
        let given = &files.given;
        let provider = provider();
        let verifier = Arc::new(Verifier {
            mesh: Arc::clone(mesh),
            roots: Arc::clone(&loaded.roots),
            former: loaded.former.clone(),
            algorithms: provider.signature_verification_algorithms,
        });
        let versions = &[&rustls::version::TLS13];
        let pair = |source: rustls::Error| TlsError::Pair {
            cert: given.cert.clone(),
            key: given.key.clone(),
            source: Box::new(source),
        };
        // Whoever joins knows no more of the mesh than the digest of its root, and finds it here.
        let mut shown = loaded.certificates.clone();
        shown.extend(loaded.roots_der.first().map(|root| root.clone().into()));
        let mut server =
            ServerConfig::builder_with_details(Arc::clone(&provider), Arc::new(time.clone()))
                .with_protocol_versions(versions)
                .map_err(pair)?
                .with_client_cert_verifier(verifier.clone())
                .with_single_cert(shown, loaded.key.clone_key())
                .map_err(pair)?;
        let believed = Arc::new(Server::new(verifier, &provider));
        let mut client = ClientConfig::builder_with_details(provider, Arc::new(time.clone()))
            .with_protocol_versions(versions)
            .map_err(pair)?
            .dangerous()
            .with_custom_certificate_verifier(believed)
            .with_client_auth_cert(loaded.certificates, loaded.key)
            .map_err(pair)?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        client.alpn_protocols = vec![b"h2".to_vec()];
        // Nobody resumes a session that was opened under other authorities.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        client.resumption = Resumption::disabled();
        Ok(Self {
            server: Arc::new(server),
            client: Arc::new(client),
            roots: loaded.roots,
            newest: loaded.newest,
            former: loaded.former,
            roots_der: loaded.roots_der,
            signer: loaded.signer,
            facts: loaded.facts,
        })
    }
}

/// Whether a certificate's holder is this node.
fn is_node(facts: &Facts, node: &NodeName) -> bool {
    facts.mesh_holder == Holder::Node(node.clone())
}
