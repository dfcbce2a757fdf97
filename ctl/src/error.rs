//! What can go wrong, said so that an admin knows what to do next, and the exit code that says it
//! to scripts.

use std::error::Error;
use std::fmt::Write as _;
use std::process::ExitCode;

/// How a command ended. Scripts may rely on these numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// As asked.
    Done,
    /// An error: a file, a name, a reply that makes no sense.
    Failed,
    /// Refused by a gate; nothing changed.
    Refused,
    /// Partial: some nodes are pending or unreachable; they will converge.
    Partial,
    /// The change failed and was fully reverted.
    Reverted,
    /// Inconsistent or in doubt: needs a person.
    InDoubt,
    /// Another rollout holds the lock, or a vote is undecided.
    Locked,
    /// Not allowed: role, window, approval.
    NotAllowed,
    /// Looked, and found something wrong.
    FoundWrong,
    /// The command line makes no sense.
    Usage,
    /// Interrupted; the state and how to resume were printed.
    Interrupted,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Refused => 2,
            Self::Partial => 3,
            Self::Reverted => 4,
            Self::InDoubt => 5,
            Self::Locked => 6,
            Self::NotAllowed => 7,
            Self::FoundWrong => 8,
            Self::Usage => 64,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// A command that did not do what it was asked: kind, details, cause chain and hint.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct CtlError {
    /// How the command ends.
    pub exit: Exit,
    /// What went wrong, in a sentence without a full stop.
    pub what: String,
    /// A line per node or fault.
    pub details: Vec<String>,
    /// What to do next.
    pub hint: Option<String>,
    /// Why.
    #[source]
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl CtlError {
    /// An error of a kind.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Self {
            exit,
            what: what.into(),
            details: Vec::new(),
            hint: None,
            source: None,
        }
    }

    /// An error with [`Exit::Failed`].
    pub fn failed(what: impl Into<String>) -> Self {
        Self::new(Exit::Failed, what)
    }

    /// An error with [`Exit::Usage`].
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Exit::Usage, what)
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a line.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.details.push(detail.into());
        self
    }

    /// Adds why.
    #[must_use]
    pub fn because(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// The whole of it as people read it, a newline at the end.
    pub fn report(&self) -> String {
        let mut text = format!("error: {}", self.what);
        let mut source = Error::source(self);
        while let Some(cause) = source {
            // Causes come from libraries, which sometimes repeat themselves.
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                let _ = write!(text, ": {cause_text}");
            }
            source = cause.source();
        }
        text.push('\n');
        for detail in &self.details {
            let _ = writeln!(text, "  {detail}");
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {hint}");
        }
        text
    }
}

/// A cause chain in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::CtlError;

    #[test]
    fn reports_read_as_designed() {
        let error = CtlError::failed("2 of 5 nodes refused cbddc@1.5.0")
            .detail("till-3: on probation")
            .because(std::io::Error::other("broken pipe"))
            .hint("wait");
        assert_eq!(
            error.report(),
            "error: 2 of 5 nodes refused cbddc@1.5.0: broken pipe\n  till-3: on probation\nhint: wait\n"
        );
    }
}
