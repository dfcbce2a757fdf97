//! The link to the build that runs.

use super::error::BuildError;
use super::store::{BUILDS, BuildStore, TREE};
use crate::adapters::disk;
use cbddc_domain::build::{BuildRef, Digest};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

impl BuildStore {
    /// Points `current` to the build, or removes the link; it changes in one step or not at all.
    ///
    /// # Errors
    /// [`BuildError::NotFound`], or [`BuildError::StrangeCurrent`] if something else bears the name.
    pub fn point_current(&self, build: Option<&BuildRef>) -> Result<(), BuildError> {
        let link = self.current_link();
        let write = || BuildError::io("write", &link, 0);
        let work = self.begin_work()?;
        let _guard = self.lock();
        let before = self.current()?;
        match build {
            Some(build) => {
                self.require(build)?;
                let new = work.0.join("current");
                symlink(target_of_current(&build.digest), &new).map_err(write())?;
                fs::rename(&new, &link).map_err(write())?;
            }
            None if before.is_some() => fs::remove_file(&link).map_err(write())?,
            None => {}
        }
        disk::sync_folder(self.root()).map_err(write())
    }

    /// The digest of the build that `current` points to, if it points to one.
    ///
    /// # Errors
    /// [`BuildError::StrangeCurrent`] if it is not a link that this store made.
    pub fn current(&self) -> Result<Option<Digest>, BuildError> {
        current_of(self.root())
    }

    /// The link to the files of the build that runs.
    pub fn current_link(&self) -> PathBuf {
        self.root().join("current")
    }
}

/// The digest of the build that `current` points to in the store at `root`, which need not be open.
///
/// # Errors
/// [`BuildError::StrangeCurrent`] if it is not a link that a store made.
pub fn current_of(root: &Path) -> Result<Option<Digest>, BuildError> {
    let link = root.join("current");
    let target = match fs::read_link(&link) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            return Err(BuildError::StrangeCurrent(link));
        }
        other => other.map_err(BuildError::io("read", &link, 0))?,
    };
    let digest = target
        .components()
        .nth(1)
        .and_then(|part| part.as_os_str().to_str());
    match digest.and_then(|digest| digest.parse().ok()) {
        Some(digest) if target == target_of_current(&digest) => Ok(Some(digest)),
        Some(_) | None => Err(BuildError::StrangeCurrent(link)),
    }
}

/// Relative, so that the store can be moved or mounted elsewhere.
fn target_of_current(digest: &Digest) -> PathBuf {
    Path::new(BUILDS).join(digest.to_string()).join(TREE)
}
