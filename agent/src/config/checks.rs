//! The checks: a short form in `[health]`, and a `[[check]]` for each that wants more. A `[[check]]`
//! with the name of one of the short form takes its place.

use super::clusters::Cluster;
use super::read_bounded;
use super::reader::Reader;
use super::sections::{Health, Service};
use cbddc_domain::health::{Check, Policy, Severity};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Table;

/// The most checks of one node; each may run at any time, so this bounds what runs at once.
const CHECKS_MAX: usize = 32;

/// The longest name of a check, in bytes.
const NAME_BYTES_MAX: usize = 40;

/// A program is run less often than what is asked directly, and may take longer.
const EXEC_INTERVAL: Duration = Duration::from_secs(60);
const EXEC_TIMEOUT: Duration = Duration::from_secs(10);

/// The default pause between two runs of `quick_check`.
const QUICK_CHECK: Duration = Duration::from_secs(15 * 60);

/// The default size of a write-ahead log that nothing checkpoints any more.
const MAX_WAL: u64 = 256 << 20;

/// The default share of open files, in percent.
const MAX_OPEN_FILES: u32 = 90;

/// The default distance of clocks: time servers keep hosts within milliseconds.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(1);

/// The default number of restarts within ten minutes.
const MAX_RESTARTS: u32 = 3;

/// One check.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckConfig {
    /// How it is run and judged.
    pub policy: Policy,
    /// What it asks.
    pub probe: ProbeConfig,
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq)]
pub enum ProbeConfig {
    /// The node's process.
    Unit {
        /// Restarts by the service manager within ten minutes that are too many. Default 3.
        max_restarts: u32,
    },
    /// A port.
    Tcp {
        /// `HOST:PORT`.
        address: String,
    },
    /// A health page.
    Http {
        /// Its URL.
        url: String,
        /// What is believed of an https address. Unset with http.
        trust: Option<HttpsTrust>,
    },
    /// A page that reads the database.
    Reads {
        /// Its URL.
        url: String,
    },
    /// A sync port of the node.
    Cbddc {
        /// The name of its cluster. Default: the first.
        cluster: String,
    },
    /// A SQLite database.
    Database {
        /// Its file.
        path: PathBuf,
        /// The shortest pause between two runs of `quick_check`. Default 15 min.
        quick_check: Duration,
        /// Bytes of write-ahead log that are too many. Default 256 MiB.
        max_wal: u64,
        /// Growth in bytes within an hour that is too much. Unset: any is right.
        max_growth: Option<u64>,
    },
    /// A BLite database.
    Blite {
        /// Its data file.
        path: PathBuf,
        /// Bytes of write-ahead log that are too many: 256 MiB.
        max_log: u64,
    },
    /// The host.
    Host {
        /// A path on the file system that is looked at. Default: `state_dir`.
        path: PathBuf,
        /// Free bytes on it that are too few. Default: as in `[health]`.
        min_free_disk: u64,
        /// Bytes of available memory that are too few. Default 0: any are enough.
        min_available_memory: u64,
        /// Load for each CPU that is too much. Unset: any is right.
        max_load_per_cpu: Option<f64>,
        /// Open files that are too many, of the host's and of the node's limit, in percent. Default 90.
        max_open_files: u32,
        /// How far this host's clock may be from the other members'. Default 1 s.
        max_clock_skew: Duration,
    },
    /// A program by the convention of monitoring plugins.
    Exec {
        /// The program and its arguments.
        command: Vec<String>,
        /// Its environment. Default: nearly empty.
        env: BTreeMap<String, String>,
    },
}

/// Whom an https address is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpsTrust {
    /// A certificate of this authority, PEM.
    Authority(Vec<u8>),
    /// This certificate and no other, PEM.
    Certificate(Vec<u8>),
}

/// What else the file says that checks need.
pub(super) struct Given<'a> {
    pub(super) health: &'a Health,
    pub(super) service: &'a Service,
    pub(super) state_dir: &'a Path,
    pub(super) clusters: &'a [Cluster],
}

impl Given<'_> {
    fn policy(&self, name: String, kind: Check) -> Policy {
        let (interval, timeout) = match kind {
            Check::Exec => (EXEC_INTERVAL, EXEC_TIMEOUT),
            Check::Unit
            | Check::Tcp
            | Check::Http
            | Check::Cbddc
            | Check::Database
            | Check::Host => (self.health.interval, self.health.timeout),
        };
        Policy {
            name,
            kind,
            // Another release would find the same host.
            severity: if kind == Check::Host {
                Severity::Warning
            } else {
                Severity::Critical
            },
            interval_ms: milliseconds(interval),
            timeout_ms: milliseconds(timeout),
            rise: self.health.rise,
            fall: self.health.fall,
        }
    }

    /// The checks of the short form.
    fn defaults(&self) -> Vec<CheckConfig> {
        let check = |name: &str, kind, probe| CheckConfig {
            policy: self.policy(name.to_owned(), kind),
            probe,
        };
        let mut checks = vec![check("unit", Check::Unit, unit(MAX_RESTARTS))];
        if let Some(address) = self.health.tcp {
            let address = address.to_string();
            checks.push(check("tcp", Check::Tcp, ProbeConfig::Tcp { address }));
        }
        if let Some(url) = self.health.http.clone() {
            let probe = ProbeConfig::Http { url, trust: None };
            checks.push(check("http", Check::Http, probe));
        }
        if let Some(url) = self.health.reads.clone() {
            checks.push(check("reads", Check::Http, ProbeConfig::Reads { url }));
        }
        for cluster in self.clusters {
            let probe = ProbeConfig::Cbddc {
                cluster: cluster.name.clone(),
            };
            checks.push(check(&cluster.check("cbddc"), Check::Cbddc, probe));
            if !cluster.name.is_empty() {
                let address = cluster.address.clone();
                let probe = ProbeConfig::Tcp { address };
                checks.push(check(&cluster.check("tcp"), Check::Tcp, probe));
            }
        }
        let databases = self
            .service
            .databases
            .iter()
            .filter(|_| self.health.databases);
        let mut number = 0;
        for path in databases {
            let has_it = |one: &&Cluster| one.database.as_ref() == Some(path);
            let name = match self.clusters.iter().find(has_it) {
                Some(cluster) => cluster.check("database"),
                None => {
                    number += 1;
                    match number {
                        1 => "database".to_owned(),
                        _ => format!("database-{number}"),
                    }
                }
            };
            let probe = ProbeConfig::Database {
                path: path.clone(),
                quick_check: QUICK_CHECK,
                max_wal: MAX_WAL,
                max_growth: None,
            };
            checks.push(check(&name, Check::Database, probe));
        }
        let blite = self.service.blite.iter();
        for (number, path) in blite.filter(|_| self.health.databases).enumerate() {
            let name = match number {
                0 => "blite".to_owned(),
                _ => format!("blite-{}", number + 1),
            };
            let probe = ProbeConfig::Blite {
                path: path.clone(),
                max_log: MAX_WAL,
            };
            checks.push(check(&name, Check::Database, probe));
        }
        let probe = ProbeConfig::Host {
            path: self.state_dir.to_owned(),
            min_free_disk: self.health.min_free_disk,
            min_available_memory: 0,
            max_load_per_cpu: None,
            max_open_files: MAX_OPEN_FILES,
            max_clock_skew: MAX_CLOCK_SKEW,
        };
        checks.push(check("host", Check::Host, probe));
        checks
    }
}

/// All checks of the file.
pub(super) fn checks(
    tables: Vec<Table>,
    given: &Given<'_>,
    base: &Path,
    faults: &mut Vec<String>,
) -> Vec<CheckConfig> {
    let mut checks = given.defaults();
    let mut named: Vec<String> = Vec::new();
    for (number, table) in (1..).zip(tables) {
        let section = match table.get("name").and_then(|name| name.as_str()) {
            Some(name) => format!("check `{name}`"),
            None => format!("check {number}"),
        };
        let mut reader = Reader::new(section, table, base, faults);
        let check = check(&mut reader, given);
        let Some(check) = check else { continue };
        reader.finish();
        let name = check.policy.name.clone();
        if named.contains(&name) {
            faults.push(format!("check `{name}`: two checks have this name"));
        }
        named.push(name.clone());
        match checks.iter_mut().find(|other| other.policy.name == name) {
            Some(other) => *other = check,
            None => checks.push(check),
        }
    }
    if checks.len() > CHECKS_MAX {
        let number = checks.len();
        faults.push(format!("check: {number} checks are more than {CHECKS_MAX}"));
    }
    checks
}

fn check(reader: &mut Reader<'_>, given: &Given<'_>) -> Option<CheckConfig> {
    let word = reader.required_string("kind")?;
    let Some(kind) = Check::from_word(&word) else {
        let known = Check::ALL.map(Check::as_str).join(", ");
        reader.fault("kind", &format!("must be one of {known}"));
        return None;
    };
    let name = reader.string("name").unwrap_or(word);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.len() > NAME_BYTES_MAX || !name.bytes().all(plain) || name == "all" {
        let rule = format!(
            "must be 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`, and not `all`"
        );
        reader.fault("name", &rule);
    }
    let mut policy = given.policy(name, kind);
    if let Some(interval) = reader.duration("interval") {
        policy.interval_ms = milliseconds(interval);
    }
    if let Some(timeout) = reader.duration("timeout") {
        policy.timeout_ms = milliseconds(timeout);
    }
    policy.rise = reader.count("rise", 1, 100).unwrap_or(policy.rise);
    policy.fall = reader.count("fall", 1, 100).unwrap_or(policy.fall);
    match reader.string("severity").as_deref() {
        None => {}
        Some("critical") => policy.severity = Severity::Critical,
        Some("warning") => policy.severity = Severity::Warning,
        Some(_) => reader.fault("severity", "must be critical or warning"),
    }
    let probe = probe(kind, reader, given)?;
    Some(CheckConfig { policy, probe })
}

fn probe(kind: Check, reader: &mut Reader<'_>, given: &Given<'_>) -> Option<ProbeConfig> {
    Some(match kind {
        Check::Unit => unit(
            reader
                .count("max_restarts", 1, 1000)
                .unwrap_or(MAX_RESTARTS),
        ),
        Check::Tcp => ProbeConfig::Tcp {
            address: reader.required_address("address")?,
        },
        Check::Http => {
            let default = given.health.http.clone();
            let url = reader.string("url").or(default);
            if url.is_none() {
                reader.fault("url", "is missing");
            }
            let url = url?;
            let trust = trust(reader);
            if !is_url(&url, trust.is_some()) {
                let text = "must be a URL that begins with http://, or with https:// where `ca` or \
                            `certificate` says whom to believe";
                reader.fault("url", text);
            }
            ProbeConfig::Http { url, trust }
        }
        Check::Cbddc => {
            let named = reader.string("cluster");
            let first = given.clusters.first().map(|one| one.name.clone());
            if first.is_none() {
                reader.fault("kind", "needs a section [cbddc] or [[cluster]]");
            }
            let cluster = named.or(first).unwrap_or_default();
            let is_it = |one: &Cluster| one.name == cluster;
            if !given.clusters.is_empty() && !given.clusters.iter().any(is_it) {
                reader.fault("cluster", &format!("no [[cluster]] is named `{cluster}`"));
            }
            ProbeConfig::Cbddc { cluster }
        }
        Check::Database => {
            let default = given.service.databases.first().cloned();
            let path = reader.path("path").or(default);
            if path.is_none() {
                reader.fault("path", "is missing");
            }
            ProbeConfig::Database {
                path: path?,
                quick_check: reader.duration("quick_check").unwrap_or(QUICK_CHECK),
                max_wal: reader.size("max_wal").unwrap_or(MAX_WAL),
                max_growth: reader.size("max_growth"),
            }
        }
        Check::Host => ProbeConfig::Host {
            path: reader.path("path").unwrap_or(given.state_dir.to_owned()),
            min_free_disk: reader
                .size("min_free_disk")
                .unwrap_or(given.health.min_free_disk),
            min_available_memory: reader.size("min_available_memory").unwrap_or(0),
            max_load_per_cpu: reader.number("max_load_per_cpu"),
            max_open_files: reader
                .count("max_open_files", 1, 100)
                .unwrap_or(MAX_OPEN_FILES),
            max_clock_skew: reader.duration("max_clock_skew").unwrap_or(MAX_CLOCK_SKEW),
        },
        Check::Exec => {
            let command = reader.strings("command").unwrap_or_default();
            if command.first().is_none_or(String::is_empty) {
                reader.fault(
                    "command",
                    "must name a program, as a list: [\"/path\", \"argument\"]",
                );
            }
            ProbeConfig::Exec {
                command,
                env: reader.pairs("env").unwrap_or_default(),
            }
        }
    })
}

fn unit(max_restarts: u32) -> ProbeConfig {
    ProbeConfig::Unit { max_restarts }
}

/// Reads the files that say whom an https address is believed.
fn trust(reader: &mut Reader<'_>) -> Option<HttpsTrust> {
    let (ca, certificate) = (reader.path("ca"), reader.path("certificate"));
    if ca.is_some() && certificate.is_some() {
        reader.fault("certificate", "takes the place of `ca`: give one of them");
    }
    let (key, path) = match (&ca, &certificate) {
        (_, Some(path)) => ("certificate", path),
        (Some(path), None) => ("ca", path),
        (None, None) => return None,
    };
    let shown = path.display();
    match read_bounded(path) {
        Ok(pem) if pem.contains("-----BEGIN CERTIFICATE-----") => {
            let pem = pem.into_bytes();
            Some(match certificate {
                Some(_) => HttpsTrust::Certificate(pem),
                None => HttpsTrust::Authority(pem),
            })
        }
        Ok(_) => {
            reader.fault(key, &format!("{shown} holds no certificate in PEM"));
            None
        }
        Err(error) => {
            reader.fault(key, &format!("cannot read {shown}: {error}"));
            None
        }
    }
}

/// Whether a text can be a URL that is asked; all of it is looked at when it is used.
fn is_url(url: &str, https: bool) -> bool {
    let secure = url.strip_prefix("https://").filter(|_| https);
    let rest = url.strip_prefix("http://").or(secure).unwrap_or_default();
    !rest.is_empty() && !rest.starts_with('/')
}

fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
