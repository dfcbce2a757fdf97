//! An activation begins with the files of its build, and with nothing that an earlier run of it left
//! there but data.
//!
//! ```text
//! root/builds/<digest>/left/<number>/…   what lay in the tree beside its build, by activation
//! ```
//!
//! Named files are compared with the manifest before each start, so that a tree of its own for each
//! activation would add only this: that nothing else is in it. Moving that out takes as many renames as
//! there are such files, no room on the disk, and after a power cut the rest is moved by the next try. It is
//! moved, not deleted: nobody knows what it was to the node. Databases stay where they are, as the way back
//! to a build is the way back to its data.

use super::error::BuildError;
use super::grown::{Grown, look};
use super::store::{BuildStore, Work};
use crate::adapters::disk;
use cbddc_domain::build::BuildRef;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const LEFT: &str = "left";

/// How many activations' leftovers of one build stay, the newest.
const LEFT_KEPT: usize = 3;

/// What was cleared out of a build's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleared {
    /// What had lain there; its databases still do.
    pub grown: Grown,
    /// Where the rest is now; unset: there was nothing else.
    pub moved_to: Option<PathBuf>,
}

impl BuildStore {
    /// Moves out of the build's folder what the manifest does not name, except for data. Nothing may run
    /// from there. Again, it changes nothing.
    ///
    /// # Errors
    /// What could not be moved is still there; the rest is moved.
    pub fn clear(&self, build: &BuildRef) -> Result<Cleared, BuildError> {
        let stored = self.require(build)?;
        let (tree, left) = (self.tree(build), self.left(build));
        let _guard = self.lock();
        let found = look(&tree, stored.manifest.files());
        let found = found.map_err(BuildError::io("read", &tree, 0))?;
        let moving = found.entries.iter().filter(|entry| !entry.is_data);
        let moving: Vec<PathBuf> = moving.map(|entry| entry.path.clone()).collect();
        let mut moved_to = None;
        if !moving.is_empty() {
            let to = next_left(&self.folder(&build.digest));
            let to = to.map_err(BuildError::io("create", &left, 0))?;
            move_out(&tree, &to, &moving).map_err(BuildError::io("clear", &tree, 0))?;
            disk::sync_folder(&left).map_err(BuildError::io("write", &left, 0))?;
            moved_to = Some(to);
            self.forget_left(build)?;
        }
        let grown = found.told();
        Ok(Cleared { grown, moved_to })
    }

    /// Why this build cannot be removed without taking data with it. [`None`]: it can.
    ///
    /// # Errors
    /// [`BuildError::Io`].
    pub fn refuse_data(&self, build: &BuildRef) -> Result<Option<String>, BuildError> {
        let data = self.data_of(build)?;
        let refused = data
            .holds_data()
            .then(|| BuildError::holds_data(build, data));
        Ok(refused.map(|error| error.to_string()))
    }

    /// The databases that keep this build from being removed.
    pub(super) fn data_of(&self, build: &BuildRef) -> Result<Grown, BuildError> {
        let (tree, left) = (self.tree(build), self.left(build));
        let stored = self.get(&build.digest).ok().flatten();
        let files = stored.map(|stored| stored.manifest.files().to_vec());
        let mut all = Grown::default();
        // Without its manifest every database is one that it has grown.
        for (folder, files) in [(tree, files.unwrap_or_default()), (left, Vec::new())] {
            if !folder.is_dir() {
                continue;
            }
            let found = look(&folder, &files).map_err(BuildError::io("read", &folder, 0))?;
            let found = found.told();
            let full = |path: &String| folder.join(path).display().to_string();
            all.databases.extend(found.databases.iter().map(full));
            all.more |= found.more;
        }
        Ok(all)
    }

    /// Removes the oldest leftovers, except for those with data.
    fn forget_left(&self, build: &BuildRef) -> Result<(), BuildError> {
        let left = self.left(build);
        let numbers: Vec<u64> = numbers_in(&left).into_iter().collect();
        let surplus = numbers.len().saturating_sub(LEFT_KEPT);
        for number in &numbers[..surplus] {
            let old = left.join(number.to_string());
            let holds_data = look(&old, &[]).map_or(true, |found| found.told().holds_data());
            if holds_data {
                continue;
            }
            let work = self.begin_work()?;
            fs::rename(&old, work.0.join("left")).map_err(BuildError::io("remove", &old, 0))?;
            remove_meanwhile(work);
        }
        Ok(())
    }

    fn left(&self, build: &BuildRef) -> PathBuf {
        self.folder(&build.digest).join(LEFT)
    }
}

/// A fresh folder for what is moved out of the tree in a build's folder.
pub(super) fn next_left(folder: &Path) -> io::Result<PathBuf> {
    let left = folder.join(LEFT);
    let number = numbers_in(&left).last().map_or(1, |last| last + 1);
    let to = left.join(number.to_string());
    fs::create_dir_all(&to)?;
    // The node may have kept secrets there.
    disk::set_mode(&left, 0o700)?;
    disk::sync_folder(folder)?;
    Ok(to)
}

/// The node is down while its build's folder is cleared: large leftovers must not prolong that.
fn remove_meanwhile(work: Work) {
    std::thread::spawn(move || drop(work));
}

fn numbers_in(left: &Path) -> BTreeSet<u64> {
    let entries = fs::read_dir(left).into_iter().flatten().flatten();
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    entries.filter_map(number).collect()
}

/// Moves these paths from one folder to another. Goes on after a failure, which it returns.
fn move_out(from: &Path, to: &Path, paths: &[PathBuf]) -> io::Result<()> {
    let folders: BTreeSet<&Path> = paths.iter().filter_map(|path| path.parent()).collect();
    let mut failed = None;
    for folder in &folders {
        // The store's folders are read-only.
        let opened = disk::set_mode(&from.join(folder), 0o755);
        failed = failed.or(opened
            .and_then(|()| fs::create_dir_all(to.join(folder)))
            .err());
    }
    for path in paths {
        let moved = fs::rename(from.join(path), to.join(path));
        failed = failed.or(moved.err());
    }
    for folder in &folders {
        let closed = disk::sync_folder(&to.join(folder))
            .and_then(|()| disk::set_mode(&from.join(folder), 0o555))
            .and_then(|()| disk::sync_folder(&from.join(folder)));
        failed = failed.or(closed.err());
    }
    failed.map_or_else(|| disk::sync_folder(to), Err)
}
