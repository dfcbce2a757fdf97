//! Runs programs and keeps what they say.

use super::processes::Process;
use super::{POLL, interrupt};
use rustix::process::Signal;
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Numbers the files with what programs say.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// How a program ended, and what it said.
#[derive(Debug, Clone)]
pub struct Ran {
    /// What was typed.
    pub line: String,
    /// Its exit code; 128 and the signal's number if one ended it.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
}

impl Ran {
    /// Itself, if it ended with this code; panics with all that it said otherwise.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "wrong exit code of {self}");
        self
    }

    /// Its standard output as JSON; panics with all that it said if it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON ({error}) from {self}"))
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            line,
            code,
            stdout,
            stderr,
        } = self;
        write!(f, "`{line}`, which ended with {code}\n{stdout}{stderr}")
    }
}

/// A program under way. It is killed when dropped.
#[derive(Debug)]
pub struct Running {
    line: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    /// Starts it; what it says goes to files in the folder, so that it never waits for a reader.
    #[track_caller]
    pub fn start(line: String, mut command: Command, folder: &std::path::Path) -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let make = |name: &str| {
            let path = folder.join(format!("{number}.{name}"));
            let file = File::create(&path).expect("a file for what a program says");
            (path, file)
        };
        let ((stdout, out_file), (stderr, err_file)) = (make("stdout"), make("stderr"));
        let child = command
            .stdin(Stdio::null())
            .stdout(out_file)
            .stderr(err_file)
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {line}: {error}"));
        Self {
            line,
            child,
            stdout,
            stderr,
        }
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// What it has said so far.
    pub fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// True while it has not ended.
    pub fn lives(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Asks it to end, as Ctrl-C does.
    pub fn interrupt(&self) {
        if let Some(process) = Process::of(self.child.id()) {
            process.signal(Signal::INT);
        }
    }

    /// Kills it as `kill -9` does.
    pub fn kill(mut self) -> Ran {
        self.kill_now()
    }

    /// The same, for whoever keeps it.
    pub fn kill_now(&mut self) -> Ran {
        let _ = self.child.kill();
        self.wait(Duration::from_secs(10))
    }

    /// Waits for its end; panics with what it said when it does not come within the limit.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> Ran {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                let code = status.code();
                let by_signal = || 128 + status.signal().unwrap_or(0);
                return self.ran(code.unwrap_or_else(by_signal));
            }
            interrupt::check();
            if Instant::now() >= until {
                let so_far = self.ran(-1);
                panic!("waited {limit:?} in vain for the end of {so_far}");
            }
            std::thread::sleep(POLL / 5);
        }
    }

    fn ran(&self, code: i32) -> Ran {
        Ran {
            line: self.line.clone(),
            code,
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
