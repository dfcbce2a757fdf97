//! Shows an admin at work: each command line as it is typed, what it prints as it comes, and how it
//! ends.

#![expect(
    clippy::disallowed_methods,
    reason = "the demonstration starts programs and tells how long they take"
)]

use crate::mesh::{TestMesh, interrupt};
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// How long one command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// How often Ctrl-C is looked for.
const TICK: Duration = Duration::from_millis(50);

/// The exit code of a `cbctl` that was interrupted.
const INTERRUPTED: i32 = 130;

/// Where the demonstration is shown: standard output.
#[derive(Debug)]
pub struct Stage {
    begun: Instant,
}

/// What one command printed, and how it ended.
#[derive(Debug)]
pub struct Shown {
    /// Both outputs, in the order in which they came.
    pub text: String,
    /// The exit code.
    pub code: i32,
    /// How long it took.
    pub took: Duration,
}

impl Stage {
    /// The time begins now.
    #[expect(clippy::new_without_default, reason = "it reads the clock")]
    pub fn new() -> Self {
        Self {
            begun: Instant::now(),
        }
    }

    /// How long the demonstration has been going on.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// A heading, with the time since the beginning.
    pub fn act(&self, title: &str) {
        println!("\n[{:4.1} s] {title}", self.elapsed().as_secs_f32());
    }

    /// A sentence.
    pub fn say(&self, text: &str) {
        for line in text.lines() {
            println!("         {line}");
        }
    }

    /// Shows a `cbctl` command line and what it prints; panics when it ends otherwise than told.
    #[track_caller]
    pub fn cbctl<S: AsRef<str>>(&self, mesh: &TestMesh, arguments: &[S], code: i32) -> Shown {
        let words: Vec<String> = arguments
            .iter()
            .map(|word| typed(word.as_ref(), mesh))
            .collect();
        let line = format!("cbctl {}", words.join(" "));
        println!("\n  $ {line}");
        let begun = Instant::now();
        let mut command = mesh.cbctl_command(arguments);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = child.expect("cbctl can be started");
        let text = show_output(&mut child);
        let status = end(&mut child);
        let shown = Shown {
            text,
            code: status.code().unwrap_or(-1),
            took: begun.elapsed(),
        };
        println!(
            "  (exit code {}, {:.1} s)",
            shown.code,
            shown.took.as_secs_f32()
        );
        if shown.code == INTERRUPTED {
            // Ctrl-C reached both; this program may hear of it a moment later.
            thread::sleep(TICK);
            interrupt::check();
        }
        assert_eq!(
            shown.code, code,
            "`{line}` was to end with exit code {code}, and ended with {}",
            shown.code
        );
        shown
    }
}

/// A word as an admin in the mesh's folder would type it.
fn typed(word: &str, mesh: &TestMesh) -> String {
    let root = format!("{}/", mesh.root().display());
    let word = word.strip_prefix(&root).unwrap_or(word);
    if word.contains([' ', '"', '\'']) {
        format!("'{}'", word.replace('\'', "'\\''"))
    } else {
        word.to_owned()
    }
}

/// Prints both outputs line by line until both have ended.
fn show_output(child: &mut Child) -> String {
    let (sender, lines) = channel();
    let stdout = child.stdout.take().expect("its output is a pipe");
    let stderr = child.stderr.take().expect("its messages are a pipe");
    let readers = [
        thread::spawn({
            let sender = sender.clone();
            move || read_lines(stdout, &sender)
        }),
        thread::spawn(move || read_lines(stderr, &sender)),
    ];
    let text = print_lines(child, &lines);
    for reader in readers {
        reader.join().expect("reading does not panic");
    }
    text
}

fn read_lines(output: impl Read, lines: &Sender<String>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        if lines.send(line).is_err() {
            return;
        }
    }
}

fn print_lines(child: &mut Child, lines: &Receiver<String>) -> String {
    let until = Instant::now() + COMMAND_LIMIT;
    let mut text = String::new();
    loop {
        match lines.recv_timeout(TICK) {
            Ok(line) => {
                println!("  {line}");
                text.push_str(&line);
                text.push('\n');
            }
            Err(RecvTimeoutError::Disconnected) => return text,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let late = Instant::now() >= until;
        if late || interrupt::is_set() {
            // It has said what it had to say, or it never will.
            let _ = child.kill();
            let _ = child.wait();
            interrupt::check();
            panic!("the command did not end within {COMMAND_LIMIT:?}");
        }
    }
}

/// Both outputs have ended, so the end is near.
fn end(child: &mut Child) -> ExitStatus {
    child.wait().expect("a child can be waited for")
}
