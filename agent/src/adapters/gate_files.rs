//! The files through which the agent speaks to the gate at start, and the gate's eyes.

use crate::adapters::builds::current_of;
use crate::adapters::clock::{begin_boot, boot_of, since_boot_ms};
use crate::adapters::disk;
use crate::gate::{
    Current, Lookout, Permit, Sight, permit_file, revoked_file, socket_file, store_folder,
    waited_file,
};
use crate::ports::{EffectError, JournalLine, Store};
use async_trait::async_trait;
use cbddc_domain::build::Digest;
use cbddc_domain::node::Node;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The most bytes that are read of one of these files: room for 16 000 revocations.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a file for the gate cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum GateFileError {
    /// The file cannot be replaced.
    #[error("cannot write {}; check its folder and the room on its disk", .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// The boot has no name.
    #[error("cannot tell this boot; is /proc mounted, and may the run folder be written to?")]
    Boot(#[source] io::Error),
}

/// Says in the run folder which build may start in this boot; none while the agent holds the node
/// stopped.
pub fn write_permit(run_dir: &Path, build: Option<Digest>) -> Result<(), GateFileError> {
    let path = permit_file(run_dir);
    fs::create_dir_all(run_dir).map_err(|error| GateFileError::Write(path.clone(), error))?;
    let (boot_id, _) = begin_boot(run_dir).map_err(GateFileError::Boot)?;
    let permit = Permit { boot_id, build };
    let bytes = serde_json::to_vec(&permit).expect("texts become JSON");
    replace(&path, &bytes).map_err(|error| GateFileError::Write(path.clone(), error))
}

/// Names the builds that must not start; survives a power cut when this returns.
pub fn write_revoked(state_dir: &Path, builds: &BTreeSet<Digest>) -> Result<(), GateFileError> {
    let path = revoked_file(state_dir);
    let text: String = builds.iter().map(|build| format!("{build}\n")).collect();
    let write = || {
        replace(&path, text.as_bytes())?;
        disk::sync_folder(state_dir)
    };
    write().map_err(|error| GateFileError::Write(path.clone(), error))
}

/// Writes beside and renames: a reader sees the old content or the new one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    disk::remove_tree(&beside)?;
    disk::write_new(&beside, bytes)?;
    fs::rename(&beside, path)
}

/// The builds that must not start, as a state says it.
pub fn revoked_builds(node: &Node) -> BTreeSet<Digest> {
    let revocations = node.register.revocations.iter();
    let standing = revocations.filter(|(_, revocation)| !revocation.lifted);
    standing.map(|(build, _)| *build).collect()
}

/// The store, which tells the gate of a revocation before anybody else hears of it.
pub struct RevokingStore {
    store: Arc<dyn Store>,
    state_dir: PathBuf,
    told: Mutex<BTreeSet<Digest>>,
}

impl RevokingStore {
    /// Wraps a store whose state is `node`, and tells the gate what stands there. Where that fails, as
    /// on a full disk, the agent must still answer; each save tries again.
    pub fn new(store: Arc<dyn Store>, state_dir: PathBuf, node: &Node) -> Self {
        let mut told = read_revoked(&state_dir);
        let standing = revoked_builds(node);
        if told != standing {
            match write_revoked(&state_dir, &standing) {
                Ok(()) => told = standing,
                Err(error) => tracing::error!("{}", crate::error_chain(&error)),
            }
        }
        let told = Mutex::new(told);
        Self {
            store,
            state_dir,
            told,
        }
    }

    /// Names these builds to the gate, unless it knows.
    async fn tell(&self, builds: BTreeSet<Digest>) -> Result<(), EffectError> {
        if *self.told() == builds {
            return Ok(());
        }
        let (state_dir, told) = (self.state_dir.clone(), builds.clone());
        let written = tokio::task::spawn_blocking(move || write_revoked(&state_dir, &told)).await;
        let failed = |error: &dyn std::error::Error| EffectError(crate::error_chain(error));
        written
            .map_err(|error| failed(&error))?
            .map_err(|error| failed(&error))?;
        *self.told() = builds;
        Ok(())
    }

    fn told(&self) -> std::sync::MutexGuard<'_, BTreeSet<Digest>> {
        // A poisoned lock still holds a whole value: it is only ever replaced.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for RevokingStore {
    async fn save(&self, node: &Node, lines: Vec<JournalLine>) -> Result<(), EffectError> {
        let standing = revoked_builds(node);
        // What is new stands before the state says so, what was lifted until after it does: a crash
        // between the two leaves a build revoked, and the next start corrects it.
        let both = self.told().union(&standing).copied().collect();
        self.tell(both).await?;
        self.store.save(node, lines).await?;
        if let Err(error) = self.tell(standing).await {
            tracing::warn!(%error, "the gate still refuses a build that is no longer revoked");
        }
        Ok(())
    }
}

/// Looks at the files of one agent.
pub struct FileLookout {
    state_dir: PathBuf,
    run_dir: PathBuf,
    began_ms: u64,
    agent_lives: bool,
}

impl FileLookout {
    /// Time counts from now.
    pub fn new(state_dir: PathBuf, run_dir: PathBuf) -> Self {
        Self {
            state_dir,
            run_dir,
            began_ms: since_boot_ms(),
            agent_lives: false,
        }
    }
}

impl Lookout for FileLookout {
    fn look(&mut self, call: bool) -> Sight {
        if call {
            self.agent_lives = answers(&socket_file(&self.run_dir));
        }
        // The permit is read before what it is compared with: the agent points, then permits.
        let permit = read(&permit_file(&self.run_dir));
        let permit = permit.and_then(|text| serde_json::from_str(&text).ok());
        let current = match current_of(&store_folder(&self.state_dir)) {
            Ok(Some(build)) => Current::Build(build),
            Ok(None) => Current::Nothing,
            Err(_) => Current::Unreadable,
        };
        Sight {
            current,
            permit,
            boot: boot_of(&self.run_dir).ok().flatten(),
            agent_lives: self.agent_lives,
            revoked: read_revoked(&self.state_dir),
        }
    }

    fn pause(&mut self, time: Duration) {
        std::thread::sleep(time);
    }

    fn passed(&self) -> Duration {
        Duration::from_millis(since_boot_ms().saturating_sub(self.began_ms))
    }

    fn has_waited(&self) -> bool {
        let boot = boot_of(&self.run_dir).ok().flatten();
        let waited = read(&waited_file(&self.run_dir));
        waited.is_some_and(|waited| boot.is_some_and(|boot| boot.0 == waited))
    }

    fn note_waited(&mut self) {
        if let Ok(Some(boot)) = boot_of(&self.run_dir) {
            // Where it cannot be remembered, the next gate waits, too.
            drop(fs::write(waited_file(&self.run_dir), boot.0));
        }
    }
}

/// The builds that must not start; none where the list cannot be read. A line that is no digest does
/// not hide the others.
fn read_revoked(state_dir: &Path) -> BTreeSet<Digest> {
    let text = read(&revoked_file(state_dir)).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// A small text file, where it can be read.
fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).ok()?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether somebody listens on the socket. Never waits: an agent whose queue is full is busy, not gone.
fn answers(path: &Path) -> bool {
    let attempt = || {
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &address)
    };
    match attempt() {
        Ok(()) => true,
        Err(error) => error == rustix::io::Errno::AGAIN,
    }
}
