//! The agent's configuration: one file, read and judged as a whole before a port is bound.
//!
//! The file becomes a TOML table (where further layers will merge), and the table becomes a
//! [`Config`] of domain types. The table is read key by key rather than by serde, because serde
//! stops at the first fault and whoever edits a file on five hosts wants to see all of them.
//!
//! Relative paths are relative to the file. Every key is explained in
//! `packaging/config/cbagent.toml`.

mod checks;
mod clusters;
mod drain;
mod reader;
mod sections;
mod triggers;

pub use checks::{CheckConfig, HttpsTrust, ProbeConfig};
pub use clusters::{CanaryConfig, ChannelMode, Cluster};
pub use sections::{Health, Limits, Peers, Service, TlsFiles};
pub use triggers::{CutOff, Triggers};

use cbddc_domain::access::LocalRoles;
use cbddc_domain::id::NodeName;
use cbddc_domain::mesh::MeshFile;
use cbddc_domain::replication::Topology;
use reader::{Reader, is_host_and_port};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// The largest file that is read, in bytes; a mesh file of 1024 members is far smaller.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where the state lies unless the file says otherwise; for the gate, which must not need the file.
pub const STATE_DIR: &str = "/var/lib/cbagent";

/// The run folder where systemd runs the node, unless the file says otherwise.
pub const RUN_DIR: &str = "/run/cbagent";

/// What the agent is told to do. Complete and checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it comes from.
    pub path: PathBuf,
    /// This node's name in the mesh file.
    pub node: NodeName,
    /// Where builds, snapshots, journal and state are kept.
    pub state_dir: PathBuf,
    /// Where builds are kept. Unset: in `store` in the state folder.
    pub store_dir: Option<PathBuf>,
    /// Where the agent keeps what is gone after a reboot: the permit for the gate at start. Default:
    /// [`RUN_DIR`] with a unit, otherwise `run` in the state folder.
    pub run_dir: PathBuf,
    /// Where to listen, `HOST:PORT`; port 0 lets the system choose.
    pub listen: String,
    /// The mesh.
    pub mesh: MeshFile,
    /// Certificates and key.
    pub tls: TlsFiles,
    /// The CBDDC node.
    pub service: Service,
    /// How its nodes get each other's events. Default: mesh.
    pub topology: Topology,
    /// The clusters it serves, and how to speak to each as a peer. Empty: the wire checks are off.
    pub clusters: Vec<Cluster>,
    /// The local checks.
    pub health: Health,
    /// Every check, those of `[health]` and those of `[[check]]`.
    pub checks: Vec<CheckConfig>,
    /// Bounds on what is stored.
    pub limits: Limits,
    /// How to speak to other agents.
    pub peers: Peers,
    /// Which users of this host may use the agent's socket. Default: root alone.
    pub local: LocalRoles,
    /// What is done about triggers.
    pub triggers: Triggers,
    /// Ports where clients write, which nftables keeps them from while the node is replaced. Default:
    /// none, and it does not.
    pub drain_ports: Vec<u16>,
}

/// A text that nobody is to see: neither `Debug` nor a log shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes a text out of sight.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration {path} is not TOML")]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Where.
        #[source]
        source: toml::de::Error,
    },
    /// The file says something that cannot be; all of it is listed.
    #[error("the configuration {path} has {} fault(s):\n{}", .faults.len(), list(.faults))]
    Faults {
        /// Which.
        path: PathBuf,
        /// Each in a sentence that begins with its key.
        faults: Vec<String>,
    },
}

fn list(faults: &[String]) -> String {
    let lines: Vec<String> = faults.iter().map(|fault| format!("  {fault}")).collect();
    lines.join("\n")
}

impl Config {
    /// Reads and checks a configuration, the mesh file and the token included.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read_bounded(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        // What is relative in the file must stay right in the node, which has another folder.
        let path = std::path::absolute(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text, &path)
    }

    /// Checks a configuration that was read from `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let table: toml::Table = text.parse().map_err(|source| ConfigError::Syntax {
            path: path.to_owned(),
            source,
        })?;
        let base = path.parent().unwrap_or(Path::new("")).to_owned();
        let mut faults = Vec::new();
        let config = Self::build(table, &base, path, &mut faults);
        match config {
            Some(config) if faults.is_empty() => Ok(config),
            Some(_) | None => Err(ConfigError::Faults {
                path: path.to_owned(),
                faults,
            }),
        }
    }

    /// Reads all sections before giving up on any, so that all faults come together.
    fn build(
        table: toml::Table,
        base: &Path,
        path: &Path,
        faults: &mut Vec<String>,
    ) -> Option<Self> {
        let mut root = Reader::new("", table, base, faults);
        let node = root.required_name("node");
        let state_dir = root.required_path("state_dir");
        let store_dir = root.path("store_dir");
        let run_dir = root.path("run_dir");
        let listen = root.string("listen");
        let mesh_path = root.required_path("mesh_file");
        let tls = root.section("tls");
        let service = root.section("service");
        let topology = root.string("topology");
        let cbddc = root.section("cbddc");
        let cluster_tables = root.sections("cluster");
        let health = root.section("health").unwrap_or_default();
        let tables = root.sections("check");
        let limits = root.section("limits").unwrap_or_default();
        let peers = root.section("peers").unwrap_or_default();
        let local = root.section("local").unwrap_or_default();
        let remediation = root.section("remediation").unwrap_or_default();
        let triggers = root.section("triggers").unwrap_or_default();
        let quarantine = root.section("quarantine").unwrap_or_default();
        let haproxy = root.section("haproxy").unwrap_or_default();
        let drain_table = root.section("drain");
        let topology = topology.map(|word| (Topology::from_word(&word), word));
        if let Some((None, word)) = &topology {
            root.fault("topology", &format!("`{word}` is neither mesh nor hosted"));
        }
        root.finish();

        let topology = topology.and_then(|(topology, _)| topology);
        let given = clusters::Given {
            node: node.as_ref(),
            topology: topology.unwrap_or_default(),
            base,
        };
        let clusters = clusters::clusters(cbddc, cluster_tables, &given, faults);
        let tls = sections::tls(tls, base, faults);
        let mut service = sections::service(service, base, faults);
        if let (Some(service), Some(clusters)) = (&mut service, &clusters) {
            // A snapshot holds all that the node writes: whoever names a database means it, too.
            for path in clusters.iter().filter_map(|one| one.database.clone()) {
                if !service.databases.contains(&path) {
                    service.databases.push(path);
                }
            }
        }
        if let (Some(service), Some(state_dir)) = (&service, &state_dir) {
            let stores = [Some(state_dir.join("store")), store_dir.clone()];
            sections::databases_outside(service, stores.into_iter().flatten(), faults);
        }
        let health = sections::health(health, base, faults);
        let checks = match (&health, &service, &state_dir, &clusters) {
            (Some(health), Some(service), Some(state_dir), Some(clusters)) => {
                let given = checks::Given {
                    health,
                    service,
                    state_dir,
                    clusters,
                };
                checks::checks(tables, &given, base, faults)
            }
            _ => Vec::new(),
        };
        let limits = sections::limits(limits, base, faults);
        let peers = sections::peers(peers, base, faults);
        let local = sections::local(local, base, faults);
        let more = (quarantine, haproxy);
        let triggers = triggers::triggers(remediation, triggers, more, base, faults);
        let mesh = mesh_path.and_then(|path| mesh(&path, node.as_ref(), faults));
        if let Some(address) = listen
            .as_deref()
            .filter(|given| !is_host_and_port(given, true))
        {
            faults.push(format!("listen: `{address}` is not HOST:PORT"));
        }
        let own = || mesh.as_ref()?.addresses().remove(node.as_ref()?);
        let drain_ports = match (&health, &clusters) {
            (Some(health), Some(clusters)) => {
                let given = drain::Given {
                    health,
                    clusters,
                    listen: listen.clone().or_else(own),
                };
                drain::drain(drain_table, &given, base, faults)
            }
            _ => Vec::new(),
        };
        let triggers = mesh.as_ref().map(|mesh| triggers.of(mesh.environment));
        let (node, mesh, service, state_dir) = (node?, mesh?, service?, state_dir?);
        let run_dir = run_dir.unwrap_or_else(|| default_run_dir(&service, &state_dir));
        let listen = listen.or_else(|| mesh.addresses().remove(&node))?;
        Some(Self {
            path: path.to_owned(),
            node,
            state_dir,
            store_dir,
            run_dir,
            listen,
            drain_ports,
            mesh,
            tls: tls?,
            service,
            topology: topology.unwrap_or_default(),
            clusters: clusters?,
            health: health?,
            checks,
            limits: limits?,
            peers: peers?,
            local,
            triggers: triggers?,
        })
    }
}

fn default_run_dir(service: &Service, state_dir: &Path) -> PathBuf {
    match service.unit {
        Some(_) => PathBuf::from(RUN_DIR),
        None => state_dir.join("run"),
    }
}

/// The folders of an agent, for the gate at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folders {
    /// Where the state lies.
    pub state_dir: PathBuf,
    /// Where the permit lies.
    pub run_dir: PathBuf,
}

impl Folders {
    /// Reads nothing but the folders, and takes the defaults for what cannot be read: whatever is wrong
    /// with the file, the node must start. Also tells what was wrong.
    pub fn load(path: &Path) -> (Self, Option<ConfigError>) {
        let defaults = || Self {
            state_dir: PathBuf::from(STATE_DIR),
            run_dir: PathBuf::from(RUN_DIR),
        };
        let read = || -> Result<Self, ConfigError> {
            let text = read_bounded(path).map_err(|source| ConfigError::Read {
                path: path.to_owned(),
                source,
            })?;
            let table: toml::Table = text.parse().map_err(|source| ConfigError::Syntax {
                path: path.to_owned(),
                source,
            })?;
            let base = path.parent().unwrap_or(Path::new(""));
            let folder = |key: &str| Some(base.join(table.get(key)?.as_str()?));
            Ok(Self {
                state_dir: folder("state_dir").unwrap_or_else(|| STATE_DIR.into()),
                run_dir: folder("run_dir").unwrap_or_else(|| RUN_DIR.into()),
            })
        };
        match read() {
            Ok(folders) => (folders, None),
            Err(error) => (defaults(), Some(error)),
        }
    }
}

/// Reads the mesh file and looks for this node in it.
fn mesh(path: &Path, node: Option<&NodeName>, faults: &mut Vec<String>) -> Option<MeshFile> {
    let mut fault = |text: String| faults.push(format!("mesh_file: {}: {text}", path.display()));
    let text = match read_bounded(path) {
        Ok(text) => text,
        Err(error) => {
            fault(format!("cannot be read: {error}"));
            return None;
        }
    };
    let mesh: MeshFile = match toml::from_str(&text) {
        Ok(mesh) => mesh,
        Err(error) => {
            fault(error.to_string().trim_end().to_owned());
            return None;
        }
    };
    for found in mesh.faults() {
        fault(found.to_string());
    }
    if let Some(node) = node.filter(|node| !mesh.addresses().contains_key(*node)) {
        fault(format!("does not list {node}: see `cbctl mesh issue`"));
    }
    Some(mesh)
}

/// Reads a text file of at most [`FILE_BYTES_MAX`].
fn read_bounded(path: &Path) -> std::io::Result<String> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!(
            "the file is larger than {FILE_BYTES_MAX} bytes"
        )));
    }
    fs::read_to_string(path)
}
