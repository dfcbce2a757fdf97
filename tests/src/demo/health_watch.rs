//! Hears what `/health` of a node says while a certain version runs there.

use crate::mesh::http;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

/// How often the node is asked.
const PAUSE: Duration = Duration::from_millis(50);

/// A watch that goes on until it is stopped.
#[derive(Debug)]
pub struct HealthWatch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<BTreeSet<String>>,
}

impl HealthWatch {
    /// Begins to ask the node at this port, which need not be up.
    pub fn start(port: u16, version: &'static str) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let asked = stop.clone();
        let thread = spawn(move || {
            let mut said = BTreeSet::new();
            while !asked.load(Ordering::Relaxed) {
                said.extend(health_of(port, version));
                sleep(PAUSE);
            }
            said
        });
        Self { stop, thread }
    }

    /// Everything that was said.
    pub fn stop(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("asking does not panic")
    }
}

/// What the node says, if it runs the version before and after it is asked.
fn health_of(port: u16, version: &str) -> Option<String> {
    let runs = || {
        let (_, stats) = http::request(port, "GET", "/stats", "").ok()?;
        let stats: Value = serde_json::from_str(&stats).ok()?;
        (stats["version"] == version).then_some(())
    };
    runs()?;
    let said = http::request(port, "GET", "/health", "");
    runs()?;
    Some(said.map_or_else(|_| "no answer".to_owned(), |(_, body)| body))
}
