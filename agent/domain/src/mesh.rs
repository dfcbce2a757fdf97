//! The mesh as its file lists it.

use crate::build::Digest;
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
    /// The public half of the recovery key: SubjectPublicKeyInfo in DER, as hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<String>,
    /// The nodes whose votes decide until a record says otherwise. Unset: the required members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voters: Option<BTreeSet<NodeName>>,
    /// The members.
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
    /// The one key that it may have, as the digest of its public half. Unset: any that the mesh's
    /// authority certified for its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digest>,
    /// Whether the mesh counts on it: false for hosts that come and go.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub required: bool,
    /// What it is, for choosing nodes by: `role = "till"`. Last, as TOML wants tables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Member {
    /// A member without labels that the mesh counts on.
    pub fn new(name: NodeName, address: impl Into<String>) -> Self {
        Self {
            name,
            address: address.into(),
            key: None,
            required: true,
            labels: BTreeMap::new(),
        }
    }

    fn labels_fit(&self) -> bool {
        let fits = |text: &String| {
            (1..=LABEL_BYTES_MAX).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_graphic())
        };
        let mut labels = self.labels.iter();
        self.labels.len() <= LABELS_MAX && labels.all(|(name, value)| fits(name) && fits(value))
    }
}

fn is_hex(text: &str) -> bool {
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (2..=RECOVERY_DIGITS_MAX).contains(&text.len())
        && text.len().is_multiple_of(2)
        && text.bytes().all(digit)
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_yes(value: &bool) -> bool {
    *value
}

/// The most labels of one member.
const LABELS_MAX: usize = 32;
/// The most bytes of a label's name or value.
const LABEL_BYTES_MAX: usize = 64;
/// The most digits of the recovery key's public half: one of P-256 has 182.
const RECOVERY_DIGITS_MAX: usize = 256;

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
    /// The recovery key is none.
    #[error(
        "`recovery` in the mesh file is no public key: an even number of lowercase hexadecimal digits, at most {RECOVERY_DIGITS_MAX}"
    )]
    Recovery,
    /// A label is too long, or there are too many.
    #[error(
        "the labels of {0} in the mesh file must be at most {LABELS_MAX}, each name and value 1 to {LABEL_BYTES_MAX} printable characters"
    )]
    Labels(NodeName),
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
            if !member.labels_fit() {
                faults.push(MeshFault::Labels(member.name.clone()));
            }
        }
        if self.recovery.as_deref().is_some_and(|key| !is_hex(key)) {
            faults.push(MeshFault::Recovery);
        }
        faults
    }

    /// The nodes whose votes decide until a record says otherwise.
    pub fn voters(&self) -> BTreeSet<NodeName> {
        let required = self.members.iter().filter(|member| member.required);
        let required = || required.map(|member| member.name.clone()).collect();
        self.voters.clone().unwrap_or_else(required)
    }

    /// Addresses by name.
    pub fn addresses(&self) -> BTreeMap<NodeName, String> {
        let pair = |member: &Member| (member.name.clone(), member.address.clone());
        self.members.iter().map(pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Environment, Member, MeshFault, MeshFile};

    fn mesh(member: Member, recovery: &str) -> MeshFile {
        MeshFile {
            name: "shop".to_owned(),
            environment: Environment::Local,
            voters: None,
            recovery: Some(recovery.to_owned()),
            members: vec![member],
        }
    }

    fn member() -> Member {
        Member::new("n1".parse().expect("a name"), "127.0.0.1:7443")
    }

    #[test]
    fn recovery_keys_are_digits() {
        assert_eq!(mesh(member(), "00ff").faults(), []);
        for bad in ["", "0", "0g", "0F", " 00", &"0".repeat(258)] {
            assert_eq!(mesh(member(), bad).faults(), [MeshFault::Recovery], "{bad}");
        }
    }

    #[test]
    fn labels_are_few_and_short() {
        let labelled = |labels: &[(&str, &str)]| {
            let mut member = member();
            let label = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            member.labels = labels.iter().map(label).collect();
            mesh(member, "00").faults()
        };
        assert_eq!(labelled(&[("role", "till"), ("room", "2/b")]), []);
        let wrong = [MeshFault::Labels(member().name)];
        let long = "x".repeat(65);
        for bad in [
            ("", "x"),
            ("x", ""),
            ("x", "a b"),
            ("x", "\n"),
            ("x", &long),
        ] {
            assert_eq!(labelled(&[bad]), wrong, "{bad:?}");
        }
        let names: Vec<String> = (0..33).map(|number| number.to_string()).collect();
        let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "x")).collect();
        assert_eq!(labelled(&many), wrong);
    }
}
