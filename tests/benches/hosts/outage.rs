//! Asks a node all the time whether it is healthy, and tells how long it was not.

use cbddc_tests::hosts::{HTTP_PORT, Hosts, network};
use cbddc_tests::mesh::http;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often it is asked.
const LOOK: Duration = Duration::from_millis(2);

/// A watch that goes on until it is ended.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Watch {
    /// Begins to ask the node of the first host, which must be healthy.
    pub(crate) fn start(hosts: &Hosts) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let address = SocketAddr::from((hosts.address(1), HTTP_PORT));
        let network = network::open(hosts);
        let until = stop.clone();
        let thread = std::thread::spawn(move || {
            network::join(&network);
            watch(address, &until)
        });
        Self { stop, thread }
    }

    /// The longest time between two good answers.
    pub(crate) fn end(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the node was asked")
    }
}

/// A good answer counts from when it was asked for.
fn watch(address: SocketAddr, stop: &AtomicBool) -> Duration {
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let asked = Instant::now();
        if let Ok((200, _)) = http::request_at(address, "GET", "/health", "") {
            longest = longest.max(asked.duration_since(last));
            last = asked;
        }
        std::thread::sleep(LOOK);
    }
    longest
}
