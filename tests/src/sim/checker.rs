//! The rules, held against every step by one who sees everything.

use super::mesh::Host;
use cbddc_domain::generation::GenerationNumber;
use cbddc_domain::id::NodeName;
use cbddc_domain::node::{Event, Node, Step};
use cbddc_domain::phase::{Phase, Purpose};
use cbddc_domain::proposer::Proposal;
use cbddc_domain::register::{Epoch, Record};
use cbddc_domain::time::{BootId, Now};
use cbddc_domain::trigger::Remediation;
use std::collections::{BTreeMap, BTreeSet};

mod ends;
mod membership;
mod phases;
mod register;
mod triggers;

/// What really happened, whoever knows of it.
#[derive(Default)]
pub struct Checker {
    /// The first broken rule.
    pub broken: Option<String>,
    votes: BTreeMap<Epoch, (Record, BTreeSet<NodeName>)>,
    decided: BTreeMap<Epoch, Record>,
    answered_no: BTreeSet<(usize, Epoch)>,
    gone_back: BTreeSet<(usize, Epoch)>,
    activated: BTreeSet<(usize, Epoch)>,
    reverted: BTreeMap<Epoch, String>,
    /// Spans of epochs, without their ends, of which none may ever be decided.
    dead: Vec<(Epoch, Epoch)>,
    highest: BTreeMap<usize, (Epoch, Epoch)>,
    /// Per host that came back with an older state: the highest epoch that anybody had promised then.
    came_back: BTreeMap<usize, Epoch>,
    budgets: BTreeMap<usize, Budget>,
    went_back_at: BTreeMap<usize, u64>,
    /// Per host: generations that a trigger made it leave, since its memory is whole.
    triggered: BTreeMap<usize, BTreeSet<GenerationNumber>>,
    /// Starts before the way back, by host: when.
    restarts: BTreeMap<usize, Vec<(BootId, u64)>>,
    /// Whether a quarantine stops a node.
    pub quarantine_stops: bool,
    /// How often policy allows them.
    pub remediation: Option<Remediation>,
    /// How many ways back triggers began, and how many records were decided that agents proposed.
    pub ways_back: (u64, u64),
    /// Who votes until a record says otherwise.
    pub genesis: BTreeSet<NodeName>,
}

/// How often one node may switch, and why.
#[derive(Default)]
struct Budget {
    activations: u64,
    records: BTreeSet<Epoch>,
    failures: u64,
    crashes: u64,
    triggered: u64,
}

/// The longest that a switch or a revert may take while its agent is up: every step, and each of
/// them as often as it is tried.
const UNDER_WAY_MS: u64 = 120_000;

impl Checker {
    fn break_(&mut self, text: String) {
        self.broken.get_or_insert(text);
    }

    /// A record that was decided before the simulation began.
    pub fn decided_before(&mut self, record: &Record) {
        self.decided.insert(record.epoch, record.clone());
    }

    /// The record that stands in the end.
    pub fn winner(&self) -> Option<&Record> {
        self.decided.last_key_value().map(|(_, record)| record)
    }

    /// A host came back with an older state, or with none: what it knew and promised is gone, what it
    /// voted and answered stands.
    pub fn restored(&mut self, host: usize, node: &Node, empty: bool) {
        let register = &node.register;
        let promised = self.highest.values().map(|(promised, _)| *promised).max();
        self.came_back.insert(host, promised.unwrap_or_default());
        self.highest
            .insert(host, (register.promised, register.decided_epoch()));
        self.went_back_at.remove(&host);
        // It may have forgotten that it went back.
        self.triggered.remove(&host);
        self.restarts.remove(&host);
        if empty {
            self.budgets.remove(&host);
        }
    }

    /// Who votes after the newest record that was decided by votes, and after every newer change that
    /// anybody voted for.
    pub fn electorates(&self, genesis: &BTreeSet<NodeName>) -> BTreeSet<BTreeSet<NodeName>> {
        let elected = self.decided.values().rfind(|record| !record.forced);
        let since = elected.map_or(Epoch::default(), |record| record.epoch);
        let voted = self.votes.values().map(|(record, _)| record);
        let open = voted.filter(|record| record.previous.is_some() && record.epoch > since);
        let sets = open.chain(elected).map(|record| record.voters.clone());
        let none = elected.is_none().then(|| genesis.clone());
        sets.chain(none).collect()
    }

    /// A proposer begins.
    pub fn proposed(&mut self, _proposal: &Proposal) {}

    /// An agent or a host crashed.
    pub fn crashed(&mut self, host: usize) {
        self.budgets.entry(host).or_default().crashes += 1;
    }

    /// An effect ended.
    pub fn effect_ended(&mut self, host: usize, well: bool) {
        self.budgets.entry(host).or_default().failures += u64::from(!well);
    }

    /// A step is about to be saved.
    pub fn step(&mut self, index: usize, host: &Host, event: &Event, step: &Step, now: &Now) {
        if self.broken.is_some() {
            return;
        }
        let (before, after) = (&host.node, &step.node);
        let checked = self
            .register_rules(index, before, event, step)
            .and_then(|()| self.lock_rules(before, event, now))
            .and_then(|()| self.memory_rules(before, event))
            .and_then(|()| self.request_rules(index, before, event, after))
            .and_then(|()| self.phase_rules(index, host, after, event))
            .and_then(|()| self.trigger_rules(index, host, event, step, now))
            .and_then(|()| self.effect_rules(host, step))
            .and_then(|()| self.time_rules(index, host, after, event, now));
        if let Err(text) = checked {
            self.break_(format!("{}: {text}", host.name));
        }
    }
}

/// The rollout that a node is switching to or on probation for, and its generation.
fn rollout_of(phase: &Phase) -> Option<(Epoch, GenerationNumber)> {
    match phase {
        Phase::Switching(switch) => match switch.purpose {
            Purpose::Rollout { epoch, .. } => Some((epoch, switch.to)),
            Purpose::Converge { .. } | Purpose::Restore => None,
        },
        Phase::Probation(probation) => Some((probation.epoch, probation.running)),
        Phase::Steady { .. }
        | Phase::Prepared { .. }
        | Phase::Reverting(_)
        | Phase::Stuck { .. } => None,
    }
}
