//! What the agent tells systemd, on a socket as systemd gives it, and what it does without a bus. The
//! supervisor itself is tested on hosts that run systemd.

use crate::engine::{Bench, prepare};
use cbagent::adapters::notify::Notifier;
use cbagent::engine::{Engine, EngineHandle};
use cbagent::heartbeat::beat;
use cbddc_domain::id::NodeName;
use cbddc_domain::node::{Context, Node};
use std::collections::BTreeSet;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Long enough for a busy machine; only a failing test waits that long.
const PATIENCE: Duration = Duration::from_secs(20);

/// systemd's side of the socket.
struct Systemd {
    socket: UnixDatagram,
    _folder: Option<TempDir>,
}

impl Systemd {
    fn new(watchdog: Option<Duration>) -> (Self, Notifier) {
        let folder = TempDir::new().expect("a temporary folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        let notifier = Notifier::new(path.as_os_str(), watchdog).expect("a socket");
        (Self::on(socket, Some(folder)), notifier)
    }

    fn on(socket: UnixDatagram, folder: Option<TempDir>) -> Self {
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a time above zero");
        Self {
            socket,
            _folder: folder,
        }
    }

    /// The next message.
    fn hears(&self) -> String {
        let mut buffer = [0; 1024];
        let count = self.socket.recv(&mut buffer).expect("something is told");
        String::from_utf8(buffer[..count].to_vec()).expect("UTF-8")
    }

    /// The next message, while the agent goes on.
    async fn waits(self: &Arc<Self>) -> String {
        let systemd = self.clone();
        let heard = tokio::task::spawn_blocking(move || systemd.hears());
        heard.await.expect("something is told")
    }

    /// True when nothing was told until now.
    fn heard_nothing(&self) -> bool {
        self.socket.set_nonblocking(true).expect("a socket");
        self.socket.recv(&mut [0; 1024]).is_err()
    }
}

#[test]
fn messages_are_as_sd_notify_writes_them() {
    let (systemd, notifier) = Systemd::new(None);
    notifier.ready();
    assert_eq!(systemd.hears(), "READY=1");
    notifier.alive();
    assert_eq!(systemd.hears(), "WATCHDOG=1");
    notifier.stopping();
    assert_eq!(systemd.hears(), "STOPPING=1");
    notifier.status("one line\nREADY=1");
    assert_eq!(systemd.hears(), "STATUS=one line");
    notifier.status(&"é".repeat(1000));
    assert_eq!(systemd.hears(), format!("STATUS={}", "é".repeat(128)));
}

#[test]
fn abstract_sockets_are_heard_and_missing_ones_do_no_harm() {
    let name = format!("cbagent-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("short enough");
    let socket = UnixDatagram::bind_addr(&address).expect("a socket");
    let notifier = Notifier::new(format!("@{name}").as_ref(), None).expect("a socket");
    notifier.ready();
    let systemd = Systemd::on(socket, None);
    assert_eq!(systemd.hears(), "READY=1");
    drop(systemd);
    notifier.ready();
    assert!(Notifier::new("x".repeat(200).as_ref(), None).is_err());
}

fn engine() -> (Engine, EngineHandle) {
    let bench = Arc::new(Bench::default());
    let name: NodeName = "a".parse().expect("a name");
    let context = Context {
        voters: BTreeSet::from([name.clone()]),
        name,
        ask_limit_ms: 1_000,
        policy: Default::default(),
    };
    Engine::new(context, Node::default(), bench.clone(), bench)
}

#[tokio::test]
async fn the_status_line_follows_the_node() {
    let (systemd, notifier) = Systemd::new(None);
    let systemd = Arc::new(systemd);
    let (engine, handle) = engine();
    let (stop, engine_stop) = (CancellationToken::new(), CancellationToken::new());
    let running = tokio::spawn(engine.run(engine_stop.clone()));
    let beating = tokio::spawn(beat(notifier, handle.clone(), stop.clone()));
    assert_eq!(systemd.waits().await, "READY=1");
    assert_eq!(systemd.waits().await, "STATUS=nothing was rolled out yet");
    handle.tell(prepare(), "ana").await.expect("it is taken");
    let said = systemd.waits().await;
    assert!(said.starts_with("STATUS=prepared for "), "{said}");
    stop.cancel();
    assert_eq!(systemd.waits().await, "STOPPING=1");
    beating.await.expect("no panic");
    engine_stop.cancel();
    running.await.expect("no panic");
}

#[tokio::test]
async fn the_watchdog_is_fed_only_while_the_engine_turns() {
    let (systemd, notifier) = Systemd::new(Some(Duration::from_millis(100)));
    let systemd = Arc::new(systemd);
    let (engine, handle) = engine();
    let stop = CancellationToken::new();
    let beating = tokio::spawn(beat(notifier, handle.clone(), stop.clone()));
    // Ready although the engine does not turn; nothing else is true yet.
    assert_eq!(systemd.waits().await, "READY=1");
    assert_eq!(systemd.waits().await, "STATUS=nothing was rolled out yet");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(systemd.heard_nothing(), "a stuck engine is called alive");
    systemd.socket.set_nonblocking(false).expect("a socket");

    let running = tokio::spawn(engine.run(stop.clone()));
    for _ in 0..5 {
        assert_eq!(systemd.waits().await, "WATCHDOG=1");
    }
    stop.cancel();
    beating.await.expect("no panic");
    running.await.expect("no panic");
}
