//! What clients, peers and people ask of an agent.

use super::Turn;
use crate::generation::GenerationNumber;
use crate::node::{Lease, Prepare, ProposalKind, ROLLOUTS_MAX, Refusal, RolloutEntry};
use crate::phase::{CauseKind, Phase, Purpose, Switch, SwitchStep};
use crate::register::{Answer, Epoch, EpochRefusal};
use crate::release::Release;

impl Turn<'_> {
    /// Rule 3.
    pub(super) fn prepare(&mut self, prepare: Prepare) -> Result<(), Refusal> {
        let repeated = self
            .node
            .lease
            .as_ref()
            .is_some_and(|lease| lease.epoch == prepare.epoch);
        if repeated && self.node.register.promised == prepare.epoch {
            return Ok(());
        }
        self.check_memory()?;
        if matches!(prepare.kind, ProposalKind::Rollout | ProposalKind::Amend) {
            self.check_free()?;
        }
        if prepare.kind == ProposalKind::Rollout {
            self.check_frozen()?;
            self.check_alarms()?;
            if prepare.next.is_some() {
                self.check_quarantine()?;
            }
        }
        if let Some(reason) = prepare
            .next
            .as_ref()
            .and_then(|next| self.revocation_reason(next))
            && matches!(prepare.kind, ProposalKind::Rollout | ProposalKind::Resume)
        {
            let build = prepare
                .next
                .as_ref()
                .map(|next| next.build.to_string())
                .unwrap_or_default();
            return Err(EpochRefusal::Revoked { build, reason }.into());
        }
        self.node.register.promise(prepare.epoch)?;
        self.node.lease = Some(Lease {
            epoch: prepare.epoch,
            holder: prepare.holder.clone(),
            what: prepare.what.clone(),
            until: self.now.deadline(prepare.lease_ms),
        });
        if let Phase::Steady { running } | Phase::Prepared { running, .. } = self.node.phase {
            self.node.phase = match prepare.next {
                Some(next) => Phase::Prepared { running, next },
                None => Phase::Steady { running },
            };
        }
        let plan = prepare.plan.as_ref();
        let accepted = plan.and_then(|plan| Some(plan.accepted.as_ref()?.words(&plan.started_by)));
        if let Some(plan) = prepare.plan {
            for entry in &mut self.node.rollouts {
                if entry.outcome.is_none() && entry.plan.id == plan.id {
                    entry.outcome = Some(format!("taken over by {}", prepare.holder));
                }
            }
            let started_wall_ms = self.now.wall_ms;
            let entry = RolloutEntry {
                epoch: prepare.epoch,
                plan,
                started_wall_ms,
                outcome: None,
            };
            self.node.rollouts.push(entry);
            let surplus = self.node.rollouts.len().saturating_sub(ROLLOUTS_MAX);
            self.node.rollouts.drain(..surplus);
        }
        self.say_of(
            "prepared",
            prepare.epoch,
            format!("promised to {} for {}", prepare.holder, prepare.what),
        );
        if let Some(words) = accepted {
            self.say_of("findings_accepted", prepare.epoch, words);
        }
        Ok(())
    }

    /// Whether a rollout may begin here: steady, and under no other live lease.
    pub(super) fn check_free(&self) -> Result<(), Refusal> {
        if let Some(lease) = &self.node.lease
            && !lease.until.passed(self.now)
        {
            return Err(Refusal::Locked {
                holder: lease.holder.clone(),
                what: lease.what.clone(),
                left_s: lease.until.left_ms(self.now).div_ceil(1000),
            });
        }
        match &self.node.phase {
            Phase::Steady { .. } | Phase::Prepared { .. } if self.node.pending.is_none() => Ok(()),
            Phase::Steady { .. } | Phase::Prepared { .. } => {
                Err(Refusal::Busy("the node is being started".into()))
            }
            phase @ (Phase::Switching(_)
            | Phase::Probation(_)
            | Phase::Reverting(_)
            | Phase::Stuck { .. }) => Err(Refusal::Busy(format!(
                "the node is in phase {}",
                phase.word()
            ))),
        }
    }

    /// Renews lease and probation. A sealed or closed epoch is never renewed (rule 9).
    pub(super) fn renew(&mut self, epoch: Epoch, lease_ms: u64) -> Result<(), Refusal> {
        if epoch != self.node.register.promised {
            return Err(EpochRefusal::Behind {
                given: epoch,
                promised: self.node.register.promised,
            }
            .into());
        }
        self.node.register.check_open(epoch)?;
        let until = self.now.deadline(lease_ms);
        match &mut self.node.lease {
            Some(lease) if lease.epoch == epoch => lease.until = until.clone(),
            Some(_) | None => return Err(Refusal::NoLease(epoch)),
        }
        // Also one of an earlier epoch that this lease has taken over: a resumed rollout must not
        // lose the nodes of its later waves, nor the votes of an in-doubt one that is proposed again.
        if let Phase::Probation(probation) = &mut self.node.phase
            && probation.epoch <= epoch
        {
            if probation.asking.is_some() {
                return Err(Refusal::NoLease(epoch));
            }
            probation.deadline = until;
        }
        Ok(())
    }

    /// Rule 5. A switch or probation of an earlier epoch for the same release is taken over, so that
    /// a resumed rollout does not stop the node again.
    pub(super) fn activate(
        &mut self,
        epoch: Epoch,
        release: Release,
        probation_ms: u64,
        changes_persistence: bool,
    ) -> Result<(), Refusal> {
        self.node.register.check_activate(epoch, &release)?;
        let held = self.node.lease.as_ref();
        if !held.is_some_and(|lease| lease.epoch == epoch && !lease.until.passed(self.now)) {
            return Err(Refusal::NoLease(epoch));
        }
        match self.node.phase.clone() {
            Phase::Prepared { .. } if self.is_kept_stopped() => self.check_quarantine(),
            Phase::Prepared { running, next } if next == release && self.node.pending.is_none() => {
                if running.is_some_and(|running| *self.release_of(running) == release) {
                    return Err(Refusal::Unknown(format!(
                        "{release} runs here already: leave this node out"
                    )));
                }
                let purpose = Purpose::Rollout {
                    epoch,
                    probation_ms,
                };
                let from = super::fallback_of(running);
                let first = if running.is_some() {
                    SwitchStep::Drain
                } else {
                    SwitchStep::Stop
                };
                self.begin_switch(from, release, purpose, first, None);
                self.set_changes_persistence(changes_persistence);
                Ok(())
            }
            Phase::Switching(switch) => {
                self.take_over_switch(switch, epoch, &release, probation_ms)
            }
            Phase::Probation(mut probation) if *self.release_of(probation.running) == release => {
                if probation.asking.is_some() {
                    return Err(Refusal::Busy("its probation is ending".into()));
                }
                if probation.epoch != epoch {
                    probation.epoch = epoch;
                    probation.deadline = self.now.deadline(probation_ms);
                    self.node.phase = Phase::Probation(probation);
                    self.say_of(
                        "taken_over",
                        epoch,
                        "the probation goes on under a new epoch",
                    );
                }
                Ok(())
            }
            phase @ (Phase::Steady { .. }
            | Phase::Prepared { .. }
            | Phase::Probation(_)
            | Phase::Reverting(_)
            | Phase::Stuck { .. }) => {
                let word = phase.word();
                Err(Refusal::Busy(format!(
                    "the node is in phase {word} and not prepared for {release}"
                )))
            }
        }
    }

    fn take_over_switch(
        &mut self,
        mut switch: Switch,
        epoch: Epoch,
        release: &Release,
        probation_ms: u64,
    ) -> Result<(), Refusal> {
        let same = *self.release_of(switch.to) == *release && switch.abandoned.is_none();
        match switch.purpose {
            Purpose::Rollout { epoch: earlier, .. } if same => {
                if earlier != epoch {
                    switch.purpose = Purpose::Rollout {
                        epoch,
                        probation_ms,
                    };
                    self.node.phase = Phase::Switching(switch);
                    self.say_of("taken_over", epoch, "the switch goes on under a new epoch");
                }
                Ok(())
            }
            Purpose::Rollout { .. } | Purpose::Converge { .. } | Purpose::Restore => {
                Err(Refusal::Busy("the node is in phase switching".into()))
            }
        }
    }

    fn set_changes_persistence(&mut self, changes_persistence: bool) {
        if let Phase::Switching(switch) = &self.node.phase {
            let number = switch.to;
            let generation = self.node.history.get_mut(number);
            generation.expect("it was just added").changes_persistence = changes_persistence;
        }
    }

    /// The client orders the way back; it knows that no record of this epoch or an earlier
    /// undecided one will be decided. A confirmed node refuses (rule 8).
    pub(super) fn order_revert(&mut self, epoch: Epoch, cause: &str) -> Result<(), Refusal> {
        if let Phase::Steady {
            running: Some(running),
        }
        | Phase::Prepared {
            running: Some(running),
            ..
        } = self.node.phase
            && let Some(committed) = self
                .node
                .history
                .get(running)
                .and_then(crate::generation::Generation::confirmed)
            && epoch <= committed
        {
            return Err(Refusal::Confirmed {
                generation: running,
                committed,
            });
        }
        match self.node.phase.clone() {
            Phase::Probation(probation) if probation.epoch > epoch => {
                let promised = self.node.register.promised;
                return Err(EpochRefusal::Behind {
                    given: epoch,
                    promised,
                }
                .into());
            }
            Phase::Probation(_) => self.begin_revert(CauseKind::Ordered, cause.to_owned()),
            Phase::Switching(mut switch) => {
                if let Purpose::Rollout { epoch: held, .. } = switch.purpose
                    && held <= epoch
                {
                    switch.abandoned = Some(cause.to_owned());
                    self.node.phase = Phase::Switching(switch);
                    self.say_of("revert_ordered", epoch, cause);
                }
            }
            Phase::Prepared { running, .. } => {
                if self
                    .node
                    .lease
                    .as_ref()
                    .is_none_or(|lease| lease.epoch <= epoch)
                {
                    self.node.phase = Phase::Steady { running };
                }
            }
            Phase::Steady { .. } | Phase::Reverting(_) | Phase::Stuck { .. } => {}
        }
        self.node.register.close(epoch);
        if self
            .node
            .lease
            .as_ref()
            .is_some_and(|lease| lease.epoch <= epoch)
        {
            self.node.lease = None;
        }
        self.end_rollouts(epoch, cause);
        Ok(())
    }

    pub(super) fn end_rollouts(&mut self, epoch: Epoch, outcome: &str) {
        let mut ended = Vec::new();
        for entry in &mut self.node.rollouts {
            if entry.outcome.is_none() && entry.epoch <= epoch {
                entry.outcome = Some(format!("went back: {outcome}"));
                ended.push(entry.epoch);
            }
        }
        for epoch in ended {
            self.say_of("rollout_ended", epoch, outcome);
        }
    }

    /// Rule 9, the side of the one that is asked.
    pub(super) fn answer(&mut self, epoch: Epoch) -> Result<Answer, Refusal> {
        let known = self.node.register.check_open(epoch).is_err();
        let answer = self.node.register.answer(epoch);
        // Rule 16: what was forgotten was perhaps voted for.
        let Some(answer) = answer.filter(|answer| *answer != Answer::No || self.is_sound()) else {
            return Err(Refusal::Forgotten(epoch));
        };
        if answer == Answer::No && !known {
            self.say_of(
                "sealed",
                epoch,
                "told a peer that this agent never votes for it",
            );
        }
        Ok(answer)
    }

    /// A person asks for a snapshot to be restored.
    pub(super) fn restore(&mut self, snapshot: String, by: &str) -> Result<(), Refusal> {
        self.check_free()?;
        let running: Option<GenerationNumber> = self.node.phase.running();
        let Some(running) = running else {
            return Err(Refusal::Unknown(
                "nothing runs here yet: roll a release out first".into(),
            ));
        };
        self.say(
            "restore_asked",
            format!("{by} asked for snapshot {snapshot} to be restored"),
        );
        let release = self.release_of(running).clone();
        let from = super::fallback_of(Some(running));
        self.begin_switch(
            from,
            release,
            Purpose::Restore,
            SwitchStep::Drain,
            Some(snapshot),
        );
        Ok(())
    }
}
