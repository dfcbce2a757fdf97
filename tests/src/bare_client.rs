//! A client that does nothing but what it must: mutual TLS to every agent at once, one call each.
//! The benchmark starts itself with [`WORD`], so that this one, too, begins with a cold process.

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark starts programs and prints"
)]

use crate::mesh::TestMesh;
use cbddc_proto::v1;
use cbddc_proto::v1::node_service_client::NodeServiceClient;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tonic::transport::{Endpoint, Uri};

/// The hidden first argument. After it: the folder with `ca.pem`, `user.pem` and `user.key`, then
/// the agents as `NAME=HOST:PORT`.
pub const WORD: &str = "bare-client";

/// HTTP/2 windows in bytes, as `cbctl` has them.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// Runs it with what stands behind [`WORD`].
pub fn run(arguments: &[String]) -> ExitCode {
    let Some((folder, agents)) = arguments.split_first() else {
        return ExitCode::from(64);
    };
    let config = Arc::new(client_config(Path::new(folder)));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let answered = runtime.block_on(ask_all(&config, agents));
    println!("{answered} answered");
    ExitCode::from(u8::from(answered != agents.len()))
}

/// The command that asks the first `count` agents of a mesh, started by the running benchmark.
pub fn command(mesh: &TestMesh, count: usize) -> Command {
    let program = std::env::current_exe().expect("the path of the running program");
    let mut command = Command::new(program);
    let folder = mesh
        .cbctl_config()
        .join("contexts")
        .join(&mesh.options().name);
    command.arg(WORD).arg(folder);
    for node in &mesh.nodes()[..count] {
        command.arg(format!("{}=127.0.0.1:{}", node.name, node.agent_port));
    }
    command
}

fn client_config(folder: &Path) -> ClientConfig {
    let certificate =
        |name| CertificateDer::from_pem_file(folder.join(name)).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(certificate("ca.pem")).expect("an authority");
    let key = PrivateKeyDer::from_pem_file(folder.join("user.key")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring speaks TLS 1.3")
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate("user.pem")], key)
        .expect("a pair");
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn ask_all(config: &Arc<ClientConfig>, agents: &[String]) -> usize {
    let mut calls = JoinSet::new();
    for agent in agents {
        let (name, address) = agent.split_once('=').expect("NAME=HOST:PORT");
        calls.spawn(ask(Arc::clone(config), name.to_owned(), address.to_owned()));
    }
    let answers = calls.join_all().await;
    answers.into_iter().filter(Result::is_ok).count()
}

async fn ask(config: Arc<ClientConfig>, name: String, address: String) -> anyhow::Result<()> {
    let channel = Endpoint::from_shared(format!("http://{name}"))?
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let (config, name, address) = (Arc::clone(&config), name.clone(), address.clone());
            async move {
                let name = ServerName::try_from(name).map_err(std::io::Error::other)?;
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let stream = TlsConnector::from(config).connect(name, stream).await?;
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        }))
        .await?;
    let mut client = NodeServiceClient::new(channel);
    client.get_status(v1::GetStatusRequest {}).await?;
    Ok(())
}
