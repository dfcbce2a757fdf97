//! Whether a stored build is intact.

use super::error::BuildError;
use super::extract::tree_mode;
use super::grown::is_grown_data;
use super::store::{BuildStore, StoredBuild};
use crate::adapters::disk;
use cbddc_domain::build::BuildRef;
use cbddc_domain::manifest::ManifestFile;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

impl BuildStore {
    /// Reads every file of the build again and compares it with the manifest. Files that the manifest
    /// does not name are no damage: a node writes into the folder that it runs from. Nor is a named file
    /// that is now a database with other content: to put it right would lose data.
    ///
    /// # Errors
    /// [`BuildError::DamagedTree`] names the first file that is missing or altered.
    pub fn verify(&self, build: &BuildRef) -> Result<StoredBuild, BuildError> {
        let stored = self.require(build)?;
        let tree = self.tree(build);
        let damaged = |path: &str, what| {
            let (build, path) = (build.clone(), path.to_owned());
            BuildError::DamagedTree { build, path, what }
        };
        for folder in stored
            .manifest
            .files()
            .iter()
            .flat_map(|file| file.path.folders())
            .collect::<BTreeSet<_>>()
        {
            let found = fs::symlink_metadata(tree.join(folder));
            if found.is_ok_and(|found| !found.is_dir()) {
                return Err(damaged(folder, "is not a folder"));
            }
        }
        for file in stored.manifest.files() {
            let path = tree.join(file.path.as_str());
            let fault = check_file(&path, file).map_err(BuildError::io("read", &path, 0))?;
            if let Some(what) = fault
                && !is_grown_data(&path, file).unwrap_or(false)
            {
                return Err(damaged(file.path.as_str(), what));
            }
        }
        Ok(stored)
    }
}

/// What is wrong with a stored file, if anything is.
pub(super) fn check_file(path: &Path, file: &ManifestFile) -> io::Result<Option<&'static str>> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some("is missing")),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Ok(Some("is missing"));
        }
        other => other?,
    };
    if !metadata.is_file() {
        return Ok(Some("is not a regular file"));
    }
    if metadata.mode() & 0o7777 != tree_mode(file) {
        return Ok(Some("has other mode bits"));
    }
    if metadata.len() != file.size {
        return Ok(Some("has another size"));
    }
    let same = disk::hash_file(path)? == (file.size, file.digest);
    Ok(if same {
        None
    } else {
        Some("has other content")
    })
}
