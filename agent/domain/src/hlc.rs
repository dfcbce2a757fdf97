//! Hybrid logical clock values as CBDDC nodes order them.
//!
//! Only the value and its order are here. Reading a clock, and advancing one, is for nodes.

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

/// The moment of one event: wall time, a counter within it, and the node that wrote it.
///
/// Ordered by wall, then logic, then node. Nodes compare as .NET *ordinal* strings do, by UTF-16
/// unit (`HlcTimestamp.cs`), which differs from the order of Rust strings for characters outside
/// the basic plane.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Hlc {
    /// Unix time in milliseconds, as the writing node saw it.
    pub wall: i64,
    /// Counter among events of the same millisecond.
    pub logic: i32,
    /// The node that wrote the event: its origin.
    pub node: String,
}

impl Hlc {
    /// The moment `wall:logic:node`.
    pub fn new(wall: i64, logic: i32, node: impl Into<String>) -> Self {
        Self {
            wall,
            logic,
            node: node.into(),
        }
    }

    /// Wall and logic without the node, which is how vector clocks and pulls compare moments.
    pub fn moment(&self) -> (i64, i32) {
        (self.wall, self.logic)
    }
}

impl Ord for Hlc {
    fn cmp(&self, other: &Self) -> Ordering {
        self.moment()
            .cmp(&other.moment())
            .then_with(|| self.node.encode_utf16().cmp(other.node.encode_utf16()))
    }
}

impl PartialOrd for Hlc {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.wall, self.logic, self.node)
    }
}

/// What one node has seen: for each origin, the latest (wall, logic).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VectorClock(pub BTreeMap<String, (i64, i32)>);

impl VectorClock {
    /// The latest moment seen of `origin`, if any was.
    pub fn get(&self, origin: &str) -> Option<(i64, i32)> {
        self.0.get(origin).copied()
    }

    /// Takes note of an event; never moves back.
    pub fn observe(&mut self, hlc: &Hlc) {
        self.advance(&hlc.node, hlc.moment());
    }

    /// Takes note of a moment of `origin`; never moves back.
    pub fn advance(&mut self, origin: &str, moment: (i64, i32)) {
        match self.0.get_mut(origin) {
            Some(seen) => *seen = (*seen).max(moment),
            None => {
                self.0.insert(origin.to_owned(), moment);
            }
        }
    }

    /// Takes over, per origin, what is later in `other`.
    pub fn merge(&mut self, other: &Self) {
        for (origin, moment) in &other.0 {
            self.advance(origin, *moment);
        }
    }

    /// True when this clock has seen the event, or a later one of the same origin.
    pub fn has_seen(&self, hlc: &Hlc) -> bool {
        self.get(&hlc.node).is_some_and(|seen| seen >= hlc.moment())
    }

    /// The origins of which `other` has seen more, in name order.
    pub fn behind<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a str> {
        let behind = |(origin, moment): (&'a String, &(i64, i32))| {
            (self.get(origin) < Some(*moment)).then_some(origin.as_str())
        };
        other.0.iter().filter_map(behind)
    }

    /// The latest event that this clock has seen, in the order of [`Hlc`].
    pub fn latest(&self) -> Option<Hlc> {
        self.0
            .iter()
            .map(|(node, (wall, logic))| Hlc::new(*wall, *logic, node.as_str()))
            .max()
    }
}

#[cfg(test)]
mod tests {
    use super::{Hlc, VectorClock};

    #[test]
    fn nodes_compare_by_utf16_unit() {
        let private_use = Hlc::new(1, 0, "\u{e000}");
        let astral = Hlc::new(1, 0, "\u{1f600}");
        assert!(private_use > astral);
        assert!(
            private_use.node < astral.node,
            "the order of Rust strings is the other way round"
        );
    }

    #[test]
    fn a_vector_clock_only_moves_forward() {
        let mut clock = VectorClock::default();
        clock.observe(&Hlc::new(5, 1, "a"));
        clock.observe(&Hlc::new(4, 9, "a"));
        assert_eq!(clock.get("a"), Some((5, 1)));
        assert!(clock.has_seen(&Hlc::new(5, 1, "a")));
        assert!(!clock.has_seen(&Hlc::new(5, 2, "a")));
        assert!(!clock.has_seen(&Hlc::new(1, 0, "b")));
    }

    #[test]
    fn behind_names_the_origins_that_lag_or_are_unknown() {
        let mut here = VectorClock::default();
        let mut there = VectorClock::default();
        here.advance("a", (5, 0));
        there.advance("a", (4, 0));
        there.advance("b", (1, 0));
        assert_eq!(here.behind(&there).collect::<Vec<_>>(), ["b"]);
        here.merge(&there);
        assert_eq!(here.behind(&there).count(), 0);
        assert_eq!(here.latest(), Some(Hlc::new(5, 0, "a")));
    }
}
