//! The proposer's way through waves, votes and reverts.

use super::{Checked, Command, Failure, MeshVerdict, Outcome, Proposer, Stage, View};
use crate::id::NodeName;
use crate::node::ProposalKind;
use crate::readiness::Excused;
use crate::register::Record;
use std::collections::BTreeMap;

/// How often a vote is asked for again where nobody answered, in milliseconds.
pub(super) const ASK_AGAIN_MS: u64 = 1_000;

/// How much longer than its limit a wave takes at most because nodes are busy with their starts, in
/// milliseconds: each agent has a bound of its own, but may be wrong.
const STARTING_MAX_MS: u64 = 30 * 60 * 1_000;

/// The word with which an agent refuses an epoch that it has closed.
const CLOSED: &str = "epoch_closed";

impl Proposer {
    pub(super) fn go_on(&mut self, now_ms: u64) -> Vec<Command> {
        match &self.stage {
            Stage::Preparing | Stage::Done(_) => Vec::new(),
            Stage::Waves {
                wave,
                since_ms,
                checked,
            } => {
                let (wave, since_ms, checked) = (*wave, *since_ms, *checked);
                self.watch_wave(wave, since_ms, checked, now_ms)
            }
            Stage::Voting { record, since_ms } => {
                let (record, since_ms) = (record.clone(), *since_ms);
                self.watch_votes(&record, since_ms, now_ms)
            }
            Stage::Converging { record, since_ms } => {
                let (record, since_ms) = (record.clone(), *since_ms);
                self.watch_convergence(&record, since_ms, now_ms)
            }
            Stage::Reverting { cause, since_ms } => {
                let (cause, since_ms) = (cause.clone(), *since_ms);
                self.watch_reverts(&cause, since_ms, now_ms)
            }
        }
    }

    pub(super) fn begin_wave(&mut self, wave: usize, now_ms: u64) -> Vec<Command> {
        let Some(nodes) = self.proposal.plan.waves.get(wave).cloned() else {
            return self.propose_rollout(now_ms);
        };
        let names = nodes
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        let waves = self.proposal.plan.waves.len();
        self.news
            .push(format!("wave {} of {waves}: {names}", wave + 1));
        self.excused = Excused::NONE;
        self.stage = Stage::Waves {
            wave,
            since_ms: now_ms,
            checked: Checked::No,
        };
        nodes.into_iter().map(Command::Activate).collect()
    }

    /// Rule 6: every target is on probation and clean.
    fn propose_rollout(&mut self, now_ms: u64) -> Vec<Command> {
        let (base, voters) = (self.base(), self.voters());
        let draft = &self.proposal.draft;
        let record = draft.onto(base.as_ref(), self.proposal.epoch, &voters);
        self.ask_votes(record, now_ms)
    }

    pub(super) fn wave_refused(
        &mut self,
        node: &NodeName,
        failure: &Failure,
        now_ms: u64,
    ) -> Vec<Command> {
        match failure {
            // It may come back within the limits; the wave's time and the probation bound the wait.
            Failure::Unreachable(_) => Vec::new(),
            Failure::Refused { word, text } if word == "epoch_behind" => {
                self.news.push(format!("{node}: {text}"));
                self.done(Outcome::TakenOver(format!("{node}: {text}")))
            }
            // It went back by itself and shows why when it is looked at next; only if that does not
            // come by the next renewal is the refusal all that there is to say.
            Failure::Refused { word, .. }
                if word == CLOSED
                    && self
                        .failures
                        .insert(node.clone(), failure.clone())
                        .is_none() =>
            {
                self.go_on(now_ms)
            }
            Failure::Refused { text, .. } => self.order_reverts(format!("{node}: {text}"), now_ms),
        }
    }

    fn watch_wave(
        &mut self,
        wave: usize,
        since_ms: u64,
        checked: Checked,
        now_ms: u64,
    ) -> Vec<Command> {
        let epoch = self.proposal.epoch;
        if let Some(cause) = self.went_back() {
            return self.order_reverts(cause, now_ms);
        }
        let mut commands = self.renewals(now_ms);
        let nodes = &self.proposal.plan.waves[wave];
        let clean = |view: &View| view.probation == Some(epoch) && view.clean;
        let waiting: Vec<_> = nodes
            .iter()
            .filter(|node| !self.views.get(*node).is_some_and(clean))
            .collect();
        let timing = self.proposal.plan.timing;
        let is_starting = waiting.iter().any(|node| {
            let view = self.views.get(*node);
            view.is_some_and(|view| view.starting)
        });
        let excused_ms = self.excused.look(now_ms, is_starting, STARTING_MAX_MS);
        let waited_ms = now_ms.saturating_sub(since_ms).saturating_sub(excused_ms);
        match checked {
            Checked::Passed { at_ms } if now_ms.saturating_sub(at_ms) >= timing.soak_ms => {
                commands.extend(self.begin_wave(wave + 1, now_ms));
            }
            // The checks stay armed while it soaks.
            Checked::Passed { .. } if now_ms.saturating_sub(self.asked_ms) >= ASK_AGAIN_MS => {
                self.asked_ms = now_ms;
                commands.push(Command::CheckMesh(wave));
            }
            Checked::Passed { .. } => {}
            Checked::No | Checked::Asked if waited_ms > timing.verify_ms => {
                let why = |node: &&NodeName| {
                    let view = self.views.get(*node);
                    match view.and_then(|view| view.unhealthy.as_deref()) {
                        Some(why) => format!("{node} ({why})"),
                        None => node.to_string(),
                    }
                };
                let cause = if waiting.is_empty() {
                    format!("the mesh check did not pass in time: {}", self.mesh_waits)
                } else {
                    let names: Vec<String> = waiting.iter().map(why).collect();
                    format!("not healthy in time: {}", names.join(", "))
                };
                return self.order_reverts(cause, now_ms);
            }
            Checked::Asked => {}
            Checked::No => {
                let unasked = waiting
                    .iter()
                    .filter(|node| !self.activated.contains(**node));
                if now_ms.saturating_sub(self.asked_ms) >= ASK_AGAIN_MS {
                    commands.extend(unasked.map(|node| Command::Activate((*node).clone())));
                    self.asked_ms = now_ms;
                }
                if waiting.is_empty() {
                    commands.push(Command::CheckMesh(wave));
                    self.stage = Stage::Waves {
                        wave,
                        since_ms,
                        checked: Checked::Asked,
                    };
                }
            }
        }
        commands
    }

    /// The first node that ended this rollout by itself, with its reason.
    fn went_back(&self) -> Option<String> {
        self.views
            .iter()
            .find_map(|(node, view)| match &view.last_rollout {
                Some((epoch, Some(outcome))) if *epoch == self.proposal.epoch => {
                    Some(format!("{node}: {outcome}"))
                }
                Some(_) | None => None,
            })
    }

    fn renewals(&mut self, now_ms: u64) -> Vec<Command> {
        if now_ms.saturating_sub(self.renewed_ms) < self.proposal.plan.timing.renew_ms {
            return Vec::new();
        }
        self.renewed_ms = now_ms;
        self.promises.keys().cloned().map(Command::Renew).collect()
    }

    pub(super) fn mesh_checked(
        &mut self,
        of_wave: usize,
        verdict: MeshVerdict,
        now_ms: u64,
    ) -> Vec<Command> {
        let Stage::Waves {
            wave,
            since_ms,
            checked,
        } = self.stage
        else {
            return Vec::new();
        };
        if of_wave != wave {
            return Vec::new();
        }
        let checked = match verdict {
            MeshVerdict::Failed(cause) => {
                return self.order_reverts(format!("mesh check: {cause}"), now_ms);
            }
            // It has passed before; only what is wrong counts while it soaks.
            MeshVerdict::Pending(_) | MeshVerdict::Passed
                if matches!(checked, Checked::Passed { .. }) =>
            {
                return Vec::new();
            }
            MeshVerdict::Pending(why) => {
                self.mesh_waits = why;
                Checked::No
            }
            MeshVerdict::Passed => {
                self.news
                    .push(format!("wave {} passed the mesh check", wave + 1));
                Checked::Passed { at_ms: now_ms }
            }
        };
        self.stage = Stage::Waves {
            wave,
            since_ms,
            checked,
        };
        self.go_on_unless_pending(checked, now_ms)
    }

    fn go_on_unless_pending(&mut self, checked: Checked, now_ms: u64) -> Vec<Command> {
        // A pending check is asked for again at the next tick, not at once.
        if checked == Checked::No {
            Vec::new()
        } else {
            self.go_on(now_ms)
        }
    }

    pub(super) fn ask_votes(&mut self, record: Record, now_ms: u64) -> Vec<Command> {
        self.asked_ms = now_ms;
        let record = Box::new(record);
        let votes = record.electorate().into_iter();
        let votes = votes.map(|node| Command::Vote(node, record.clone()));
        let votes: Vec<_> = votes.collect();
        self.stage = Stage::Voting {
            record: record.clone(),
            since_ms: now_ms,
        };
        // One more renewal: the probations must not end while the votes travel.
        let renewals = self.promises.keys().cloned().map(Command::Renew);
        let renewals: Vec<_> = renewals
            .filter(|_| {
                !matches!(
                    self.proposal.kind,
                    ProposalKind::Rollback | ProposalKind::Amend
                )
            })
            .collect();
        renewals.into_iter().chain(votes).collect()
    }

    pub(super) fn vote_answered(
        &mut self,
        node: NodeName,
        answer: Result<(), Failure>,
        now_ms: u64,
    ) -> Vec<Command> {
        match answer {
            Ok(()) => {
                self.failures.remove(&node);
                self.voted.insert(node);
            }
            Err(failure) => drop(self.failures.insert(node, failure)),
        }
        let Stage::Voting { record, .. } = &self.stage else {
            return Vec::new();
        };
        if !record.is_decided_by(&self.voted) {
            return Vec::new();
        }
        let record = record.clone();
        self.news.push(format!(
            "decided: {} of {} voted",
            self.voted.len(),
            record.electorate().len()
        ));
        if self.finishing {
            self.news
                .push("a change of voters was finished first".to_owned());
            let confirmations = self.confirmations(&record);
            self.stage = Stage::Done(Outcome::Changed);
            return confirmations;
        }
        self.stage = Stage::Converging {
            record: record.clone(),
            since_ms: now_ms,
        };
        self.asked_ms = now_ms;
        self.confirmations(&record)
    }

    pub(super) fn confirmations(&self, record: &Record) -> Vec<Command> {
        let unaware = self.proposal.members.iter().filter(|node| {
            self.views
                .get(*node)
                .is_none_or(|view| view.decided < record.epoch)
        });
        let confirm = |node: &NodeName| {
            Command::Confirm(node.clone(), Box::new(record.clone()), self.voted.clone())
        };
        unaware.map(confirm).collect()
    }

    fn watch_votes(&mut self, record: &Record, since_ms: u64, now_ms: u64) -> Vec<Command> {
        if now_ms.saturating_sub(since_ms) > self.proposal.plan.timing.probation_ms {
            let electorate = record.electorate();
            let silent = electorate.difference(&self.voted).map(|node| {
                let why = self.failures.get(node).map_or("no answer", Failure::text);
                (node.clone(), why.to_owned())
            });
            let silent = silent.collect();
            return self.done(Outcome::InDoubt(silent));
        }
        if now_ms.saturating_sub(self.asked_ms) < ASK_AGAIN_MS {
            return Vec::new();
        }
        self.asked_ms = now_ms;
        let electorate = record.electorate();
        let asked: Vec<_> = electorate.difference(&self.voted).cloned().collect();
        let record = Box::new(record.clone());
        let votes = asked
            .into_iter()
            .map(|node| Command::Vote(node, record.clone()));
        votes.chain(self.renewals(now_ms)).collect()
    }

    fn watch_convergence(&mut self, record: &Record, since_ms: u64, now_ms: u64) -> Vec<Command> {
        let (mut pending, mut failed) = (BTreeMap::new(), BTreeMap::new());
        for node in &self.proposal.members {
            let Some(view) = self.views.get(node) else {
                pending.insert(node.clone(), "not seen yet".to_owned());
                continue;
            };
            let runs = record.release_for(node).is_none()
                || view.running.as_ref() == record.release_for(node);
            if let Some(stuck) = &view.stuck {
                failed.insert(node.clone(), stuck.clone());
            } else if view.decided > record.epoch {
                return self.done(Outcome::TakenOver(format!(
                    "{node} follows epoch {} now",
                    view.decided
                )));
            } else if let (true, Some(drift)) = (
                view.decided == record.epoch && !runs && view.steady,
                &view.drift,
            ) {
                failed.insert(node.clone(), drift.clone());
            } else if view.decided < record.epoch || !runs || !view.steady {
                pending.insert(node.clone(), "has not got there yet".to_owned());
            }
        }
        if pending.is_empty() || now_ms.saturating_sub(since_ms) > self.proposal.settle_ms {
            return self.done(Outcome::Decided { pending, failed });
        }
        if now_ms.saturating_sub(self.asked_ms) < ASK_AGAIN_MS {
            return Vec::new();
        }
        self.asked_ms = now_ms;
        self.confirmations(record)
    }
}
