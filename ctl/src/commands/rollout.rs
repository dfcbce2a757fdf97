//! `cbctl rollout`.

use crate::cli::{Output, RolloutCommand};
use crate::error::{CtlError, Exit};
use crate::mesh::Session;

/// Runs the command.
pub(super) async fn run(
    _command: RolloutCommand,
    _session: &Session,
    _output: Output,
) -> Result<Exit, CtlError> {
    Err(CtlError::failed("rollout is not built yet"))
}
