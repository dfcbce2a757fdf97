//! The clocks of this host; the only place of the agent that reads them.

use cbddc_domain::time::{BootId, Now};
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::path::Path;

/// Where Linux names the current boot.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";

/// The name of this boot could not be read, so no deadline could be trusted.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the id of this boot from {BOOT_ID_FILE}; is /proc mounted?")]
pub struct ClockError(#[source] io::Error);

/// Reads the three clocks of this host.
#[derive(Debug, Clone)]
pub struct SystemClock {
    boot: BootId,
}

impl SystemClock {
    /// Reads the id of this boot once; it cannot change while this process lives.
    pub fn new() -> Result<Self, ClockError> {
        Ok(Self {
            boot: read_boot_id(Path::new(BOOT_ID_FILE)).map_err(ClockError)?,
        })
    }

    /// The three clocks now.
    pub fn now(&self) -> Now {
        Now {
            boot: self.boot.clone(),
            since_boot_ms: since_boot_ms(),
            wall_ms: wall_ms(),
        }
    }
}

/// The id of the current boot.
pub(crate) fn current_boot_id() -> io::Result<BootId> {
    read_boot_id(Path::new(BOOT_ID_FILE))
}

/// Whether the host has started since this was last asked about this folder, which remembers the
/// boot.
pub fn is_first_since_boot(run_dir: &Path) -> io::Result<bool> {
    let BootId(boot) = current_boot_id()?;
    let marker = run_dir.join("boot");
    let before = std::fs::read_to_string(&marker).unwrap_or_default();
    if before.trim() == boot {
        return Ok(false);
    }
    std::fs::write(marker, boot)?;
    Ok(true)
}

/// Milliseconds since boot, suspended time included.
pub(crate) fn since_boot_ms() -> u64 {
    milliseconds(ClockId::Boottime).try_into().unwrap_or(0)
}

fn wall_ms() -> i64 {
    milliseconds(ClockId::Realtime)
}

fn milliseconds(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec
        .saturating_mul(1_000)
        .saturating_add(time.tv_nsec / 1_000_000)
}

fn read_boot_id(path: &Path) -> io::Result<BootId> {
    let text = std::fs::read_to_string(path)?;
    let id = text.trim();
    if id.is_empty() || id.len() > 64 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a boot id"));
    }
    Ok(BootId(id.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::SystemClock;

    #[test]
    fn two_readings_are_of_one_boot_and_in_order() {
        let clock = SystemClock::new().unwrap();
        let (first, second) = (clock.now(), clock.now());
        assert_eq!(first.boot, second.boot);
        assert!(first.since_boot_ms <= second.since_boot_ms);
        assert!(
            first.wall_ms > 1_600_000_000_000,
            "wall time is Unix time in milliseconds"
        );
    }
}
