//! The network: messages are lost, doubled, late, and stopped by partitions.

use super::{Ask, Endpoint, Happening, Mesh, Told, host_name};
use cbddc_domain::id::NodeName;
use cbddc_domain::node::{Event, Refusal, Reply};
use cbddc_domain::register::{EpochRefusal, RegisterView};
use cbddc_domain::starts::{Recall, Start, recall};

impl Mesh {
    pub(super) fn again(&mut self, mean_ms: u64, happening: Happening) {
        if self.t < self.faults.until_ms {
            self.after(1, 2 * mean_ms, happening);
        }
    }

    pub(super) fn partition(&mut self) {
        if self.healed {
            return;
        }
        self.groups.clear();
        if self.random.chance(600) {
            let everyone = (0..self.hosts.len())
                .map(Endpoint::Host)
                .chain((0..self.clients.len()).map(Endpoint::Client));
            for endpoint in everyone.collect::<Vec<_>>() {
                let group = self.random.below(2);
                self.groups.insert(endpoint, group);
            }
        }
        let groups = self.groups.clone();
        self.note(|| format!("partition: {groups:?}"));
    }

    pub(super) fn reachable(&self, one: Endpoint, other: Endpoint) -> bool {
        self.groups.get(&one) == self.groups.get(&other)
    }

    /// Whether a fault of this chance happens now.
    pub fn strikes(&mut self, per_mille: u64) -> bool {
        !self.healed && self.random.chance(per_mille)
    }

    pub(super) fn delay(&mut self) -> u64 {
        if !self.healed && self.random.chance(self.faults.late) {
            self.random.between(1_000, 30_000)
        } else {
            self.random.between(1, self.faults.delay_ms.max(2))
        }
    }

    pub(super) fn transmit(&mut self, from: Endpoint, to: Endpoint, happening: Happening) {
        if !self.reachable(from, to) || (!self.healed && self.random.chance(self.faults.loss)) {
            return;
        }
        if !self.healed && self.random.chance(self.faults.double) {
            let t = self.t + 2 * self.delay();
            self.at(t, happening.clone());
        }
        let t = self.t + self.delay();
        self.at(t, happening);
    }

    pub(super) fn send(&mut self, from: Endpoint, to: usize, call: u64, ask: Ask) {
        let request = Happening::Request {
            from,
            to,
            call,
            ask,
        };
        self.transmit(from, Endpoint::Host(to), request);
    }

    pub(super) fn request_arrives(&mut self, from: Endpoint, to: usize, call: u64, ask: Ask) {
        if !self.hosts[to].up || !self.reachable(from, Endpoint::Host(to)) {
            return;
        }
        let told = match ask {
            Ask::Look => Told::Look(Box::new(self.hosts[to].node.clone())),
            Ask::Gossip(starts) => {
                let Endpoint::Host(asker) = from else { return };
                let peer = host_name(asker);
                let remembered = self.hosts[to].node.peers.get(&peer).copied();
                if !self.hears_starts(to, peer, starts) {
                    return;
                }
                let own = self.hosts[to].node.starts.known.clone();
                Told::Gossip(Box::new(self.view(to)), remembered, own)
            }
            Ask::Fence(epoch) => match self.handle(to, Event::Fence(epoch)) {
                Some(Ok(_) | Err(Refusal::Epoch(EpochRefusal::Behind { .. }))) => {
                    Told::Fenced(epoch, Box::new(self.view(to)))
                }
                Some(Err(_)) | None => return,
            },
            Ask::Voted(epoch) => match self.handle(to, Event::Ask(epoch)) {
                Some(Ok(Reply::Answer(answer))) => {
                    Told::Voted(epoch, answer, Box::new(self.view(to)))
                }
                Some(Ok(Reply::Ok) | Err(_)) | None => return,
            },
            Ask::Events(events) => {
                let mut refused = None;
                for event in events {
                    match self.handle(to, event) {
                        Some(Ok(_)) => {}
                        Some(Err(refusal)) => {
                            refused = Some(refusal);
                            break;
                        }
                        None => return,
                    }
                }
                Told::Events(refused.map_or(Ok(Box::new(self.view(to))), Err))
            }
        };
        let response = Happening::Response {
            from: to,
            to: from,
            call,
            told,
        };
        self.transmit(Endpoint::Host(to), from, response);
    }

    pub(super) fn view(&self, host: usize) -> RegisterView {
        self.hosts[host].node.register.view(&self.voters)
    }

    pub(super) fn response_arrives(&mut self, from: usize, to: Endpoint, call: u64, told: Told) {
        let host = match to {
            Endpoint::Client(client) => return self.client_hears(client, call, Some((from, told))),
            Endpoint::Host(host) => host,
        };
        match told {
            Told::Look(_) => {}
            Told::Gossip(view, remembered, starts) => {
                let peer = host_name(from);
                self.take_gossip(host, from, &view);
                // An answer to a question of an earlier life speaks of fewer starts.
                self.hears_starts(host, peer.clone(), starts);
                // News only after a start, or where something was lost.
                let own = &self.hosts[host].node.starts;
                if !own.is_sound() || recall(remembered, &own.known) == Recall::Mismatch {
                    self.handle(host, Event::Recalled { peer, remembered });
                }
            }
            Told::Fenced(epoch, view) => {
                if self.take_all(host, from, &view) {
                    let fenced = Event::Fenced {
                        peer: host_name(from),
                        epoch,
                        promised: view.promised,
                    };
                    self.handle(host, fenced);
                }
            }
            Told::Voted(epoch, answer, view) => {
                let voter = host_name(from);
                let voted = view.votes.iter().find(|vote| vote.epoch == epoch).cloned();
                if !self.take_all(host, from, &view) {
                    return;
                }
                let voted = voted.map(Box::new);
                self.handle(
                    host,
                    Event::Answered {
                        voter,
                        epoch,
                        answer,
                        voted,
                    },
                );
            }
            Told::Events(_) => {}
        }
    }

    /// Tells an agent of a peer's starts, where that is news; false if the agent went down.
    fn hears_starts(&mut self, host: usize, peer: NodeName, starts: Vec<Start>) -> bool {
        let held = self.hosts[host].node.peers.get(&peer);
        held == starts.last()
            || self
                .handle(host, Event::PeerStarts { peer, starts })
                .is_some()
    }

    /// All of it, in the engine's order; false if the agent went down on the way.
    pub(super) fn take_all(&mut self, host: usize, from: usize, view: &RegisterView) -> bool {
        let learnt = view.elected.iter().chain(&view.decided).cloned();
        let mut events: Vec<_> = learnt
            .map(|record| Event::Learn(Box::new(record)))
            .collect();
        events.push(Event::HearRevocations(view.revocations.clone()));
        let voter = host_name(from);
        events.extend(view.votes.iter().map(|record| Event::Hear {
            voter: voter.clone(),
            record: Box::new(record.clone()),
        }));
        events
            .into_iter()
            .all(|event| self.handle(host, event).is_some())
    }

    pub(super) fn take_gossip(&mut self, host: usize, from: usize, view: &RegisterView) {
        // In any order, and not always to the end: an agent may crash in the middle of it.
        let first = self.random.below(3);
        let parts = if self.healed {
            3
        } else {
            self.random.between(1, 3)
        };
        for part in 0..parts {
            match (first + part) % 3 {
                0 => {
                    for record in view.elected.iter().chain(&view.decided).cloned() {
                        self.handle(host, Event::Learn(Box::new(record)));
                    }
                }
                1 => {
                    for record in view.votes.clone() {
                        let voter = host_name(from);
                        let record = Box::new(record);
                        self.handle(host, Event::Hear { voter, record });
                    }
                }
                _ => {
                    if view.revocations != self.hosts[host].node.register.revocations {
                        let revocations = view.revocations.clone();
                        self.handle(host, Event::HearRevocations(revocations));
                    }
                }
            }
        }
    }
}
