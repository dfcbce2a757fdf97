//! Brings what is found about the node together and tells it to the engine, which decides.
//!
//! Three sources: the judged health, the findings about replication, and files by which whoever
//! watches the site with other means raises a trigger.

use crate::engine::{ACTOR_AGENT, EngineHandle};
use crate::monitor::Health;
use crate::ports::World;
use cbddc_domain::node::{Event, Node};
use cbddc_domain::phase::Phase;
use cbddc_domain::replication::Findings;
use cbddc_domain::stops::Stopped;
use cbddc_domain::trigger::Observation;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often is looked while nothing changes.
const LOOK: Duration = Duration::from_secs(1);

/// Tells the engine what is found until `stop`.
pub async fn watch_triggers(
    engine: EngineHandle,
    world: Arc<dyn World>,
    mut health: watch::Receiver<Health>,
    mut findings: watch::Receiver<Findings>,
    stop: CancellationToken,
) {
    // A sender that is gone never changes anything any more; the clock goes on.
    let (mut judged, mut audited) = (true, true);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
            changed = health.changed(), if judged => judged = changed.is_ok(),
            changed = findings.changed(), if audited => audited = changed.is_ok(),
        }
        let node = engine.node();
        let (Phase::Steady { .. } | Phase::Probation(_)) = &node.phase else {
            continue;
        };
        let Some(generation) = node.phase.running() else {
            continue;
        };
        let name = &engine.context().name;
        let observation = {
            let (health, findings) = (health.borrow_and_update(), findings.borrow_and_update());
            let (judgement, measurements) = (&health.judgement, &health.measurements);
            let (found, raised) = (&findings.current, world.raised());
            Observation::of(name, generation, judgement, measurements, found, raised)
        };
        if observation.is_clean() && is_calm(&node) {
            continue;
        }
        let event = Event::Observed {
            generation,
            observation,
        };
        if let Err(error) = engine.tell(event, ACTOR_AGENT).await {
            tracing::warn!(%error, "what was found was not taken");
        }
    }
}

/// The pause before the host is asked again to cut its node off.
const CUT_OFF_AGAIN: Duration = Duration::from_secs(5);

/// Cuts the node off where a trigger said so, however often that takes; what a person asks is done
/// where it was asked, and that person hears of a failure. `is_undone`: when the agent started, the
/// host did not do what is stopped. It watches from this call on, not only once the future is polled:
/// what is stopped in between is not missed.
pub fn keep_stopped(
    engine: EngineHandle,
    world: Arc<dyn World>,
    is_undone: bool,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static {
    let changed = engine.watch();
    let known = changed.borrow().stops.quarantined.clone();
    keep_stopped_since(changed, known, world, is_undone, stop)
}

async fn keep_stopped_since(
    mut changed: watch::Receiver<Arc<Node>>,
    mut known: Option<Stopped>,
    world: Arc<dyn World>,
    mut is_undone: bool,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changed.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(CUT_OFF_AGAIN), if is_undone => {}
        }
        let stops = changed.borrow_and_update().stops.clone();
        if stops.quarantined == known && !is_undone {
            continue;
        }
        known.clone_from(&stops.quarantined);
        let own = known.as_ref().is_some_and(|by| by.by == ACTOR_AGENT);
        if !own && !is_undone {
            continue;
        }
        let done = world.apply_stops(&stops).await;
        is_undone = done.is_err();
        if let Err(error) = done {
            tracing::error!("what is stopped could not be stopped, which is tried again: {error}");
        }
    }
}

/// Whether hearing that all is well would change nothing.
fn is_calm(node: &Node) -> bool {
    let bakes = node.bake.as_ref().is_some_and(|bake| bake.unclean);
    node.vigil.due.is_empty() && node.vigil.alarms.is_empty() && !bakes
}
