//! Plays the main job with the real programs on a mesh of its own; see [`cbddc_tests::demo`].

use cbddc_tests::demo::{keep, story};
use cbddc_tests::mesh::interrupt;
use clap::Parser;
use std::panic::{catch_unwind, set_hook};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Plays the main job on a mesh of three hosts on loopback: roll out, notice, go back.
#[derive(Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Leaves the mesh up at the end and says what to try.
    #[arg(long)]
    keep: bool,
    /// Plays nothing; ends a mesh that was kept.
    #[arg(long, value_name = "FOLDER", conflicts_with = "keep")]
    end: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    watch_for_interrupts();
    set_hook(Box::new(|panic| {
        if !interrupt::is_set() {
            eprintln!("\nnot as told: {}", panic.payload_as_str().unwrap_or("?"));
        }
    }));
    let played = catch_unwind(|| match &arguments.end {
        Some(folder) => keep::end(folder),
        None => story::play(arguments.keep),
    });
    match played {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
        Err(_) if interrupt::is_set() => {
            eprintln!("\ninterrupted; everything that was started has been ended");
            ExitCode::from(130)
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// On Ctrl-C or SIGTERM everything that waits gives up, and ends what it started.
fn watch_for_interrupts() {
    std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime for signals");
        runtime.block_on(async {
            let mut interrupted = signal(SignalKind::interrupt()).expect("SIGINT can be watched");
            let mut terminated = signal(SignalKind::terminate()).expect("SIGTERM can be watched");
            tokio::select! {
                _ = interrupted.recv() => {}
                _ = terminated.recv() => {}
            }
            interrupt::set();
        });
    });
}
