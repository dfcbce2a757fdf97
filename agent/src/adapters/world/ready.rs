//! Waiting until a node that was started is ready, and lines of the journal that no change goes with.

use super::HostWorld;
use crate::adapters::effort;
use crate::error_chain;
use crate::ports::{EffectError, JournalLine, UnitState, World as _};
use cbddc_domain::health::judge;
use cbddc_domain::readiness::{Patience, Readiness, ReadyLimits};
use std::time::Duration;

/// How often a node that was just started is looked at: often at first, so that a quick node is not
/// kept waiting, and then after each eighth of the time that it has taken so far.
const READY_MIN: Duration = Duration::from_millis(20);
const READY_MAX: Duration = Duration::from_millis(250);

impl HostWorld {
    /// Ready: the process is the same throughout, and every check is acceptable.
    pub(super) async fn check(&self) -> Result<Option<String>, EffectError> {
        let began = self.clock.now().since_boot_ms;
        let mut readiness = Readiness::new(self.ready_limits);
        let mut is_told = false;
        loop {
            if let UnitState::Stopped { last_exit } = self.supervisor.state().await? {
                let how = last_exit.unwrap_or_else(|| "it is gone".into());
                return Err(EffectError(format!("the node ended by itself: {how}")));
            }
            let judgement = judge(&self.measure(Duration::MAX).await);
            if judgement.status.is_acceptable() {
                return Ok(None);
            }
            let pids = self.supervisor.processes().await.unwrap_or_default();
            let taken = self.clock.now().since_boot_ms.saturating_sub(began);
            let ReadyLimits { ready_ms, busy_ms } = self.ready_limits;
            let over = match readiness.look(taken, effort::of_processes(&pids)) {
                Patience::Wait => None,
                Patience::WaitBusy => {
                    if !std::mem::replace(&mut is_told, true) {
                        self.note("start_busy", still_busy(ready_ms, busy_ms)).await;
                    }
                    None
                }
                Patience::OverIdle => Some(taken.max(ready_ms)),
                Patience::OverBusy => Some(busy_ms),
            };
            if let Some(after_ms) = over {
                let why = judgement.reasons.join("; ");
                let busy = if is_told {
                    ", although it was busy"
                } else {
                    ""
                };
                let after = Duration::from_millis(after_ms).as_secs();
                let text = format!("not ready within {after} s{busy}: {why}");
                return Err(EffectError(text));
            }
            let pause = Duration::from_millis(taken / 8).clamp(READY_MIN, READY_MAX);
            tokio::time::sleep(pause).await;
        }
    }

    /// Writes a line in the journal that no change goes with.
    pub(super) async fn note(&self, kind: &str, text: String) {
        let line = JournalLine {
            wall_ms: self.clock.now().wall_ms,
            kind: kind.to_owned(),
            epoch: None,
            generation: None,
            actor: "agent".to_owned(),
            text,
        };
        if let Err(error) = self.journal.note(line).await {
            tracing::warn!(
                error = error_chain(&error),
                kind,
                "a line is not in the journal"
            );
        }
    }
}

fn still_busy(ready_ms: u64, busy_ms: u64) -> String {
    format!(
        "the node is not ready after {} s, and is still busy, as with replaying its log: it is waited for up to {} s",
        ready_ms / 1_000,
        busy_ms / 1_000
    )
}
