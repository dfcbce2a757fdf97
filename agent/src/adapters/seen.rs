//! When this agent last heard of each member.

use cbddc_domain::id::NodeName;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The last signs of life, Unix time in milliseconds as this host counts it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    signs: Arc<Mutex<BTreeMap<NodeName, i64>>>,
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeName, i64>> {
        self.signs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A member has just answered, or asked.
    pub fn note(&self, name: &NodeName, wall_ms: i64) {
        self.lock().insert(name.clone(), wall_ms);
    }

    /// A member was there at this time, unless a later sign is known.
    pub fn note_past(&self, name: &NodeName, wall_ms: i64) {
        let mut signs = self.lock();
        let sign = signs.entry(name.clone()).or_insert(wall_ms);
        *sign = wall_ms.max(*sign);
    }

    /// When a member was last heard of.
    pub fn last_wall_ms(&self, name: &NodeName) -> Option<i64> {
        self.lock().get(name).copied()
    }
}
