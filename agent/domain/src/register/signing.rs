//! The bytes that the author of a record and its voters sign.
//!
//! Lines of words, one field a line, in a fixed order. Every word is escaped, so that no space and no
//! line break inside a field can look like the end of one: two different records never give the same
//! bytes. The first line names the version; bytes of another version are another document.

use super::epoch::Epoch;
use super::record::{Record, RecordKind};
use crate::build::Digest;
use crate::id::NodeName;
use crate::release::{Release, SetRef};
use std::fmt::Write as _;

impl Record {
    /// What the record's author signs, for the mesh of this name.
    pub fn signing_bytes(&self, mesh: &str) -> Vec<u8> {
        let mut lines = Lines::new("cbddc-record 1", mesh);
        lines.add("epoch", [epoch_word(self.epoch)]);
        lines.add("kind", [kind_word(self.kind).to_owned()]);
        lines.add("forced", [self.forced.to_string()]);
        match &self.release {
            Some(release) => lines.add("release", release_words(release)),
            None => lines.add("no-release", []),
        }
        for (node, release) in &self.exceptions {
            let words = std::iter::once(node.to_string()).chain(release_words(release));
            lines.add("exception", words);
        }
        self.voters
            .iter()
            .for_each(|node| lines.node("voter", node));
        // An empty set of voters before is not the same as no change of voters.
        if let Some(previous) = &self.previous {
            lines.add("changes-voters", []);
            previous
                .iter()
                .for_each(|node| lines.node("previous", node));
        }
        for (build, reason) in &self.revokes {
            lines.add("revokes", [build.to_string(), reason.clone()]);
        }
        for (build, reason) in &self.lifts {
            lines.add("lifts", [build.to_string(), reason.clone()]);
        }
        self.restores
            .iter()
            .for_each(|node| lines.node("restores", node));
        lines.add("proposed-by", [self.proposed_by.clone()]);
        lines.add("reason", [self.reason.clone()]);
        lines.0.into_bytes()
    }
}

/// What a voter signs when it votes for `record` in the mesh of this name.
pub fn vote_signing_bytes(mesh: &str, record: &Record) -> Vec<u8> {
    let mut lines = Lines::new("cbddc-vote 1", mesh);
    lines.add("epoch", [epoch_word(record.epoch)]);
    let digest = Digest::of(&record.signing_bytes(mesh));
    lines.add("record", [digest.to_string()]);
    lines.0.into_bytes()
}

struct Lines(String);

impl Lines {
    fn new(document: &str, mesh: &str) -> Self {
        let mut lines = Self(format!("{document}\n"));
        lines.add("mesh", [mesh.to_owned()]);
        lines
    }

    fn add(&mut self, field: &str, words: impl IntoIterator<Item = String>) {
        self.0.push_str(field);
        for word in words {
            self.0.push(' ');
            push_escaped(&mut self.0, &word);
        }
        self.0.push('\n');
    }

    fn node(&mut self, field: &str, node: &NodeName) {
        self.add(field, [node.to_string()]);
    }
}

/// Visible ASCII stands for itself; every other byte, and `%`, is `%` and two hexadecimal digits.
fn push_escaped(text: &mut String, word: &str) {
    for byte in word.bytes() {
        if byte.is_ascii_graphic() && byte != b'%' {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02x}").expect("a String takes everything");
        }
    }
}

fn epoch_word(epoch: Epoch) -> String {
    format!("{}-{:016x}", epoch.counter, epoch.nonce)
}

fn kind_word(kind: RecordKind) -> &'static str {
    match kind {
        RecordKind::Rollout => "rollout",
        RecordKind::Rollback => "rollback",
        RecordKind::Voters => "voters",
        RecordKind::Trust => "trust",
    }
}

/// Always six words, so that an exception's node and a missing set cannot be taken for another.
fn release_words(release: &Release) -> [String; 6] {
    let [config_id, config] = set_words(release.config.as_ref());
    let [secrets_id, secrets] = set_words(release.secrets.as_ref());
    let build = &release.build;
    [
        build.id.to_string(),
        build.digest.to_string(),
        config_id,
        config,
        secrets_id,
        secrets,
    ]
}

/// A set's name always has an `@` in it, so `-` is none.
fn set_words(set: Option<&SetRef>) -> [String; 2] {
    set.map_or_else(
        || ["-".to_owned(), "-".to_owned()],
        |set| [set.id.to_string(), set.digest.to_string()],
    )
}

#[cfg(test)]
mod tests;
