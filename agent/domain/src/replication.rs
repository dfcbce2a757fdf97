//! The mesh check between the waves of a rollout: what every node shows of its clocks and events,
//! judged over several rounds.
//!
//! An event that is *not there yet* is waited for. An event is *missed* when a node's clock, read
//! before its events were, already covers it: then the node will never ask for it again. Because
//! clocks move while nodes are read, absences count only when seen in two successive rounds, and
//! convergence is measured against an *earlier* round, so that continuous writes disturb neither.
//! The rules and the known false alarms are those of CBDDC's oplog: chains run across collections,
//! so filtered nodes have gaps by right; the first event of a window has its predecessor outside;
//! clocks are empty after some restarts, and then what the events say is the clock; snapshot imports
//! exchange the two hashes of a row. Every node since 1.0 declares the collections that it wants: it
//! is judged by the events in those, and owes a whole chain where they cover what its writer writes.
//!
//! Deliberately absent: asking the nodes, payloads (no hash covers them), and pruning, which a
//! window of minutes never meets.

use crate::hlc::VectorClock;
use crate::id::NodeName;
use crate::oplog::OplogEntry;
use crate::proposer::MeshVerdict;
use ledger::{Interner, Ledger};
use rules::Suspicions;
use sights::{Moment, Table};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use words::{Report, list};

mod accepted;
mod arrivals;
mod clusters;
mod finding;
mod follow;
mod ledger;
mod progress;
mod reach;
mod rules;
mod sights;
#[cfg(test)]
mod tests;
mod words;

pub use accepted::{ACCEPTED_MAX, ACCEPTED_TEXT_MAX, Accepted, Known};
pub use arrivals::Arrivals;
pub use clusters::*;
pub use finding::{Finding, FindingKind};
pub use follow::{FORGOTTEN_AFTER_MS, Findings, Follower, Question, TOLD_AGAIN_MS, WINDOW_MS};
pub use reach::reach_back;
pub use words::FINDINGS_TOLD_MAX;

/// How long a watch looks for traffic by default before it passes without any, in milliseconds: CBDDC
/// nodes flush local writes, and pull, every 2 s (`SyncOrchestrator.cs`), so that less would call
/// every mesh quiet. A time, and not a number of rounds: how long one round takes is the nodes' affair.
pub const PATIENCE_MS: u64 = 5_000;

/// How many successive rounds a node's clock, or its list of peers, may fail to move before that is
/// a finding. At two rounds per second these are 90 s: the quiesce limit of 30 s and the longest
/// backoff of a CBDDC node, 60 s.
pub const STALLED_ROUNDS: u32 = 180;

/// How many successive rounds a clock may name an event that no node holds: more than two of a node's
/// sync cycles of 2 s at two rounds per second, since events travel while nodes are read.
pub const CLOCK_AHEAD_ROUNDS: u32 = 12;

/// How many sentences about what is not there yet a round tells.
const WAITING_TOLD_MAX: usize = 50;

/// How many findings a verdict names.
const HEADLINES_TOLD_MAX: usize = 5;

/// What one node showed of its replication, as its agent read it over the CBDDC protocol.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerView {
    /// The CBDDC node's id, under which it writes events.
    pub origin: String,
    /// Whether it took the cluster's token; if not, the rest is empty.
    pub token_accepted: bool,
    /// The collections it is interested in; empty: all.
    pub interests: Vec<String>,
    /// Its vector clock before its events were read.
    pub clock_before: VectorClock,
    /// Its events since the beginning of the window, duplicates kept, payloads left out.
    pub events: Vec<OplogEntry>,
    /// Its vector clock after its events were read.
    pub clock_after: VectorClock,
    /// Whether it had more events than were read.
    pub truncated: bool,
    /// The peers it has joined, `HOST:PORT`; unset: it does not tell.
    pub joined: Option<Vec<String>>,
    /// The peers it is expected to join, `HOST:PORT`.
    pub expected: Vec<String>,
    /// The collections that must be seen to replicate; empty: all that move.
    pub target_collections: Vec<String>,
}

/// What one round of asking came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Round {
    /// What is confirmed, the worst first; at most [`FINDINGS_TOLD_MAX`] per kind and node and one
    /// that counts the rest. Notes are among them.
    pub findings: Vec<Finding>,
    /// One sentence per kind and node for the definite findings, for a cause.
    pub headlines: Vec<String>,
    /// How often each kind was found on each node; without notes, with what is accepted.
    pub totals: Vec<Known>,
    /// Nodes that lack events which were there in an earlier round, or lag.
    pub late: BTreeSet<NodeName>,
    /// What is not there yet, in sentences.
    pub waiting: Vec<String>,
    /// Per collection, the events of the window that arrived everywhere exactly once.
    pub moved: BTreeMap<String, u64>,
    /// Nodes of which nothing was asked, because they lacked events before and that was accepted.
    pub excused: BTreeSet<NodeName>,
    /// Target collections of which no event was seen to arrive everywhere.
    pub unproven: BTreeSet<String>,
}

impl Round {
    /// What the proposer is to be told.
    pub fn verdict(&self) -> MeshVerdict {
        if !self.headlines.is_empty() {
            return MeshVerdict::Failed(joined(&self.headlines));
        }
        if !self.waiting.is_empty() {
            return MeshVerdict::Pending(joined(&self.waiting));
        }
        MeshVerdict::Passed
    }

    /// What was proven, in a sentence, and what was not.
    pub fn proof(&self) -> String {
        let events: u64 = self.moved.values().sum();
        let names: Vec<&str> = self.moved.keys().map(String::as_str).collect();
        let mut proof = if events == 0 {
            "no event was seen to move: replication is unproven".to_owned()
        } else {
            format!(
                "{events} events arrived everywhere exactly once, in {}",
                list(&names)
            )
        };
        if !self.excused.is_empty() {
            let names: Vec<&str> = self.excused.iter().map(NodeName::as_str).collect();
            proof.push_str(&format!(
                "; not asked of {}, as accepted before",
                list(&names)
            ));
        }
        if !self.unproven.is_empty() {
            let names: Vec<&str> = self.unproven.iter().map(String::as_str).collect();
            proof.push_str(&format!(
                "; unproven, as nothing moved there: {}",
                list(&names)
            ));
        }
        proof
    }
}

fn joined(sentences: &[String]) -> String {
    let told = &sentences[..sentences.len().min(HEADLINES_TOLD_MAX)];
    let mut text = told.join("; ");
    let rest = sentences.len() - told.len();
    if rest > 0 {
        text.push_str(&format!("; and {rest} more"));
    }
    text
}

/// What existed in an earlier round and has to arrive everywhere.
#[derive(Debug)]
struct Goal {
    /// The first so many events of the ledger.
    events: u32,
}

/// The memory over the rounds of one wave's check.
#[derive(Debug)]
pub struct MeshWatch {
    since_wall_ms: i64,
    patience_ms: u64,
    stalled_rounds: u32,
    accepts_unproven: bool,
    accepted: Option<Accepted>,
    began_ms: Option<u64>,
    now_ms: u64,
    arrivals: Arrivals,
    ledger: Ledger,
    nodes: Interner,
    suspected: std::collections::HashSet<rules::Suspicion>,
    goal: Option<Goal>,
    /// When every node was asked, and took the token, for the first time.
    all_asked_at_ms: Option<u64>,
    /// Per node and origin: what stands still, and for how many rounds.
    standing: HashMap<(u32, String), (Option<Moment>, u32)>,
    /// Per node and origin: the moment that its clock names and no node holds, and for how many rounds.
    ahead: HashMap<(u32, String, Moment), u32>,
    /// Per node and expected peer: for how many rounds it was not joined.
    unjoined: HashMap<(u32, String), u32>,
}

impl MeshWatch {
    /// Begins with nothing seen.
    ///
    /// `since_wall_ms` is the beginning of the window, Unix time in milliseconds, the same for every
    /// node and round. Events before it are ignored. Give the moment when the wave's last node was
    /// activated: what replicated before proves nothing about the new build.
    pub fn new(since_wall_ms: i64) -> Self {
        Self {
            since_wall_ms,
            patience_ms: PATIENCE_MS,
            stalled_rounds: STALLED_ROUNDS,
            accepts_unproven: false,
            accepted: None,
            began_ms: None,
            now_ms: 0,
            arrivals: Arrivals::default(),
            ledger: Ledger::new(),
            nodes: Interner::default(),
            suspected: std::collections::HashSet::new(),
            goal: None,
            all_asked_at_ms: None,
            standing: HashMap::new(),
            ahead: HashMap::new(),
            unjoined: HashMap::new(),
        }
    }

    /// Sets how long to look for traffic before passing without, in milliseconds from the first round
    /// in which every node was asked. At least two rounds are needed in any case.
    pub fn with_patience(mut self, patience_ms: u64) -> Self {
        self.patience_ms = patience_ms;
        self
    }

    /// Sets for how many rounds a clock that is behind, or a peer that is not joined, is waited for.
    pub fn with_stalled_rounds(mut self, rounds: u32) -> Self {
        self.stalled_rounds = rounds.max(2);
        self
    }

    /// Lets patience end also where a target collection is configured in which nothing was seen to
    /// arrive. Without it, such a collection is waited for as long as anybody goes on looking.
    pub fn accepting_unproven(mut self, accepts: bool) -> Self {
        self.accepts_unproven = accepts;
        self
    }

    /// Takes what was found before as it is: only what is new fails the check, and nodes that lacked
    /// events then are not waited for.
    pub fn with_accepted(mut self, accepted: Option<Accepted>) -> Self {
        self.accepted = accepted;
        self
    }

    /// Tells the time of the next round, in milliseconds of a clock that never goes back.
    pub fn at(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// How long events took to be everywhere.
    pub fn arrivals(&self) -> &Arrivals {
        &self.arrivals
    }

    /// Judges one round. `unreachable` are nodes that could not be asked, and why.
    pub fn observe(
        &mut self,
        views: &BTreeMap<NodeName, PeerView>,
        unreachable: &BTreeMap<NodeName, String>,
    ) -> Round {
        let mut report = Report::default();
        let mut waiting: Vec<String> = unreachable
            .iter()
            .map(|(node, why)| words::not_asked(node, why))
            .collect();
        let mut shown = Vec::with_capacity(views.len());
        for (name, view) in views {
            let number = self.nodes.number(name.as_str());
            if view.token_accepted {
                shown.push((number, name, view, self.take(view)));
            } else {
                report.add(FindingKind::AuthRefused, name, &view.origin, || {
                    "its configuration or its build differs from its peers'".to_owned()
                });
            }
        }
        let everybody = !shown.is_empty() && shown.len() == views.len() && unreachable.is_empty();
        // The table borrows the ledger, and the rest of the watch changes meanwhile.
        let ledger = std::mem::replace(&mut self.ledger, Ledger::new());
        let table = Table::new(&ledger, &shown, self.accepted.as_ref());
        let mut suspicions = Suspicions {
            before: std::mem::take(&mut self.suspected),
            ..Suspicions::default()
        };
        rules::apply(&table, everybody, &mut suspicions, &mut report);
        self.arrivals.observe(&table, self.now_ms, everybody);
        self.look_at_peers(&table, &mut report, &mut waiting);
        let mut round = self.progress(&table, everybody, &mut report, waiting);
        if suspicions.unconfirmed() > 0 {
            let count = suspicions.unconfirmed();
            round.waiting.push(format!(
                "{count} events or links seem to be missing: the next round confirms it or not"
            ));
        }
        self.suspected = suspicions.now;
        self.ledger = ledger;
        let elapsed_ms = self.now_ms - *self.began_ms.get_or_insert(self.now_ms);
        let accepted = self.accepted.as_ref();
        let allows = |kind, node: &NodeName| {
            accepted.map_or(0, |accepted| accepted.allows(kind, node, elapsed_ms))
        };
        (round.findings, round.headlines, round.totals) = report.finish(allows);
        bound(&mut round.waiting);
        round
    }

    fn take(&mut self, view: &PeerView) -> Vec<u32> {
        let inside = view.events.iter();
        inside
            .filter(|entry| entry.hlc.wall >= self.since_wall_ms)
            .map(|entry| self.ledger.note(entry))
            .collect()
    }
}

fn bound(waiting: &mut Vec<String>) {
    if waiting.len() > WAITING_TOLD_MAX {
        let rest = waiting.len() - WAITING_TOLD_MAX;
        waiting.truncate(WAITING_TOLD_MAX);
        waiting.push(format!("and {rest} more"));
    }
}
