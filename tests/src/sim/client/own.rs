//! The rollback that an agent proposes by itself, as a client that is driven like any other.

use super::Client;
use crate::sim::mesh::{Mesh, host_name};
use cbddc_domain::node::Node;
use cbddc_domain::proposer::Proposal;
use cbddc_domain::release::Release;
use cbddc_domain::rollback::Known;
use cbddc_domain::trigger::{Surroundings, proposal};
use std::collections::BTreeMap;

impl Client {
    /// What the agent of `host` proposes, by what it has saved and what the others showed.
    pub(super) fn plan_own(&mut self, mesh: &mut Mesh, host: usize) -> Option<Proposal> {
        let node = mesh.hosts[host].node.clone();
        let own = node.vigil.rollback?;
        let name = host_name(host);
        if own.is_needless(&node.register, &name) {
            return None;
        }
        let members = mesh.hosts.iter().map(|host| host.name.clone()).collect();
        let known = |node: &Node| {
            let known = node.history.iter().map(|generation| Known {
                release: generation.release.clone(),
                committed: generation.committed,
                known_good: generation.known_good,
            });
            best(known)
        };
        let looked = self.looked.iter();
        let known = looked
            .map(|(host, node)| (host_name(*host), known(node)))
            .collect();
        let highest = self
            .looked
            .values()
            .map(|node| node.register.highest_epoch());
        let around = Surroundings {
            name: &name,
            members: &members,
            genesis: &mesh.voters,
            known: &known,
            highest: highest.max().unwrap_or_default(),
            nonce: mesh.random.below(1_000) * 100 + self.index as u64,
        };
        match proposal(&own, &node.register, &around) {
            Ok(proposal) => Some(proposal),
            Err(error) => {
                let all = self.looked.len() == mesh.hosts.len();
                mesh.own_tried(host, &error.to_string(), all);
                None
            }
        }
    }
}

/// Per release the best that is known of it.
fn best(known: impl Iterator<Item = Known>) -> Vec<Known> {
    let mut best: BTreeMap<Release, Known> = BTreeMap::new();
    for one in known {
        let held = best
            .entry(one.release.clone())
            .or_insert_with(|| one.clone());
        held.committed = held.committed.max(one.committed);
        held.known_good |= one.known_good;
    }
    best.into_values().collect()
}
