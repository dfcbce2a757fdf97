//! What makes others believe a record: its author's signature and its voters'.
//!
//! The state machine knows only what was decided. The signatures stand beside it, in a table of
//! their own: before this agent votes for a record it has checked and saved its author's signature,
//! and it hears of a decision from a peer only with the signatures of a majority. So no single
//! member can make another one believe something that nobody decided.
//!
//! A record that was decided stays believed when its author or a voter is taken out later: they were
//! in when they signed, as the majority of the voters saw.

mod disbelief;

pub use disbelief::Disbelief;

use crate::adapters::roster::{RosterKeeper, Signed, signature_message};
use crate::adapters::sqlite::{SqliteError, SqliteStore};
use crate::adapters::tls::Tls;
use cbddc_domain::access::Role;
use cbddc_domain::build::Digest;
use cbddc_domain::id::NodeName;
use cbddc_domain::node::Node;
use cbddc_domain::register::{HeardVotes, Record, RecordKind, RegisterView, record_revocations};
use cbddc_domain::register::{merge_revocations, vote_signing_bytes};
use cbddc_domain::roster::{Author, Standing};
use cbddc_proto::convert::{Malformed, NODES_MAX};
use cbddc_proto::v1;
use prost::Message as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// The most records that are kept with their signatures: undecided votes, the decided record, and
/// those behind revocations.
pub const RECORDS_MAX: usize = 256;

/// A record whose signatures were checked.
#[derive(Debug, Clone)]
pub struct Believed {
    /// The record.
    pub record: Record,
    /// Who voted for it, as their signatures prove.
    pub voters: BTreeSet<NodeName>,
    /// Whether that decides it.
    pub decided: bool,
}

/// A record with its signatures, as they came.
#[derive(Debug, Clone)]
struct Held {
    record: Record,
    author: v1::Signature,
    votes: BTreeMap<NodeName, v1::Signature>,
}

impl Held {
    fn message(&self) -> v1::SignedRecord {
        v1::SignedRecord {
            record: Some((&self.record).into()),
            author: Some(self.author.clone()),
            votes: self.votes.values().cloned().collect(),
        }
    }
}

/// The signatures on this host. Cheap to clone.
#[derive(Clone)]
pub struct EvidenceKeeper {
    store: SqliteStore,
    tls: Tls,
    roster: RosterKeeper,
    held: Arc<Mutex<BTreeMap<Digest, Held>>>,
}

impl EvidenceKeeper {
    /// Reads what this host saved before; it was checked then.
    pub async fn open(
        store: SqliteStore,
        tls: Tls,
        roster: RosterKeeper,
    ) -> Result<Self, SqliteError> {
        let mut held = BTreeMap::new();
        for bytes in store.evidence().await? {
            let read = v1::SignedRecord::decode(bytes.as_slice()).ok();
            if let Some((digest, one)) = read.and_then(|message| read_back(message, tls.mesh())) {
                held.insert(digest, one);
            }
        }
        Ok(Self {
            store,
            tls,
            roster,
            held: Arc::new(Mutex::new(held)),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn digest(&self, record: &Record) -> Digest {
        Digest::of(&record.signing_bytes(self.tls.mesh()))
    }

    /// Checks a record that this agent is asked to vote for, and saves its author's signature.
    pub async fn admit(&self, record: &Record, author: &v1::Signature) -> Result<(), Disbelief> {
        self.check_author(record, author, true)?;
        let digest = self.digest(record);
        if self.lock().contains_key(&digest) {
            return Ok(());
        }
        let new = Held {
            record: record.clone(),
            author: author.clone(),
            votes: BTreeMap::new(),
        };
        self.keep(digest, new).await
    }

    /// This agent's signature for its vote, which it has cast; saved beside the author's.
    pub async fn vote(&self, record: &Record) -> Result<v1::Signature, Disbelief> {
        let digest = self.digest(record);
        let own = self.tls.node().clone();
        let held = self.lock().get(&digest).cloned();
        if let Some(signature) = held.as_ref().and_then(|held| held.votes.get(&own)) {
            return Ok(signature.clone());
        }
        let signed = self.tls.sign(&vote_signing_bytes(self.tls.mesh(), record));
        let signature = signature_message(signed);
        if let Some(mut held) = held {
            held.votes.insert(own, signature.clone());
            self.keep(digest, held).await?;
        }
        Ok(signature)
    }

    /// Signs the votes of this agent that are not signed yet: it may have ended, or failed to write,
    /// between a vote and its signature. Nobody else would believe such a vote, also once it decides.
    pub async fn sign_votes(&self, votes: impl Iterator<Item = &Record>) {
        for record in votes {
            if let Err(fault) = self.vote(record).await {
                tracing::warn!("a vote stays unsigned: {}", crate::error_chain(&fault));
            }
        }
    }

    /// Checks what a peer or a client brought, saves what is new of it, and says what it proves.
    pub async fn believe(&self, message: v1::SignedRecord) -> Result<Believed, Disbelief> {
        let record: Record = message
            .record
            .ok_or(Malformed::Missing("record"))?
            .try_into()?;
        let author = message.author.ok_or(Disbelief::Unsigned)?;
        if message.votes.len() > NODES_MAX {
            return Err(Disbelief::Malformed(Malformed::TooLarge {
                field: "votes",
                bound: NODES_MAX as u64,
            }));
        }
        let digest = self.digest(&record);
        let before = self.lock().get(&digest).cloned();
        let mut held = match before.clone() {
            Some(held) => held,
            None => {
                self.check_author(&record, &author, false)?;
                Held {
                    record: record.clone(),
                    author,
                    votes: BTreeMap::new(),
                }
            }
        };
        let signed = vote_signing_bytes(self.tls.mesh(), &record);
        for vote in message.votes {
            if held.votes.values().any(|known| *known == vote) {
                continue;
            }
            if let Some(voter) = self.voter(&record, &vote, &signed)? {
                held.votes.entry(voter).or_insert(vote);
            }
        }
        let voters: BTreeSet<NodeName> = held.votes.keys().cloned().collect();
        let forced = record.forced && self.author_stands(&held);
        let decided = forced || record.is_decided_by(&voters);
        if !decided {
            self.signer(&record, &held.author)?;
        }
        if before.is_none_or(|before| before.votes.len() < held.votes.len()) {
            self.keep(digest, held).await?;
        }
        Ok(Believed {
            record,
            voters,
            decided,
        })
    }

    /// What a peer's register proves: its decided records, its own votes, and the revocations that
    /// follow. What it only claims is left out, and told.
    pub async fn sift(
        &self,
        peer: &NodeName,
        mut view: RegisterView,
        evidence: Vec<v1::SignedRecord>,
    ) -> RegisterView {
        view.decided = None;
        view.elected = None;
        view.votes.clear();
        view.heard.clear();
        view.revocations.clear();
        for message in evidence.into_iter().take(RECORDS_MAX) {
            let believed = match self.believe(message).await {
                Ok(believed) => believed,
                Err(fault) => {
                    let why = crate::error_chain(&fault);
                    tracing::warn!(%peer, "a record that a peer showed is not believed: {why}");
                    self.roster
                        .refused("record_refused", &format!("node {peer}"), &why)
                        .await;
                    continue;
                }
            };
            let record = believed.record;
            if believed.decided {
                merge_revocations(&mut view.revocations, &record_revocations(&record));
                let newer = |held: &Option<Record>| {
                    held.as_ref().is_none_or(|held| held.epoch < record.epoch)
                };
                if !record.forced && newer(&view.elected) {
                    view.elected = Some(record.clone());
                }
                if newer(&view.decided) {
                    view.decided = Some(record);
                }
            } else {
                if believed.voters.contains(peer) {
                    view.votes.push(record.clone());
                }
                view.heard.push(HeardVotes {
                    record,
                    voters: believed.voters,
                });
            }
        }
        view
    }

    /// All that this agent can prove, for its register's view.
    pub fn all(&self) -> Vec<v1::SignedRecord> {
        self.lock().values().map(Held::message).collect()
    }

    /// A digest of which records this agent can prove, and by whose votes.
    pub fn summary(&self) -> Digest {
        let mut bytes = Vec::new();
        for (record, held) in self.lock().iter() {
            bytes.extend_from_slice(record.as_bytes());
            for voter in held.votes.keys() {
                bytes.extend_from_slice(voter.as_str().as_bytes());
                bytes.push(0);
            }
        }
        Digest::of(&bytes)
    }

    /// Drops the signatures of records that no longer matter to this state.
    pub async fn forget(&self, node: &Node) {
        let dropped: Vec<Digest> = {
            let mut held = self.lock();
            let stale: Vec<Digest> = held
                .iter()
                .filter(|(_, held)| !matters(&held.record, node))
                .map(|(digest, _)| *digest)
                .collect();
            for digest in &stale {
                held.remove(digest);
            }
            stale
        };
        if dropped.is_empty() {
            return;
        }
        if let Err(error) = self.store.drop_evidence(dropped).await {
            tracing::warn!(%error, "old signatures could not be dropped");
        }
    }

    async fn keep(&self, digest: Digest, held: Held) -> Result<(), Disbelief> {
        let bytes = held.message().encode_to_vec();
        self.store.put_evidence(digest, bytes).await?;
        let mut all = self.lock();
        // Another call may have brought further votes meanwhile.
        let merged = all.entry(digest).or_insert_with(|| held.clone());
        for (voter, vote) in held.votes {
            merged.votes.entry(voter).or_insert(vote);
        }
        Ok(())
    }

    /// Whether the author may decide such a record; where it is not decided yet, whether they still
    /// may.
    fn check_author(
        &self,
        record: &Record,
        author: &v1::Signature,
        is_proposal: bool,
    ) -> Result<(), Disbelief> {
        let signer = match is_proposal || record.forced {
            true => self.signer(record, author)?,
            // The voters saw who it was.
            false => {
                let bytes = record.signing_bytes(self.tls.mesh());
                let claimed = self.signed().claimed(Some(author), &bytes);
                claimed.map_err(|source| Disbelief::Signature {
                    of: "author",
                    source,
                })?
            }
        };
        let (name, allowed, needed) = match &signer {
            Author::Person { name, role, .. } => {
                let allowed = matches!(role, Role::Operator | Role::Admin);
                (name.clone(), allowed, "an operator or admin")
            }
            Author::Agent { name, .. } => {
                let allowed = record.kind == RecordKind::Rollback && !record.forced;
                (
                    format!("node {name}"),
                    allowed,
                    "a person; agents may only go back",
                )
            }
            Author::Root | Author::Recovery => (signer.to_string(), false, "a person"),
        };
        if !allowed {
            let author = signer.to_string();
            return Err(Disbelief::Role { author, needed });
        }
        if record.proposed_by != name {
            return Err(Disbelief::Name {
                said: record.proposed_by.clone(),
                signed: name,
            });
        }
        if (is_proposal || record.forced) && !self.stands(&signer) {
            return Err(Disbelief::Removed(name));
        }
        Ok(())
    }

    fn signer(&self, record: &Record, author: &v1::Signature) -> Result<Author, Disbelief> {
        let bytes = record.signing_bytes(self.tls.mesh());
        let signer = self.signed().author(Some(author), &bytes);
        signer.map_err(|source| Disbelief::Signature {
            of: "author",
            source,
        })
    }

    fn signed(&self) -> Signed {
        Signed::new(&self.tls, self.roster.roster())
    }

    fn stands(&self, author: &Author) -> bool {
        let roster = self.roster.roster();
        let standing = match author {
            Author::Person { name, key, .. } => roster.standing_of_person(name, *key),
            Author::Agent { name, key } => roster.standing_of_agent(name, *key),
            Author::Root | Author::Recovery => Standing::Good,
        };
        standing == Standing::Good
    }

    fn author_stands(&self, held: &Held) -> bool {
        let signer = self.signer(&held.record, &held.author);
        signer.is_ok_and(|signer| self.stands(&signer))
    }

    /// Who signed a vote, where it is one of the record's voters.
    fn voter(
        &self,
        record: &Record,
        vote: &v1::Signature,
        signed: &[u8],
    ) -> Result<Option<NodeName>, Disbelief> {
        let by = self.signed();
        let author = match by.author(Some(vote), signed) {
            Ok(author) => author,
            // Cast under an authority that was replaced, with a key that nobody named.
            Err(_) if by.claimed(Some(vote), signed).is_ok() => return Ok(None),
            Err(source) => {
                return Err(Disbelief::Signature {
                    of: "voter",
                    source,
                });
            }
        };
        let previous = record.previous.iter().flatten();
        let mut voters = record.voters.iter().chain(previous);
        Ok(match author {
            Author::Agent { name, .. } if voters.any(|voter| *voter == name) => Some(name),
            Author::Agent { .. } | Author::Person { .. } | Author::Root | Author::Recovery => None,
        })
    }
}

/// Undecided, decided, or behind a revocation.
fn matters(record: &Record, node: &Node) -> bool {
    let register = &node.register;
    record.epoch >= register.decided_epoch()
        || record.epoch == register.elected_epoch()
        || register
            .revocations
            .values()
            .any(|revocation| revocation.epoch == record.epoch)
}

fn read_back(message: v1::SignedRecord, mesh: &str) -> Option<(Digest, Held)> {
    let record: Record = message.record?.try_into().ok()?;
    let mut votes = BTreeMap::new();
    for vote in message.votes {
        let leaf = vote.chain.first()?;
        let facts = cbddc_pki::certificate::facts(leaf, mesh).ok()?;
        if let cbddc_pki::name::Holder::Node(name) = facts.mesh_holder {
            votes.insert(name, vote);
        }
    }
    let digest = Digest::of(&record.signing_bytes(mesh));
    let author = message.author?;
    Some((
        digest,
        Held {
            record,
            author,
            votes,
        },
    ))
}
