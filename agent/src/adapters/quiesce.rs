//! Calms a node before it is stopped: its writers are told to stop, and what it has not flushed yet
//! gets the time of two sync cycles.
//!
//! A CBDDC node keeps local changes in memory until its next cycle, and stopping it does not flush
//! them (`BLitePendingChangesService.cs`).

use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::VecDeque;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

/// How much of a command's output is kept, of its end: enough for a last line.
const OUTPUT_BYTES_MAX: usize = 4_096;

/// The longest last line that an error repeats, in characters.
const LAST_LINE_CHARS_MAX: usize = 200;

/// How long output is still read after the command ended: something that it left behind may hold its
/// output open.
const OUTPUT_LIMIT: Duration = Duration::from_millis(500);

/// How the writers of a node are stopped and let go again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuiesceSettings {
    /// The command that stops the writers: program and arguments, no shell. It may be run again
    /// when they are stopped already.
    pub drain: Option<Vec<String>>,
    /// The command that lets them write again.
    pub undrain: Option<Vec<String>>,
    /// How long either may take.
    pub command_limit: Duration,
    /// The sync interval of the node.
    pub sync_interval: Duration,
    /// What is waited beyond two of these.
    pub margin: Duration,
}

/// What was done before a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quiesced {
    /// True when a drain command ran and said so. False: the node may still have been written to.
    pub writers_stopped: bool,
    /// How long was waited for the sync cycles, in milliseconds, the command's own time aside.
    pub waited_ms: u64,
}

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum QuiesceError {
    /// The configured command is an empty list.
    #[error("the {0} command is empty; name a program or leave it out")]
    Empty(&'static str),
    /// The program cannot be started.
    #[error("the {what} command {program} does not start")]
    Start {
        /// `drain` or `undrain`.
        what: &'static str,
        /// Its program.
        program: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// Its end cannot be learnt.
    #[error("the {0} command cannot be waited for")]
    Wait(&'static str, #[source] io::Error),
    /// It said no.
    #[error("the {what} command ended with {exit}; its last line: {last_line}")]
    Failed {
        /// `drain` or `undrain`.
        what: &'static str,
        /// Its exit code or signal, in words.
        exit: String,
        /// The last line of its output, cut.
        last_line: String,
    },
    /// It did not end and was killed, with all that it started.
    #[error("the {what} command did not end within {} ms and was killed; its last line: {last_line}", .limit.as_millis())]
    TimedOut {
        /// `drain` or `undrain`.
        what: &'static str,
        /// The limit.
        limit: Duration,
        /// The last line of its output, cut.
        last_line: String,
    },
}

/// Stops the writers, if there is a command for it, and then waits out two sync cycles.
///
/// The wait comes after a successful command, too: what was written last is not flushed yet.
/// A command that fails or hangs ends this with an error, and nothing was waited for.
pub async fn quiesce(settings: &QuiesceSettings) -> Result<Quiesced, QuiesceError> {
    stop_writers(settings).await?;
    let began = Instant::now();
    sleep(
        settings
            .sync_interval
            .saturating_mul(2)
            .saturating_add(settings.margin),
    )
    .await;
    let waited_ms = began.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
    Ok(Quiesced {
        writers_stopped: settings.drain.is_some(),
        waited_ms,
    })
}

/// Stops the writers; does nothing where no command is configured.
pub async fn stop_writers(settings: &QuiesceSettings) -> Result<(), QuiesceError> {
    match &settings.drain {
        Some(command) => run("drain", command, settings.command_limit).await,
        None => Ok(()),
    }
}

/// Lets the writers write again; does nothing where no command is configured.
pub async fn unquiesce(settings: &QuiesceSettings) -> Result<(), QuiesceError> {
    match &settings.undrain {
        Some(command) => run("undrain", command, settings.command_limit).await,
        None => Ok(()),
    }
}

async fn run(what: &'static str, command: &[String], limit: Duration) -> Result<(), QuiesceError> {
    let mut child = spawn(what, command)?;
    let output = (child.stdout.take(), child.stderr.take());
    let mut last_bytes = (Tail::default(), Tail::default());
    let reading = async {
        let read = (last_bytes.0.read(output.0), last_bytes.1.read(output.1));
        tokio::join!(read.0, read.1);
    };
    let ended = timeout(limit, wait(&mut child, reading)).await;
    // What it said last is most likely on its standard error.
    let last_line = last_bytes
        .1
        .last_line()
        .or_else(|| last_bytes.0.last_line());
    let last_line = last_line.unwrap_or_else(|| "(none)".to_owned());
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(QuiesceError::Failed {
            what,
            exit: exit_words(status),
            last_line,
        }),
        Ok(Err(error)) => Err(QuiesceError::Wait(what, error)),
        Err(_) => {
            kill_all(&mut child).await;
            Err(QuiesceError::TimedOut {
                what,
                limit,
                last_line,
            })
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this adapter runs the admin's own commands"
)]
fn spawn(what: &'static str, command: &[String]) -> Result<Child, QuiesceError> {
    let (program, arguments) = command.split_first().ok_or(QuiesceError::Empty(what))?;
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that it can be ended with all that it started.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| QuiesceError::Start {
            what,
            program: program.clone(),
            source,
        })
}

/// Waits for the end of the command while its output is read: a full pipe would stop it.
async fn wait(child: &mut Child, reading: impl Future<Output = ()>) -> io::Result<ExitStatus> {
    tokio::pin!(reading);
    tokio::select! {
        biased;
        status = child.wait() => {
            let _ = timeout(OUTPUT_LIMIT, reading).await;
            status
        }
        () = &mut reading => child.wait().await,
    }
}

/// Kills the command and its group. It was not waited for yet, so its number is still its own.
async fn kill_all(child: &mut Child) {
    let group = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(Pid::from_raw);
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.kill().await;
}

fn exit_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown exit".to_owned(),
    }
}

/// The end of an output, bounded.
#[derive(Default)]
struct Tail(VecDeque<u8>);

impl Tail {
    async fn read(&mut self, output: Option<impl AsyncRead + Unpin>) {
        let Some(mut output) = output else { return };
        let mut piece = [0; 1_024];
        while let Ok(length @ 1..) = output.read(&mut piece).await {
            self.0.extend(&piece[..length]);
            let excess = self.0.len().saturating_sub(OUTPUT_BYTES_MAX);
            self.0.drain(..excess);
        }
    }

    fn last_line(&self) -> Option<String> {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
        let clean = line
            .trim()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c });
        Some(clean.take(LAST_LINE_CHARS_MAX).collect())
    }
}
