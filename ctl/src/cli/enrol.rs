//! `cbctl mesh enrol`.

use super::ConfirmArgs;
use cbddc_domain::id::NodeName;
use clap::Args;
use std::path::PathBuf;

/// `cbctl mesh enrol`.
#[derive(Debug, Clone, Args)]
pub struct EnrolArgs {
    /// The hosts: each a node's name, and where ssh finds it unless that is the host of its address
    /// in the mesh file. A node that is no member yet becomes one, with port 7443.
    #[arg(required = true, value_name = "NODE[=[USER@]HOST]", value_parser = enrolled_host)]
    pub hosts: Vec<EnrolledHost>,
    /// Where the agent of the one named node listens, HOST:PORT; adds the node to the mesh file, or
    /// changes its address.
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Option<String>,
    /// The agent's package, installed where there is no agent. Nothing else is ever installed.
    #[arg(long, value_name = "FILE")]
    pub package: Option<PathBuf>,
    /// The configuration for hosts that have none: a file for all of them, in which each host's
    /// name is written as `node`, or a folder with a NODE.toml for each.
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// The nodes' token, put into /etc/cbagent/token on hosts that have none.
    #[arg(long, value_name = "FILE")]
    pub token: Option<PathBuf>,
    /// Gives hosts that have a certificate a new one, and the mesh file as it is now.
    #[arg(long)]
    pub replace: bool,
    /// The login is not root: become root there by `sudo -n`.
    #[arg(long)]
    pub sudo: bool,
    /// The ssh to use.
    #[arg(long, value_name = "PROGRAM", default_value = "ssh")]
    pub ssh: PathBuf,
    /// Another configuration for ssh than your own, as in `ssh -F`.
    #[arg(long, value_name = "FILE")]
    pub ssh_config: Option<PathBuf>,
    /// The mesh's folder, as `mesh init` made it. Default: the one that the context remembers.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Whether to ask.
    #[command(flatten)]
    pub confirm: ConfirmArgs,
}

/// A node, and where ssh finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolledHost {
    /// The node's name.
    pub node: NodeName,
    /// `[USER@]HOST`, or a name from ssh's configuration.
    pub destination: Option<String>,
}

/// Reads `NODE[=[USER@]HOST]`.
pub fn enrolled_host(text: &str) -> Result<EnrolledHost, String> {
    let (name, destination) = match text.split_once('=') {
        Some((name, destination)) => (name, Some(destination)),
        None => (text, None),
    };
    let node = name
        .parse::<NodeName>()
        .map_err(|fault| fault.to_string())?;
    if let Some(destination) = destination {
        // ssh would take a dash for an option, and has ways to run what is behind other characters.
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-@:%[]".contains(c);
        let host = destination.rsplit('@').next().unwrap_or_default();
        if host.is_empty()
            || destination.len() > 255
            || destination.starts_with(['-', '@'])
            || host.starts_with('-')
            || !destination.chars().all(fits)
        {
            return Err("what is behind `=` must be [USER@]HOST".to_owned());
        }
    }
    Ok(EnrolledHost {
        node,
        destination: destination.map(str::to_owned),
    })
}
