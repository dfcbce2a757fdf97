//! Builds that must not start again (rule 14).

use super::epoch::Epoch;
use super::record::Record;
use crate::build::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A build that must not start again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// The epoch of the record that revoked or lifted it; the higher one wins (rule 14).
    pub epoch: Epoch,
    /// True once a decided record has lifted it.
    pub lifted: bool,
    /// Why it was revoked, or why that was lifted.
    pub reason: String,
}

/// Revocations by the digest of the build.
pub type Revocations = BTreeMap<Digest, Revocation>;

/// Merges `new` into `known` (rule 14): the higher epoch wins, revoked wins ties.
pub fn merge_revocations(known: &mut Revocations, new: &Revocations) -> bool {
    let mut changed = false;
    for (build, revocation) in new {
        let wins = known
            .get(build)
            .is_none_or(|held| (revocation.epoch, !revocation.lifted) > (held.epoch, !held.lifted));
        if wins {
            known.insert(*build, revocation.clone());
            changed = true;
        }
    }
    changed
}

/// What follows for revocations from a decided record (rules 12 and 14). A record that revokes and
/// lifts the same build revokes it.
pub fn record_revocations(record: &Record) -> Revocations {
    let of = |lifted: bool| {
        move |(build, reason): (&Digest, &String)| {
            let revocation = Revocation {
                epoch: record.epoch,
                lifted,
                reason: reason.clone(),
            };
            (*build, revocation)
        }
    };
    // What was forced lifts nothing: only votes do.
    let lifted = record.lifts.iter().filter(|_| !record.forced).map(of(true));
    lifted.chain(record.revokes.iter().map(of(false))).collect()
}
