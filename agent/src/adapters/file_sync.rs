//! Has files synced to the disk that the node does not sync itself: BLite never syncs its write-ahead log,
//! so that a power cut takes all that is in it (`NODE.md`, section 8).
//!
//! A child does it, so that a disk that hangs does not hang the agent; one that is given up is killed, and no
//! other joins it before it has ended. Nothing is done while nothing changes.

use super::node_logs::of_blite;
use crate::ports::EffectError;
use cbddc_domain::units::show_duration_ms;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// How long one sync may take, its turn included. A disk that takes longer is told, and asked again.
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

/// The program that syncs, and how long it may take.
#[derive(Debug, Clone)]
pub struct SyncProgram {
    /// It is called as `sync -d -- FILE…`.
    pub path: PathBuf,
    /// The limit.
    pub limit: Duration,
}

impl Default for SyncProgram {
    fn default() -> Self {
        Self {
            path: "sync".into(),
            limit: LIMIT,
        }
    }
}

/// Syncs some files at a pace.
pub struct FileSync {
    files: Vec<PathBuf>,
    pace: Duration,
    program: SyncProgram,
    state: Mutex<State>,
    /// Held by whoever works, also after it was given up.
    turn: Arc<AsyncMutex<()>>,
}

impl FileSync {
    /// Nothing is done yet.
    pub fn new(files: Vec<PathBuf>, pace: Duration) -> Arc<Self> {
        Self::with(files, pace, SyncProgram::default())
    }

    /// The same with another program than the system's own.
    pub fn with(files: Vec<PathBuf>, pace: Duration, program: SyncProgram) -> Arc<Self> {
        Arc::new(Self {
            files,
            pace,
            program,
            state: Mutex::default(),
            turn: Arc::default(),
        })
    }

    /// How often it is meant to be done.
    pub fn pace(&self) -> Duration {
        self.pace
    }

    /// Syncs what changes, until `stop`, which waits for no sync.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut was_fault = false;
        loop {
            let pause = self.pace.max(self.state().took * SHARE);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let synced = tokio::select! {
                () = stop.cancelled() => return,
                synced = self.sync() => synced,
            };
            match synced {
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
        let done = self
            .sync_until(Instant::now() + self.program.limit)
            .await
            .map_err(|why| EffectError(format!("`sync -d` of the node's files: {why}")));
        self.state().fault = done.as_ref().err().map(ToString::to_string);
        done
    }

    async fn sync_until(&self, until: Instant) -> Result<(), String> {
        let limit = show_duration_ms(milliseconds(self.program.limit));
        let turn = timeout_at(until, self.turn.clone().lock_owned()).await;
        let turn = turn.map_err(|_| format!("an earlier one did not end within {limit}"))?;
        let files = self.files.clone();
        let looking = tokio::task::spawn_blocking(move || (look(&files), turn));
        let looked = timeout_at(until, looking).await;
        let looked = looked.map_err(|_| format!("the files show nothing within {limit}"))?;
        let (seen, turn) = looked.map_err(|_| "the look at the files ended by a fault")?;
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
        let mut child = start(&self.program.path, &changed)?;
        let ended = timeout_at(until, end_of(&mut child)).await;
        let mut state = self.state();
        state.took = began.elapsed();
        let Ok(done) = ended else {
            // It keeps its turn: what a hanging disk holds up may outlast even that it was killed.
            let _ = child.start_kill();
            tokio::spawn(async move {
                let _ = child.wait().await;
                drop(turn);
            });
            return Err(format!("nothing within {limit}"));
        };
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
fn start(program: &Path, files: &[PathBuf]) -> Result<Child, String> {
    let child = Command::new(program)
        .args(["-d", "--"])
        .args(files)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    child.map_err(|error| format!("it does not start: {error}"))
}

/// Waits for its end; an error in its own words.
async fn end_of(child: &mut Child) -> Result<(), String> {
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.as_mut() {
        // What cannot be read says nothing.
        let _ = stderr.read_to_end(&mut said).await;
    }
    match child.wait().await {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => {
            let said = String::from_utf8_lossy(&said);
            Err(said.lines().next().unwrap_or("it said nothing").to_owned())
        }
        Err(error) => Err(format!("its end was not seen: {error}")),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}
