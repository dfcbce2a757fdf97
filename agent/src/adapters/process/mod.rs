//! Supervises the node as a process of its own, without root or systemd.
//!
//! The node outlives the agent and is recognised again by the next one, and there is never more than
//! one: `launch` tells how it takes a lock that it then holds for life, `place` what is concluded
//! from it, `procfs` how no foreign process is ever signalled.
//!
//! Deliberately absent: restarting a node that ended by itself. The engine decides that.

mod launch;
mod lock;
mod log;
mod place;
mod procfs;
mod settings;
mod start;

pub use launch::{EXIT_BUSY, EXIT_FAILED, launch};
pub use log::LOG_BYTES_MAX;
pub use settings::{ProcessSettings, own_binary};

use crate::adapters::clock::current_boot_id;
use crate::error_chain;
use crate::ports::{EffectError, Stop, Supervisor, UnitState};
use async_trait::async_trait;
use lock::{Holder, LockFile};
use place::{Depth, Found, Place};
use procfs::Process;
use rustix::process::Signal;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

/// How often a stop looks whether the node ended.
const POLL: Duration = Duration::from_millis(5);

/// How long killed processes may take to go; only one that hangs in the kernel takes longer.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// The most bytes that are read of a log's end.
const LOG_END_BYTES_MAX: u64 = 64 * 1024;

/// How long the words for an exit may lag behind the exit.
const REAP_LIMIT: Duration = Duration::from_secs(1);

/// Why the supervisor could not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The folder of the lock cannot be made or named.
    #[error("cannot use the run folder {}; check its path and owner", .0.display())]
    RunDir(PathBuf, #[source] io::Error),
    /// The lock file or `/proc` cannot be read.
    #[error("cannot tell what runs of the node")]
    Look(#[source] io::Error),
    /// The folder that the node starts in is not there.
    #[error("the working folder {} of the node is not a folder; is a build activated?", .0.display())]
    WorkingDir(PathBuf),
    /// The log cannot be opened or set aside.
    #[error("cannot open the log {} of the node", .0.display())]
    Log(PathBuf, #[source] io::Error),
    /// The launcher did not start.
    #[error("cannot start the launcher {}", .0.display())]
    Launcher(PathBuf, #[source] io::Error),
    /// The launcher told why the node did not start.
    #[error("the node was not started: {0}")]
    Refused(String),
    /// The launcher neither started the node nor said why not.
    #[error("the launcher did not answer within {} s and was ended; is a disk hanging?", .0.as_secs())]
    Silent(Duration),
    /// Processes of the earlier node run, but not its first one.
    #[error("{} of the node still runs as process {}; stop the node first", .0.name, .0.pid)]
    Leftover(Leftover),
    /// The lock is held by what this user may not see.
    #[error("the lock {} is held by a process that is not visible to this user; see `fuser` on it", .0.display())]
    Hidden(PathBuf),
    /// A process cannot be signalled.
    #[error("cannot signal process {pid}")]
    Signal {
        /// The process.
        pid: u32,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Killed processes do not go.
    #[error("{} of the node, process {}, was killed but does not end; it may hang on a disk", .0.name, .0.pid)]
    Unkillable(Leftover),
    /// A task of this adapter was cancelled.
    #[error("the agent is shutting down")]
    ShuttingDown,
}

/// A process in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftover {
    /// Its process id.
    pub pid: u32,
    /// Its name, shortened to 15 bytes.
    pub name: String,
}

impl From<&Process> for Leftover {
    fn from(process: &Process) -> Self {
        Self {
            pid: process.pid,
            name: process.name.clone(),
        }
    }
}

impl From<ProcessError> for EffectError {
    fn from(error: ProcessError) -> Self {
        Self(error_chain(&error))
    }
}

/// The node as a process. See the module's doc.
#[derive(Debug)]
pub struct ProcessSupervisor {
    settings: ProcessSettings,
    place: Place,
    /// Held through each start and stop, so that they do not overlap.
    operation: tokio::sync::Mutex<Known>,
    /// The node that this agent started itself, whose end it learns in full.
    child: Mutex<Option<OwnChild>>,
    /// How long the log was when the node was last started; zero: by an earlier agent.
    log_from: AtomicU64,
}

/// What the start or stop before has left.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Nothing is known: all processes have to be looked through.
    #[default]
    Nothing,
    /// A stop looked through all processes and found none of the node. From then on only a launcher
    /// can make one, and that holds the lock.
    AllGone,
}

#[derive(Debug, Clone)]
struct OwnChild {
    pid: u32,
    /// How it ended, in words, once it did.
    exit: watch::Receiver<Option<String>>,
}

impl OwnChild {
    /// How it ended, in words. To be asked only once it has.
    async fn ended(mut self) -> Option<String> {
        let exit = timeout(REAP_LIMIT, self.exit.wait_for(Option::is_some)).await;
        exit.ok()?.ok()?.clone()
    }
}

impl ProcessSupervisor {
    /// A supervisor over the run folder, which is created if missing. Starts and stops nothing; a
    /// node that an earlier agent started is found by what it holds.
    pub fn new(settings: ProcessSettings) -> Result<Self, ProcessError> {
        let failed = |error| ProcessError::RunDir(settings.run_dir.clone(), error);
        std::fs::create_dir_all(&settings.run_dir).map_err(failed)?;
        // /proc names open files by their real path, so the lock is named by its own.
        let run_dir = settings.run_dir.canonicalize().map_err(failed)?;
        let lock = LockFile::at(run_dir.join("node.lock"));
        let boot = current_boot_id().map_err(ProcessError::Look)?;
        let place = Place { lock, boot };
        Ok(Self {
            settings,
            place,
            operation: tokio::sync::Mutex::default(),
            child: Mutex::default(),
            log_from: AtomicU64::new(0),
        })
    }

    async fn look(&self, depth: Depth) -> Result<Found, ProcessError> {
        self.blocking(move |place| place.look(depth)).await
    }

    async fn members(&self) -> Result<Vec<Process>, ProcessError> {
        self.blocking(Place::members).await
    }

    /// Reads `/proc` where it does not hold up the other tasks.
    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Place) -> io::Result<T> + Send + 'static,
    ) -> Result<T, ProcessError> {
        let place = self.place.clone();
        tokio::task::spawn_blocking(move || read(&place))
            .await
            .map_err(|_| ProcessError::ShuttingDown)?
            .map_err(ProcessError::Look)
    }

    fn own_child(&self) -> Option<OwnChild> {
        // A poisoned lock still holds a whole value: it is only ever replaced.
        self.child
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn remember_child(&self, child: OwnChild) {
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
    }

    /// How the node ended, if this agent was its parent. The kernel shows a process gone a moment
    /// before its parent hears how.
    async fn last_exit(&self) -> Option<String> {
        let child = self.own_child()?;
        let recorded = self.place.record().ok()??;
        if recorded.pid == child.pid {
            child.ended().await
        } else {
            None
        }
    }

    async fn state_now(&self) -> Result<UnitState, ProcessError> {
        Ok(match self.look(Depth::Quick).await? {
            Found::Leader(process) => running(&process),
            // To call this stopped would be untrue; to the engine it is a node whose process changed.
            Found::Others(others) => others
                .first()
                .map_or(UnitState::Stopped { last_exit: None }, running),
            Found::Hidden => return Err(self.hidden()),
            Found::Nothing => UnitState::Stopped {
                last_exit: self.last_exit().await,
            },
        })
    }

    fn hidden(&self) -> ProcessError {
        ProcessError::Hidden(self.place.lock.path().to_owned())
    }

    async fn stop_all(&self, limit: Duration) -> Result<Stop, ProcessError> {
        let mut known = self.operation.lock().await;
        *known = Known::Nothing;
        let first = match self.look(Depth::Thorough).await? {
            Found::Nothing => {
                *known = Known::AllGone;
                return Ok(Stop::WasStopped);
            }
            Found::Leader(leader) => self.blocking(|_| Ok(procfs::family(leader))).await?,
            Found::Others(others) => others,
            Found::Hidden => Vec::new(),
        };
        let stop = if self.ask(first, limit).await? {
            Stop::Asked
        } else {
            self.kill().await?
        };
        if let Some(child) = self.own_child() {
            // To learn how it ended is to reap it: no zombie is left behind.
            child.ended().await;
        }
        *known = Known::AllGone;
        Ok(stop)
    }

    /// Asks these processes of the node to end, and then whatever else is found of it; true once
    /// all have ended.
    async fn ask(&self, first: Vec<Process>, limit: Duration) -> Result<bool, ProcessError> {
        let deadline = Instant::now() + limit;
        let mut asked: Vec<Process> = Vec::new();
        let mut members = first;
        loop {
            for process in members {
                if !asked.contains(&process) {
                    send(&process, Signal::TERM)?;
                    // One that was suspended hears nothing until it goes on.
                    send(&process, Signal::CONT)?;
                    asked.push(process);
                }
            }
            // The cheap question often, the search through all processes only when it says "gone".
            loop {
                if Instant::now() >= deadline {
                    return Ok(false);
                }
                sleep(POLL).await;
                if !asked.iter().any(Process::lives) {
                    break;
                }
            }
            members = self.members().await?;
            if members.is_empty() && self.lock_is_free()? {
                return Ok(true);
            }
        }
    }

    /// Kills every process of the node, and those that they start meanwhile.
    async fn kill(&self) -> Result<Stop, ProcessError> {
        let deadline = Instant::now() + KILL_LIMIT;
        loop {
            let members = self.members().await?;
            if members.is_empty() && self.lock_is_free()? {
                return Ok(Stop::Killed);
            }
            for process in &members {
                send(process, Signal::KILL)?;
            }
            if Instant::now() >= deadline {
                return Err(members
                    .first()
                    .map_or_else(|| self.hidden(), |one| ProcessError::Unkillable(one.into())));
            }
            sleep(POLL).await;
        }
    }

    fn lock_is_free(&self) -> Result<bool, ProcessError> {
        self.place
            .lock
            .holder()
            .map(|holder| holder == Holder::Nobody)
            .map_err(ProcessError::Look)
    }
}

#[async_trait]
impl Supervisor for ProcessSupervisor {
    async fn start(&self) -> Result<u32, EffectError> {
        Ok(self.start_once().await?)
    }

    async fn stop(&self, limit: Duration) -> Result<Stop, EffectError> {
        Ok(self.stop_all(limit).await?)
    }

    async fn commands(&self) -> Result<Vec<Vec<String>>, EffectError> {
        let program = self.settings.program.to_string_lossy().into_owned();
        let words = [program].into_iter().chain(self.settings.args.clone());
        Ok(vec![words.collect()])
    }

    async fn state(&self) -> Result<UnitState, EffectError> {
        Ok(self.state_now().await?)
    }

    async fn log_end(&self) -> Result<String, EffectError> {
        let path = self.settings.log_file.clone();
        let from = self.log_from.load(Ordering::Relaxed);
        let read = move |_: &Place| log::end_of(&path, from, LOG_END_BYTES_MAX);
        Ok(self.blocking(read).await?)
    }

    async fn processes(&self) -> Result<Vec<u32>, EffectError> {
        let found = match self.look(Depth::Quick).await? {
            Found::Leader(leader) => self.blocking(|_| Ok(procfs::family(leader))).await?,
            Found::Others(others) => others,
            Found::Hidden => return Err(self.hidden().into()),
            Found::Nothing => Vec::new(),
        };
        Ok(found.iter().map(|process| process.pid).collect())
    }
}

fn running(process: &Process) -> UnitState {
    UnitState::Running {
        pid: process.pid,
        started_ms: process.started_ms(),
    }
}

fn send(process: &Process, signal: Signal) -> Result<(), ProcessError> {
    process
        .signal(signal)
        .map_err(|error| ProcessError::Signal {
            pid: process.pid,
            source: error.into(),
        })
}
