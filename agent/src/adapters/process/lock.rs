//! The lock file of a node: held by its processes for as long as one of them lives, and telling who
//! the first of them is.
//!
//! The lock is `flock`, which belongs to the open file and so passes to every process that inherits
//! it. The kernel lets go of it when the last of them ends, whatever way that happens; so a free lock
//! means that nothing runs, and no crash of the agent can make two nodes of one.

use cbddc_domain::time::BootId;
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A record is about 100 bytes long; more than this is not one.
const RECORD_BYTES_MAX: u64 = 1_024;

/// Which process took the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) pid: u32,
    /// Clock ticks between boot and its start.
    pub(super) start_ticks: u64,
    pub(super) boot: BootId,
}

impl Record {
    fn to_text(&self) -> String {
        format!(
            "pid {}\nstart {}\nboot {}\nend\n",
            self.pid, self.start_ticks, self.boot
        )
    }

    /// Reads a whole record; one that is torn or foreign is none.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix("\nend\n")?.lines();
        let record = Self {
            pid: lines.next()?.strip_prefix("pid ")?.parse().ok()?,
            start_ticks: lines.next()?.strip_prefix("start ")?.parse().ok()?,
            boot: BootId(lines.next()?.strip_prefix("boot ")?.to_owned()),
        };
        lines.next().is_none().then_some(record)
    }
}

/// Whether any process holds the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Nobody,
    Somebody,
}

/// The lock file at one path, from the agent's side: it looks and never keeps the lock.
#[derive(Debug, Clone)]
pub(super) struct LockFile {
    path: PathBuf,
}

impl LockFile {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Tries the lock with a shared one and lets go at once. Probes do not disturb each other, and a
    /// launcher that meets one tries again.
    pub(super) fn holder(&self) -> io::Result<Holder> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holder::Nobody),
            Err(error) => return Err(error),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            // Closing would not do: a program that another thread starts at this moment may have
            // inherited the file until it, too, is replaced.
            Ok(()) => flock(&file, FlockOperation::Unlock)
                .map(|()| Holder::Nobody)
                .map_err(Into::into),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(Holder::Somebody),
            Err(error) => Err(error.into()),
        }
    }

    /// Who took the lock last, in any boot.
    pub(super) fn record(&self) -> io::Result<Option<Record>> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut text = Vec::new();
        file.take(RECORD_BYTES_MAX).read_to_end(&mut text)?;
        Ok(std::str::from_utf8(&text).ok().and_then(Record::parse))
    }
}

/// Takes the lock for this process, from the launcher's side. `None` when another holds it.
pub(super) fn try_take(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Says in the locked file who holds it. Not synced to disk: after a power cut nothing runs, and the
/// boot id says so.
pub(super) fn write_record(file: &mut File, record: &Record) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(record.to_text().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::Record;
    use cbddc_domain::time::BootId;

    #[test]
    fn a_record_survives_the_file_and_a_torn_one_is_none() {
        let record = Record {
            pid: 7,
            start_ticks: 103_098,
            boot: BootId("b0".into()),
        };
        let text = record.to_text();
        assert_eq!(Record::parse(&text), Some(record));
        for length in 0..text.len() {
            assert_eq!(Record::parse(&text[..length]), None, "cut at {length}");
        }
        for bad in [
            "pid -1\nstart 1\nboot b\nend\n",
            "pid 1\nstart 1\nboot b\nmore\nend\n",
            "end\n",
        ] {
            assert_eq!(Record::parse(bad), None, "{bad:?}");
        }
    }
}
