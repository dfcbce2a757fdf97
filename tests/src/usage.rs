//! What processes cost, as the kernel counts it.

#![expect(clippy::disallowed_methods, reason = "benchmarks read the clock")]

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The kernel reports CPU time in hundredths of a second (`USER_HZ`), on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

/// What each of these processes uses on average while they are left alone, in percent of one core.
pub fn cpu_percent(processes: &[u32], during: Duration) -> f64 {
    let ticks = || processes.iter().map(|pid| cpu_ticks(*pid)).sum::<u64>();
    let (began, before) = (Instant::now(), ticks());
    sleep(during);
    #[expect(clippy::cast_precision_loss, reason = "a few thousand ticks")]
    let used = (ticks() - before) as f64 / TICKS_PER_SECOND / processes.len() as f64;
    100.0 * used / began.elapsed().as_secs_f64()
}

/// User and system time of a process, its ended threads included (`man 5 proc_pid_stat`).
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the agent lives");
    // The name, in brackets, may hold anything; the fields after it are counted from 3.
    let (_, fields) = stat.rsplit_once(')').expect("the name is in brackets");
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |field: usize| fields[field - 3].parse::<u64>().expect("a number");
    number(14) + number(15)
}

/// What a process holds in memory, its share of files included.
pub fn resident_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the agent lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
    let kib: f64 = kib.and_then(|kib| kib.trim().parse().ok()).expect("kB");
    kib / 1024.0
}

/// The most that a process has held in memory so far; none once it has ended.
pub fn peak_mib(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: f64 = line?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}
