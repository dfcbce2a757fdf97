//! The part of `cbctl mesh` that says who is in the mesh.

use super::{ConfirmArgs, values};
use cbddc_domain::id::NodeName;
use clap::Args;
use std::path::PathBuf;
use std::time::Duration;

/// `cbctl mesh token`.
#[derive(Debug, Clone, Args)]
pub struct TokenArgs {
    /// How many hosts may join with it.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub uses: u32,
    /// How long it may be used, at most 24h.
    #[arg(long, default_value = "15min", value_parser = values::duration, value_name = "DURATION")]
    pub ttl: Duration,
    /// The only name that the host may take. Default: any that is new.
    #[arg(long, value_name = "NAME", conflicts_with = "uses")]
    pub host: Option<NodeName>,
    /// The issuer that admits the host. Default: the first that can be reached.
    #[arg(long, value_name = "NODE")]
    pub issuer: Option<NodeName>,
    /// A label of the host. May be repeated.
    #[arg(short = 'l', long = "label", value_name = "KEY[=VALUE]", value_parser = values::label)]
    pub labels: Vec<(String, String)>,
    /// The host comes and goes: it does not vote, and a rollout does not wait for it.
    #[arg(long)]
    pub optional: bool,
    /// Only say what would be made.
    #[arg(long)]
    pub dry_run: bool,
}

/// `cbctl mesh label`.
#[derive(Debug, Clone, Args)]
pub struct LabelArgs {
    /// The member.
    pub node: NodeName,
    /// Labels to set.
    #[arg(value_name = "KEY[=VALUE]", value_parser = values::label)]
    pub labels: Vec<(String, String)>,
    /// Labels to take away.
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    pub remove: Vec<String>,
    /// The mesh counts on it from now on.
    #[arg(long, conflicts_with = "optional")]
    pub required: bool,
    /// It comes and goes from now on.
    #[arg(long)]
    pub optional: bool,
    /// Whether to ask.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// `cbctl mesh remove`.
#[derive(Debug, Clone, Args)]
pub struct RemoveArgs {
    /// The host.
    pub node: NodeName,
    /// Why, in words.
    #[arg(long, default_value = "")]
    pub reason: String,
    /// Also while it votes, where the voters cannot be changed: until they are, its vote is missing.
    #[arg(long)]
    pub force: bool,
    /// Whether to ask.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// `cbctl mesh replace`.
#[derive(Debug, Clone, Args)]
pub struct ReplaceArgs {
    /// The host that has a new disk.
    pub node: NodeName,
    /// How long the token may be used, at most 24h.
    #[arg(long, default_value = "15min", value_parser = values::duration, value_name = "DURATION")]
    pub ttl: Duration,
    /// The issuer that admits the host. Default: the first that can be reached.
    #[arg(long, value_name = "NODE")]
    pub issuer: Option<NodeName>,
    /// Also while it votes, where the voters cannot be changed.
    #[arg(long)]
    pub force: bool,
    /// Whether to ask.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// `cbctl mesh voters`.
#[derive(Debug, Clone, Args)]
pub struct VotersArgs {
    /// These members vote from now on. Default: all that are required.
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    pub set: Vec<NodeName>,
    /// Why, in words.
    #[arg(long, default_value = "")]
    pub reason: String,
    /// Whether to ask.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// `cbctl mesh user remove`.
#[derive(Debug, Clone, Args)]
pub struct UserRemoveArgs {
    /// The person's name.
    pub name: String,
    /// Why, in words.
    #[arg(long, default_value = "")]
    pub reason: String,
    /// Even yourself, or the last admin that is known.
    #[arg(long)]
    pub force: bool,
    /// Whether to ask.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// `cbctl mesh user push`.
#[derive(Debug, Clone, Args)]
pub struct UserPushArgs {
    /// The person's name.
    pub name: String,
    /// The folder with the person's user.pem. Default: users/NAME in the mesh's folder.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// The mesh's folder, as `mesh init` made it. Default: the one that the context remembers.
    #[arg(long)]
    pub dir: Option<PathBuf>,
}
