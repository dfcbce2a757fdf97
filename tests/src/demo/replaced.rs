//! Looks up, on every node, what was acknowledged while nodes were being replaced.

use super::stage::Stage;
use crate::mesh::{TestMesh, Writer, Written, wait_for_or_tell};
use std::ops::Range;
use std::time::Duration;

/// How many of the keys that are missing are named.
const NAMED: usize = 20;

/// Which of a writer's documents were acknowledged while nodes were being replaced.
#[derive(Debug, Default)]
pub struct Replaced {
    spans: Vec<Range<usize>>,
}

impl Replaced {
    /// Does something that replaces nodes, while the writer writes.
    pub fn during<T>(&mut self, writer: &Writer, replace: impl FnOnce() -> T) -> T {
        let before = writer.acknowledged();
        let replaced = replace();
        self.spans.push(before..writer.acknowledged());
        replaced
    }

    /// Asks each node for each of these documents, and says how many there were; panics with the keys that
    /// a node does not hold.
    pub fn show(&self, stage: &Stage, mesh: &TestMesh, written: &Written, limit: Duration) {
        let keys: Vec<&String> = self
            .spans
            .iter()
            .flat_map(|span| &written.acknowledged[span.clone()])
            .collect();
        let count = keys.len();
        assert!(
            count > 0,
            "nothing was acknowledged while nodes were being replaced"
        );
        let mut open: Vec<(usize, &String)> = (0..mesh.len())
            .flat_map(|node| keys.iter().map(move |key| (node, *key)))
            .collect();
        let what = "every node holds what was acknowledged while nodes were being replaced";
        wait_for_or_tell(what, limit, || {
            open.retain(|(node, key)| !mesh.has_document(*node, &written.collection, key));
            match open.is_empty() {
                true => Ok(()),
                false => Err(missing(mesh, &open)),
            }
        });
        let nodes = mesh.len();
        stage.say(&format!(
            "{count} documents were acknowledged while nodes were being replaced: each of them is on all {nodes} nodes,\n\
             which were asked for every key"
        ));
    }
}

fn missing(mesh: &TestMesh, open: &[(usize, &String)]) -> String {
    let named = open.iter().take(NAMED);
    let named = named.map(|(node, key)| format!("{}: {key}", mesh.node(*node).name));
    let named: Vec<String> = named.collect();
    format!("{} are missing: {}", open.len(), named.join(", "))
}
