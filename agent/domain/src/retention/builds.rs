//! Which builds may go.

use crate::build::{BuildRef, Digest};
use crate::generation::Generation;
use crate::node::Node;
use crate::phase::Phase;
use std::collections::BTreeSet;

/// How many builds that baked clean stay beside the one that runs, for a way back: if one cannot be put
/// right, the next is tried.
const GOOD_KEPT: usize = 2;

/// Why a build must stay on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BuildNeeded {
    /// The node is between two releases.
    #[error("the node is between two releases: try again when `cbctl status` shows it at rest")]
    Moving,
    /// It runs.
    #[error("the node runs it")]
    Runs,
    /// The mesh's newest record, or one that may still be decided, orders it.
    #[error("the mesh's newest order names it, or one that is not decided yet")]
    Ordered,
    /// A way back leads to it.
    #[error("the way back leads to it")]
    WayBack,
}

/// Why a build stays where those that are not needed are cleared away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BuildStays {
    /// It is needed.
    #[error(transparent)]
    Needed(#[from] BuildNeeded),
    /// It is among those that ran here last.
    #[error("it is among the builds that ran here last")]
    Recent,
    /// Nothing says that it ran here.
    #[error(
        "it may wait for its rollout: nothing is known of it having run here; `cbctl build rm` removes it"
    )]
    NeverRan,
}

/// Why this node needs a build. [`None`]: it does not.
pub fn build_needed(node: &Node, build: &Digest) -> Option<BuildNeeded> {
    if !matches!(node.phase, Phase::Steady { .. } | Phase::Stuck { .. }) {
        return Some(BuildNeeded::Moving);
    }
    let running = node.phase.running().and_then(|it| node.history.get(it));
    if running.is_some_and(|generation| generation.release.build.digest == *build) {
        return Some(BuildNeeded::Runs);
    }
    let register = &node.register;
    let heard = register.heard.values().map(|heard| &heard.record);
    let records = heard
        .chain(register.votes.values())
        .chain(&register.decided);
    // Peers that follow the order fetch the build from here.
    let mut ordered =
        records.flat_map(|record| record.release.iter().chain(record.exceptions.values()));
    if ordered.any(|release| release.build.digest == *build) {
        return Some(BuildNeeded::Ordered);
    }
    ways_back(node)
        .contains(build)
        .then_some(BuildNeeded::WayBack)
}

/// The builds that a way back may lead to: the newest that baked clean, and the newest that was
/// committed at all.
fn ways_back(node: &Node) -> BTreeSet<Digest> {
    let running = node.phase.running();
    let runs = running.and_then(|it| node.history.get(it));
    let runs = runs.map(|generation| generation.release.build.digest);
    let newest = |wanted: &dyn Fn(&Generation) -> bool, count: usize| {
        let mut found = Vec::new();
        for generation in node.history.iter().rev() {
            let digest = generation.release.build.digest;
            let usable = Some(digest) != runs && node.register.revoked(&digest).is_none();
            if usable && wanted(generation) && !found.contains(&digest) {
                found.push(digest);
            }
        }
        found.truncate(count);
        found
    };
    let good = newest(&|generation| generation.known_good, GOOD_KEPT);
    let confirmed = newest(&|generation| generation.confirmed().is_some(), 1);
    good.into_iter().chain(confirmed).collect()
}

/// What is to be done with each stored build where those that nothing needs are cleared away, all but
/// the newest `kept` that ran here. [`None`]: it may go.
pub fn surplus_builds(
    node: &Node,
    stored: &[BuildRef],
    kept: usize,
) -> Vec<(BuildRef, Option<BuildStays>)> {
    let mut ran: Vec<Digest> = Vec::new();
    for generation in node.history.iter().rev() {
        let digest = generation.release.build.digest;
        if !ran.contains(&digest) {
            ran.push(digest);
        }
    }
    let recent: Vec<&Digest> = ran
        .iter()
        .filter(|digest| node.register.revoked(digest).is_none())
        .take(kept)
        .collect();
    let stays = |build: &BuildRef| {
        let digest = &build.digest;
        if let Some(needed) = build_needed(node, digest) {
            Some(needed.into())
        } else if recent.contains(&digest) {
            Some(BuildStays::Recent)
        } else if ran.contains(digest) || node.register.revoked(digest).is_some() {
            None
        } else {
            Some(BuildStays::NeverRan)
        }
    };
    let decide = |build: &BuildRef| (build.clone(), stays(build));
    stored.iter().map(decide).collect()
}

#[cfg(test)]
mod tests {
    use super::{BuildNeeded, BuildStays, build_needed, surplus_builds};
    use crate::build::{BuildRef, Digest};
    use crate::node::Node;
    use crate::phase::Phase;
    use crate::register::{Epoch, Revocation};
    use crate::release::Release;

    fn build(version: u64) -> BuildRef {
        BuildRef {
            id: format!("cbddc@{version}").parse().expect("a name"),
            digest: Digest::of(&version.to_be_bytes()),
        }
    }

    /// A node that ran these versions one after the other, each with whether it baked clean; the last one
    /// runs.
    fn node(ran: &[(u64, bool)]) -> Node {
        let mut node = Node::default();
        for (version, known_good) in ran {
            let release = Release::of_build(build(*version));
            let epoch = Epoch {
                counter: *version,
                ..Epoch::default()
            };
            let number = node.history.add(release, epoch, 0, &[]);
            let generation = node.history.get_mut(number).expect("it was just added");
            generation.committed = Some(epoch);
            generation.known_good = *known_good;
            node.phase = Phase::Steady {
                running: Some(number),
            };
        }
        node
    }

    fn revoke(node: &mut Node, version: u64) {
        let revocation = Revocation {
            epoch: Epoch::default(),
            lifted: false,
            reason: "it lost events".to_owned(),
        };
        node.register
            .revocations
            .insert(build(version).digest, revocation);
    }

    fn gone(node: &Node, stored: u64, kept: usize) -> Vec<String> {
        let stored: Vec<_> = (1..=stored).map(build).collect();
        let decided = surplus_builds(node, &stored, kept).into_iter();
        let may_go = decided.filter(|(_, stays)| stays.is_none());
        may_go.map(|(build, _)| build.id.to_string()).collect()
    }

    #[test]
    fn what_runs_and_what_a_way_back_needs_stays() {
        let ran = [(1, true), (2, true), (3, true), (4, true), (5, true)];
        let node = node(&ran);
        let needed = |version| build_needed(&node, &build(version).digest);
        assert_eq!(needed(5), Some(BuildNeeded::Runs));
        assert_eq!(needed(4), Some(BuildNeeded::WayBack));
        assert_eq!(needed(3), Some(BuildNeeded::WayBack));
        assert_eq!((needed(2), needed(1)), (None, None));
        assert_eq!(gone(&node, 5, 0), ["cbddc@1", "cbddc@2"]);
        assert_eq!(gone(&node, 5, 4), ["cbddc@1"]);
        assert!(gone(&node, 5, 5).is_empty());
    }

    #[test]
    fn a_build_that_waits_for_its_rollout_stays_and_a_revoked_one_goes() {
        let mut node = node(&[(1, true), (2, true), (3, true), (4, true)]);
        let stored: Vec<_> = (1..=5).map(build).collect();
        let decided = surplus_builds(&node, &stored, 0);
        assert_eq!(decided[4].1, Some(BuildStays::NeverRan));
        revoke(&mut node, 5);
        revoke(&mut node, 3);
        // 3 is no way back any more: 2 and 1 are.
        assert_eq!(gone(&node, 5, 4), ["cbddc@3", "cbddc@5"]);
    }

    /// What failed again and again must not push out what can be gone back to.
    #[test]
    fn failed_activations_push_nothing_out() {
        let mut node = node(&[(1, true), (2, true)]);
        for version in 3..9 {
            let release = Release::of_build(build(version));
            node.history.add(release, Epoch::default(), 0, &[]);
        }
        assert_eq!(
            build_needed(&node, &build(1).digest),
            Some(BuildNeeded::WayBack)
        );
        assert_eq!(
            build_needed(&node, &build(2).digest),
            Some(BuildNeeded::Runs)
        );
    }

    #[test]
    fn nothing_goes_between_two_releases_and_nothing_that_is_ordered() {
        let mut node = node(&[(1, true), (2, true), (3, true), (4, true)]);
        let next = Release::of_build(build(1));
        let running = node.phase.running();
        node.phase = Phase::Prepared { running, next };
        assert_eq!(
            build_needed(&node, &build(1).digest),
            Some(BuildNeeded::Moving)
        );
        assert!(gone(&node, 4, 0).is_empty());
        node.phase = Phase::Steady { running };
        assert_eq!(gone(&node, 4, 0), ["cbddc@1"]);
    }
}
