//! What was asked of one process of the node and need not be asked again, also after the agent started
//! anew: real nodes log a warning for a wrong token, and for a question that they do not know.

use std::path::PathBuf;

/// Where it is kept: in a folder that does not outlive the boot, as process ids do not.
#[derive(Debug, Default)]
pub(super) struct Asked {
    path: Option<PathBuf>,
}

/// What is known of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Known {
    pub(super) wrong_token_refused: bool,
    pub(super) knows_no_status: bool,
}

const REFUSES: &str = "refuses-wrong-token";
const NO_STATUS: &str = "knows-no-status";

impl Asked {
    pub(super) fn at(path: Option<PathBuf>) -> Self {
        Self { path }
    }

    /// What was written down of this process. A file that cannot be read says nothing.
    pub(super) async fn of(&self, process: (u32, u64)) -> Known {
        let Some(path) = self.path.clone() else {
            return Known::default();
        };
        let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path));
        let text = read.await.ok().and_then(Result::ok).unwrap_or_default();
        let mut words = text.split_ascii_whitespace();
        let (pid, started_ms) = process;
        if words.next() != Some(&*pid.to_string()) || words.next() != Some(&*started_ms.to_string())
        {
            return Known::default();
        }
        let words: Vec<&str> = words.collect();
        Known {
            wrong_token_refused: words.contains(&REFUSES),
            knows_no_status: words.contains(&NO_STATUS),
        }
    }

    /// Writes down what is known of this process. Where that fails, the agent asks again after its next
    /// start.
    pub(super) async fn keep(&self, process: (u32, u64), known: Known) {
        let Some(path) = self.path.clone() else {
            return;
        };
        let (pid, started_ms) = process;
        let mut text = format!("{pid} {started_ms}");
        for (word, is_so) in [
            (REFUSES, known.wrong_token_refused),
            (NO_STATUS, known.knows_no_status),
        ] {
            if is_so {
                text.push(' ');
                text.push_str(word);
            }
        }
        let written = tokio::task::spawn_blocking(move || std::fs::write(path, text));
        if let Ok(Err(error)) = written.await {
            tracing::debug!(%error, "what was asked of the node is not kept");
        }
    }
}
