//! Following a stream of numbered entries from several nodes: what comes, as it comes. A node that
//! cannot be reached is asked again; nobody waits for it.

use crate::cli::Output;
use crate::error::CtlError;
use crate::mesh::{Outcome, Session, outcome_of};
use crate::render::{self, Table};
use cbddc_domain::id::NodeName;
use serde::Serialize;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// Pause before a node is asked again that could not be followed.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Entries that wait to be printed.
const WAITING: usize = 256;

/// What can be followed.
pub(super) trait Followed: Send + 'static {
    /// A message of the stream.
    type Message: Send + 'static;
    /// What is printed of it.
    type Entry: Send + 'static;

    /// The number of the node's newest entry; zero: it has none.
    fn newest(channel: Channel) -> impl Future<Output = Result<u64, Status>> + Send;

    /// The entries after a number, as they come.
    fn open(
        channel: Channel,
        after: u64,
    ) -> impl Future<Output = Result<Streaming<Self::Message>, Status>> + Send;

    /// The number of a message's entry and the entry, if it has one.
    fn read(node: &NodeName, message: Self::Message) -> Option<(u64, Self::Entry)>;
}

/// Follows each of the nodes, from after the number beside it. Without one, where the node has not yet
/// said what its newest entry is, only what comes later is shown.
pub(super) fn follow_all<F: Followed>(
    session: &Session,
    nodes: impl IntoIterator<Item = (NodeName, Option<u64>)>,
) -> mpsc::Receiver<F::Entry> {
    let (sender, coming) = mpsc::channel(WAITING);
    for (node, after) in nodes {
        let (session, sender) = (session.clone(), sender.clone());
        tokio::spawn(follow_node::<F>(session, node, after, sender));
    }
    coming
}

async fn follow_node<F: Followed>(
    session: Session,
    node: NodeName,
    mut after: Option<u64>,
    sender: mpsc::Sender<F::Entry>,
) {
    let mut reported = false;
    loop {
        let ended = stream::<F>(&session, &node, &mut after, &sender, &mut reported).await;
        if sender.is_closed() {
            return;
        }
        let outcome: Outcome<()> = outcome_of(ended);
        if !reported {
            eprintln!("{node}: {} {}; trying again", outcome.word(), outcome.why());
            reported = true;
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// Follows one node until the stream ends.
async fn stream<F: Followed>(
    session: &Session,
    node: &NodeName,
    after: &mut Option<u64>,
    sender: &mpsc::Sender<F::Entry>,
    reported: &mut bool,
) -> Result<(), Status> {
    let begin = async {
        let channel = session.channel(node).await?;
        let from = match *after {
            Some(number) => number,
            None => F::newest(channel.clone()).await?,
        };
        Ok::<_, Status>((from, F::open(channel, from).await?))
    };
    let (from, mut messages) = tokio::time::timeout(session.timeout(), begin)
        .await
        .map_err(|_| Status::deadline_exceeded("no answer in time"))??;
    *after = Some(from);
    if *reported {
        eprintln!("{node}: there again");
        *reported = false;
    }
    while let Some(message) = messages.message().await? {
        let Some((number, entry)) = F::read(node, message) else {
            continue;
        };
        *after = Some(number);
        if sender.send(entry).await.is_err() {
            return Ok(());
        }
    }
    Err(Status::unavailable("the agent ended the stream"))
}

/// Prints one entry as it comes. What comes later is unknown, so columns are not aligned.
pub(super) fn print<T: Serialize>(
    entry: &T,
    cells: &[String],
    output: Output,
) -> Result<(), CtlError> {
    match output {
        Output::Json => render::print_line(entry),
        Output::Table => {
            let mut line = Table::new(&[]);
            line.row([cells.join("  ")]);
            render::write(line.render().trim_start_matches('\n'))
        }
    }
}
