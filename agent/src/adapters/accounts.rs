//! The users and groups of this host, as `/etc/passwd` and `/etc/group` list them. Read anew for each
//! question: whoever was taken out of a group is out at once. Accounts that a directory service alone
//! knows have a number here and no name.

use cbddc_domain::access::{Account, LocalRoles};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where the accounts are listed.
#[derive(Debug, Clone)]
pub struct Accounts {
    /// As `/etc/passwd`.
    pub passwd: PathBuf,
    /// As `/etc/group`.
    pub group: PathBuf,
}

impl Default for Accounts {
    fn default() -> Self {
        Self {
            passwd: "/etc/passwd".into(),
            group: "/etc/group".into(),
        }
    }
}

/// A group: its name and its members.
type Group = (String, Vec<String>);

impl Accounts {
    /// Who a user is that the kernel names by number, with the group that its process is in.
    pub fn account(&self, uid: u32, gid: u32) -> Account {
        let users = self.users();
        let user = users.iter().find(|(_, number, _)| *number == uid);
        let name = user.map(|(name, ..)| name.clone());
        let groups = self.groups();
        let of_user = |(number, (_, members)): (&u32, &Group)| {
            let is_in = name.as_ref().is_some_and(|name| members.contains(name));
            is_in.then_some(*number)
        };
        let numbers = groups.iter().filter_map(of_user);
        let numbers = numbers.chain(user.map(|(_, _, gid)| *gid)).chain([gid]);
        let named = |number: u32| {
            let name = groups.get(&number).map(|(name, _)| name.clone());
            (number, name)
        };
        Account {
            uid,
            groups: numbers.map(named).collect(),
            name,
        }
    }

    /// The users and groups in a configuration that this host does not have, each in a sentence.
    pub fn unknown(&self, roles: &LocalRoles) -> Vec<String> {
        let (users, groups) = (self.users(), self.groups());
        let is_number = |key: &str| key.parse::<u32>().is_ok();
        let user = |key: &&String| !is_number(key) && !users.iter().any(|(name, ..)| name == *key);
        let group =
            |key: &&String| !is_number(key) && !groups.values().any(|(name, _)| name == *key);
        let hint = "name it by its number if only a directory service knows it";
        let users = roles.users.keys().filter(user);
        let users = users.map(|key| format!("local.users: this host has no user `{key}`; {hint}"));
        let groups = roles.groups.keys().filter(group);
        let groups =
            groups.map(|key| format!("local.groups: this host has no group `{key}`; {hint}"));
        users.chain(groups).collect()
    }

    /// Name, number and first group of each user.
    fn users(&self) -> Vec<(String, u32, u32)> {
        let text = std::fs::read_to_string(&self.passwd).unwrap_or_default();
        let user = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            let (uid, gid) = (fields.nth(1)?, fields.next()?);
            Some((name.to_owned(), uid.parse().ok()?, gid.parse().ok()?))
        };
        text.lines().filter_map(user).collect()
    }

    fn groups(&self) -> BTreeMap<u32, Group> {
        let text = std::fs::read_to_string(&self.group).unwrap_or_default();
        let group = |line: &str| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| !name.is_empty())?;
            let (gid, members) = (fields.nth(1)?, fields.next().unwrap_or_default());
            let members = members.split(',').filter(|member| !member.is_empty());
            let members = members.map(str::to_owned).collect();
            Some((gid.parse().ok()?, (name.to_owned(), members)))
        };
        text.lines().filter_map(group).collect()
    }
}
