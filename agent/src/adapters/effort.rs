//! What processes have done so far, from `/proc/PID/stat` and `/proc/PID/io`.

use cbddc_domain::readiness::Effort;
use std::fs::File;
use std::io::Read as _;

/// Linux tells processor time in hundredths of a second on every architecture that .NET runs on
/// (`USER_HZ`).
const MS_PER_TICK: u64 = 10;

/// More than either file ever takes.
const BYTES_MAX: u64 = 4_096;

/// The sum over these processes; `None` where not one can be read. Reads that the agent may not see, as
/// of another user's process, count as none: its processor time is for all to see.
pub(super) fn of_processes(pids: &[u32]) -> Option<Effort> {
    let each = pids.iter().filter_map(|pid| of_process(*pid));
    each.reduce(|sum, one| Effort {
        processor_ms: sum.processor_ms.saturating_add(one.processor_ms),
        read_bytes: sum.read_bytes.saturating_add(one.read_bytes),
    })
}

fn of_process(pid: u32) -> Option<Effort> {
    Some(Effort {
        processor_ms: processor_ms(&read(pid, "stat")?)?,
        read_bytes: read(pid, "io").and_then(|io| read_bytes(&io)).unwrap_or(0),
    })
}

fn read(pid: u32, name: &str) -> Option<String> {
    let mut text = Vec::new();
    let file = File::open(format!("/proc/{pid}/{name}")).ok()?;
    file.take(BYTES_MAX).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

/// Fields 14 and 15, in user and kernel mode (`man 5 proc_pid_stat`); the name may hold brackets.
fn processor_ms(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let kernel: u64 = fields.next()?.parse().ok()?;
    Some(user.saturating_add(kernel).saturating_mul(MS_PER_TICK))
}

/// What was read, also from the page cache: a log that was just written lies there.
fn read_bytes(io: &str) -> Option<u64> {
    let line = io.lines().find_map(|line| line.strip_prefix("rchar:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{of_processes, processor_ms, read_bytes};

    #[test]
    fn the_files_are_read() {
        let stat = "7 (a) R 1 (b) S 1 70 71 0 -1 0 0 0 0 0 12 34 0 0 20 0 1 0 103098 4 0";
        assert_eq!(processor_ms(stat), Some(460));
        assert_eq!(processor_ms("7 (a) S 1"), None);
        assert_eq!(read_bytes("rchar: 4096\nwchar: 1\n"), Some(4_096));
        assert_eq!(read_bytes(""), None);
        assert!(of_processes(&[std::process::id()]).is_some());
        assert_eq!(of_processes(&[]), None);
    }
}
