//! Watches that no node runs twice.

use super::TestMesh;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the processes are looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// Counts the processes of one host's node, again and again, until it is asked.
pub struct TwiceWatch {
    stop: Arc<AtomicBool>,
    most: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl TwiceWatch {
    /// Begins with the node of a host.
    pub fn start(mesh: &TestMesh, index: usize) -> Self {
        let folder: PathBuf = mesh
            .node(index)
            .database()
            .parent()
            .expect("it lies in a folder")
            .to_owned();
        let (stop, most) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (stopped, highest) = (stop.clone(), most.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                highest.fetch_max(count(&folder), Ordering::Relaxed);
                std::thread::sleep(INTERVAL);
            }
        });
        Self {
            stop,
            most,
            thread: Some(thread),
        }
    }

    /// The most that ran at once.
    pub fn most(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the watch goes on to its end");
        }
        self.most.load(Ordering::Relaxed)
    }
}

impl Drop for TwiceWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Processes of the fixture node that name this folder.
fn count(folder: &Path) -> usize {
    let folder = folder.display().to_string();
    let is_node = |line: &[u8]| {
        let line = String::from_utf8_lossy(line);
        let program = line.split('\0').next().unwrap_or_default();
        program.ends_with("/fixture-node") && line.contains(&folder)
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.filter(|line| is_node(line)).count()
}
