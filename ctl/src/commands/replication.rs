//! `cbctl replication`.

mod audit;
mod check;
mod show;

pub(super) use audit::files;

use crate::cli::{Output, ReplicationCommand};
use crate::error::{CtlError, Exit};
use crate::mesh::Session;

pub(super) async fn run(
    command: ReplicationCommand,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    match command {
        ReplicationCommand::Check(arguments) => check::run(&arguments, session, output).await,
        ReplicationCommand::Audit(arguments) => audit::run(&arguments, session, output).await,
    }
}
