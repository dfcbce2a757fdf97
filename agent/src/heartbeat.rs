//! Tells systemd that the agent is up, what its node does, and that the engine still turns.

use crate::adapters::notify::Notifier;
use crate::engine::{ACTOR_AGENT, EngineHandle};
use crate::grpc::phase_text;
use cbddc_domain::node::Event;
use std::future::pending;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Call it once the API listens. Says so, whatever the node does; then keeps the status line up to
/// date and feeds the watchdog, at half of its time and only while the engine answers.
pub async fn beat(notifier: Notifier, engine: EngineHandle, stop: CancellationToken) {
    let mut nodes = engine.watch();
    let mut shown = String::new();
    notifier.ready();
    let watchdog = async {
        match notifier.watchdog() {
            Some(time) => feed(&notifier, &engine, time / 2).await,
            None => pending().await,
        }
    };
    let status = async {
        loop {
            let text = phase_text(&nodes.borrow_and_update());
            if text != shown {
                notifier.status(&text);
                shown = text;
            }
            if nodes.changed().await.is_err() {
                return pending().await;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => notifier.stopping(),
        () = watchdog => {}
        () = status => {}
    }
}

async fn feed(notifier: &Notifier, engine: &EngineHandle, every: Duration) {
    let mut beats = tokio::time::interval(every);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        // A tick is what the loop gives itself anyhow. Even a refusal is an answer; only silence is not.
        match tokio::time::timeout(every, engine.tell(Event::Tick, ACTOR_AGENT)).await {
            Ok(_) => notifier.alive(),
            Err(_) => tracing::error!("the engine does not answer; the watchdog is not fed"),
        }
    }
}
