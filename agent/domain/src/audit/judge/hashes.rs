//! What recomputing the hash of a row says, without making a row of texts first.

use super::{Held, Judge, Variant, event};
use crate::audit::row::Link;
use crate::oplog::HashCheck;
use crate::replication::FindingKind;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// Compares the stored hash with today's rule, as `crate::oplog::check_hash` does with whole rows.
/// Rows come without payloads, so the rule of 0.8.3 and 0.8.4 cannot be tried.
pub(super) fn check(held: &Held<'_>, origin: &str, collection: &str) -> HashCheck {
    let row = held.row;
    let hashed = |previous: Link, odd: Option<&str>| {
        let mut text = String::with_capacity(192);
        let (op, wall, logic) = (row.operation.number(), row.wall, row.logic);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "{collection}|{}|{op}||{wall}:{logic}:{origin}|",
            held.key
        );
        match odd {
            Some(odd) => text.push_str(odd),
            None => {
                let _ = write!(text, "{previous}");
            }
        }
        Link(Sha256::digest(text.as_bytes()).into())
    };
    let odd = row.odd.as_deref();
    if row.hash == hashed(row.previous, odd.map(|odd| odd.previous.as_str())) {
        return HashCheck::Matches;
    }
    let swapped = || hashed(row.hash, odd.map(|odd| odd.hash.as_str()));
    if row.previous != Link::NONE && row.previous == swapped() {
        HashCheck::Swapped
    } else if row.hash == Link::NONE {
        HashCheck::NoHash
    } else {
        HashCheck::Differs
    }
}

impl Judge {
    pub(super) fn tell_hashes(&mut self, variants: &[Variant<'_>]) {
        for variant in variants {
            let kind = match variant.check {
                HashCheck::Matches => {
                    self.verified.insert(variant.first.row.origin);
                    continue;
                }
                HashCheck::MatchesLegacyRule => continue,
                HashCheck::NoHash => FindingKind::NoHash,
                HashCheck::Swapped => FindingKind::SnapshotSwapped,
                HashCheck::Differs => {
                    let differing = (event(&variant.first), variant.on.clone());
                    self.differing.push(differing);
                    continue;
                }
            };
            let it = event(&variant.first);
            self.tell(kind, &it, &variant.on, &[], String::new());
        }
    }

    /// Rows whose hash differs were tampered with, unless no row of their origin can be checked.
    pub(super) fn tell_differing(&mut self) {
        for (event, on) in std::mem::take(&mut self.differing) {
            let kind = if self.verified.contains(&event.origin) {
                FindingKind::Tampered
            } else {
                FindingKind::UnknownHash
            };
            self.tell(kind, &event, &on, &[], String::new());
        }
    }
}
