//! The admin's own ssh, with the admin's own configuration, keys and agent: a script runs on a host.
//!
//! The script and what it reads come through ssh's standard input, so that nothing of either is in
//! an argument list on any side, and no login shell has to understand them. What comes back is bounded
//! in size and time.

use crate::outcome::bounded;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::process::{Child, Command};

/// The most that is kept of what a script prints, in bytes; scripts print less than 1 KiB.
const STDOUT_BYTES_MAX: usize = 64 * 1024;
/// The most that is kept of the end of what a script complains about, in bytes.
const STDERR_BYTES_MAX: usize = 16 * 1024;
/// How much is read at once, in bytes.
const CHUNK_BYTES: usize = 8 * 1024;
/// How long what was printed may still be on its way when ssh has ended. A connection that ssh keeps
/// for later, as with ControlPersist, may hold the pipes for ever.
const LATE_LIMIT: Duration = Duration::from_secs(1);
/// How many lines of a complaint are shown.
const COMPLAINT_LINES: usize = 12;
/// With this code ssh itself failed; scripts here use others.
const SSH_FAILED: i32 = 255;

/// How ssh is started.
#[derive(Debug, Clone)]
pub struct Ssh {
    /// The program, looked for in PATH.
    pub program: PathBuf,
    /// Another configuration than the admin's usual one.
    pub config: Option<PathBuf>,
    /// Whether the login becomes root by `sudo -n`.
    pub sudo: bool,
    /// Whether somebody is there to be asked about host keys and passphrases.
    pub may_ask: bool,
    /// How long connecting may take, in whole seconds and at least one.
    pub connect_limit: Duration,
}

/// A script that did not run to a good end.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// There is no such program.
    #[error("cannot start {program}: install an ssh client, or name another one with --ssh")]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The pipes to ssh broke.
    #[error("cannot speak to ssh")]
    Pipe(#[source] std::io::Error),
    /// It did not end in time.
    #[error("no end after {} s", .0.as_secs())]
    TimedOut(Duration),
    /// No connection, or no login.
    #[error("{0}")]
    Unreachable(String),
    /// The script ended with an error.
    #[error("{0}")]
    Failed(String),
}

impl Ssh {
    /// Runs a script of `sh` on a host, as root if told to; it reads `payload` from its standard
    /// input. Returns what it printed.
    pub async fn run(
        &self,
        destination: &str,
        script: &str,
        payload: &[u8],
        limit: Duration,
    ) -> Result<String, SshError> {
        let mut child = self.start(destination, script.len())?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (mut said, mut complained) = (Vec::new(), Vec::new());
        let whole = async {
            let status = {
                let talk = async {
                    tokio::join!(
                        send(pipes.0, [script.as_bytes(), payload]),
                        keep_beginning(pipes.1, &mut said),
                        keep_end(pipes.2, &mut complained),
                    )
                };
                tokio::pin!(talk);
                tokio::select! {
                    _ = &mut talk => child.wait().await,
                    status = child.wait() => {
                        drop(tokio::time::timeout(LATE_LIMIT, &mut talk).await);
                        status
                    }
                }
            };
            judged(status.map_err(SshError::Pipe)?, said, &complained)
        };
        // On a time-out the child is dropped, which kills it.
        tokio::time::timeout(limit, whole)
            .await
            .unwrap_or(Err(SshError::TimedOut(limit)))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that starts ssh, which is the admin's own program"
    )]
    fn start(&self, destination: &str, script_bytes: usize) -> Result<Child, SshError> {
        Command::new(&self.program)
            .args(self.arguments(destination, script_bytes))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| SshError::Start {
                program: self.program.clone(),
                source,
            })
    }

    /// What ssh is called with. Neither the script nor what it reads is in it.
    fn arguments(&self, destination: &str, script_bytes: usize) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        if let Some(config) = &self.config {
            arguments.extend(["-F".into(), config.into()]);
        }
        // No terminal there, no agent and no display lent.
        arguments.extend(["-T", "-a", "-x"].map(OsString::from));
        let seconds = self.connect_limit.as_secs().max(1);
        let mut options = vec![
            format!("ConnectTimeout={seconds}"),
            // A host that falls silent is noticed within 15 s.
            "ServerAliveInterval=5".to_owned(),
            "ServerAliveCountMax=3".to_owned(),
        ];
        if !self.may_ask {
            options.push("BatchMode=yes".to_owned());
        }
        for option in options {
            arguments.extend(["-o".into(), option.into()]);
        }
        let sudo = if self.sudo { "sudo -n " } else { "" };
        // `dd` by single bytes reads no more than the script; the rest is the script's own input.
        let line = format!("{sudo}sh -c 'eval \"$(dd bs=1 count={script_bytes} 2>/dev/null)\"'");
        arguments.extend(["--".into(), destination.into(), line.into()]);
        arguments
    }
}

fn judged(status: ExitStatus, stdout: Vec<u8>, stderr: &[u8]) -> Result<String, SshError> {
    if status.success() {
        return String::from_utf8(stdout)
            .map_err(|_| SshError::Failed("the host's answer is no text".to_owned()));
    }
    let complaint = complaint(stderr);
    let why = if complaint.is_empty() {
        format!("ssh ended with {status} and said nothing")
    } else {
        complaint
    };
    Err(match status.code() {
        Some(SSH_FAILED) => SshError::Unreachable(why),
        Some(_) | None => SshError::Failed(why),
    })
}

/// The last lines of a complaint, in one, without control characters.
fn complaint(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<&str> = lines.collect();
    let last = lines.len().saturating_sub(COMPLAINT_LINES);
    bounded(&lines[last..].join("; "))
}

/// Whoever ends before it has read everything says why by other means: a broken pipe tells nothing.
async fn send(pipe: Option<impl AsyncWrite + Unpin>, parts: [&[u8]; 2]) {
    let Some(mut pipe) = pipe else { return };
    for part in parts {
        if pipe.write_all(part).await.is_err() {
            return;
        }
    }
    drop(pipe.shutdown().await);
}

/// Reads to the end, so that whoever writes is never held up, and keeps the beginning.
async fn keep_beginning(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        let room = STDOUT_BYTES_MAX - kept.len();
        kept.extend_from_slice(&chunk[..count.min(room)]);
    }
}

/// The same, and keeps the end.
async fn keep_end(pipe: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(count @ 1..) = pipe.read(&mut chunk).await {
        kept.extend_from_slice(&chunk[..count]);
        let excess = kept.len().saturating_sub(STDERR_BYTES_MAX);
        kept.drain(..excess);
    }
}
