//! Events that are written on purpose, so that replication can be proven where nothing else moves: by
//! this agent over the protocol, or by the application's own program or page. What was written is
//! taken away again once no check has asked for a while.

use super::{NodeProtocol, ProtocolError};
use crate::adapters::cbddc_wire::CanaryWriter;
use crate::adapters::checks::{ExecSettings, run_program};
use crate::adapters::http::{self, HttpAddress, HttpError};
use cbddc_domain::health::Status;
use cbddc_domain::hlc::Hlc;
use cbddc_domain::oplog::{Operation, OplogEntry};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The collection of the agents' own events, where they are switched on.
pub const CANARY_COLLECTION: &str = "cbagent.canary";

/// How often one is written while replication is being looked at.
const INTERVAL: Duration = Duration::from_secs(2);

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
    /// Who writes.
    pub by: CanaryBy,
}

/// What was written last.
#[derive(Debug, Default)]
pub(super) struct Written {
    at: Option<Instant>,
    is_there: bool,
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
    /// oplog like any other.
    pub async fn write_canary(self: &Arc<Self>, wall_ms: i64) -> Result<(), CanaryError> {
        let Some(settings) = &self.settings.canary else {
            return Ok(());
        };
        let mut written = self.canary.lock().await;
        if written.at.is_some_and(|when| when.elapsed() < INTERVAL) {
            return Ok(());
        }
        self.change(settings, Operation::Put, wall_ms).await?;
        *written = Written {
            at: Some(Instant::now()),
            is_there: true,
        };
        tokio::spawn(Arc::clone(self).clean_up(wall_ms));
        Ok(())
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
        if let Err(error) = self.change(settings, Operation::Delete, later_ms).await {
            let error = crate::error_chain(&error);
            tracing::warn!(error, "what was written for a check stays where it is");
        }
    }

    async fn change(
        &self,
        settings: &CanarySettings,
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
                let key = settings.node.clone();
                self.push_canary(key, operation, payload, wall_ms).await
            }
            CanaryBy::Command(command) => {
                let action = match operation {
                    Operation::Put => "put",
                    Operation::Delete => "delete",
                };
                let env = [
                    ("CANARY_ACTION", action),
                    ("CANARY_COLLECTION", CANARY_COLLECTION),
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

    async fn push_canary(
        &self,
        key: String,
        operation: Operation,
        payload: String,
        wall_ms: i64,
    ) -> Result<(), CanaryError> {
        let event = |error| CanaryError::Protocol(ProtocolError::Wire(error));
        let mut client = self.connect(self.settings.token.clone()).await?;
        if !client.handshake().await.map_err(event)?.accepted {
            return Err(CanaryError::Refused);
        }
        let origin = format!("cbagent-{key}");
        let last = client.vector_clock().await.map_err(event)?.get(&origin);
        let mut previous_hash = String::new();
        if let Some((wall, logic)) = last {
            let before = Hlc::new(wall, logic.saturating_sub(1), "");
            // Without a filter: a node on BLite answers one with nothing (`NODE.md`, section 3).
            let events = client.pull(&before, &[]).await.map_err(event)?;
            let newest = events.iter().rfind(|event| event.hlc.node == origin);
            previous_hash = newest.map(|event| event.hash.clone()).unwrap_or_default();
        }
        let wall = last.map_or(wall_ms, |(wall, _)| wall_ms.max(wall + 1));
        let entry = OplogEntry {
            collection: CANARY_COLLECTION.to_owned(),
            key,
            operation,
            payload,
            hlc: Hlc::new(wall, 0, origin),
            hash: String::new(),
            previous_hash,
        };
        let mut writer = CanaryWriter::switched_on(&mut client);
        let pushed = writer.push(vec![entry.seal()]).await.map_err(event)?;
        pushed.accepted.then_some(()).ok_or(CanaryError::Refused)
    }
}
