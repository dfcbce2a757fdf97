//! Who may do what: the roles of people.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// What a person may do in a mesh; the certificate names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Looks at everything, changes nothing.
    Viewer,
    /// Rolls out and back.
    Operator,
    /// Approves what others propose.
    Approver,
    /// Does all of it, and says who is in the mesh.
    Admin,
}

impl Role {
    /// All roles, the least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Operator, Self::Approver, Self::Admin];

    /// The word for it, as certificates and commands have it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Approver => "approver",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Role {
    type Err = crate::id::InvalidName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|role| role.word() == text);
        let rule = "viewer, operator, approver or admin";
        found.ok_or_else(|| crate::id::InvalidName::new("role", text, rule))
    }
}

/// A user of a host, as the host knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// The number that the kernel tells.
    pub uid: u32,
    /// Its name, where the host has one for it.
    pub name: Option<String>,
    /// The groups' numbers, each with its name where the host has one for it.
    pub groups: BTreeMap<u32, Option<String>>,
}

impl Account {
    /// How the journal names it.
    pub fn shown(&self) -> String {
        match &self.name {
            Some(name) => name.clone(),
            None => format!("uid {}", self.uid),
        }
    }
}

/// Which users of a host may use its agent's socket, and as what. Keys are names or numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LocalRoles {
    /// By user.
    pub users: BTreeMap<String, Role>,
    /// By group.
    pub groups: BTreeMap<String, Role>,
}

impl LocalRoles {
    /// Whether nobody but root may.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }

    /// What a user may do. What is said of the user goes before what is said of its groups; of those
    /// the one that allows most. Root may do all of it.
    pub fn role_of(&self, account: &Account) -> Option<Role> {
        if account.uid == 0 {
            return Some(Role::Admin);
        }
        let keys = |number: u32, name: &Option<String>| -> BTreeSet<String> {
            // Digits are a number, whoever has them for a name.
            let name = name.iter().filter(|name| name.parse::<u32>().is_err());
            name.cloned().chain([number.to_string()]).collect()
        };
        let most = |roles: &BTreeMap<String, Role>, keys: BTreeSet<String>| {
            keys.iter().filter_map(|key| roles.get(key)).max().copied()
        };
        let own = most(&self.users, keys(account.uid, &account.name));
        own.or_else(|| {
            let groups = account.groups.iter();
            let keys = groups.flat_map(|(number, name)| keys(*number, name));
            most(&self.groups, keys.collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Account, LocalRoles, Role};

    #[test]
    fn users_go_before_groups_and_root_before_all() {
        let roles = |pairs: &[(&str, Role)]| {
            let pairs = pairs.iter().map(|(key, role)| ((*key).to_owned(), *role));
            pairs.collect()
        };
        let local = LocalRoles {
            users: roles(&[("ana", Role::Viewer), ("1007", Role::Operator)]),
            groups: roles(&[
                ("adm", Role::Viewer),
                ("ops", Role::Operator),
                ("50", Role::Admin),
            ]),
        };
        let check = |uid, name: Option<&str>, groups: &[(u32, Option<&str>)], expected| {
            let account = Account {
                uid,
                name: name.map(str::to_owned),
                groups: groups
                    .iter()
                    .map(|(gid, name)| (*gid, name.map(str::to_owned)))
                    .collect(),
            };
            assert_eq!(local.role_of(&account), expected, "{account:?}");
        };
        let (adm, ops) = ((4, Some("adm")), (60, Some("ops")));
        check(0, Some("root"), &[], Some(Role::Admin));
        check(1001, Some("ana"), &[], Some(Role::Viewer));
        check(1001, Some("ana"), &[ops], Some(Role::Viewer));
        check(1007, None, &[], Some(Role::Operator));
        check(1002, Some("bob"), &[adm], Some(Role::Viewer));
        check(1002, Some("bob"), &[adm, ops], Some(Role::Operator));
        check(1002, Some("bob"), &[(50, None)], Some(Role::Admin));
        check(1002, Some("bob"), &[(1007, None)], None);
        check(1002, Some("bob"), &[], None);
        check(1003, Some("1007"), &[], None);
        assert_eq!(
            LocalRoles::default().role_of(&Account::default()),
            Some(Role::Admin)
        );
    }

    #[test]
    fn roles_by_their_words() {
        for role in Role::ALL {
            assert_eq!(role.word().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
    }
}
