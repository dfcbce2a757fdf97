//! Which snapshots and builds may go.

mod builds;

pub use builds::{BuildNeeded, BuildStays, build_needed, surplus_builds};

use crate::node::Node;

/// The beginning of the names of snapshots that are taken before activations. Only these go by
/// themselves: what a person took, and what a restore replaced, a person removes.
pub const AUTOMATIC_PREFIX: &str = "before-g";

/// The automatic snapshots that may go, given all of them oldest first: those beyond the newest
/// `kept`, except those that a way back may still need.
pub fn surplus_snapshots(node: &Node, oldest_first: &[String], kept: usize) -> Vec<String> {
    let automatic: Vec<&String> = oldest_first
        .iter()
        .filter(|id| id.starts_with(AUTOMATIC_PREFIX))
        .collect();
    let surplus = automatic.len().saturating_sub(kept);
    let needed = needed(node);
    let may_go = automatic
        .into_iter()
        .take(surplus)
        .filter(|id| !needed.contains(id));
    may_go.cloned().collect()
}

/// Snapshots from before the running generation, and from before everything after the newest
/// known-good one that does not run; and what is owed.
fn needed(node: &Node) -> Vec<&String> {
    let running = node.phase.running();
    let fallback = node
        .history
        .iter()
        .rev()
        .find(|generation| generation.known_good && Some(generation.number) != running);
    let since = fallback.map_or(0, |generation| generation.number);
    let after = node
        .history
        .iter()
        .filter(|generation| generation.number > since || Some(generation.number) == running);
    after
        .filter_map(|generation| generation.snapshot_before.as_ref())
        .chain(&node.owed)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::surplus_snapshots;
    use crate::build::{BuildRef, Digest};
    use crate::node::Node;
    use crate::phase::Phase;
    use crate::register::Epoch;
    use crate::release::Release;

    /// A node that runs the last of `generations`; each says whether it is known-good.
    fn node(generations: &[bool]) -> Node {
        let mut node = Node::default();
        for known_good in generations {
            let build = BuildRef {
                id: "cbddc@1".parse().expect("a name"),
                digest: Digest::of(b"1"),
            };
            let number = node
                .history
                .add(Release::of_build(build), Epoch::default(), 0, &[]);
            let generation = node.history.get_mut(number).expect("it was just added");
            generation.known_good = *known_good;
            generation.snapshot_before = Some(format!("before-g{number}"));
            node.phase = Phase::Steady {
                running: Some(number),
            };
        }
        node
    }

    fn check(generations: &[bool], owed: &[&str], more: &[&str], kept: usize, expected: &[&str]) {
        let mut node = node(generations);
        node.owed = owed.iter().map(ToString::to_string).collect();
        let automatic = (1..=generations.len()).map(|number| format!("before-g{number}"));
        let all: Vec<String> = more
            .iter()
            .map(ToString::to_string)
            .chain(automatic)
            .collect();
        assert_eq!(surplus_snapshots(&node, &all, kept), expected);
    }

    #[test]
    fn the_oldest_go_unless_they_are_needed() {
        check(&[true, true, true, true], &[], &[], 4, &[]);
        check(
            &[true, true, true, true],
            &[],
            &[],
            2,
            &["before-g1", "before-g2"],
        );
        check(
            &[true, true, true, true],
            &["before-g1"],
            &[],
            2,
            &["before-g2"],
        );
        // The way back from 4 leads to 1: everything since is needed.
        check(&[true, false, false, true], &[], &[], 0, &["before-g1"]);
        // What a person took, or a restore replaced, stays.
        check(
            &[true, true, true],
            &[],
            &["by-hand-1", "replaced-g2"],
            0,
            &["before-g1", "before-g2"],
        );
    }

    /// A way back that had to pass by a revoked release may have led below a known-good one.
    #[test]
    fn what_the_running_generation_needs_stays_below_a_known_good_one() {
        let mut node = node(&[true, true, true]);
        node.phase = Phase::Steady { running: Some(2) };
        let all = [1, 2, 3].map(|number| format!("before-g{number}"));
        assert_eq!(
            surplus_snapshots(&node, &all, 0),
            ["before-g1", "before-g3"]
        );
    }
}
