//! Why a node does not run what it is meant to run.
//!
//! Each reason begins with its word: `blocked`, `stuck`, `held`, `pending`, `probation` or `revoked`.
//! What was heard since the host's start (`unverified`, rule 17) is not known here.

#[cfg(test)]
mod tests;

use crate::generation::Generation;
use crate::node::{Context, Node};
use crate::phase::Phase;
use crate::release::Release;

impl Node {
    /// The reason, in a sentence, why this node does not run what the decided record orders, or why
    /// what it runs must not run; `None`: it does, or nothing is ordered.
    pub fn drift(&self, context: &Context) -> Option<String> {
        let running = self
            .phase
            .running()
            .and_then(|number| self.history.get(number));
        let revoked_runs = running.and_then(|running| self.revoked_for(&running.release));
        let decided = self.register.decided.as_ref();
        let ordered = decided.and_then(|record| record.release_for(&context.name));
        let Some(ordered) = ordered else {
            let reason = revoked_runs?;
            return Some(format!(
                "revoked: {reason}, and no record orders another: roll one out"
            ));
        };
        let reason = match self.revoked_for(ordered) {
            // Rule 14: an unlifted revocation beats any record.
            Some(reason) => format!("blocked, needs a person: {reason}, yet it is ordered"),
            None if running.is_some_and(|running| running.release == *ordered) => return None,
            None => self.way_to(ordered, running),
        };
        let runs_other = running.is_some_and(|running| running.release != *ordered);
        Some(match revoked_runs.filter(|_| runs_other) {
            Some(revoked) => format!("{reason}; until then it runs what must not run: {revoked}"),
            None => reason,
        })
    }

    /// Why it does not run `ordered` yet, which it may run.
    fn way_to(&self, ordered: &Release, running: Option<&Generation>) -> String {
        let decided = self.register.decided_epoch();
        // Rule 10: what failed is not tried again before a higher epoch.
        let held = self.held.as_ref().filter(|held| held.epoch >= decided);
        match (&self.phase, held, &self.fetch_retry) {
            (
                Phase::Stuck {
                    cause,
                    remedy,
                    since,
                },
                _,
                _,
            ) if decided <= *since => format!(
                "stuck, needs a person: nothing runs, {ordered} is ordered: {cause}; {remedy}"
            ),
            (_, Some(held), _) => format!(
                "held: {ordered} failed here and is not tried again before another is decided: {}",
                held.cause
            ),
            (Phase::Probation(probation), None, _) if probation.epoch > decided => {
                let tried = running.map_or_else(String::new, |running| running.release.to_string());
                format!(
                    "probation: {tried} is tried in epoch {}, {ordered} is decided",
                    probation.epoch
                )
            }
            (_, None, Some(retry)) => {
                format!("pending: {ordered} could not be got yet: {}", retry.cause)
            }
            (_, None, None) => format!("pending: on its way to {ordered}"),
        }
    }

    /// Why a release must not run, if its build is revoked.
    fn revoked_for(&self, release: &Release) -> Option<String> {
        let revocation = self.register.revoked(&release.build.digest)?;
        Some(format!(
            "{} is revoked ({})",
            release.build, revocation.reason
        ))
    }
}
