//! Who is in the mesh, who is out, and whom it trusts: one signed statement for each subject.
//!
//! A statement replaces an older one of its subject: the higher version wins, among equals the one
//! that takes out, then the higher digest, so that members that hold the same statements hold the
//! same roster in whatever order they came. Who may say what is [`rules`]; how two members find out
//! what one of them lacks is [`exchange`].
//!
//! What the mesh file says of a member holds until a statement says otherwise. Signatures are
//! checked before anything comes here: an [`Author`] is who really signed.

pub mod exchange;
pub mod rules;
#[cfg(test)]
mod tests;

pub use rules::Distrust;

use crate::access::Role;
use crate::build::Digest;
use crate::id::NodeName;
use crate::mesh::{MEMBERS_MAX, Member, MeshFile};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The most people that a roster holds, those who were taken out included.
pub const USERS_MAX: usize = 256;
/// The most labels of a member.
pub const LABELS_MAX: usize = 32;
/// The most authorities that are trusted at once, and the most former ones: two during a change.
pub const ROOTS_MAX: usize = 8;
/// The label value of members that hold the issuing authority, under the key `issuer`.
pub const ISSUER_LABEL: &str = "issuer";
/// The longest lead that a new statement's version may take, so that nobody can say the last word.
pub const VERSION_LEAP: u64 = 1 << 20;

/// What a statement is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The authorities that certificates come from.
    Trust,
    /// A host.
    Member(NodeName),
    /// A person.
    User(String),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trust => f.write_str("the authorities"),
            Self::Member(name) => write!(f, "host {name}"),
            Self::User(name) => write!(f, "user {name}"),
        }
    }
}

/// What is said of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Says {
    /// A host is a member.
    Member(MemberEntry),
    /// A person is known.
    User(UserEntry),
    /// These authorities are trusted.
    Trust(TrustEntry),
    /// The host or person is out.
    Removed,
}

/// A host as a statement describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberEntry {
    /// Where its agent listens, `HOST:PORT`.
    pub address: String,
    /// For selecting targets.
    pub labels: BTreeMap<String, String>,
    /// Whether it counts for majorities and blocks a rollout while away.
    pub required: bool,
    /// The one key that it may have; unset: any that the mesh's authority certified for its name.
    pub key: Option<Digest>,
}

/// A person as a statement describes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserEntry {
    /// What the certificate lets them do.
    pub role: Role,
    /// The key of the newest certificate; another one of theirs is refused.
    pub key: Digest,
}

/// The authorities of a mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustEntry {
    /// Certificates of the authorities, in DER; the newest first.
    pub roots: Vec<Vec<u8>>,
    /// Those that are trusted no more. A host that was away while they were replaced may renew a
    /// certificate of theirs, where the roster names its key, and do nothing else.
    pub former: Vec<Vec<u8>>,
}

/// One statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The mesh it is about.
    pub mesh: String,
    /// What it is about.
    pub subject: Subject,
    /// Counts up with each statement about the subject, from 1.
    pub version: u64,
    /// What it says.
    pub says: Says,
    /// Why, in words.
    pub reason: String,
}

/// Who signed, as the signature proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Author {
    /// A person, with the role of the certificate.
    Person {
        /// Who.
        name: String,
        /// What they may do.
        role: Role,
        /// The key.
        key: Digest,
    },
    /// A host's agent.
    Agent {
        /// Which.
        name: NodeName,
        /// The key.
        key: Digest,
    },
    /// An authority's own key.
    Root,
    /// The recovery key on paper.
    Recovery,
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Person { name, .. } => f.write_str(name),
            Self::Agent { name, .. } => write!(f, "node {name}"),
            Self::Root => f.write_str("the mesh's root authority"),
            Self::Recovery => f.write_str("the recovery key"),
        }
    }
}

/// What an admin allows whoever brings a token: signed by the admin, kept by the issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The mesh.
    pub mesh: String,
    /// The member that issues the certificate.
    pub issuer: NodeName,
    /// SHA-256 of the token's secret.
    pub secret: Digest,
    /// How many hosts may join with it.
    pub uses: u32,
    /// Until when, Unix time in milliseconds.
    pub until_wall_ms: i64,
    /// The one host it is for; unset: any new one.
    pub host: Option<NodeName>,
    /// Whether the host takes the place of a member of this name.
    pub replaces: bool,
    /// The labels of the member.
    pub labels: BTreeMap<String, String>,
    /// Whether the member is required.
    pub required: bool,
}

/// A statement, who said it, and what allowed an issuer to say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// What.
    pub statement: Statement,
    /// Who.
    pub author: Author,
    /// The grant, and who signed that.
    pub grant: Option<(Grant, Author)>,
    /// SHA-256 of the statement's bytes and the author's key, by which copies are compared.
    pub digest: Digest,
}

impl Said {
    /// Whether this one stands before `other` about the same subject.
    fn beats(&self, other: &Self) -> bool {
        let rank = |said: &Self| {
            let removes = said.statement.says == Says::Removed;
            (said.statement.version, removes, said.digest)
        };
        rank(self) > rank(other)
    }
}

/// Whether a holder of a good certificate is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is known against it.
    Good,
    /// It was taken out of the mesh.
    Removed {
        /// Why.
        reason: String,
    },
    /// Another key stands for the name now.
    Replaced,
    /// The mesh has no such member.
    Unknown,
}

/// What became of a statement that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// It was taken.
    News,
    /// It or a newer one is here.
    Known,
}

/// All that a member knows of who is in the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    genesis: MeshFile,
    said: BTreeMap<Subject, Said>,
    /// What [`exchange`] compares, kept up to date.
    buckets: Vec<u64>,
}

impl Roster {
    /// What the mesh file says, and nothing else yet.
    pub fn new(genesis: MeshFile) -> Self {
        Self {
            genesis,
            said: BTreeMap::new(),
            buckets: vec![0; exchange::BUCKETS],
        }
    }

    /// The mesh file.
    pub fn genesis(&self) -> &MeshFile {
        &self.genesis
    }

    /// Takes a statement where its author may say it and it is newer than what is here.
    ///
    /// # Errors
    /// Why it is not believed; nothing has changed then.
    pub fn offer(&mut self, said: Said) -> Result<Merge, Distrust> {
        let subject = said.statement.subject.clone();
        if let Some(held) = self.said.get(&subject)
            && !said.beats(held)
        {
            return Ok(Merge::Known);
        }
        rules::check(self, &said)?;
        self.put_back(said);
        Ok(Merge::News)
    }

    /// Puts back a statement that was taken before: read from this member's own disk.
    pub fn put_back(&mut self, said: Said) {
        let subject = said.statement.subject.clone();
        let bucket = subject.bucket();
        let part = exchange::part(&said);
        let replaced = self.said.insert(subject, said);
        self.buckets[bucket] ^= part ^ replaced.as_ref().map_or(0, exchange::part);
    }

    /// The newest statement about a subject.
    pub fn said_of(&self, subject: &Subject) -> Option<&Said> {
        self.said.get(subject)
    }

    /// All statements.
    pub fn statements(&self) -> impl Iterator<Item = &Said> {
        self.said.values()
    }

    /// The version that the next statement about a subject takes.
    pub fn next_version(&self, subject: &Subject) -> u64 {
        let held = self
            .said
            .get(subject)
            .map_or(0, |said| said.statement.version);
        held.saturating_add(1)
    }

    /// The members, by name: the mesh file's, as the statements have changed them.
    pub fn members(&self) -> BTreeMap<NodeName, MemberEntry> {
        let mut members: BTreeMap<NodeName, MemberEntry> =
            self.genesis.members.iter().map(genesis_entry).collect();
        for (subject, said) in &self.said {
            let Subject::Member(name) = subject else {
                continue;
            };
            match &said.statement.says {
                Says::Member(entry) => {
                    members.insert(name.clone(), entry.clone());
                }
                Says::Removed => {
                    members.remove(name);
                }
                Says::User(_) | Says::Trust(_) => {}
            }
        }
        members
    }

    /// One member.
    pub fn member(&self, name: &NodeName) -> Option<MemberEntry> {
        match self.said.get(&Subject::Member(name.clone())) {
            Some(said) => match &said.statement.says {
                Says::Member(entry) => Some(entry.clone()),
                Says::Removed | Says::User(_) | Says::Trust(_) => None,
            },
            None => {
                let mut members = self.genesis.members.iter();
                let member = members.find(|member| member.name == *name)?;
                Some(genesis_entry(member).1)
            }
        }
    }

    /// The members that hold the issuing authority.
    pub fn issuers(&self) -> BTreeSet<NodeName> {
        let members = self.members().into_iter();
        let issuers = members.filter(|(_, entry)| entry.labels.contains_key(ISSUER_LABEL));
        issuers.map(|(name, _)| name).collect()
    }

    /// The members that ought to vote: those that are required.
    pub fn required(&self) -> BTreeSet<NodeName> {
        let members = self.members().into_iter();
        let required = members.filter(|(_, entry)| entry.required);
        required.map(|(name, _)| name).collect()
    }

    /// The authorities that statements name; unset: those of the files still hold.
    pub fn trust(&self) -> Option<&TrustEntry> {
        match &self.said.get(&Subject::Trust)?.statement.says {
            Says::Trust(entry) => Some(entry),
            Says::Member(_) | Says::User(_) | Says::Removed => None,
        }
    }

    /// Whether a host with a good certificate and this key is let in.
    pub fn standing_of_agent(&self, name: &NodeName, key: Digest) -> Standing {
        match self.said.get(&Subject::Member(name.clone())) {
            Some(said) => match &said.statement.says {
                Says::Removed => Standing::Removed {
                    reason: said.statement.reason.clone(),
                },
                Says::Member(entry) if entry.key.is_some_and(|held| held != key) => {
                    Standing::Replaced
                }
                Says::Member(_) | Says::User(_) | Says::Trust(_) => Standing::Good,
            },
            None => match self.member(name) {
                Some(entry) if entry.key.is_some_and(|held| held != key) => Standing::Replaced,
                Some(_) => Standing::Good,
                None => Standing::Unknown,
            },
        }
    }

    /// Whether this is the one key that a host may have: nobody else has to vouch for it then.
    pub fn names_key(&self, name: &NodeName, key: Digest) -> bool {
        self.member(name)
            .is_some_and(|entry| entry.key == Some(key))
    }

    /// Whether the roster itself says that this key is the author's, so that no authority has to.
    pub fn names(&self, author: &Author) -> bool {
        match author {
            Author::Agent { name, key } => self.names_key(name, *key),
            Author::Person { name, role, key } => {
                let said = self.said.get(&Subject::User(name.clone()));
                let entry = UserEntry {
                    role: *role,
                    key: *key,
                };
                said.is_some_and(|said| said.statement.says == Says::User(entry))
            }
            Author::Root | Author::Recovery => false,
        }
    }

    /// Whether a person with a good certificate and this key is let in. A person of whom nothing was
    /// said is: the root authority has vouched for them.
    pub fn standing_of_person(&self, name: &str, key: Digest) -> Standing {
        let Some(said) = self.said.get(&Subject::User(name.to_owned())) else {
            return Standing::Good;
        };
        match &said.statement.says {
            Says::Removed => Standing::Removed {
                reason: said.statement.reason.clone(),
            },
            Says::User(entry) if entry.key != key => Standing::Replaced,
            Says::User(_) | Says::Member(_) | Says::Trust(_) => Standing::Good,
        }
    }
}

fn genesis_entry(member: &Member) -> (NodeName, MemberEntry) {
    let entry = MemberEntry {
        address: member.address.clone(),
        labels: member.labels.clone(),
        required: member.required,
        key: member.key,
    };
    (member.name.clone(), entry)
}
