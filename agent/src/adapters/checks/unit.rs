//! Whether the node's process runs, and whether it keeps running.

use crate::ports::{Care, Supervisor, UnitState};
use cbddc_domain::health::Status;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How far back restarts are counted, and how many counts are kept for that.
const WINDOW: Duration = Duration::from_secs(10 * 60);
const COUNTS_MAX: usize = 1_024;

/// The check of the process.
pub struct UnitCheck {
    max_restarts: u32,
    /// When the service manager had started the node again how often.
    counts: Mutex<VecDeque<(Instant, u32)>>,
}

impl UnitCheck {
    /// Degraded from `max_restarts` restarts within ten minutes on.
    pub fn new(max_restarts: u32) -> Self {
        Self {
            max_restarts,
            counts: Mutex::default(),
        }
    }

    pub(super) async fn look(&self, supervisor: &dyn Supervisor) -> (Status, String) {
        match supervisor.state().await {
            Ok(UnitState::Running { pid, .. }) => match supervisor.care().await {
                Ok(Some(care)) => self.judge(pid, &care),
                // Not to know how it is cared for is no reason to doubt that it runs.
                Ok(None) | Err(_) => (Status::Healthy, format!("runs as process {pid}")),
            },
            Ok(UnitState::Stopped {
                last_exit: Some(words),
            }) => (
                Status::Unhealthy,
                format!("does not run; it ended with: {words}"),
            ),
            Ok(UnitState::Stopped { last_exit: None }) => {
                (Status::Unhealthy, "does not run".to_owned())
            }
            Err(error) => (Status::Unknown, error.to_string()),
        }
    }

    fn judge(&self, pid: u32, care: &Care) -> (Status, String) {
        let recent = self.recent(care.restarts);
        let watchdog = match care.watchdog {
            Some(every) => format!(", watched every {} s", every.as_secs_f32()),
            None => String::new(),
        };
        if recent >= self.max_restarts {
            let text = format!(
                "runs as process {pid}{watchdog}, but was started again {recent} times within {} min",
                WINDOW.as_secs() / 60
            );
            return (Status::Degraded, text);
        }
        let restarts = match care.restarts {
            0 => String::new(),
            number => format!(", started again {number} times since it was ordered to"),
        };
        (
            Status::Healthy,
            format!("runs as process {pid}{watchdog}{restarts}"),
        )
    }

    /// Remembers a count and says by how much it rose within the window.
    fn recent(&self, restarts: u32) -> u32 {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        // An ordered start sets the count to zero.
        if counts.back().is_some_and(|(_, before)| *before > restarts) {
            counts.clear();
        }
        if counts.back().is_none_or(|(_, before)| *before != restarts) {
            counts.push_back((now, restarts));
        }
        // The last count before the window tells what it began with.
        while counts.len() > COUNTS_MAX
            || counts
                .get(1)
                .is_some_and(|(when, _)| now.duration_since(*when) > WINDOW)
        {
            counts.pop_front();
        }
        counts
            .front()
            .map_or(0, |(_, first)| restarts.saturating_sub(*first))
    }
}
