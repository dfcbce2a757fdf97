//! What a build consists of: every file with its size and digest, in exactly one byte representation.
//!
//! The digest of a build is the digest of its manifest's canonical bytes, so whoever knows the
//! digest can check every file. Reading JSON is left to the adapters: they parse
//! [`ManifestFields`] and hand it to [`Manifest::accept`] with the bytes it came from.

use crate::build::{BuildId, BuildRef, Digest};
use crate::relative_path::RelativePath;
use serde::Deserialize;
use std::collections::HashSet;
use std::fmt::Write as _;

/// The only manifest format there is so far.
pub const FORMAT: u32 = 1;

/// Bounds on what a bundle may hold, so that bad input cannot fill a disk or the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files together, unpacked.
    pub unpacked_bytes: u64,
    /// Bytes of the compressed bundle; one that does not compress is a little larger than its files.
    pub bundle_bytes: u64,
    /// Bytes of `manifest.json`, which is held in memory: 100,000 files of 300 bytes each.
    pub manifest_bytes: u64,
    /// Number of files; a self-contained .NET service has a few hundred.
    pub files: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unpacked_bytes: 4 << 30,
            bundle_bytes: (4 << 30) + (64 << 20),
            manifest_bytes: 32 << 20,
            files: 100_000,
        }
    }
}

/// The largest single file, in bytes: what the size field of a tar header holds (11 octal digits).
pub const FILE_BYTES: u64 = (8 << 30) - 1;

/// One file of a build.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// Where it lies within the build.
    pub path: RelativePath,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it may be executed.
    pub executable: bool,
    /// The digest of its content.
    pub digest: Digest,
}

/// A manifest as it was read, before any check across its fields.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFields {
    /// The format of the manifest: [`FORMAT`].
    pub format: u32,
    /// What the build is called.
    pub build: BuildId,
    /// Its files.
    pub files: Vec<ManifestFile>,
    /// The sum of their sizes in bytes.
    pub total_size: u64,
    /// Whether the build declares that it changes the persistence format.
    pub changes_persistence: bool,
}

/// A manifest that holds to all the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest(ManifestFields);

/// Why a manifest is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// A newer or older format.
    #[error("manifest format {0} is not known; this program knows format {FORMAT}")]
    UnknownFormat(u32),
    /// No files at all.
    #[error("the manifest lists no files")]
    Empty,
    /// More files than allowed.
    #[error("{files} files are more than the limit of {limit}")]
    TooManyFiles {
        /// How many are listed.
        files: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// The files together, or one of them, are too large.
    #[error("the files unpack to more than the limit of {limit} bytes")]
    TooLarge {
        /// How many bytes are allowed.
        limit: u64,
    },
    /// The sizes do not add up to `total_size`.
    #[error("the files add up to {sum} bytes, but the manifest says {declared}")]
    WrongTotal {
        /// What they add up to.
        sum: u64,
        /// What the manifest says.
        declared: u64,
    },
    /// A path is listed twice.
    #[error("`{0}` is listed twice")]
    Duplicate(RelativePath),
    /// A path is a file and also the folder of another file.
    #[error("`{0}` is listed as a file, but another file lies below it")]
    FileIsFolder(RelativePath),
    /// The bytes are not the one representation of this manifest.
    #[error("the manifest is not in canonical form; make the bundle with `cbctl build pack`")]
    NotCanonical,
}

impl Manifest {
    /// Makes a manifest of `files`, in any order.
    ///
    /// # Errors
    /// Whatever the limits and rules refuse.
    pub fn new(
        build: BuildId,
        mut files: Vec<ManifestFile>,
        changes_persistence: bool,
        limits: &Limits,
    ) -> Result<Self, ManifestError> {
        files.sort_by(|left, right| left.path.cmp(&right.path));
        let total_size = sum_of_sizes(&files, limits)?;
        let fields = ManifestFields {
            format: FORMAT,
            build,
            files,
            total_size,
            changes_persistence,
        };
        check(&fields, limits)?;
        Ok(Self(fields))
    }

    /// Accepts what was parsed from `bytes`, if it holds to the rules and `bytes` is its canonical
    /// form.
    ///
    /// # Errors
    /// Whatever the limits and rules refuse, and any other spelling of the same manifest.
    pub fn accept(
        fields: ManifestFields,
        bytes: &[u8],
        limits: &Limits,
    ) -> Result<Self, ManifestError> {
        check(&fields, limits)?;
        let manifest = Self(fields);
        if manifest.canonical_bytes() == bytes {
            Ok(manifest)
        } else {
            Err(ManifestError::NotCanonical)
        }
    }

    /// What the build is called.
    pub fn build(&self) -> &BuildId {
        &self.0.build
    }

    /// Its files, ordered by the bytes of their paths.
    pub fn files(&self) -> &[ManifestFile] {
        &self.0.files
    }

    /// The sum of the sizes of its files, in bytes.
    pub fn total_size(&self) -> u64 {
        self.0.total_size
    }

    /// Whether the build declares that it changes the persistence format.
    pub fn changes_persistence(&self) -> bool {
        self.0.changes_persistence
    }

    /// The build's name and digest.
    pub fn build_ref(&self) -> BuildRef {
        BuildRef {
            id: self.0.build.clone(),
            digest: Digest::of(&self.canonical_bytes()),
        }
    }

    /// The one representation: JSON in this order of fields, without spaces, files sorted, and one
    /// line feed at the end.
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let fields = &self.0;
        let mut text = format!(
            r#"{{"format":{},"build":"{}","files":["#,
            fields.format, fields.build
        );
        for (index, file) in fields.files.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            // Of what JSON must escape, a path can only hold the quotation mark.
            let path = file.path.as_str().replace('"', "\\\"");
            let ManifestFile {
                size,
                executable,
                digest,
                ..
            } = file;
            // Writing to a String cannot fail.
            let _ = write!(
                text,
                r#"{comma}{{"path":"{path}","size":{size},"executable":{executable},"digest":"{digest}"}}"#
            );
        }
        let (total, changes) = (fields.total_size, fields.changes_persistence);
        let _ = writeln!(
            text,
            r#"],"total_size":{total},"changes_persistence":{changes}}}"#
        );
        text.into_bytes()
    }
}

fn sum_of_sizes(files: &[ManifestFile], limits: &Limits) -> Result<u64, ManifestError> {
    let too_large = ManifestError::TooLarge {
        limit: limits.unpacked_bytes.min(FILE_BYTES),
    };
    let sum = files.iter().try_fold(0_u64, |sum, file| {
        sum.checked_add(file.size)
            .filter(|_| file.size <= FILE_BYTES)
    });
    sum.filter(|sum| *sum <= limits.unpacked_bytes)
        .ok_or(too_large)
}

fn check(fields: &ManifestFields, limits: &Limits) -> Result<(), ManifestError> {
    if fields.format != FORMAT {
        return Err(ManifestError::UnknownFormat(fields.format));
    }
    let files = &fields.files;
    if files.is_empty() {
        return Err(ManifestError::Empty);
    }
    if files.len() > limits.files {
        return Err(ManifestError::TooManyFiles {
            files: files.len(),
            limit: limits.files,
        });
    }
    let sum = sum_of_sizes(files, limits)?;
    if sum != fields.total_size {
        return Err(ManifestError::WrongTotal {
            sum,
            declared: fields.total_size,
        });
    }
    for pair in files.windows(2) {
        match pair[0].path.cmp(&pair[1].path) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => {
                return Err(ManifestError::Duplicate(pair[0].path.clone()));
            }
            std::cmp::Ordering::Greater => return Err(ManifestError::NotCanonical),
        }
    }
    let paths: HashSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    for file in files {
        if let Some(folder) = file.path.folders().find(|folder| paths.contains(folder)) {
            let is_it = |other: &&ManifestFile| other.path.as_str() == folder;
            let folder = files.iter().find(is_it).unwrap_or(file).path.clone();
            return Err(ManifestError::FileIsFolder(folder));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, size: u64) -> ManifestFile {
        let path = path.parse().expect("a good path");
        ManifestFile {
            path,
            size,
            executable: false,
            digest: Digest::of(b"x"),
        }
    }

    fn manifest(files: Vec<ManifestFile>) -> Result<Manifest, ManifestError> {
        Manifest::new(
            "app@1".parse().expect("a good name"),
            files,
            false,
            &Limits::default(),
        )
    }

    fn path(text: &str) -> RelativePath {
        text.parse().expect("a good path")
    }

    #[test]
    fn the_order_of_files_does_not_matter() {
        let one = manifest(vec![file("b", 1), file("a/c", 2)]).expect("a good manifest");
        let other = manifest(vec![file("a/c", 2), file("b", 1)]).expect("a good manifest");
        assert_eq!(one.build_ref(), other.build_ref());
        assert_eq!(one.total_size(), 3);
        let text = String::from_utf8(one.canonical_bytes()).expect("UTF-8");
        let digest = Digest::of(b"x");
        let expected = format!(
            "{{\"format\":1,\"build\":\"app@1\",\"files\":[\
             {{\"path\":\"a/c\",\"size\":2,\"executable\":false,\"digest\":\"{digest}\"}},\
             {{\"path\":\"b\",\"size\":1,\"executable\":false,\"digest\":\"{digest}\"}}],\
             \"total_size\":3,\"changes_persistence\":false}}\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn faults_are_named() {
        let taken_twice = manifest(vec![file("a", 1), file("a", 1)]);
        assert_eq!(taken_twice, Err(ManifestError::Duplicate(path("a"))));
        // `a-b` sorts between `a` and `a/b`: looking at neighbours alone would miss it.
        let folder = manifest(vec![file("a", 1), file("a-b", 1), file("a/b", 1)]);
        assert_eq!(folder, Err(ManifestError::FileIsFolder(path("a"))));
        assert_eq!(manifest(vec![]), Err(ManifestError::Empty));
        let limit = 4 << 30;
        let large = manifest(vec![file("a", limit), file("b", 1)]);
        assert_eq!(large, Err(ManifestError::TooLarge { limit }));
        let overflow = manifest(vec![file("a", u64::MAX), file("b", 1)]);
        assert!(
            matches!(overflow, Err(ManifestError::TooLarge { .. })),
            "{overflow:?}"
        );
    }

    #[test]
    fn only_the_canonical_bytes_are_accepted() {
        let limits = Limits::default();
        let good = manifest(vec![file("a", 1), file("b", 2)]).expect("a good manifest");
        let bytes = good.canonical_bytes();
        assert_eq!(
            Manifest::accept(good.0.clone(), &bytes, &limits),
            Ok(good.clone())
        );
        let mut spaced = bytes.clone();
        spaced.push(b' ');
        let refused = Manifest::accept(good.0.clone(), &spaced, &limits);
        assert_eq!(refused, Err(ManifestError::NotCanonical));
        let mut unsorted = good.0.clone();
        unsorted.files.reverse();
        assert_eq!(
            Manifest::accept(unsorted, &bytes, &limits),
            Err(ManifestError::NotCanonical)
        );
        let wrong = ManifestFields {
            total_size: 4,
            ..good.0.clone()
        };
        let refused = Manifest::accept(wrong, &bytes, &limits);
        assert_eq!(
            refused,
            Err(ManifestError::WrongTotal {
                sum: 3,
                declared: 4
            })
        );
        let newer = ManifestFields {
            format: 2,
            ..good.0.clone()
        };
        assert_eq!(
            Manifest::accept(newer, &bytes, &limits),
            Err(ManifestError::UnknownFormat(2))
        );
        let few = Limits { files: 1, ..limits };
        let refused = Manifest::accept(good.0, &bytes, &few);
        assert_eq!(
            refused,
            Err(ManifestError::TooManyFiles { files: 2, limit: 1 })
        );
    }
}
