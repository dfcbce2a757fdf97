//! Flapping: a check whose results change all the time. It is told by the share of changes among the
//! last results, and ends later than it began, so that it does not flap itself.

use super::Status;

/// How many of the newest results are looked at.
pub(super) const WINDOW: usize = 20;

/// Changes among them from which a check flaps: two in five.
const BEGINS_AT: usize = 8;

/// Changes among them down to which it goes on: one in five.
const ENDS_AT: usize = 4;

/// How often the status changed from one result to the next.
pub(super) fn changes(recent: &[Status]) -> usize {
    recent.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

/// Whether a check flaps, given whether it did before the newest result.
pub(super) fn flaps(before: bool, recent: &[Status]) -> bool {
    let changes = changes(recent);
    if before {
        changes > ENDS_AT
    } else {
        changes >= BEGINS_AT
    }
}
