//! Speaks to many nodes at once: bounded, within a time limit, one outcome per node.

mod local;
mod selection;

use crate::context::{self, Context};
use crate::error::{CtlError, chain};
use crate::learn::Heard;
use crate::outcome::reason;
pub use crate::outcome::{Outcome, outcome_of};
use crate::tls;
use cbddc_domain::id::NodeName;
use cbddc_domain::mesh::{Environment, Member, MeshFile};
use cbddc_pki::signature::Signer;
use cbddc_proto::MESSAGE_BYTES_MAX;
use cbddc_proto::v1;
use rustls::ClientConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::JoinSet;
use tonic::Status;
use tonic::transport::Channel;

/// How many nodes are spoken to at once unless `--jobs` says otherwise.
pub const JOBS_DEFAULT: usize = 64;

/// One command's view of the mesh. Cheap to clone; connects to a node when it is first needed.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    /// Unset: this host alone, through the agent's socket.
    context: Option<Context>,
    mesh: MeshFile,
    reach: Reach,
    nodes: BTreeMap<NodeName, Arc<Peer>>,
    /// What a member said of who is in the mesh; unset: nobody was asked, or nobody answered.
    heard: Option<Heard>,
    jobs: usize,
    timeout: Duration,
    standing: Arc<Mutex<String>>,
}

/// How agents are reached.
#[derive(Clone)]
enum Reach {
    /// Over the network, with a certificate.
    Mesh(Arc<ClientConfig>),
    /// The one agent of this host, through its socket.
    Socket(PathBuf),
}

struct Peer {
    address: String,
    channel: OnceCell<Channel>,
}

impl Peer {
    fn new(address: String) -> Self {
        let channel = OnceCell::new();
        Self { address, channel }
    }
}

impl Session {
    /// Opens a context. Nothing is connected yet.
    pub fn open(context: Context, jobs: usize, timeout: Duration) -> Result<Self, CtlError> {
        let mesh = context::checked(context.mesh()?)?;
        let file = |name| context.dir.join(name);
        let tls = tls::client_config(&file("ca.pem"), &file("user.pem"), &file("user.key"))
            .map_err(|error| {
                CtlError::failed(format!("the context `{}` cannot be used", context.name))
                    .because(error)
            })?;
        Ok(Self::new(
            Some(context),
            mesh,
            Reach::Mesh(tls),
            jobs,
            timeout,
        ))
    }

    /// Opens the socket of this host's agent, which takes root, and asks it for its name.
    pub async fn open_socket(
        path: &Path,
        jobs: usize,
        timeout: Duration,
    ) -> Result<Self, CtlError> {
        let ask = async {
            let channel = tls::connect_socket(path)
                .await
                .map_err(|error| chain(&error))?;
            let answer = client::node(channel)
                .get_status(v1::GetStatusRequest {})
                .await;
            let status = answer.map_err(|status| reason(&status))?.into_inner();
            let name: NodeName = status.node.parse().map_err(|error| format!("{error}"))?;
            Ok((name, status.mesh))
        };
        let asked = tokio::time::timeout(timeout, ask).await;
        let asked = asked.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        let (node, name) = asked.map_err(|why: String| {
            CtlError::failed(format!(
                "cannot reach this host's agent through {}: {why}",
                path.display()
            ))
            .hint("run it as root, see `systemctl status cbagent`, or name a mesh with --context")
        })?;
        let member = Member::new(node, "");
        let mesh = MeshFile {
            name,
            environment: Environment::Local,
            recovery: None,
            voters: None,
            members: vec![member],
        };
        let reach = Reach::Socket(path.to_owned());
        Ok(Self::new(None, mesh, reach, jobs, timeout))
    }

    fn new(
        context: Option<Context>,
        mesh: MeshFile,
        reach: Reach,
        jobs: usize,
        timeout: Duration,
    ) -> Self {
        let addresses = mesh.addresses().into_iter();
        let nodes = addresses
            .map(|(name, address)| (name, Arc::new(Peer::new(address))))
            .collect();
        Self {
            inner: Arc::new(Inner {
                context,
                mesh,
                reach,
                nodes,
                heard: None,
                jobs: jobs.max(1),
                timeout,
                standing: Arc::new(Mutex::new("nothing was changed".to_owned())),
            }),
        }
    }

    /// The same, with the members as one of them said; connections are shared.
    pub(crate) fn with(&self, mesh: MeshFile, heard: Heard) -> Self {
        let inner = &self.inner;
        let addresses = mesh.addresses().into_iter();
        let nodes = addresses.map(|(name, address)| {
            let held = inner.nodes.get(&name);
            let held = held.filter(|peer| peer.address == address).cloned();
            (name, held.unwrap_or_else(|| Arc::new(Peer::new(address))))
        });
        Self {
            inner: Arc::new(Inner {
                nodes: nodes.collect(),
                context: inner.context.clone(),
                mesh,
                reach: inner.reach.clone(),
                heard: Some(heard),
                jobs: inner.jobs,
                timeout: inner.timeout,
                standing: Arc::clone(&inner.standing),
            }),
        }
    }

    /// What a member said of who is in the mesh.
    pub fn heard(&self) -> Option<&Heard> {
        self.inner.heard.as_ref()
    }

    /// The context; unset where only this host is spoken to.
    pub fn context(&self) -> Option<&Context> {
        self.inner.context.as_ref()
    }

    /// The certificates that the agent of a node proves to be it with, its own first.
    pub async fn shown_chain(&self, node: &NodeName) -> Result<Vec<Vec<u8>>, CtlError> {
        let peer = self.inner.nodes.get(node);
        let (Some(peer), Reach::Mesh(tls)) = (peer, &self.inner.reach) else {
            return Err(CtlError::failed(format!("{node} is not in the mesh file")));
        };
        let showing = tls::shown_chain(Arc::clone(tls), &peer.address, node);
        let shown = tokio::time::timeout(self.inner.timeout, showing).await;
        let shown = shown.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        shown.map_err(|error| CtlError::failed(format!("cannot reach {node}")).because(error))
    }

    /// Where the agent of a node listens.
    pub fn address(&self, node: &NodeName) -> Option<&str> {
        let peer = self.inner.nodes.get(node)?;
        Some(&peer.address)
    }

    /// Whether only this host is spoken to, through its agent's socket.
    pub fn is_local(&self) -> bool {
        self.inner.context.is_none()
    }

    /// The name of the person who asks.
    pub fn user(&self) -> Result<String, CtlError> {
        match &self.inner.context {
            Some(context) => context.user(),
            None => Ok(local::user()),
        }
    }

    /// Signs as the person who asks; nothing where only this host is spoken to.
    pub fn signer(&self) -> Result<Option<Signer>, CtlError> {
        let context = self.inner.context.as_ref();
        context.map(Context::signer).transpose()
    }

    /// The mesh.
    pub fn mesh(&self) -> &MeshFile {
        &self.inner.mesh
    }

    /// All members.
    pub fn nodes(&self) -> BTreeSet<NodeName> {
        self.inner.nodes.keys().cloned().collect()
    }

    /// The time limit per node and call.
    pub fn timeout(&self) -> Duration {
        self.inner.timeout
    }

    /// How many nodes are spoken to at once.
    pub fn jobs(&self) -> usize {
        self.inner.jobs
    }

    /// Says where things stand, for whoever presses Ctrl-C from now on.
    pub fn set_standing(&self, sentence: impl Into<String>) {
        let mut standing = self
            .inner
            .standing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *standing = sentence.into();
    }

    /// Where things stand.
    pub fn standing(&self) -> String {
        let standing = self
            .inner
            .standing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        standing.clone()
    }

    /// The channel to a node, connected on first use and shared afterwards. It connects again by
    /// itself. Bound the call with a time limit.
    pub async fn channel(&self, node: &NodeName) -> Result<Channel, Status> {
        let peer = self
            .inner
            .nodes
            .get(node)
            .ok_or_else(|| Status::not_found(format!("{node} is not in the mesh file")))?;
        let connect = || async {
            match &self.inner.reach {
                Reach::Mesh(tls) => tls::connect(Arc::clone(tls), &peer.address, node)
                    .await
                    .map_err(|error| {
                        Status::unavailable(format!("{}: {}", peer.address, chain(&error)))
                    }),
                Reach::Socket(path) => tls::connect_socket(path).await.map_err(|error| {
                    Status::unavailable(format!("{}: {}", path.display(), chain(&error)))
                }),
            }
        };
        peer.channel.get_or_try_init(connect).await.cloned()
    }

    /// Calls one node within `limit`, connecting included.
    pub async fn call<T, F, Fut>(&self, node: &NodeName, limit: Duration, call: F) -> Outcome<T>
    where
        F: FnOnce(Channel) -> Fut,
        Fut: Future<Output = Result<T, Status>>,
    {
        let whole = async {
            let channel = self.channel(node).await?;
            call(channel).await
        };
        match tokio::time::timeout(limit, whole).await {
            Ok(answer) => outcome_of(answer),
            Err(_) => Outcome::TimedOut,
        }
    }

    /// Calls many nodes with the command's own bounds; see [`Session::fan_out_within`].
    pub async fn fan_out<T, F, Fut>(
        &self,
        nodes: &BTreeSet<NodeName>,
        call: F,
    ) -> BTreeMap<NodeName, Outcome<T>>
    where
        T: Send + 'static,
        F: Fn(NodeName, Channel) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<T, Status>> + Send + 'static,
    {
        self.fan_out_within(nodes, self.inner.jobs, self.inner.timeout, call)
            .await
    }

    /// Calls many nodes, at most `jobs` at once, each within `limit` from when its turn comes,
    /// connecting included. Exactly one outcome per node; no node's error touches another's call.
    pub async fn fan_out_within<T, F, Fut>(
        &self,
        nodes: &BTreeSet<NodeName>,
        jobs: usize,
        limit: Duration,
        call: F,
    ) -> BTreeMap<NodeName, Outcome<T>>
    where
        T: Send + 'static,
        F: Fn(NodeName, Channel) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<T, Status>> + Send + 'static,
    {
        let turns = Arc::new(Semaphore::new(jobs.max(1)));
        let mut running = JoinSet::new();
        for node in nodes {
            let (session, node, call, turns) =
                (self.clone(), node.clone(), call.clone(), Arc::clone(&turns));
            running.spawn(async move {
                let _turn = turns.acquire_owned().await;
                let named = node.clone();
                let outcome = session
                    .call(&node, limit, move |channel| call(named, channel))
                    .await;
                (node, outcome)
            });
        }
        let mut outcomes = BTreeMap::new();
        while let Some(ended) = running.join_next().await {
            // A call that panicked is a fault of this program; its node gets an outcome below.
            if let Ok((node, outcome)) = ended {
                outcomes.insert(node, outcome);
            }
        }
        for node in nodes {
            outcomes
                .entry(node.clone())
                .or_insert_with(|| Outcome::Unreachable {
                    why: "the call ended without an outcome".to_owned(),
                });
        }
        outcomes
    }
}

/// Clients with the bounds that both sides have agreed on.
pub mod client {
    use super::{Channel, MESSAGE_BYTES_MAX, v1};

    macro_rules! client {
        ($name:ident, $module:ident, $client:ident, $doc:literal) => {
            #[doc = $doc]
            pub fn $name(channel: Channel) -> v1::$module::$client<Channel> {
                v1::$module::$client::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
            }
        };
    }

    client!(build, build_service_client, BuildServiceClient, "Builds.");
    client!(
        health,
        health_service_client,
        HealthServiceClient,
        "Health."
    );
    client!(
        journal,
        journal_service_client,
        JournalServiceClient,
        "The journal."
    );
    client!(
        mesh,
        mesh_service_client,
        MeshServiceClient,
        "What agents ask each other."
    );
    client!(
        node,
        node_service_client,
        NodeServiceClient,
        "Where the node stands."
    );
    client!(
        release,
        release_service_client,
        ReleaseServiceClient,
        "Releases."
    );
    client!(
        replication,
        replication_service_client,
        ReplicationServiceClient,
        "Events for audits, and what agents found."
    );
    client!(
        rollout,
        rollout_service_client,
        RolloutServiceClient,
        "A proposer's steps."
    );
    client!(
        snapshot,
        snapshot_service_client,
        SnapshotServiceClient,
        "Snapshots."
    );
}
