//! Triggers: what has to be found on a node for it to go back by itself, and how far the mesh follows.
//!
//! Armed from the activation on: through probation, where a trigger reverts as a failed check does,
//! and with a bake time also after the commit, where there is no client any more. Before the health
//! of a node counts as a trigger its unit is started anew a few times. Pure: what was found, the
//! policy and the time come in, a decision goes out.
//!
//! A node that went back holds: no trigger moves it again until a rollout has brought it something
//! new, whatever policy says. That, and one way back for each committed generation, is the bound on
//! how often triggers switch a node.
//!
//! Deliberately absent: measuring, and judging over time. [`Observation`] is all that comes in.

use crate::generation::GenerationNumber;
use crate::health::{Check, Judgement, Measurement, Status};
use crate::id::NodeName;
use crate::mesh::Environment;
use crate::node::Node;
use crate::release::Release;
use crate::replication::{Finding, FindingKind, Grade};
use crate::time::Deadline;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

mod own_rollback;
#[cfg(test)]
mod tests;

pub use own_rollback::{OwnRollback, Surroundings, VOTES_MS, check_back, proposal};

/// What sets the way back off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trigger {
    /// Data is damaged: an event was lost, doubled, forked or tampered with.
    DataIntegrity,
    /// Events do not arrive any more.
    SyncRegression,
    /// A required peer is not joined, or the right token is not taken.
    AuthOrConnectivity,
    /// The node is still unhealthy after it was started anew as often as policy allows.
    PersistentUnhealthy,
}

impl Trigger {
    /// All of them, the worst first: where several are found at once, that one counts.
    pub const ALL: [Self; 4] = [
        Self::DataIntegrity,
        Self::SyncRegression,
        Self::AuthOrConnectivity,
        Self::PersistentUnhealthy,
    ];

    /// The stable word for machines, journals and records.
    pub fn word(self) -> &'static str {
        match self {
            Self::DataIntegrity => "data-integrity",
            Self::SyncRegression => "sync-regression",
            Self::AuthOrConnectivity => "auth-or-connectivity",
            Self::PersistentUnhealthy => "persistent-unhealthy",
        }
    }

    /// The trigger of this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|trigger| trigger.word() == word)
    }

    /// What a finding about replication sets off; nothing for a note, nor for a clock that is ahead of
    /// its oplog: healthy nodes of 0.9.1 have been seen with one, for good. A person decides. Nor for a
    /// document without event: going back brings it nowhere, and its stop may cost more of them.
    pub fn of(kind: FindingKind) -> Option<Self> {
        match kind {
            FindingKind::Lost
            | FindingKind::Forgotten
            | FindingKind::Duplicate
            | FindingKind::Fork
            | FindingKind::Tampered
            | FindingKind::ChainGap
            | FindingKind::PayloadDiffers => Some(Self::DataIntegrity),
            FindingKind::Missed | FindingKind::NotPassedOn | FindingKind::Stalled => {
                Some(Self::SyncRegression)
            }
            FindingKind::AuthRefused | FindingKind::SharedId | FindingKind::NotJoined => {
                Some(Self::AuthOrConnectivity)
            }
            FindingKind::ClockAhead
            | FindingKind::DocumentWithoutEvent
            | FindingKind::Lagging
            | FindingKind::SnapshotSwapped
            | FindingKind::NoHash
            | FindingKind::UnknownHash => None,
        }
    }

    /// What a finding sets off. Where collections are named as critical, whatever is found in one of
    /// them counts as damage, and damage in another one as events that do not arrive. What was there
    /// before the release that runs takes nothing back.
    pub fn of_finding(finding: &Finding) -> Option<Self> {
        if finding.is_old {
            return None;
        }
        match (Self::of(finding.kind)?, finding.grade) {
            (Self::SyncRegression, Grade::Critical) => Some(Self::DataIntegrity),
            (Self::DataIntegrity, Grade::Ordinary) => Some(Self::SyncRegression),
            (trigger, Grade::Unranked | Grade::Critical | Grade::Ordinary) => Some(trigger),
        }
    }

    /// Whether a node that goes on like this damages its peers.
    pub fn spreads(self) -> bool {
        matches!(self, Self::DataIntegrity | Self::SyncRegression)
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What policy says is done about a trigger, the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reaction {
    /// It is told, and nothing else.
    Alarm,
    /// It is told, and no rollout begins here until it is over: a person decides.
    Ask,
    /// This node goes back.
    RevertNode,
    /// This node goes back, and its agent proposes that the mesh does.
    RevertMesh,
}

impl Reaction {
    /// The word in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Ask => "ask",
            Self::RevertNode => "revert-node",
            Self::RevertMesh => "revert-mesh",
        }
    }

    /// The reaction of this word.
    pub fn from_word(word: &str) -> Option<Self> {
        let all = [Self::Alarm, Self::Ask, Self::RevertNode, Self::RevertMesh];
        all.into_iter().find(|reaction| reaction.word() == word)
    }
}

/// How often and how a unit is started anew before its health counts as a trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remediation {
    /// At most so many starts in a window; 0: none.
    pub restarts: u32,
    /// How long a start counts, in milliseconds.
    pub window_ms: u64,
    /// The pause after the first one, in milliseconds; it doubles each time.
    pub backoff_ms: u64,
}

/// What is done about each trigger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Starts before the way back.
    pub remediation: Remediation,
    /// How long something has to be found without a break, damage aside, in milliseconds.
    pub sustain_ms: u64,
    /// While the generation bakes.
    pub baking: BTreeMap<Trigger, Reaction>,
    /// Once the bake time is over, whatever the trigger.
    pub baked: Reaction,
    /// Whether a node that would spread damage, and may not go back again, is cut off from its peers.
    pub quarantine: bool,
    /// Whether a node that is quarantined is stopped, rather than cut off while it runs.
    pub quarantine_stops: bool,
}

impl Policy {
    /// What holds in an environment unless the configuration says otherwise: what spreads takes the
    /// mesh back, the rest the node; a developer's own mesh is never taken back as a whole.
    pub fn of(environment: Environment) -> Self {
        let widest = match environment {
            Environment::Local => Reaction::RevertNode,
            Environment::Staging | Environment::Production => Reaction::RevertMesh,
        };
        let reaction = |trigger: Trigger| match trigger.spreads() {
            true => widest,
            false => Reaction::RevertNode,
        };
        let baking = Trigger::ALL.map(|trigger| (trigger, reaction(trigger)));
        Self {
            remediation: Remediation {
                restarts: 3,
                window_ms: 600_000,
                backoff_ms: 30_000,
            },
            sustain_ms: 60_000,
            baking: baking.into(),
            baked: Reaction::Alarm,
            quarantine: false,
            quarantine_stops: false,
        }
    }

    /// How long `trigger` has to be found before it counts. Damage does not wait.
    pub fn sustain_ms(&self, trigger: Trigger) -> u64 {
        match trigger {
            Trigger::DataIntegrity => 0,
            Trigger::SyncRegression
            | Trigger::AuthOrConnectivity
            | Trigger::PersistentUnhealthy => self.sustain_ms,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::of(Environment::Production)
    }
}

/// How far the running generation has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Not committed yet.
    Probation,
    /// Committed, and its bake time goes on.
    Baking,
    /// Committed, and no bake time goes on.
    Baked,
}

/// What a trigger leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// The probation ends as after a failed check.
    EndProbation,
    /// The node goes back.
    RevertNode,
    /// The node goes back, and its agent proposes that the mesh does.
    RevertMesh,
    /// It would go back again, and stays where it is.
    Hold,
    /// It would go back, and there is no earlier release that was committed and baked clean.
    Nowhere,
    /// A person decides; no rollout begins here.
    Ask,
    /// It is told.
    Alarm,
}

impl Decision {
    /// What is done, for journal and status.
    pub fn words(self) -> &'static str {
        match self {
            Self::EndProbation => "the probation ends, and the node goes back",
            Self::RevertNode => "the node goes back",
            Self::RevertMesh => "the node goes back, and its agent proposes that the mesh does",
            Self::Hold => {
                "the node went back before and holds: look at it with `cbctl journal list`"
            }
            Self::Nowhere => "there is nothing to go back to: roll out what works",
            Self::Ask => {
                "a person has to decide: `cbctl rollback`, or `cbctl mesh thaw`; no rollout begins here meanwhile"
            }
            Self::Alarm => "policy says to tell, and nothing else",
        }
    }
}

/// Decides. `went_back`: no rollout has brought this node anything new since it went back.
/// `has_way_back`: there is an earlier committed release to go to.
pub fn decide(
    policy: &Policy,
    trigger: Trigger,
    standing: Standing,
    went_back: bool,
    has_way_back: bool,
) -> Decision {
    let reaction = match standing {
        Standing::Probation => return Decision::EndProbation,
        Standing::Baking => policy.baking.get(&trigger).copied(),
        Standing::Baked => Some(policy.baked),
    };
    match reaction.unwrap_or(Reaction::Alarm) {
        Reaction::Alarm => Decision::Alarm,
        Reaction::Ask => Decision::Ask,
        Reaction::RevertNode | Reaction::RevertMesh if went_back => Decision::Hold,
        Reaction::RevertNode | Reaction::RevertMesh if !has_way_back => Decision::Nowhere,
        Reaction::RevertNode => Decision::RevertNode,
        Reaction::RevertMesh => Decision::RevertMesh,
    }
}

/// What was found on a node at one moment, by whoever judges.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observation {
    /// Why the node is judged unhealthy, where it is.
    pub unhealthy: Option<String>,
    /// Everything else that is found now, with its cause in a sentence.
    pub found: BTreeMap<Trigger, String>,
}

impl Observation {
    /// What the sources say together: the judged health, the findings about replication that point to
    /// `node`, and triggers that others raised. What was found while another generation ran than the
    /// one that runs now is not its doing.
    pub fn of(
        node: &NodeName,
        generation: GenerationNumber,
        judgement: &Judgement,
        measurements: &[Measurement],
        findings: &[Finding],
        raised: BTreeMap<Trigger, String>,
    ) -> Self {
        let unhealthy = judgement.status == Status::Unhealthy;
        let mut found = raised;
        let own = findings.iter().filter(|finding| {
            finding.node == *node && finding.generation.is_none_or(|of| of == generation)
        });
        for finding in own {
            if let Some(trigger) = Trigger::of_finding(finding) {
                found.entry(trigger).or_insert_with(|| finding.text.clone());
            }
        }
        // One per cluster. It is unhealthy over peers only where they are required, and there.
        let mut peers = measurements.iter().filter(|one| one.check == Check::Cbddc);
        if let Some(one) = peers.find(|one| one.status == Status::Unhealthy) {
            found
                .entry(Trigger::AuthOrConnectivity)
                .or_insert_with(|| one.detail.clone());
        }
        Self {
            unhealthy: unhealthy.then(|| judgement.reasons.join("; ")),
            found,
        }
    }

    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.unhealthy.is_none() && self.found.is_empty()
    }
}

/// What the triggers have come to on one node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Vigil {
    /// When each start of the present window stops counting, oldest first.
    pub restarts: Vec<Deadline>,
    /// Until then the newest start is given its time.
    pub patience: Option<Deadline>,
    /// What is found now, and when it will have been found for long enough.
    pub due: BTreeMap<Trigger, Deadline>,
    /// What was set off and is not over.
    pub alarms: BTreeMap<Trigger, Alarm>,
    /// Set once the node went back, until a rollout brings it something new.
    pub guard: Option<Guard>,
    /// The rollback of the mesh that this agent proposes.
    pub rollback: Option<OwnRollback>,
}

/// A trigger that was set off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// The generation that ran.
    pub generation: GenerationNumber,
    /// What was found.
    pub cause: String,
    /// What came of it.
    pub decision: Decision,
}

/// Why no trigger moves this node now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// The release that a trigger made it leave; unset: it went back by a record.
    pub left: Option<Release>,
    /// Why it went back.
    pub cause: String,
}

impl Node {
    /// What triggers have come to here, a sentence each, for people.
    pub fn alarm_words(&self) -> Vec<String> {
        let alarms = self.vigil.alarms.iter().map(|(trigger, alarm)| {
            let (cause, words) = (&alarm.cause, alarm.decision.words());
            format!(
                "{trigger} on generation {}: {cause}: {words}",
                alarm.generation
            )
        });
        let own = self.vigil.rollback.iter().map(|own| {
            format!(
                "proposes that the mesh goes back from {} ({}, tried {} times)",
                own.leaving, own.trigger, own.tries
            )
        });
        alarms.chain(own).collect()
    }
}
