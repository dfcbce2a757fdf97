//! Who may say what about whom.

use super::{
    Author, Grant, LABELS_MAX, MEMBERS_MAX, ROOTS_MAX, Roster, Said, Says, Standing, Statement,
    Subject, USERS_MAX, VERSION_LEAP,
};
use crate::access::Role;
use crate::build::Digest;
use crate::id::NodeName;

/// Why a statement is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// It is about another mesh.
    #[error("it is about the mesh {0}, not about this one")]
    OtherMesh(String),
    /// It contradicts itself, or is out of bounds.
    #[error("it is malformed: {0}")]
    Malformed(&'static str),
    /// Its version is too far ahead.
    #[error("its version {version} leaps ahead of {known}, the newest known here")]
    Leap {
        /// The statement's.
        version: u64,
        /// What is held.
        known: u64,
    },
    /// Whoever signed it is out.
    #[error("it was signed by {0}, who was taken out of the mesh")]
    Removed(String),
    /// Whoever signed it may not say that.
    #[error("it was signed by {author}, who may not say that of {subject}: {rule}")]
    NotAllowed {
        /// Who.
        author: String,
        /// Of whom.
        subject: String,
        /// Who may.
        rule: &'static str,
    },
    /// The roster is full.
    #[error("the roster is full")]
    Full,
}

/// Whether `said` may be believed, whatever its version.
pub(super) fn check(roster: &Roster, said: &Said) -> Result<(), Distrust> {
    let statement = &said.statement;
    if statement.mesh != roster.genesis.name {
        return Err(Distrust::OtherMesh(statement.mesh.clone()));
    }
    check_shape(statement)?;
    let known = roster.next_version(&statement.subject) - 1;
    if statement.version == 0 || statement.version > known + VERSION_LEAP {
        let version = statement.version;
        return Err(Distrust::Leap { version, known });
    }
    check_author(roster, &said.author)?;
    check_right(roster, said)?;
    check_room(roster, &statement.subject)
}

fn check_shape(statement: &Statement) -> Result<(), Distrust> {
    let fits = match (&statement.subject, &statement.says) {
        (Subject::Member(_), Says::Member(entry)) => {
            entry.labels.len() <= LABELS_MAX && is_address(&entry.address)
        }
        (Subject::User(_), Says::User(_)) => true,
        (Subject::Member(_) | Subject::User(_), Says::Removed) => true,
        (Subject::Trust, Says::Trust(entry)) => {
            (1..=ROOTS_MAX).contains(&entry.roots.len()) && entry.former.len() <= ROOTS_MAX
        }
        (
            Subject::Trust | Subject::Member(_) | Subject::User(_),
            Says::Member(_) | Says::User(_) | Says::Trust(_) | Says::Removed,
        ) => false,
    };
    if fits {
        Ok(())
    } else {
        Err(Distrust::Malformed("what it says does not fit its subject"))
    }
}

fn is_address(address: &str) -> bool {
    let port = address
        .rsplit_once(':')
        .map(|(host, port)| (host, port.parse::<u16>()));
    address.len() <= 300
        && port.is_some_and(|(host, port)| !host.is_empty() && port.is_ok_and(|port| port > 0))
}

/// Whoever was taken out says nothing any more; what they said before was signed anew by whoever
/// took them out.
fn check_author(roster: &Roster, author: &Author) -> Result<(), Distrust> {
    let standing = match author {
        Author::Person { name, key, .. } => roster.standing_of_person(name, *key),
        Author::Agent { name, key } => roster.standing_of_agent(name, *key),
        Author::Root | Author::Recovery => Standing::Good,
    };
    match standing {
        Standing::Good => Ok(()),
        Standing::Removed { .. } | Standing::Replaced | Standing::Unknown => {
            Err(Distrust::Removed(author.to_string()))
        }
    }
}

fn check_right(roster: &Roster, said: &Said) -> Result<(), Distrust> {
    let statement = &said.statement;
    let refuse = |rule| {
        Err(Distrust::NotAllowed {
            author: said.author.to_string(),
            subject: statement.subject.to_string(),
            rule,
        })
    };
    match (&statement.subject, &said.author) {
        (Subject::Trust, Author::Root | Author::Recovery) => Ok(()),
        (Subject::Trust, Author::Person { .. } | Author::Agent { .. }) => {
            refuse("only the root authority and the recovery key may")
        }
        (Subject::User(_), Author::Root | Author::Recovery) => Ok(()),
        (
            Subject::Member(_) | Subject::User(_),
            Author::Person {
                role: Role::Admin, ..
            },
        ) => Ok(()),
        (Subject::Member(_) | Subject::User(_), Author::Person { .. }) => refuse("only admins may"),
        (Subject::Member(name), Author::Agent { name: issuer, .. }) => {
            match admitted(roster, said, name, issuer) {
                Ok(()) => Ok(()),
                Err(rule) => refuse(rule),
            }
        }
        (Subject::User(_), Author::Agent { .. }) => refuse("agents say nothing of people"),
        (Subject::Member(_), Author::Root | Author::Recovery) => refuse("only admins may"),
    }
}

/// Whether an issuer admitted a host as an admin's grant allows.
fn admitted(
    roster: &Roster,
    said: &Said,
    name: &NodeName,
    issuer: &NodeName,
) -> Result<(), &'static str> {
    let Says::Member(entry) = &said.statement.says else {
        return Err("an issuer takes nobody out");
    };
    if !roster.issuers().contains(issuer) {
        return Err("only admins and issuers may");
    }
    let Some((grant, author)) = &said.grant else {
        return Err("an issuer needs an admin's grant");
    };
    let admin = matches!(
        author,
        Author::Person {
            role: Role::Admin,
            ..
        }
    );
    if !admin || check_author(roster, author).is_err() {
        return Err("the grant was not signed by an admin of the mesh");
    }
    let key = entry.key.ok_or("the admitted host has no key")?;
    grant.fits(&roster.genesis.name, issuer, name)?;
    if entry.labels != grant.labels || entry.required != grant.required {
        return Err("it says more than the grant");
    }
    may_take(roster, grant, name, key)
}

/// Whether a host may take this name with this key.
pub fn may_take(
    roster: &Roster,
    grant: &Grant,
    name: &NodeName,
    key: Digest,
) -> Result<(), &'static str> {
    let held = roster.said_of(&Subject::Member(name.clone()));
    let replaces = grant.replaces && grant.host.as_ref() == Some(name);
    let same_key = match held.map(|said| &said.statement.says) {
        // Nothing was said yet: a new name, or one that the mesh file has with this key, because this
        // host joined after it.
        None => roster
            .member(name)
            .is_none_or(|entry| entry.key == Some(key)),
        Some(Says::Member(entry)) => entry.key == Some(key),
        Some(Says::Removed | Says::User(_) | Says::Trust(_)) => false,
    };
    if same_key || replaces {
        Ok(())
    } else {
        Err(
            "the mesh has or had a host of this name: an admin may replace it with `cbctl mesh replace`",
        )
    }
}

impl Grant {
    /// Whether this grant is one of `issuer` for the host `name`; its time is the issuer's to check.
    pub fn fits(&self, mesh: &str, issuer: &NodeName, name: &NodeName) -> Result<(), &'static str> {
        if self.mesh != mesh {
            return Err("the grant is of another mesh");
        }
        if self.issuer != *issuer {
            return Err("the grant is another issuer's");
        }
        match &self.host {
            Some(host) if host != name => Err("the grant is for another host"),
            Some(_) | None => Ok(()),
        }
    }
}

fn check_room(roster: &Roster, subject: &Subject) -> Result<(), Distrust> {
    if roster.said.contains_key(subject) {
        return Ok(());
    }
    let (mut hosts, mut people) = (0, 0);
    for held in roster.said.keys() {
        match held {
            Subject::Member(_) => hosts += 1,
            Subject::User(_) => people += 1,
            Subject::Trust => {}
        }
    }
    let full = match subject {
        // Names that were taken out stay, so that they stay out.
        Subject::Member(_) => hosts >= 2 * MEMBERS_MAX,
        Subject::User(_) => people >= USERS_MAX,
        Subject::Trust => false,
    };
    if full { Err(Distrust::Full) } else { Ok(()) }
}
