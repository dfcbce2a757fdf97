//! Events as an audit holds them: hashes as 32 bytes, names as numbers, keys in one text per page.

use crate::oplog::{Operation, OplogEntry};
use sha2::{Digest, Sha256};
use std::fmt;

/// A hash of the chain, or its absence, in 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Link(pub [u8; 32]);

impl Link {
    /// No hash at all. No SHA-256 is known to be this; a row that claims it is kept as its text.
    pub const NONE: Self = Self([0xff; 32]);

    /// Reads what a row holds: 64 digits in lowercase hex, or nothing.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::NONE);
        }
        let digits: &[u8; 64] = text.as_bytes().try_into().ok()?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(bytes)).filter(|link| *link != Self::NONE)
    }

    /// Stands for a text that is no hash, so that such texts can be compared like the others.
    fn stand_in(text: &str) -> Self {
        Self(Sha256::digest(format!("not a hash: {text}").as_bytes()).into())
    }

    /// The first eight bytes, as a number: enough to tell a million hashes apart.
    pub(super) fn short(self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return Ok(());
        }
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// The two hash fields of a row as they are stored, where one of them is no hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OddLinks {
    /// The hash.
    pub hash: String,
    /// The previous hash.
    pub previous: String,
}

/// One row of a page; its names and its key are in the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageRow {
    /// Unix milliseconds.
    pub wall: i64,
    /// Counter within the millisecond.
    pub logic: i32,
    /// The writing node, as its place in the page's names.
    pub origin: u32,
    /// The collection, likewise.
    pub collection: u32,
    /// Where the key ends in the page's keys; it begins where the one before ends.
    pub key_end: u32,
    /// What was done.
    pub operation: Operation,
    /// The hash as stored.
    pub hash: Link,
    /// The previous hash as stored.
    pub previous: Link,
    /// The texts of both, where one of them is no hash.
    pub odd: Option<Box<OddLinks>>,
}

/// Rows of one node, ordered by wall, logic and origin.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Origins and collections.
    pub names: Vec<String>,
    /// All keys, one after the other.
    pub keys: String,
    /// The rows.
    pub rows: Vec<PageRow>,
}

/// What a row says, for [`Page::push`].
#[derive(Debug, Clone, Copy)]
pub struct RowText<'a> {
    /// Unix milliseconds.
    pub wall: i64,
    /// Counter within the millisecond.
    pub logic: i32,
    /// The writing node.
    pub origin: &'a str,
    /// The collection.
    pub collection: &'a str,
    /// The key.
    pub key: &'a str,
    /// What was done.
    pub operation: Operation,
    /// The hash as stored.
    pub hash: &'a str,
    /// The previous hash as stored.
    pub previous: &'a str,
}

impl Page {
    /// Events as they are, in their order.
    pub fn of_events(events: &[OplogEntry]) -> Self {
        let mut page = Self::default();
        for event in events {
            page.push(&RowText {
                wall: event.hlc.wall,
                logic: event.hlc.logic,
                origin: &event.hlc.node,
                collection: &event.collection,
                key: &event.key,
                operation: event.operation,
                hash: &event.hash,
                previous: &event.previous_hash,
            });
        }
        page
    }

    /// Adds a row at the end.
    pub fn push(&mut self, row: &RowText<'_>) {
        let (hash, previous) = (Link::parse(row.hash), Link::parse(row.previous));
        let odd = (hash.is_none() || previous.is_none()).then(|| {
            Box::new(OddLinks {
                hash: row.hash.to_owned(),
                previous: row.previous.to_owned(),
            })
        });
        self.keys.push_str(row.key);
        let (origin, collection) = (self.name(row.origin), self.name(row.collection));
        self.rows.push(PageRow {
            wall: row.wall,
            logic: row.logic,
            origin,
            collection,
            key_end: u32::try_from(self.keys.len()).unwrap_or(u32::MAX),
            operation: row.operation,
            hash: hash.unwrap_or_else(|| Link::stand_in(row.hash)),
            previous: previous.unwrap_or_else(|| Link::stand_in(row.previous)),
            odd,
        });
    }

    /// The key of a row.
    pub fn key(&self, row: usize) -> &str {
        let begin = row.checked_sub(1).map_or(0, |row| self.rows[row].key_end);
        let end = self.rows[row].key_end;
        self.keys
            .get(begin as usize..end as usize)
            .unwrap_or_default()
    }

    /// The place of a name: a page has few, and the newest are asked for most.
    fn name(&mut self, name: &str) -> u32 {
        let place = self.names.iter().rposition(|known| known == name);
        let place = place.unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    /// Puts stand-ins into the rows whose texts are no hashes, as [`Page::push`] does: for pages that
    /// came over the wire.
    pub fn restore_odd(&mut self, row: usize, odd: OddLinks) -> bool {
        let Some(row) = self.rows.get_mut(row) else {
            return false;
        };
        let link = |text: &str| Link::parse(text).unwrap_or_else(|| Link::stand_in(text));
        (row.hash, row.previous) = (link(&odd.hash), link(&odd.previous));
        row.odd = Some(Box::new(odd));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::Link;

    #[test]
    fn links_are_read_and_written() {
        let text = "0123456789abcdef".repeat(4);
        assert_eq!(Link::parse(&text).unwrap().to_string(), text);
        assert_eq!(Link::parse(""), Some(Link::NONE));
        assert_eq!(Link::NONE.to_string(), "");
        for odd in ["abc".to_owned(), text.to_uppercase(), "f".repeat(64)] {
            assert_eq!(Link::parse(&odd), None, "{odd}");
        }
        let zeros = "0".repeat(64);
        assert_eq!(Link::parse(&zeros).unwrap().to_string(), zeros);
    }
}
