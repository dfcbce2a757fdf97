//! Receiving a bundle: its bytes first go to disk, bounded, and are checked when all are there.

use super::error::BuildError;
use super::store::{BUNDLE, BuildStore, Work};
use crate::adapters::disk;
use cbddc_domain::build::{BuildId, BuildRef};
use cbddc_domain::manifest::Manifest;
use cbddc_pack::PackOptions;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A bundle on its way in. Dropping it removes what has arrived.
#[derive(Debug)]
pub struct Upload {
    store: BuildStore,
    work: Work,
    path: PathBuf,
    file: File,
    received: u64,
}

/// A build that an upload brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Its name and digest.
    pub build: BuildRef,
    /// Its files.
    pub manifest: Manifest,
    /// Whether it was in the store before, intact.
    pub already_present: bool,
}

impl Upload {
    pub(super) fn begin(store: BuildStore) -> Result<Self, BuildError> {
        let work = store.begin_work()?;
        let path = work.0.join(BUNDLE);
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = file.map_err(BuildError::io("create", &path, 0))?;
        Ok(Self {
            store,
            work,
            path,
            file,
            received: 0,
        })
    }

    /// Packs a folder of this host, in the place of bytes from elsewhere.
    ///
    /// # Errors
    /// [`BuildError::Pack`]; after one, drop the upload.
    pub(super) fn pack(&mut self, folder: &Path, build: BuildId) -> Result<(), BuildError> {
        let options = PackOptions {
            // Read once, here: time is worth more than space.
            level: 1,
            limits: *self.store.limits(),
            ..PackOptions::default()
        };
        cbddc_pack::pack(folder, build, &options, &self.path).map_err(BuildError::Pack)?;
        self.file = File::open(&self.path).map_err(BuildError::io("read", &self.path, 0))?;
        Ok(())
    }

    /// Takes the next bytes of the bundle.
    ///
    /// # Errors
    /// [`BuildError::BundleTooLarge`], [`BuildError::NoSpace`]; after one, drop the upload.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BuildError> {
        let limit = self.store.limits().bundle_bytes;
        let received = self.received.saturating_add(bytes.len() as u64);
        if received > limit {
            return Err(BuildError::BundleTooLarge { limit });
        }
        let error = BuildError::io("write", &self.path, bytes.len() as u64);
        self.file.write_all(bytes).map_err(error)?;
        self.received = received;
        Ok(())
    }

    /// The bytes received so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Checks the whole bundle and puts the build into the store.
    ///
    /// A build that is there already is a success; if its stored files were damaged, they are
    /// replaced.
    ///
    /// # Errors
    /// See [`BuildError`]; the store is as it was before the upload.
    pub fn finish(self, expected: Option<&BuildRef>) -> Result<Imported, BuildError> {
        let write = || BuildError::io("write", &self.path, 0);
        disk::set_mode(&self.path, 0o444).map_err(write())?;
        self.file.sync_all().map_err(write())?;
        let file = File::open(&self.path).map_err(BuildError::io("read", &self.path, 0))?;
        let manifest = self.store.unpack(file, &self.work, expected)?;
        let build = manifest.build_ref();
        let already_present = self.store.install(&self.work, &manifest)?;
        Ok(Imported {
            build,
            manifest,
            already_present,
        })
    }
}
