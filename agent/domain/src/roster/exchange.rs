//! How two members find out what one of them lacks, with few bytes: a digest of everything, then
//! digests of buckets, then the names and digests in the buckets that differ.
//!
//! With nothing new a round costs one digest, whatever the size of the mesh.

use super::{Roster, Said, Subject};
use crate::build::Digest;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Into how many buckets subjects fall: with 1000 members, a bucket holds some 16.
pub const BUCKETS: usize = 64;

/// The newest statement that a member has about each subject of a bucket, by digest.
pub type Listing = BTreeMap<Subject, Digest>;

impl Subject {
    /// The bucket that a subject falls into.
    pub fn bucket(&self) -> usize {
        usize::from(hash([self.to_string().as_bytes()])[0]) % BUCKETS
    }
}

impl Roster {
    /// A digest of every statement.
    pub fn digest(&self) -> Digest {
        let buckets = self.buckets();
        Digest::from_bytes(hash(buckets.into_iter().map(u64::to_be_bytes)))
    }

    /// A digest of each bucket, [`BUCKETS`] of them: 64 bits of each of its statements, by exclusive
    /// or. Statements are signed, so that nobody can make some up whose bits cancel out.
    pub fn buckets(&self) -> Vec<u64> {
        self.buckets.clone()
    }

    /// The buckets in which `theirs` differ from what is here.
    pub fn differing(&self, theirs: &[u64]) -> Vec<usize> {
        let own = &self.buckets;
        let differs = |index: &usize| theirs.get(*index) != Some(&own[*index]);
        (0..BUCKETS).filter(differs).collect()
    }

    /// What is held in these buckets.
    pub fn listing(&self, buckets: &[usize]) -> Listing {
        let held = self.said.iter();
        let wanted = held.filter(|(subject, _)| buckets.contains(&subject.bucket()));
        wanted
            .map(|(subject, said)| (subject.clone(), said.digest))
            .collect()
    }

    /// What a member that holds `theirs` in these buckets may lack. Where both hold another
    /// statement about a subject, the other side decides which stands.
    pub fn lacking(&self, buckets: &[usize], theirs: &Listing) -> Vec<&Said> {
        let held = self.said.iter();
        let wanted = held.filter(|(subject, said)| {
            buckets.contains(&subject.bucket()) && theirs.get(subject) != Some(&said.digest)
        });
        wanted.map(|(_, said)| said).collect()
    }
}

/// A statement's part in the digest of its bucket.
pub(super) fn part(said: &Said) -> u64 {
    let [first, ..] = said.digest.as_bytes().as_chunks::<8>().0 else {
        return 0;
    };
    u64::from_be_bytes(*first)
}

fn hash<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}
