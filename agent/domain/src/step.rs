//! The state machine of one agent: event in, new state and actions out.
//!
//! [`step`] decides; it performs nothing. What a request asks for is in `requests.rs` and `voting.rs`, what follows
//! from effects in `switching.rs` and `reverting.rs`, what the checks find in `watching.rs` and
//! `triggering.rs`, what time and decided records lead to in `settling.rs`.

use crate::generation::{Fallback, GenerationNumber};
use crate::node::{Action, Context, Effect, Entry, Event, Node, Pending, Refusal, Reply, Step};
use crate::register::Epoch;
use crate::release::Release;
use crate::time::Now;

mod adopting;
mod recovering;
mod requests;
mod reverting;
mod settling;
mod stopping;
mod switching;
#[cfg(test)]
mod tests;
mod triggering;
mod voting;
mod watching;

/// Takes one event. A refusal means that nothing has changed.
pub fn step(context: &Context, node: &Node, event: Event, now: &Now) -> Result<Step, Refusal> {
    let mut turn = Turn {
        context,
        now,
        node: node.clone(),
        actions: Vec::new(),
        entries: Vec::new(),
    };
    let reply = turn.take(event)?;
    turn.settle();
    turn.keep_halted();
    Ok(Step {
        node: turn.node,
        reply,
        actions: turn.actions,
        entries: turn.entries,
    })
}

/// One step being worked out.
struct Turn<'a> {
    context: &'a Context,
    now: &'a Now,
    node: Node,
    actions: Vec<Action>,
    entries: Vec<Entry>,
}

impl Turn<'_> {
    fn take(&mut self, event: Event) -> Result<Reply, Refusal> {
        match event {
            Event::Prepare(prepare) => self.prepare(*prepare)?,
            Event::Renew { epoch, lease_ms } => self.renew(epoch, lease_ms)?,
            Event::Activate {
                epoch,
                release,
                probation_ms,
                changes_persistence,
            } => {
                self.activate(epoch, *release, probation_ms, changes_persistence)?;
            }
            Event::Vote(record) => self.vote(&record)?,
            Event::VoteBack(record) => self.vote_back(&record)?,
            Event::Learn(record) => self.learn(&record),
            Event::Force(record) => self.force(&record)?,
            Event::Hear { voter, record } => self.hear(&voter, &record),
            Event::HearRevocations(revocations) => self.hear_revocations(&revocations),
            Event::Revert { epoch, cause } => self.order_revert(epoch, &cause)?,
            Event::Ask(epoch) => return self.answer(epoch).map(Reply::Answer),
            Event::Answered {
                voter,
                epoch,
                answer,
                voted,
            } => {
                self.take_answer(voter, epoch, answer, voted.as_deref());
            }
            Event::Done { number, note } => self.effect_done(number, note),
            Event::Failed { number, error } => self.effect_failed(number, &error),
            Event::Clean(generation) => self.clean(generation),
            Event::CheckFailed { generation, cause } => self.check_failed(generation, &cause),
            Event::Observed {
                generation,
                observation,
            } => self.observed(generation, &observation),
            Event::ChangeStops { change, reason, by } => {
                self.change_stops(&change, reason, &by);
            }
            Event::RollbackTried {
                why,
                nowhere,
                jitter_ms,
            } => self.rollback_tried(&why, nowhere, jitter_ms),
            Event::Exited { how } => self.exited(&how),
            Event::Restore { snapshot, by } => self.restore(snapshot, &by)?,
            Event::Adopt {
                release,
                by,
                may_switch,
            } => self.adopt(*release, &by, may_switch)?,
            Event::Unadopt { by } => self.unadopt(&by)?,
            Event::Started {
                node_runs,
                wait_ms,
                nonce,
            } => {
                self.remember_start(nonce);
                self.started(node_runs, wait_ms);
            }
            Event::Met => self.met(),
            Event::PeerStarts { peer, starts } => self.remember_peer(&peer, &starts),
            Event::Recalled { peer, remembered } => self.recalled(&peer, remembered),
            Event::Fence(epoch) => self.fence(epoch)?,
            Event::Fenced {
                peer,
                epoch,
                promised,
            } => self.fenced(peer, epoch, promised),
            Event::Tick => self.tick(),
        }
        Ok(Reply::Ok)
    }

    /// Orders an effect, and says so in the journal.
    fn order(&mut self, effect: Effect) {
        let (kind, text) = effect_words(&effect);
        self.say(kind, text);
        if matches!(effect, Effect::Start | Effect::Restart) {
            self.node.stops.halted = false;
        }
        self.node.effects += 1;
        let pending = Pending {
            number: self.node.effects,
            effect,
        };
        self.node.pending = Some(pending.clone());
        self.actions
            .retain(|action| !matches!(action, Action::Perform(_)));
        self.actions.push(Action::Perform(pending));
    }

    fn say(&mut self, kind: &'static str, text: impl Into<String>) {
        let epoch = self.current_epoch();
        let generation = self.current_generation();
        self.entries.push(Entry {
            kind,
            epoch,
            generation,
            text: text.into(),
        });
    }

    fn say_of(&mut self, kind: &'static str, epoch: Epoch, text: impl Into<String>) {
        let generation = self.current_generation();
        self.entries.push(Entry {
            kind,
            epoch: Some(epoch),
            generation,
            text: text.into(),
        });
    }

    /// What a generation runs. Every number in a phase stands in the history.
    fn release_of(&self, number: GenerationNumber) -> &Release {
        let generation = self.node.history.get(number);
        &generation
            .expect("a generation that the phase names is never forgotten")
            .release
    }

    fn revocation_reason(&self, release: &Release) -> Option<String> {
        let revocation = self.node.register.revoked(&release.build.digest)?;
        Some(format!(
            "{} is revoked: {}",
            release.build, revocation.reason
        ))
    }

    /// The generations that the phase refers to and that the history must keep.
    fn kept_generations(&self) -> Vec<GenerationNumber> {
        let mut kept: Vec<_> = self.node.phase.running().into_iter().collect();
        let newest_committed = self
            .node
            .history
            .iter()
            .rev()
            .find(|g| g.confirmed().is_some());
        kept.extend(newest_committed.map(|generation| generation.number));
        let last_good = self.node.history.iter().rev().find(|g| g.known_good);
        kept.extend(last_good.map(|generation| generation.number));
        kept
    }
}

/// The fallback that a running generation makes.
fn fallback_of(running: Option<GenerationNumber>) -> Fallback {
    running.map_or(Fallback::Nothing, Fallback::Generation)
}

fn effect_words(effect: &Effect) -> (&'static str, String) {
    match effect {
        Effect::Fetch(build) => (
            "fetch",
            format!("making sure that {build} is here and intact"),
        ),
        Effect::Drain => (
            "drain",
            "stopping the writers and letting local events reach the peers".into(),
        ),
        Effect::Stop => ("stop", "stopping the node".into()),
        Effect::Snapshot(id) => ("snapshot", format!("taking snapshot {id} of the database")),
        Effect::Restore(id, kept) => (
            "restore",
            format!("restoring snapshot {id}; the state that it replaces is kept as {kept}"),
        ),
        Effect::Point(Some(build)) => ("point", format!("pointing `current` to {build}")),
        Effect::Point(None) => (
            "point",
            "taking the `current` link away: nothing ran before".into(),
        ),
        Effect::Start => ("start", "starting the node".into()),
        Effect::Restart => ("restart", "stopping the node and starting it again".into()),
        Effect::Halt => (
            "halt",
            "stopping the node, which stays stopped until it is let go".into(),
        ),
        Effect::Check => ("check", "checking that the node is ready".into()),
    }
}

/// A record in the journal.
fn record_words(record: &crate::register::Record, context: &Context) -> String {
    let what = record.release_for(&context.name);
    let what = what.map_or_else(
        || "nothing new for this node".to_owned(),
        ToString::to_string,
    );
    format!(
        "{what}, proposed by {} ({})",
        record.proposed_by, record.reason
    )
}
