//! Finds the documents that differ, by asking every node for the same parts.

use super::{ContentDigest, DocumentRow, Part, Path};
use crate::audit::EventFinding;
use crate::replication::FindingKind;
use std::collections::BTreeMap;

/// Parts that a comparison goes into at most; sets that differ more differ throughout.
pub(super) const PARTS_MAX: usize = 4096;

/// How many documents that are not everywhere are told.
pub const UNEVEN_MAX: usize = 20_000;

/// A document as some event wrote it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DocumentVersion {
    /// Its collection.
    pub collection: String,
    /// Its key.
    pub key: String,
    /// When it was written: Unix milliseconds.
    pub wall: i64,
    /// Counter within the millisecond.
    pub logic: i32,
    /// Who wrote it, by its CBDDC id.
    pub origin: String,
}

/// A document whose newest version is not on every node. Where an event tells of that version, it is on
/// its way, or the audit of events says what keeps it. Where no node has such an event, it stays where it
/// is for ever: nodes of 2.3 lose events of local writes at each stop (`NODE.md`, section 3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uneven {
    /// Its newest version.
    pub version: DocumentVersion,
    /// The nodes that have it.
    pub on: Vec<String>,
    /// Those that have an older one, or none.
    pub not_on: Vec<String>,
}

impl Uneven {
    /// What is found where no event tells of it.
    pub fn without_event(self) -> EventFinding {
        let version = self.version;
        EventFinding {
            kind: FindingKind::DocumentWithoutEvent,
            origin: version.origin,
            collection: version.collection,
            key: version.key,
            wall: version.wall,
            logic: version.logic,
            detail: format!(
                "no event takes it to {}: write it again",
                self.not_on.join(", ")
            ),
            on: self.on,
            not_on: self.not_on,
        }
    }
}

/// Finds the documents that differ, by asking for parts.
#[derive(Debug)]
pub struct Comparison {
    open: Vec<Path>,
    asked: usize,
    findings: Vec<EventFinding>,
    uneven: Vec<Uneven>,
}

impl Default for Comparison {
    fn default() -> Self {
        Self {
            open: vec![Path::new()],
            asked: 0,
            findings: Vec::new(),
            uneven: Vec::new(),
        }
    }
}

impl Comparison {
    /// The next part to ask every node for; none: all is known.
    pub fn next_part(&mut self) -> Option<Path> {
        if self.asked >= PARTS_MAX {
            return None;
        }
        self.asked += 1;
        self.open.pop()
    }

    /// Takes what the nodes, by name, said of a part.
    pub fn tell(&mut self, path: &[u8], parts: &[(String, Part)]) {
        let is_listed = |part: &Part| matches!(part, Part::Listed(_));
        if parts.iter().all(|(_, part)| is_listed(part)) {
            self.compare_versions(parts);
            return self.compare_rows(parts);
        }
        let divided: Vec<_> = parts
            .iter()
            .map(|(_, part)| part.divided(path.len()))
            .collect();
        for child in 0..16_u8 {
            let mut of_child = divided
                .iter()
                .map(|digests| digests.get(usize::from(child)));
            let first = of_child.next();
            if of_child.any(|digest| Some(digest) != first) {
                self.open.push([path, &[child]].concat());
            }
        }
    }

    /// What was found: each document whose version is the same and whose content is not.
    pub fn finish(mut self) -> Vec<EventFinding> {
        self.findings
            .sort_by(|a, b| (&a.collection, &a.key).cmp(&(&b.collection, &b.key)));
        self.findings
    }

    /// The documents whose newest version is not on every node.
    pub fn take_uneven(&mut self) -> Vec<Uneven> {
        std::mem::take(&mut self.uneven)
    }

    fn compare_versions(&mut self, parts: &[(String, Part)]) {
        type Held<'a> = BTreeMap<&'a str, &'a DocumentRow>;
        let mut documents: BTreeMap<(&str, &str), Held<'_>> = BTreeMap::new();
        for (node, part) in parts {
            let Part::Listed(rows) = part else { continue };
            for row in rows {
                let of_document = documents.entry((&row.collection, &row.key)).or_default();
                of_document.insert(node, row);
            }
        }
        let order = |row: &DocumentRow| (row.version, row.origin.clone());
        for ((collection, key), held) in documents {
            let Some(newest) = held.values().copied().max_by_key(|row| order(row)) else {
                continue;
            };
            let (on, not_on): (Vec<_>, Vec<_>) =
                parts.iter().map(|(node, _)| node).partition(|node| {
                    let row = held.get(node.as_str());
                    row.is_some_and(|row| order(row) == order(newest))
                });
            // A deleted document is as good as none.
            let is_gone = |node: &&String| {
                let row = held.get(node.as_str());
                row.is_none_or(|row| row.digest.is_none())
            };
            let is_even = newest.digest.is_none() && not_on.iter().all(is_gone);
            if not_on.is_empty() || is_even || self.uneven.len() >= UNEVEN_MAX {
                continue;
            }
            self.uneven.push(Uneven {
                version: DocumentVersion {
                    collection: collection.to_owned(),
                    key: key.to_owned(),
                    wall: newest.version.0,
                    logic: newest.version.1,
                    origin: newest.origin.clone(),
                },
                on: on.into_iter().cloned().collect(),
                not_on: not_on.into_iter().cloned().collect(),
            });
        }
    }

    fn compare_rows(&mut self, parts: &[(String, Part)]) {
        type Version<'a> = (&'a str, &'a str, (i64, i32), &'a str);
        let mut versions: BTreeMap<Version<'_>, Vec<(&String, ContentDigest)>> = BTreeMap::new();
        for (node, part) in parts {
            let Part::Listed(rows) = part else { continue };
            for row in rows {
                let DocumentRow {
                    collection, key, ..
                } = row;
                let version = (
                    collection.as_str(),
                    key.as_str(),
                    row.version,
                    row.origin.as_str(),
                );
                if let Some(digest) = row.digest {
                    versions.entry(version).or_default().push((node, digest));
                }
            }
        }
        for ((collection, key, (wall, logic), origin), held) in versions {
            let mut contents: BTreeMap<ContentDigest, Vec<&String>> = BTreeMap::new();
            for (node, digest) in held {
                contents.entry(digest).or_default().push(node);
            }
            if contents.len() < 2 {
                continue;
            }
            let mut groups: Vec<Vec<&String>> = contents.into_values().collect();
            groups.sort_by_key(Vec::len);
            let told = groups.iter().map(|nodes| {
                let names: Vec<&str> = nodes.iter().map(|name| name.as_str()).collect();
                names.join(",")
            });
            self.findings.push(EventFinding {
                kind: FindingKind::PayloadDiffers,
                origin: origin.to_owned(),
                collection: collection.to_owned(),
                key: key.to_owned(),
                wall,
                logic,
                detail: format!(
                    "different contents on {}",
                    told.collect::<Vec<_>>().join(" and ")
                ),
                // The fewest nodes with the same content are the ones to look at.
                on: groups[0].iter().map(|name| (*name).clone()).collect(),
                not_on: Vec::new(),
            });
        }
    }
}
