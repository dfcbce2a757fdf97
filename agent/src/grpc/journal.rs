//! The journal, read and followed.

use super::{Services, caller, refuse};
use crate::adapters::sqlite::{SqliteStore, StoredLine};
use crate::error_chain;
use cbddc_proto::v1;
use cbddc_proto::v1::journal_service_server::JournalService;
use std::pin::Pin;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

/// The most lines in one answer.
const LINES_MAX: u32 = 1_000;

/// Lines on their way to a follower who reads slowly.
const LINES_IN_FLIGHT: usize = 64;

#[tonic::async_trait]
impl JournalService for Services {
    async fn list_entries(
        &self,
        request: Request<v1::ListEntriesRequest>,
    ) -> Result<Response<v1::ListEntriesResponse>, Status> {
        caller(&request)?;
        let request = request.into_inner();
        let limit = if request.limit == 0 {
            LINES_MAX
        } else {
            request.limit.min(LINES_MAX)
        };
        let newest = *self.store.newest().borrow();
        let after = if request.newest {
            request.after.max(newest.saturating_sub(limit.into()))
        } else {
            request.after
        };
        let lines = self.store.lines_after(after, limit).await;
        let lines =
            lines.map_err(|error| refuse(Code::Internal, "journal", error_chain(&error)))?;
        let entries = lines.into_iter().map(message).collect();
        Ok(Response::new(v1::ListEntriesResponse { entries }))
    }

    type FollowEntriesStream =
        Pin<Box<dyn Stream<Item = Result<v1::FollowEntriesResponse, Status>> + Send>>;

    async fn follow_entries(
        &self,
        request: Request<v1::FollowEntriesRequest>,
    ) -> Result<Response<Self::FollowEntriesStream>, Status> {
        caller(&request)?;
        let after = request.into_inner().after;
        let (lines, stream) = mpsc::channel(LINES_IN_FLIGHT);
        tokio::spawn(follow(self.store.clone(), after, lines));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// Sends lines until the follower hangs up or the agent stops.
async fn follow(
    store: SqliteStore,
    mut after: u64,
    lines: mpsc::Sender<Result<v1::FollowEntriesResponse, Status>>,
) {
    let mut newest = store.newest();
    loop {
        newest.mark_unchanged();
        let read = match store.lines_after(after, LINES_MAX).await {
            Ok(read) => read,
            Err(error) => {
                let status = refuse(Code::Internal, "journal", error_chain(&error));
                return drop(lines.send(Err(status)).await);
            }
        };
        let waits = read.is_empty();
        for line in read {
            after = line.number;
            let message = v1::FollowEntriesResponse {
                entry: Some(message(line)),
            };
            if lines.send(Ok(message)).await.is_err() {
                return;
            }
        }
        if waits {
            tokio::select! {
                changed = newest.changed() => if changed.is_err() { return },
                () = lines.closed() => return,
            }
        }
    }
}

fn message(stored: StoredLine) -> v1::JournalEntry {
    let line = stored.line;
    v1::JournalEntry {
        number: stored.number,
        wall_ms: line.wall_ms,
        kind: line.kind,
        epoch: line.epoch.map(Into::into),
        generation: line.generation.unwrap_or_default(),
        actor: line.actor,
        text: line.text,
        hash: stored.hash.to_string(),
    }
}
