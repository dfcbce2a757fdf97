//! Whether a stored build is intact, and what else lies in its folder.

use super::error::BuildError;
use super::extract::tree_mode;
use super::store::{BuildStore, StoredBuild};
use crate::adapters::disk;
use cbddc_domain::build::BuildRef;
use cbddc_domain::manifest::{Manifest, ManifestFile};
use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// How many files beside those of the manifest are told.
const SURPLUS_TOLD_MAX: usize = 20;

impl BuildStore {
    /// Reads every file of the build again and compares it with the manifest. Files that the manifest
    /// does not name are no damage: a node writes into the folder that it runs from.
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
            if let Some(what) = fault {
                return Err(damaged(file.path.as_str(), what));
            }
        }
        Ok(stored)
    }

    /// What lies in the build's folder and is not named in its manifest: files, and folders as one. At
    /// most 20 are told, in the order of their names.
    ///
    /// # Errors
    /// The build is not here, or its folder cannot be read.
    pub fn surplus(&self, build: &BuildRef) -> Result<Vec<String>, BuildError> {
        let (stored, tree) = (self.require(build)?, self.tree(build));
        find_surplus(&tree, &stored.manifest).map_err(BuildError::io("read", &tree, 0))
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

/// The files and folders in the tree that the manifest does not ask for.
fn find_surplus(tree: &Path, manifest: &Manifest) -> io::Result<Vec<String>> {
    let files: HashSet<&str> = manifest
        .files()
        .iter()
        .map(|file| file.path.as_str())
        .collect();
    let parents: HashSet<&str> = manifest
        .files()
        .iter()
        .flat_map(|file| file.path.folders())
        .collect();
    let mut surplus = BTreeSet::new();
    let mut folders = vec![tree.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            let relative = path
                .strip_prefix(tree)
                .unwrap_or(&path)
                .to_string_lossy()
                .into_owned();
            if entry.file_type()?.is_dir() && parents.contains(relative.as_str()) {
                folders.push(path);
            } else if !files.contains(relative.as_str()) {
                surplus.insert(relative);
                if surplus.len() > SURPLUS_TOLD_MAX {
                    surplus.pop_last();
                }
            }
        }
    }
    Ok(surplus.into_iter().collect())
}
