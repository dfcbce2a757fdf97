//! Reads a bundle once, front to back, checking every byte before it is used.
//!
//! The manifest comes first and fixes all that follows: see [`cbddc_domain::bundle`]. A header is
//! only interpreted to explain why it was refused. Nothing is written that the manifest does not
//! list, and never more bytes than it lists, so a bundle cannot unpack to more than it declares.

use super::error::BuildError;
use crate::adapters::disk;
use cbddc_domain::build::{BuildRef, Digest};
use cbddc_domain::bundle::{self, BLOCK, END_MARK, WINDOW_LOG_MAX};
use cbddc_domain::manifest::{Limits, Manifest, ManifestFields, ManifestFile};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use zstd::stream::read::Decoder;

/// A bundle whose manifest has been read and checked, and whose files come next.
pub(super) struct OpenBundle {
    tar: Decoder<'static, BufReader<File>>,
    /// The checked manifest.
    pub(super) manifest: Manifest,
    /// Its name and digest.
    pub(super) build: BuildRef,
}

/// Parses the canonical bytes of a manifest.
pub(super) fn parse_manifest(bytes: &[u8], limits: &Limits) -> Result<Manifest, BuildError> {
    let fields: ManifestFields = serde_json::from_slice(bytes).map_err(BuildError::ManifestJson)?;
    Manifest::accept(fields, bytes, limits).map_err(BuildError::Manifest)
}

impl OpenBundle {
    /// Reads the manifest at the front of the bundle in `file`.
    pub(super) fn read(file: File, limits: &Limits) -> Result<Self, BuildError> {
        let mut tar = Decoder::new(file).map_err(read_error)?.single_frame();
        tar.window_log_max(WINDOW_LOG_MAX).map_err(read_error)?;
        let mut block = [0; BLOCK];
        tar.read_exact(&mut block).map_err(read_error)?;
        let size = tar::Header::from_byte_slice(&block)
            .entry_size()
            .unwrap_or(u64::MAX);
        if bundle::manifest_header(size.min(cbddc_domain::manifest::FILE_BYTES)) != block {
            return Err(BuildError::NoManifest);
        }
        if size > limits.manifest_bytes {
            return Err(BuildError::ManifestTooLarge {
                size,
                limit: limits.manifest_bytes,
            });
        }
        let mut bytes = Vec::new();
        let read = (&mut tar)
            .take(size)
            .read_to_end(&mut bytes)
            .map_err(read_error)?;
        if (read as u64) < size {
            return Err(BuildError::Truncated);
        }
        let manifest = parse_manifest(&bytes, limits)?;
        read_zeros(&mut tar, bundle::padding(size))?;
        Ok(Self {
            tar,
            build: manifest.build_ref(),
            manifest,
        })
    }

    /// Checks all files and writes them below the folder `tree`, which it creates; the files become
    /// read-only and are on disk when this returns.
    pub(super) fn extract(mut self, tree: &Path) -> Result<(BuildRef, Manifest), BuildError> {
        let total = self.manifest.total_size();
        fs::create_dir(tree).map_err(BuildError::io("create", tree, total))?;
        for file in self.manifest.files() {
            expect_header(&mut self.tar, file)?;
            write_file(&mut self.tar, file, tree, total)?;
            read_zeros(&mut self.tar, bundle::padding(file.size))?;
        }
        read_end(self.tar)?;
        sync_folders(tree, &self.manifest).map_err(BuildError::io("write", tree, total))?;
        Ok((self.build, self.manifest))
    }
}

/// The folders of a build's tree, innermost first, and the tree's own last.
fn folders(tree: &Path, manifest: &Manifest) -> Vec<PathBuf> {
    let files = manifest.files().iter();
    let below: std::collections::BTreeSet<&str> =
        files.flat_map(|file| file.path.folders()).collect();
    below
        .into_iter()
        .rev()
        .map(|folder| tree.join(folder))
        .chain([tree.to_owned()])
        .collect()
}

/// Makes all names in the tree durable, and its folders read-only except for the outermost: one
/// can only be moved by its owner while it is writable.
fn sync_folders(tree: &Path, manifest: &Manifest) -> io::Result<()> {
    for folder in folders(tree, manifest) {
        disk::set_mode(&folder, if folder == tree { 0o755 } else { 0o555 })?;
        disk::sync_folder(&folder)?;
    }
    Ok(())
}

/// Reads the headers that must come before the content of `file`, block by block.
fn expect_header(tar: &mut impl Read, file: &ManifestFile) -> Result<(), BuildError> {
    for expected in bundle::file_header(file).chunks(BLOCK) {
        let mut block = [0; BLOCK];
        tar.read_exact(&mut block).map_err(read_error)?;
        if block != expected {
            let what = describe(&block, file);
            return Err(BuildError::UnexpectedEntry {
                what,
                expected: file.path.clone(),
            });
        }
    }
    Ok(())
}

/// Says for people why a header is not the one that `file` asks for.
fn describe(block: &[u8; BLOCK], file: &ManifestFile) -> String {
    let header = tar::Header::from_byte_slice(block);
    if *block == [0; BLOCK] {
        return "the bundle ends too early".into();
    }
    let name = String::from_utf8_lossy(&header.path_bytes())
        .escape_debug()
        .to_string();
    let kind = header.entry_type();
    let (mode, size) = (header.mode().unwrap_or(0), header.entry_size().unwrap_or(0));
    let what = match () {
        () if kind.is_symlink() || kind.is_hard_link() => "is a link",
        () if kind.is_character_special() || kind.is_block_special() => "is a device",
        () if kind.is_fifo() => "is a named pipe",
        () if kind.is_dir() => "is a folder entry",
        () if kind.is_gnu_longname() => "is announced under a long name that does not fit",
        () if !kind.is_file() => "is an entry of a kind that bundles do not have",
        () if mode & 0o7000 != 0 => "has set-uid, set-gid or sticky bits",
        () if name.starts_with('/') => "is an absolute path",
        () if name.split('/').any(|part| part == "..") => "leaves the folder of the build",
        () if name != format!("files/{}", file.path) => "is not listed here",
        () if size > file.size => "is larger than the manifest says",
        () if size < file.size => "is smaller than the manifest says",
        () => "has a header that differs from the one `cbctl build pack` writes",
    };
    format!("the entry `{name}` {what}")
}

fn write_file(
    tar: &mut impl Read,
    file: &ManifestFile,
    tree: &Path,
    total: u64,
) -> Result<(), BuildError> {
    let path = tree.join(file.path.as_str());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(BuildError::io("create", folder, total))?;
    }
    let wrong = |action| BuildError::io(action, &path, total);
    let mut output = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(wrong("create"))?;
    let (mut hasher, mut left) = (Sha256::new(), file.size);
    let mut buffer = vec![0; 1 << 16];
    while left > 0 {
        let room = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let count = tar.read(&mut buffer[..room]).map_err(read_error)?;
        if count == 0 {
            return Err(BuildError::Truncated);
        }
        hasher.update(&buffer[..count]);
        output.write_all(&buffer[..count]).map_err(wrong("write"))?;
        left -= count as u64;
    }
    if Digest::from_bytes(hasher.finalize().into()) != file.digest {
        return Err(BuildError::WrongContent(file.path.clone()));
    }
    disk::set_mode(&path, tree_mode(file)).map_err(wrong("set the mode of"))?;
    output.sync_all().map_err(wrong("write"))
}

/// The mode of a file in a stored tree: nobody may write, so that a node cannot change its build.
pub(super) fn tree_mode(file: &ManifestFile) -> u32 {
    if file.executable { 0o555 } else { 0o444 }
}

/// Reads `count` bytes that must be zero.
fn read_zeros(tar: &mut impl Read, count: usize) -> Result<(), BuildError> {
    let mut bytes = [0; END_MARK.len()];
    let bytes = &mut bytes[..count];
    tar.read_exact(bytes).map_err(read_error)?;
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    Err(BuildError::Padding)
}

/// Reads the end mark; nothing may follow it, within the compressed data or after it.
fn read_end(mut tar: Decoder<'static, BufReader<File>>) -> Result<(), BuildError> {
    let mut mark = [0; END_MARK.len()];
    tar.read_exact(&mut mark).map_err(read_error)?;
    if mark != END_MARK {
        let name = String::from_utf8_lossy(&mark[..100]);
        let name = name.trim_end_matches('\0').escape_debug().to_string();
        return Err(BuildError::Surplus(format!("there is an entry `{name}`")));
    }
    if tar.read(&mut [0]).map_err(read_error)? != 0 {
        return Err(BuildError::Surplus("there is data".into()));
    }
    let mut rest = tar.finish();
    if rest.fill_buf().map_err(read_error)?.is_empty() {
        Ok(())
    } else {
        Err(BuildError::Surplus("there is uncompressed data".into()))
    }
}

/// Reading either meets the end of the bundle or data that zstd cannot make sense of.
fn read_error(error: io::Error) -> BuildError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return BuildError::Truncated;
    }
    BuildError::Damaged(error)
}
