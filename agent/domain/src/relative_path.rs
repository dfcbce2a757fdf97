//! Paths that stay inside the folder they are joined to.

use crate::id::InvalidName;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest path, in bytes: what Linux takes in one call (`PATH_MAX`).
pub const PATH_BYTES: usize = 4096;
/// The longest part of a path, in bytes: what Linux file systems take (`NAME_MAX`).
pub const PATH_PART_BYTES: usize = 255;

/// The path of a file within a build; it cannot leave the build's folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelativePath(String);

impl RelativePath {
    /// The path as text, its parts separated by `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folders above the file, outermost first: `a`, `a/b` for `a/b/c`.
    pub fn folders(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }
}

impl FromStr for RelativePath {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let good_part =
            |part: &str| !matches!(part, "" | "." | "..") && part.len() <= PATH_PART_BYTES;
        let good_letter = |letter: char| letter != '\\' && !letter.is_control();
        if text.len() <= PATH_BYTES
            && text.split('/').all(good_part)
            && text.chars().all(good_letter)
        {
            return Ok(Self(text.to_owned()));
        }
        let rule = "a relative path of at most 4096 bytes, without empty, `.` or `..` parts, parts over 255 bytes, backslashes or control characters";
        Err(InvalidName::new("path", text, rule))
    }
}

impl TryFrom<String> for RelativePath {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<RelativePath> for String {
    fn from(path: RelativePath) -> Self {
        path.0
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::RelativePath;

    #[test]
    fn paths_stay_inside() {
        for good in [
            "a",
            "a/b",
            ".hidden",
            "a/..b",
            "ä \"quoted\"",
            &"p/".repeat(2047),
            &"a".repeat(255),
        ] {
            let good = good.trim_end_matches('/');
            assert!(good.parse::<RelativePath>().is_ok(), "{good:?} was refused");
        }
        let long_part = "a".repeat(256);
        let long_path = "p/".repeat(2048) + "p";
        for bad in [
            "",
            ".",
            "..",
            "/",
            "/etc/passwd",
            "a/",
            "a//b",
            "./a",
            "a/.",
            "../a",
            "a/../b",
            "a\\b",
            "a\0b",
            "a\nb",
            &long_part,
            &long_path,
        ] {
            assert!(bad.parse::<RelativePath>().is_err(), "{bad:?} was taken");
        }
    }
}
