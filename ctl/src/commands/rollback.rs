//! `cbctl rollback`.

use crate::cli::{Output, RollbackArgs};
use crate::error::{CtlError, Exit};
use crate::mesh::Session;

/// Runs the command.
pub(super) async fn run(
    _arguments: RollbackArgs,
    _session: &Session,
    _output: Output,
) -> Result<Exit, CtlError> {
    Err(CtlError::failed("rollback is not built yet"))
}
