//! The rules, held against every step by one who sees everything.

use super::mesh::Host;
use cbddc_domain::generation::GenerationNumber;
use cbddc_domain::id::NodeName;
use cbddc_domain::node::{Event, Step};
use cbddc_domain::phase::{Phase, Purpose};
use cbddc_domain::proposer::Proposal;
use cbddc_domain::register::{Epoch, Record};
use cbddc_domain::time::Now;
use std::collections::{BTreeMap, BTreeSet};

mod ends;
mod phases;
mod register;

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
    budgets: BTreeMap<usize, Budget>,
    went_back_at: BTreeMap<usize, u64>,
}

/// How often one node may switch, and why.
#[derive(Default)]
struct Budget {
    activations: u64,
    records: BTreeSet<Epoch>,
    failures: u64,
    crashes: u64,
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
            .and_then(|()| self.request_rules(index, before, event, after))
            .and_then(|()| self.phase_rules(index, host, after, event))
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
