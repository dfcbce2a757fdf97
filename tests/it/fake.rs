//! A mesh of stand-ins: real certificates and real TLS, but agents that answer as they are told.

use cbagent::adapters::clock::TrustedTime;
use cbagent::adapters::tls::{ConnectInfo, IdentityFiles, Tls, TlsError, incoming};
use cbagent::config::TlsFiles;
use cbddc_proto::v1;
use cbddc_proto::v1::build_service_server::{BuildService, BuildServiceServer};
use cbddc_proto::v1::node_service_server::{NodeService, NodeServiceServer};
use cbddc_tests::bins::binary as bin;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

/// How a stand-in answers.
#[derive(Clone)]
pub(crate) enum Behaviour {
    /// At once, with this.
    Answer(Box<v1::GetStatusResponse>),
    /// Never.
    Hang,
    /// With a refusal of this word.
    Refuse(&'static str),
}

/// A stand-in for one agent.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) behaviour: Behaviour,
    /// The bundles that were sent, by build.
    pub(crate) bundles: Arc<Mutex<BTreeMap<String, Vec<u8>>>>,
}

impl Fake {
    pub(crate) fn new(behaviour: Behaviour) -> Self {
        Self {
            behaviour,
            bundles: Arc::default(),
        }
    }

    /// Serves on the listener for as long as the runtime lives.
    pub(crate) fn serve(&self, listener: TcpListener, tls: &Tls) {
        let incoming = incoming(listener, tls.clone());
        let server = tonic::transport::Server::builder()
            .add_service(NodeServiceServer::new(self.clone()))
            .add_service(BuildServiceServer::new(self.clone()))
            .serve_with_incoming(incoming);
        tokio::spawn(server);
    }
}

/// A steady node without history.
pub(crate) fn steady() -> v1::GetStatusResponse {
    v1::GetStatusResponse {
        phase: "steady".into(),
        health: "healthy".into(),
        register: Some(v1::RegisterView {
            promised: Some(v1::Epoch::default()),
            highest: Some(v1::Epoch::default()),
            ..v1::RegisterView::default()
        }),
        ..v1::GetStatusResponse::default()
    }
}

#[tonic::async_trait]
impl NodeService for Fake {
    /// Tells who asked in `agent_version`.
    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let peer = request
            .extensions()
            .get::<ConnectInfo>()
            .map(|info| info.caller_at(0).to_string());
        match &self.behaviour {
            Behaviour::Answer(status) => Ok(Response::new(v1::GetStatusResponse {
                agent_version: peer.unwrap_or_default(),
                ..*status.clone()
            })),
            Behaviour::Hang => std::future::pending().await,
            Behaviour::Refuse(word) => {
                let mut status = Status::failed_precondition("not today");
                let word = word.parse().expect("a word is ASCII");
                status.metadata_mut().insert(cbddc_proto::WORD_KEY, word);
                Err(status)
            }
        }
    }

    type WatchStatusStream =
        tokio_stream::Iter<std::option::IntoIter<Result<v1::WatchStatusResponse, Status>>>;

    async fn watch_status(
        &self,
        _: Request<v1::WatchStatusRequest>,
    ) -> Result<Response<Self::WatchStatusStream>, Status> {
        Ok(Response::new(tokio_stream::iter(None)))
    }

    async fn adopt(
        &self,
        _: Request<v1::AdoptRequest>,
    ) -> Result<Response<v1::AdoptResponse>, Status> {
        Err(Status::failed_precondition("not here"))
    }

    async fn unadopt(
        &self,
        _: Request<v1::UnadoptRequest>,
    ) -> Result<Response<v1::UnadoptResponse>, Status> {
        Err(Status::failed_precondition("not here"))
    }

    async fn set_drained(
        &self,
        _: Request<v1::SetDrainedRequest>,
    ) -> Result<Response<v1::SetDrainedResponse>, Status> {
        Err(Status::failed_precondition("not here"))
    }

    async fn set_quarantined(
        &self,
        _: Request<v1::SetQuarantinedRequest>,
    ) -> Result<Response<v1::SetQuarantinedResponse>, Status> {
        Err(Status::failed_precondition("not here"))
    }

    async fn set_frozen(
        &self,
        _: Request<v1::SetFrozenRequest>,
    ) -> Result<Response<v1::SetFrozenResponse>, Status> {
        Err(Status::failed_precondition("not here"))
    }

    async fn list_generations(
        &self,
        _: Request<v1::ListGenerationsRequest>,
    ) -> Result<Response<v1::ListGenerationsResponse>, Status> {
        Ok(Response::new(v1::ListGenerationsResponse::default()))
    }
}

type Chunks = std::pin::Pin<Box<dyn Stream<Item = Result<v1::FetchBuildResponse, Status>> + Send>>;

#[tonic::async_trait]
impl BuildService for Fake {
    type FetchBuildStream = Chunks;

    async fn remove_builds(
        &self,
        _: Request<v1::RemoveBuildsRequest>,
    ) -> Result<Response<v1::RemoveBuildsResponse>, Status> {
        Err(Status::failed_precondition("not here"))
    }

    async fn push_build(
        &self,
        request: Request<Streaming<v1::PushBuildRequest>>,
    ) -> Result<Response<v1::PushBuildResponse>, Status> {
        use v1::push_build_request::Part;
        if let Behaviour::Refuse(word) = &self.behaviour {
            return Err(Status::failed_precondition(*word));
        }
        let mut parts = request.into_inner();
        let (mut build, mut bytes) = (None, Vec::new());
        while let Some(part) = parts.next().await {
            match part?.part {
                Some(Part::Build(named)) => build = Some(named),
                Some(Part::Chunk(chunk)) => bytes.extend_from_slice(&chunk),
                None => return Err(Status::invalid_argument("an empty part")),
            }
        }
        let build = build.ok_or_else(|| Status::invalid_argument("no name"))?;
        let size = bytes.len() as u64;
        self.bundles
            .lock()
            .expect("not poisoned")
            .insert(build.id.clone(), bytes);
        Ok(Response::new(v1::PushBuildResponse {
            build: Some(build),
            already_present: false,
            size,
        }))
    }

    async fn list_builds(
        &self,
        _: Request<v1::ListBuildsRequest>,
    ) -> Result<Response<v1::ListBuildsResponse>, Status> {
        Ok(Response::new(v1::ListBuildsResponse::default()))
    }

    async fn show_build(
        &self,
        _: Request<v1::ShowBuildRequest>,
    ) -> Result<Response<v1::ShowBuildResponse>, Status> {
        Err(Status::not_found("nothing here"))
    }

    async fn fetch_build(
        &self,
        _: Request<v1::FetchBuildRequest>,
    ) -> Result<Response<Self::FetchBuildStream>, Status> {
        Err(Status::not_found("nothing here"))
    }
}

/// A mesh's folders in a temporary one, made by the real `cbctl`.
pub(crate) struct Folders {
    pub(crate) temp: TempDir,
}

impl Folders {
    /// Makes a mesh of these members.
    pub(crate) fn init(name: &str, members: &[(&str, SocketAddr)]) -> Self {
        let folders = Self {
            temp: TempDir::new().expect("a temporary folder"),
        };
        let mesh = folders.path("mesh");
        let mut arguments = vec![
            "mesh".to_owned(),
            "init".into(),
            "--name".into(),
            name.into(),
        ];
        arguments.push("--no-passphrase".into());
        arguments.extend(["--user".into(), "ana".into(), "--dir".into()]);
        arguments.push(mesh.to_str().expect("a plain path").to_owned());
        for (node, address) in members {
            arguments.extend(["--member".into(), format!("{node}={address}")]);
        }
        expect(&folders.ctl(&arguments), 0);
        for (node, _) in members {
            expect(&folders.ctl(&["mesh", "issue", node]), 0);
        }
        folders
    }

    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.temp.path().join(inside)
    }

    /// The identity of a node.
    pub(crate) fn tls(&self, mesh: &str, node: &str) -> Tls {
        let files = files(&self.path("mesh/nodes").join(node), "node");
        load_tls(&files, mesh, node).expect("usable files")
    }

    /// Runs `cbctl` to its end.
    pub(crate) fn ctl<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Output {
        #[expect(
            clippy::disallowed_methods,
            reason = "a test starts the program under test"
        )]
        let mut command = std::process::Command::new(bin("cbctl"));
        command
            .args(arguments)
            .env("CBCTL_CONFIG", self.path("config"))
            .stdin(Stdio::null())
            .output()
            .expect("cbctl can be started")
    }

    /// Runs `cbctl` while this runtime serves it.
    pub(crate) async fn ctl_async<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Output {
        #[expect(
            clippy::disallowed_methods,
            reason = "a test starts the program under test"
        )]
        let mut command = tokio::process::Command::new(bin("cbctl"));
        let ended = command
            .args(arguments)
            .env("CBCTL_CONFIG", self.path("config"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        tokio::time::timeout(Duration::from_secs(60), ended)
            .await
            .expect("cbctl ends within a minute")
            .expect("cbctl can be started")
    }
}

pub(crate) fn files(folder: &Path, name: &str) -> TlsFiles {
    TlsFiles {
        ca: folder.join("ca.pem"),
        cert: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}.key")),
    }
}

/// A listener on a port of its own, and its address.
pub(crate) async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a bound address");
    (listener, address)
}

/// Stdout and stderr of a command that must end with this exit code.
pub(crate) fn expect(output: &Output, code: i32) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(
        output.status.code(),
        Some(code),
        "stdout: {stdout}\nstderr: {stderr}"
    );
    (stdout, stderr)
}

/// An identity from its files alone, as an agent has it that never renewed.
pub(crate) fn load_tls(files: &TlsFiles, mesh: &str, node: &str) -> Result<Tls, TlsError> {
    let renewed = files.cert.with_extension("renewed");
    let files = IdentityFiles {
        given: files.clone(),
        renewed,
    };
    let node = node.parse().expect("a node name");
    Tls::load(files, mesh, &node, None, TrustedTime::default())
}
