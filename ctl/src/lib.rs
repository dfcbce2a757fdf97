//! The client of a CBDDC mesh. It keeps no state: every agent stores the plan and its own progress,
//! and any admin's `cbctl` can go on with what another one began.
//!
//! In reading order: [`cli`] is what can be typed; [`context`] says which mesh is meant and who asks;
//! [`mesh`] speaks to many nodes at once, with one outcome per node; [`learn`] asks one of them who is in
//! the mesh, and [`roster`] changes that; [`commands`] has a file per
//! noun; [`mesh_check`] and [`audit`] look at replication; [`render`] turns outcomes into tables and JSON; [`error`] has the exit codes. [`tls`] uses a
//! mesh's certificates; [`enrol`] brings them to hosts through [`ssh`]; [`passphrase`] asks for what
//! opens the root's key.

pub mod audit;
pub mod away;
pub mod cli;
pub mod clusters;
pub mod commands;
pub mod context;
pub mod enrol;
pub mod error;
pub mod learn;
pub mod mesh;
pub mod mesh_check;
pub mod outcome;
pub mod passphrase;
pub mod render;
pub mod rollout;
pub mod roster;
pub mod signatures;
pub mod ssh;
pub mod survey;
pub mod tls;

use clap::Parser as _;
use error::{CtlError, Exit};
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs one command line, the program's name included, and says how it ended.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match cli::Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(refusal) => {
            // Help goes to stdout, faults to stderr. A closed pipe is no reason to complain.
            drop(refusal.print());
            let asked_for_help = refusal.exit_code() == 0;
            return if asked_for_help {
                Exit::Done
            } else {
                Exit::Usage
            }
            .into();
        }
    };
    let ended = commands::run(cli);
    match ended {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprint!("{}", error.report());
            error.exit.into()
        }
    }
}

/// Starts the runtime: one thread is enough for a client and starts fastest.
fn runtime() -> Result<tokio::runtime::Runtime, CtlError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CtlError::failed("cannot start the runtime").because(error))
}
