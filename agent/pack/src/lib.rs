//! Packs a folder into a bundle, and reads what a bundle says it holds.
//!
//! The same files give the same bundle, byte for byte: the form is fixed by
//! [`cbddc_domain::bundle`], and owners, times and every mode bit but "executable" are left out.
//! Folders are not entries of their own, so empty ones are not kept.

use cbddc_domain::build::{BuildId, BuildRef, Digest};
use cbddc_domain::bundle::{self, END_MARK, WINDOW_LOG_MAX};
use cbddc_domain::manifest::{Limits, Manifest, ManifestError, ManifestFields, ManifestFile};
use cbddc_domain::relative_path::RelativePath;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How a bundle is made.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// Whether the build changes the persistence format, so that going back needs a snapshot.
    pub changes_persistence: bool,
    /// The zstd level, 1 to 19.
    pub level: i32,
    /// What the receivers accept.
    pub limits: Limits,
}

impl Default for PackOptions {
    fn default() -> Self {
        Self {
            changes_persistence: false,
            level: 9,
            limits: Limits::default(),
        }
    }
}

/// Why no bundle was made, or why one cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file or folder could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The bundle could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Where to.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The folder holds something other than plain files and folders.
    #[error("{} is {what}; a build holds only regular files and folders: remove it, or put a copy of its target there", path.display())]
    Kind {
        /// Which one.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A file carries a mode bit that must not reach a host.
    #[error("{} has the {what} bit set; clear it with `chmod u-s,g-s,-t`", path.display())]
    SpecialMode {
        /// Which one.
        path: PathBuf,
        /// Which bit.
        what: &'static str,
    },
    /// A file has a name that a manifest cannot hold.
    #[error("{} cannot be part of a build; rename it", path.display())]
    Name {
        /// Which one.
        path: PathBuf,
        /// The rule, where the name is text at all.
        #[source]
        source: Option<cbddc_domain::id::InvalidName>,
    },
    /// The manifest would break a rule.
    #[error("the folder cannot become a build")]
    Manifest(#[source] ManifestError),
    /// A file is not what it was a moment ago.
    #[error("{} changed while it was being packed; pack again when nothing writes to the folder", .0.display())]
    Changed(PathBuf),
    /// The bundle would lie in the folder that it is made of.
    #[error("{} lies inside the folder that is being packed; choose another place", .0.display())]
    OutputInside(PathBuf),
    /// The file is not a bundle.
    #[error("{} is not a bundle: {why}; make one with `cbctl build pack`", path.display())]
    NotABundle {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// Packs the files below `directory` into the bundle `out_file`, and returns what it is called.
///
/// The bundle appears under its name only when it is complete and on disk; one that was there
/// before is replaced.
///
/// # Errors
/// See [`PackError`]; nothing is left behind.
pub fn pack(
    directory: &Path,
    build: BuildId,
    options: &PackOptions,
    out_file: &Path,
) -> Result<BuildRef, PackError> {
    let out_folder = match out_file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    };
    let real = |path: &Path| path.canonicalize().map_err(read_error(path));
    if real(out_folder)?.starts_with(real(directory)?) {
        return Err(PackError::OutputInside(out_file.to_owned()));
    }
    let files = list_files(directory)?;
    let manifest = Manifest::new(build, files, options.changes_persistence, &options.limits)
        .map_err(PackError::Manifest)?;

    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(out_file.file_name().unwrap_or_default());
    temporary_name.push(format!(".{}.tmp", std::process::id()));
    let temporary = out_folder.join(temporary_name);
    let done = write_bundle(directory, &manifest, options.level, &temporary).and_then(|()| {
        fs::rename(&temporary, out_file).map_err(write_error(out_file))?;
        File::open(out_folder)
            .and_then(|folder| folder.sync_all())
            .map_err(write_error(out_folder))
    });
    if done.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    done.map(|()| manifest.build_ref())
}

/// Reads what the bundle `file` says it holds, without checking its files.
///
/// # Errors
/// [`PackError::Read`], or [`PackError::NotABundle`] with the reason.
pub fn read_bundle_header(file: &Path) -> Result<BuildRef, PackError> {
    read_manifest(file, &Limits::default()).map(|manifest| manifest.build_ref())
}

/// Reads the manifest of the bundle `file`, without checking its files.
///
/// # Errors
/// [`PackError::Read`], or [`PackError::NotABundle`] with the reason.
pub fn read_manifest(file: &Path, limits: &Limits) -> Result<Manifest, PackError> {
    let not_a_bundle = |why: String| PackError::NotABundle {
        path: file.to_owned(),
        why,
    };
    let damaged = |_: io::Error| not_a_bundle("its compressed data is cut off or damaged".into());
    let input = File::open(file).map_err(read_error(file))?;
    let mut tar = zstd::Decoder::new(input).map_err(damaged)?;
    tar.window_log_max(WINDOW_LOG_MAX).map_err(damaged)?;
    let mut block = [0; bundle::BLOCK];
    tar.read_exact(&mut block).map_err(damaged)?;
    let header = tar::Header::from_byte_slice(&block);
    let size = header.entry_size().unwrap_or(u64::MAX);
    if size > limits.manifest_bytes || bundle::manifest_header(size) != block {
        return Err(not_a_bundle("it does not begin with a manifest".into()));
    }
    let mut bytes = Vec::new();
    tar.take(size).read_to_end(&mut bytes).map_err(damaged)?;
    let fields: ManifestFields = serde_json::from_slice(&bytes)
        .map_err(|error| not_a_bundle(format!("its manifest is not valid ({error})")))?;
    Manifest::accept(fields, &bytes, limits).map_err(|error| not_a_bundle(error.to_string()))
}

/// Every regular file below `directory`; anything but files and folders is refused.
fn list_files(directory: &Path) -> Result<Vec<ManifestFile>, PackError> {
    let mut files = Vec::new();
    let mut folders = vec![directory.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(read_error(&folder))? {
            let path = entry.map_err(read_error(&folder))?.path();
            let metadata = fs::symlink_metadata(&path).map_err(read_error(&path))?;
            if metadata.is_dir() {
                folders.push(path);
            } else {
                files.push(describe(directory, path, &metadata)?);
            }
        }
    }
    Ok(files)
}

fn describe(
    directory: &Path,
    path: PathBuf,
    metadata: &fs::Metadata,
) -> Result<ManifestFile, PackError> {
    refuse_special(&path, metadata)?;
    let relative = path.strip_prefix(directory).unwrap_or(&path);
    let Some(relative) = relative.to_str() else {
        return Err(PackError::Name { path, source: None });
    };
    let relative: RelativePath = match relative.parse() {
        Ok(relative) => relative,
        Err(error) => {
            return Err(PackError::Name {
                path,
                source: Some(error),
            });
        }
    };
    let mut input = open_plain(&path).map_err(read_error(&path))?;
    let (size, digest) = copy_and_hash(&mut input, &mut io::sink(), &path, &path)?;
    Ok(ManifestFile {
        path: relative,
        size,
        executable: metadata.mode() & 0o100 != 0,
        digest,
    })
}

fn refuse_special(path: &Path, metadata: &fs::Metadata) -> Result<(), PackError> {
    use std::os::unix::fs::FileTypeExt;
    let kind = metadata.file_type();
    let what = match () {
        () if kind.is_file() => None,
        () if kind.is_symlink() => Some("a symbolic link"),
        () if kind.is_fifo() => Some("a named pipe"),
        () if kind.is_socket() => Some("a socket"),
        () if kind.is_block_device() || kind.is_char_device() => Some("a device"),
        () => Some("neither a file nor a folder"),
    };
    if let Some(what) = what {
        return Err(PackError::Kind {
            path: path.to_owned(),
            what,
        });
    }
    let bits = [(0o4000, "set-uid"), (0o2000, "set-gid"), (0o1000, "sticky")];
    match bits.into_iter().find(|(bit, _)| metadata.mode() & bit != 0) {
        Some((_, what)) => Err(PackError::SpecialMode {
            path: path.to_owned(),
            what,
        }),
        None => Ok(()),
    }
}

/// Opens without following a link that took the file's place since it was looked at.
fn open_plain(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn write_bundle(
    directory: &Path,
    manifest: &Manifest,
    level: i32,
    to: &Path,
) -> Result<(), PackError> {
    let write_error = || write_error(to);
    let output = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(to)
        .map_err(write_error())?;
    let mut tar = zstd::Encoder::new(output, level.clamp(1, 19)).map_err(write_error())?;
    tar.include_checksum(true).map_err(write_error())?;

    let bytes = manifest.canonical_bytes();
    let size = bytes.len() as u64;
    let parts: [&[u8]; 3] = [
        &bundle::manifest_header(size),
        &bytes,
        &END_MARK[..bundle::padding(size)],
    ];
    parts
        .into_iter()
        .try_for_each(|part| tar.write_all(part))
        .map_err(write_error())?;

    for file in manifest.files() {
        let path = directory.join(file.path.as_str());
        tar.write_all(&bundle::file_header(file))
            .map_err(write_error())?;
        // One byte more than expected shows a file that has grown, and no more is read of it.
        let mut input = open_plain(&path)
            .map_err(read_error(&path))?
            .take(file.size + 1);
        if copy_and_hash(&mut input, &mut tar, &path, to)? != (file.size, file.digest) {
            return Err(PackError::Changed(path));
        }
        tar.write_all(&END_MARK[..bundle::padding(file.size)])
            .map_err(write_error())?;
    }
    tar.write_all(&END_MARK).map_err(write_error())?;
    tar.finish()
        .and_then(|output| output.sync_all())
        .map_err(write_error())
}

fn copy_and_hash(
    input: &mut impl Read,
    output: &mut impl Write,
    from: &Path,
    to: &Path,
) -> Result<(u64, Digest), PackError> {
    let mut reader = BufReader::with_capacity(1 << 16, input);
    let (mut hasher, mut size) = (Sha256::new(), 0);
    let mut buffer = [0; 1 << 14];
    loop {
        let count = reader.read(&mut buffer).map_err(read_error(from))?;
        if count == 0 {
            return Ok((size, Digest::from_bytes(hasher.finalize().into())));
        }
        size += count as u64;
        hasher.update(&buffer[..count]);
        output
            .write_all(&buffer[..count])
            .map_err(write_error(to))?;
    }
}

fn read_error(path: &Path) -> impl FnOnce(io::Error) -> PackError + '_ {
    |source| PackError::Read {
        path: path.to_owned(),
        source,
    }
}

fn write_error(path: &Path) -> impl FnOnce(io::Error) -> PackError + '_ {
    |source| PackError::Write {
        path: path.to_owned(),
        source,
    }
}
