//! How the clocks of other members differ from this host's, as their answers tell.

use cbddc_domain::health::ClockOffset;
use cbddc_domain::id::NodeName;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long an answer says something: clocks are set now and then.
const HOLDS: Duration = Duration::from_secs(10 * 60);

/// The newest answers. Cheap to clone; bounded by the members of the mesh.
#[derive(Debug, Clone, Default)]
pub struct Skews {
    offsets: Arc<Mutex<BTreeMap<NodeName, (Instant, ClockOffset)>>>,
}

impl Skews {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeName, (Instant, ClockOffset)>> {
        self.offsets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A member told its wall time in an answer to a question that was asked at `asked_wall_ms` and
    /// took this long.
    pub fn note(&self, name: &NodeName, asked_wall_ms: i64, took: Duration, told_wall_ms: i64) {
        let half_ms = i64::try_from(took.as_millis() / 2).unwrap_or(i64::MAX);
        let offset = ClockOffset {
            member: name.clone(),
            ahead_ms: told_wall_ms
                .saturating_sub(asked_wall_ms)
                .saturating_sub(half_ms),
            error_ms: half_ms.saturating_add(1),
        };
        self.lock().insert(name.clone(), (Instant::now(), offset));
    }

    /// What still holds.
    pub fn offsets(&self) -> Vec<ClockOffset> {
        let mut offsets = self.lock();
        offsets.retain(|_, (when, _)| when.elapsed() < HOLDS);
        offsets.values().map(|(_, offset)| offset.clone()).collect()
    }
}
