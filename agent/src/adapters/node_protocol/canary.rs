//! Events that are written on purpose, so that replication can be proven where nothing else moves: by
//! this agent over the protocol, or by the application's own program or page. What was written is
//! taken away again once no check has asked for a while.

use super::{NodeProtocol, ProtocolError};
use crate::adapters::cbddc_wire::CanaryWriter;
use crate::adapters::checks::{ExecSettings, run_program};
use crate::adapters::http::{self, HttpAddress, HttpError};
use cbddc_domain::health::Status;
use cbddc_domain::hlc::{Hlc, VectorClock};
use cbddc_domain::oplog::{Operation, OplogEntry};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often one is written while replication is being looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// How often at most.
const INTERVAL_MIN: Duration = Duration::from_millis(500);

/// How long after the last one it is taken away again: longer than a check pauses between two looks.
const IDLE: Duration = Duration::from_secs(10);

/// Who writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CanaryBy {
    /// The agent, by the one request of the protocol that writes.
    Push,
    /// A program of the application, which finds in its environment what to do: `CANARY_ACTION`, `put`
    /// or `delete`, `CANARY_COLLECTION` and `CANARY_KEY`.
    Command(Vec<String>),
    /// A page of the application, asked by PUT with a small JSON document, and by DELETE.
    Http(HttpAddress),
}

/// How events are written on purpose.
#[derive(Debug, Clone)]
pub struct CanarySettings {
    /// The name of this node, which is the document's key.
    pub node: String,
    /// The collection in which the agent or the program writes.
    pub collection: String,
    /// Who writes.
    pub by: CanaryBy,
}

/// What was written last.
#[derive(Debug, Default)]
pub(super) struct Written {
    at: Option<Instant>,
    wall_ms: i64,
    is_there: bool,
    /// The agent's own last event.
    last: Option<Last>,
}

/// The last event of a chain.
#[derive(Debug, Clone)]
struct Last {
    hlc: Hlc,
    hash: String,
}

/// Why nothing was written, or not taken away. Never contains a secret.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    /// The node could not be asked.
    #[error("the canary event was not written")]
    Protocol(#[from] ProtocolError),
    /// The node refused it.
    #[error("the node did not take the canary event")]
    Refused,
    /// No node would pass it on.
    #[error(
        "no canary event is written: the node declares its collections, and {0} is none of them; name one with `canary_collection`"
    )]
    Undeclared(String),
    /// The program failed.
    #[error("the program that writes canary events failed: {0}")]
    Command(String),
    /// The page does not answer.
    #[error("the page that writes canary events does not answer")]
    Http(#[from] HttpError),
    /// The page answered something else than that it is done.
    #[error("the page that writes canary events answered {0}")]
    Answer(u16),
}

impl NodeProtocol {
    /// Has an event written, where that is switched on and not too often, and taken away later.
    ///
    /// An event of the agent's own has an origin of its own and one key per node, and stays in the
    /// oplog like any other. One from before `since_wall_ms` proves nothing to whoever asks, so another
    /// one is written sooner. `stored` is how far the node's database goes, for where the agent has just
    /// started ([`Self::remembers_canary`]) and the node's clock is empty.
    pub async fn write_canary(
        self: &Arc<Self>,
        wall_ms: i64,
        since_wall_ms: i64,
        stored: &VectorClock,
    ) -> Result<(), CanaryError> {
        let Some(settings) = &self.settings.canary else {
            return Ok(());
        };
        let mut written = self.canary.lock().await;
        let pause = match written.wall_ms < since_wall_ms {
            true => INTERVAL_MIN,
            false => INTERVAL,
        };
        if written.at.is_some_and(|when| when.elapsed() < pause) {
            return Ok(());
        }
        self.change(settings, &mut written.last, stored, Operation::Put, wall_ms)
            .await?;
        written.at = Some(Instant::now());
        (written.wall_ms, written.is_there) = (wall_ms, true);
        tokio::spawn(Arc::clone(self).clean_up(wall_ms));
        Ok(())
    }

    /// Whether it is known on what the next event of the agent's own follows.
    pub async fn remembers_canary(&self) -> bool {
        let by = self.settings.canary.as_ref().map(|settings| &settings.by);
        by != Some(&CanaryBy::Push) || self.canary.lock().await.last.is_some()
    }

    /// Takes away what was written, unless more was written meanwhile, which has a task of its own.
    async fn clean_up(self: Arc<Self>, wall_ms: i64) {
        tokio::time::sleep(IDLE).await;
        let mut written = self.canary.lock().await;
        let is_idle = written.at.is_none_or(|when| when.elapsed() >= IDLE);
        let Some(settings) = self.settings.canary.as_ref().filter(|_| is_idle) else {
            return;
        };
        if !std::mem::take(&mut written.is_there) {
            return;
        }
        let idle_ms = i64::try_from(IDLE.as_millis()).unwrap_or(i64::MAX);
        let later_ms = wall_ms.saturating_add(idle_ms);
        let stored = VectorClock::default();
        let last = &mut written.last;
        let changing = self.change(settings, last, &stored, Operation::Delete, later_ms);
        if let Err(error) = changing.await {
            let error = crate::error_chain(&error);
            tracing::warn!(error, "what was written for a check stays where it is");
        }
    }

    async fn change(
        &self,
        settings: &CanarySettings,
        last: &mut Option<Last>,
        stored: &VectorClock,
        operation: Operation,
        wall_ms: i64,
    ) -> Result<(), CanaryError> {
        let content = format!("{{\"written_wall_ms\":{wall_ms}}}");
        let limit = self.settings.limit;
        match &settings.by {
            CanaryBy::Push => {
                let payload = match operation {
                    Operation::Put => content,
                    Operation::Delete => String::new(),
                };
                let entry = OplogEntry {
                    collection: settings.collection.clone(),
                    key: settings.node.clone(),
                    operation,
                    payload,
                    hlc: Hlc::new(wall_ms, 0, ""),
                    hash: String::new(),
                    previous_hash: String::new(),
                };
                self.push_canary(last, stored, entry).await
            }
            CanaryBy::Command(command) => {
                let action = match operation {
                    Operation::Put => "put",
                    Operation::Delete => "delete",
                };
                let env = [
                    ("CANARY_ACTION", action),
                    ("CANARY_COLLECTION", &settings.collection),
                    ("CANARY_KEY", &settings.node),
                ];
                let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
                let program = ExecSettings {
                    command: command.clone(),
                    env: BTreeMap::from(env),
                };
                let found = run_program(&program, limit).await;
                match found.status {
                    Status::Healthy => Ok(()),
                    Status::Degraded | Status::Unhealthy | Status::Unknown => {
                        Err(CanaryError::Command(found.detail))
                    }
                }
            }
            CanaryBy::Http(address) => {
                let answer = match operation {
                    Operation::Put => http::put(address, content, limit).await?,
                    Operation::Delete => http::delete(address, limit).await?,
                };
                match answer.code {
                    200..300 => Ok(()),
                    code => Err(CanaryError::Answer(code)),
                }
            }
        }
    }

    /// Pushes an event that has yet to get its place in the chain.
    async fn push_canary(
        &self,
        last: &mut Option<Last>,
        stored: &VectorClock,
        mut entry: OplogEntry,
    ) -> Result<(), CanaryError> {
        let event = |error| CanaryError::Protocol(ProtocolError::Wire(error));
        let mut client = self.connect(self.settings.token.clone()).await?;
        let handshake = client.handshake().await.map_err(event)?;
        if !handshake.accepted {
            return Err(CanaryError::Refused);
        }
        if !handshake.interests.is_empty() && !handshake.interests.contains(&entry.collection) {
            return Err(CanaryError::Undeclared(entry.collection));
        }
        let own = format!("cbagent-{}", entry.key);
        let place = match last.take() {
            Some(last) => Place::After(last),
            None => {
                let clock = client.vector_clock().await.map_err(event)?;
                let known = newest_of(&clock, &own).or_else(|| newest_of(stored, &own));
                // A node's clock may be empty after its start: then only its events tell. Without a
                // filter: a node on BLite answers one with nothing (`NODE.md`, section 3).
                let before = known.as_ref().map_or(Hlc::new(0, 0, ""), |known| {
                    Hlc::new(known.wall, known.logic.saturating_sub(1), "")
                });
                let events = client.pull(&before, &[]).await.map_err(event)?;
                place(&events, &own, known)
            }
        };
        let wall_ms = entry.hlc.wall;
        (entry.hlc, entry.previous_hash) = match place {
            Place::After(last) => {
                let wall = wall_ms.max(last.hlc.wall.saturating_add(1));
                (Hlc::new(wall, 0, last.hlc.node), last.hash)
            }
            Place::First(origin) => (Hlc::new(wall_ms, 0, origin), String::new()),
            Place::Lost(at) => {
                let wall = wall_ms.max(at.saturating_add(1));
                (Hlc::new(wall, 0, format!("{own}@{wall}")), String::new())
            }
        };
        let entry = entry.seal();
        let pushed = Last {
            hlc: entry.hlc.clone(),
            hash: entry.hash.clone(),
        };
        let mut writer = CanaryWriter::switched_on(&mut client);
        let accepted = writer.push(vec![entry]).await.map_err(event)?.accepted;
        *last = accepted.then_some(pushed);
        accepted.then_some(()).ok_or(CanaryError::Refused)
    }
}

/// Where the next event goes.
#[derive(Debug)]
enum Place {
    /// After this one.
    After(Last),
    /// At the beginning of this origin's chain.
    First(String),
    /// The last one, of this wall time, is pruned: to go on without its hash would fork the chain, so a
    /// new one begins.
    Lost(i64),
}

/// Whether an origin is the agent's: its first one, or one that began when the one before was lost.
fn is_own(origin: &str, own: &str) -> bool {
    let rest = origin.strip_prefix(own);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('@'))
}

fn newest_of(clock: &VectorClock, own: &str) -> Option<Hlc> {
    let origins = clock.0.iter().filter(|(origin, _)| is_own(origin, own));
    let newest = origins.max_by_key(|(_, moment)| **moment);
    newest.map(|(origin, (wall, logic))| Hlc::new(*wall, *logic, origin.clone()))
}

fn place(events: &[OplogEntry], own: &str, known: Option<Hlc>) -> Place {
    let owned = events.iter().filter(|event| is_own(&event.hlc.node, own));
    let newest = owned.max_by_key(|event| (event.hlc.wall, event.hlc.logic));
    match (newest, known) {
        (Some(newest), _) => Place::After(Last {
            hlc: newest.hlc.clone(),
            hash: newest.hash.clone(),
        }),
        (None, Some(known)) => Place::Lost(known.wall),
        (None, None) => Place::First(own.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Place, newest_of, place};
    use cbddc_domain::hlc::{Hlc, VectorClock};
    use cbddc_domain::oplog::{Operation, OplogEntry};

    fn event(wall: i64, origin: &str) -> OplogEntry {
        OplogEntry {
            collection: "c".into(),
            key: "k".into(),
            operation: Operation::Put,
            payload: String::new(),
            hlc: Hlc::new(wall, 0, origin),
            hash: format!("of {wall}"),
            previous_hash: String::new(),
        }
    }

    #[test]
    fn the_next_event_follows_the_newest_own_one_wherever_that_stands() {
        let events = [
            event(9, "cbagent-n1"),
            event(7, "cbagent-n1"),
            event(99, "cbagent-n12"),
            event(98, "n1"),
        ];
        let Place::After(last) = place(&events, "cbagent-n1", None) else {
            panic!("there is one");
        };
        assert_eq!((last.hlc.wall, &*last.hash), (9, "of 9"));
        let none = place(&events[2..], "cbagent-n1", None);
        assert!(matches!(none, Place::First(origin) if origin == "cbagent-n1"));
        let known = Some(Hlc::new(5, 0, "cbagent-n1"));
        assert!(matches!(place(&[], "cbagent-n1", known), Place::Lost(5)));
    }

    #[test]
    fn a_chain_that_began_anew_is_the_agents_too() {
        let mut clock = VectorClock::default();
        clock.advance("cbagent-n1", (5, 0));
        clock.advance("cbagent-n1@8", (8, 1));
        clock.advance("cbagent-n12", (9, 0));
        let newest = newest_of(&clock, "cbagent-n1").expect("one");
        assert_eq!(newest, Hlc::new(8, 1, "cbagent-n1@8"));
        assert_eq!(newest_of(&VectorClock::default(), "cbagent-n1"), None);
    }
}
