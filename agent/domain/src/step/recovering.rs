//! Rule 16: an agent whose state database came back from an older copy must not speak for what it no
//! longer knows.

use super::Turn;
use crate::id::NodeName;
use crate::mesh::MEMBERS_MAX;
use crate::node::{Action, Refusal};
use crate::register::{Epoch, is_majority_of};
use crate::starts::{Memory, Recall, Recovery, Start, recall};
use std::collections::BTreeSet;

/// How far the fresh epoch goes ahead of everything that was heard: a client that is still at work
/// with a promise that this agent forgot is behind it, too.
const AHEAD: u64 = 1 << 10;

/// How long it waits at most until it asks those again who did not answer, in milliseconds. Whoever
/// is heard of is asked sooner.
const WAIT_MS_MAX: u64 = 5 * 60_000;

impl Turn<'_> {
    /// Another start: nothing is promised until enough voters have told what they remember of it.
    pub(super) fn remember_start(&mut self, nonce: u64) {
        self.node.starts.begin(nonce);
        self.prove_memory();
    }

    pub(super) fn is_sound(&self) -> bool {
        self.node.starts.is_sound()
    }

    /// Whether this agent may promise and vote.
    pub(super) fn check_memory(&self) -> Result<(), Refusal> {
        match &self.node.starts.memory {
            Memory::Sound => Ok(()),
            Memory::Unproven { .. } => Err(Refusal::Starting),
            Memory::Lost(recovery) => {
                let voters = self.node.register.voters(&self.context.voters);
                Err(Refusal::MemoryLost {
                    needed: needed(voters),
                    granted: self.granted(recovery),
                })
            }
        }
    }

    /// What a peer tells of its starts. A memory that contradicts it is kept: it is the only witness
    /// until the peer has taken it over.
    pub(super) fn remember_peer(&mut self, peer: &NodeName, starts: &[Start]) {
        let held = self.node.peers.get(peer).copied();
        let Some(newest) = starts.last() else { return };
        let room = held.is_some() || self.node.peers.len() < MEMBERS_MAX;
        match recall(held, starts) {
            Recall::Newer if room => drop(self.node.peers.insert(peer.clone(), *newest)),
            Recall::Same | Recall::Newer | Recall::Mismatch => {}
        }
    }

    /// What a peer remembers of this agent's starts.
    pub(super) fn recalled(&mut self, peer: &NodeName, remembered: Option<Start>) {
        match recall(remembered, &self.node.starts.known) {
            Recall::Same | Recall::Newer => match &mut self.node.starts.memory {
                Memory::Unproven { told } if told.len() < MEMBERS_MAX => {
                    told.insert(peer.clone());
                    self.prove_memory();
                }
                Memory::Lost(recovery) if !recovery.granted.contains(peer) => {
                    let waits = recovery.soon.as_ref();
                    if waits.is_none_or(|soon| soon.passed(self.now)) {
                        self.ask_for_promises();
                    }
                }
                Memory::Sound | Memory::Unproven { .. } | Memory::Lost(_) => {}
            },
            Recall::Mismatch => {
                if let Some(lost) = remembered {
                    self.node.starts.take_over(lost);
                }
                let text = format!(
                    "{peer} remembers a start of this agent that it does not know: an old state came back; it takes part again once it has asked the other voters"
                );
                self.say("memory_lost", text);
                if !matches!(self.node.starts.memory, Memory::Lost(_)) {
                    self.node.starts.memory = Memory::Lost(Recovery::default());
                }
                self.recover_if_due();
            }
        }
    }

    /// A majority of the voters, itself counted, has to tell what it remembers.
    pub(super) fn prove_memory(&mut self) {
        let Memory::Unproven { told } = &self.node.starts.memory else {
            return;
        };
        let mut told = told.clone();
        told.insert(self.context.name.clone());
        if is_majority_of(&told, self.node.register.voters(&self.context.voters)) {
            self.node.starts.memory = Memory::Sound;
        }
    }

    /// Asks the other voters for a promise to a fresh epoch; again after a while, which grows.
    pub(super) fn recover_if_due(&mut self) {
        let Memory::Lost(recovery) = &self.node.starts.memory else {
            return;
        };
        let waits = recovery.until.as_ref();
        if waits.is_none_or(|until| until.passed(self.now)) {
            self.ask_for_promises();
        }
    }

    /// Asks those who have not promised yet. The epoch stays the same unless somebody is beyond it:
    /// each fresh one takes the mesh away from whoever is at work.
    fn ask_for_promises(&mut self) {
        let Memory::Lost(recovery) = &self.node.starts.memory else {
            return;
        };
        let mut recovery = recovery.clone();
        let highest = self
            .node
            .register
            .highest_epoch()
            .max(recovery.outrun.unwrap_or_default());
        let epoch = match recovery.epoch {
            Some(epoch) if highest <= epoch => epoch,
            Some(_) | None => {
                let nonce = self.node.starts.known.last().map_or(0, |start| start.nonce);
                let counter = highest.counter.saturating_add(AHEAD);
                recovery = Recovery::default();
                Epoch { counter, nonce }
            }
        };
        let electorates = self.node.register.electorates(&self.context.voters);
        let mut others: BTreeSet<NodeName> = electorates.into_iter().flatten().collect();
        others.remove(&self.context.name);
        others.retain(|peer| !recovery.granted.contains(peer));
        let limit = self.context.ask_limit_ms;
        let wait = limit.saturating_mul(1 << recovery.asked.min(16));
        recovery.epoch = Some(epoch);
        recovery.soon = Some(self.now.deadline(limit));
        recovery.until = Some(self.now.deadline(wait.min(WAIT_MS_MAX.max(limit))));
        recovery.asked = recovery.asked.saturating_add(1);
        self.node.starts.memory = Memory::Lost(recovery);
        if !others.is_empty() {
            self.actions.push(Action::Recover(epoch, others));
        }
    }

    /// The other side: promises the epoch like any other, without a lease.
    pub(super) fn fence(&mut self, epoch: Epoch) -> Result<(), Refusal> {
        if self.node.register.promised == epoch {
            return Ok(());
        }
        self.check_memory()?;
        self.node.register.promise(epoch)?;
        let text = "promised to a peer that lost its memory";
        self.say_of("fenced", epoch, text);
        Ok(())
    }

    /// A peer was asked, and what it knows has been heard. What it has promised instead tells of a
    /// proposer that came later, and that this agent may have voted for: that is no promise.
    pub(super) fn fenced(&mut self, peer: NodeName, epoch: Epoch, promised: Epoch) {
        let Memory::Lost(recovery) = &mut self.node.starts.memory else {
            return;
        };
        if recovery.epoch != Some(epoch) {
            return;
        }
        if promised != epoch {
            recovery.outrun = recovery.outrun.max(Some(promised));
            return;
        }
        recovery.granted.insert(peer);
        let recovery = recovery.clone();
        // As in rule 15: of the newest voters, and of those of every change that is under way.
        let electorates = self.node.register.electorates(&self.context.voters);
        let name = &self.context.name;
        let standing = self.node.register.voters(&self.context.voters);
        let enough = |voters: &BTreeSet<NodeName>| {
            let others = recovery.granted.iter().filter(|node| *node != name);
            let count = others.filter(|node| voters.contains(*node)).count();
            // Of two voters that nobody has decided on, the other one has a part in whatever this one
            // helped to decide as their second; to wait for more would be to wait for ever.
            let pair = voters != standing && voters.len() == 2 && voters.contains(name);
            count >= if pair { 1 } else { needed(voters) }
        };
        if !electorates.iter().all(enough) || self.node.register.promise(epoch).is_err() {
            return;
        }
        self.node.register.forgotten = epoch;
        self.node.starts.recovered();
        let text = "copied from the other voters what this agent may have forgotten";
        self.say_of("memory_recovered", epoch, text);
    }

    fn granted(&self, recovery: &Recovery) -> usize {
        let voters = self.node.register.voters(&self.context.voters);
        recovery.granted.intersection(voters).count()
    }
}

/// How many *other* voters hold all that this one may have helped to decide: every majority that it
/// was part of has a member among them.
fn needed(voters: &BTreeSet<NodeName>) -> usize {
    voters.len() / 2 + 1
}
