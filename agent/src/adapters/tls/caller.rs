//! Who is at the other end of a connection.

use cbddc_domain::access::Role;
use cbddc_domain::build::Digest;
use cbddc_domain::id::NodeName;
use cbddc_pki::certificate::Facts;
use cbddc_pki::name::Holder;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// What a connection proved, in the extensions of every request.
#[derive(Debug, Clone)]
pub struct ConnectInfo {
    /// What was shown.
    pub shown: Shown,
    /// From where; unset: from this host, through the socket.
    pub address: Option<SocketAddr>,
}

/// What whoever connected showed of themselves.
#[derive(Debug, Clone)]
pub enum Shown {
    /// No certificate.
    Nothing,
    /// A certificate that the mesh's authority signed; it may have expired.
    Certificate(Arc<Facts>),
    /// A host's certificate, of an authority that another one has replaced: good for renewing it.
    Former(Arc<Facts>),
    /// A user of this host, whom the kernel names.
    Local {
        /// Who.
        name: String,
        /// What the configuration lets them do.
        role: Role,
    },
}

/// Who calls, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Nobody that is known.
    Stranger,
    /// Another host's agent.
    Agent {
        /// Its name.
        name: NodeName,
        /// Its key.
        key: Digest,
        /// Whether its certificate's time is over.
        expired: bool,
    },
    /// A person, through `cbctl`.
    Person {
        /// Who.
        name: String,
        /// What they may do.
        role: Role,
        /// The key; unset: through the host's own socket.
        key: Option<Digest>,
        /// Whether the certificate's time is over.
        expired: bool,
    },
}

impl ConnectInfo {
    /// Who this is at a time, Unix seconds.
    pub fn caller_at(&self, now_s: i64) -> Caller {
        match &self.shown {
            Shown::Nothing => Caller::Stranger,
            Shown::Local { name, role } => Caller::Person {
                name: name.clone(),
                role: *role,
                key: None,
                expired: false,
            },
            Shown::Certificate(facts) | Shown::Former(facts) => {
                let former = matches!(self.shown, Shown::Former(_));
                let expired = former || facts.not_after < now_s;
                match &facts.mesh_holder {
                    Holder::Node(name) => Caller::Agent {
                        name: name.clone(),
                        key: facts.key,
                        expired,
                    },
                    Holder::Person { name, role } => Caller::Person {
                        name: name.clone(),
                        role: *role,
                        key: Some(facts.key),
                        expired,
                    },
                }
            }
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stranger => f.write_str("a host without a certificate"),
            Self::Agent { name, .. } => write!(f, "node {name}"),
            Self::Person { name, .. } => f.write_str(name),
        }
    }
}
