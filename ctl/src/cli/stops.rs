//! `cbctl node drain|undrain|quarantine|release` and `cbctl mesh freeze|thaw`.

use super::{ConfirmArgs, TargetArgs, values};
use cbddc_domain::id::NodeName;
use clap::Args;
use std::time::Duration;

/// `cbctl node drain` and `undrain`.
#[derive(Debug, Clone, Args)]
pub struct DrainArgs {
    /// Which nodes.
    #[command(flatten)]
    pub targets: TargetArgs,
    /// Why, in words, for status and journal.
    #[arg(long, default_value = "")]
    pub reason: String,
    /// Whether to ask.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// `cbctl node quarantine` and `release`.
#[derive(Debug, Clone, Args)]
pub struct QuarantineArgs {
    /// Which nodes.
    #[command(flatten)]
    pub targets: TargetArgs,
    /// Why, in words, for status and journal.
    #[arg(long)]
    pub reason: String,
    /// Whether to ask.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// `cbctl node reseed`.
#[derive(Debug, Clone, Args)]
pub struct ReseedArgs {
    /// Which node.
    pub node: NodeName,
    /// How long to wait until it has caught up.
    #[arg(long, default_value = "15min", value_name = "DURATION", value_parser = values::duration)]
    pub within: Duration,
    /// Whether to ask.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// `cbctl mesh freeze`.
#[derive(Debug, Clone, Args)]
pub struct FreezeArgs {
    /// Why, in words, for whoever is refused.
    #[arg(long)]
    pub reason: String,
    /// How long from now, such as 8h; at most 1d: freeze again for longer.
    #[arg(long = "until", value_name = "DURATION", value_parser = values::duration)]
    pub lasts: Duration,
    /// Whether to ask.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// `cbctl mesh thaw`.
#[derive(Debug, Clone, Args)]
pub struct ThawArgs {
    /// Why, in words, for the journal.
    #[arg(long)]
    pub reason: String,
    /// Whether to ask.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}
