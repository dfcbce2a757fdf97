//! Whether a stored build is intact, and making it so again.

use super::error::BuildError;
use super::extract::tree_mode;
use super::store::{BUNDLE, BuildStore, MANIFEST, StoredBuild, TREE};
use crate::adapters::disk;
use cbddc_domain::build::BuildRef;
use cbddc_domain::manifest::{Manifest, ManifestFile};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

impl BuildStore {
    /// Reads every file of the build again and compares it with the manifest.
    ///
    /// # Errors
    /// [`BuildError::DamagedTree`] names the first file that is missing, altered or surplus.
    pub fn verify(&self, build: &BuildRef) -> Result<StoredBuild, BuildError> {
        let stored = self.require(build)?;
        let tree = self.tree(build);
        let damaged = |path: &str, what| {
            let (build, path) = (build.clone(), path.to_owned());
            BuildError::DamagedTree { build, path, what }
        };
        for file in stored.manifest.files() {
            let path = tree.join(file.path.as_str());
            let fault = check_file(&path, file).map_err(BuildError::io("read", &path, 0))?;
            if let Some(what) = fault {
                return Err(damaged(file.path.as_str(), what));
            }
        }
        match find_surplus(&tree, &stored.manifest).map_err(BuildError::io("read", &tree, 0))? {
            Some(path) => Err(damaged(&path, "is not part of the build")),
            None => Ok(stored),
        }
    }

    /// Restores the files of a damaged build from its kept bundle.
    ///
    /// # Errors
    /// The kept bundle may be damaged too: then nothing changes, and importing the build again
    /// repairs it.
    pub fn repair(&self, build: &BuildRef) -> Result<(), BuildError> {
        let folder = self.folder(&build.digest);
        let bundle = folder.join(BUNDLE);
        if !folder.exists() {
            return Err(self.not_found(build));
        }
        let work = self.begin_work()?;
        let file = File::open(&bundle).map_err(BuildError::io("read", &bundle, 0))?;
        let manifest = self.unpack(file, &work, Some(build))?;

        let _guard = self.lock();
        let write = |path| BuildError::io("write", path, manifest.total_size());
        let (old, new) = (folder.join(TREE), work.0.join(TREE));
        // Moving a folder needs the right to write to it.
        if old.is_dir() {
            disk::set_mode(&old, 0o755).map_err(write(&old))?;
            fs::rename(&old, work.0.join("damaged")).map_err(write(&old))?;
        }
        fs::rename(&new, &old).map_err(write(&old))?;
        disk::set_mode(&old, 0o555).map_err(write(&old))?;
        fs::rename(work.0.join(MANIFEST), folder.join(MANIFEST)).map_err(write(&folder))?;
        disk::sync_folder(&folder).map_err(write(&folder))
    }
}

/// What is wrong with a stored file, if anything is.
fn check_file(path: &Path, file: &ManifestFile) -> io::Result<Option<&'static str>> {
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

/// The first file or folder in the tree that the manifest does not ask for.
fn find_surplus(tree: &Path, manifest: &Manifest) -> io::Result<Option<String>> {
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
                return Ok(Some(relative));
            }
        }
    }
    Ok(None)
}
