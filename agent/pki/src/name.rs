//! Who a certificate is for, and the URI that says so.

use cbddc_domain::access::Role;
use cbddc_domain::id::NodeName;
use std::fmt;

/// The most bytes of a mesh's or a person's name.
const PLAIN_MAX: usize = 64;

/// Who a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// A host's agent: serves and asks.
    Node(NodeName),
    /// A person: asks only.
    Person {
        /// The name, as [`is_plain`] allows it.
        name: String,
        /// What the person may do.
        role: Role,
    },
}

impl Holder {
    /// The URI that stands in the certificate: `cbddc://MESH/node/NAME` or
    /// `cbddc://MESH/user/NAME/ROLE`.
    pub fn uri(&self, mesh: &str) -> String {
        match self {
            Self::Node(name) => format!("cbddc://{mesh}/node/{name}"),
            Self::Person { name, role } => format!("cbddc://{mesh}/user/{name}/{role}"),
        }
    }

    /// Reads such a URI; [`None`] where it is not one of this mesh.
    pub fn parse(uri: &str, mesh: &str) -> Option<Self> {
        let rest = uri.strip_prefix("cbddc://")?.strip_prefix(mesh)?;
        let mut parts = rest.strip_prefix('/')?.split('/');
        let holder = match (parts.next()?, parts.next()?, parts.next()) {
            ("node", name, None) => Self::Node(name.parse().ok()?),
            ("user", name, Some(role)) if is_plain(name) => Self::Person {
                name: name.to_owned(),
                role: role.parse().ok()?,
            },
            _ => return None,
        };
        parts.next().is_none().then_some(holder)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node {name}"),
            Self::Person { name, .. } => f.write_str(name),
        }
    }
}

/// Whether a text may name a mesh or a person: 1 to 64 of letters, digits, `.`, `_`, `-`, and not
/// beginning with a dot.
pub fn is_plain(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=PLAIN_MAX).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(fits)
}
