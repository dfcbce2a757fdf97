//! What taking a service over reads and writes: program files, a process's open files, and the drop-in.

use crate::adapters::disk;
use crate::adoption::{Files, HEAD_BYTES, OpenFiles};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// What every SQLite database begins with (`sqlite.org/fileformat.html`, 1.3).
const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";

/// The bits of a file's open flags that say how it may be used (`man 2 open`); 0 is reading alone.
const ACCESS_MODE: u32 = 0o3;

/// The host's files.
#[derive(Debug, Clone, Copy)]
pub struct HostFiles;

impl Files for HostFiles {
    fn head(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        File::open(path)?
            .take(HEAD_BYTES as u64)
            .read_to_end(&mut head)?;
        Ok(head)
    }

    fn real(&self, path: &Path) -> io::Result<PathBuf> {
        path.canonicalize()
    }
}

/// The regular files that a process has open for writing, or mapped to memory that it shares with them.
pub fn open_files(pid: u32) -> io::Result<OpenFiles> {
    let mut found = OpenFiles::default();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
        let number = entry.file_name();
        // What was closed meanwhile is not open.
        let Ok(path) = fs::read_link(entry.path()) else {
            continue;
        };
        if !path.is_file() || !is_written(pid, &number.to_string_lossy()) {
            continue;
        }
        if HostFiles
            .head(&path)
            .is_ok_and(|head| head.starts_with(SQLITE_MAGIC))
        {
            found.databases.push(path.clone());
        }
        found.written.push(path);
    }
    found.written.extend(written_maps(pid));
    found.written.sort();
    found.written.dedup();
    found.databases.sort();
    found.databases.dedup();
    Ok(found)
}

/// The files behind shared memory that may be written to (`man 5 proc_pid_maps`): a mapping outlives its
/// file descriptor.
fn written_maps(pid: u32) -> Vec<PathBuf> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let path = |line: &str| {
        let mut fields = line.splitn(6, ' ').map(str::trim);
        let shared = fields.nth(1).is_some_and(|rights| {
            let rights = rights.as_bytes();
            rights.get(1) == Some(&b'w') && rights.get(3) == Some(&b's')
        });
        let path = fields
            .nth(3)
            .filter(|path| shared && path.starts_with('/'))?;
        Some(PathBuf::from(path)).filter(|path| path.is_file())
    };
    maps.lines().filter_map(path).collect()
}

fn is_written(pid: u32, number: &str) -> bool {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & ACCESS_MODE != 0)
}

/// The folders of these files that this process may not write to.
pub fn closed_folders(files: &[PathBuf]) -> Vec<PathBuf> {
    let folders = files.iter().filter_map(|file| file.parent());
    let closed =
        folders.filter(|folder| rustix::fs::access(*folder, rustix::fs::Access::WRITE_OK).is_err());
    let mut closed: Vec<PathBuf> = closed.map(Path::to_owned).collect();
    closed.sort();
    closed.dedup();
    closed
}

/// Puts the drop-in into its place, complete and on disk.
pub fn write_drop_in(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let beside = folder.join(".50-cbagent.new");
    drop(fs::remove_file(&beside));
    disk::write_new(&beside, text.as_bytes())?;
    disk::set_mode(&beside, 0o644)?;
    fs::rename(&beside, path)?;
    disk::sync_folder(folder)?;
    disk::sync_folder(folder.parent().unwrap_or(Path::new("/")))
}

/// Takes the drop-in away, and its folder where nothing else is in it.
pub fn remove_drop_in(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => other?,
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    if fs::remove_dir(folder).is_ok() {
        return disk::sync_folder(folder.parent().unwrap_or(Path::new("/")));
    }
    match disk::sync_folder(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
