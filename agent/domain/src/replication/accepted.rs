//! What was wrong with replication before a rollout began, where a person takes that as it is: from
//! then on only what is new counts.
//!
//! What goes on is told from what is new by how often it is found, not by its kind: a mesh on which
//! three events are missed in a minute may miss six in the next one, and a build that misses more is
//! found.

use super::FindingKind;
use super::words::list;
use crate::id::NodeName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How many findings are remembered at most.
pub const ACCEPTED_MAX: usize = 1_000;

/// How many sentences a journal's line repeats.
const TOLD_MAX: usize = 5;

/// How many bytes of a sentence are remembered at most.
pub const ACCEPTED_TEXT_MAX: usize = 400;

/// What was found before anything changed, and why it is taken as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Why, in the words of whoever took it as it is.
    pub reason: String,
    /// Over how long it was found, in milliseconds.
    pub window_ms: u64,
    /// What.
    pub found: Vec<Known>,
    /// Nodes that lacked events or lagged: nothing is proven of them.
    pub late: BTreeSet<NodeName>,
}

/// What was found on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The cluster; empty where it has no name.
    pub cluster: String,
    /// The node to look at.
    pub node: NodeName,
    /// What.
    pub kind: FindingKind,
    /// How often.
    pub count: u64,
    /// A sentence.
    pub text: String,
}

impl Accepted {
    /// For journals: who took what as it is, and why.
    pub fn words(&self, person: &str) -> String {
        let told: Vec<&str> = self.found.iter().map(|known| known.text.as_str()).collect();
        let mut what = told[..told.len().min(TOLD_MAX)].to_vec();
        let rest = told.len() - what.len();
        let more = format!("and {rest} more");
        if rest > 0 {
            what.push(&more);
        }
        let late: Vec<&str> = self.late.iter().map(NodeName::as_str).collect();
        if !late.is_empty() {
            let late = format!("nothing is proven of {}, which lacked events", list(&late));
            return match what.is_empty() {
                true => format!(
                    "{person} took replication as it was ({}): {late}",
                    self.reason
                ),
                false => format!(
                    "{person} took replication as it was ({}): {}; {late}",
                    self.reason,
                    what.join("; ")
                ),
            };
        }
        let what = what.join("; ");
        format!(
            "{person} took replication as it was ({}): {what}",
            self.reason
        )
    }

    /// What of it is about one cluster.
    pub fn of_cluster(&self, name: &str) -> Self {
        let mut part = self.clone();
        part.found.retain(|known| known.cluster == name);
        part
    }

    /// How many findings of a kind on a node are no more than before, after so long.
    pub fn allows(&self, kind: FindingKind, node: &NodeName, elapsed_ms: u64) -> u64 {
        if kind == FindingKind::Stalled && self.late.contains(node) {
            return u64::MAX;
        }
        let same = self.found.iter();
        let same = same.filter(|known| known.kind == kind && known.node == *node);
        as_before(
            same.map(|known| known.count).sum(),
            self.window_ms,
            elapsed_ms,
        )
    }

    /// Whether nothing is proven of the node, because it lacked events before.
    pub fn excuses(&self, node: &NodeName) -> bool {
        self.late.contains(node)
    }
}

/// How many are no more than `before`, which were found in `window_ms`: as many at any time, and twice
/// their rate.
pub(super) fn as_before(before: u64, window_ms: u64, elapsed_ms: u64) -> u64 {
    let at_rate = before.saturating_mul(2).saturating_mul(elapsed_ms);
    before.max(at_rate / window_ms.max(1))
}

#[cfg(test)]
mod tests {
    use super::{Accepted, Known};
    use crate::id::NodeName;
    use crate::replication::FindingKind::{Duplicate, Missed, Stalled};

    #[test]
    fn as_many_as_before_are_allowed_and_twice_their_rate() {
        let name = |text: &str| text.parse::<NodeName>().unwrap();
        let known = |cluster: &str, kind| Known {
            cluster: cluster.into(),
            node: name("n1"),
            kind,
            count: 3,
            text: String::new(),
        };
        let accepted = Accepted {
            reason: "it drifts".into(),
            window_ms: 60_000,
            found: vec![known("", Missed), known("west", Duplicate)],
            late: [name("n2")].into(),
        };
        let allows = |kind, node: &str, ms| accepted.allows(kind, &name(node), ms);
        assert_eq!(allows(Missed, "n1", 0), 3);
        assert_eq!(allows(Missed, "n1", 60_000), 6);
        assert_eq!(allows(Missed, "n1", 600_000), 60);
        assert_eq!(allows(Missed, "n2", 600_000), 0);
        assert_eq!(allows(Stalled, "n1", 600_000), 0);
        assert_eq!(allows(Stalled, "n2", 0), u64::MAX);
        let west = accepted.of_cluster("west");
        assert_eq!(west.allows(Missed, &name("n1"), 0), 0);
        assert_eq!(west.allows(Duplicate, &name("n1"), 0), 3);
    }
}
