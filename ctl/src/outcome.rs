//! What came of asking one node.

use crate::error::chain;
use cbddc_proto::WORD_KEY;
use tonic::{Code, Status};

/// What came of asking one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome<T> {
    /// It answered.
    Ok(T),
    /// No connection, or it broke: whether the request took effect is unknown.
    Unreachable {
        /// Why.
        why: String,
    },
    /// It said no.
    Refused {
        /// The stable word, such as `locked`; the gRPC code in lower case where the agent gave none.
        word: String,
        /// Why, in a sentence.
        message: String,
    },
    /// No answer within the limit: whether the request took effect is unknown.
    TimedOut,
}

impl<T> Outcome<T> {
    /// The answer, if there is one.
    pub fn ok(&self) -> Option<&T> {
        match self {
            Self::Ok(answer) => Some(answer),
            Self::Unreachable { .. } | Self::Refused { .. } | Self::TimedOut => None,
        }
    }

    /// The stable word for machines.
    pub fn word(&self) -> &str {
        match self {
            Self::Ok(_) => "ok",
            Self::Unreachable { .. } => "unreachable",
            Self::Refused { word, .. } => word,
            Self::TimedOut => "timed_out",
        }
    }

    /// Why there is no answer; empty when there is one.
    pub fn why(&self) -> &str {
        match self {
            Self::Ok(_) => "",
            Self::Unreachable { why } => why,
            Self::Refused { message, .. } => message,
            Self::TimedOut => "no answer in time",
        }
    }

    /// True where the node did not answer at all, rather than say no.
    pub fn is_silent(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::TimedOut => true,
            Self::Ok(_) | Self::Refused { .. } => false,
        }
    }
}

/// Sorts a failed call into an outcome.
pub fn outcome_of<T>(answer: Result<T, Status>) -> Outcome<T> {
    let status = match answer {
        Ok(answer) => return Outcome::Ok(answer),
        Err(status) => status,
    };
    let word = status
        .metadata()
        .get(WORD_KEY)
        .and_then(|word| word.to_str().ok());
    let message = bounded(status.message());
    match (word, status.code()) {
        (Some(word), _) => Outcome::Refused {
            word: bounded(word),
            message,
        },
        (None, Code::DeadlineExceeded | Code::Cancelled) => Outcome::TimedOut,
        (None, Code::Unavailable) => Outcome::Unreachable {
            why: reason(&status),
        },
        // The client's own transport reports broken connections with a source, agents never do.
        (None, _) if std::error::Error::source(&status).is_some() => Outcome::Unreachable {
            why: reason(&status),
        },
        (None, code) => Outcome::Refused {
            word: snake_case(&format!("{code:?}")),
            message,
        },
    }
}

pub(crate) fn reason(status: &Status) -> String {
    let cause = std::error::Error::source(status).map_or_else(String::new, chain);
    match (status.message(), cause.as_str()) {
        ("", "") => "the connection broke".to_owned(),
        (message, "") => bounded(message),
        ("", cause) => bounded(cause),
        (message, cause) if cause.starts_with(message) => bounded(cause),
        (message, cause) => bounded(&format!("{message}: {cause}")),
    }
}

/// Cuts what came over the network to a length that fits a terminal, and takes control characters out.
pub(crate) fn bounded(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(2000).collect()
}

fn snake_case(text: &str) -> String {
    let mut word = String::new();
    for c in text.chars() {
        if c.is_ascii_uppercase() && !word.is_empty() {
            word.push('_');
        }
        word.push(c.to_ascii_lowercase());
    }
    word
}
