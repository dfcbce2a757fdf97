//! `[remediation]`, `[triggers]`, `[quarantine]` and `[haproxy]`: what is done about a node after its release was committed.

use super::reader::Reader;
use cbddc_domain::mesh::Environment;
use cbddc_domain::trigger::{Policy, Reaction, Remediation, Trigger};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Table;

/// What is done about triggers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Triggers {
    /// The policy of the mesh's environment, with what the file says instead.
    pub policy: Policy,
    /// Where triggers are raised by files. Default: nowhere.
    pub found_dir: Option<PathBuf>,
    /// How a node is cut off from its peers. Default: not at all, and there is no quarantine.
    pub cut_off: Option<CutOff>,
    /// Where HAProxy's agent-check is answered, on loopback. Default: nowhere.
    pub agent_check: Option<SocketAddr>,
}

/// How a node is cut off from its peers, without losing data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CutOff {
    /// Its sync ports are blocked, and it serves its host.
    Ports(Vec<u16>),
    /// It is stopped, once its events have had their time to reach the peers.
    Stop,
}

/// What a section says of policy, and nothing where it does not.
#[derive(Default)]
struct Said {
    sustain: Option<Duration>,
    reactions: BTreeMap<Trigger, Reaction>,
    baked: Option<Reaction>,
    quarantine: Option<bool>,
}

/// The sections as they were read; the rest is the environment's.
pub(super) struct Given {
    restarts: Option<u32>,
    window: Option<Duration>,
    backoff: Option<Duration>,
    anywhere: Said,
    /// What goes before that in meshes of one environment.
    there: BTreeMap<Environment, Said>,
    found_dir: Option<PathBuf>,
    cut_off: Option<CutOff>,
    agent_check: Option<SocketAddr>,
}

pub(super) fn triggers(
    remediation: Table,
    triggers: Table,
    (quarantine, haproxy): (Table, Table),
    base: &Path,
    faults: &mut Vec<String>,
) -> Given {
    let mut reader = Reader::new("remediation", remediation, base, faults);
    let restarts = reader.count("restarts", 0, 100);
    let window = reader.duration("window");
    let backoff = reader.duration("backoff");
    reader.finish();
    let mut reader = Reader::new("triggers", triggers, base, faults);
    let anywhere = said(&mut reader);
    let found_dir = reader.path("found_dir");
    let sections = ENVIRONMENTS.map(|(key, environment)| {
        let section = reader.section(key);
        (key, environment, section.unwrap_or_default())
    });
    reader.finish();
    let mut there = BTreeMap::new();
    for (key, environment, section) in sections {
        let mut reader = Reader::new(format!("triggers.{key}"), section, base, faults);
        there.insert(environment, said(&mut reader));
        reader.finish();
    }
    let mut reader = Reader::new("quarantine", quarantine, base, faults);
    let ports = reader.strings("ports").map(|given| {
        let ports: Vec<u16> = given.iter().filter_map(|port| port.parse().ok()).collect();
        if ports.is_empty() || ports.len() != given.len() || ports.contains(&0) {
            reader.fault("ports", "must be ports as texts, such as [\"4001\"]");
        }
        ports
    });
    let by = reader.string("by").unwrap_or_else(|| "nftables".to_owned());
    let cut_off = match (by.as_str(), ports) {
        ("nftables", ports) => ports.map(CutOff::Ports),
        ("stop", None) => Some(CutOff::Stop),
        ("stop", Some(_)) => {
            reader.fault(
                "ports",
                "blocks nothing where a node is stopped: leave it out, or `by = \"nftables\"`",
            );
            None
        }
        _ => {
            reader.fault("by", "must be nftables or stop");
            None
        }
    };
    reader.finish();
    let mut asked = vec![("triggers".to_owned(), &anywhere)];
    for (key, environment) in ENVIRONMENTS {
        let said = there.get(&environment);
        asked.extend(said.map(|said| (format!("triggers.{key}"), said)));
    }
    for (section, said) in asked {
        if said.quarantine == Some(true) && cut_off.is_none() {
            faults.push(format!(
                "{section}.quarantine: needs `ports`, or `by = \"stop\"`, under [quarantine]"
            ));
        }
    }
    let mut reader = Reader::new("haproxy", haproxy, base, faults);
    let listen = reader.string("agent_check");
    let agent_check = listen
        .as_ref()
        .and_then(|text| text.parse::<SocketAddr>().ok());
    if listen.is_some() && !agent_check.is_some_and(|address| address.ip().is_loopback()) {
        reader.fault(
            "agent_check",
            "must be a loopback address and a port, such as 127.0.0.1:7444",
        );
    }
    reader.finish();
    Given {
        restarts,
        window,
        backoff,
        anywhere,
        there,
        found_dir,
        cut_off,
        agent_check,
    }
}

/// The sections of environments.
const ENVIRONMENTS: [(&str, Environment); 3] = [
    ("local", Environment::Local),
    ("staging", Environment::Staging),
    ("production", Environment::Production),
];

fn said(reader: &mut Reader<'_>) -> Said {
    let mut reactions = BTreeMap::new();
    for (key, trigger) in [
        ("data_integrity", Trigger::DataIntegrity),
        ("sync_regression", Trigger::SyncRegression),
        ("auth_or_connectivity", Trigger::AuthOrConnectivity),
        ("persistent_unhealthy", Trigger::PersistentUnhealthy),
    ] {
        if let Some(given) = reaction(reader, key) {
            reactions.insert(trigger, given);
        }
    }
    Said {
        reactions,
        sustain: reader.duration("sustain"),
        baked: reaction(reader, "after_bake"),
        quarantine: reader.truth("quarantine"),
    }
}

fn reaction(reader: &mut Reader<'_>, key: &'static str) -> Option<Reaction> {
    let word = reader.string(key)?;
    let reaction = Reaction::from_word(&word);
    if reaction.is_none() {
        reader.fault(key, "must be alarm, ask, revert-node or revert-mesh");
    }
    reaction
}

impl Given {
    /// What was given for the environment, over what was given, over what holds there.
    pub(super) fn of(mut self, environment: Environment) -> Triggers {
        let ms = |given: Duration| given.as_millis().try_into().unwrap_or(u64::MAX);
        let mut policy = Policy::of(environment);
        let usual = policy.remediation;
        policy.remediation = Remediation {
            restarts: self.restarts.unwrap_or(usual.restarts),
            window_ms: self.window.map_or(usual.window_ms, ms),
            backoff_ms: self.backoff.map_or(usual.backoff_ms, ms),
        };
        let there = self.there.remove(&environment).unwrap_or_default();
        for said in [self.anywhere, there] {
            policy.sustain_ms = said.sustain.map_or(policy.sustain_ms, ms);
            policy.baking.extend(said.reactions);
            policy.baked = said.baked.unwrap_or(policy.baked);
            policy.quarantine = said.quarantine.unwrap_or(policy.quarantine);
        }
        policy.quarantine_stops = self.cut_off == Some(CutOff::Stop);
        Triggers {
            policy,
            found_dir: self.found_dir,
            cut_off: self.cut_off,
            agent_check: self.agent_check,
        }
    }
}
