//! The part of `cbctl mesh` that says where certificates come from.

use super::ConfirmArgs;
use cbddc_domain::id::NodeName;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `cbctl mesh issuer`.
#[derive(Debug, Subcommand)]
pub enum IssuerCommand {
    /// Makes a member an issuer: gives it the issuing authority, which it uses without a restart.
    Add(IssuerArgs),
    /// Takes the issuing authority away from a member.
    ///
    /// On a host that was stolen this takes nothing back: replace the authorities with `cbctl mesh ca
    /// rotate` then.
    Remove(IssuerRemoveArgs),
}

/// `cbctl mesh issuer add`.
#[derive(Debug, Clone, Args)]
pub struct IssuerArgs {
    /// The member.
    pub node: NodeName,
    /// The mesh's folder, as `mesh init` made it. Default: the one that the context remembers.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Whether to ask.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// `cbctl mesh issuer remove`.
#[derive(Debug, Clone, Args)]
pub struct IssuerRemoveArgs {
    /// The member.
    pub node: NodeName,
    /// Also the last issuer: nobody joins or renews until there is another one.
    #[arg(long)]
    pub force: bool,
    /// Whether to ask.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// `cbctl mesh ca`.
#[derive(Debug, Subcommand)]
pub enum CaCommand {
    /// Replaces the root authority and the issuing authority, in two steps.
    ///
    /// The first makes new ones; members trust both, and renew their certificates by themselves. The
    /// second (--finish) drops the old ones, once everybody has a new certificate. Either may be run
    /// again after it was interrupted.
    Rotate(RotateArgs),
}

/// `cbctl mesh ca rotate`.
#[derive(Debug, Clone, Args)]
pub struct RotateArgs {
    /// The second step: the old authorities are trusted no more.
    #[arg(long)]
    pub finish: bool,
    /// With --finish: also while some have no new certificate. Hosts whose key is known renew theirs when
    /// they are back; the others need `cbctl mesh replace`, and people `cbctl mesh user add`.
    #[arg(long, requires = "finish")]
    pub force: bool,
    /// Takes the old root key's passphrase from the first line of this file instead of asking for it.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// The same for the new root key.
    #[arg(long, value_name = "FILE", conflicts_with = "no_passphrase")]
    pub new_passphrase_file: Option<PathBuf>,
    /// Does not encrypt the new root key. For meshes of the environment local only.
    #[arg(long)]
    pub no_passphrase: bool,
    /// The mesh's folder, as `mesh init` made it. Default: the one that the context remembers.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Whether to ask.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// `cbctl mesh recover`.
#[derive(Debug, Clone, Args)]
pub struct RecoverArgs {
    /// The folder to make, for the new authorities: keep it safe, it cannot be replaced.
    #[arg(long)]
    pub dir: PathBuf,
    /// The new admin's name.
    #[arg(long, value_name = "NAME")]
    pub user: String,
    /// Takes the recovery key from the first line of this file instead of asking for it.
    #[arg(long, value_name = "FILE")]
    pub recovery_file: Option<PathBuf>,
    /// Takes the new root key's passphrase from the first line of this file instead of asking for it.
    #[arg(long, value_name = "FILE", conflicts_with = "no_passphrase")]
    pub passphrase_file: Option<PathBuf>,
    /// Does not encrypt the new root key. For meshes of the environment local only.
    #[arg(long)]
    pub no_passphrase: bool,
    /// The mesh file of this host's agent.
    #[arg(long, value_name = "FILE", default_value = "/etc/cbagent/mesh.toml")]
    pub mesh_file: PathBuf,
    /// Whether to ask.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}
