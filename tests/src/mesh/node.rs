//! One host of the mesh: its folder, its ports, its agent.

use super::options::{MeshOptions, text_of};
use super::processes::Process;
use super::wait_for;
use crate::bins::binary;
use rustix::process::Signal;
use serde::Serialize;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The token of the nodes' cluster.
const TOKEN: &str = "a-token-for-tests";

/// That of the second one, where there is one.
const WEST_TOKEN: &str = "another-token-for-tests";

/// Between two writes of the metrics file, in milliseconds; a minute in real nodes.
const METRICS_MS: u64 = 500;

/// How long an agent that was asked to stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// One host.
#[derive(Debug)]
pub struct TestNode {
    /// Its name.
    pub name: String,
    /// Where its agent keeps everything.
    pub folder: PathBuf,
    /// Where its agent listens.
    pub agent_port: u16,
    /// Where its node listens for peers.
    pub sync_port: u16,
    /// Where its node listens for HTTP.
    pub http_port: u16,
    /// The same two of the second cluster, where the node is hosted.
    pub west: (u16, u16),
    /// Variables of its agent, for the next start.
    pub(super) environment: Vec<(&'static str, String)>,
    agent: Option<Child>,
}

impl TestNode {
    /// A host in the mesh's folder, with these five ports.
    pub(super) fn new(mesh: &Path, index: usize, ports: &[u16]) -> Self {
        let name = format!("n{}", index + 1);
        Self {
            folder: mesh.join(&name),
            name,
            agent_port: ports[0],
            sync_port: ports[1],
            http_port: ports[2],
            west: (ports[3], ports[4]),
            environment: Vec::new(),
            agent: None,
        }
    }

    /// The node's database.
    pub fn database(&self) -> PathBuf {
        self.folder.join("node.db")
    }

    /// The database of the second cluster.
    pub fn west_database(&self) -> PathBuf {
        self.folder.join("west.db")
    }

    /// What the agent writes to its log.
    pub fn agent_log(&self) -> PathBuf {
        self.folder.join("agent.log")
    }

    /// What the node writes to its log.
    pub fn node_log(&self) -> PathBuf {
        self.folder.join("state/node.log")
    }

    /// The agent's configuration.
    pub fn config(&self) -> PathBuf {
        self.folder.join("cbagent.toml")
    }

    /// Writes all files but the certificates, which `cbctl mesh issue` wrote to the folder.
    pub(super) fn write_files(&self, options: &MeshOptions, others: &[&Self]) {
        for (file, text) in [("token", TOKEN), ("west-token", WEST_TOKEN)] {
            let mut token = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(self.folder.join(file))
                .expect("the token file is new");
            writeln!(token, "{text}").expect("the token file can be written");
        }
        let settings = self.folder.join("appsettings.json");
        fs::write(settings, self.settings(options, others)).expect("the settings can be written");
        fs::write(self.config(), self.agent_config(options, others))
            .expect("the configuration can be written");
    }

    /// Lets the node, which was not started yet, declare these collections.
    ///
    /// # Panics
    /// When its settings are not as they were written.
    pub fn declare(&self, collections: &[&str]) {
        self.set("Interests", serde_json::json!(collections));
    }

    /// Changes one of the fixture's settings of the node, which was not started yet.
    ///
    /// # Panics
    /// When its settings are not as they were written.
    pub fn set(&self, name: &str, value: serde_json::Value) {
        let path = self.folder.join("appsettings.json");
        let text = fs::read_to_string(&path).expect("settings");
        let mut settings: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        settings["Fixture"][name] = value;
        fs::write(&path, settings.to_string()).expect("they can be written");
    }

    /// What the fixture node is told, in the form that real nodes use.
    fn settings(&self, options: &MeshOptions, others: &[&Self]) -> String {
        let peer = |other: &&Self| serde_json::json!({ "NodeId": other.name, "Host": "127.0.0.1", "Port": other.sync_port });
        let others = others.iter().filter(|_| !options.hosted);
        let peers: Vec<_> = others.map(peer).collect();
        let west = serde_json::json!({
            "Name": "west",
            "Port": self.west.0,
            "Http": self.west.1,
            "Database": self.west_database(),
            "AuthToken": WEST_TOKEN,
        });
        let clusters: Vec<_> = options.hosted.then_some(west).into_iter().collect();
        let interval = options.sync_interval.as_millis();
        let settings = serde_json::json!({
            "EntglDb": {
                "NodeName": self.name,
                "Port": self.sync_port,
                "AuthToken": TOKEN,
                "KnownPeers": peers,
            },
            "Database": { "Path": self.database() },
            "Fixture": {
                "Like": options.like.name(),
                "MetricsMs": METRICS_MS,
                "Http": self.http_port,
                "IntervalMs": interval as u64,
                "MaxBackoffMs": 2 * interval as u64,
                "Clusters": clusters,
            },
        });
        format!("{settings:#}\n")
    }

    fn agent_config(&self, options: &MeshOptions, others: &[&Self]) -> String {
        let peers: Vec<String> = others
            .iter()
            .map(|other| format!("127.0.0.1:{}", other.sync_port))
            .collect();
        let settings = self.folder.join("appsettings.json");
        let clusters = match options.hosted {
            true => self.hosted_clusters(options),
            false => format!(
                r#"[cbddc]
address = "127.0.0.1:{sync_port}"
token_file = "token"
expected_peers = {peers}
target_collections = {collections}
{canary}
"#,
                sync_port = self.sync_port,
                peers = quoted(&peers),
                collections = quoted(&options.target_collections),
                canary = options
                    .canary
                    .replace("HTTP_PORT", &self.http_port.to_string()),
            ),
        };
        format!(
            r#"node = {name}
topology = {topology}
state_dir = "state"
mesh_file = "mesh.toml"

[tls]
ca = "ca.pem"
cert = "node.pem"
key = "node.key"

[service]
program = "bin/cbddc"
args = ["--settings", {settings}]
env = {{ FIXTURE_NODE = {fixture} }}
databases = {databases}
drain = [{fixture}, "drain", "127.0.0.1:{http_port}"]
undrain = [{fixture}, "undrain", "127.0.0.1:{http_port}"]
stop_timeout = "5s"
ready_timeout = "10s"
sync_interval = "{sync}"

{clusters}
[health]
http = "http://127.0.0.1:{http_port}/health"
interval = "{health}"
min_free_disk = "1MiB"

[peers]
poll = "{poll}"
probe = "{probe}"
ask_limit = "{ask}"
call_timeout = "2s"
{extra}"#,
            name = quoted(&self.name),
            settings = quoted(&settings),
            fixture = quoted(&binary("fixture-node")),
            sync = text_of(options.sync_interval),
            topology = quoted(&if options.hosted { "hosted" } else { "mesh" }),
            databases = if options.hosted {
                "[]"
            } else {
                "[\"node.db\"]"
            },
            http_port = self.http_port,
            health = text_of(options.health_interval),
            poll = text_of(options.peers_poll),
            probe = text_of(options.peers_probe),
            ask = text_of(options.ask_limit),
            extra = options.extra_config,
        )
    }

    fn hosted_clusters(&self, options: &MeshOptions) -> String {
        let critical = quoted(&options.critical_collections);
        let cluster = |name: &str, port: u16, token: &str, database: PathBuf| {
            let database = quoted(&database);
            format!(
                r#"[[cluster]]
name = "{name}"
address = "127.0.0.1:{port}"
token_file = "{token}"
database = {database}
critical_collections = {critical}
follow_interval = "500ms"
"#
            )
        };
        let east = cluster("east", self.sync_port, "token", self.database());
        east + &cluster("west", self.west.0, "west-token", self.west_database())
    }

    /// Starts the agent; does not wait for it.
    #[track_caller]
    pub(super) fn spawn_agent(&mut self, crash: Option<&str>) {
        assert!(self.agent.is_none(), "the agent of {} runs", self.name);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.agent_log())
            .expect("the agent's log can be opened");
        let mut command = Command::new(binary("cbagent"));
        command
            .arg("run")
            .arg("--config")
            .arg(self.config())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Ctrl-C at the terminal is for whoever started the mesh, not for its agents.
            .process_group(0)
            // As its unit has it.
            .env("MALLOC_ARENA_MAX", "2")
            .env("MALLOC_TRIM_THRESHOLD_", "131072")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(crash) = crash {
            command.env("CBAGENT_CRASH", crash);
        }
        self.agent = Some(command.spawn().expect("cbagent can be started"));
    }

    /// The agent's process, while it lives.
    pub fn agent_process(&self) -> Option<Process> {
        self.agent
            .as_ref()
            .and_then(|agent| Process::of(agent.id()))
    }

    /// True when the agent was started and ended by itself.
    pub fn agent_ended(&mut self) -> bool {
        self.agent
            .as_mut()
            .is_some_and(|agent| !matches!(agent.try_wait(), Ok(None)))
    }

    /// Kills the agent as `kill -9` does.
    pub fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }

    /// Asks the agent to stop and waits for it.
    #[track_caller]
    pub fn stop_agent(&mut self) {
        let Some(mut agent) = self.agent.take() else {
            return;
        };
        if let Some(process) = Process::of(agent.id()) {
            process.signal(Signal::TERM);
        }
        wait_for("an agent stops when it is asked to", STOP_LIMIT, || {
            matches!(agent.try_wait(), Ok(Some(_)) | Err(_)).then_some(())
        });
    }

    /// The node's process, while it lives.
    pub fn node_process(&self) -> Option<Process> {
        Process::of_lock(&self.folder.join("state/run/node.lock"))
    }

    /// Leaves the agent running when this is dropped.
    pub(super) fn forget_agent(&mut self) {
        self.agent = None;
    }
}

/// A value in the configuration file: JSON's strings and lists of strings are TOML's, too.
fn quoted(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("text and paths are JSON")
}
