//! The starts of an agent, by which its peers notice that its memory is older than they are (rule 16).
//!
//! Each start has a number and a nonce. A peer remembers the newest start that it was told; an agent
//! whose state database was put back to an older copy counts on from there, and finds its peers
//! remembering a start that it does not know.

use crate::id::NodeName;
use crate::register::Epoch;
use crate::time::Deadline;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How many of its starts an agent remembers and tells.
pub const STARTS_MAX: usize = 64;

/// One start of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Start {
    /// Counts up by one with each start.
    pub number: u64,
    /// Drawn at random at that start.
    pub nonce: u64,
}

/// What a memory of a start says of the one who tells its starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recall {
    /// The remembered start is the newest one.
    Same,
    /// The remembered start is an earlier one, or none is remembered.
    Newer,
    /// The remembered start is none of those told: memory was lost since.
    Mismatch,
}

/// Compares what is remembered of an agent with the starts that it tells, oldest first.
pub fn recall(remembered: Option<Start>, told: &[Start]) -> Recall {
    let (Some(remembered), Some(newest)) = (remembered, told.last()) else {
        return Recall::Newer;
    };
    if remembered == *newest {
        return Recall::Same;
    }
    // A list that does not begin with the first start has let go of older ones: it was full, or what
    // an agent had lost before has been recovered.
    let earlier = remembered.number < told[0].number;
    if earlier || told.contains(&remembered) {
        Recall::Newer
    } else {
        Recall::Mismatch
    }
}

/// What an agent knows of its own starts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Starts {
    /// The last [`STARTS_MAX`], oldest first.
    pub known: Vec<Start>,
    /// Whether its memory can be trusted.
    pub memory: Memory,
}

/// Whether an agent may speak for what it did before it started.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Memory {
    /// A majority of the voters confirmed that nothing was lost.
    #[default]
    Sound,
    /// It has started, and these have told what they remember of it.
    Unproven {
        /// Who.
        told: BTreeSet<NodeName>,
    },
    /// An old state came back. It does not vote, promise or answer "no" until it has copied from the
    /// others what it may have forgotten.
    Lost(Recovery),
}

/// How far an agent is that lost its memory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Recovery {
    /// The fresh epoch that it asks the others to promise; unset: it has not asked yet.
    pub epoch: Option<Epoch>,
    /// Who has promised it, and has told what it knows after that.
    pub granted: BTreeSet<NodeName>,
    /// What somebody had promised instead, beyond `epoch`: the next question is for a fresh one.
    #[serde(default)]
    pub outrun: Option<Epoch>,
    /// How often it has asked for `epoch`.
    #[serde(default)]
    pub asked: u32,
    /// When to ask again at the earliest, where somebody who has not promised is heard of.
    #[serde(default)]
    pub soon: Option<Deadline>,
    /// When to ask again in any case; unset with `epoch`.
    pub until: Option<Deadline>,
}

impl Starts {
    /// Begins another start.
    pub(crate) fn begin(&mut self, nonce: u64) {
        let number = self.known.last().map_or(0, |start| start.number) + 1;
        self.push(Start { number, nonce });
        // What was lost stays lost over a restart.
        self.memory = match &self.memory {
            Memory::Sound | Memory::Unproven { .. } => Memory::Unproven {
                told: BTreeSet::new(),
            },
            Memory::Lost(_) => Memory::Lost(Recovery::default()),
        };
    }

    /// Takes over a start that a peer remembers and that this memory has lost: the next one counts
    /// on from it, and the peer finds it among those told.
    pub(crate) fn take_over(&mut self, lost: Start) {
        let Some(newest) = self.known.last().copied() else {
            return self.push(lost);
        };
        if self.known.contains(&lost) {
            return;
        }
        // The newest stays known under its old number as well: some peer may have been told it.
        self.known.insert(self.known.len() - 1, lost);
        let number = newest.number.max(lost.number.saturating_add(1));
        self.push(Start { number, ..newest });
    }

    /// What was lost is recovered: nothing before the newest start matters any more.
    pub(crate) fn recovered(&mut self) {
        let newest = self.known.pop();
        self.known = newest.into_iter().collect();
        self.memory = Memory::Sound;
    }

    fn push(&mut self, start: Start) {
        self.known.push(start);
        let surplus = self.known.len().saturating_sub(STARTS_MAX);
        self.known.drain(..surplus);
    }

    /// Whether it may vote, promise and answer "no".
    pub fn is_sound(&self) -> bool {
        matches!(self.memory, Memory::Sound)
    }
}

#[cfg(test)]
mod tests {
    use super::{Memory, Recall, STARTS_MAX, Start, Starts, recall};

    fn started(nonces: &[u64]) -> Starts {
        let mut starts = Starts::default();
        nonces.iter().for_each(|nonce| starts.begin(*nonce));
        starts
    }

    fn start(number: u64, nonce: u64) -> Start {
        Start { number, nonce }
    }

    #[test]
    fn a_memory_that_came_back_from_earlier_is_noticed() {
        let told = started(&[7, 8, 9]).known;
        assert_eq!(recall(None, &told), Recall::Newer);
        assert_eq!(recall(Some(start(3, 9)), &told), Recall::Same);
        assert_eq!(recall(Some(start(1, 7)), &told), Recall::Newer);
        // A later start, and one of the same number that was another.
        for lost in [start(4, 1), start(3, 8), start(2, 9)] {
            assert_eq!(recall(Some(lost), &told), Recall::Mismatch, "{lost:?}");
        }
        assert_eq!(recall(Some(start(1, 7)), &[]), Recall::Newer);
    }

    #[test]
    fn only_so_many_starts_are_kept() {
        let nonces: Vec<u64> = (1..=100).collect();
        let told = started(&nonces).known;
        assert_eq!((told.len(), told[0].number), (STARTS_MAX, 37));
        assert_eq!(recall(Some(start(36, 36)), &told), Recall::Newer);
        assert_eq!(recall(Some(start(37, 36)), &told), Recall::Mismatch);
        assert_eq!(recall(Some(start(101, 1)), &told), Recall::Mismatch);
    }

    #[test]
    fn a_lost_start_is_taken_over_once() {
        let mut starts = started(&[7, 8]);
        starts.take_over(start(9, 5));
        starts.take_over(start(9, 5));
        let known = [start(1, 7), start(9, 5), start(2, 8), start(10, 8)];
        assert_eq!(starts.known, known);
        for held in [start(9, 5), start(2, 8)] {
            assert_eq!(recall(Some(held), &starts.known), Recall::Newer);
        }
        assert!(matches!(starts.memory, Memory::Unproven { .. }));
        // A peer whose own memory is old may remember a start that nobody told of.
        assert_eq!(recall(Some(start(1, 3)), &starts.known), Recall::Mismatch);
        starts.recovered();
        assert_eq!(recall(Some(start(1, 3)), &starts.known), Recall::Newer);
        assert_eq!(recall(Some(start(11, 3)), &starts.known), Recall::Mismatch);
    }
}
