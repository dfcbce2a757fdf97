//! Has files synced to the disk that the node does not sync itself: BLite never syncs its write-ahead log,
//! so that a power cut takes all that is in it (`NODE.md`, section 8).
//!
//! A child does it, so that a disk that hangs does not hang the agent. Nothing is done while nothing
//! changes.

use super::node_logs::of_blite;
use crate::ports::EffectError;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// How long one child may take. A disk that takes longer is told, and asked again.
const LIMIT: Duration = Duration::from_secs(30);

/// How many times longer than a sync took the pause after it is, at least: the disk is the node's, too.
const SHARE: u32 = 4;

/// The four files of a BLite database `X.blite`: data, the node's own records, and the log of each.
pub fn blite_files(database: &Path) -> Vec<PathBuf> {
    let mut records = OsString::from(database);
    records.push(".meta");
    let [log, own_log] = of_blite(database);
    vec![database.to_owned(), log, records.into(), own_log]
}

/// By what it shows that a file was written: its number, size, and times of change.
type Seen = BTreeMap<PathBuf, (u64, u64, i64, i64)>;

#[derive(Debug, Default)]
struct State {
    /// What was seen before the last sync that worked.
    seen: Seen,
    /// Whether something had changed at that look: what is written in the same tick of the clock does not
    /// show, so it is synced once more.
    again: bool,
    /// Since when something waits to be synced.
    waits: Option<Instant>,
    took: Duration,
    syncs: u64,
    fault: Option<String>,
}

/// What there is to say about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// How long something has waited to be synced; zero: nothing does.
    pub waits: Duration,
    /// How long the last sync took.
    pub took: Duration,
    /// How many have worked.
    pub syncs: u64,
    /// Why the last one failed, if it did.
    pub fault: Option<String>,
}

/// Syncs some files at a pace.
pub struct FileSync {
    files: Vec<PathBuf>,
    pace: Duration,
    state: Mutex<State>,
    /// Held while a child works.
    working: AsyncMutex<()>,
}

impl FileSync {
    /// Nothing is done yet.
    pub fn new(files: Vec<PathBuf>, pace: Duration) -> Arc<Self> {
        Arc::new(Self {
            files,
            pace,
            state: Mutex::default(),
            working: AsyncMutex::default(),
        })
    }

    /// How often it is meant to be done.
    pub fn pace(&self) -> Duration {
        self.pace
    }

    /// Syncs what changes, until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut was_fault = false;
        loop {
            let pause = self.pace.max(self.state().took * SHARE);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            match self.sync().await {
                Ok(()) => was_fault = false,
                Err(error) if !std::mem::replace(&mut was_fault, true) => {
                    tracing::error!(%error, "the node's files are not synced");
                }
                Err(_) => {}
            }
        }
    }

    /// Syncs what has changed since the last time.
    ///
    /// # Errors
    /// The child failed, or did not end in time.
    pub async fn sync(&self) -> Result<(), EffectError> {
        let _working = self.working.lock().await;
        let files = self.files.clone();
        let looking = tokio::task::spawn_blocking(move || look(&files));
        let seen = looking.await.unwrap_or_default();
        let changed: Vec<PathBuf> = {
            let mut state = self.state();
            let is_new = |(path, now): &(&PathBuf, &_)| state.seen.get(*path) != Some(*now);
            let changed = seen.iter().filter(is_new).map(|(path, _)| path.clone());
            let changed: Vec<PathBuf> = changed.collect();
            match (changed.is_empty(), state.again) {
                (true, false) => return Ok(()),
                (true, true) => seen.keys().cloned().collect(),
                (false, _) => {
                    state.waits.get_or_insert_with(Instant::now);
                    changed
                }
            }
        };
        let began = Instant::now();
        let done = sync_data(&changed).await;
        let mut state = self.state();
        state.took = began.elapsed();
        state.fault = done.as_ref().err().map(ToString::to_string);
        if done.is_ok() {
            state.syncs += 1;
            state.again = state.seen != seen;
            (state.seen, state.waits) = (seen, None);
        }
        done
    }

    /// What there is to say about it.
    pub fn told(&self) -> Told {
        let state = self.state();
        Told {
            waits: state.waits.map(|since| since.elapsed()).unwrap_or_default(),
            took: state.took,
            syncs: state.syncs,
            fault: state.fault.clone(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the files show; those that are not there show nothing.
fn look(files: &[PathBuf]) -> Seen {
    let each = files.iter().filter_map(|path| {
        let at = std::fs::metadata(path).ok()?;
        let shown = (at.ino(), at.len(), at.mtime(), at.mtime_nsec());
        Some((path.clone(), shown))
    });
    each.collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "this adapter runs the system's own sync"
)]
async fn sync_data(files: &[PathBuf]) -> Result<(), EffectError> {
    let failed = |why: String| EffectError(format!("`sync -d` of the node's files: {why}"));
    let child = Command::new("sync")
        .args(["-d", "--"])
        .args(files)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output();
    let ended = timeout(LIMIT, child).await;
    let ended = ended.map_err(|_| failed(format!("nothing within {} s", LIMIT.as_secs())))?;
    let output = ended.map_err(|error| failed(format!("it does not start: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().next().unwrap_or("it said nothing").to_owned();
    Err(failed(line))
}
