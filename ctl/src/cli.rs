//! What can be typed. The comments here are the manual that `cbctl help` shows.

mod authority;
mod change;
mod enrol;
mod members;
mod mesh;
mod replication;
mod stops;
mod values;

pub use authority::{
    CaCommand, IssuerArgs, IssuerCommand, IssuerRemoveArgs, RecoverArgs, RotateArgs,
};
pub use change::{
    AbortArgs, ConfirmArgs, PlanArgs, ProofArgs, ResumeArgs, RollbackArgs, RolloutCommand,
    StartArgs, TargetArgs, TimingArgs, WaveArgs,
};
pub use enrol::{EnrolArgs, EnrolledHost, enrolled_host};
pub use members::{
    LabelArgs, RemoveArgs, ReplaceArgs, TokenArgs, UserPushArgs, UserRemoveArgs, VotersArgs,
};
pub use mesh::{InitArgs, IssueArgs, MeshCommand, UserAddArgs, UserCommand};
pub use replication::{ReplicationAuditArgs, ReplicationCheckArgs, ReplicationCommand};
pub use stops::{DrainArgs, FreezeArgs, QuarantineArgs, ReseedArgs, ThawArgs};
pub use values::duration;

use cbddc_domain::build::BuildId;
use cbddc_domain::id::NodeName;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

const EXIT_CODES: &str = "\
Exit codes:
    0  as asked
    1  error
    2  refused by a gate, nothing changed
    3  partial: some nodes are pending or unreachable, they will converge
    4  failed, fully reverted
    5  inconsistent or in doubt: needs a person
    6  another rollout holds the lock, or a vote is undecided
    7  not allowed
    8  looked, and found something wrong
   64  the command line makes no sense
  130  interrupted; the state was printed";

/// Rolls builds out over a mesh of CBDDC nodes, and back.
#[derive(Debug, Parser)]
#[command(name = "cbctl", version, after_help = EXIT_CODES, subcommand_required = true)]
pub struct Cli {
    /// What goes for every command.
    #[command(flatten)]
    pub common: CommonArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What goes for every command.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// How to print: a table for people, or JSON for programs.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// The mesh to speak to. Default: the current context.
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Speak to this host's agent alone, through its socket, without a certificate. It takes root,
    /// or a user whom the agent's configuration names.
    /// Default: /run/cbagent/agent.sock where no mesh is known and that file is there.
    #[arg(long, global = true, value_name = "PATH", conflicts_with = "context")]
    pub socket: Option<PathBuf>,
    /// The time limit for each node, connecting included, with its unit: 500ms, 10s, 1min.
    #[arg(long, global = true, default_value = "10s", value_parser = duration)]
    pub timeout: Duration,
    /// How many nodes to speak to at once.
    #[arg(long, global = true, default_value_t = crate::mesh::JOBS_DEFAULT, value_name = "N")]
    pub jobs: usize,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Where every node stands: phase, release, health, lock, drift; and what the mesh has decided.
    ///
    /// Exits with 0 when every node answered and none needs anything, with 3 when one was not
    /// reached or does not yet run what is decided, with 5 when one is stuck or a vote is in doubt.
    Status(NodesArgs),
    /// Goes back to an earlier release, on every node at once.
    ///
    /// The target is the newest release that was committed and baked clean on a majority, unless
    /// --to names another. The release being left is revoked: no node starts it again.
    Rollback(RollbackArgs),
    /// Bundles: make, send, list.
    #[command(subcommand)]
    Build(BuildCommand),
    /// Releases: builds with their configuration and secrets.
    #[command(subcommand)]
    Release(ReleaseCommand),
    /// Bringing a new release to nodes, wave by wave.
    #[command(subcommand)]
    Rollout(RolloutCommand),
    /// Copies of the nodes' databases.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// What the checks say.
    #[command(subcommand)]
    Health(HealthCommand),
    /// Whether events arrive everywhere, exactly once, unaltered.
    #[command(subcommand)]
    Replication(ReplicationCommand),
    /// Single nodes.
    #[command(subcommand)]
    Node(NodeCommand),
    /// What happened, when and why.
    #[command(subcommand)]
    Journal(JournalCommand),
    /// The mesh itself: members and certificates.
    #[command(subcommand)]
    Mesh(MeshCommand),
}

/// Which nodes to look at.
#[derive(Debug, Clone, Args)]
pub struct NodesArgs {
    /// Only these nodes. Default: the whole mesh.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    pub node: Vec<NodeName>,
    /// Only nodes with this label, `role=till`; where there are several, with all of them.
    #[arg(short = 'l', long = "label", value_name = "KEY[=VALUE]", value_parser = values::label, conflicts_with = "node")]
    pub labels: Vec<(String, String)>,
}

/// `cbctl build`.
#[derive(Debug, Subcommand)]
pub enum BuildCommand {
    /// Makes a bundle of a folder: one file that `push` sends.
    Pack(PackArgs),
    /// Sends a bundle to nodes; each verifies it before it counts. Nothing starts to run.
    Push(PushArgs),
    /// The builds on every node.
    List(NodesArgs),
    /// One build on every node, and what the nodes have written into its folder.
    Show(ShowBuildArgs),
    /// Removes one build from nodes that do not need it: it neither runs there, nor is ordered, nor does a
    /// way back lead to it.
    Rm(RemoveBuildArgs),
    /// Removes builds that ran and are not needed any more, and those that are revoked. Builds that never
    /// ran stay, and so do those in whose folders databases lie.
    Gc(CollectBuildsArgs),
}

/// `cbctl build rm`.
#[derive(Debug, Clone, Args)]
pub struct RemoveBuildArgs {
    /// The build, NAME@VERSION.
    #[arg(value_name = "NAME@VERSION")]
    pub build: BuildId,
    /// Which nodes.
    #[command(flatten)]
    pub nodes: NodesArgs,
    /// Whether to ask.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// `cbctl build gc`.
#[derive(Debug, Clone, Args)]
pub struct CollectBuildsArgs {
    /// How many builds stay on each node of those that ran there last, beside what it needs.
    #[arg(long, default_value_t = 5, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub keep: u32,
    /// Which nodes.
    #[command(flatten)]
    pub nodes: NodesArgs,
    /// Whether to ask.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// `cbctl build show`.
#[derive(Debug, Clone, Args)]
pub struct ShowBuildArgs {
    /// The build, NAME@VERSION.
    #[arg(value_name = "NAME@VERSION")]
    pub build: BuildId,
    /// Which nodes.
    #[command(flatten)]
    pub nodes: NodesArgs,
}

/// `cbctl build pack`.
#[derive(Debug, Clone, Args)]
pub struct PackArgs {
    /// The folder with the build's files.
    pub dir: PathBuf,
    /// The build's name, NAME@VERSION.
    #[arg(long, value_name = "NAME@VERSION")]
    pub build: BuildId,
    /// Where to write the bundle. Default: NAME@VERSION.cbundle in this folder.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Declares that the build changes the persistence format: going back restores the snapshot.
    #[arg(long)]
    pub changes_persistence: bool,
}

/// `cbctl build push`.
#[derive(Debug, Clone, Args)]
pub struct PushArgs {
    /// The bundle, as `build pack` wrote it.
    pub bundle: PathBuf,
    /// Only to these nodes. Default: the whole mesh.
    #[command(flatten)]
    pub nodes: NodesArgs,
    /// Only say what would be sent to whom.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask. Sending changes nothing that runs, so this command never asks.
    #[arg(short, long)]
    pub yes: bool,
    /// The time limit for each node's transfer.
    #[arg(long, default_value = "10min", value_parser = duration, value_name = "DURATION")]
    pub transfer_limit: Duration,
}

/// `cbctl release`.
#[derive(Debug, Subcommand)]
pub enum ReleaseCommand {
    /// The releases that the nodes know, and where each of them is, runs or ran.
    List(NodesArgs),
    /// Lifts the revocation of a build: it may run again.
    Trust {
        /// The build, NAME@VERSION, or its digest.
        #[arg(value_name = "BUILD")]
        build: String,
        /// Why, in words, for the journal and the record.
        #[arg(long)]
        reason: String,
        /// Whether to ask.
        #[command(flatten)]
        confirm: ConfirmArgs,
    },
    /// One release on every node.
    Show {
        /// Its short id, as `release list` shows it.
        release: String,
        /// Which nodes.
        #[command(flatten)]
        nodes: NodesArgs,
    },
}

/// `cbctl snapshot`.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Takes a snapshot on every node, while it runs, and verifies it.
    Create {
        /// Which nodes.
        #[command(flatten)]
        nodes: NodesArgs,
        /// Why, in words.
        #[arg(long, default_value = "by hand")]
        reason: String,
        /// Whether to ask.
        #[command(flatten)]
        confirm: ConfirmArgs,
    },
    /// The snapshots on every node, newest first.
    List(NodesArgs),
    /// Puts a snapshot in the place of one node's database. The node stops and starts for it, and
    /// the state that is replaced is kept as a snapshot of its own.
    Restore {
        /// Which snapshot, as `snapshot list` shows it.
        snapshot: String,
        /// On which node.
        #[arg(long)]
        node: NodeName,
        /// Whether to ask.
        #[command(flatten)]
        confirm: ConfirmArgs,
    },
}

/// `cbctl health`.
#[derive(Debug, Subcommand)]
pub enum HealthCommand {
    /// Measures now, on every node, and shows each check: how it is judged and since when, and what
    /// was measured now. Exits with 8 unless all are healthy.
    Show(NodesArgs),
    /// What health was: a line for each check over the whole time, and every change.
    ///
    /// In the line, time runs from left to right, and each cell shows the worst of its time:
    /// ▁ healthy, ▃ degraded, ▅ unknown, █ unhealthy, · nobody looked. Exits with 8 when a node was
    /// not healthy all the time.
    History(HistoryArgs),
}

/// `cbctl health history`.
#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    /// Which nodes.
    #[command(flatten)]
    pub nodes: NodesArgs,
    /// How far back to look, with its unit: 30min, 6h, 1d.
    #[arg(long, default_value = "1h", value_parser = duration, value_name = "DURATION")]
    pub since: Duration,
    /// Only this check; `all` is the verdict over all of them.
    #[arg(long, value_name = "NAME")]
    pub check: Option<String>,
    /// Go on with every new entry as it is written, until Ctrl-C.
    #[arg(long)]
    pub follow: bool,
}

/// `cbctl node`.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// The releases that one node ran, newest first.
    History {
        /// Which node.
        node: NodeName,
    },
    /// Takes the systemd service that runs the node over as it is, without stopping it.
    ///
    /// The program's folder becomes generation 1, and one drop-in lets the unit follow what is
    /// rolled out. The first switch comes with the first rollout.
    Adopt(AdoptArgs),
    /// Stops the traffic of nodes with the drain command of each agent's configuration, until it is
    /// let go again: no restart of node, agent or host lets it go on.
    Drain(DrainArgs),
    /// Lets the traffic of nodes go on.
    Undrain(DrainArgs),
    /// Cuts nodes off from their peers without losing data, until they are released: their ports are
    /// blocked, or they are stopped, as each agent's configuration says.
    Quarantine(QuarantineArgs),
    /// Lets nodes join their peers again.
    Release(QuarantineArgs),
    /// Has a node take everything from its peers again, as where it has forgotten its own history: it is
    /// stopped, its data is kept as a snapshot, and it starts without; then it is waited until it has
    /// caught up, and what only the kept data holds is listed.
    Reseed(ReseedArgs),
    /// Takes the drop-in away again, without stopping the service: the unit is as it was.
    Unadopt {
        /// Which nodes.
        #[command(flatten)]
        targets: TargetArgs,
        /// Whether to ask.
        #[command(flatten)]
        confirm: ConfirmArgs,
    },
}

/// `cbctl node adopt`.
#[derive(Debug, Clone, Args)]
pub struct AdoptArgs {
    /// Which nodes.
    #[command(flatten)]
    pub targets: TargetArgs,
    /// The unit. Default: the one that each agent's configuration names.
    #[arg(long, value_name = "UNIT")]
    pub unit: Option<String>,
    /// What to call the build that is made of the program's files. Use the same name on all hosts:
    /// hosts with the same files then have the same release.
    #[arg(
        long = "as",
        value_name = "NAME@VERSION",
        default_value = "cbddc@adopted"
    )]
    pub build: BuildId,
    /// Also where the mesh has decided on another release for the node, as on a host that was
    /// replaced: the node then switches to that at once, and its service stops for a moment.
    #[arg(long)]
    pub switch: bool,
    /// Whether to ask.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// `cbctl journal`.
#[derive(Debug, Subcommand)]
pub enum JournalCommand {
    /// The newest entries of every node, in the order of their clocks.
    List {
        /// Which nodes.
        #[command(flatten)]
        nodes: NodesArgs,
        /// How many entries of each node; at most 1000.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Every new entry as it is written, until Ctrl-C.
    Follow {
        /// Which nodes.
        #[command(flatten)]
        nodes: NodesArgs,
        /// How many earlier entries of each node to begin with; at most 1000.
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000))]
        limit: u32,
    },
}
