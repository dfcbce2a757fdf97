//! Releases: a build with the configuration and secrets it runs with.

use crate::build::{BuildRef, Digest};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One version of a configuration set or a secret set.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SetRef {
    /// What people call it: `name@version`.
    pub id: crate::build::BuildId,
    /// The digest of its contents.
    pub digest: Digest,
}

/// What is rolled out: build, configuration set and secret set together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Release {
    /// The build.
    pub build: BuildRef,
    /// The configuration set; unset: the node's own files, which no release manages.
    pub config: Option<SetRef>,
    /// The secret set; unset: none is managed.
    pub secrets: Option<SetRef>,
}

impl Release {
    /// A release of a build alone.
    pub fn of_build(build: BuildRef) -> Self {
        Self {
            build,
            config: None,
            secrets: None,
        }
    }

    /// The short name that people type, derived from what the release consists of.
    pub fn id(&self) -> ReleaseId {
        let mut text = self.build.digest.to_string();
        for set in [&self.config, &self.secrets] {
            text.push('|');
            if let Some(set) = set {
                text.push_str(&set.digest.to_string());
            }
        }
        ReleaseId(Digest::of(text.as_bytes()).to_string()[..8].to_owned())
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (release {})", self.build, self.id())
    }
}

/// A release's short name: 8 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReleaseId(pub String);

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Release, SetRef};
    use crate::build::{BuildRef, Digest};

    #[test]
    fn the_id_tells_apart_what_the_parts_tell_apart() {
        let build = BuildRef {
            id: "a@1".parse().expect("a name"),
            digest: Digest::of(b"1"),
        };
        let set = SetRef {
            id: "c@1".parse().expect("a name"),
            digest: Digest::of(b"2"),
        };
        let alone = Release::of_build(build);
        let with_config = Release {
            config: Some(set.clone()),
            ..alone.clone()
        };
        let with_secrets = Release {
            secrets: Some(set),
            ..alone.clone()
        };
        assert_eq!(alone.id(), alone.clone().id());
        assert_ne!(alone.id(), with_config.id());
        assert_ne!(with_config.id(), with_secrets.id());
    }
}
