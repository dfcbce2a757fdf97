//! What an agent costs that has nothing to do: a mesh of three with running nodes and the intervals
//! that an agent has by default.

use cbddc_tests::figures::bounded;
use cbddc_tests::mesh::{MeshOptions, TestMesh};
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long the agents are left alone before they are measured.
const WARM_UP: Duration = Duration::from_secs(15);

/// How long they are measured.
const MEASURED: Duration = Duration::from_secs(30);

/// How long the nodes may take to be there.
const LIMIT: Duration = Duration::from_secs(60);

/// Resident memory in MiB, and CPU in percent of one core.
const GOALS: (f64, f64) = (20.0, 0.2);

/// The kernel reports CPU time in hundredths of a second (`USER_HZ`), on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

pub(crate) fn measure() {
    let mesh = TestMesh::start(MeshOptions {
        sync_interval: Duration::from_secs(2),
        health_interval: Duration::from_secs(5),
        peers_poll: Duration::from_secs(10),
        ask_limit: Duration::from_secs(10),
        ..MeshOptions::default()
    });
    mesh.make_build("1.0", "");
    mesh.cbctl(&mesh.rollout("1.0")).expect(0);
    mesh.wait_until_all_run("1.0", LIMIT);
    sleep(WARM_UP);

    let agents = mesh.nodes().iter().filter_map(|node| node.agent_process());
    let agents: Vec<u32> = agents.map(|process| process.pid).collect();
    assert_eq!(agents.len(), mesh.len(), "an agent ended");
    let ticks = || agents.iter().map(|agent| cpu_ticks(*agent)).sum::<u64>();
    let (began, before) = (Instant::now(), ticks());
    sleep(MEASURED);
    #[expect(clippy::cast_precision_loss, reason = "a few hundred ticks")]
    let used = (ticks() - before) as f64 / TICKS_PER_SECOND / agents.len() as f64;
    let percent = 100.0 * used / began.elapsed().as_secs_f64();
    let resident = agents.iter().map(|agent| resident_mib(*agent));
    let resident = resident.fold(0.0, f64::max);
    bounded("idle agent, memory", resident, "MiB", GOALS.0);
    bounded("idle agent, CPU", percent, "% of a core", GOALS.1);
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
fn resident_mib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the agent lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
    let kib: f64 = kib.and_then(|kib| kib.trim().parse().ok()).expect("kB");
    kib / 1024.0
}
