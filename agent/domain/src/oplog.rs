//! The events of a CBDDC node's oplog, and the hash chain that links those of one origin.
//!
//! The rules are those of `OplogEntry.cs`. What a broken chain *means* is decided elsewhere: here
//! is only what one row says about itself.

use crate::hlc::Hlc;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt;

/// What an event did to its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operation {
    /// The document was written.
    Put,
    /// The document was deleted; a tombstone stays.
    Delete,
}

impl Operation {
    /// Reads the name that travels on the wire, in any case: `.NET` sends `Put`, NodeJs `put`.
    pub fn parse(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("put") {
            Some(Self::Put)
        } else if name.eq_ignore_ascii_case("delete") {
            Some(Self::Delete)
        } else {
            None
        }
    }

    /// Reads the number that databases and hashes use.
    pub fn from_number(number: i64) -> Option<Self> {
        match number {
            0 => Some(Self::Put),
            1 => Some(Self::Delete),
            _ => None,
        }
    }

    /// The number that databases and hashes use: 0 for put, 1 for delete.
    pub fn number(self) -> u8 {
        match self {
            Self::Put => 0,
            Self::Delete => 1,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Put => "Put",
            Self::Delete => "Delete",
        })
    }
}

/// One event, as a peer sent it or as a row holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OplogEntry {
    /// The collection of the document.
    pub collection: String,
    /// The key of the document within its collection.
    pub key: String,
    /// What happened to the document.
    pub operation: Operation,
    /// The document as JSON text; empty when there is none. Not covered by the hash.
    pub payload: String,
    /// When and where the event was written.
    pub hlc: Hlc,
    /// The stored hash, in lowercase hex; empty in dialects that have none.
    pub hash: String,
    /// The hash of the origin's preceding event in any collection; empty for its first.
    pub previous_hash: String,
}

impl OplogEntry {
    /// Gives the entry the hash that its other fields ask for.
    pub fn seal(mut self) -> Self {
        self.hash = expected_hash(&self);
        self
    }
}

/// What recomputing the hash of a row says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HashCheck {
    /// The stored hash is the recomputed one.
    Matches,
    /// The stored hash follows the rule of versions 0.8.3 and 0.8.4.
    MatchesLegacyRule,
    /// The row has no hash: its dialect knows none.
    NoHash,
    /// Hash and previous hash are exchanged, as a snapshot import does (`SnapshotStore.cs`).
    Swapped,
    /// The row is not what was hashed.
    Differs,
}

/// The hash that an entry should have: lowercase hex SHA-256 over
/// `collection|key|op||wall:logic:node|previous_hash`, with nothing escaped.
pub fn expected_hash(entry: &OplogEntry) -> String {
    hash_with_previous(entry, &entry.previous_hash)
}

/// The text that [`expected_hash`] hashes.
pub fn canonical_text(entry: &OplogEntry) -> String {
    canonical_with_previous(entry, &entry.previous_hash)
}

/// The hash under the rule of versions 0.8.3 and 0.8.4, which took the operation's name and the
/// payload's raw text.
pub fn legacy_hash(entry: &OplogEntry) -> String {
    let OplogEntry {
        collection,
        key,
        operation,
        payload,
        hlc,
        previous_hash,
        ..
    } = entry;
    lowercase_hex(&format!(
        "{collection}|{key}|{operation}|{payload}|{hlc}|{previous_hash}"
    ))
}

/// True when the two hash fields of the row are exchanged.
pub fn is_swapped(entry: &OplogEntry) -> bool {
    !entry.previous_hash.is_empty() && hash_with_previous(entry, &entry.hash) == entry.previous_hash
}

/// Compares the stored hash of a row with the rules, the common case first.
pub fn check_hash(entry: &OplogEntry) -> HashCheck {
    if entry.hash == expected_hash(entry) {
        HashCheck::Matches
    } else if is_swapped(entry) {
        HashCheck::Swapped
    } else if entry.hash.is_empty() {
        HashCheck::NoHash
    } else if entry.hash == legacy_hash(entry) {
        HashCheck::MatchesLegacyRule
    } else {
        HashCheck::Differs
    }
}

/// Whether a node holds an event more than once, given its rows of it: of each the check, and hash and
/// previous hash as they are once they are put right.
///
/// A snapshot import writes an event that is there already once more, its hashes exchanged; and one that
/// begins a chain any number of times, since its exchanged hash is empty (`NODE.md`, section 5). Such rows
/// are no duplicates, but rows of different events at one moment are.
pub fn is_doubled<H: PartialEq>(rows: &[(HashCheck, H, H)], no_hash: &H) -> bool {
    let Some((_, hash, previous)) = rows.first() else {
        return false;
    };
    let is_other = |row: &(HashCheck, H, H)| row.1 != *hash || row.2 != *previous;
    let exchanged = rows
        .iter()
        .filter(|row| row.0 == HashCheck::Swapped)
        .count();
    let begins = previous == no_hash;
    (rows.len() > 1 && rows.iter().any(is_other))
        || rows.len() - exchanged > 1
        || (exchanged > 1 && !begins)
}

/// The name that discovery beacons carry for a token: the first eight uppercase hex digits of its
/// SHA-256, and nothing for an empty token. Equal tokens have equal names; the token cannot be read
/// from it, though a weak one can be guessed.
pub fn cluster_hash(token: &str) -> String {
    if token.is_empty() {
        return String::new();
    }
    let mut hash = lowercase_hex(token);
    hash.truncate(8);
    hash.make_ascii_uppercase();
    hash
}

fn hash_with_previous(entry: &OplogEntry, previous_hash: &str) -> String {
    lowercase_hex(&canonical_with_previous(entry, previous_hash))
}

fn canonical_with_previous(entry: &OplogEntry, previous_hash: &str) -> String {
    let OplogEntry {
        collection,
        key,
        operation,
        hlc,
        ..
    } = entry;
    format!(
        "{collection}|{key}|{}||{hlc}|{previous_hash}",
        operation.number()
    )
}

fn lowercase_hex(text: &str) -> String {
    use fmt::Write;
    Sha256::digest(text.as_bytes())
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

#[cfg(test)]
mod tests {
    use super::{HashCheck, Operation, OplogEntry, check_hash, cluster_hash};
    use crate::hlc::Hlc;

    fn entry(previous_hash: &str) -> OplogEntry {
        OplogEntry {
            collection: "users".into(),
            key: "alice".into(),
            operation: Operation::Put,
            payload: "{}".into(),
            hlc: Hlc::new(1_700_000_000_000, 0, "node-a"),
            hash: String::new(),
            previous_hash: previous_hash.into(),
        }
        .seal()
    }

    fn swap(entry: OplogEntry) -> OplogEntry {
        OplogEntry {
            hash: entry.previous_hash.clone(),
            previous_hash: entry.hash.clone(),
            ..entry
        }
    }

    #[test]
    fn a_row_is_told_apart_by_its_hash() {
        let first = entry("");
        assert_eq!(
            first.hash,
            "ddbd29fb8d7b023b2c3c62fa2f39319636cb2fc2e0d1f001d5a0db190cd3ab15"
        );
        assert_eq!(check_hash(&first), HashCheck::Matches);
        assert_eq!(check_hash(&swap(first.clone())), HashCheck::Swapped);
        assert_eq!(check_hash(&swap(entry(&first.hash))), HashCheck::Swapped);
        let tampered = OplogEntry {
            key: "bob".into(),
            ..first.clone()
        };
        assert_eq!(check_hash(&tampered), HashCheck::Differs);
        let hashless = OplogEntry {
            hash: String::new(),
            ..first.clone()
        };
        assert_eq!(check_hash(&hashless), HashCheck::NoHash);
        let payload_changed = OplogEntry {
            payload: "{\"x\":1}".into(),
            ..first
        };
        assert_eq!(
            check_hash(&payload_changed),
            HashCheck::Matches,
            "payloads are not hashed"
        );
    }

    #[test]
    fn an_empty_token_has_no_cluster_hash() {
        assert_eq!(cluster_hash(""), "");
        assert_eq!(cluster_hash("Test-Cluster-Key"), "56497CCF");
    }
}
