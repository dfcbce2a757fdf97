//! Why a build cannot be taken, used or removed.

use super::grown::Grown;
use cbddc_domain::build::{BuildId, BuildRef, Digest};
use cbddc_domain::manifest::ManifestError;
use cbddc_domain::relative_path::RelativePath;
use std::io;
use std::path::{Path, PathBuf};

/// Why a build cannot be taken, used or removed. Whatever it was, nothing has changed on disk.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A folder of this host cannot become a build.
    #[error("the folder cannot become a build")]
    Pack(#[source] cbddc_pack::PackError),
    /// An operation on the store's own files failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The disk is full, or would be.
    #[error("{free} bytes free, {needed} bytes needed on {}; free some space", path.display())]
    NoSpace {
        /// The bytes that may still be written.
        free: u64,
        /// The bytes that are needed.
        needed: u64,
        /// Where.
        path: PathBuf,
    },
    /// More bytes were sent than a bundle may have.
    #[error("the bundle is larger than the limit of {limit} bytes")]
    BundleTooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// The bundle ends too early.
    #[error("the bundle is cut off; send it again")]
    Truncated,
    /// The compressed data cannot be read.
    #[error("the bundle is damaged or not a bundle; make one with `cbctl build pack`")]
    Damaged(#[source] io::Error),
    /// The first entry is not a manifest.
    #[error("the bundle does not begin with a manifest; make one with `cbctl build pack`")]
    NoManifest,
    /// The manifest is larger than allowed.
    #[error("the bundle's manifest has {size} bytes, more than the limit of {limit}")]
    ManifestTooLarge {
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The manifest is not JSON of the right shape.
    #[error("the bundle's manifest cannot be read")]
    ManifestJson(#[source] serde_json::Error),
    /// The manifest breaks a rule.
    #[error("the bundle's manifest is refused")]
    Manifest(#[source] ManifestError),
    /// The bundle holds another build than the one announced.
    #[error("expected {expected} with digest {}, but the bundle holds {found} with digest {}", expected.digest, found.digest)]
    WrongBuild {
        /// What was announced.
        expected: Box<BuildRef>,
        /// What the bundle holds.
        found: Box<BuildRef>,
    },
    /// An entry is not the one that the manifest asks for at this place.
    #[error("the bundle is refused: {what}, where the manifest has the file `{expected}`")]
    UnexpectedEntry {
        /// What was found.
        what: String,
        /// What the manifest lists.
        expected: RelativePath,
    },
    /// A file's content does not have the digest that the manifest lists.
    #[error("the content of `{0}` does not match the manifest; the bundle is damaged or altered")]
    WrongContent(RelativePath),
    /// The space after a file, up to the next block, is not empty.
    #[error("the bundle is refused: there is data between two files")]
    Padding,
    /// Something follows the last file.
    #[error("the bundle is refused: {0} after the last file of the manifest")]
    Surplus(String),
    /// A path would be too long below the store's folder.
    #[error("the path `{0}` is too long below the build store of this host")]
    PathTooLong(RelativePath),
    /// The name and version belong to another build already.
    #[error(
        "{id} is already here with digest {present}; builds never change, so give the new one (digest {offered}) a new version"
    )]
    NameTaken {
        /// The name and version.
        id: BuildId,
        /// The digest of the build that has the name.
        present: Digest,
        /// The digest of the build that was offered.
        offered: Digest,
    },
    /// The build is not in the store.
    #[error("{id} (digest {}) is not in the build store; push it with `cbctl build push`", digest.short())]
    NotFound {
        /// Its name.
        id: BuildId,
        /// Its digest.
        digest: Digest,
    },
    /// The manifest of a stored build is not the one with its digest.
    #[error("the manifest of the stored build {} is damaged; push that build again to repair it", digest.short())]
    StoredManifest {
        /// The digest of the build.
        digest: Digest,
        /// What is wrong with the manifest, if it is not merely another one.
        #[source]
        source: Option<Box<BuildError>>,
    },
    /// The files of a stored build are not what its manifest lists.
    #[error(
        "{build} is damaged in the build store: `{path}` {what}; it can be restored from its bundle"
    )]
    DamagedTree {
        /// Which build.
        build: BuildRef,
        /// Which file, within the build.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A stored build is damaged, and so is the bundle that it could be restored from.
    #[error(
        "{build} is damaged in the build store ({damage}), and cannot be put right from its kept bundle: \
         push the build again"
    )]
    BeyondRepair {
        /// Which build.
        build: BuildRef,
        /// What is wrong with its files.
        damage: String,
        /// Why the bundle cannot be used.
        #[source]
        source: Box<BuildError>,
    },
    /// The build is the one that `current` points to, or is needed.
    #[error("{0} is the build that this node runs, or one that it needs, so it cannot be removed")]
    InUse(BuildRef),
    /// It would take data with it.
    #[error(
        "{build} cannot be removed, because its folder holds {what}: move the data elsewhere, for example to /var/lib, and set the application's path to it"
    )]
    HoldsData {
        /// Which build.
        build: BuildRef,
        /// The databases, or that there is too much to look through.
        what: String,
    },
    /// `current` is not a link that this store made.
    #[error("{} is not a link to a build of this store; move it away", .0.display())]
    StrangeCurrent(PathBuf),
}

impl BuildError {
    pub(super) fn beyond_repair(build: &BuildRef, damage: &Self, source: Self) -> Self {
        let damage = if let Self::DamagedTree { path, what, .. } = damage {
            format!("`{path}` {what}")
        } else {
            damage.to_string()
        };
        Self::BeyondRepair {
            build: build.clone(),
            damage,
            source: Box::new(source),
        }
    }

    pub(super) fn holds_data(build: &BuildRef, data: Grown) -> Self {
        Self::HoldsData {
            build: build.clone(),
            what: match data.databases.is_empty() {
                true => "more files than are looked through".into(),
                false => data.databases.join(", "),
            },
        }
    }

    /// Wraps an I/O error, or tells that the disk is full when that is what it is.
    pub(super) fn io(
        action: &'static str,
        path: &Path,
        needed: u64,
    ) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            if crate::adapters::disk::is_full(&source) {
                let folder = path
                    .ancestors()
                    .find(|folder| folder.is_dir())
                    .unwrap_or(path);
                let free = crate::adapters::disk::free_bytes(folder).unwrap_or(0);
                return Self::NoSpace {
                    free,
                    needed,
                    path: folder.to_owned(),
                };
            }
            Self::Io {
                action,
                path: path.to_owned(),
                source,
            }
        }
    }
}
