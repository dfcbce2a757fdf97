//! The one request that writes: pushing an event of the agent's own, to see it replicate.
//!
//! A [`super::WireClient`] cannot write. Whoever wants a canary must make a [`CanaryWriter`], which
//! is what policy switches on, and nothing else in this crate makes one by itself.

use super::answers::PushOutcome;
use super::client::WireClient;
use super::error::WireError;
use super::messages::{Ack, ChangeSet, kind};
use cbddc_domain::oplog::OplogEntry;

/// May push events to the node of the client it borrows.
#[derive(Debug)]
pub struct CanaryWriter<'a> {
    client: &'a mut WireClient,
}

impl<'a> CanaryWriter<'a> {
    /// Allows writing through `client`, which must have been accepted in its handshake.
    pub fn switched_on(client: &'a mut WireClient) -> Self {
        Self { client }
    }

    /// Pushes events. They replicate to every peer and stay in the chain of their origin for ever.
    ///
    /// # Errors
    /// As every question: [`WireError`]. After an error the events may or may not have been taken.
    pub async fn push(&mut self, entries: Vec<OplogEntry>) -> Result<PushOutcome, WireError> {
        let request = ChangeSet {
            entries: entries.into_iter().map(Into::into).collect(),
        };
        let limit = self.client.bulk_timeout();
        let ack: Ack = self
            .client
            .ask("push", kind::PUSH_CHANGES, &request, kind::ACK, limit)
            .await?;
        Ok(PushOutcome {
            accepted: ack.success,
            snapshot_required: ack.snapshot_required,
        })
    }
}
