//! Taking, finding, verifying and removing snapshots.

use super::copy::{IfDamaged, bytes_of, copy_database, integrity_check, not_utf8};
use super::error::SnapshotError;
use super::record::{FileState, NewSnapshot, Snapshot, SnapshotFile, check_id};
use crate::adapters::disk;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

const RECORD: &str = "snapshot.json";
const WORK: &str = ".work";
/// The largest record that is read: 32 labels of 2000 bytes, and many databases.
const RECORD_BYTES: u64 = 1 << 20;

/// The snapshots of this host's node.
#[derive(Debug)]
pub struct SnapshotStore {
    root: PathBuf,
    /// Held while a snapshot is taken, restored or removed: they share the work folder.
    changes: Mutex<()>,
}

impl SnapshotStore {
    /// Opens the store in the folder `root`, which is created, and clears what a crash left there.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] if the folders cannot be made or cleared.
    pub fn open(root: &Path) -> Result<Self, SnapshotError> {
        let store = Self {
            root: root.to_owned(),
            changes: Mutex::new(()),
        };
        let work = store.work();
        fs::create_dir_all(&work).map_err(SnapshotError::io("create", &work, 0))?;
        // Databases are the node's private data.
        disk::set_mode(root, 0o700).map_err(SnapshotError::io("create", root, 0))?;
        disk::empty_folder(&work).map_err(SnapshotError::io("clear", &work, 0))?;
        disk::sync_folder(root).map_err(SnapshotError::io("write", root, 0))?;
        Ok(store)
    }

    /// Takes a snapshot of `databases`, whether the node runs or not. A database that does not
    /// exist is recorded as absent.
    ///
    /// # Errors
    /// See [`SnapshotError`]; a damaged database is one. Then there is no snapshot.
    pub fn create(
        &self,
        databases: &[PathBuf],
        new: &NewSnapshot,
    ) -> Result<Snapshot, SnapshotError> {
        let _guard = self.lock();
        self.create_locked(databases, new, IfDamaged::Refuse)
    }

    /// A snapshot of a node without data: to restore it removes these files, which are kept as always.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn create_empty(
        &self,
        files: &[PathBuf],
        new: &NewSnapshot,
    ) -> Result<Snapshot, SnapshotError> {
        let _guard = self.lock();
        self.create_locked(files, new, IfDamaged::TakeNothing)
    }

    /// Where the copy of a database lies; unset: there is none, or it is damaged.
    pub fn copy_of(&self, id: &str, file: &SnapshotFile) -> Option<PathBuf> {
        match &file.state {
            FileState::Copied { copy, .. } => Some(self.folder(id).join(&copy.name)),
            FileState::Absent | FileState::Damaged { .. } => None,
        }
    }

    /// All snapshots, oldest first. One whose record cannot be read is left out, with a warning in
    /// the log.
    ///
    /// # Errors
    /// [`SnapshotError::Io`] if the store's folder cannot be read.
    pub fn list(&self) -> Result<Vec<Snapshot>, SnapshotError> {
        let error = || SnapshotError::io("read", &self.root, 0);
        let mut snapshots = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(error())? {
            let name = entry.map_err(error())?.file_name();
            let Some(id) = name.to_str().filter(|id| check_id(id).is_ok()) else {
                continue;
            };
            match self.get(id) {
                Ok(snapshot) => snapshots.push(snapshot),
                Err(error) => tracing::warn!(id, %error, "a snapshot cannot be read"),
            }
        }
        snapshots.sort_by(|a, b| (a.taken_at_ms, &a.id).cmp(&(b.taken_at_ms, &b.id)));
        Ok(snapshots)
    }

    /// The record of one snapshot.
    ///
    /// # Errors
    /// [`SnapshotError::NotFound`], [`SnapshotError::Record`].
    pub fn get(&self, id: &str) -> Result<Snapshot, SnapshotError> {
        check_id(id)?;
        let path = self.folder(id).join(RECORD);
        let mut bytes = Vec::new();
        let read =
            File::open(&path).and_then(|file| file.take(RECORD_BYTES).read_to_end(&mut bytes));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SnapshotError::NotFound(id.to_owned()));
            }
            other => other.map_err(SnapshotError::io("read", &path, 0))?,
        };
        let snapshot: Snapshot =
            serde_json::from_slice(&bytes).map_err(|source| SnapshotError::Record {
                id: id.to_owned(),
                source,
            })?;
        // Names are joined to the snapshot's folder, and must not leave it.
        let mut parts = snapshot.files.iter().flat_map(SnapshotFile::parts);
        if snapshot.id != id || !parts.all(|part| check_id(&part.name).is_ok()) {
            let (file, what) = (RECORD.to_owned(), "does not belong to it");
            return Err(SnapshotError::Damaged {
                id: id.to_owned(),
                file,
                what,
            });
        }
        Ok(snapshot)
    }

    /// Reads every copy again: size, digest and, for sound databases, `PRAGMA integrity_check`.
    ///
    /// # Errors
    /// [`SnapshotError::Damaged`], [`SnapshotError::Integrity`].
    pub fn verify(&self, id: &str) -> Result<Snapshot, SnapshotError> {
        let snapshot = self.get(id)?;
        for part in snapshot.files.iter().flat_map(SnapshotFile::parts) {
            let path = self.folder(id).join(&part.name);
            let what = match disk::hash_file(&path) {
                Ok(found) if found == (part.size, part.digest) => continue,
                Ok(_) => "has other content than when it was taken",
                Err(error) if error.kind() == io::ErrorKind::NotFound => "is missing",
                Err(error) => return Err(SnapshotError::io("read", &path, 0)(error)),
            };
            let (id, file) = (id.to_owned(), part.name.clone());
            return Err(SnapshotError::Damaged { id, file, what });
        }
        for file in &snapshot.files {
            if let FileState::Copied { copy, .. } = &file.state {
                let path = self.folder(id).join(&copy.name);
                integrity_check(&path, &path)?;
            }
        }
        Ok(snapshot)
    }

    /// Removes a snapshot.
    ///
    /// # Errors
    /// [`SnapshotError::NotFound`], [`SnapshotError::Io`].
    pub fn remove(&self, id: &str) -> Result<(), SnapshotError> {
        check_id(id)?;
        let _guard = self.lock();
        let (folder, aside) = (self.folder(id), self.work().join("removed"));
        if !folder.exists() {
            return Err(SnapshotError::NotFound(id.to_owned()));
        }
        let error = || SnapshotError::io("remove", &folder, 0);
        disk::remove_tree(&aside).map_err(error())?;
        fs::rename(&folder, &aside).map_err(error())?;
        disk::sync_folder(&self.root).map_err(error())?;
        disk::remove_tree(&aside).map_err(error())
    }

    /// Takes a snapshot while the caller holds the lock.
    pub(super) fn create_locked(
        &self,
        databases: &[PathBuf],
        new: &NewSnapshot,
        if_damaged: IfDamaged,
    ) -> Result<Snapshot, SnapshotError> {
        new.check()?;
        if let Some(path) = databases.iter().find(|path| path.to_str().is_none()) {
            return Err(not_utf8(path));
        }
        if self.folder(&new.id).exists() {
            return Err(SnapshotError::Exists(new.id.clone()));
        }
        let needed = databases.iter().map(|database| bytes_of(database)).sum();
        require_room(&self.root, needed)?;
        let work = self.work().join("taking");
        let taken = self.take(databases, new, if_damaged, &work, needed);
        if taken.is_err() {
            // The first error is the one to tell; the next start clears the rest.
            let _ = disk::remove_tree(&work);
        }
        taken
    }

    fn take(
        &self,
        databases: &[PathBuf],
        new: &NewSnapshot,
        if_damaged: IfDamaged,
        work: &Path,
        needed: u64,
    ) -> Result<Snapshot, SnapshotError> {
        let write = || SnapshotError::io("write", work, needed);
        disk::remove_tree(work)
            .and_then(|()| fs::create_dir(work))
            .map_err(write())?;
        let mut files = Vec::new();
        for (number, source) in databases.iter().enumerate() {
            let state = copy_database(source, work, number, if_damaged)?;
            files.push(SnapshotFile {
                source: source.clone(),
                state,
            });
        }
        let NewSnapshot {
            id,
            taken_at_ms,
            reason,
            labels,
        } = new.clone();
        let snapshot = Snapshot {
            id,
            taken_at_ms,
            reason,
            labels,
            files,
        };
        let record =
            serde_json::to_vec_pretty(&snapshot).map_err(|source| SnapshotError::Record {
                id: new.id.clone(),
                source,
            })?;
        disk::write_new(&work.join(RECORD), &record).map_err(write())?;
        disk::sync_folder(work).map_err(write())?;
        fs::rename(work, self.folder(&new.id)).map_err(write())?;
        disk::sync_folder(&self.root).map_err(write())?;
        Ok(snapshot)
    }

    /// The folder of a snapshot whose id was checked.
    pub(super) fn folder(&self, id: &str) -> PathBuf {
        self.root.join(id)
    }

    /// The folder of the store.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        // The lock guards no data in memory: after a panic the disk is as good as after a crash.
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) -> PathBuf {
        self.root.join(WORK)
    }
}

/// Refuses to begin what would fill the file system of `folder`.
pub(super) fn require_room(folder: &Path, needed: u64) -> Result<(), SnapshotError> {
    let free = disk::free_bytes(folder).map_err(SnapshotError::io("read", folder, 0))?;
    if free < needed {
        return Err(SnapshotError::NoSpace {
            free,
            needed,
            path: folder.to_owned(),
        });
    }
    Ok(())
}
