//! What is written down about a snapshot.

use super::error::SnapshotError;
use cbddc_domain::build::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What the caller says about a snapshot that is to be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSnapshot {
    /// Its id: 1 to 64 letters, digits, `.`, `_` and `-`, beginning with a letter or digit.
    pub id: String,
    /// When it is taken, in milliseconds of Unix time.
    pub taken_at_ms: i64,
    /// Why it is taken, in a sentence of at most 1000 bytes.
    pub reason: String,
    /// Whatever else is to be found again with it: the generation, the rollout.
    pub labels: BTreeMap<String, String>,
}

/// A complete snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its id.
    pub id: String,
    /// When it was taken, in milliseconds of Unix time.
    pub taken_at_ms: i64,
    /// Why it was taken.
    pub reason: String,
    /// Whatever else is to be found again with it.
    pub labels: BTreeMap<String, String>,
    /// The databases, in the order they were named.
    pub files: Vec<SnapshotFile>,
}

impl Snapshot {
    /// The bytes that its copies take.
    pub fn size(&self) -> u64 {
        self.files.iter().map(SnapshotFile::size).sum()
    }

    /// True if a database was damaged when it was taken, so that its files were kept as they were.
    pub fn holds_damaged(&self) -> bool {
        self.files
            .iter()
            .any(|file| matches!(file.state, FileState::Damaged { .. }))
    }
}

/// One database of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotFile {
    /// Where the database lies on this host.
    pub source: PathBuf,
    /// What was found there.
    pub state: FileState,
}

impl SnapshotFile {
    /// The bytes that its copies take.
    pub fn size(&self) -> u64 {
        self.parts().iter().map(|part| part.size).sum()
    }

    /// The files that were kept.
    pub fn parts(&self) -> &[Part] {
        match &self.state {
            FileState::Absent => &[],
            FileState::Copied { copy, .. } => std::slice::from_ref(copy),
            FileState::Damaged { parts, .. } => parts,
        }
    }
}

/// What was found where a database should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// Nothing: the node had not made its database yet. Restoring removes the database.
    Absent,
    /// A sound database; the copy passed `PRAGMA integrity_check`.
    Copied {
        /// The complete copy.
        copy: Part,
        /// The source's `PRAGMA journal_mode`, such as `wal`.
        journal_mode: String,
    },
    /// A damaged database, which was being replaced; its files were kept bit by bit.
    Damaged {
        /// The database file and those of `-wal`, `-shm`, `-journal` that were there.
        parts: Vec<Part>,
        /// What was wrong with it.
        finding: String,
    },
}

/// One kept file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name within the snapshot's folder.
    pub name: String,
    /// What follows the database's path in the original's name: nothing, `-wal`, `-shm`, `-journal`.
    pub suffix: String,
    /// Its size in bytes.
    pub size: u64,
    /// The digest of its content.
    pub digest: Digest,
}

/// The longest reason, label or label's name, in bytes.
const TEXT_BYTES: usize = 1000;
/// The most labels.
const LABELS: usize = 32;

impl NewSnapshot {
    /// Refuses what cannot be a folder's name or would bloat the record.
    pub(super) fn check(&self) -> Result<(), SnapshotError> {
        check_id(&self.id)?;
        let short = |text: &String| text.len() <= TEXT_BYTES;
        let labels =
            self.labels.len() <= LABELS && self.labels.iter().all(|(k, v)| short(k) && short(v));
        if short(&self.reason) && labels {
            return Ok(());
        }
        let rule = "at most 1000 bytes each, and at most 32 labels";
        Err(SnapshotError::Invalid {
            what: "the reason or the labels".into(),
            rule,
        })
    }
}

/// Refuses an id that is not safe as a folder's name.
pub(super) fn check_id(id: &str) -> Result<(), SnapshotError> {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let first = id
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first && id.len() <= 64 && id.bytes().all(inside) {
        return Ok(());
    }
    let what = format!(
        "the id `{}`",
        id.chars().take(80).collect::<String>().escape_debug()
    );
    let rule = "1 to 64 of A-Z, a-z, 0-9, `.`, `_`, `-`, beginning with a letter or digit";
    Err(SnapshotError::Invalid { what, rule })
}
