//! What lies in a build's folder beside what its manifest names: a node writes into the folder it runs
//! from.
//!
//! Databases among it are data, wherever they come from: nothing here moves or removes them. A file that
//! the manifest names, and that is now a database with other content, is data as well.

use super::error::BuildError;
use super::store::BuildStore;
use crate::adapters::databases::is_database;
use crate::adapters::disk;
use cbddc_domain::build::{BuildRef, Digest};
use cbddc_domain::manifest::ManifestFile;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

/// How many files, folders or databases are told by name.
pub const NAMES_TOLD_MAX: usize = 20;

/// How many files beside those of the manifest are looked at, so that a look ends: more than any node is
/// known to write.
const LOOKED_AT_MAX: u64 = 20_000;

/// How many names one folder may have, so that a look takes bounded memory: several times what the
/// largest build has.
const NAMES_MAX: usize = 200_000;

/// What a build's folder has grown.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grown {
    /// How many files the manifest does not name.
    pub files: u64,
    /// What they take, in bytes.
    pub bytes: u64,
    /// The first of them by name, a folder as one; at most 20.
    pub names: Vec<String>,
    /// The databases, within the folder; at most 20.
    pub databases: Vec<String>,
    /// There was more than is looked at: the rest may hold databases, too.
    pub more: bool,
}

impl Grown {
    /// Whether there is, or may be, data that must not be lost.
    pub fn holds_data(&self) -> bool {
        self.more || !self.databases.is_empty()
    }
}

/// One thing that the manifest does not name, a folder as one.
pub(super) struct Entry {
    /// Within the tree.
    pub(super) path: PathBuf,
    /// It is a database, belongs to one, holds one, or could not be looked through.
    pub(super) is_data: bool,
}

/// All of it.
#[derive(Default)]
pub(super) struct Look {
    pub(super) entries: Vec<Entry>,
    grown: Grown,
    databases: BTreeSet<String>,
}

impl BuildStore {
    /// What lies in the build's folder and is not named in its manifest, and which of it is data.
    ///
    /// # Errors
    /// The build is not here, or its folder cannot be read.
    pub fn grown(&self, build: &BuildRef) -> Result<Grown, BuildError> {
        let (stored, tree) = (self.require(build)?, self.tree(build));
        let look =
            look(&tree, stored.manifest.files()).map_err(BuildError::io("read", &tree, 0))?;
        let grown = look.told();
        self.looks().insert(build.digest, grown.clone());
        Ok(grown)
    }

    /// What the newest look into the build's folder has found; nothing: there was none since the agent
    /// began. Reads no disk.
    pub fn remembered(&self, build: &BuildRef) -> Option<Grown> {
        self.looks().get(&build.digest).cloned()
    }

    pub(super) fn forget_look(&self, build: &BuildRef) {
        self.looks().remove(&build.digest);
    }

    fn looks(&self) -> MutexGuard<'_, BTreeMap<Digest, Grown>> {
        // A poisoned lock still holds whole values: they are only ever replaced.
        self.0.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a named file was made, or was replaced by, a database with other content.
pub(super) fn is_grown_data(path: &Path, file: &ManifestFile) -> io::Result<bool> {
    Ok(is_database(path)? && disk::hash_file(path)? != (file.size, file.digest))
}

/// Whether a file or folder is or may hold data; a link is none, whatever it leads to.
pub(super) fn may_hold_data(path: &Path) -> bool {
    let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
    !is_link && Look::default().take(Path::new("/"), path)
}

/// Looks through a tree for what these files are not. What vanishes meanwhile is not there.
pub(super) fn look(tree: &Path, named: &[ManifestFile]) -> io::Result<Look> {
    let files: HashMap<&str, &ManifestFile> = named
        .iter()
        .map(|file| (file.path.as_str(), file))
        .collect();
    let parents: HashSet<&str> = named.iter().flat_map(|file| file.path.folders()).collect();
    let mut look = Look::default();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let mut beside = Beside::default();
        for name in names_in(&tree.join(&folder))? {
            let path = folder.join(&name);
            let full = tree.join(&path);
            let Ok(found) = fs::symlink_metadata(&full) else {
                continue;
            };
            let named = path.to_str();
            if found.is_dir() && named.is_some_and(|path| parents.contains(path)) {
                folders.push(path);
            } else if let Some(file) = named.and_then(|path| files.get(path)) {
                if is_database(&full).unwrap_or(false) {
                    beside.databases.push(path.clone());
                    if is_grown_data(&full, file).unwrap_or(true) {
                        look.found_database(&path);
                    }
                }
            } else {
                let is_data = look.take(tree, &path);
                if is_data && found.is_file() {
                    beside.databases.push(path.clone());
                }
                beside.entries.insert(path, is_data);
            }
        }
        look.entries.extend(beside.settled());
    }
    look.entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(look)
}

/// What lies in one folder.
#[derive(Default)]
struct Beside {
    databases: Vec<PathBuf>,
    entries: BTreeMap<PathBuf, bool>,
}

impl Beside {
    /// Files that bear a database's name with another ending belong to it: logs, locks, metadata.
    fn settled(self) -> impl Iterator<Item = Entry> {
        let stem = |path: &PathBuf| {
            path.file_stem()
                .map(|stem| stem.as_encoded_bytes().to_owned())
        };
        let stems: Vec<Vec<u8>> = self.databases.iter().filter_map(stem).collect();
        let belongs = move |path: &Path| {
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            stems.iter().any(|stem| name.starts_with(stem))
        };
        self.entries.into_iter().map(move |(path, is_data)| Entry {
            is_data: is_data || belongs(&path),
            path,
        })
    }
}

impl Look {
    /// Counts a thing that is not named, and tells whether it is or holds data. Where it is a link, what
    /// it leads to is looked at; links below it are not followed.
    fn take(&mut self, tree: &Path, path: &Path) -> bool {
        let mut is_data = false;
        let given = tree.join(path);
        let real = fs::canonicalize(&given).unwrap_or(given);
        let mut below = vec![(path.to_owned(), real)];
        while let Some((path, real)) = below.pop() {
            if self.grown.files >= LOOKED_AT_MAX {
                self.grown.more = true;
                return true;
            }
            let Ok(found) = fs::symlink_metadata(&real) else {
                continue;
            };
            if found.is_dir() {
                match names_in(&real) {
                    Ok(names) => below.extend(
                        names
                            .into_iter()
                            .map(|name| (path.join(&name), real.join(&name))),
                    ),
                    // Nobody knows what is in there.
                    Err(_) => {
                        self.grown.more = true;
                        is_data = true;
                    }
                }
                continue;
            }
            self.grown.files += 1;
            self.grown.bytes = self.grown.bytes.saturating_add(found.len());
            if is_database(&real).unwrap_or(true) {
                self.found_database(&path);
                is_data = true;
            }
        }
        is_data
    }

    fn found_database(&mut self, path: &Path) {
        self.databases.insert(path.to_string_lossy().into_owned());
        if self.databases.len() > NAMES_TOLD_MAX {
            self.databases.pop_last();
        }
    }

    /// What of it is told.
    pub(super) fn told(self) -> Grown {
        let names = self.entries.iter().take(NAMES_TOLD_MAX);
        Grown {
            names: names
                .map(|entry| entry.path.to_string_lossy().into_owned())
                .collect(),
            databases: self.databases.into_iter().collect(),
            ..self.grown
        }
    }
}

/// The names in a folder.
fn names_in(folder: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        if names.len() >= NAMES_MAX {
            return Err(io::Error::other("there are too many files in the folder"));
        }
        names.push(entry?.file_name());
    }
    Ok(names)
}
