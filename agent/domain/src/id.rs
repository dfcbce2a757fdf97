//! Names of nodes and of things that are counted.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A text was not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} `{given}` is not valid: {rule}")]
pub struct InvalidName {
    /// What was being named.
    pub kind: &'static str,
    /// The text as it was given, cut to 80 characters.
    pub given: String,
    /// What a valid one looks like.
    pub rule: &'static str,
}

impl InvalidName {
    /// Remembers at most 80 characters of `given`: it may come from outside.
    pub fn new(kind: &'static str, given: &str, rule: &'static str) -> Self {
        Self {
            kind,
            given: given.chars().take(80).collect(),
            rule,
        }
    }
}

/// The name of one host's agent in the mesh, which is also a DNS name in its certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(String);

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let edge = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric());
        let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        let valid = text.len() <= 63
            && edge(text.bytes().next())
            && edge(text.bytes().last())
            && !text.contains("..")
            && text.bytes().all(inside);
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            let rule =
                "1 to 63 of a-z, 0-9, `-` and `.`, beginning and ending with a letter or digit";
            Err(InvalidName::new("node name", text, rule))
        }
    }
}

impl TryFrom<String> for NodeName {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<NodeName> for String {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::NodeName;

    #[test]
    fn node_names() {
        for good in ["n1", "till-3", "shop.till-3", "7"] {
            assert_eq!(
                good.parse::<NodeName>().map(|n| n.to_string()),
                Ok(good.to_owned())
            );
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a b",
            "a|b",
            "a..b",
            "a/b",
            "ä",
            &"a".repeat(64),
        ] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?} was taken");
        }
    }
}
