//! The hosts that were named: where ssh finds them, and where their agents will listen.

use crate::cli::{CommonArgs, EnrolArgs, EnrolledHost};
use crate::commands::mesh::files::with_address;
use crate::enrol::deed::Host;
use crate::error::CtlError;
use crate::ssh::Ssh;
use cbddc_domain::id::NodeName;
use cbddc_domain::mesh::MeshFile;
use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::Arc;

/// Where agents listen unless somebody says otherwise.
const AGENT_PORT: u16 = 7443;

/// One host that was named.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) node: NodeName,
    pub(super) host: Host,
    /// Where its agent listens.
    pub(super) address: String,
    /// Whether the mesh file must change for it.
    pub(super) joins: bool,
}

/// The hosts that were named, each with where ssh and its agent are found.
pub(super) fn targets(
    arguments: &EnrolArgs,
    common: &CommonArgs,
    known: &MeshFile,
) -> Result<Vec<Target>, CtlError> {
    if arguments.address.is_some() && arguments.hosts.len() > 1 {
        return Err(CtlError::usage("--address is for one host").hint("name one node with it"));
    }
    let ssh = Arc::new(Ssh {
        program: arguments.ssh.clone(),
        config: arguments.ssh_config.clone(),
        sudo: arguments.sudo,
        may_ask: std::io::stdin().is_terminal(),
        connect_limit: common.timeout,
    });
    let mut mesh = known.clone();
    let mut targets = BTreeMap::new();
    for EnrolledHost { node, destination } in &arguments.hosts {
        let listed = known.addresses().remove(node);
        let joined = match (&arguments.address, &listed, destination) {
            (Some(address), ..) => Some(address.clone()),
            (None, Some(_), _) => None,
            (None, None, Some(destination)) => Some(with_port(host_of(destination))),
            (None, None, None) => None,
        };
        mesh = with_address(mesh, node, joined.as_deref())?;
        let address = mesh.addresses().remove(node).unwrap_or_default();
        let usual = address.rsplit_once(':').map_or("", |(host, _)| host);
        let destination = destination.clone();
        let target = Target {
            node: node.clone(),
            host: Host {
                ssh: Arc::clone(&ssh),
                destination: destination.unwrap_or_else(|| usual.trim_matches(['[', ']']).into()),
            },
            joins: listed.as_ref() != Some(&address),
            address,
        };
        if targets.insert(node.clone(), target).is_some() {
            return Err(CtlError::usage(format!("{node} is named twice")));
        }
    }
    Ok(targets.into_values().collect())
}

fn host_of(destination: &str) -> &str {
    destination.rsplit('@').next().unwrap_or(destination)
}

fn with_port(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{AGENT_PORT}")
    } else {
        format!("{host}:{AGENT_PORT}")
    }
}
