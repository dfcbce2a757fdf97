//! stub
use crate::hlc::VectorClock;
use crate::id::NodeName;
use crate::oplog::OplogEntry;
use crate::proposer::MeshVerdict;
use std::collections::*;
#[allow(missing_docs)]
pub struct PeerView {
    pub origin: String,
    pub token_accepted: bool,
    pub interests: Vec<String>,
    pub clock_before: VectorClock,
    pub events: Vec<OplogEntry>,
    pub clock_after: VectorClock,
    pub truncated: bool,
    pub joined: Option<Vec<String>>,
    pub expected: Vec<String>,
    pub target_collections: Vec<String>,
}
#[allow(missing_docs)]
pub struct MeshWatch;
#[allow(missing_docs)]
pub struct Round {
    pub moved: BTreeMap<String, u64>,
    pub unproven: BTreeSet<String>,
}
#[allow(missing_docs)]
impl MeshWatch {
    pub fn new(_: i64) -> Self {
        Self
    }
    pub fn observe(
        &mut self,
        _: &BTreeMap<NodeName, PeerView>,
        _: &BTreeMap<NodeName, String>,
    ) -> Round {
        Round {
            moved: BTreeMap::new(),
            unproven: BTreeSet::new(),
        }
    }
}
#[allow(missing_docs)]
impl Round {
    pub fn verdict(&self) -> MeshVerdict {
        MeshVerdict::Passed
    }
}
