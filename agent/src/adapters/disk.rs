//! Small file operations that the stores share: durable writes, room on the disk, read-only trees.

use cbddc_domain::build::Digest;
use rustix::fs::statvfs;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt};
use std::path::Path;

/// The bytes that may still be written to the file system of `path`, without root's reserve.
pub(crate) fn free_bytes(path: &Path) -> io::Result<u64> {
    let status = statvfs(path)?;
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}

/// True for the errors of a full disk or an exhausted quota.
pub(crate) fn is_full(error: &io::Error) -> bool {
    // Two kinds among many; the rest is not listed because the standard library adds to it.
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Makes what was created, renamed or removed in `folder` survive a power cut.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Writes a file of mode 0600 that does not exist yet.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let options = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut file = options?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Replaces a file at once: after a power cut there is the old or the new one, never a part.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = path.with_file_name(name);
    // Left over from a run that was interrupted.
    drop(fs::remove_file(&beside));
    write_private(&beside, bytes)?;
    fs::rename(&beside, path)?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

/// Writes a new file and waits until its content is on disk; its name needs [`sync_folder`].
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// The size and digest of a file's content.
pub(crate) fn hash_file(path: &Path) -> io::Result<(u64, Digest)> {
    copy_and_hash(&mut File::open(path)?, &mut io::sink())
}

/// Copies everything from `input` to `output`; returns the size and digest of what was copied.
pub(crate) fn copy_and_hash(
    input: &mut impl Read,
    output: &mut impl Write,
) -> io::Result<(u64, Digest)> {
    let (mut hasher, mut size) = (Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => return Ok((size, Digest::from_bytes(hasher.finalize().into()))),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        hasher.update(&buffer[..count]);
        output.write_all(&buffer[..count])?;
        size += count as u64;
    }
}

/// Sets the mode bits of `path`.
pub(crate) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Removes a file or a whole folder, read-only folders too; nothing there is fine. Links are
/// removed, never followed.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if !metadata.is_dir() {
        return fs::remove_file(path);
    }
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        set_mode(&folder, 0o700)?;
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    fs::remove_dir_all(path)
}

/// Removes whatever lies in `folder`, leftovers of a crash.
pub(crate) fn empty_folder(folder: &Path) -> io::Result<()> {
    fs::read_dir(folder)?.try_for_each(|entry| remove_tree(&entry?.path()))
}
