//! Asks peers from time to time what they know to be decided.

use crate::engine::{ACTOR_AGENT, EngineHandle, hear_peer};
use crate::ports::{EffectError, World};
use cbddc_domain::id::NodeName;
use cbddc_domain::node::Event;
use cbddc_domain::register::is_majority_of;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long to wait before a voter that did not answer is asked again.
const MEET_AGAIN: Duration = Duration::from_secs(1);

/// Exchanges what this agent knows with one member after another, so that a decided record reaches
/// nodes that its proposer could not reach (rule 7).
pub async fn exchange_with_peers(
    engine: EngineHandle,
    world: Arc<dyn World>,
    poll: Duration,
    stop: CancellationToken,
) {
    loop {
        if let Some(peer) = world.partner()
            && let Err(error) = exchange_with(&engine, &*world, &peer).await
        {
            tracing::debug!(%peer, %error, "a peer could not be asked");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(poll) => {}
        }
    }
}

/// Compares by digest, and looks closer where something differs.
async fn exchange_with(
    engine: &EngineHandle,
    world: &dyn World,
    peer: &NodeName,
) -> Result<(), EffectError> {
    let compared = world.exchange(peer).await?;
    let node = engine.node();
    let known = &node.starts.known;
    let same_starts = compared.remembered.as_ref() == known.last()
        && compared.start.as_ref() == node.peers.get(peer);
    if compared.same_register && same_starts && node.starts.is_sound() {
        return Ok(());
    }
    let told = world.register_of(peer, known).await?;
    hear_peer(engine, peer, told).await;
    Ok(())
}

/// Asks all voters at once what they know, until a majority has told; then says so to the engine
/// and to `met` (rule 17).
pub async fn meet_voters(
    engine: EngineHandle,
    world: Arc<dyn World>,
    met: watch::Sender<bool>,
    stop: CancellationToken,
) {
    let context = engine.context().clone();
    let mut asking = tokio::task::JoinSet::new();
    let mut asked = BTreeSet::from([context.name.clone()]);
    let mut heard = asked.clone();
    loop {
        // What the first ones tell may name other voters.
        let voters = engine.node().register.voters(&context.voters).clone();
        if is_majority_of(&heard, &voters) {
            break;
        }
        for voter in voters {
            if asked.insert(voter.clone()) {
                asking.spawn(hear_of(engine.clone(), world.clone(), voter));
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            answered = asking.join_next() => match answered {
                Some(Ok(voter)) => drop(heard.insert(voter)),
                Some(Err(_)) => {}
                None => return,
            },
        }
    }
    if let Err(error) = engine.tell(Event::Met, ACTOR_AGENT).await {
        tracing::warn!(%error, "that a majority was heard was not taken");
    }
    met.send_replace(true);
}

/// Asks a voter until it answers, and passes on what it knows.
async fn hear_of(engine: EngineHandle, world: Arc<dyn World>, voter: NodeName) -> NodeName {
    loop {
        let starts = engine.node().starts.known.clone();
        match world.register_of(&voter, &starts).await {
            // Before the engine has begun its start there is nothing to compare.
            Ok(told) if !starts.is_empty() => {
                hear_peer(&engine, &voter, told).await;
                return voter;
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%voter, %error, "a voter could not be asked"),
        }
        tokio::time::sleep(MEET_AGAIN).await;
    }
}
