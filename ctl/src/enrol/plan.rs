//! What is to be done on one host, from what it has and what was asked; or why not.

use crate::enrol::look::Look;
use cbddc_domain::id::NodeName;
use std::fmt;

/// The oldest systemd that the agent's unit works with: Debian 11 has it.
pub const SYSTEMD_MIN: u32 = 247;

/// What was asked about one host.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its name in the mesh.
    pub node: NodeName,
    /// Whether it becomes a member, or gets another address, by this.
    pub joins_at: Option<String>,
    /// The agent's package, to be installed where there is no agent; its file's name.
    pub package: Option<String>,
    /// Whether a configuration was brought for a host without one.
    pub config: bool,
    /// Whether a token was brought for a host without one.
    pub token: bool,
    /// Whether a host that has a certificate gets a new one.
    pub replace: bool,
    /// How it comes to its certificate.
    pub way: Way,
}

/// How a host comes to its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Key and certificate are made where the issuing authority is, and carried: nobody in the mesh
    /// can admit it yet.
    Carried {
        /// Whether the issuing authority is carried as well, so that it can admit the others.
        issuer: bool,
    },
    /// It makes its key itself, and joins by a token for it alone.
    Token {
        /// Who admits it.
        issuer: NodeName,
    },
}

/// One thing that is done, in the order in which it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The mesh file lists the node at this address from now on.
    Join(String),
    /// The package is installed.
    Install(String),
    /// The agent that is there stays; its version.
    KeepAgent(String),
    /// A key is made, a certificate is issued; whether it takes the place of another one.
    Issue {
        /// Whether the host has one.
        replaces: bool,
    },
    /// The host makes a key, and joins by a token.
    Admit {
        /// Who admits it.
        issuer: NodeName,
        /// Whether the host has a certificate.
        replaces: bool,
    },
    /// It becomes the first issuer of the mesh.
    MakeIssuer,
    /// A file is put into `/etc/cbagent`.
    Put(&'static str),
    /// A file that was brought is not put: the host has one.
    Keep(&'static str),
    /// The unit starts at each boot from now on.
    Enable,
    /// The agent is started; whether it runs already.
    Start {
        /// Whether it runs already.
        anew: bool,
    },
    /// The agent must answer with its new certificate.
    Check,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Join(address) => write!(f, "list it in mesh.toml at {address}"),
            Self::Install(package) => write!(f, "install {package}"),
            Self::KeepAgent(version) => write!(f, "keep cbagent {version}, which is installed"),
            Self::Issue { replaces: false } => write!(f, "issue a certificate"),
            Self::Issue { replaces: true } => {
                write!(f, "issue a certificate in place of the one it has")
            }
            Self::Admit {
                issuer,
                replaces: false,
            } => write!(f, "make a key there, and join by a token of {issuer}"),
            Self::Admit {
                issuer,
                replaces: true,
            } => write!(
                f,
                "make a key there in place of the one it has, and join by a token of {issuer}"
            ),
            Self::MakeIssuer => write!(
                f,
                "make it the first issuer of the mesh, which admits the others"
            ),
            Self::Put(file) => write!(f, "put /etc/cbagent/{file}"),
            Self::Keep(file) => write!(f, "keep /etc/cbagent/{file}, which is there"),
            Self::Enable => write!(f, "let cbagent.service start at boot"),
            Self::Start { anew: false } => write!(f, "start cbagent.service"),
            Self::Start { anew: true } => write!(f, "restart cbagent.service"),
            Self::Check => write!(f, "check that the agent answers with that certificate"),
        }
    }
}

/// Why a host is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The login is not root.
    #[error("the login is not root there: log in as root (NODE=root@HOST), or add --sudo")]
    NotRoot,
    /// No systemd.
    #[error("there is no systemd, which starts the agent")]
    NoSystemd,
    /// An old one.
    #[error(
        "it has systemd {0}, and the agent needs {SYSTEMD_MIN} or newer: upgrade the host first"
    )]
    OldSystemd(u32),
    /// No agent, and nothing to install.
    #[error("cbagent is not installed: install it there, or bring the package with --package FILE")]
    NotInstalled,
    /// A program without its unit.
    #[error("there is /usr/bin/cbagent but no cbagent.service ({0}): install the package there")]
    NoUnit(String),
    /// The unit was switched off for good.
    #[error("cbagent.service is masked: run `systemctl unmask cbagent` there if that is not meant")]
    Masked,
    /// The configuration is another node's.
    #[error("its cbagent.toml is of the node {0}: is this the right host?")]
    OtherNode(String),
    /// It is enrolled.
    #[error("it has a certificate already: --replace gives it a new one")]
    Enrolled,
    /// Another host has its name.
    #[error(
        "the mesh has a host of this name already, with another key: --replace lets this one take its place"
    )]
    Known,
    /// No configuration.
    #[error(
        "it has no /etc/cbagent/cbagent.toml: write one there from \
         /usr/share/doc/cbagent/examples/cbagent.toml, or bring one with --config"
    )]
    NotConfigured,
}

impl Refusal {
    /// The stable word for machines.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NotRoot => "not_root",
            Self::NoSystemd | Self::OldSystemd(_) => "systemd",
            Self::NotInstalled => "not_installed",
            Self::NoUnit(_) => "no_unit",
            Self::Masked => "masked",
            Self::OtherNode(_) => "other_node",
            Self::Enrolled => "already_enrolled",
            Self::Known => "known",
            Self::NotConfigured => "not_configured",
        }
    }
}

/// Decides what is to be done. Changes nothing.
pub fn plan(look: &Look, wanted: &Wanted) -> Result<Vec<Step>, Refusal> {
    refuse(look, wanted)?;
    let has = |file: &str| look.has.contains(file);
    let mut steps = Vec::new();
    steps.extend(wanted.joins_at.clone().map(Step::Join));
    match (&look.agent, &wanted.package) {
        (Some(version), Some(_)) => steps.push(Step::KeepAgent(version.clone())),
        (None, Some(package)) => steps.push(Step::Install(package.clone())),
        (Some(_), None) => {}
        (None, None) => return Err(Refusal::NotInstalled),
    }
    let replaces = has("node.pem");
    let carried: &[&'static str] = match &wanted.way {
        Way::Token { issuer } => {
            let issuer = issuer.clone();
            steps.push(Step::Admit { issuer, replaces });
            &[]
        }
        Way::Carried { issuer } => {
            steps.push(Step::Issue { replaces });
            steps.extend(issuer.then_some(Step::MakeIssuer));
            steps.extend(["ca.pem", "mesh.toml"].map(Step::Put));
            if *issuer {
                &["issuing.pem", "issuing.key", "node.key", "node.pem"]
            } else {
                &["node.key", "node.pem"]
            }
        }
    };
    for (file, brought) in [("token", wanted.token), ("cbagent.toml", wanted.config)] {
        if brought {
            steps.push(if has(file) {
                Step::Keep(file)
            } else {
                Step::Put(file)
            });
        }
    }
    // The certificate last: until it is there, the host counts as not enrolled.
    steps.extend(carried.iter().copied().map(Step::Put));
    // A package that is installed now enables its unit itself, or keeps what an admin chose before.
    if look.enabled != "enabled" {
        steps.push(Step::Enable);
    }
    let anew = look.active == "active";
    steps.extend([Step::Start { anew }, Step::Check]);
    Ok(steps)
}

fn refuse(look: &Look, wanted: &Wanted) -> Result<(), Refusal> {
    match look.systemd {
        None => return Err(Refusal::NoSystemd),
        Some(version) if version < SYSTEMD_MIN => return Err(Refusal::OldSystemd(version)),
        Some(_) => {}
    }
    if look.uid != 0 {
        return Err(Refusal::NotRoot);
    }
    // A package that was removed leaves its unit masked, until it is installed again.
    match (look.unit.as_str(), &look.agent) {
        (_, None) if wanted.package.is_none() => return Err(Refusal::NotInstalled),
        (_, None) | ("loaded", Some(_)) => {}
        ("masked", Some(_)) => return Err(Refusal::Masked),
        (other, Some(_)) => return Err(Refusal::NoUnit(other.to_owned())),
    }
    if let Some(node) = &look.configured_node
        && *node != wanted.node.as_str()
    {
        return Err(Refusal::OtherNode(node.clone()));
    }
    if look.has.contains("node.pem") && !wanted.replace {
        return Err(Refusal::Enrolled);
    }
    if !look.has.contains("cbagent.toml") && !wanted.config {
        return Err(Refusal::NotConfigured);
    }
    Ok(())
}
