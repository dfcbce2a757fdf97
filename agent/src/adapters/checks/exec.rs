//! A program of the operator's own, by the convention of monitoring plugins: the exit code is the
//! status, the first line is for people.
//!
//! It runs in a process group of its own, and nothing of that group outlives the check, however it
//! ends. What a program moves to another group or session by itself is its own business.

use super::Finding;
use cbddc_domain::health::{Status, read_plugin};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, Interest};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How much of the output is read; plugins are to write less than 4 KiB.
const OUTPUT_BYTES_MAX: usize = 16 * 1024;

/// How long output is still read after the end: what went its own way may hold it open.
const OUTPUT_LIMIT: Duration = Duration::from_millis(300);

/// Where programs are found that are named without a folder, and by programs themselves.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecSettings {
    /// The program and its arguments, no shell.
    pub command: Vec<String>,
    /// Variables of its environment, which is otherwise nearly empty: nothing of the agent's own.
    pub env: BTreeMap<String, String>,
}

/// Kills a process group when it goes out of sight. The group's leader must not have been waited for
/// until then, so that its number cannot be another's.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = kill_process_group(self.0, Signal::KILL);
    }
}

/// Runs the program; takes no longer than `limit`.
pub async fn exec(settings: &ExecSettings, limit: Duration) -> Finding {
    let program = settings.command.first().cloned().unwrap_or_default();
    match timeout(limit, run(settings)).await {
        Ok(Ok(finding)) => finding,
        Ok(Err(error)) => (Status::Unknown, format!("{program} cannot be run: {error}")).into(),
        // Dropping the run has killed the group.
        Err(_) => {
            let text = format!("did not end within {} ms and was killed", limit.as_millis());
            (Status::Unhealthy, text).into()
        }
    }
}

async fn run(settings: &ExecSettings) -> io::Result<Finding> {
    let mut child = spawn(settings)?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let Some(pid) = pid.and_then(Pid::from_raw) else {
        return Err(io::Error::other("it has no process id"));
    };
    let group = Group(pid);
    let ended = Ended::of(pid)?;
    let outputs = (child.stdout.take(), child.stderr.take());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    {
        let reading = async {
            tokio::join!(read(outputs.0, &mut stdout), read(outputs.1, &mut stderr));
        };
        tokio::pin!(reading);
        let mut read_all = false;
        tokio::select! {
            () = &mut reading => read_all = true,
            result = ended.wait() => result?,
        }
        if read_all {
            ended.wait().await?;
        }
        // Its end was seen and not yet waited for: the number of the group is still its own. What it
        // left behind would also hold its output open.
        drop(group);
        if !read_all {
            let _ = timeout(OUTPUT_LIMIT, reading).await;
        }
    }
    let status = child.wait().await?;
    let text = if stdout.is_empty() { &stderr } else { &stdout };
    let report = read_plugin(status.code(), &String::from_utf8_lossy(text));
    Ok(Finding {
        status: report.status,
        detail: report.text,
        figures: report.figures,
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "this adapter runs the operator's own programs"
)]
fn spawn(settings: &ExecSettings) -> io::Result<Child> {
    let (program, arguments) = settings
        .command
        .split_first()
        .ok_or_else(|| io::Error::other("no program is named"))?;
    Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .envs(&settings.env)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Reads to the end and keeps the beginning: a full pipe would stop the program.
async fn read(output: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut output) = output else { return };
    let mut piece = [0; 4_096];
    while let Ok(length @ 1..) = output.read(&mut piece).await {
        let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend(&piece[..length.min(room)]);
    }
}

/// Tells the end of a process without taking it: it stays a zombie, and its number its own.
struct Ended(AsyncFd<OwnedFd>);

impl Ended {
    fn of(pid: Pid) -> io::Result<Self> {
        let handle = pidfd_open(pid, PidfdFlags::empty())?;
        #[allow(
            deprecated,
            reason = "it is sound for a descriptor that is owned and never replaced"
        )]
        AsyncFd::with_interest(handle, Interest::READABLE).map(Self)
    }

    async fn wait(&self) -> io::Result<()> {
        self.0.readable().await.map(drop)
    }
}
