//! The clocks of this host; the only place of the agent that reads them.

use cbddc_domain::time::{BootId, Now};
use rustix::time::{ClockId, clock_gettime};
use rustls_pki_types::UnixTime;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

    /// The clocks of a boot that has this name.
    pub fn of(boot: BootId) -> Self {
        Self { boot }
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

/// This host's idea of time, for certificates: its clock, or the last time that it wrote down while
/// the clock was right, whichever is later. Where the clock battery died, time stands still there, or
/// at the beginning of the own certificate: what is over by then is over, and peers tell whether the
/// own certificate is.
#[derive(Debug, Clone, Default)]
pub struct TrustedTime {
    floor_s: Arc<AtomicI64>,
}

impl TrustedTime {
    /// Unix seconds.
    pub fn now_s(&self) -> i64 {
        (wall_ms() / 1000).max(self.floor_s.load(Ordering::Relaxed))
    }

    /// It is at least this late, in Unix seconds.
    pub fn at_least(&self, floor_s: i64) {
        self.floor_s.fetch_max(floor_s, Ordering::Relaxed);
    }
}

impl rustls::time_provider::TimeProvider for TrustedTime {
    fn current_time(&self) -> Option<UnixTime> {
        let seconds = u64::try_from(self.now_s()).unwrap_or(0);
        Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
    }
}

/// The id of the current boot.
pub(crate) fn current_boot_id() -> io::Result<BootId> {
    read_boot_id(Path::new(BOOT_ID_FILE))
}

/// The file in the run folder that names the boot.
const BOOT_FILE: &str = "boot";

/// The boot that the run folder was last used in, as agent and gate agree on it; nothing: the agent
/// has not come up in this boot yet.
///
/// A folder in memory is emptied by a boot, so there the file itself is the boot's name. The kernel's
/// name would not do: inside a container, a service that is shielded from `/proc/sys` sees the host's.
pub fn boot_of(run_dir: &Path) -> io::Result<Option<BootId>> {
    if !is_in_memory(run_dir)? {
        return current_boot_id().map(Some);
    }
    match std::fs::read_to_string(run_dir.join(BOOT_FILE)) {
        Ok(name) => Ok(Some(BootId(name.trim().to_owned())).filter(|boot| !boot.0.is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The same for the agent, which names a boot that has no name yet; and whether the host has started
/// since an agent last used this folder.
pub fn begin_boot(run_dir: &Path) -> io::Result<(BootId, bool)> {
    let path = run_dir.join(BOOT_FILE);
    if is_in_memory(run_dir)? {
        if let Some(boot) = boot_of(run_dir)? {
            return Ok((boot, false));
        }
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let name: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(path, &name)?;
        return Ok((BootId(name), true));
    }
    let boot = current_boot_id()?;
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    if before.trim() == boot.0 {
        return Ok((boot, false));
    }
    std::fs::write(path, &boot.0)?;
    Ok((boot, true))
}

fn is_in_memory(folder: &Path) -> io::Result<bool> {
    // `TMPFS_MAGIC` of `linux/magic.h`; the field's type differs from machine to machine.
    Ok(rustix::fs::statfs(folder)?.f_type == 0x0102_1994)
}

/// A number for this start of the agent, in milliseconds: later than that of its last start, as far
/// as this host's time can be trusted.
pub fn start_number(time: &TrustedTime) -> u64 {
    let floor_ms = time.now_s().saturating_mul(1000);
    u64::try_from(wall_ms().max(floor_ms)).unwrap_or(0)
}

/// A random number that tells one start of the agent from another. Where the system gives none, the
/// clocks do: it has to differ from start to start, not to be secret.
pub fn nonce() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => wall_ms().unsigned_abs() ^ (since_boot_ms() << 20) ^ u64::from(own_pid()),
    }
}

/// The process id of this agent.
pub(crate) fn own_pid() -> u32 {
    std::process::id()
}

/// Milliseconds since boot, suspended time included.
pub(crate) fn since_boot_ms() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let ms = time
        .tv_sec
        .saturating_mul(1_000)
        .saturating_add(time.tv_nsec / 1_000_000);
    ms.try_into().unwrap_or(0)
}

/// Unix time in milliseconds; zero before 1970. Asked of the C library, where tests can give one
/// program another time than the rest of the machine.
#[expect(
    clippy::disallowed_methods,
    reason = "the only place of the agent that reads the clock"
)]
fn wall_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    since_epoch.map_or(0, |passed| {
        passed.as_millis().try_into().unwrap_or(i64::MAX)
    })
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
