//! The signatures that make agents believe a record: the person's own, and those of the voters.

use cbddc_domain::id::NodeName;
use cbddc_domain::register::{Epoch, Record};
use cbddc_pki::signature::Signer;
use cbddc_proto::v1;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What one command signs, and the votes that it collects.
#[derive(Debug)]
pub struct Signatures {
    mesh: String,
    /// Unset: only this host is spoken to, through its own socket.
    signer: Option<Signer>,
    votes: Mutex<BTreeMap<Epoch, BTreeMap<NodeName, v1::Signature>>>,
}

impl Signatures {
    /// For a mesh, as a person; nobody: a mesh of one, through its own socket.
    pub fn new(mesh: String, signer: Option<Signer>) -> Self {
        Self {
            mesh,
            signer,
            votes: Mutex::default(),
        }
    }

    /// The author's signature of a record.
    pub fn author(&self, record: &Record) -> Option<v1::Signature> {
        let signer = self.signer.as_ref()?;
        let signature = signer.sign(&record.signing_bytes(&self.mesh));
        Some(v1::Signature {
            chain: signature.chain.into_iter().map(Into::into).collect(),
            bytes: signature.bytes.into(),
        })
    }

    /// A node has voted for a record.
    pub fn voted(&self, record: &Record, node: &NodeName, vote: Option<v1::Signature>) {
        let mut votes = self.votes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(vote) = vote {
            votes
                .entry(record.epoch)
                .or_default()
                .insert(node.clone(), vote);
        }
    }

    /// The votes for a record, as they were signed.
    pub fn votes(&self, record: &Record) -> Vec<v1::Signature> {
        let votes = self.votes.lock().unwrap_or_else(PoisonError::into_inner);
        let votes = votes.get(&record.epoch);
        votes.map_or_else(Vec::new, |votes| votes.values().cloned().collect())
    }
}
