//! Where a rollback goes: the newest unrevoked release that was committed and baked clean on a
//! majority of the nodes that go back.

use crate::id::NodeName;
use crate::register::{Epoch, is_majority};
use crate::release::Release;
use std::collections::{BTreeMap, BTreeSet};

/// What one node knows of one release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Which release.
    pub release: Release,
    /// The highest epoch that committed it there; unset: none.
    pub committed: Option<Epoch>,
    /// Whether it baked clean there.
    pub known_good: bool,
}

/// Why there is nowhere to go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoTarget {
    /// No other release qualifies.
    #[error(
        "no earlier release was committed and baked clean on a majority of the nodes, and is not revoked"
    )]
    None,
}

/// Chooses among what the nodes know, leaving out what is being left and what is revoked.
///
/// Where the nodes run different releases (`leaving` names several), those that are not the newest
/// may be kept: the others go back to what they run.
pub fn choose_target(
    known: &BTreeMap<NodeName, Vec<Known>>,
    nodes: usize,
    leaving: &BTreeSet<Release>,
    revoked: impl Fn(&Release) -> bool,
) -> Result<Release, NoTarget> {
    let mut candidates: BTreeMap<&Release, (Epoch, usize)> = BTreeMap::new();
    // A release is as old as the first commit that some node still tells: to go back to one commits it
    // anew.
    let mut first: BTreeMap<&Release, Epoch> = BTreeMap::new();
    for one in known.values().flatten() {
        if let Some(committed) = one.committed {
            let first = first.entry(&one.release).or_insert(committed);
            *first = committed.min(*first);
        }
        if let Some(committed) = one.committed.filter(|_| one.known_good) {
            let (newest, count) = candidates.entry(&one.release).or_default();
            *newest = committed.max(*newest);
            *count += 1;
        }
    }
    // One that no node tells of is as new as can be.
    let is_newer = |release: &Release, than: &Release| match (first.get(release), first.get(than)) {
        (Some(release), Some(than)) => release > than,
        (None, Some(_)) => true,
        (_, None) => false,
    };
    let stays = |release: &Release| {
        !leaving.contains(release) || leaving.iter().any(|left| is_newer(left, release))
    };
    let usable = candidates.into_iter().filter(|(release, (_, count))| {
        is_majority(*count, nodes) && stays(release) && !revoked(release)
    });
    let newest = usable.max_by_key(|(_, (committed, _))| *committed);
    newest
        .map(|(release, _)| release.clone())
        .ok_or(NoTarget::None)
}

#[cfg(test)]
mod tests {
    use super::{Known, NoTarget, choose_target};
    use crate::build::{BuildRef, Digest};
    use crate::register::Epoch;
    use crate::release::Release;
    use std::collections::BTreeSet;

    fn release(version: u8) -> Release {
        let id = format!("cbddc@{version}").parse().expect("a name");
        Release::of_build(BuildRef {
            id,
            digest: Digest::of(&[version]),
        })
    }

    /// Per node: (version, epoch that committed it or 0, known-good).
    fn check(nodes: &[&[(u8, u64, bool)]], leaving: u8, revoked: &[u8], expected: Option<u8>) {
        check_mixed(nodes, &[leaving], revoked, expected);
    }

    fn check_mixed(
        nodes: &[&[(u8, u64, bool)]],
        leaving: &[u8],
        revoked: &[u8],
        expected: Option<u8>,
    ) {
        let known = nodes.iter().enumerate().map(|(number, releases)| {
            let releases = releases.iter().map(|(version, counter, known_good)| Known {
                release: release(*version),
                committed: (*counter > 0).then_some(Epoch {
                    counter: *counter,
                    nonce: 0,
                }),
                known_good: *known_good,
            });
            (
                format!("n{number}").parse().expect("a name"),
                releases.collect(),
            )
        });
        let is_revoked =
            |given: &Release| revoked.iter().any(|version| release(*version) == *given);
        let leaving: BTreeSet<_> = leaving.iter().map(|version| release(*version)).collect();
        let target = choose_target(&known.collect(), nodes.len(), &leaving, is_revoked);
        assert_eq!(target, expected.map(release).ok_or(NoTarget::None));
    }

    #[test]
    fn the_newest_that_qualifies() {
        let usual: &[(u8, u64, bool)] = &[(1, 1, true), (2, 2, true), (3, 3, true)];
        check(&[usual, usual, usual], 3, &[], Some(2));
        check(&[usual, usual, usual], 3, &[2], Some(1));
        check(&[usual, usual, usual], 3, &[1, 2], None);
        check(&[&[(1, 1, true), (2, 0, false)]], 2, &[], Some(1));
        check(
            &[&[(1, 1, true), (2, 2, false), (3, 3, true)]],
            3,
            &[],
            Some(1),
        );
        check(&[usual, &[(1, 1, true)], &[(1, 1, true)]], 3, &[], Some(1));
        check(&[], 3, &[], None);
    }

    #[test]
    fn where_some_nodes_are_ahead_they_go_back_to_what_the_others_run() {
        let others: &[(u8, u64, bool)] = &[(1, 1, true), (2, 2, true)];
        let ahead: &[(u8, u64, bool)] = &[(1, 1, true), (2, 2, true), (3, 3, false)];
        check_mixed(&[ahead, others, others], &[2, 3], &[], Some(2));
        check_mixed(&[ahead, others, others], &[2, 3], &[2], Some(1));
        check_mixed(&[ahead, ahead, others], &[2, 3], &[], Some(2));
        // What the others run is not known-good on a majority.
        let young: &[(u8, u64, bool)] = &[(1, 1, true), (2, 2, false)];
        check_mixed(&[ahead, young, young], &[2, 3], &[], Some(1));
        // The node that is ahead cannot be asked.
        check_mixed(&[others, others, &[]], &[2, 3], &[], Some(2));
        check_mixed(&[others, others, others], &[2], &[], Some(1));
        // One node went back alone, later than all that: it is not the one that is ahead.
        let back: &[(u8, u64, bool)] = &[(1, 4, true), (2, 2, true)];
        check_mixed(&[back, others, others], &[1, 2], &[], Some(1));
        let further: &[(u8, u64, bool)] = &[(1, 5, true), (2, 2, true), (3, 3, true)];
        let newest: &[(u8, u64, bool)] = &[(1, 1, true), (2, 2, true), (3, 3, true)];
        check_mixed(&[further, newest, newest], &[1, 3], &[], Some(1));
    }
}
