//! Outcomes as tables for people and JSON for programs. Data goes to stdout, talk to stderr; nothing
//! needs colour to be understood.
//!
//! JSON is one object per command, in snake_case. Commands that ask nodes have a `nodes` array,
//! sorted by name, of [`NodeRow`]s. Times are RFC 3339 in UTC; digests are hexadecimal; epochs are
//! `COUNTER-NONCE`. Absent things are `null` or empty, never left out.

mod table;
pub mod values;

pub use table::Table;

use crate::cli::Output;
use crate::error::{CtlError, Exit};
use crate::mesh::Outcome;
use cbddc_domain::id::NodeName;
use cbddc_proto::convert::Malformed;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Write as _};

/// What came of asking one node, as JSON shows it.
#[derive(Debug, Clone, Serialize)]
pub struct NodeRow<T> {
    /// Its name.
    pub node: NodeName,
    /// `ok`, `unreachable`, `refused` or `timed_out`.
    pub outcome: &'static str,
    /// The stable word of a refusal, such as `locked`.
    pub word: Option<String>,
    /// Why there is no result, in a sentence.
    pub message: Option<String>,
    /// The command's own part.
    pub result: Option<T>,
}

/// Outcomes as rows, sorted by node. An answer that makes no sense counts as refused.
pub fn rows<T, U>(
    outcomes: BTreeMap<NodeName, Outcome<T>>,
    convert: impl Fn(T) -> Result<U, Malformed>,
) -> Vec<NodeRow<U>> {
    outcomes
        .into_iter()
        .map(|(node, outcome)| row(node, outcome, &convert))
        .collect()
}

fn row<T, U>(
    node: NodeName,
    outcome: Outcome<T>,
    convert: impl Fn(T) -> Result<U, Malformed>,
) -> NodeRow<U> {
    let (outcome, word, message, result) = match outcome {
        Outcome::Ok(answer) => match convert(answer) {
            Ok(result) => ("ok", None, None, Some(result)),
            Err(fault) => {
                let message = format!("the answer makes no sense: {fault}");
                (
                    "refused",
                    Some("malformed_answer".to_owned()),
                    Some(message),
                    None,
                )
            }
        },
        Outcome::Unreachable { why } => ("unreachable", None, Some(why), None),
        Outcome::Refused { word, message } => ("refused", Some(word), Some(message), None),
        Outcome::TimedOut => {
            let message = "no answer within the limit (--timeout)".to_owned();
            ("timed_out", None, Some(message), None)
        }
    };
    NodeRow {
        node,
        outcome,
        word,
        message,
        result,
    }
}

impl<T> NodeRow<T> {
    /// Why there is no result, in one line.
    pub fn complaint(&self) -> Option<String> {
        let message = self.message.as_ref()?;
        let word = self
            .word
            .as_ref()
            .map_or_else(String::new, |word| format!(" ({word})"));
        Some(format!("{}: {}{word}: {message}", self.node, self.outcome))
    }
}

/// Says on stderr which nodes gave no result, and why.
pub fn complain<T>(rows: &[NodeRow<T>]) {
    let silent = rows.iter().filter(|row| row.result.is_none()).count();
    if silent > 0 {
        eprintln!("{silent} of {} nodes gave no result:", rows.len());
    }
    for complaint in rows.iter().filter_map(NodeRow::complaint) {
        eprintln!("  {complaint}");
    }
}

/// The word with which an agent refuses what the caller's role does not allow.
pub const NOT_ALLOWED: &str = "not_allowed";

/// How a command ends that only asks or stores: done, partial, or failed where no node did it;
/// not allowed where that is all that there was to hear.
pub fn exit_of<T>(rows: &[NodeRow<T>]) -> Exit {
    let results = rows.iter().filter(|row| row.result.is_some()).count();
    let mut words = rows.iter().filter_map(|row| row.word.as_deref()).peekable();
    match results {
        _ if results == rows.len() => Exit::Done,
        0 if words.peek().is_some() && words.all(|word| word == NOT_ALLOWED) => Exit::NotAllowed,
        0 => Exit::Failed,
        _ => Exit::Partial,
    }
}

/// Prints the data of a command: `table` is only called where it is needed.
pub fn print(
    output: Output,
    json: &impl Serialize,
    table: impl FnOnce() -> String,
) -> Result<(), CtlError> {
    match output {
        Output::Table => write(&table()),
        Output::Json => write(&format!("{}\n", to_json(json, true)?)),
    }
}

/// Prints one JSON object on one line, for commands that go on.
pub fn print_line(json: &impl Serialize) -> Result<(), CtlError> {
    write(&format!("{}\n", to_json(json, false)?))
}

fn to_json(value: &impl Serialize, pretty: bool) -> Result<String, CtlError> {
    let text = if pretty {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    text.map_err(|error| CtlError::failed("cannot make JSON of the result").because(error))
}

/// Writes to stdout at once.
pub fn write(text: &str) -> Result<(), CtlError> {
    let mut stdout = std::io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => Ok(()),
        // Whoever reads has seen enough, as in `cbctl journal follow | head`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(CtlError::failed("cannot write to stdout").because(error)),
    }
}
