//! Arguments of `replication`.

use super::NodesArgs;
use super::values::duration;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// `cbctl replication`.
#[derive(Debug, Subcommand)]
pub enum ReplicationCommand {
    /// Looks for seconds whether events arrive everywhere exactly once: the judgement that a rollout
    /// makes after each wave. Exits with 8 when something is wrong or does not come about in time.
    Check(ReplicationCheckArgs),
    /// Compares every event of every node, and the documents. Exits with 8 when something is found.
    Audit(ReplicationAuditArgs),
}

/// `cbctl replication check`.
#[derive(Debug, Clone, Args)]
pub struct ReplicationCheckArgs {
    /// Which nodes. A part of the mesh cannot prove that the others got anything.
    #[command(flatten)]
    pub nodes: NodesArgs,
    /// The collections in which events must be seen. Default: those that the agents' configurations
    /// name as target collections, or else whatever moves. Where clusters have names, CLUSTER/COLLECTION
    /// is of that one alone.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    pub collections: Vec<String>,
    /// How far back events count.
    #[arg(long, value_name = "DURATION", default_value = "1min", value_parser = duration)]
    pub since: Duration,
    /// How long to look at least, to measure how long events take to arrive.
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration)]
    pub measure: Duration,
    /// How long to wait for what is not there yet. The default outlasts the longest pause of a node
    /// that could not reach a peer, 60 s, and its quiesce limit.
    #[arg(long, value_name = "DURATION", default_value = "100s", value_parser = duration)]
    pub wait: Duration,
    /// A node whose clock is behind and has not moved for this long is stalled.
    #[arg(long, value_name = "DURATION", default_value = "90s", value_parser = duration)]
    pub quiesce: Duration,
    /// Exit with 0 also where no event of a target collection was seen to arrive.
    #[arg(long)]
    pub accept_unproven: bool,
    /// How long to look for events where nobody writes.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub patience: Duration,
}

/// `cbctl replication audit`.
#[derive(Debug, Clone, Args)]
pub struct ReplicationAuditArgs {
    /// Which nodes.
    #[command(flatten)]
    pub nodes: NodesArgs,
    /// Only events of this last while. Default: everything.
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "full")]
    pub since: Option<Duration>,
    /// Everything: the default, said aloud.
    #[arg(long)]
    pub full: bool,
    /// Compare database files instead of asking nodes: copies, or those of nodes that are off. EF Core
    /// and SQLite 0.9.1 schemas.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["node", "full"])]
    pub db: Vec<PathBuf>,
    /// Do not compare the contents of documents.
    #[arg(long, conflicts_with = "documents")]
    pub no_documents: bool,
    /// Compare the documents of every node: one whose database does not tell them, as with BLite or tables of
    /// the application's own, sends a snapshot of all that it holds, one node after the other. That costs it
    /// time and disk. The exit code is 3 where a node's were not compared all the same.
    #[arg(long, conflicts_with = "db")]
    pub documents: bool,
    /// How long clocks that are behind may take to catch up before they are stalled.
    #[arg(long, value_name = "DURATION", default_value = "90s", value_parser = duration)]
    pub quiesce: Duration,
    /// The pause before what may be a matter of time is looked at again.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub settle: Duration,
}
