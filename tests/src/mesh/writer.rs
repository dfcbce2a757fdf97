//! Writes documents all the time, through every node that answers, and remembers what was promised.

use super::{TestMesh, http};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

/// Pause after each round over the nodes: some thirty documents a second on three of them.
const PAUSE: Duration = Duration::from_millis(80);

/// A writer at work; it stops when dropped.
#[derive(Debug)]
pub struct Writer {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicUsize>,
    thread: Option<JoinHandle<Written>>,
}

/// What a writer wrote: every document once, each under a key of its own.
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// The collection.
    pub collection: String,
    /// The keys that a node acknowledged. None of these may be lost.
    pub acknowledged: Vec<String>,
    /// The keys for which no answer came: these may be there or not.
    pub unknown: Vec<String>,
}

impl Writer {
    /// Begins to write to the collection.
    pub fn start(mesh: &TestMesh, collection: &str) -> Self {
        let nodes = mesh.nodes().iter().map(|node| {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, node.http_port));
            (node.name.clone(), address)
        });
        Self::start_at(nodes.collect(), collection, || ())
    }

    /// The same at nodes with these names and addresses; the thread that writes first does something.
    pub fn start_at(
        nodes: Vec<(String, SocketAddr)>,
        collection: &str,
        first: impl FnOnce() + Send + 'static,
    ) -> Self {
        Self::begin(nodes, collection, "?flush=1", first)
    }

    /// The same, and writes as clients do, who take a node's word: it may not have flushed yet what it
    /// acknowledges.
    pub fn start_unflushed_at(
        nodes: Vec<(String, SocketAddr)>,
        collection: &str,
        first: impl FnOnce() + Send + 'static,
    ) -> Self {
        Self::begin(nodes, collection, "", first)
    }

    fn begin(
        nodes: Vec<(String, SocketAddr)>,
        collection: &str,
        query: &'static str,
        first: impl FnOnce() + Send + 'static,
    ) -> Self {
        let (stop, written) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (asked, count, collection) = (stop.clone(), written.clone(), collection.to_owned());
        let thread = std::thread::spawn(move || {
            first();
            write(&nodes, collection, query, &asked, &count)
        });
        Self {
            stop,
            written,
            thread: Some(thread),
        }
    }

    /// How many documents were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.written.load(Ordering::Relaxed)
    }

    /// Stops, and tells what was written.
    pub fn stop(mut self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("only stopped once");
        thread.join().expect("the writer does not panic")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn write(
    nodes: &[(String, SocketAddr)],
    collection: String,
    query: &str,
    stop: &AtomicBool,
    count: &AtomicUsize,
) -> Written {
    let mut written = Written {
        collection,
        ..Written::default()
    };
    for number in 0_u64.. {
        for (node, address) in nodes {
            if stop.load(Ordering::Relaxed) {
                return written;
            }
            let key = format!("{node}-{number:06}");
            let path = format!("/doc/{}/{key}{query}", written.collection);
            let body = serde_json::json!({ "number": number, "written_at": node }).to_string();
            match http::request_at(*address, "PUT", &path, &body) {
                Ok((200, _)) => {
                    count.fetch_add(1, Ordering::Relaxed);
                    written.acknowledged.push(key);
                }
                // Nobody listens, so nobody took it.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
                Ok(_) | Err(_) => written.unknown.push(key),
            }
        }
        sleep(PAUSE);
    }
    written
}
