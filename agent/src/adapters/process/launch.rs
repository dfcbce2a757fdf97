//! `cbagent launch`: the few steps between the agent and the node, in the process that becomes the
//! node.
//!
//! It takes the lock, notes who it is, and lets itself be replaced by the node's program, which
//! inherits the lock. So there is no moment in which the node runs and is not known: the agent may be
//! killed at any time. It talks to the agent through its standard output; the agent's end being gone
//! means that the agent died, and then nothing is started.

use super::lock::{self, Record};
use super::procfs::Process;
use crate::adapters::clock::current_boot_id;
use crate::error_chain;
use rustix::io::FdFlags;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// The launcher's exit code when another node holds the lock (`EX_TEMPFAIL` of sysexits.h).
pub const EXIT_BUSY: u8 = 75;

/// The launcher's exit code for every other failure (`EX_OSERR` of sysexits.h).
pub const EXIT_FAILED: u8 = 71;

/// What the launcher reports once it holds the lock, before it becomes the node.
pub(super) const REPORT_LOCKED: &str = "locked";

/// What the launcher reports when another node holds the lock.
pub(super) const REPORT_BUSY: &str = "busy";

/// How often and how long a held lock is tried again: a probe holds it for microseconds only.
const TRIES: u32 = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(5);

/// Becomes the node: `--lock FILE -- PROGRAM [ARGUMENT…]`. Returns only if that failed.
///
/// Expects from its caller: the working directory and environment of the node, its log as standard
/// error, and a pipe for the report as standard output.
pub fn launch(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Some(order) = Order::parse(arguments) else {
        eprintln!("usage: cbagent launch --lock FILE -- PROGRAM [ARGUMENT...]");
        return ExitCode::from(64);
    };
    // The copy closes when the node's program takes over, which tells the agent that it did.
    let mut report = match io::stdout().as_fd().try_clone_to_owned() {
        Ok(copy) => File::from(copy),
        Err(error) => {
            eprintln!("cbagent launch: cannot keep the report pipe: {error}");
            return ExitCode::from(EXIT_FAILED);
        }
    };
    match become_node(&order, &mut report) {
        Ok(never) => match never {},
        Err(LaunchError::Busy) => {
            let _ = writeln!(report, "{REPORT_BUSY}");
            ExitCode::from(EXIT_BUSY)
        }
        Err(error) => {
            // The agent puts this sentence before the admin; the log is for when there is no agent.
            let _ = writeln!(report, "{}", error_chain(&error));
            eprintln!("cbagent launch: {}", error_chain(&error));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Why the node was not started.
#[derive(Debug, thiserror::Error)]
enum LaunchError {
    #[error("another node holds the lock")]
    Busy,
    #[error("cannot take the lock {}", .0.display())]
    Lock(PathBuf, #[source] io::Error),
    #[error("cannot read this process's own identity from /proc")]
    Identity(#[source] io::Error),
    #[error("cannot begin a session of its own")]
    Session(#[source] io::Error),
    #[error("the agent is gone, so the node is not started")]
    AgentGone(#[source] io::Error),
    #[error("the program {} does not exist, or names an interpreter that does not; is the build complete?", .0.display())]
    Missing(PathBuf),
    #[error("the program {} is not executable; pack the build with its file modes", .0.display())]
    NotExecutable(PathBuf),
    #[error("the program {} does not start", .0.display())]
    Exec(PathBuf, #[source] io::Error),
}

struct Order {
    lock: PathBuf,
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Order {
    fn parse(arguments: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut arguments = arguments.into_iter();
        if arguments.next()? != "--lock" {
            return None;
        }
        let lock = PathBuf::from(arguments.next()?);
        if arguments.next()? != "--" {
            return None;
        }
        let program = PathBuf::from(arguments.next()?);
        Some(Self {
            lock,
            program,
            arguments: arguments.collect(),
        })
    }
}

fn become_node(order: &Order, report: &mut File) -> Result<Infallible, LaunchError> {
    let mut lock = take_lock(&order.lock)?;
    let record = own_record().map_err(LaunchError::Identity)?;
    lock::write_record(&mut lock, &record).map_err(|e| LaunchError::Lock(order.lock.clone(), e))?;
    // A session of its own: signals to the agent's group, or a hang-up of its terminal, pass it by.
    rustix::process::setsid().map_err(|e| LaunchError::Session(e.into()))?;
    rustix::io::fcntl_setfd(&lock, FdFlags::empty())
        .map_err(|e| LaunchError::Lock(order.lock.clone(), e.into()))?;
    // From here on a new agent would find the lock held. If the old one died before this line was
    // written, a new one may already have seen a free lock and be changing the node's files.
    writeln!(report, "{REPORT_LOCKED}").map_err(LaunchError::AgentGone)?;
    Err(replace_by(order))
}

fn take_lock(path: &Path) -> Result<File, LaunchError> {
    for _ in 0..TRIES {
        if let Some(file) =
            lock::try_take(path).map_err(|e| LaunchError::Lock(path.to_owned(), e))?
        {
            return Ok(file);
        }
        sleep(BETWEEN_TRIES);
    }
    Err(LaunchError::Busy)
}

fn own_record() -> io::Result<Record> {
    let own = Process::read(std::process::id()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "/proc/self/stat is not readable")
    })?;
    Ok(Record {
        pid: own.pid,
        start_ticks: own.start_ticks,
        boot: current_boot_id()?,
    })
}

/// Replaces this process by the node's program; both of its outputs go to the log.
#[expect(
    clippy::disallowed_methods,
    reason = "the launcher is the part of the process adapter that starts the node"
)]
fn replace_by(order: &Order) -> LaunchError {
    let log = match io::stderr().as_fd().try_clone_to_owned() {
        Ok(log) => log,
        Err(error) => return LaunchError::Exec(order.program.clone(), error),
    };
    let mut program = std::process::Command::new(&order.program);
    program.args(&order.arguments).stdout(Stdio::from(log));
    let mut error = program.exec();
    for _ in 0..TRIES {
        // Another process that was being started while the build was unpacked may still have the
        // file open for writing, for as long as its own start takes.
        if error.kind() != io::ErrorKind::ExecutableFileBusy {
            break;
        }
        sleep(BETWEEN_TRIES);
        error = program.exec();
    }
    let program = order.program.clone();
    if error.kind() == io::ErrorKind::NotFound {
        LaunchError::Missing(program)
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        LaunchError::NotExecutable(program)
    } else {
        LaunchError::Exec(program, error)
    }
}

#[cfg(test)]
mod tests {
    use super::Order;
    use std::ffi::OsString;

    fn parse(arguments: &[&str]) -> Option<(String, String, usize)> {
        let order = Order::parse(arguments.iter().map(OsString::from))?;
        Some((
            order.lock.display().to_string(),
            order.program.display().to_string(),
            order.arguments.len(),
        ))
    }

    #[test]
    fn an_order_is_read_whole_or_not_at_all() {
        let whole = parse(&["--lock", "/l", "--", "/p", "--lock", "x"]);
        assert_eq!(whole, Some(("/l".into(), "/p".into(), 2)));
        for bad in [
            &[][..],
            &["--lock"],
            &["--lock", "/l"],
            &["--lock", "/l", "--"],
            &["/l", "--", "/p"],
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
