//! What there is to ask of each cluster that the node serves.

use crate::adapters::document_digests::DocumentDigests;
use crate::adapters::node_protocol::NodeProtocol;
use crate::adapters::oplog_reader::OplogReader;
use std::path::PathBuf;
use std::sync::Arc;

/// One cluster. Cheap to clone.
#[derive(Clone)]
pub struct ClusterAccess {
    /// Its port.
    pub protocol: Arc<NodeProtocol>,
    /// Its events.
    pub oplog: OplogReader,
    /// Its documents as digests.
    pub documents: DocumentDigests,
}

impl ClusterAccess {
    /// A cluster whose events these databases hold; none: they are read over the CBDDC protocol. In the
    /// folder lies what the node sends while it is read.
    pub fn new(protocol: NodeProtocol, databases: Vec<PathBuf>, folder: PathBuf) -> Self {
        let oplog = OplogReader::new(databases);
        Self {
            protocol: Arc::new(protocol),
            documents: DocumentDigests::new(oplog.clone(), folder),
            oplog,
        }
    }

    /// Its name; empty where it has none.
    pub fn name(&self) -> &str {
        &self.protocol.settings().cluster
    }
}
