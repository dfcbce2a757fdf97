//! All documents of a node at one moment, without their contents. There may be millions, so a document
//! takes some 90 bytes and its key, in few large pieces of memory, which go back to the system at once.

use super::{ContentDigest, DocumentRow, LISTED_MAX, Part, STEPS_MAX, digests, position, step};
use std::collections::BTreeMap;

/// A table that is being made.
#[derive(Debug, Clone, Default)]
pub struct DocumentRows {
    rows: Vec<Row>,
    /// All keys, one after the other.
    keys: String,
    /// Collections and origins.
    names: Vec<String>,
    known: BTreeMap<String, u32>,
}

/// All documents, by their positions.
#[derive(Debug, Clone)]
pub struct DocumentTable(DocumentRows);

#[derive(Debug, Clone)]
struct Row {
    position: [u8; 16],
    digest: Option<ContentDigest>,
    version: (i64, i32),
    key_at: usize,
    key_bytes: u32,
    collection: u32,
    origin: u32,
}

impl DocumentRows {
    /// Adds a document.
    pub fn push(&mut self, row: &DocumentRow) {
        let (collection, origin) = (self.name(&row.collection), self.name(&row.origin));
        self.rows.push(Row {
            position: position(&row.collection, &row.key),
            digest: row.digest,
            version: row.version,
            key_at: self.keys.len(),
            key_bytes: u32::try_from(row.key.len()).unwrap_or(u32::MAX),
            collection,
            origin,
        });
        self.keys.push_str(&row.key);
    }

    /// All are there.
    pub fn finish(mut self) -> DocumentTable {
        self.rows.sort_unstable_by_key(|row| row.position);
        self.rows.shrink_to_fit();
        self.keys.shrink_to_fit();
        DocumentTable(self)
    }

    fn name(&mut self, name: &str) -> u32 {
        if let Some(number) = self.known.get(name) {
            return *number;
        }
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.push(name.to_owned());
        self.known.insert(name.to_owned(), number);
        number
    }

    fn whole(&self, row: &Row) -> DocumentRow {
        let name = |number: u32| self.names[number as usize].clone();
        let key = row.key_at..row.key_at + row.key_bytes as usize;
        DocumentRow {
            collection: name(row.collection),
            key: self.keys[key].to_owned(),
            version: row.version,
            origin: name(row.origin),
            digest: row.digest,
        }
    }
}

impl DocumentTable {
    /// How many documents there are, deleted ones included.
    pub fn len(&self) -> usize {
        self.0.rows.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.rows.is_empty()
    }

    /// The part at the end of a path.
    pub fn part(&self, path: &[u8]) -> Part {
        let (rows, depth) = (&self.0.rows, path.len());
        let order = |row: &Row| {
            let steps = (0..depth).map(|at| step(row.position, at));
            steps.cmp(path.iter().copied())
        };
        let from = rows.partition_point(|row| order(row).is_lt());
        let to = rows.partition_point(|row| order(row).is_le());
        let inside = &rows[from..to];
        if inside.len() <= LISTED_MAX || depth >= STEPS_MAX {
            return Part::Listed(inside.iter().map(|row| self.0.whole(row)).collect());
        }
        let placed = inside.iter().map(|row| (row.position, &row.digest));
        Part::Divided(digests(placed, depth))
    }
}

impl FromIterator<DocumentRow> for DocumentTable {
    fn from_iter<I: IntoIterator<Item = DocumentRow>>(rows: I) -> Self {
        let mut all = DocumentRows::default();
        rows.into_iter().for_each(|row| all.push(&row));
        all.finish()
    }
}
