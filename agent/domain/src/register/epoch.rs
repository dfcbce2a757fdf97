//! The order of proposals.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The order of proposals: a counter, then the nonce of the client that drew it (rule 1).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Epoch {
    /// Counts up; the next proposer takes the highest it heard of plus one.
    pub counter: u64,
    /// Drawn at random by the proposer.
    pub nonce: u64,
}

impl Epoch {
    /// The epoch of a new proposer that has heard of `self` at most.
    pub fn next(self, nonce: u64) -> Self {
        Self {
            counter: self.counter.saturating_add(1),
            nonce,
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}-{:016x}", self.counter, self.nonce))
    }
}

impl FromStr for Epoch {
    type Err = crate::id::InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            crate::id::InvalidName::new(
                "epoch",
                text,
                "COUNTER-NONCE, as `cbctl rollout list` shows it",
            )
        };
        let (counter, nonce) = text.split_once('-').ok_or_else(wrong)?;
        Ok(Self {
            counter: counter.parse().map_err(|_| wrong())?,
            nonce: u64::from_str_radix(nonce, 16).map_err(|_| wrong())?,
        })
    }
}
