//! Time as it arrives in the domain: always a value, never read here.

use serde::{Deserialize, Serialize};
use std::fmt;

/// One boot of one host, as `/proc/sys/kernel/random/boot_id` names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BootId(pub String);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The three clocks of a host at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Now {
    /// The boot that `since_boot_ms` counts in.
    pub boot: BootId,
    /// Milliseconds since that boot, suspended time included; never steps back within one boot.
    pub since_boot_ms: u64,
    /// Unix time in milliseconds; may be wrong and may jump. For people and journals only.
    pub wall_ms: i64,
}

impl Now {
    /// The moment `after_ms` milliseconds from now, valid within this boot only.
    pub fn deadline(&self, after_ms: u64) -> Deadline {
        Deadline {
            boot: self.boot.clone(),
            at_ms: self.since_boot_ms.saturating_add(after_ms),
        }
    }
}

/// A moment in one boot. In any other boot it has passed, whatever the wall clock says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// The boot in which the deadline was set.
    pub boot: BootId,
    /// Milliseconds since that boot.
    pub at_ms: u64,
}

impl Deadline {
    /// True when the deadline is over, or was set in another boot.
    pub fn passed(&self, now: &Now) -> bool {
        self.boot != now.boot || now.since_boot_ms >= self.at_ms
    }

    /// Milliseconds left; zero once it has passed.
    pub fn left_ms(&self, now: &Now) -> u64 {
        if self.passed(now) {
            0
        } else {
            self.at_ms - now.since_boot_ms
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BootId, Now};

    #[test]
    fn a_deadline_of_another_boot_has_passed() {
        let now = Now {
            boot: BootId("a".into()),
            since_boot_ms: 1_000,
            wall_ms: 0,
        };
        let deadline = now.deadline(500);
        assert_eq!(deadline.left_ms(&now), 500);
        assert!(deadline.passed(&Now {
            since_boot_ms: 1_500,
            ..now.clone()
        }));
        assert!(deadline.passed(&Now {
            boot: BootId("b".into()),
            since_boot_ms: 10,
            ..now
        }));
    }
}
