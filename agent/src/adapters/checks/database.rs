//! A node's SQLite database: can it be read, is it sound, may the node write it, and how it grows.
//!
//! It is opened for reading only, and nothing takes a write lock. `BEGIN IMMEDIATE` would make a node
//! without a busy timeout fail a write of its own, and as root it would prove nothing about what the
//! node may do; so the modes of file and folder are compared with the user of the node's process, and
//! the file system is asked whether it is read-only.
//!
//! `quick_check` reads the whole file. It runs apart, once for each process of the node and then at
//! most every `quick_check` and a fiftieth of the time; its newest result holds until the next.

use super::journal_mode::JournalMode;
use super::{Finding, figure};
use crate::adapters::deleted_logs::{self, DeletedLog};
use crate::error_chain;
use crate::ports::{Supervisor, UnitState};
use cbddc_domain::health::{Perf, Status, quoted};
use cbddc_domain::units::{show_duration_ms, show_size_bytes};
use cbddc_oplog::open_to_read;
use rusqlite::Connection;
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::{Instant, timeout};

/// How long to wait for a lock: a node commits within milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_millis(500);

/// How long it may take to hear which processes the node has.
const PROCESSES_LIMIT: Duration = Duration::from_millis(500);

/// How long a `quick_check` may hold up the node's checkpoints before it is given up.
const QUICK_CHECK_LIMIT: Duration = Duration::from_secs(60);

/// How many times longer than it took the pause after a `quick_check` is, at least.
const QUICK_CHECK_SHARE: u32 = 50;

/// How far back growth is looked at, and how often a size is remembered for that.
const GROWTH_WINDOW: Duration = Duration::from_secs(60 * 60);
const GROWTH_STEP: Duration = Duration::from_secs(60);

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseSettings {
    /// The file.
    pub path: PathBuf,
    /// The shortest pause between two runs of `quick_check`.
    pub quick_check: Duration,
    /// Bytes of write-ahead log above which it is degraded: nothing checkpoints it.
    pub max_wal_bytes: u64,
    /// Growth in an hour above which it is degraded, in bytes, where this is looked at.
    pub max_growth_bytes: Option<u64>,
}

/// What `quick_check` found.
#[derive(Debug, Clone)]
struct Checked {
    ended: Instant,
    took: Duration,
    outcome: Result<(), String>,
}

#[derive(Default)]
struct Memory {
    process: Option<(u32, u64)>,
    checked: Option<Checked>,
    running: Option<watch::Receiver<bool>>,
    sizes: VecDeque<(Instant, u64)>,
}

/// The check of one database, with what it remembers between two runs.
pub struct DatabaseCheck {
    settings: DatabaseSettings,
    memory: Mutex<Memory>,
    /// Held while a thread reads the file: one that hangs must not be joined by another.
    reading: Arc<AsyncMutex<()>>,
}

impl DatabaseCheck {
    /// Nothing was looked at yet.
    pub fn new(settings: DatabaseSettings) -> Arc<Self> {
        Arc::new(Self {
            settings,
            memory: Mutex::default(),
            reading: Arc::default(),
        })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks once; waits for a `quick_check` that runs for at most half of `limit`.
    pub async fn look(self: Arc<Self>, supervisor: &dyn Supervisor, limit: Duration) -> Finding {
        let process = match supervisor.state().await {
            Ok(UnitState::Running { pid, started_ms }) => Some((pid, started_ms)),
            Ok(UnitState::Stopped { .. }) | Err(_) => None,
        };
        // Somebody else may look at the same moment, which takes no time where the file system answers.
        let free = timeout(limit / 2, self.reading.clone().lock_owned());
        let Ok(lock) = free.await else {
            let text = "the last look at the file still hangs: is its file system away?";
            return (Status::Unhealthy, text.to_owned()).into();
        };
        let (path, user) = (self.settings.path.clone(), process.map(|(pid, _)| pid));
        // What cannot be told in time, as while the system's bus is away, says nothing.
        let pids = match process {
            Some(_) => timeout(PROCESSES_LIMIT, supervisor.processes()).await,
            None => Ok(Ok(Vec::new())),
        };
        let pids = pids.unwrap_or(Ok(Vec::new())).unwrap_or_default();
        let looked = tokio::task::spawn_blocking(move || {
            let _lock = lock;
            let mut deleted = deleted_logs::find(&pids, std::slice::from_ref(&path)).into_iter();
            match deleted.next() {
                Some(log) => Err(writes_into_deleted(&log)),
                None => look_at(&path, user),
            }
        });
        let seen = match looked.await {
            Ok(Ok(seen)) => seen,
            Ok(Err(text)) => return (Status::Unhealthy, text).into(),
            Err(_) => return (Status::Unknown, "the agent is shutting down".to_owned()).into(),
        };
        self.check_when_due(process);
        let running = self.memory().running.clone();
        if let Some(mut done) = running {
            // Most are quick; for a large file the last result holds meanwhile.
            let _ = timeout(limit / 2, done.wait_for(|done| *done)).await;
        }
        self.judge(&seen)
    }

    /// Starts `quick_check` where it is due and does not run.
    fn check_when_due(self: &Arc<Self>, process: Option<(u32, u64)>) {
        let mut memory = self.memory();
        if memory.process != process {
            memory.process = process;
            memory.checked = None;
        }
        let runs = memory.running.as_ref().is_some_and(|done| !*done.borrow());
        let rests = memory.checked.as_ref().is_some_and(|checked| {
            let pause = self
                .settings
                .quick_check
                .max(checked.took * QUICK_CHECK_SHARE);
            checked.ended.elapsed() < pause
        });
        if runs || rests {
            return;
        }
        let (done, waits) = watch::channel(false);
        memory.running = Some(waits);
        drop(memory);
        let database = self.clone();
        tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let outcome = quick_check(&database.settings.path);
            let checked = Checked {
                ended: Instant::now(),
                took: began.elapsed(),
                outcome,
            };
            database.memory().checked = Some(checked);
            done.send_replace(true);
        });
    }

    fn judge(&self, seen: &Seen) -> Finding {
        let mut memory = self.memory();
        let grown = grown(&mut memory.sizes, seen.bytes);
        let figures = vec![
            figure("size", seen.bytes, "B"),
            figure("wal", seen.wal_bytes, "B"),
            figure("growth", grown, "B"),
        ];
        let sound = match &memory.checked {
            Some(Checked {
                outcome: Err(text), ..
            }) => return unsound(text, figures),
            Some(checked) => {
                let ago = show_duration_ms(milliseconds(checked.ended.elapsed()));
                let took = milliseconds(checked.took);
                format!("sound {ago} ago (took {took} ms)")
            }
            None => "quick_check still runs".to_owned(),
        };
        drop(memory);
        let mut short = Vec::new();
        if let Some(why) = &seen.not_writable {
            return Finding {
                status: Status::Unhealthy,
                detail: why.clone(),
                figures,
            };
        }
        if seen.wal_bytes > self.settings.max_wal_bytes {
            let (is, most) = (seen.wal_bytes, self.settings.max_wal_bytes);
            let (is, most) = (show_size_bytes(is), show_size_bytes(most));
            short.push(format!(
                "its write-ahead log has {is} of at most {most}: does a reader never end?"
            ));
        }
        if let Some(most) = self.settings.max_growth_bytes.filter(|most| grown > *most) {
            let (grown, most) = (show_size_bytes(grown), show_size_bytes(most));
            short.push(format!(
                "it grew by {grown} within an hour, of at most {most}"
            ));
        }
        let size = show_size_bytes(seen.bytes);
        let (status, detail) = if short.is_empty() {
            let power_cut = seen.journal_mode.told();
            (Status::Healthy, format!("{size}, {sound}; {power_cut}"))
        } else {
            (Status::Degraded, short.join("; "))
        };
        Finding {
            status,
            detail,
            figures,
        }
    }
}

fn unsound(text: &str, figures: Vec<Perf>) -> Finding {
    Finding {
        status: Status::Unhealthy,
        detail: text.to_owned(),
        figures,
    }
}

fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// What one look showed.
struct Seen {
    bytes: u64,
    wal_bytes: u64,
    journal_mode: JournalMode,
    not_writable: Option<String>,
}

/// Reads the file's state and one page of it; an error in a sentence.
fn look_at(path: &Path, process: Option<u32>) -> Result<Seen, String> {
    let shown = path.display();
    let file = fs::metadata(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    let wal_bytes = fs::metadata(&wal).map_or(0, |wal| wal.len());
    let read = open(path).and_then(|database| {
        let count = "SELECT count(*) FROM sqlite_schema";
        database.query_row(count, [], |row| row.get::<_, i64>(0))?;
        JournalMode::of(&database)
    });
    let journal_mode =
        read.map_err(|error| format!("cannot read {shown}: {}", error_chain(&error)))?;
    let not_writable = match process {
        Some(pid) => why_not_writable(path, &file, pid),
        None => None,
    };
    Ok(Seen {
        bytes: file.len().saturating_add(wal_bytes),
        wal_bytes,
        journal_mode,
        not_writable,
    })
}

/// Where the process that runs may not write, why.
fn why_not_writable(path: &Path, file: &fs::Metadata, pid: u32) -> Option<String> {
    let shown = path.display();
    let flags = rustix::fs::statvfs(path).ok()?.f_flag;
    if flags.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Some(format!("the file system of {shown} is read-only"));
    }
    let user = User::of(pid).ok()?;
    if !user.may_write(file) {
        return Some(format!(
            "the node's user ({}) may not write {shown} (owner {}, mode {:04o})",
            user.uid,
            file.uid(),
            file.mode() & 0o7777
        ));
    }
    // SQLite makes its log and its journal in the folder.
    let folder = path.parent()?;
    let metadata = fs::metadata(folder).ok()?;
    (!user.may_write(&metadata)).then(|| {
        format!(
            "the node's user ({}) may not write in {} (owner {}, mode {:04o}), where SQLite needs \
             its log",
            user.uid,
            folder.display(),
            metadata.uid(),
            metadata.mode() & 0o7777
        )
    })
}

/// Whom a process acts as. Access lists and capabilities are not looked at; whoever has
/// `CAP_DAC_OVERRIDE` is most likely root.
struct User {
    uid: u32,
    groups: Vec<u32>,
}

impl User {
    fn of(pid: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let numbers = |key: &str| -> Vec<u32> {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            let words = line.unwrap_or_default().split_whitespace();
            words.filter_map(|word| word.parse().ok()).collect()
        };
        // Real, effective, saved and for files; the last one opens files.
        let (uid, gid) = (numbers("Uid:"), numbers("Gid:"));
        let missing = || io::Error::other("no user in /proc");
        let mut groups = numbers("Groups:");
        groups.push(*gid.get(3).ok_or_else(missing)?);
        Ok(Self {
            uid: *uid.get(3).ok_or_else(missing)?,
            groups,
        })
    }

    fn may_write(&self, file: &fs::Metadata) -> bool {
        let mode = file.mode();
        let bit = if self.uid == 0 {
            return true;
        } else if self.uid == file.uid() {
            0o200
        } else if self.groups.contains(&file.gid()) {
            0o020
        } else {
            0o002
        };
        mode & bit != 0
    }
}

/// Said before anything else: whoever opens the file now may make it worse.
fn writes_into_deleted(log: &DeletedLog) -> String {
    format!(
        "the node writes into a log that was deleted, {} of {}: all in it is gone when the node ends by itself; do not \
         open the database with another program; a stop by the agent puts the log back, and before any other stop copy \
         it from there",
        log.descriptor.display(),
        show_size_bytes(log.bytes)
    )
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    open_to_read(path, BUSY_TIMEOUT)
}

fn quick_check(path: &Path) -> Result<(), String> {
    let failed = |error: rusqlite::Error| format!("quick_check failed: {}", error_chain(&error));
    let database = open(path).map_err(failed)?;
    // A little memory of its own: the whole file passes through once.
    database
        .pragma_update(None, "cache_size", -1_024)
        .map_err(failed)?;
    let handle = database.get_interrupt_handle();
    let (ended, watched) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        if watched.recv_timeout(QUICK_CHECK_LIMIT)
            == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            handle.interrupt();
        }
    });
    let found = database.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    drop(ended);
    match found {
        Ok(found) if found == "ok" => Ok(()),
        Ok(found) => Err(format!("quick_check found {}", quoted(&found))),
        // Given up for its size: that says nothing bad.
        Err(error)
            if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) =>
        {
            tracing::warn!(path = %path.display(), "quick_check took too long and was given up");
            Ok(())
        }
        Err(error) => Err(failed(error)),
    }
}

/// Remembers a size and says by how much it grew within the window.
fn grown(sizes: &mut VecDeque<(Instant, u64)>, bytes: u64) -> u64 {
    let now = Instant::now();
    if sizes
        .back()
        .is_none_or(|(when, _)| now.duration_since(*when) >= GROWTH_STEP)
    {
        sizes.push_back((now, bytes));
    }
    while sizes
        .front()
        .is_some_and(|(when, _)| now.duration_since(*when) > GROWTH_WINDOW)
    {
        sizes.pop_front();
    }
    let least = sizes.iter().map(|(_, bytes)| *bytes).min();
    bytes.saturating_sub(least.unwrap_or(bytes))
}
