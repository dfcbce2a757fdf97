//! The sections of the configuration and their defaults.

use super::reader::Reader;
use cbddc_domain::access::{LocalRoles, Role};
use cbddc_domain::units::parse_duration_ms;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Table;

/// The default pause between two syncs of files that the node does not sync: a power cut loses at most that.
const SYNC_FILES: Duration = Duration::from_secs(1);

/// A log of a gigabyte is replayed in one to two minutes on a good disk.
const READY_TIMEOUT_BUSY: Duration = Duration::from_secs(600);

/// `[tls]`: the agent's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The mesh's authority, PEM.
    pub ca: PathBuf,
    /// This node's certificate, PEM.
    pub cert: PathBuf,
    /// Its key, PEM, for nobody else to read.
    pub key: PathBuf,
}

/// `[service]`: the CBDDC node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// The unit of systemd that runs it. Unset: the agent runs it as a process of its own.
    pub unit: Option<String>,
    /// The program, a path inside the build; empty where there is a unit, which names it.
    pub program: PathBuf,
    /// Its arguments. Default: none.
    pub args: Vec<String>,
    /// Variables added to its environment. Default: none.
    pub env: BTreeMap<String, String>,
    /// Where it runs. Unset: in the build's folder.
    pub working_dir: Option<PathBuf>,
    /// Its database files, those of `[[cluster]]` included. Default: none, and snapshots are empty.
    pub databases: Vec<PathBuf>,
    /// The data files, `X.blite`, of its BLite databases. Default: none.
    pub blite: Vec<PathBuf>,
    /// How often their files are synced, and `sync_also`, where they changed; zero: never. Default 1 s.
    pub sync_files: Duration,
    /// Other files of the node that it does not sync itself. Default: none.
    pub sync_also: Vec<PathBuf>,
    /// How long it may take to end before it is killed. Default 30 s.
    pub stop_timeout: Duration,
    /// How long it may take to be ready after a start. Default 60 s.
    pub ready_timeout: Duration,
    /// The same while it is busy, as with replaying its database's log. Default 10 min, and not less
    /// than `ready_timeout`.
    pub ready_timeout_busy: Duration,
    /// Its sync cycle; two of them are waited out before a stop. Default 2 s.
    pub sync_interval: Duration,
    /// The command, with its arguments, that stops the node's writers. Default: none.
    pub drain: Vec<String>,
    /// The command that lets them go on. Default: none.
    pub undrain: Vec<String>,
    /// How long either command may take. Default 60 s.
    pub command_timeout: Duration,
}

/// `[health]`: the local checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The node's `/health` page. Unset: this check is off.
    pub http: Option<String>,
    /// A page that reads the node's database. Unset: nothing is read so.
    pub reads: Option<String>,
    /// A port of the node that must accept connections; unset: it is not checked by itself.
    pub tcp: Option<SocketAddr>,
    /// Pause between two runs of a check. Default 5 s.
    pub interval: Duration,
    /// How long one check may take. Default 2 s.
    pub timeout: Duration,
    /// How many results in a row must be bad before a check counts as bad. Default 2.
    pub fall: u32,
    /// How many must be good before it counts as good again. Default 2.
    pub rise: u32,
    /// How long a process may take from its start to be healthy. Default: `ready_timeout`.
    pub grace: Option<Duration>,
    /// Whether the databases of `[service]` are checked. Default: yes.
    pub databases: bool,
    /// Free bytes that the disks of state and databases must have. Default 256 MiB.
    pub min_free_disk: u64,
}

/// `[limits]`: bounds on what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes that a bundle may unpack to. Default 4 GiB.
    pub bundle_unpacked: u64,
    /// How many snapshots are kept. Default 10.
    pub snapshots_kept: u32,
}

/// `[peers]`: how to speak to other agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peers {
    /// How often peers are asked what was decided. Default 10 s.
    pub poll: Duration,
    /// How often some member is probed, to find out who is there. Default 2 s.
    pub probe: Duration,
    /// How long to wait for answers at the end of a probation. Default 10 s.
    pub ask_limit: Duration,
    /// How long one call may take, connecting included. Default 5 s.
    pub call_timeout: Duration,
}

pub(super) fn tls(table: Option<Table>, base: &Path, faults: &mut Vec<String>) -> Option<TlsFiles> {
    let mut reader = Reader::new("tls", table.unwrap_or_default(), base, faults);
    let (ca, cert, key) = (
        reader.required_path("ca"),
        reader.required_path("cert"),
        reader.required_path("key"),
    );
    reader.finish();
    Some(TlsFiles {
        ca: ca?,
        cert: cert?,
        key: key?,
    })
}

pub(super) fn service(
    table: Option<Table>,
    base: &Path,
    faults: &mut Vec<String>,
) -> Option<Service> {
    let mut reader = Reader::new("service", table.unwrap_or_default(), base, faults);
    let unit = reader.string("unit");
    if let Some(unit) = &unit {
        if !is_service_unit(unit) {
            reader.fault(
                "unit",
                "must be the name of a service unit, such as cbddc.service, and no template",
            );
        }
        reader.banned(
            &["program", "args", "env", "working_dir"],
            "is given by the unit: take it out here, or take out `unit` to let the agent run the program itself",
        );
    }
    let program = match unit {
        Some(_) => None,
        None => reader.required_string("program").map(PathBuf::from),
    };
    let inside = |path: &PathBuf| {
        path.components()
            .all(|part| matches!(part, std::path::Component::Normal(_)))
    };
    if program.as_ref().is_some_and(|path| !inside(path)) {
        reader.fault("program", "must be a path inside the build, without `..`");
    }
    let ready_timeout = seconds(&mut reader, "ready_timeout", 60);
    let ready_timeout_busy = reader.duration("ready_timeout_busy");
    if ready_timeout_busy.is_some_and(|busy| busy < ready_timeout) {
        let text = "must not be shorter than ready_timeout";
        reader.fault("ready_timeout_busy", text);
    }
    let service = Service {
        unit,
        program: program.unwrap_or_default(),
        args: reader.strings("args").unwrap_or_default(),
        env: reader.pairs("env").unwrap_or_default(),
        working_dir: reader.path("working_dir"),
        databases: reader.paths("databases").unwrap_or_default(),
        blite: reader.paths("blite").unwrap_or_default(),
        sync_files: sync_files(&mut reader),
        sync_also: reader.paths("sync_also").unwrap_or_default(),
        stop_timeout: seconds(&mut reader, "stop_timeout", 30),
        ready_timeout,
        ready_timeout_busy: ready_timeout_busy.unwrap_or(READY_TIMEOUT_BUSY.max(ready_timeout)),
        sync_interval: seconds(&mut reader, "sync_interval", 2),
        drain: reader.strings("drain").unwrap_or_default(),
        undrain: reader.strings("undrain").unwrap_or_default(),
        command_timeout: seconds(&mut reader, "command_timeout", 60),
    };
    let own = |path: &&PathBuf| service.databases.contains(*path);
    if let Some(path) = service.sync_also.iter().find(own) {
        let text = format!(
            "{} is of `databases`, and SQLite syncs by itself",
            path.display()
        );
        reader.fault("sync_also", &text);
    }
    reader.finish();
    Some(service)
}

/// A pause, or never, which is zero.
fn sync_files(reader: &mut Reader<'_>) -> Duration {
    let text = reader.string("sync_files");
    match text.as_deref().map(|text| (text, parse_duration_ms(text))) {
        None => SYNC_FILES,
        Some(("never", _)) => Duration::ZERO,
        Some((_, Ok(ms))) if (10..=86_400_000).contains(&ms) => Duration::from_millis(ms),
        Some(_) => {
            let text = "must be from 10ms to 1d, such as \"1s\", or \"never\"";
            reader.fault("sync_files", text);
            SYNC_FILES
        }
    }
}

/// A database in the folder of a build would be left behind by the next rollout. Links such as `current`
/// lead there, too.
pub(super) fn databases_outside(
    service: &Service,
    stores: impl Iterator<Item = PathBuf>,
    faults: &mut Vec<String>,
) {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    for store in stores {
        for database in service.databases.iter().chain(&service.blite) {
            if database.starts_with(&store) || real(database).starts_with(real(&store)) {
                faults.push(format!(
                    "service.databases: {} lies in the build store {}, where the next build would not \
                     find it: move it elsewhere, and set the application's path to it",
                    database.display(),
                    store.display()
                ));
            }
        }
    }
}

/// Whether systemd would take the name for one service: its characters and length, and an instance
/// where there is an `@`.
fn is_service_unit(name: &str) -> bool {
    let stem = name.strip_suffix(".service").unwrap_or_default();
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    !stem.is_empty()
        && name.len() <= 255
        && stem.bytes().all(known)
        && !stem.starts_with('@')
        && !stem.ends_with('@')
}

pub(super) fn health(table: Table, base: &Path, faults: &mut Vec<String>) -> Option<Health> {
    let mut reader = Reader::new("health", table, base, faults);
    let http = reader.string("http");
    let plain = |url: &String| {
        let rest = url.strip_prefix("http://").unwrap_or_default();
        !rest.is_empty() && !rest.starts_with('/')
    };
    if http.as_ref().is_some_and(|url| !plain(url)) {
        reader.fault("http", "must be a URL that begins with http://");
    }
    let reads = reader.string("reads");
    if reads.as_ref().is_some_and(|url| !plain(url)) {
        reader.fault("reads", "must be a URL that begins with http://");
    }
    let tcp = reader.string("tcp");
    let port = tcp.as_ref().and_then(|text| text.parse().ok());
    if tcp.is_some() && port.is_none() {
        reader.fault(
            "tcp",
            "must be an IP address and a port, such as 127.0.0.1:5000",
        );
    }
    let health = Some(Health {
        http,
        reads,
        tcp: port,
        interval: seconds(&mut reader, "interval", 5),
        timeout: seconds(&mut reader, "timeout", 2),
        fall: reader.count("fall", 1, 100).unwrap_or(2),
        rise: reader.count("rise", 1, 100).unwrap_or(2),
        grace: reader.duration("grace"),
        databases: reader.truth("databases").unwrap_or(true),
        min_free_disk: reader.size("min_free_disk").unwrap_or(256 << 20),
    });
    reader.finish();
    health
}

pub(super) fn limits(table: Table, base: &Path, faults: &mut Vec<String>) -> Option<Limits> {
    let mut reader = Reader::new("limits", table, base, faults);
    let limits = Some(Limits {
        bundle_unpacked: reader.size("bundle_unpacked").unwrap_or(4 << 30),
        // At least two: the state before an activation and the one that a restore replaced.
        snapshots_kept: reader.count("snapshots_kept", 2, 1000).unwrap_or(10),
    });
    reader.finish();
    limits
}

pub(super) fn peers(table: Table, base: &Path, faults: &mut Vec<String>) -> Option<Peers> {
    let mut reader = Reader::new("peers", table, base, faults);
    let peers = Some(Peers {
        poll: seconds(&mut reader, "poll", 10),
        probe: seconds(&mut reader, "probe", 2),
        ask_limit: seconds(&mut reader, "ask_limit", 10),
        call_timeout: seconds(&mut reader, "call_timeout", 5),
    });
    reader.finish();
    peers
}

pub(super) fn local(table: Table, base: &Path, faults: &mut Vec<String>) -> LocalRoles {
    let mut reader = Reader::new("local", table, base, faults);
    let mut roles = |key: &'static str| {
        let mut roles = BTreeMap::new();
        for (name, role) in reader.pairs(key).unwrap_or_default() {
            match role.parse::<Role>() {
                Ok(role) => drop(roles.insert(name, role)),
                Err(fault) => reader.fault(key, &format!("{name}: {fault}")),
            }
        }
        roles
    };
    let (users, groups) = (roles("users"), roles("groups"));
    // Root has this host anyway: a lesser role would only look like a lock.
    if users
        .keys()
        .any(|name| matches!(name.as_str(), "root" | "0"))
    {
        reader.fault("users", "root may do everything, and needs no role");
    }
    reader.finish();
    LocalRoles { users, groups }
}

pub(super) fn seconds(reader: &mut Reader<'_>, key: &'static str, default: u64) -> Duration {
    reader.duration(key).unwrap_or(Duration::from_secs(default))
}
