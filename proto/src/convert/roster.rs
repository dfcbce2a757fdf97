//! Statements about who is in the mesh, and grants.

use super::{Malformed, bounded, required, text};
use crate::v1;
use cbddc_domain::access::Role;
use cbddc_domain::build::Digest;
use cbddc_domain::id::NodeName;
use cbddc_domain::roster::exchange::{BUCKETS, Listing};
use cbddc_domain::roster::{
    Grant, LABELS_MAX, MemberEntry, ROOTS_MAX, Says, Statement, Subject, TrustEntry, UserEntry,
};
use prost::Message as _;
use std::collections::BTreeMap;

/// The longest encoded statement, in bytes.
pub const STATEMENT_BYTES_MAX: usize = 64 * 1024;
/// The longest encoded grant, in bytes.
pub const GRANT_BYTES_MAX: usize = 8 * 1024;
/// The most statements in one message.
pub const STATEMENTS_MAX: usize = 4096;
/// The largest certificate, in bytes of DER.
pub const CERTIFICATE_BYTES_MAX: usize = 4 * 1024;
/// The most uses of a token.
pub const USES_MAX: u32 = 1000;
/// The longest key or value of a label, in bytes.
const LABEL_BYTES_MAX: usize = 63;

/// What is signed of a statement: its encoded bytes, told apart from everything else that is signed.
pub fn statement_message(bytes: &[u8]) -> Vec<u8> {
    [b"cbddc-statement 1\n", bytes].concat()
}

/// What is signed of a grant.
pub fn grant_message(bytes: &[u8]) -> Vec<u8> {
    [b"cbddc-grant 1\n", bytes].concat()
}

/// Reads the bytes of a statement.
pub fn statement(bytes: &[u8]) -> Result<Statement, Malformed> {
    bounded("statement", bytes.len(), STATEMENT_BYTES_MAX)?;
    let decoded = v1::Statement::decode(bytes).map_err(|_| Malformed::UnknownValue("statement"))?;
    decoded.try_into()
}

/// Reads the bytes of a grant.
pub fn grant(bytes: &[u8]) -> Result<Grant, Malformed> {
    bounded("grant", bytes.len(), GRANT_BYTES_MAX)?;
    let decoded = v1::Grant::decode(bytes).map_err(|_| Malformed::UnknownValue("grant"))?;
    decoded.try_into()
}

/// The bytes of a statement, to be signed.
pub fn statement_bytes(statement: &Statement) -> Vec<u8> {
    v1::Statement::from(statement).encode_to_vec()
}

/// The bytes of a grant, to be signed.
pub fn grant_bytes(grant: &Grant) -> Vec<u8> {
    v1::Grant::from(grant).encode_to_vec()
}

fn labels(given: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Malformed> {
    bounded("labels", given.len(), LABELS_MAX)?;
    for (key, value) in &given {
        bounded("labels", key.len().max(value.len()), LABEL_BYTES_MAX)?;
        let plain = |text: &str| {
            text.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b))
        };
        if key.is_empty() || !plain(key) || !plain(value) {
            return Err(Malformed::UnknownValue("labels"));
        }
    }
    Ok(given)
}

fn person(name: String) -> Result<String, Malformed> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if (1..=64).contains(&name.len()) && name.bytes().all(fits) {
        Ok(name)
    } else {
        Err(Malformed::UnknownValue("user"))
    }
}

impl From<Role> for v1::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Operator => Self::Operator,
            Role::Approver => Self::Approver,
            Role::Admin => Self::Admin,
        }
    }
}

fn role(given: i32) -> Result<Role, Malformed> {
    match v1::Role::try_from(given) {
        Ok(v1::Role::Viewer) => Ok(Role::Viewer),
        Ok(v1::Role::Operator) => Ok(Role::Operator),
        Ok(v1::Role::Approver) => Ok(Role::Approver),
        Ok(v1::Role::Admin) => Ok(Role::Admin),
        Ok(v1::Role::Unspecified) | Err(_) => Err(Malformed::UnknownValue("role")),
    }
}

impl From<&Statement> for v1::Statement {
    fn from(statement: &Statement) -> Self {
        use v1::statement::{Says as Said, Subject as About};
        let says = match &statement.says {
            Says::Member(entry) => Said::IsMember(entry.into()),
            Says::User(entry) => Said::IsUser(v1::UserEntry {
                role: v1::Role::from(entry.role).into(),
                key: entry.key.to_string(),
            }),
            Says::Trust(entry) => Said::Trusts(v1::TrustEntry {
                roots: entry.roots.iter().map(|root| root.clone().into()).collect(),
                former: entry
                    .former
                    .iter()
                    .map(|root| root.clone().into())
                    .collect(),
            }),
            Says::Removed => Said::Removed(true),
        };
        Self {
            mesh: statement.mesh.clone(),
            subject: Some(match &statement.subject {
                Subject::Member(name) => About::Member(name.to_string()),
                Subject::User(name) => About::User(name.clone()),
                Subject::Trust => About::Trust(true),
            }),
            version: statement.version,
            says: Some(says),
            reason: statement.reason.clone(),
        }
    }
}

impl TryFrom<v1::Statement> for Statement {
    type Error = Malformed;

    fn try_from(given: v1::Statement) -> Result<Self, Malformed> {
        use v1::statement::{Says as Said, Subject as About};
        let subject = match required("subject", given.subject)? {
            About::Member(name) => Subject::Member(name.parse()?),
            About::User(name) => Subject::User(person(name)?),
            About::Trust(_) => Subject::Trust,
        };
        let says = match required("says", given.says)? {
            Said::IsMember(entry) => Says::Member(entry.try_into()?),
            Said::IsUser(entry) => Says::User(UserEntry {
                role: role(entry.role)?,
                key: entry.key.parse()?,
            }),
            Said::Trusts(entry) => {
                let authorities = |field, given: &[bytes::Bytes]| {
                    bounded(field, given.len(), ROOTS_MAX)?;
                    let one = |root: &bytes::Bytes| {
                        bounded(field, root.len(), CERTIFICATE_BYTES_MAX)?;
                        Ok(root.to_vec())
                    };
                    given.iter().map(one).collect::<Result<_, Malformed>>()
                };
                Says::Trust(TrustEntry {
                    roots: authorities("roots", &entry.roots)?,
                    former: authorities("former", &entry.former)?,
                })
            }
            Said::Removed(_) => Says::Removed,
        };
        Ok(Self {
            mesh: text("mesh", given.mesh)?,
            subject,
            version: given.version,
            says,
            reason: text("reason", given.reason)?,
        })
    }
}

impl From<&MemberEntry> for v1::MemberEntry {
    fn from(entry: &MemberEntry) -> Self {
        Self {
            address: entry.address.clone(),
            labels: entry.labels.clone(),
            required: entry.required,
            key: entry.key.map_or_else(String::new, |key| key.to_string()),
        }
    }
}

impl TryFrom<v1::MemberEntry> for MemberEntry {
    type Error = Malformed;

    fn try_from(given: v1::MemberEntry) -> Result<Self, Malformed> {
        let key = match given.key.as_str() {
            "" => None,
            key => Some(key.parse::<Digest>()?),
        };
        Ok(Self {
            address: text("address", given.address)?,
            labels: labels(given.labels)?,
            required: given.required,
            key,
        })
    }
}

impl From<&Grant> for v1::Grant {
    fn from(grant: &Grant) -> Self {
        Self {
            mesh: grant.mesh.clone(),
            issuer: grant.issuer.to_string(),
            secret: grant.secret.to_string(),
            uses: grant.uses,
            until_wall_ms: grant.until_wall_ms,
            host: grant
                .host
                .as_ref()
                .map_or_else(String::new, NodeName::to_string),
            replaces: grant.replaces,
            labels: grant.labels.clone(),
            required: grant.required,
        }
    }
}

impl TryFrom<v1::Grant> for Grant {
    type Error = Malformed;

    fn try_from(given: v1::Grant) -> Result<Self, Malformed> {
        if given.uses == 0 || given.uses > USES_MAX {
            return Err(Malformed::TooLarge {
                field: "uses",
                bound: USES_MAX.into(),
            });
        }
        let host = match given.host.as_str() {
            "" => None,
            host => Some(host.parse()?),
        };
        Ok(Self {
            mesh: text("mesh", given.mesh)?,
            issuer: given.issuer.parse()?,
            secret: given.secret.parse()?,
            uses: given.uses,
            until_wall_ms: given.until_wall_ms,
            host,
            replaces: given.replaces,
            labels: labels(given.labels)?,
            required: given.required,
        })
    }
}

/// What a caller holds in some buckets.
pub fn listing(given: Vec<v1::Listed>) -> Result<Listing, Malformed> {
    use v1::listed::Subject as About;
    bounded("held", given.len(), STATEMENTS_MAX)?;
    let one = |listed: v1::Listed| {
        let subject = match required("subject", listed.subject)? {
            About::Member(name) => Subject::Member(name.parse()?),
            About::User(name) => Subject::User(person(name)?),
            About::Trust(_) => Subject::Trust,
        };
        let digest = listed.digest.as_ref().try_into();
        let digest = digest.map_err(|_| Malformed::UnknownValue("digest"))?;
        Ok((subject, Digest::from_bytes(digest)))
    };
    given.into_iter().map(one).collect()
}

/// The same as a message.
pub fn listed(listing: &Listing) -> Vec<v1::Listed> {
    use v1::listed::Subject as About;
    let one = |(subject, digest): (&Subject, &Digest)| v1::Listed {
        subject: Some(match subject {
            Subject::Member(name) => About::Member(name.to_string()),
            Subject::User(name) => About::User(name.clone()),
            Subject::Trust => About::Trust(true),
        }),
        digest: digest.as_bytes().to_vec().into(),
    };
    listing.iter().map(one).collect()
}

/// Buckets of the roster, each checked.
pub fn buckets(given: &[u32]) -> Result<Vec<usize>, Malformed> {
    bounded("buckets", given.len(), BUCKETS)?;
    let one = |bucket: &u32| {
        usize::try_from(*bucket)
            .ok()
            .filter(|bucket| *bucket < BUCKETS)
    };
    let all: Option<Vec<usize>> = given.iter().map(one).collect();
    all.ok_or(Malformed::UnknownValue("buckets"))
}
