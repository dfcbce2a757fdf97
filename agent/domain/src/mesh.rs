//! The mesh as its file lists it.

use crate::id::NodeName;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The most members that a mesh file may list.
pub const MEMBERS_MAX: usize = 1024;

/// A mesh: who is in it, and where. Client and agents hold the same file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeshFile {
    /// The mesh's name.
    pub name: String,
    /// Which rules apply.
    pub environment: Environment,
    /// The members. All of them vote.
    #[serde(default, rename = "member")]
    pub members: Vec<Member>,
}

/// Which part of the deployment procedure a mesh is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// A developer's own.
    Local,
    /// Where a release proves itself.
    Staging,
    /// Where it counts.
    Production,
}

/// One host of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its name, also in its certificate.
    pub name: NodeName,
    /// Where its agent listens, `HOST:PORT`.
    pub address: String,
}

/// What is wrong with a mesh file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeshFault {
    /// It lists nobody.
    #[error("the mesh file lists no member: add one with `cbctl mesh issue`")]
    Empty,
    /// It lists too many.
    #[error("the mesh file lists {0} members, more than {MEMBERS_MAX}")]
    TooMany(usize),
    /// It lists one twice.
    #[error("the mesh file lists {0} twice")]
    Twice(String),
    /// An address has no port.
    #[error("the address `{0}` in the mesh file is not HOST:PORT")]
    Address(String),
}

impl MeshFile {
    /// Everything that is wrong with the file; empty when nothing is.
    pub fn faults(&self) -> Vec<MeshFault> {
        let mut faults = Vec::new();
        if self.members.is_empty() {
            faults.push(MeshFault::Empty);
        }
        if self.members.len() > MEMBERS_MAX {
            faults.push(MeshFault::TooMany(self.members.len()));
        }
        let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for member in &self.members {
            if !names.insert(&member.name) {
                faults.push(MeshFault::Twice(member.name.to_string()));
            }
            if !addresses.insert(&member.address) {
                faults.push(MeshFault::Twice(member.address.clone()));
            }
            let port = member.address.rsplit_once(':').and_then(|(host, port)| {
                port.parse::<u16>()
                    .ok()
                    .filter(|port| *port > 0 && !host.is_empty())
            });
            if port.is_none() {
                faults.push(MeshFault::Address(member.address.clone()));
            }
        }
        faults
    }

    /// The nodes whose votes decide: in this version all members.
    pub fn voters(&self) -> BTreeSet<NodeName> {
        self.members
            .iter()
            .map(|member| member.name.clone())
            .collect()
    }

    /// Addresses by name.
    pub fn addresses(&self) -> BTreeMap<NodeName, String> {
        let pair = |member: &Member| (member.name.clone(), member.address.clone());
        self.members.iter().map(pair).collect()
    }
}
