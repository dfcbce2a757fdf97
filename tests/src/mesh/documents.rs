//! What a test does at the nodes themselves: documents, faults, counts.

use super::{TestMesh, http};
use serde_json::Value;

impl TestMesh {
    /// What a node's `/stats` says, if it answers.
    pub fn stats(&self, index: usize) -> Option<Value> {
        let answer = http::request(self.node(index).http_port, "GET", "/stats", "").ok()?;
        serde_json::from_str(&answer.1).ok()
    }

    /// Switches faults of a running node on, or all off with `clear`.
    #[track_caller]
    pub fn fault(&self, index: usize, faults: &str) {
        let answer = http::request(self.node(index).http_port, "POST", "/fault", faults);
        let (status, said) = answer.expect("the node answers");
        assert_eq!(status, 200, "{said}");
    }

    /// Writes a document at one node; with `flush` its event is on disk when this returns true.
    pub fn put(
        &self,
        index: usize,
        collection: &str,
        key: &str,
        value: &Value,
        flush: bool,
    ) -> bool {
        let query = if flush { "?flush=1" } else { "" };
        let path = format!("/doc/{collection}/{key}{query}");
        let port = self.node(index).http_port;
        let answer = http::request(port, "PUT", &path, &value.to_string());
        answer.is_ok_and(|(status, _)| status == 200)
    }

    /// Whether a node holds a document.
    pub fn has_document(&self, index: usize, collection: &str, key: &str) -> bool {
        let path = format!("/doc/{collection}/{key}");
        let answer = http::request(self.node(index).http_port, "GET", &path, "");
        answer.is_ok_and(|(status, _)| status == 200)
    }
}
