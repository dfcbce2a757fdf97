//! Which files are databases, by their first bytes: a name can be anything.

use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// What every SQLite database begins with (`sqlite.org/fileformat.html`, 1.3).
const SQLITE: &[u8] = b"SQLite format 3\0";

/// What its write-ahead logs begin with, by byte order (as above, 4.1), and its rollback journals (3).
const SQLITE_LOGS: [&[u8]; 3] = [
    &[0x37, 0x7f, 0x06, 0x82],
    &[0x37, 0x7f, 0x06, 0x83],
    &[0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7],
];

/// What encrypted BLite databases begin with (BLite's `PageFile.cs`).
const BLITE_ENCRYPTED: &[u8] = b"BLCE";

/// The page sizes of BLite, in bytes; the header holds each without its 32 bytes.
const BLITE_PAGES: [u64; 3] = [8_192, 16_384, 32_768];

/// As much of a file as tells, in bytes.
const HEAD_BYTES: usize = 32;

/// Whether this is a regular file that is a database, or a log of one, of SQLite or BLite.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn is_database(path: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(path)?;
    // Nothing else is opened: a named pipe would wait for its writer.
    if !found.is_file() || found.len() == 0 {
        return Ok(false);
    }
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let flags = i32::try_from(flags).map_err(io::Error::other)?;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let mut head = Vec::with_capacity(HEAD_BYTES);
    File::take(file, HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(begins_a_database(&head, found.len()))
}

/// The same; what cannot be read is none.
pub(crate) fn holds_database(path: &Path) -> bool {
    is_database(path).unwrap_or(false)
}

/// The same by the first bytes of a file of that length, in bytes.
fn begins_a_database(head: &[u8], length: u64) -> bool {
    head.starts_with(SQLITE)
        || SQLITE_LOGS.iter().any(|magic| head.starts_with(magic))
        || head.starts_with(BLITE_ENCRYPTED)
        || begins_blite(head, length)
}

/// Page 0: its kind at byte 4, the page's size at 5, the format's version at 31 (`PageFile.cs`).
fn begins_blite(head: &[u8], length: u64) -> bool {
    let [_, _, _, _, kind, low, high, .., version] = head else {
        return false;
    };
    let page = u64::from(u16::from_le_bytes([*low, *high])) + 32;
    head.len() == HEAD_BYTES
        && (*kind, *version) == (1, 1)
        && BLITE_PAGES.contains(&page)
        && length.is_multiple_of(page)
}

#[cfg(test)]
mod tests {
    use super::begins_a_database;

    fn blite(kind: u8, page: u16, version: u8) -> Vec<u8> {
        let mut head = vec![0; 32];
        head[4] = kind;
        head[5..7].copy_from_slice(&(page - 32).to_le_bytes());
        head[31] = version;
        head
    }

    #[test]
    fn databases_and_their_logs_are_known_by_their_first_bytes() {
        for head in [
            b"SQLite format 3\0\x10\x00".to_vec(),
            vec![0x37, 0x7f, 0x06, 0x82, 0],
            vec![0x37, 0x7f, 0x06, 0x83, 0],
            vec![0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7],
            b"BLCE\x01".to_vec(),
            blite(1, 8_192, 1),
            blite(1, 16_384, 1),
            blite(1, 32_768, 1),
        ] {
            assert!(begins_a_database(&head, 65_536), "{head:?}");
        }
        for (head, length) in [
            (b"MZ\x90\0".to_vec(), 65_536),
            (b"SQLite format 3".to_vec(), 65_536),
            (b"2026-11-29 info: started".to_vec(), 65_536),
            (vec![0; 32], 65_536),
            (blite(2, 8_192, 1), 65_536),
            (blite(1, 4_096, 1), 65_536),
            (blite(1, 8_192, 2), 65_536),
            (blite(1, 8_192, 1), 65_537),
            (blite(1, 8_192, 1)[..31].to_vec(), 65_536),
        ] {
            assert!(!begins_a_database(&head, length), "{head:?}");
        }
    }
}
