//! A file per noun. Each asks, prints what came of it, and says how it ended.

mod build;
mod ending;
mod following;
mod health;
mod journal;
mod mesh;
mod node;
mod release;
mod replication;
mod rollback;
mod rollout;
mod snapshot;
mod status;
mod stops;

use crate::cli::{BuildCommand, Cli, Command, CommonArgs, ConfirmArgs, Output, ReplicationCommand};
use crate::context::Context;
use crate::error::{CtlError, Exit};
use crate::mesh::Session;
use std::future::Future;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

/// Where a host's agent listens for root.
pub(crate) const SOCKET: &str = "/run/cbagent/agent.sock";

/// Runs a command line that made sense.
pub fn run(cli: Cli) -> Result<Exit, CtlError> {
    let common = cli.common;
    match cli.command {
        Command::Mesh(command) => mesh::run(command, &common),
        Command::Build(BuildCommand::Pack(arguments)) => build::pack(&arguments, common.output),
        Command::Replication(ReplicationCommand::Audit(arguments)) if !arguments.db.is_empty() => {
            replication::files(&arguments.db, !arguments.no_documents, common.output)
        }
        command @ (Command::Status(_)
        | Command::Rollback(_)
        | Command::Build(_)
        | Command::Release(_)
        | Command::Rollout(_)
        | Command::Snapshot(_)
        | Command::Health(_)
        | Command::Replication(_)
        | Command::Node(_)
        | Command::Journal(_)) => {
            let session = open(&common)?;
            needs_mesh(&command, &session)?;
            let learnt = async {
                let session = session.learn().await;
                dispatch(command, &session, common.output).await
            };
            until_interrupted(&session, learnt)
        }
    }
}

async fn dispatch(command: Command, session: &Session, output: Output) -> Result<Exit, CtlError> {
    match command {
        Command::Status(arguments) => status::run(&arguments, session, output).await,
        Command::Rollback(arguments) => rollback::run(arguments, session, output).await,
        Command::Build(command) => build::run(command, session, output).await,
        Command::Release(command) => release::run(command, session, output).await,
        Command::Rollout(command) => rollout::run(command, session, output).await,
        Command::Snapshot(command) => snapshot::run(command, session, output).await,
        Command::Health(command) => health::run(command, session, output).await,
        Command::Replication(command) => replication::run(command, session, output).await,
        Command::Node(command) => node::run(command, session, output).await,
        Command::Journal(command) => journal::run(command, session, output).await,
        Command::Mesh(_) => Err(CtlError::failed("mesh commands need no session")),
    }
}

pub(crate) fn open(common: &CommonArgs) -> Result<Session, CtlError> {
    let found = Context::find(common.context.as_deref());
    let usual = Path::new(SOCKET);
    let socket = match (&common.socket, &found) {
        (Some(socket), _) => Some(socket.as_path()),
        (None, Err(_)) if common.context.is_none() && usual.exists() => Some(usual),
        (None, _) => None,
    };
    match socket {
        Some(socket) => {
            let runtime = crate::runtime()?;
            runtime.block_on(Session::open_socket(socket, common.jobs, common.timeout))
        }
        None => Session::open(found?, common.jobs, common.timeout),
    }
}

/// What changes the mesh as a whole needs a certificate of the mesh: the socket speaks for one host.
fn needs_mesh(command: &Command, session: &Session) -> Result<(), CtlError> {
    use crate::cli::{ReleaseCommand, RolloutCommand as Rollout};
    let changes = match command {
        Command::Rollback(_) | Command::Release(ReleaseCommand::Trust { .. }) => true,
        Command::Rollout(command) => !matches!(command, Rollout::Status { .. } | Rollout::List),
        Command::Status(_)
        | Command::Build(_)
        | Command::Release(_)
        | Command::Snapshot(_)
        | Command::Health(_)
        | Command::Replication(_)
        | Command::Node(_)
        | Command::Journal(_)
        | Command::Mesh(_) => false,
    };
    if changes && session.is_local() {
        return Err(CtlError::failed(
            "this needs a majority of the mesh, and the socket only reaches this host",
        )
        .hint("run it where a context of the mesh is set up; `cbctl mesh show` tells which one"));
    }
    Ok(())
}

/// Runs a command until it ends or somebody presses Ctrl-C.
pub(crate) fn until_interrupted(
    session: &Session,
    command: impl Future<Output = Result<Exit, CtlError>>,
) -> Result<Exit, CtlError> {
    let runtime = crate::runtime()?;
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = command => ended,
            _ = tokio::signal::ctrl_c() => {
                eprintln!("interrupted: {}", session.standing());
                Ok(Exit::Interrupted)
            }
        }
    });
    // A name server that hangs must not keep the command from ending.
    runtime.shutdown_background();
    ended
}

/// Asks before something changes; [`None`] means go on, otherwise the command ends like this.
pub(crate) fn confirm(question: &str, arguments: ConfirmArgs) -> Result<Option<Exit>, CtlError> {
    if arguments.dry_run {
        eprintln!("dry run: nothing was changed");
        return Ok(Some(Exit::Done));
    }
    if arguments.yes {
        return Ok(None);
    }
    if !std::io::stdin().is_terminal() {
        return Err(CtlError::usage(format!(
            "not at a terminal, so nobody can be asked: {question}"
        ))
        .hint("add --yes to go on without a question, or --dry-run to see what would happen"));
    }
    eprint!("{question} [y/N] ");
    drop(std::io::stderr().flush());
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| CtlError::failed("cannot read the answer").because(error))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(None);
    }
    eprintln!("nothing was changed");
    Ok(Some(Exit::Failed))
}
