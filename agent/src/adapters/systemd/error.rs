//! Why the unit is not as it was asked to be, each with what to do next.

use crate::adapters::builds::BuildError;
use crate::adapters::gate_files::GateFileError;
use crate::error_chain;
use crate::ports::EffectError;

/// The oldest systemd that this agent works with (Debian 11).
pub const VERSION_MIN: u32 = 247;

/// Why systemd did not do as it was told.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// The bus does not answer.
    #[error("systemd cannot be reached over the system bus; see `systemctl status dbus`")]
    Bus(#[source] Box<zbus::Error>),
    /// systemd answered with something else than was asked for.
    #[error("systemd answered {call} in a way that this agent does not understand")]
    Answer {
        /// Which call.
        call: &'static str,
        /// What is wrong.
        #[source]
        source: Box<zbus::Error>,
    },
    /// systemd refused a call.
    #[error("systemd refused {call}: {text}")]
    Refused {
        /// Which call.
        call: &'static str,
        /// The name of the error on the bus.
        name: String,
        /// Its sentence.
        text: String,
    },
    /// It is too old.
    #[error(
        "this host has systemd {0}; cbagent needs {VERSION_MIN} or newer: upgrade the host, or run the node without `service.unit`"
    )]
    TooOld(String),
    /// No such unit file.
    #[error(
        "there is no unit {0}: install its file and run `systemctl daemon-reload`, or correct `service.unit`"
    )]
    NotFound(String),
    /// The unit is masked.
    #[error("unit {0} is masked: run `systemctl unmask {0}`")]
    Masked(String),
    /// The unit's file is not understood.
    #[error("the file of unit {0} has an error: see `systemd-analyze verify {0}`")]
    BadUnit(String),
    /// A `Condition…=` does not hold.
    #[error(
        "unit {0} was skipped because one of its conditions does not hold: see `systemctl status {0}`"
    )]
    Condition(String),
    /// `ExecCondition=` said no.
    #[error(
        "unit {0} was skipped by its ExecCondition, the gate at start: see `journalctl -u {0}`"
    )]
    Skipped(String),
    /// It did not start.
    #[error("unit {unit} did not start ({how}): see `journalctl -u {unit}`")]
    Failed {
        /// The unit.
        unit: String,
        /// How it ended, in words.
        how: String,
    },
    /// Somebody else stopped it meanwhile.
    #[error("the start of unit {0} was cancelled by another request to systemd; try again")]
    Cancelled(String),
    /// A unit that it needs did not start.
    #[error(
        "unit {0} did not start because a unit that it requires failed: see `systemctl list-dependencies {0}`"
    )]
    Dependency(String),
    /// It is active without a process.
    #[error(
        "unit {0} is active but has no main process: `cbagent` needs a service of Type=simple, exec, notify or forking"
    )]
    NoMainProcess(String),
    /// Its job takes too long.
    #[error("unit {unit} did not {what} within {seconds} s: see `systemctl status {unit}`")]
    Slow {
        /// The unit.
        unit: String,
        /// What it was asked to do.
        what: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// Its processes do not end.
    #[error(
        "processes of unit {unit} were killed but do not end ({processes}); they may hang on a disk"
    )]
    Unkillable {
        /// The unit.
        unit: String,
        /// Which.
        processes: String,
    },
    /// It does not run what the agent activates.
    #[error(
        "unit {unit} begins {begins}, which no rollout changes: run `cbctl node adopt` to let it follow the agent"
    )]
    NotAdopted {
        /// The unit.
        unit: String,
        /// What it begins.
        begins: String,
    },
    /// The gate cannot be told.
    #[error(transparent)]
    Gate(#[from] GateFileError),
    /// What is to start cannot be told.
    #[error("cannot tell which build is to start")]
    Current(#[source] BuildError),
    /// A task of this adapter was cancelled.
    #[error("the agent is shutting down")]
    ShuttingDown,
}

impl From<SystemdError> for EffectError {
    fn from(error: SystemdError) -> Self {
        Self(error_chain(&error))
    }
}
