//! What agents remember of each other's starts, states that come back from a backup, and how soon
//! everybody knows the record that stands.

use super::{Ask, Endpoint, GOSSIP_MS, Happening, Mesh, host_name};
use cbddc_domain::id::NodeName;
use cbddc_domain::node::{Event, Node};
use cbddc_domain::register::Epoch;
use cbddc_domain::starts::{Memory, Start};
use std::collections::BTreeSet;

impl Mesh {
    /// In the beginning every agent has started once, and all know it.
    pub(super) fn all_have_met(&mut self) {
        let first = |host: usize| Start {
            number: 1,
            nonce: host as u64,
        };
        let all: Vec<_> = (0..self.hosts.len())
            .map(|host| (host_name(host), first(host)))
            .collect();
        for (index, host) in self.hosts.iter_mut().enumerate() {
            host.node.starts.known = vec![first(index)];
            let others = all.iter().filter(|(name, _)| *name != host.name);
            host.node.peers = others.cloned().collect();
            host.backup.0 = host.node.clone();
        }
    }

    /// Asks a peer for its register.
    pub(super) fn gossip(&mut self, host: usize, peer: usize) {
        if peer != host && self.hosts[host].up {
            self.calls += 1;
            let starts = self.hosts[host].node.starts.known.clone();
            self.send(Endpoint::Host(host), peer, self.calls, Ask::Gossip(starts));
        }
    }

    /// Asks every peer after a start, until enough have told what they remember.
    pub(super) fn meet(&mut self, host: usize) {
        let memory = &self.hosts[host].node.starts.memory;
        if matches!(memory, Memory::Unproven { .. }) {
            (0..self.hosts.len()).for_each(|peer| self.gossip(host, peer));
        }
    }

    /// A host that crashed may come back from a backup, or with an empty disk, which is the oldest
    /// backup there is. Chosen so that more than half of the voters, itself not counted, are up, have
    /// their own memory and know its newest start: otherwise, as the design says, a person has to know.
    pub(super) fn restore_backup(&mut self, index: usize) {
        let empty = self.random.chance(300);
        let (node, world) = if empty {
            Default::default()
        } else {
            self.hosts[index].backup.clone()
        };
        let mut sets: BTreeSet<BTreeSet<NodeName>> = self.checker.electorates(&self.voters);
        sets.insert(node.register.voters(&self.voters).clone());
        sets.insert(self.voters.clone());
        let host = &self.hosts[index];
        let newest = host.node.starts.known.last();
        let remembers = |other: &super::Host| {
            let knows = other.node.peers.get(&host.name) == newest;
            other.name != host.name && other.up && other.node.starts.is_sound() && knows
        };
        let knowing = self.hosts.iter().filter(|other| remembers(other));
        let knowing: BTreeSet<_> = knowing.map(|other| other.name.clone()).collect();
        let enough =
            |voters: &BTreeSet<NodeName>| knowing.intersection(voters).count() > voters.len() / 2;
        if !sets.iter().all(enough) {
            return;
        }
        self.note(|| format!("n{}: comes back from a backup, empty: {empty}", index + 1));
        self.checker.restored(index, &node, empty);
        let host = &mut self.hosts[index];
        (host.node, host.world) = (node, world);
        host.world.process = None;
    }

    /// Once nothing fails any more, every node has to know the newest record within a bound: each asks
    /// every other one in turn, so that is as many rounds as there are hosts, and the last answer's way.
    pub(super) fn follow_the_winner(&mut self) -> Result<(), String> {
        let winner = self.checker.winner().map(|record| record.epoch);
        let winner = winner.unwrap_or_default();
        let all_up = self.hosts.iter().all(|host| host.up);
        if !self.healed || !all_up || winner != self.winner {
            (self.winner, self.winner_since) = (winner, self.t);
            return Ok(());
        }
        let knows = |node: &Node| node.register.decided_epoch() >= winner;
        if winner == Epoch::default() || self.hosts.iter().all(|host| knows(&host.node)) {
            return Ok(());
        }
        let waited = self.t - self.winner_since;
        self.rounds = self.rounds.max(waited.div_ceil(GOSSIP_MS));
        let bound = self.bound_ms();
        if waited > bound {
            return Err(format!(
                "not every node knows the winner after {waited} ms; the bound is {bound} ms"
            ));
        }
        Ok(())
    }

    fn bound_ms(&self) -> u64 {
        self.hosts.len() as u64 * GOSSIP_MS + 2 * self.faults.delay_ms + 100
    }

    pub(super) fn fence_others(&mut self, index: usize, epoch: Epoch, others: &BTreeSet<NodeName>) {
        for peer in 0..self.hosts.len() {
            if others.contains(&host_name(peer)) {
                self.calls += 1;
                self.send(Endpoint::Host(index), peer, self.calls, Ask::Fence(epoch));
            }
        }
    }

    pub(super) fn started(&mut self, index: usize, node_runs: bool, wait_ms: u64) {
        let nonce = self.random.number();
        let started = Event::Started {
            node_runs,
            wait_ms,
            nonce,
        };
        self.handle(index, started);
        self.meet(index);
    }

    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.groups.clear();
        self.note(|| "healed: no more faults".into());
    }

    pub(super) fn crash_somewhere(&mut self) {
        self.again(self.faults.crash_every_ms, Happening::Crash);
        if !self.healed {
            let host = self.random.index(self.hosts.len());
            let whole = self.random.chance(400);
            let up = self.hosts[host].up;
            self.crash(host, whole);
            if up && whole && self.random.chance(self.faults.restored) {
                self.restore_backup(host);
            }
        }
    }
}
