//! What is in the store, whether it is intact, and which build is the current one.

use super::error::BuildError;
use super::extract::{OpenBundle, parse_manifest};
use super::grown::Grown;
use super::upload::{Imported, Upload};
use crate::adapters::disk;
use cbddc_domain::build::{BuildId, BuildRef, Digest};
use cbddc_domain::manifest::{Limits, Manifest, ManifestFile};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) const BUNDLE: &str = "bundle.tar.zst";
pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const TREE: &str = "tree";
pub(super) const BUILDS: &str = "builds";
pub(super) const INCOMING: &str = "incoming";

/// The builds on this host. Clones share one store.
#[derive(Debug, Clone)]
pub struct BuildStore(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    root: PathBuf,
    limits: Limits,
    /// Held while `builds` or `current` change.
    changes: Mutex<()>,
    /// Names the folders of work in progress.
    works: AtomicU64,
    /// What the newest looks into the folders of builds have found; one for each stored build.
    pub(super) looks: Mutex<BTreeMap<Digest, Grown>>,
}

/// A build in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBuild {
    /// Its name and digest.
    pub build: BuildRef,
    /// Its files.
    pub manifest: Manifest,
    /// The size of the kept bundle in bytes; zero if it is missing.
    pub bundle_bytes: u64,
}

impl BuildStore {
    /// Opens the store in the folder `root`, which is created, and clears what a crash left there.
    ///
    /// # Errors
    /// [`BuildError::Io`] if the folders cannot be made or cleared.
    pub fn open(root: &Path, limits: Limits) -> Result<Self, BuildError> {
        let inner = Inner {
            root: root.to_owned(),
            limits,
            changes: Mutex::new(()),
            works: AtomicU64::new(0),
            looks: Mutex::default(),
        };
        let store = Self(Arc::new(inner));
        for folder in [store.builds(), store.incoming()] {
            fs::create_dir_all(&folder).map_err(BuildError::io("create", &folder, 0))?;
        }
        // The node's user reads its program here; nothing in a build is secret.
        for folder in [root, &store.builds()] {
            disk::set_mode(folder, 0o755).map_err(BuildError::io("create", folder, 0))?;
        }
        let incoming = store.incoming();
        disk::empty_folder(&incoming).map_err(BuildError::io("clear", &incoming, 0))?;
        disk::sync_folder(root).map_err(BuildError::io("write", root, 0))?;
        Ok(store)
    }

    /// Begins to receive a bundle.
    ///
    /// # Errors
    /// [`BuildError::Io`] or [`BuildError::NoSpace`].
    pub fn begin_upload(&self) -> Result<Upload, BuildError> {
        Upload::begin(self.clone())
    }

    /// Makes a build of a folder of this host, as it is.
    ///
    /// # Errors
    /// See [`BuildError`]; the store is as it was before.
    pub fn import_folder(&self, folder: &Path, build: BuildId) -> Result<Imported, BuildError> {
        let mut upload = self.begin_upload()?;
        upload.pack(folder, build)?;
        upload.finish(None)
    }

    /// All builds, ordered by name and version. One whose manifest cannot be read is left out, with a warning
    /// in the log; importing it again repairs it.
    ///
    /// # Errors
    /// [`BuildError::Io`] if the store's folder cannot be read.
    pub fn list(&self) -> Result<Vec<StoredBuild>, BuildError> {
        let folder = self.builds();
        let error = || BuildError::io("read", &folder, 0);
        let mut builds = Vec::new();
        for entry in fs::read_dir(&folder).map_err(error())? {
            let name = entry.map_err(error())?.file_name();
            let Some(digest) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            match self.get(&digest) {
                Ok(build) => builds.extend(build),
                Err(error) => tracing::warn!(%digest, %error, "a stored build cannot be read"),
            }
        }
        builds.sort_by(|a, b| a.build.cmp(&b.build));
        Ok(builds)
    }

    /// The build with this digest, if it is here.
    ///
    /// # Errors
    /// The manifest is there but cannot be read, or is not the one with this digest.
    pub fn get(&self, digest: &Digest) -> Result<Option<StoredBuild>, BuildError> {
        let folder = self.folder(digest);
        let path = folder.join(MANIFEST);
        let mut bytes = Vec::new();
        // One byte more than allowed shows a manifest that is too large.
        let most = self.limits().manifest_bytes.saturating_add(1);
        match File::open(&path).and_then(|file| file.take(most).read_to_end(&mut bytes)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.exists() => {
                return Ok(None);
            }
            other => other.map_err(BuildError::io("read", &path, 0))?,
        };
        let damaged = |source| BuildError::StoredManifest {
            digest: *digest,
            source,
        };
        let manifest = parse_manifest(&bytes, self.limits())
            .map_err(|error| damaged(Some(Box::new(error))))?;
        let build = manifest.build_ref();
        if build.digest != *digest {
            return Err(damaged(None));
        }
        let bundle_bytes = fs::metadata(folder.join(BUNDLE)).map_or(0, |bundle| bundle.len());
        Ok(Some(StoredBuild {
            build,
            manifest,
            bundle_bytes,
        }))
    }

    /// The build with this name and version, if it is here.
    ///
    /// # Errors
    /// As [`BuildStore::list`].
    pub fn find(&self, id: &BuildId) -> Result<Option<StoredBuild>, BuildError> {
        Ok(self
            .list()?
            .into_iter()
            .find(|stored| stored.build.id == *id))
    }

    /// The kept bundle of a build, and its size in bytes.
    ///
    /// # Errors
    /// [`BuildError::NotFound`], or [`BuildError::Io`] if the bundle is missing.
    pub fn bundle_file(&self, build: &BuildRef) -> Result<(PathBuf, u64), BuildError> {
        self.require(build)?;
        let path = self.folder(&build.digest).join(BUNDLE);
        let size = fs::metadata(&path)
            .map_err(BuildError::io("read", &path, 0))?
            .len();
        Ok((path, size))
    }

    /// Removes a build, where `is_needed` says no while nothing else changes in the store.
    ///
    /// # Errors
    /// [`BuildError::InUse`] if it is needed or `current` points to it, [`BuildError::HoldsData`] if
    /// databases lie in its folder, [`BuildError::NotFound`].
    pub fn remove(
        &self,
        build: &BuildRef,
        is_needed: impl FnOnce() -> bool,
    ) -> Result<(), BuildError> {
        let folder = self.folder(&build.digest);
        let write = || BuildError::io("remove", &folder, 0);
        let work = self.begin_work()?;
        let _guard = self.lock();
        if self.current()? == Some(build.digest) || is_needed() {
            return Err(BuildError::InUse(build.clone()));
        }
        if !folder.exists() {
            return Err(self.not_found(build));
        }
        let data = self.data_of(build)?;
        if data.holds_data() {
            return Err(BuildError::holds_data(build, data));
        }
        fs::rename(&folder, work.0.join("removed")).map_err(write())?;
        self.forget_look(build);
        disk::sync_folder(&self.builds()).map_err(write())
    }

    /// The folder with the files of a build.
    pub fn tree(&self, build: &BuildRef) -> PathBuf {
        self.folder(&build.digest).join(TREE)
    }

    /// Whether the store can be written to at all, as a switch must.
    ///
    /// # Errors
    /// [`BuildError::Io`] if not.
    pub fn check_writable(&self) -> Result<(), BuildError> {
        self.begin_work().map(drop)
    }

    /// The bytes that may still be written to the store's file system.
    ///
    /// # Errors
    /// [`BuildError::Io`].
    pub fn free_bytes(&self) -> Result<u64, BuildError> {
        disk::free_bytes(self.root()).map_err(BuildError::io("read", self.root(), 0))
    }

    /// The bounds on what is imported.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Checks the bundle in `file` and writes its files and manifest into `work`.
    pub(super) fn unpack(
        &self,
        file: File,
        work: &Work,
        expected: Option<&BuildRef>,
    ) -> Result<Manifest, BuildError> {
        let bundle = OpenBundle::read(file, self.limits())?;
        if let Some(expected) = expected.filter(|expected| **expected != bundle.build) {
            let (expected, found) = (Box::new(expected.clone()), Box::new(bundle.build));
            return Err(BuildError::WrongBuild { expected, found });
        }
        self.check_name(&bundle.build)?;
        self.check_room(&bundle)?;
        let (_, manifest) = bundle.extract(&work.0.join(TREE))?;
        let path = work.0.join(MANIFEST);
        let bytes = manifest.canonical_bytes();
        let written = disk::write_new(&path, &bytes).and_then(|()| disk::set_mode(&path, 0o444));
        written.map_err(BuildError::io("write", &path, bytes.len() as u64))?;
        Ok(manifest)
    }

    /// Moves the checked build in `work` to its place; true if it was there already, intact.
    pub(super) fn install(&self, work: &Work, manifest: &Manifest) -> Result<bool, BuildError> {
        let build = &manifest.build_ref();
        let _guard = self.lock();
        self.check_name(build)?;
        let (folder, new) = (self.folder(&build.digest), &work.0);
        let write = || BuildError::io("write", &folder, 0);
        if folder.exists() {
            match self.verify(build) {
                Ok(_) => {
                    // The bundle that was just checked is known to be good; the kept one is not.
                    fs::rename(new.join(BUNDLE), folder.join(BUNDLE)).map_err(write())?;
                    disk::sync_folder(&folder).map_err(write())?;
                    return Ok(true);
                }
                Err(error) => tracing::warn!(%build, %error, "a damaged build is put right"),
            }
            fs::rename(new.join(BUNDLE), folder.join(BUNDLE)).map_err(write())?;
            return self.mend(work, manifest).map(|()| false);
        }
        disk::set_mode(&new.join(TREE), 0o555).map_err(write())?;
        disk::set_mode(new, 0o755)
            .and_then(|()| disk::sync_folder(new))
            .map_err(write())?;
        fs::rename(new, &folder).map_err(write())?;
        disk::sync_folder(&self.builds()).map_err(write())?;
        Ok(false)
    }

    /// A fresh folder for work in progress.
    pub(super) fn begin_work(&self) -> Result<Work, BuildError> {
        let number = self.0.works.fetch_add(1, Ordering::Relaxed);
        let path = self.incoming().join(number.to_string());
        fs::create_dir(&path).map_err(BuildError::io("create", &path, 0))?;
        let work = Work(path);
        disk::set_mode(&work.0, 0o700).map_err(BuildError::io("create", &work.0, 0))?;
        Ok(work)
    }

    fn check_name(&self, build: &BuildRef) -> Result<(), BuildError> {
        match self.find(&build.id)? {
            Some(other) if other.build.digest != build.digest => Err(BuildError::NameTaken {
                id: build.id.clone(),
                present: other.build.digest,
                offered: build.digest,
            }),
            Some(_) | None => Ok(()),
        }
    }

    fn check_room(&self, bundle: &OpenBundle) -> Result<(), BuildError> {
        let files = bundle.manifest.files();
        let place = self.tree(&bundle.build).as_os_str().len() + 1;
        let fits = |file: &&ManifestFile| place + file.path.as_str().len() < 4096;
        if let Some(file) = files.iter().find(|file| !fits(file)) {
            return Err(BuildError::PathTooLong(file.path.clone()));
        }
        // Each file ends in a block that is on average half empty.
        let needed = bundle.manifest.total_size() + 2048 * files.len() as u64;
        let free = self.free_bytes()?;
        if free < needed {
            return Err(BuildError::NoSpace {
                free,
                needed,
                path: self.root().to_owned(),
            });
        }
        Ok(())
    }

    pub(super) fn require(&self, build: &BuildRef) -> Result<StoredBuild, BuildError> {
        let stored = self
            .get(&build.digest)?
            .filter(|stored| stored.build == *build);
        stored.ok_or_else(|| self.not_found(build))
    }

    pub(super) fn not_found(&self, build: &BuildRef) -> BuildError {
        BuildError::NotFound {
            id: build.id.clone(),
            digest: build.digest,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        // The lock guards no data in memory: after a panic the disk is as good as after a crash.
        self.0
            .changes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn root(&self) -> &Path {
        &self.0.root
    }

    fn builds(&self) -> PathBuf {
        self.root().join(BUILDS)
    }

    fn incoming(&self) -> PathBuf {
        self.root().join(INCOMING)
    }

    pub(super) fn folder(&self, digest: &Digest) -> PathBuf {
        self.builds().join(digest.to_string())
    }
}

/// A folder for work in progress, removed with everything in it when dropped.
#[derive(Debug)]
pub(super) struct Work(pub(super) PathBuf);

impl Work {
    /// A name in it that nothing has.
    pub(super) fn fresh(&self, name: &str) -> PathBuf {
        let mut names = (1..).map(|number| self.0.join(format!("{name}-{number}")));
        // There is always one more.
        let free = names.find(|path| fs::symlink_metadata(path).is_err());
        free.unwrap_or_default()
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if let Err(error) = disk::remove_tree(&self.0) {
            let path = self.0.display();
            tracing::warn!(%path, %error, "cannot remove unfinished work; the next start will");
        }
    }
}
