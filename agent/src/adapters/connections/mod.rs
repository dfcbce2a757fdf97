//! Which connections the node's processes hold, as the kernel tells: nobody has to be asked, and no
//! node notices.
//!
//! In reading order: [`table`] is the kernel's text, [`judge`] decides which peers are joined; both are
//! pure. Here it is read, with bounds.

pub mod judge;
pub mod table;
#[cfg(test)]
mod tests;

use judge::Shown;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use table::rows;

/// The most bytes of one table that are read: 8 MiB are some 50,000 connections.
const TABLE_BYTES_MAX: u64 = 8 << 20;

/// The most open files of one process that are looked at.
const FILES_MAX: usize = 65_536;

/// The most processes of a node, and of a host, that are looked at.
const NODE_PROCESSES_MAX: usize = 64;
const HOST_PROCESSES_MAX: usize = 8_192;

/// Why the node's connections cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionsError {
    /// Nothing runs, or the supervisor does not tell what.
    #[error("no process of the node is known")]
    NoProcess,
    /// It runs as another user, and the agent has no right to look.
    #[error(
        "the agent may not look into process {pid} of another user: it would need root, or CAP_SYS_PTRACE"
    )]
    NotAllowed {
        /// The process.
        pid: u32,
    },
    /// `/proc` does not answer.
    #[error("cannot read /proc of process {pid}")]
    Read {
        /// The process.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is more than is read.
    #[error("process {pid} has more than {most} {what}, which is more than is looked through")]
    TooMuch {
        /// The process.
        pid: u32,
        /// Of what.
        what: &'static str,
        /// How much is taken.
        most: u64,
    },
}

/// What the node's processes hold; the first of them names the network. Blocks for as long as `/proc`
/// takes to answer.
///
/// # Errors
/// [`ConnectionsError`].
pub fn read_node(pids: &[u32], sync_port: u16) -> Result<Shown, ConnectionsError> {
    let first = *pids.first().ok_or(ConnectionsError::NoProcess)?;
    let mut own = BTreeSet::new();
    for pid in pids.iter().take(NODE_PROCESSES_MAX) {
        match sockets(*pid) {
            Ok(sockets) => own.extend(sockets),
            // A helper of the node that has just ended holds nothing.
            Err(ConnectionsError::Read { source, .. })
                if *pid != first && source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    // After the sockets: one that was opened meanwhile is seen at the next look.
    let rows = read_rows(first)?;
    Ok(Shown {
        rows,
        own,
        sync_port,
    })
}

/// The sockets of the network that a process is in.
///
/// # Errors
/// [`ConnectionsError`].
pub fn read_rows(pid: u32) -> Result<Vec<table::Row>, ConnectionsError> {
    let mut all = Vec::new();
    for name in ["tcp", "tcp6"] {
        all.extend(rows(&read_table(pid, name)?));
    }
    Ok(all)
}

fn read_table(pid: u32, name: &str) -> Result<String, ConnectionsError> {
    let mut text = Vec::new();
    let read = File::open(format!("/proc/{pid}/net/{name}"))
        .and_then(|file| file.take(TABLE_BYTES_MAX + 1).read_to_end(&mut text));
    match read {
        Ok(_) if text.len() as u64 > TABLE_BYTES_MAX => Err(ConnectionsError::TooMuch {
            pid,
            what: "bytes in its table of connections",
            most: TABLE_BYTES_MAX,
        }),
        Ok(_) => Ok(String::from_utf8_lossy(&text).into_owned()),
        // A kernel without IPv6 has no such table.
        Err(error) if name == "tcp6" && error.kind() == io::ErrorKind::NotFound => {
            Ok(String::new())
        }
        Err(source) => Err(ConnectionsError::Read { pid, source }),
    }
}

/// The sockets that a process holds.
fn sockets(pid: u32) -> Result<BTreeSet<u64>, ConnectionsError> {
    let failed = |source: io::Error| match source.kind() == io::ErrorKind::PermissionDenied {
        true => ConnectionsError::NotAllowed { pid },
        false => ConnectionsError::Read { pid, source },
    };
    let mut sockets = BTreeSet::new();
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).map_err(failed)?;
    for (number, entry) in entries.enumerate() {
        if number >= FILES_MAX {
            return Err(ConnectionsError::TooMuch {
                pid,
                what: "open files",
                most: FILES_MAX as u64,
            });
        }
        // One that was closed meanwhile is none.
        let Ok(target) = entry.and_then(|entry| fs::read_link(entry.path())) else {
            continue;
        };
        let inode: Option<u64> = target.to_str().and_then(|text| {
            text.strip_prefix("socket:[")?
                .strip_suffix(']')?
                .parse()
                .ok()
        });
        sockets.extend(inode);
    }
    Ok(sockets)
}

/// The sockets of each process of this host that may be looked into. Costly: it looks into every one.
pub fn of_all_processes() -> impl Iterator<Item = BTreeSet<u64>> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.take(HOST_PROCESSES_MAX)
        .filter_map(|pid| sockets(pid).ok())
}
