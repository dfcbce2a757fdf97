//! Builds: immutable files from CI, named `name@version` and identified by a digest.

use crate::id::InvalidName;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;

/// A SHA-256 digest; written as 64 lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// A digest that was computed elsewhere.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 12 hexadecimal digits, for people.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let wrong = || InvalidName::new("digest", text, "64 lowercase hexadecimal digits");
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let text_bytes = text.as_bytes();
        if text_bytes.len() != 64 {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(text_bytes.chunks(2)) {
            let (high, low) = (
                digit(pair[0]).ok_or_else(wrong)?,
                digit(pair[1]).ok_or_else(wrong)?,
            );
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// What people call a build: `name@version`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BuildId {
    name: String,
    version: String,
}

impl BuildId {
    /// The part before the `@`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The part after the `@`.
    pub fn version(&self) -> &str {
        &self.version
    }
}

fn is_word(text: &str, also: &[u8]) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || also.contains(&byte))
}

impl FromStr for BuildId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        match text.split_once('@') {
            Some((name, version)) if is_word(name, b"._-") && is_word(version, b"._+-") => {
                Ok(Self {
                    name: name.to_owned(),
                    version: version.to_owned(),
                })
            }
            _ => {
                let rule = "NAME@VERSION, each 1 to 64 of A-Z, a-z, 0-9, `.`, `_`, `-` (and `+` in the version)";
                Err(InvalidName::new("build", text, rule))
            }
        }
    }
}

impl TryFrom<String> for BuildId {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<BuildId> for String {
    fn from(id: BuildId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}@{}", self.name, self.version))
    }
}

/// A build as it is rolled out: its name for people, its digest for everything else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BuildRef {
    /// What people call it.
    pub id: BuildId,
    /// The digest of its manifest, which names every file's digest in turn.
    pub digest: Digest,
}

impl fmt::Display for BuildRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.id, f)
    }
}

#[cfg(test)]
mod tests {
    use super::{BuildId, Digest};

    #[test]
    fn digests_round_trip() {
        let digest = Digest::of(b"abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
        for bad in [
            "",
            "ba78",
            &text.to_uppercase(),
            &text.replace('b', "g"),
            &"é".repeat(32),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn build_names() {
        let build: BuildId = "cbddc@1.4.2+7".parse().expect("a good name");
        assert_eq!((build.name(), build.version()), ("cbddc", "1.4.2+7"));
        for bad in [
            "",
            "cbddc",
            "@1",
            "cbddc@",
            "a/b@1",
            "cbddc@../x",
            "a@1@2",
            "c d@1",
            ".@1",
        ] {
            assert!(bad.parse::<BuildId>().is_err(), "{bad:?} was taken");
        }
    }
}
