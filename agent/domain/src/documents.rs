//! Comparing the contents of documents without moving them: a digest per document, over its parsed
//! JSON, and digests over digests, sixteen ways at each step, by the hash of collection and key.
//!
//! Two sets that differ in one document are told apart by a few answers, whatever their size. Only
//! contents of the *same version* are compared. Another version is on its way, and the audit of events
//! says so when it is not; unless no event tells of it at all: see [`Uneven`]. Deleted documents count
//! as absent, since tombstones go in time.

mod comparison;
mod table;

pub use comparison::{Comparison, DocumentVersion, UNEVEN_MAX, Uneven};
pub use table::{DocumentRows, DocumentTable};

use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// A part with at most so many documents is listed rather than divided.
pub const LISTED_MAX: usize = 16;

/// The steps of a path at most: beyond, hashes of keys are as good as equal.
pub const STEPS_MAX: usize = 15;

/// Steps from the whole to a part, each 0 to 15.
pub type Path = Vec<u8>;

/// SHA-256 of a content in canonical form.
pub type ContentDigest = [u8; 32];

/// The digest of a document's content: keys sorted, numbers by value, no white space. What is no JSON
/// counts as its bytes.
pub fn content_digest(text: &str) -> ContentDigest {
    let mut hash = Sha256::new();
    match serde_json::from_str::<Value>(text) {
        Ok(value) => feed(&mut hash, &value),
        Err(_) => {
            hash.update(b"t");
            hash.update(text.as_bytes());
        }
    }
    hash.finalize().into()
}

fn feed(hash: &mut Sha256, value: &Value) {
    let sized = |hash: &mut Sha256, kind: u8, length: usize| {
        hash.update([kind]);
        hash.update((length as u64).to_le_bytes());
    };
    match value {
        Value::Null => hash.update(b"n"),
        Value::Bool(truth) => hash.update([b'b', u8::from(*truth)]),
        Value::Number(number) => {
            let text = number_text(number);
            sized(hash, b'#', text.len());
            hash.update(text.as_bytes());
        }
        Value::String(text) => {
            sized(hash, b's', text.len());
            hash.update(text.as_bytes());
        }
        Value::Array(items) => {
            sized(hash, b'a', items.len());
            items.iter().for_each(|item| feed(hash, item));
        }
        Value::Object(fields) => {
            sized(hash, b'o', fields.len());
            let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
            for (name, value) in sorted {
                sized(hash, b's', name.len());
                hash.update(name.as_bytes());
                feed(hash, value);
            }
        }
    }
}

/// A number by its value: 1, 1.0 and 1e0 are one.
fn number_text(number: &serde_json::Number) -> String {
    if let Some(float) = number.as_f64().filter(|_| number.is_f64()) {
        let is_whole = float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0;
        return if float == 0.0 {
            "0".to_owned()
        } else if is_whole {
            format!("{float:.0}")
        } else {
            format!("{float:e}")
        };
    }
    number.to_string()
}

/// A document without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentRow {
    /// Its collection.
    pub collection: String,
    /// Its key.
    pub key: String,
    /// The event that wrote it last: wall and logic.
    pub version: (i64, i32),
    /// Who wrote it last.
    pub origin: String,
    /// Its content; unset once it was deleted.
    pub digest: Option<ContentDigest>,
}

/// What a part is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Large: the digests of its sixteen parts; unset for those without documents.
    Divided(Vec<Option<ContentDigest>>),
    /// Small: what it holds, deleted documents included.
    Listed(Vec<DocumentRow>),
}

fn position(collection: &str, key: &str) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update((collection.len() as u64).to_le_bytes());
    hash.update(collection.as_bytes());
    hash.update(key.as_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let mut position = [0; 16];
    position.copy_from_slice(&digest[..16]);
    position
}

fn step(position: [u8; 16], at: usize) -> u8 {
    let byte = position[at / 2];
    if at.is_multiple_of(2) {
        byte >> 4
    } else {
        byte & 15
    }
}

fn digests<'a>(
    rows: impl Iterator<Item = ([u8; 16], &'a Option<ContentDigest>)>,
    depth: usize,
) -> Vec<Option<ContentDigest>> {
    let mut hashes: Vec<Option<Sha256>> = vec![None; 16];
    for (position, digest) in rows {
        if let Some(digest) = digest {
            let child = &mut hashes[usize::from(step(position, depth))];
            let hash = child.get_or_insert_with(Sha256::new);
            hash.update(position);
            hash.update(digest);
        }
    }
    let hashes = hashes.into_iter();
    hashes
        .map(|hash| hash.map(|hash| hash.finalize().into()))
        .collect()
}

impl Part {
    fn divided(&self, depth: usize) -> Vec<Option<ContentDigest>> {
        match self {
            Self::Divided(digests) => digests.clone(),
            Self::Listed(rows) => {
                let placed = rows
                    .iter()
                    .map(|row| (position(&row.collection, &row.key), &row.digest));
                let mut placed: Vec<_> = placed.collect();
                placed.sort_by_key(|(at, _)| *at);
                digests(placed.into_iter(), depth)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Comparison, DocumentRow, DocumentTable, content_digest};

    #[test]
    fn contents_are_compared_by_value() {
        let same = [
            r#"{"a":1,"b":[1.0,-0.0,100],"c":{"x":null,"y":"ü"}}"#,
            r#"{ "c": {"y":"\u00fc", "x":null}, "b":[1, 0, 1e2], "a":1.0 }"#,
        ];
        assert_eq!(content_digest(same[0]), content_digest(same[1]));
        let different = [
            r#"{"a":1}"#,
            r#"{"a":"1"}"#,
            r#"{"a":[1]}"#,
            r#"{"a":1.5}"#,
            "{",
            "",
            "{}",
        ];
        for (place, one) in different.iter().enumerate() {
            for other in &different[place + 1..] {
                assert_ne!(content_digest(one), content_digest(other), "{one} {other}");
            }
        }
    }

    fn table(change: impl Fn(usize) -> (i64, &'static str)) -> DocumentTable {
        (0..3000)
            .map(|number| DocumentRow {
                collection: "orders".into(),
                key: format!("k{number}"),
                version: (change(number).0, 0),
                origin: "a".into(),
                digest: Some(content_digest(change(number).1)),
            })
            .collect()
    }

    fn compare(tables: &[DocumentTable]) -> (Vec<String>, usize) {
        let (mut comparison, mut asked) = (Comparison::default(), 0);
        while let Some(path) = comparison.next_part() {
            asked += 1;
            let parts = tables.iter().zip(1..);
            let parts: Vec<_> = parts
                .map(|(table, node)| (format!("n{node}"), table.part(&path)))
                .collect();
            comparison.tell(&path, &parts);
        }
        let found = comparison.finish().into_iter();
        (
            found
                .map(|it| format!("{} on {}", it.key, it.on.join(",")))
                .collect(),
            asked,
        )
    }

    #[test]
    fn one_document_among_many_is_found_by_few_questions() {
        let sound = table(|_| (1, "1"));
        let altered = table(|number| (1, if number == 1234 { "2" } else { "1" }));
        let newer = table(|number| if number == 99 { (2, "2") } else { (1, "1") });
        assert_eq!(compare(&[sound.clone(), sound.clone()]), (vec![], 1));
        let (found, asked) = compare(&[sound.clone(), altered, sound.clone()]);
        assert_eq!(found, ["k1234 on n2"]);
        assert!(asked < 6, "{asked}");
        // Another version is on its way.
        assert_eq!(compare(&[sound.clone(), newer]).0, Vec::<String>::new());
    }

    fn rows(keys: std::ops::Range<usize>, gone: &[usize]) -> Vec<DocumentRow> {
        let row = |number: usize| DocumentRow {
            collection: "orders".into(),
            key: format!("k{number}"),
            version: (1, 0),
            origin: "a".into(),
            digest: (!gone.contains(&number)).then(|| content_digest("1")),
        };
        keys.map(row).collect()
    }

    #[test]
    fn a_deleted_document_is_as_good_as_none() {
        let table = |rows: Vec<DocumentRow>| rows.into_iter().collect::<DocumentTable>();
        let (small, large) = (0..5, 0..500);
        for keys in [small, large] {
            let tombstone = table(rows(keys.clone(), &[3]));
            let mut without = rows(keys.clone(), &[]);
            without.remove(3);
            assert_eq!(
                compare(&[tombstone, table(without)]),
                (vec![], 1),
                "{keys:?}"
            );
        }
        // A tombstone is no other content of the same version.
        let (whole, tombstone) = (rows(0..5, &[]), rows(0..5, &[3]));
        assert_eq!(compare(&[table(whole), table(tombstone)]).0, [""; 0]);
    }

    #[test]
    fn a_document_whose_newest_version_is_not_everywhere_is_told_with_who_has_it() {
        let uneven = |tables: [Vec<DocumentRow>; 3]| {
            let tables = tables.map(|rows| rows.into_iter().collect::<DocumentTable>());
            let mut comparison = Comparison::default();
            while let Some(path) = comparison.next_part() {
                let parts = tables.iter().zip(1..);
                let parts: Vec<_> = parts
                    .map(|(table, node)| (format!("n{node}"), table.part(&path)))
                    .collect();
                comparison.tell(&path, &parts);
            }
            let found = comparison.take_uneven().into_iter();
            let told = found.map(|it| {
                let (on, not_on) = (it.on.join(","), it.not_on.join(","));
                format!(
                    "{} of {} on {on} not on {not_on}",
                    it.version.key, it.version.wall
                )
            });
            told.collect::<Vec<_>>()
        };
        let with = |keys: std::ops::Range<usize>, at: usize, wall: i64, text: Option<&str>| {
            let mut all = rows(keys, &[]);
            all[at].version = (wall, 0);
            all[at].digest = text.map(content_digest);
            all
        };
        for keys in [0..5, 0..500] {
            let sound = || rows(keys.clone(), &[]);
            let mut without = sound();
            without.remove(3);
            let newer = with(keys.clone(), 3, 2, Some("2"));
            let deleted = with(keys.clone(), 3, 3, None);
            assert_eq!(uneven([sound(), sound(), sound()]), [""; 0]);
            assert_eq!(
                uneven([sound(), without.clone(), without.clone()]),
                ["k3 of 1 on n1 not on n2,n3"]
            );
            assert_eq!(
                uneven([sound(), newer, without.clone()]),
                ["k3 of 2 on n2 not on n1,n3"]
            );
            assert_eq!(
                uneven([sound(), deleted.clone(), without.clone()]),
                ["k3 of 3 on n2 not on n1,n3"]
            );
            // Tombstones go in time.
            assert_eq!(uneven([deleted, without.clone(), without]), [""; 0]);
        }
    }

    #[test]
    fn a_part_that_one_lists_and_another_divides_is_the_same_part() {
        let table = |rows: Vec<DocumentRow>| rows.into_iter().collect::<DocumentTable>();
        // Tombstones make the same documents large enough to be divided, at every depth.
        let gone: Vec<usize> = (200..4_000).collect();
        let (listed, divided) = (table(rows(0..200, &[])), table(rows(0..4_000, &gone)));
        assert_eq!(compare(&[listed, divided.clone()]), (vec![], 1));
        let mut other = rows(0..200, &[]);
        other[77].digest = Some(content_digest("2"));
        let (found, asked) = compare(&[table(other), divided]);
        assert_eq!(found, ["k77 on n1"]);
        assert!(asked < 8, "{asked}");
    }

    #[test]
    fn the_fewest_are_the_ones_to_look_at_and_questions_are_bounded() {
        let sound = table(|_| (1, "1"));
        let altered = table(|number| (1, if number == 7 { "2" } else { "1" }));
        let (found, _) = compare(&[altered.clone(), sound, altered]);
        assert_eq!(found, ["k7 on n2"]);
        let many = |content: &str| {
            let row = |number: usize| DocumentRow {
                digest: Some(content_digest(content)),
                ..rows(number..number + 1, &[]).remove(0)
            };
            (0..80_000).map(row).collect::<DocumentTable>()
        };
        let (found, asked) = compare(&[many("1"), many("2")]);
        assert_eq!(asked, super::comparison::PARTS_MAX);
        assert!(!found.is_empty());
    }
}
