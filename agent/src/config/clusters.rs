//! `[cbddc]` and `[[cluster]]`: how to speak to the node as a peer. `[cbddc]` is the short form for a
//! node with one cluster.

use super::reader::Reader;
use super::sections::seconds;
use super::{Secret, read_bounded};
use cbddc_domain::id::NodeName;
use cbddc_domain::replication::{ExpectedPeer, Topology};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Table;

/// The most clusters of one node: each has up to three checks, and a node has up to 32.
const CLUSTERS_MAX: usize = 8;

/// The longest name of a cluster, in bytes: it is a part of names of checks.
const NAME_BYTES_MAX: usize = 24;

/// The collection of the agents' own events, where none is named.
const CANARY_COLLECTION: &str = "cbagent.canary";

/// Who writes an event for checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CanaryConfig {
    /// The agent, by the one request of the protocol that writes.
    Push,
    /// A program and its arguments.
    Command(Vec<String>),
    /// A page of the application.
    Http(String),
}

/// One cluster that the node serves.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Its name; empty for that of `[cbddc]`.
    pub name: String,
    /// Its database file. Unset: its events are read from the databases of `[service]` under
    /// `[cbddc]`, and over the CBDDC protocol under `[[cluster]]`.
    pub database: Option<PathBuf>,
    /// Its sync port, `HOST:PORT`.
    pub address: String,
    /// Its node id. Default: the agent's `node`.
    pub node_id: String,
    /// The cluster's token.
    pub token: Secret,
    /// Which channel to open. Default: auto.
    pub channel: ChannelMode,
    /// The peers that it must have joined. Default: none are checked.
    pub expected_peers: Vec<ExpectedPeer>,
    /// The collections that must move. Default: all that do.
    pub target_collections: Vec<String>,
    /// The collections in which anything that is found is critical. Default: none.
    pub critical_collections: Vec<String>,
    /// Who writes an event for checks where nothing else moves. Default: nobody.
    pub canary: Option<CanaryConfig>,
    /// The collection in which the agent or its program writes it. Default: `cbagent.canary`.
    pub canary_collection: String,
    /// Pause between two looks at replication that nobody asked for. Default 15 s.
    pub follow_interval: Duration,
    /// A clock that is behind and has not moved for this long is stalled. Default 90 s.
    pub stalled_after: Duration,
}

impl Cluster {
    /// The name of a check of this cluster.
    pub(super) fn check(&self, kind: &str) -> String {
        match self.name.as_str() {
            "" => kind.to_owned(),
            name => format!("{kind}-{name}"),
        }
    }
}

/// How connections to the node are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelMode {
    /// Secure where the node offers it, plain otherwise.
    Auto,
    /// Secure or not at all.
    Secure,
    /// Plain.
    Plaintext,
}

/// What is read with every cluster.
pub(super) struct Given<'a> {
    pub(super) node: Option<&'a NodeName>,
    pub(super) topology: Topology,
    pub(super) base: &'a Path,
}

/// All clusters of the file.
pub(super) fn clusters(
    cbddc: Option<Table>,
    tables: Vec<Table>,
    given: &Given<'_>,
    faults: &mut Vec<String>,
) -> Option<Vec<Cluster>> {
    if cbddc.is_some() && !tables.is_empty() {
        let text = "cluster: takes the place of [cbddc]: use one of them";
        faults.push(text.to_owned());
    }
    if tables.len() > CLUSTERS_MAX {
        let number = tables.len();
        faults.push(format!(
            "cluster: {number} clusters are more than {CLUSTERS_MAX}"
        ));
    }
    let mut read = Vec::new();
    if let Some(table) = cbddc {
        let reader = Reader::new("cbddc", table, given.base, faults);
        read.push(cluster(reader, false, given));
    }
    for (number, table) in (1..).zip(tables) {
        let section = match table.get("name").and_then(|name| name.as_str()) {
            Some(name) => format!("cluster `{name}`"),
            None => format!("cluster {number}"),
        };
        let reader = Reader::new(section, table, given.base, faults);
        read.push(cluster(reader, true, given));
    }
    let (mut names, mut addresses, mut databases) =
        (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for one in read.iter().flatten() {
        let name = &one.name;
        if !names.insert(name) {
            faults.push(format!("cluster `{name}`: two clusters have this name"));
        }
        if !addresses.insert(&one.address) {
            let text = "another cluster has it, too: each has a port of its own";
            faults.push(format!("cluster `{name}`.address: {text}"));
        }
        let database = one.database.as_ref();
        if database.is_some_and(|path| !databases.insert(path)) {
            let text = "another cluster has it, too: each has a database of its own";
            faults.push(format!("cluster `{name}`.database: {text}"));
        }
    }
    read.into_iter().collect()
}

fn cluster(mut reader: Reader<'_>, is_named: bool, given: &Given<'_>) -> Option<Cluster> {
    let (mut name, mut database) = (Some(String::new()), None);
    if is_named {
        name = reader.required_string("name");
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let is_plain = |name: &String| name.len() <= NAME_BYTES_MAX && name.bytes().all(plain);
        if name.as_ref().is_some_and(|name| !is_plain(name)) {
            let rule = format!("must be 1 to {NAME_BYTES_MAX} letters, digits, `-` and `_`");
            reader.fault("name", &rule);
        }
        database = reader.path("database");
    }
    let address = reader.required_address("address");
    let node_id = reader.string("node_id");
    let token = match reader.required_path("token_file") {
        Some(path) => token(&path)
            .map_err(|fault| reader.fault("token_file", &fault))
            .ok(),
        None => None,
    };
    let channel = match reader.string("channel").as_deref() {
        None | Some("auto") => ChannelMode::Auto,
        Some("secure") => ChannelMode::Secure,
        Some("plaintext") => ChannelMode::Plaintext,
        Some(_) => {
            reader.fault("channel", "must be auto, secure or plaintext");
            ChannelMode::Auto
        }
    };
    let expected_peers = reader.peers("expected_peers").unwrap_or_default();
    if given.topology == Topology::Hosted && !expected_peers.is_empty() {
        let text = "a hosted server joins nobody: take it out, or let `topology` be mesh";
        reader.fault("expected_peers", text);
    }
    let target_collections = reader.strings("target_collections").unwrap_or_default();
    let critical_collections = reader.strings("critical_collections").unwrap_or_default();
    let canary = canary(&mut reader);
    let canary_collection = reader.string("canary_collection");
    if canary_collection.is_some() && matches!(canary, None | Some(CanaryConfig::Http(_))) {
        let text = "only `canary = \"push\"` and `canary_command` write in it: take it out";
        reader.fault("canary_collection", text);
    }
    let follow_interval = seconds(&mut reader, "follow_interval", 15);
    let stalled_after = seconds(&mut reader, "stalled_after", 90);
    reader.finish();
    Some(Cluster {
        name: name?,
        database,
        address: address?,
        node_id: node_id.or_else(|| given.node.map(ToString::to_string))?,
        token: token?,
        channel,
        expected_peers,
        target_collections,
        critical_collections,
        canary,
        canary_collection: canary_collection.unwrap_or_else(|| CANARY_COLLECTION.to_owned()),
        follow_interval,
        stalled_after,
    })
}

fn canary(reader: &mut Reader<'_>) -> Option<CanaryConfig> {
    let command = reader.strings("canary_command");
    match (reader.string("canary"), command) {
        (None, None) => None,
        (None, Some(command)) if command.iter().any(|word| !word.is_empty()) => {
            Some(CanaryConfig::Command(command))
        }
        (None, Some(_)) => {
            reader.fault("canary_command", "must name a program");
            None
        }
        (Some(_), Some(_)) => {
            reader.fault(
                "canary_command",
                "one of both writes: take it or `canary` out",
            );
            None
        }
        (Some(word), None) if word == "push" => Some(CanaryConfig::Push),
        (Some(url), None) if url.starts_with("http://") => Some(CanaryConfig::Http(url)),
        (Some(_), None) => {
            let rule = "must be push, or where the application takes a PUT: http://HOST:PORT/PATH";
            reader.fault("canary", rule);
            None
        }
    }
}

/// Reads the token; white space around it does not count. The fault never shows what was read.
fn token(path: &Path) -> Result<Secret, String> {
    let shown = path.display();
    let mode = std::fs::metadata(path)
        .map_err(|error| format!("cannot read {shown}: {error}"))?
        .permissions()
        .mode();
    if mode & 0o037 != 0 {
        return Err(format!(
            "others may read {shown} (mode {:04o}): run `chmod 600` on it",
            mode & 0o7777
        ));
    }
    let text = read_bounded(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    match text.trim() {
        "" => Err(format!("{shown} is empty")),
        token => Ok(Secret::new(token.to_owned())),
    }
}
