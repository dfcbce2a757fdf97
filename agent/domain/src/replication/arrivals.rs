//! How long events take to be everywhere: canaries that write nothing.
//!
//! An event that appears between two looks was written after the earlier one, so that the time from
//! there until it is everywhere is at least as long as it took. No node's clock is trusted for it.

use super::sights::Table;

/// Times of the events that were seen from their beginning.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Arrivals {
    /// When the nodes were looked at last, in milliseconds of the caller's clock.
    looked_ms: Option<u64>,
    /// Per event of the ledger: the look before it appeared; unset: unknown, or done.
    since_ms: Vec<Option<u64>>,
    took_ms: Vec<u64>,
}

impl Arrivals {
    pub(super) fn observe(&mut self, table: &Table<'_>, now_ms: u64, everybody: bool) {
        let known = self.since_ms.len();
        if table.ledger.events.len() > known {
            self.since_ms
                .resize(table.ledger.events.len(), self.looked_ms);
        }
        self.looked_ms = Some(now_ms);
        if !everybody {
            return;
        }
        for (since, event) in self.since_ms.iter_mut().zip(0..) {
            if let Some(began) = *since
                && table.has_arrived(event)
            {
                self.took_ms.push(now_ms.saturating_sub(began));
                *since = None;
            }
        }
    }

    /// Takes in the times of others.
    pub(super) fn merge(&mut self, others: &Self) {
        self.took_ms.extend(&others.took_ms);
    }

    /// How many events were followed until they were everywhere.
    pub fn count(&self) -> usize {
        self.took_ms.len()
    }

    /// The time within which so many percent of them were everywhere.
    pub fn percentile(&self, percent: usize) -> Option<u64> {
        let mut sorted = self.took_ms.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent.min(100)).div_ceil(100);
        sorted.get(rank.saturating_sub(1)).copied()
    }
}
