//! Putting a snapshot back, without losing what it replaces.
//!
//! The order makes every crash harmless: first the state being replaced is kept, complete and on
//! disk; then each database is replaced, and doing that again gives the same result.

use super::copy::{IfDamaged, SIDE_FILES, beside, bytes_of, copy_file, remove_if_there};
use super::error::SnapshotError;
use super::record::{NewSnapshot, Part, Snapshot, SnapshotFile};
use super::store::{SnapshotStore, require_room};
use crate::adapters::disk;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

/// The file in the folder of what was kept that says the restore got to its end.
const FINISHED: &str = "restore-finished";
/// The label by which a restore that is done again knows what it kept.
const REPLACED_BY: &str = "replaced-by-restore-of";

impl SnapshotStore {
    /// Puts the databases back as the snapshot `id` holds them. The node must be stopped.
    ///
    /// Before anything changes, the present state is kept as the snapshot `keep_replaced_as`, bit
    /// by bit where it is damaged. After a crash, call it again with the same names: what was kept
    /// the first time stays. Once a restore is complete, its name for what was kept is used up as
    /// soon as the databases change. Returns what was kept.
    ///
    /// # Errors
    /// See [`SnapshotError`]. A damaged snapshot is refused before anything changes; an error after
    /// that leaves databases partly replaced, and calling again goes on.
    pub fn restore(
        &self,
        id: &str,
        keep_replaced_as: &str,
        now_wall_ms: i64,
    ) -> Result<Snapshot, SnapshotError> {
        let _guard = self.lock();
        let snapshot = self.verify(id)?;
        let databases: Vec<PathBuf> = snapshot
            .files
            .iter()
            .map(|file| file.source.clone())
            .collect();
        self.require_room_to_restore(&snapshot)?;
        let kept = self.keep_replaced(&databases, id, keep_replaced_as, now_wall_ms)?;
        if self.was_finished(keep_replaced_as) {
            // Whatever differs from the snapshot came after that restore, and was kept nowhere.
            if snapshot.files.iter().all(is_in_place) {
                return Ok(kept);
            }
            return Err(SnapshotError::Exists(keep_replaced_as.to_owned()));
        }
        for file in &snapshot.files {
            self.replace(id, file)?;
        }
        self.note_finished(keep_replaced_as)?;
        Ok(kept)
    }

    fn was_finished(&self, kept: &str) -> bool {
        self.folder(kept).join(FINISHED).exists()
    }

    fn note_finished(&self, kept: &str) -> Result<(), SnapshotError> {
        let folder = self.folder(kept);
        disk::write_new(&folder.join(FINISHED), b"")
            .and_then(|()| disk::sync_folder(&folder))
            .map_err(SnapshotError::io("write", &folder, 0))
    }

    fn keep_replaced(
        &self,
        databases: &[PathBuf],
        restored: &str,
        keep_as: &str,
        now_wall_ms: i64,
    ) -> Result<Snapshot, SnapshotError> {
        let new = NewSnapshot {
            id: keep_as.to_owned(),
            taken_at_ms: now_wall_ms,
            reason: format!("replaced by restoring snapshot {restored}"),
            labels: [(REPLACED_BY.to_owned(), restored.to_owned())].into(),
        };
        match self.create_locked(databases, &new, IfDamaged::KeepBits) {
            Err(SnapshotError::Exists(taken)) => {
                // Kept by a restore that did not get to its end; now the databases may be half
                // replaced, and are not worth keeping.
                let kept = self.verify(keep_as)?;
                if kept
                    .labels
                    .get(REPLACED_BY)
                    .is_some_and(|id| id == restored)
                {
                    Ok(kept)
                } else {
                    Err(SnapshotError::Exists(taken))
                }
            }
            other => other,
        }
    }

    /// Room for the copies beside the databases, and for what is kept, which may share a disk.
    fn require_room_to_restore(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let device = |path: &Path| fs::metadata(path).map(|folder| folder.dev()).ok();
        let kept: u64 = snapshot
            .files
            .iter()
            .map(|file| bytes_of(&file.source))
            .sum();
        let own = device(self.root());
        let mut needed_here = kept;
        for file in &snapshot.files {
            let Some(folder) = nearest_folder(&file.source) else {
                continue;
            };
            if device(folder) == own {
                needed_here += file.size();
            } else {
                require_room(folder, file.size())?;
            }
        }
        require_room(self.root(), needed_here)
    }

    fn replace(&self, id: &str, file: &SnapshotFile) -> Result<(), SnapshotError> {
        // SQLite keeps its side files beside the file that a link leads to.
        let target = fs::canonicalize(&file.source).unwrap_or_else(|_| file.source.clone());
        let Some(folder) = target.parent() else {
            return Ok(());
        };
        let write = |path| SnapshotError::io("write", path, file.size());
        if file.parts().is_empty() && !folder.exists() {
            return Ok(());
        }
        fs::create_dir_all(folder).map_err(write(folder))?;
        let mut ready = Vec::new();
        for part in file.parts() {
            let temporary = beside(&target, &format!("{}.restoring", part.suffix));
            let copied = self.copy_part(id, part, &temporary, &target);
            if copied.is_err() {
                // The first error is the one to tell.
                let _ = fs::remove_file(&temporary);
            }
            copied?;
            ready.push((temporary, beside(&target, &part.suffix)));
        }
        // A side file of the old database would be taken for one of the new.
        for path in SIDE_FILES.map(|suffix| beside(&target, suffix)) {
            remove_if_there(&path).map_err(SnapshotError::io("remove", &path, 0))?;
        }
        if ready.is_empty() {
            remove_if_there(&target).map_err(write(&target))?;
        }
        disk::sync_folder(folder).map_err(write(folder))?;
        for (temporary, place) in &ready {
            fs::rename(temporary, place).map_err(write(place))?;
        }
        disk::sync_folder(folder).map_err(write(folder))
    }

    /// Copies one kept file next to its place, with the owner and mode that the node needs.
    fn copy_part(
        &self,
        id: &str,
        part: &Part,
        to: &Path,
        target: &Path,
    ) -> Result<(), SnapshotError> {
        let from = self.folder(id).join(&part.name);
        let write = || SnapshotError::io("write", to, part.size);
        let copied = copy_file(&from, to).map_err(write())?;
        if copied != (part.size, part.digest) {
            let (id, file) = (id.to_owned(), part.name.clone());
            return Err(SnapshotError::Damaged {
                id,
                file,
                what: "changed while it was copied",
            });
        }
        // Without a database to learn from, its folder tells whose it is.
        let model =
            fs::metadata(target).or_else(|_| fs::metadata(target.parent().unwrap_or(target)));
        let model = model.map_err(write())?;
        let mode = if model.is_file() {
            model.mode() & 0o777
        } else {
            0o640
        };
        let now = fs::metadata(to).map_err(write())?;
        if (now.uid(), now.gid()) != (model.uid(), model.gid()) {
            chown(to, Some(model.uid()), Some(model.gid())).map_err(write())?;
        }
        disk::set_mode(to, mode).map_err(write())?;
        fs::File::open(to)
            .and_then(|file| file.sync_all())
            .map_err(write())
    }
}

/// True if the database is bit by bit what the snapshot holds.
fn is_in_place(file: &SnapshotFile) -> bool {
    let parts = file.parts();
    let same = |part: &Part| {
        let found = disk::hash_file(&beside(&file.source, &part.suffix));
        found.is_ok_and(|found| found == (part.size, part.digest))
    };
    let surplus = ["", "-wal", "-journal"]
        .into_iter()
        .filter(|suffix| !parts.iter().any(|part| part.suffix == *suffix))
        .any(|suffix| beside(&file.source, suffix).exists());
    parts.iter().all(same) && !surplus
}

fn nearest_folder(path: &Path) -> Option<&Path> {
    path.ancestors().skip(1).find(|folder| folder.is_dir())
}
