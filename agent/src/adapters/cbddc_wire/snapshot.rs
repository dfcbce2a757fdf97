//! The whole of what a node holds, as it sends it to a peer that has fallen behind.
//!
//! The node makes it whole in its temporary folder before it sends the first piece, so it is asked for
//! only where a person wants it.

use super::client::WireClient;
use super::error::WireError;
use super::link::Received;
use super::messages::{Empty, SnapshotChunk, kind};
use std::time::Duration;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;

/// How long the node may take until its first piece, and for each one after.
const PIECE_LIMIT: Duration = Duration::from_secs(120);

const STEP: &str = "snapshot";

impl WireClient {
    /// Has the node send all that it holds into a file, `most` bytes at most; returns how many there are.
    /// It takes the client: whatever comes of it, no other question follows.
    ///
    /// # Errors
    /// [`WireError`]: also [`WireError::TooMuch`], and [`WireError::Keep`] where the file cannot be written.
    pub async fn snapshot(mut self, file: &mut File, most: u64) -> Result<u64, WireError> {
        let mut link = self.link.take().ok_or(WireError::Broken)?;
        let exchange = |source| WireError::Exchange { step: STEP, source };
        let sent = link.send(kind::GET_SNAPSHOT, &Empty {});
        within(sent).await?.map_err(exchange)?;
        let mut bytes = 0_u64;
        loop {
            let received: Option<Received> = within(link.receive()).await?.map_err(exchange)?;
            let received = received.ok_or(WireError::Closed { step: STEP })?;
            if received.kind != kind::SNAPSHOT_CHUNK {
                return Err(WireError::UnexpectedType {
                    step: STEP,
                    expected: kind::SNAPSHOT_CHUNK,
                    got: received.kind,
                });
            }
            let chunk: SnapshotChunk = received.decode().map_err(exchange)?;
            bytes = bytes.saturating_add(chunk.data.len() as u64);
            if bytes > most {
                return Err(WireError::TooMuch {
                    step: STEP,
                    what: "bytes",
                    most: usize::try_from(most).unwrap_or(usize::MAX),
                });
            }
            let written = file.write_all(&chunk.data).await;
            written.map_err(|source| WireError::Keep { source })?;
            if chunk.is_last {
                let flushed = file.flush().await;
                flushed.map_err(|source| WireError::Keep { source })?;
                return Ok(bytes);
            }
        }
    }
}

async fn within<T>(work: impl Future<Output = T>) -> Result<T, WireError> {
    let timeout = |_| WireError::Timeout {
        step: STEP,
        after: PIECE_LIMIT,
    };
    tokio::time::timeout(PIECE_LIMIT, work)
        .await
        .map_err(timeout)
}
