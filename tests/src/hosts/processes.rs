//! The processes of hosts, as the machine below sees them: without asking anybody on the host.

use super::Hosts;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the processes are looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// The processes of a program on the host whose control group has this name, with their command
/// lines, the words separated by spaces.
fn processes(group: &str, program: &str) -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let of_program = |pid: &u32| {
        // The kernel keeps 15 bytes of a name.
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim_end() == &program[..program.len().min(15)]
    };
    let on_host = |pid: &u32| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        groups.contains(group)
    };
    let line = |pid: u32| {
        let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
        (pid, text)
    };
    pids.filter(of_program).filter(on_host).map(line).collect()
}

impl Hosts {
    fn group(&self, host: u8) -> String {
        format!("/{}/h{host}/", self.tag())
    }

    /// Whether an agent runs on a host; a gate is none.
    pub fn agent_lives(&self, host: u8) -> bool {
        let agents = processes(&self.group(host), "cbagent");
        agents.iter().any(|(_, line)| line.contains(" run "))
    }

    /// How many nodes run on a host.
    pub fn nodes_running(&self, host: u8) -> usize {
        processes(&self.group(host), "fixture-node").len()
    }

    /// Begins to watch that no host runs its node twice.
    pub fn watch_for_two_nodes(&self) -> TwoNodesWatch {
        let groups: Vec<String> = self.numbers().map(|host| self.group(host)).collect();
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut most = vec![0; groups.len()];
            while !stopped.load(Ordering::Relaxed) {
                for (most, group) in most.iter_mut().zip(&groups) {
                    *most = processes(group, "fixture-node").len().max(*most);
                }
                std::thread::sleep(INTERVAL);
            }
            most
        });
        TwoNodesWatch {
            stop,
            thread: Some(thread),
        }
    }
}

/// Counts the nodes on each host, again and again, until it is asked.
#[derive(Debug)]
pub struct TwoNodesWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<usize>>>,
}

impl TwoNodesWatch {
    /// The most that ran at once on each host.
    pub fn most(mut self) -> Vec<usize> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("only asked once");
        thread.join().expect("the watch goes on to its end")
    }
}

impl Drop for TwoNodesWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
