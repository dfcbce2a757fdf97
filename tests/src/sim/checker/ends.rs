//! What must be true when a client ends, and when everything has settled.

use super::super::mesh::{Host, short};
use super::{Checker, rollout_of};
use cbddc_domain::phase::Phase;
use cbddc_domain::proposer::{Outcome, Proposal};
use cbddc_domain::register::Record;
use std::ops::Bound::Excluded;

impl Checker {
    /// A client was told how it ended.
    pub fn outcome(&mut self, proposal: &Proposal, outcome: &Outcome, hosts: &[Host]) {
        let epoch = proposal.epoch;
        // Whoever saw a host before it came back with an older state cannot know that it did.
        let is_seen = |index: usize| self.came_back.get(&index).is_none_or(|then| *then < epoch);
        let seen = |(index, host)| is_seen(index).then_some(host);
        let began = (0..hosts.len()).any(|host| self.activated.contains(&(host, epoch)));
        match outcome {
            Outcome::Decided { pending, failed } => {
                // Forced where nobody could be told: it is nowhere, and every node is named.
                let forced = epoch.counter > 1 << 20;
                if forced && pending.len() == proposal.members.len() {
                    return;
                }
                let Some(record) = self.decided.get(&epoch) else {
                    return self.break_(format!("{} was called decided and is not", short(epoch)));
                };
                let overtaken = self.winner().is_some_and(|winner| winner.epoch > epoch);
                let seen = hosts.iter().enumerate().filter_map(seen);
                for host in seen.filter(|_| !overtaken) {
                    let next = rollout_of(&host.node.phase).is_some_and(|(held, _)| held > epoch);
                    // A trigger may have been set off since; the node says so itself.
                    let guard = host.node.vigil.guard.as_ref();
                    let left = guard
                        .is_some_and(|guard| guard.left.as_ref() == record.release_for(&host.name));
                    let named = left
                        || next
                        || pending.contains_key(&host.name)
                        || failed.contains_key(&host.name);
                    let ordered = record.release_for(&host.name);
                    let running = host
                        .node
                        .phase
                        .running()
                        .and_then(|n| host.node.history.get(n));
                    if !named && ordered.is_some() && running.map(|g| &g.release) != ordered {
                        let text = format!(
                            "{} was called decided, and {} does not run it",
                            short(epoch),
                            host.name
                        );
                        return self.break_(text);
                    }
                }
            }
            Outcome::Reverted {
                cause,
                pending,
                failed,
            } => {
                if self.decided.contains_key(&epoch) {
                    return self.break_(format!(
                        "{} was called reverted and is decided",
                        short(epoch)
                    ));
                }
                let seen: Vec<&Host> = hosts.iter().enumerate().filter_map(seen).collect();
                self.reverted.insert(epoch, cause.clone());
                // Rule 4: it was promised that what came before is dead.
                let span = (Excluded(proposal.based_on), Excluded(epoch));
                let mut ended = self.decided.range(span);
                if let Some((earlier, _)) = ended.find(|(_, record)| !record.forced) {
                    let (earlier, by) = (short(*earlier), short(epoch));
                    return self.break_(format!(
                        "rule 4: {earlier} was ended by {by} and is decided"
                    ));
                }
                self.dead.push((proposal.based_on, epoch));
                for host in seen {
                    let named = pending.contains_key(&host.name) || failed.contains_key(&host.name);
                    let on = rollout_of(&host.node.phase).filter(|(held, _)| *held <= epoch);
                    if let (false, Some((held, _))) = (named, on) {
                        let text = format!(
                            "{} was called reverted, and {} is on {}",
                            short(epoch),
                            host.name,
                            short(held)
                        );
                        return self.break_(text);
                    }
                }
            }
            Outcome::Refused(_) | Outcome::Locked(_) | Outcome::Undecided(_) | Outcome::Changed => {
                if began {
                    self.break_(format!(
                        "{} was called not begun, and a node was activated",
                        short(epoch)
                    ));
                }
            }
            Outcome::TakenOver(_) | Outcome::InDoubt(_) => {}
        }
    }

    /// Why a host has not settled, once all faults and clients are gone.
    pub fn unsettled(&self, host: &Host, winner: Option<&Record>) -> Option<String> {
        let (node, name) = (&host.node, &host.name);
        if !host.up {
            return Some(format!("{name} is down"));
        }
        if node.pending.is_some() {
            return Some(format!(
                "{name} awaits {:?} in {}",
                node.pending,
                node.phase.word()
            ));
        }
        if node.lease.is_some() {
            return Some(format!("{name} is still locked"));
        }
        if !node.starts.is_sound() {
            return Some(format!("{name} cannot speak for its past"));
        }
        if node.register.decided.as_ref() != winner {
            return Some(format!("{name} does not know the newest record"));
        }
        let held = node
            .held
            .as_ref()
            .is_some_and(|held| held.epoch >= node.register.decided_epoch());
        let running = match &node.phase {
            Phase::Stuck { .. } => {
                return host
                    .world
                    .process
                    .as_ref()
                    .map(|p| format!("{name} is stuck and runs {}", p.build));
            }
            Phase::Steady { running } => *running,
            Phase::Prepared { .. }
            | Phase::Switching(_)
            | Phase::Probation(_)
            | Phase::Reverting(_) => {
                return Some(format!("{name} is in phase {}", node.phase.word()));
            }
        };
        let release = running
            .and_then(|number| node.history.get(number))
            .map(|g| &g.release);
        let ordered = winner.and_then(|record| record.release_for(name));
        let blocked =
            ordered.is_some_and(|release| node.register.revoked(&release.build.digest).is_some());
        if ordered.is_some() && release != ordered && !held && !blocked {
            return Some(format!(
                "{name} does not run what is decided, and shows no drift"
            ));
        }
        let runs = host.world.process.as_ref().map(|process| &process.build);
        let revoked =
            release.is_some_and(|release| node.register.revoked(&release.build.digest).is_some());
        // A build that was committed and keeps ending is started again and again, visibly.
        let stopped = runs.is_none() && (revoked || node.restart.is_some());
        if runs != release.map(|release| &release.build) && !stopped {
            let (release, runs) = (release.map(|r| &r.build.id), runs.map(|build| &build.id));
            return Some(format!("{name} is steady on {release:?} and runs {runs:?}"));
        }
        None
    }

    /// Rules that can only be judged at the end.
    pub fn at_the_end(&mut self, hosts: &[Host]) {
        for (index, host) in hosts.iter().enumerate() {
            let budget = self.budgets.entry(index).or_default();
            let records = budget.records.len() as u64;
            let allowed =
                3 * budget.activations + records + 2 * budget.failures + 2 * budget.crashes + 1;
            // One way back for each trigger that was set off.
            let allowed = allowed + budget.triggered;
            let points = host.world.points;
            if points > allowed {
                let text = format!(
                    "rule 10: {} switched {points} times, {allowed} are allowed",
                    host.name
                );
                return self.break_(text);
            }
            // What a switch set aside is back once its revert restored it, and set aside its own.
            let told = |kept: &String| {
                let back = kept.replace("replaced-g", "replaced-by-revert-g");
                host.node.owed.contains(kept) || host.node.owed.contains(&back)
            };
            let kept = host.world.replaced.iter().find(|kept| !told(kept));
            if let Some(kept) = kept {
                let text = format!(
                    "{}: a restore set {kept} aside, and nothing tells so",
                    host.name
                );
                return self.break_(text);
            }
        }
    }
}
