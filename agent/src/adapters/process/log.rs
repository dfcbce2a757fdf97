//! The log file of the node: appended to across starts, set aside when it has grown large.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A log above this size is set aside at the next start: 16 MiB. A node that never restarts is not
/// bounded by this; under systemd the journal bounds it.
pub const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Opens the log for appending. A log above `bytes_max` is renamed to `NAME.1` first, replacing the
/// one set aside before.
pub(super) fn open(path: &Path, bytes_max: u64) -> io::Result<File> {
    match fs::metadata(path) {
        Ok(found) if found.len() > bytes_max => fs::rename(path, set_aside(path))?,
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Logs may tell about customers; other users of the host need not read them.
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

/// The last bytes of the log, none of them before `from`.
pub(super) fn end_of(path: &Path, from: u64, bytes_max: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let start = length.saturating_sub(bytes_max).max(from.min(length));
    file.seek(SeekFrom::Start(start))?;
    let mut end = Vec::new();
    file.take(bytes_max).read_to_end(&mut end)?;
    let end = String::from_utf8_lossy(&end);
    // A line without its beginning may hold half a secret, which nobody would recognise.
    let whole = match start > from {
        true => end.split_once('\n').map_or("", |(_, whole)| whole),
        false => &end,
    };
    Ok(whole.to_owned())
}

fn set_aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}
