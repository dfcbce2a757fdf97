//! For tests: a store that ends the agent at a chosen line of the journal, as a power cut would.
//!
//! The variable `CBAGENT_CRASH` names the point: `before:KIND`, when what the line follows is over but
//! not written down, or `after:KIND`, when it is written down and nothing has been done about it.
//! Whoever sets it by mistake gets one more crash that the next start finishes or undoes.

use crate::ports::{EffectError, JournalLine, Store};
use async_trait::async_trait;
use cbddc_domain::node::Node;
use std::sync::Arc;

/// Where to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashPoint {
    before: bool,
    kind: String,
}

impl CrashPoint {
    /// From `before:KIND` or `after:KIND`.
    pub fn parse(text: &str) -> Option<Self> {
        let (when, kind) = text.split_once(':')?;
        let before = match when {
            "before" => true,
            "after" => false,
            _ => return None,
        };
        let kind = kind.to_owned();
        Some(Self { before, kind })
    }
}

/// The store, with a point at which the process ends.
pub struct CrashingStore {
    /// The real one.
    pub store: Arc<dyn Store>,
    /// Where to end.
    pub point: CrashPoint,
}

#[async_trait]
impl Store for CrashingStore {
    async fn save(&self, node: &Node, lines: Vec<JournalLine>) -> Result<(), EffectError> {
        let hit = lines.iter().any(|line| line.kind == self.point.kind);
        if hit && self.point.before {
            std::process::abort();
        }
        self.store.save(node, lines).await?;
        if hit {
            std::process::abort();
        }
        Ok(())
    }
}
