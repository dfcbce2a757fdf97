//! Generations: a release as it was activated on one node, and the history to roll back along.

use crate::register::Epoch;
use crate::release::Release;
use serde::{Deserialize, Serialize};

/// Counts the activations on one node: 1, 2, 3 and so on.
pub type GenerationNumber = u64;

/// The most generations a node remembers; the oldest that nothing refers to go first.
pub const GENERATIONS_MAX: usize = 50;

/// A release as it was activated on one node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Its number.
    pub number: GenerationNumber,
    /// What it runs.
    pub release: Release,
    /// When its activation began, Unix time in milliseconds, for people.
    pub activated_wall_ms: i64,
    /// The epoch of the rollout or record that activated it.
    pub activated_by: Epoch,
    /// The epoch of the decided record that committed it; unset: it never was.
    pub committed: Option<Epoch>,
    /// The epoch of the forced record that orders it (rule 13), which never commits it.
    #[serde(default)]
    pub forced: Option<Epoch>,
    /// True once its bake time ended clean as well.
    pub known_good: bool,
    /// The snapshot of the database from before its activation.
    pub snapshot_before: Option<String>,
    /// True where the build declares that it changes the persistence format: going back from it
    /// restores that snapshot.
    pub changes_persistence: bool,
    /// Why the node went back from it, if it did.
    pub reverted: Option<String>,
}

impl Generation {
    /// The highest epoch that ordered it, by votes or by force: it is no longer on probation, no
    /// revert of such an epoch touches it, and a node may fall back to it.
    pub fn confirmed(&self) -> Option<Epoch> {
        self.committed.max(self.forced)
    }
}

/// What a node goes back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fallback {
    /// Nothing runs, as before the first release.
    Nothing,
    /// An earlier generation.
    Generation(GenerationNumber),
}

/// A node's generations, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    generations: Vec<Generation>,
    /// The number that the last generation got, kept when that generation is forgotten.
    last_number: GenerationNumber,
}

impl History {
    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Generation> {
        self.generations.iter()
    }

    /// The generation with this number, unless forgotten.
    pub fn get(&self, number: GenerationNumber) -> Option<&Generation> {
        self.generations
            .iter()
            .find(|generation| generation.number == number)
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, number: GenerationNumber) -> Option<&mut Generation> {
        self.generations
            .iter_mut()
            .find(|generation| generation.number == number)
    }

    /// Forgets a generation whose activation never touched the node, such as one whose build could
    /// not be fetched: it would push out what can be gone back to. Its number stays taken.
    pub fn forget(&mut self, number: GenerationNumber) {
        self.generations
            .retain(|generation| generation.number != number);
    }

    /// Adds a generation, forgets the oldest beyond [`GENERATIONS_MAX`] that `keep` does not name.
    pub fn add(
        &mut self,
        release: Release,
        activated_by: Epoch,
        wall_ms: i64,
        keep: &[GenerationNumber],
    ) -> GenerationNumber {
        self.last_number += 1;
        self.generations.push(Generation {
            number: self.last_number,
            release,
            activated_wall_ms: wall_ms,
            activated_by,
            committed: None,
            forced: None,
            known_good: false,
            snapshot_before: None,
            changes_persistence: false,
            reverted: None,
        });
        while self.generations.len() > GENERATIONS_MAX {
            let oldest = self.generations.iter().position(|generation| {
                !keep.contains(&generation.number) && generation.number != self.last_number
            });
            match oldest {
                Some(index) => drop(self.generations.remove(index)),
                None => break,
            }
        }
        self.last_number
    }
}
