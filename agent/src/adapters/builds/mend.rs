//! Putting a damaged build right, file by file, from a bundle.
//!
//! Only what the manifest names is touched. A node writes into the folder it runs from, its database
//! at worst: what the manifest does not name stays where it is, and so does a database in the place of a
//! named file.

use super::error::BuildError;
use super::grown::{is_grown_data, may_hold_data};
use super::left::next_left;
use super::store::{BUNDLE, BuildStore, MANIFEST, StoredBuild, TREE, Work};
use super::verify::check_file;
use crate::adapters::disk;
use cbddc_domain::build::BuildRef;
use cbddc_domain::manifest::{Manifest, ManifestFile};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

impl BuildStore {
    /// Verifies the build, and puts right from its kept bundle what is not as the manifest says.
    /// Returns what had been wrong, if anything was.
    ///
    /// # Errors
    /// It is not here, or [`BuildError::BeyondRepair`], as the kept bundle cannot be used either: then
    /// nothing changes, and importing the build again repairs it.
    pub fn make_sound(
        &self,
        build: &BuildRef,
    ) -> Result<(StoredBuild, Option<BuildError>), BuildError> {
        match self.verify(build) {
            Ok(stored) => Ok((stored, None)),
            Err(error @ BuildError::NotFound { .. }) => Err(error),
            Err(damage) => {
                self.repair(build)
                    .map_err(|error| BuildError::beyond_repair(build, &damage, error))?;
                Ok((self.verify(build)?, Some(damage)))
            }
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
        self.mend(&work, &manifest)
    }

    /// Moves the checked files in `work` to where the stored build lacks them. Whoever calls holds the
    /// lock.
    pub(super) fn mend(&self, work: &Work, manifest: &Manifest) -> Result<(), BuildError> {
        let folder = self.folder(&manifest.build_ref().digest);
        let write = || BuildError::io("write", &folder, manifest.total_size());
        let mending = Mending {
            folder: &folder,
            tree: &folder.join(TREE),
            work,
        };
        mending.all(manifest).map_err(write())?;
        fs::rename(work.0.join(MANIFEST), folder.join(MANIFEST)).map_err(write())?;
        disk::sync_folder(&folder).map_err(write())
    }
}

/// One tree that is put right.
struct Mending<'a> {
    folder: &'a Path,
    tree: &'a Path,
    work: &'a Work,
}

impl Mending<'_> {
    fn all(&self, manifest: &Manifest) -> io::Result<()> {
        let files = manifest.files().iter();
        let folders: BTreeSet<&str> = files.flat_map(|file| file.path.folders()).collect();
        // The outer ones first, as their names are shorter.
        let folders: Vec<PathBuf> = [self.tree.to_owned()]
            .into_iter()
            .chain(folders.iter().map(|folder| self.tree.join(folder)))
            .collect();
        for folder in &folders {
            self.make_folder(folder)?;
        }
        for file in manifest.files() {
            self.file(file)?;
        }
        // Folders as the store has them, and all of it on disk.
        for folder in &folders {
            disk::set_mode(folder, 0o555)?;
            disk::sync_folder(folder)?;
        }
        Ok(())
    }

    /// Puts one file right, unless it is.
    fn file(&self, file: &ManifestFile) -> io::Result<()> {
        let path = self.tree.join(file.path.as_str());
        if check_file(&path, file)?.is_none() || is_grown_data(&path, file).unwrap_or(false) {
            return Ok(());
        }
        // A file is replaced in one step; whatever runs from it keeps it open.
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            self.put_aside(&path)?;
        }
        let fresh = self.work.0.join(TREE).join(file.path.as_str());
        // Moving a file out of a folder needs the right to write there.
        if let Some(folder) = fresh.parent() {
            disk::set_mode(folder, 0o755)?;
        }
        fs::rename(fresh, path)
    }

    /// A folder that may be written to, until the end; never a link to one, which would lead out of
    /// the store.
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => {
                self.put_aside(path)?;
                fs::create_dir(path)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(path)?,
            Err(error) => return Err(error),
        }
        disk::set_mode(path, 0o755)
    }

    /// Out of the way; what is data is kept.
    fn put_aside(&self, path: &Path) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default();
        let to = match may_hold_data(path) {
            true => next_left(self.folder)?.join(name),
            false => self.work.fresh("aside"),
        };
        fs::rename(path, to)
    }
}
