//! Why a node does not run what it is meant to run.

use crate::node::{Context, Node};

impl Node {
    /// The reason, in a sentence, why this node does not run what the decided record orders, or why
    /// what it runs must not run; `None`: it does, or nothing is ordered.
    pub fn drift(&self, context: &Context) -> Option<String> {
        let running = self
            .phase
            .running()
            .and_then(|number| self.history.get(number));
        let revoked = |release: &crate::release::Release| {
            let revocation = self.register.revoked(&release.build.digest)?;
            Some(format!(
                "{} is revoked ({})",
                release.build, revocation.reason
            ))
        };
        let ordered = self
            .register
            .decided
            .as_ref()
            .and_then(|record| record.release_for(&context.name));
        let Some(ordered) = ordered else {
            let reason = running.and_then(|generation| revoked(&generation.release))?;
            return Some(format!(
                "{reason}, and no record orders another: roll one out"
            ));
        };
        if running.is_some_and(|generation| generation.release == *ordered) {
            return revoked(ordered)
                .map(|reason| format!("blocked, needs a person: {reason}, yet it is ordered"));
        }
        if let Some(reason) = revoked(ordered) {
            return Some(format!(
                "blocked, needs a person: {reason}, yet it is ordered"
            ));
        }
        if let Some(held) = self
            .held
            .as_ref()
            .filter(|held| held.epoch >= self.register.decided_epoch())
        {
            return Some(format!(
                "{ordered} failed here and is not tried again: {}",
                held.cause
            ));
        }
        if let Some(retry) = &self.fetch_retry {
            return Some(format!("{ordered} could not be got yet: {}", retry.cause));
        }
        Some(format!("on its way to {ordered}"))
    }
}
