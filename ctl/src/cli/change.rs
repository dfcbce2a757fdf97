//! Arguments of the commands that change what runs: `rollout` and `rollback`.

use super::values::{duration, label};
use cbddc_domain::build::BuildId;
use cbddc_domain::id::NodeName;
use cbddc_domain::waves::WaveSizes;
use clap::{Args, Subcommand};
use std::time::Duration;

/// `cbctl rollout`.
#[derive(Debug, Subcommand)]
pub enum RolloutCommand {
    /// Shows what a rollout would do, node by node and wave by wave. Changes nothing.
    Plan(Box<PlanArgs>),
    /// Brings nodes to a release in waves, checks every wave, and goes back on any failure.
    Start(Box<StartArgs>),
    /// How far a rollout is. Default: the newest one.
    Status {
        /// Its id, as `rollout list` shows it.
        id: Option<String>,
    },
    /// The rollouts that the nodes remember, newest first.
    List,
    /// Goes on with a rollout whose client is gone.
    Resume(ResumeArgs),
    /// Ends a rollout: its nodes go back, unless it turns out to be decided.
    Abort(AbortArgs),
}

/// Which nodes to change.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct TargetArgs {
    /// All members of the mesh.
    #[arg(long)]
    pub mesh: bool,
    /// Only these nodes.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    pub node: Vec<NodeName>,
    /// Only nodes with this label, `role=till`; where there are several, with all of them.
    #[arg(short = 'l', long = "label", value_name = "KEY[=VALUE]", value_parser = label)]
    pub labels: Vec<(String, String)>,
}

/// Whether to ask before something changes.
#[derive(Debug, Clone, Copy, Args)]
pub struct ConfirmArgs {
    /// Only say what would happen; change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask. Without it, a command that is not at a terminal refuses.
    #[arg(short, long)]
    pub yes: bool,
}

/// How nodes are grouped. Default: up to 4 nodes one at a time, else 1, then 25 %, then the rest.
#[derive(Debug, Clone, Args)]
pub struct WaveArgs {
    /// The same number of nodes in every wave.
    #[arg(long, value_name = "N", conflicts_with = "waves", value_parser = clap::value_parser!(u16).range(1..))]
    pub wave_size: Option<u16>,
    /// The size of each wave: numbers of nodes, or percentages of all targets; the last one repeats.
    #[arg(long, value_name = "1,25%,100%")]
    pub waves: Option<WaveSizes>,
}

/// How long things may take. Durations carry a unit: 500ms, 30s, 5min, 1h.
#[derive(Debug, Clone, Copy, Args)]
pub struct TimingArgs {
    /// A wave must be healthy and pass the mesh check within this.
    #[arg(long, value_name = "DURATION", default_value = "5min", value_parser = duration)]
    pub verify: Duration,
    /// How long a node must be healthy before it counts.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub healthy: Duration,
    /// How long a node waits for news before it goes back by itself.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub probation: Duration,
    /// How often probation is renewed; well below --probation.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    pub renew: Duration,
    /// Pause after each wave, with the checks armed.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub soak: Duration,
    /// How long a committed release must stay clean before it counts as known-good.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    pub bake: Duration,
}

/// `cbctl rollout plan`.
#[derive(Debug, Clone, Args)]
pub struct PlanArgs {
    /// The build, NAME@VERSION. Unset: stays as it is.
    #[arg(long, value_name = "NAME@VERSION")]
    pub build: Option<BuildId>,
    /// The configuration set, NAME@VERSION. Unset: stays as it is.
    #[arg(long, value_name = "NAME@VERSION")]
    pub config: Option<BuildId>,
    /// The secret set, NAME@VERSION. Unset: stays as it is.
    #[arg(long, value_name = "NAME@VERSION")]
    pub secrets: Option<BuildId>,
    /// Which nodes.
    #[command(flatten)]
    pub targets: TargetArgs,
    /// In which groups.
    #[command(flatten)]
    pub waves: WaveArgs,
    /// How long things may take.
    #[command(flatten)]
    pub timing: TimingArgs,
    /// Why, in words, for the journal.
    #[arg(long, default_value = "")]
    pub reason: String,
    /// Begin although something is wrong with replication before anything changes, and say why. It is
    /// written down, and from then on only what is new counts.
    #[arg(long, value_name = "REASON")]
    pub accept_findings: Option<String>,
    /// How long the nodes may take to agree before anything changes.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub agree: Duration,
}

/// What the mesh check after a wave takes for proof.
#[derive(Debug, Clone, Copy, Args)]
pub struct ProofArgs {
    /// Go on after a wave although no event of a target collection was seen to arrive. Without it
    /// the wave fails in the end, and its nodes go back.
    #[arg(long)]
    pub accept_unproven: bool,
    /// How long to look for events where nobody writes. After it the mesh passes, told to be unproven,
    /// unless target collections are configured.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub patience: Duration,
}

/// `cbctl rollout start`.
#[derive(Debug, Clone, Args)]
pub struct StartArgs {
    /// What, where and how.
    #[command(flatten)]
    pub plan: PlanArgs,
    /// What the mesh check takes for proof.
    #[command(flatten)]
    pub proof: ProofArgs,
    /// Whether to ask.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// `cbctl rollout resume`.
#[derive(Debug, Clone, Args)]
pub struct ResumeArgs {
    /// Its id, as `rollout list` shows it. Default: the one under way.
    pub id: Option<String>,
    /// What the mesh check takes for proof.
    #[command(flatten)]
    pub proof: ProofArgs,
    /// Why, in words, for the journal.
    #[arg(long, default_value = "")]
    pub reason: String,
    /// Whether to ask.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// `cbctl rollout abort`.
#[derive(Debug, Clone, Args)]
pub struct AbortArgs {
    /// Its id, as `rollout list` shows it. Default: the one under way.
    pub id: Option<String>,
    /// Why, in words, for the journal.
    #[arg(long, default_value = "")]
    pub reason: String,
    /// How long to watch the nodes go back.
    #[arg(long, value_name = "DURATION", default_value = "5min", value_parser = duration)]
    pub verify: Duration,
    /// Whether to ask.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// `cbctl rollback`.
#[derive(Debug, Clone, Args)]
pub struct RollbackArgs {
    /// Which nodes.
    #[command(flatten)]
    pub targets: TargetArgs,
    /// The release to go back to: its short id, or the build NAME@VERSION. Default: the newest
    /// unrevoked release that was committed and baked clean on a majority.
    #[arg(long, value_name = "RELEASE")]
    pub to: Option<String>,
    /// Also restore each node's own snapshot from before the release being left. The state that it
    /// replaces is kept as a snapshot, and `status` shows it as owed.
    #[arg(long)]
    pub restore: bool,
    /// Go back without a majority of the voters, on the nodes that can be reached; needs --reason.
    /// Whatever the others decide in ignorance of it loses against it when they meet.
    #[arg(long, requires = "reason")]
    pub minority: bool,
    /// Why, in words, for the journal and for the revocation.
    #[arg(long, default_value = "")]
    pub reason: String,
    /// How long to watch the nodes go back.
    #[arg(long, value_name = "DURATION", default_value = "5min", value_parser = duration)]
    pub verify: Duration,
    /// Whether to ask.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}
