//! The write-ahead logs of the node's databases, which it reads when it starts.

use std::path::{Path, PathBuf};

/// The log of a SQLite database.
pub(super) fn of_sqlite(database: &Path) -> PathBuf {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

/// The logs of a BLite database `X.blite`: `X.wal`, and `X.blite.wal` for the node's own records in
/// `X.blite.meta`, as the last ending is replaced (`PageFile.cs`).
pub fn of_blite(database: &Path) -> [PathBuf; 2] {
    let mut own = database.as_os_str().to_owned();
    own.push(".wal");
    [database.with_extension("wal"), own.into()]
}

/// The bytes of all of them; `None`: no database is known. A log that is not there has none.
pub fn bytes(sqlite: &[PathBuf], blite: &[PathBuf]) -> Option<u64> {
    if sqlite.is_empty() && blite.is_empty() {
        return None;
    }
    let blite = blite.iter().flat_map(|database| of_blite(database));
    let logs = sqlite
        .iter()
        .map(|database| of_sqlite(database))
        .chain(blite);
    Some(logs.map(|log| size(&log)).sum())
}

/// The size of a file in bytes, none where it is not there.
pub fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}
