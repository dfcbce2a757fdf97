//! Events by columns, clocks and boundaries.

use super::{Malformed, bounded, names, text};
use crate::v1;
use cbddc_domain::audit::{Boundaries, Link, OddLinks, Page, PageRow};
use cbddc_domain::documents::{ContentDigest, DocumentRow, DocumentVersion, Part};
use cbddc_domain::hlc::VectorClock;
use cbddc_domain::oplog::Operation;
use cbddc_domain::replication::{ACCEPTED_MAX, ACCEPTED_TEXT_MAX, Accepted, FindingKind, Known};
use std::collections::BTreeMap;

/// The most rows in a page.
pub const PAGE_ROWS_MAX: usize = 65_536;

/// The most documents that are told or asked for at once.
pub const VERSIONS_MAX: usize = 1000;

/// A document's version as messages carry it.
pub fn version_to_proto(version: &DocumentVersion) -> v1::DocumentVersion {
    v1::DocumentVersion {
        collection: version.collection.clone(),
        key: version.key.clone(),
        wall: version.wall,
        logic: version.logic,
        origin: version.origin.clone(),
    }
}

/// Documents' versions from messages.
///
/// # Errors
/// [`Malformed::TooLarge`] for more than [`VERSIONS_MAX`].
pub fn versions_from_proto(
    messages: Vec<v1::DocumentVersion>,
) -> Result<Vec<DocumentVersion>, Malformed> {
    if messages.len() > VERSIONS_MAX {
        return Err(Malformed::TooLarge {
            field: "documents",
            bound: VERSIONS_MAX as u64,
        });
    }
    let version = |message: v1::DocumentVersion| DocumentVersion {
        collection: message.collection,
        key: message.key,
        wall: message.wall,
        logic: message.logic,
        origin: message.origin,
    };
    Ok(messages.into_iter().map(version).collect())
}

/// A vector clock as messages carry it.
pub fn clock_to_proto(clock: &VectorClock) -> Vec<v1::ClockEntry> {
    let entry = |(origin, (wall, logic)): (&String, &(i64, i32))| v1::ClockEntry {
        origin: origin.clone(),
        wall: *wall,
        logic: *logic,
    };
    clock.0.iter().map(entry).collect()
}

/// A vector clock from a message.
pub fn clock_from_proto(entries: Vec<v1::ClockEntry>) -> VectorClock {
    let entries = entries
        .into_iter()
        .map(|entry| (entry.origin, (entry.wall, entry.logic)));
    VectorClock(entries.collect())
}

/// Boundaries as messages carry them.
pub fn boundaries_to_proto(boundaries: &Boundaries) -> Vec<v1::PruneBoundary> {
    let entries = boundaries.iter();
    let entry = |(origin, ((wall, logic), hash)): (&String, &((i64, i32), Link))| {
        let hash = Some(hash).filter(|hash| **hash != Link::NONE);
        v1::PruneBoundary {
            origin: origin.clone(),
            wall: *wall,
            logic: *logic,
            hash: hash.map(|hash| hash.0.to_vec()).unwrap_or_default().into(),
        }
    };
    entries.map(entry).collect()
}

/// Boundaries from a message.
///
/// # Errors
/// [`Malformed::TooLarge`] for a hash that is not 32 bytes long.
pub fn boundaries_from_proto(entries: Vec<v1::PruneBoundary>) -> Result<Boundaries, Malformed> {
    let mut boundaries = BTreeMap::new();
    for entry in entries {
        let hash = if entry.hash.is_empty() {
            Link::NONE
        } else {
            link(&entry.hash).ok_or(Malformed::TooLarge {
                field: "hash",
                bound: 32,
            })?
        };
        boundaries.insert(entry.origin, ((entry.wall, entry.logic), hash));
    }
    Ok(boundaries)
}

fn link(bytes: &[u8]) -> Option<Link> {
    bytes.try_into().ok().map(Link)
}

/// A page by columns.
pub fn page_to_proto(page: Page) -> v1::OplogPage {
    let rows = &page.rows;
    let mut before = 0;
    let walls = rows.iter().map(|row| {
        let difference = row.wall.wrapping_sub(before);
        before = row.wall;
        difference
    });
    let wall = walls.collect();
    let mut end = 0;
    let lengths = rows.iter().map(|row| {
        let length = row.key_end - end;
        end = row.key_end;
        length
    });
    let key_length = lengths.collect();
    let links = |of: fn(&PageRow) -> &Link| {
        let mut bytes = Vec::with_capacity(rows.len() * 32);
        rows.iter()
            .for_each(|row| bytes.extend_from_slice(&of(row).0));
        bytes.into()
    };
    let odd = rows.iter().zip(0..).filter_map(|(row, place)| {
        let odd = row.odd.as_ref()?;
        Some(v1::OddHashes {
            row: place,
            hash: odd.hash.clone(),
            previous_hash: odd.previous.clone(),
        })
    });
    v1::OplogPage {
        wall,
        logic: rows.iter().map(|row| row.logic).collect(),
        origin: rows.iter().map(|row| row.origin).collect(),
        collection: rows.iter().map(|row| row.collection).collect(),
        key_length,
        operation: rows
            .iter()
            .map(|row| row.operation.number())
            .collect::<Vec<u8>>()
            .into(),
        hash: links(|row| &row.hash),
        previous_hash: links(|row| &row.previous),
        odd: odd.collect(),
        names: page.names,
        keys: page.keys,
    }
}

/// A page from a message.
///
/// # Errors
/// [`Malformed`] where the columns do not make rows.
pub fn page_from_proto(message: v1::OplogPage) -> Result<Page, Malformed> {
    let count = message.wall.len();
    if count > PAGE_ROWS_MAX {
        return Err(Malformed::TooLarge {
            field: "wall",
            bound: PAGE_ROWS_MAX as u64,
        });
    }
    let lengths = [
        message.logic.len(),
        message.origin.len(),
        message.collection.len(),
        message.key_length.len(),
        message.operation.len(),
    ];
    let links = [message.hash.len(), message.previous_hash.len()];
    if lengths.iter().any(|length| *length != count)
        || links.iter().any(|length| *length != 32 * count)
    {
        return Err(Malformed::Uneven("page"));
    }
    let mut rows = Vec::with_capacity(count);
    let (mut wall, mut key_end) = (0_i64, 0_u32);
    for row in 0..count {
        wall = wall.wrapping_add(message.wall[row]);
        let longer = key_end.checked_add(message.key_length[row]);
        key_end = longer.ok_or(Malformed::Uneven("key_length"))?;
        let operation = Operation::from_number(message.operation[row].into());
        let at = row * 32..(row + 1) * 32;
        let linked = link(&message.hash[at.clone()]).zip(link(&message.previous_hash[at]));
        let (hash, previous) = linked.ok_or(Malformed::Uneven("hash"))?;
        rows.push(PageRow {
            wall,
            logic: message.logic[row],
            origin: message.origin[row],
            collection: message.collection[row],
            key_end,
            operation: operation.ok_or(Malformed::UnknownValue("operation"))?,
            hash,
            previous,
            odd: None,
        });
    }
    let mut page = Page {
        names: message.names,
        keys: message.keys,
        rows,
    };
    for odd in message.odd {
        let texts = OddLinks {
            hash: odd.hash,
            previous: odd.previous_hash,
        };
        if !page.restore_odd(odd.row as usize, texts) {
            return Err(Malformed::Uneven("odd"));
        }
    }
    Ok(page)
}

/// A part of the documents' digests, without what is said of the whole.
pub fn part_to_proto(part: Part) -> v1::ReadDigestsResponse {
    let bytes = |digest: Option<ContentDigest>| {
        let digest = digest.map(|digest| digest.to_vec());
        digest.unwrap_or_default().into()
    };
    let mut message = v1::ReadDigestsResponse::default();
    match part {
        Part::Divided(digests) => message.digests = digests.into_iter().map(bytes).collect(),
        Part::Listed(rows) => {
            let rows = rows.into_iter().map(|row| v1::DocumentDigest {
                collection: row.collection,
                key: row.key,
                wall: row.version.0,
                logic: row.version.1,
                origin: row.origin,
                digest: bytes(row.digest),
            });
            message.documents = rows.collect();
        }
    }
    message
}

/// A part from a message.
///
/// # Errors
/// [`Malformed`] where it has neither sixteen digests nor documents, or digests of another length.
pub fn part_from_proto(message: v1::ReadDigestsResponse) -> Result<Part, Malformed> {
    let digest = |bytes: &[u8]| match bytes {
        [] => Ok::<_, Malformed>(None),
        bytes => {
            let digest: Result<ContentDigest, _> = bytes.try_into();
            digest.map(Some).map_err(|_| Malformed::Uneven("digest"))
        }
    };
    if message.digests.is_empty() {
        let rows = message.documents.into_iter().map(|row| {
            Ok::<_, Malformed>(DocumentRow {
                digest: digest(&row.digest)?,
                collection: row.collection,
                key: row.key,
                version: (row.wall, row.logic),
                origin: row.origin,
            })
        });
        return Ok(Part::Listed(rows.collect::<Result<_, Malformed>>()?));
    }
    if message.digests.len() != 16 {
        return Err(Malformed::Uneven("digests"));
    }
    let digests = message.digests.iter().map(|bytes| digest(bytes));
    Ok(Part::Divided(digests.collect::<Result<_, Malformed>>()?))
}

impl From<&Accepted> for v1::AcceptedFindings {
    fn from(accepted: &Accepted) -> Self {
        let found = |known: &Known| v1::AcceptedFinding {
            cluster: known.cluster.clone(),
            node: known.node.to_string(),
            kind: known.kind.as_str().to_owned(),
            count: known.count,
            text: known.text.clone(),
        };
        Self {
            reason: accepted.reason.clone(),
            window_ms: accepted.window_ms,
            found: accepted.found.iter().map(found).collect(),
            late: accepted.late.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<v1::AcceptedFindings> for Accepted {
    type Error = Malformed;

    fn try_from(given: v1::AcceptedFindings) -> Result<Self, Malformed> {
        bounded("accepted.found", given.found.len(), ACCEPTED_MAX)?;
        let found = given.found.into_iter().map(|known| {
            bounded("accepted.found.text", known.text.len(), ACCEPTED_TEXT_MAX)?;
            Ok(Known {
                cluster: text("accepted.found.cluster", known.cluster)?,
                node: known.node.parse()?,
                kind: FindingKind::from_word(&known.kind)
                    .ok_or(Malformed::UnknownValue("accepted.found.kind"))?,
                count: known.count,
                text: known.text,
            })
        });
        Ok(Self {
            reason: text("accepted.reason", given.reason)?,
            window_ms: given.window_ms,
            found: found.collect::<Result<_, Malformed>>()?,
            late: names("accepted.late", given.late)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{page_from_proto, page_to_proto};
    use cbddc_domain::audit::{Page, RowText};
    use cbddc_domain::oplog::Operation;

    #[test]
    fn pages_come_back_as_they_went() {
        let hash = "0123456789abcdef".repeat(4);
        let mut page = Page::default();
        for (wall, key, hash, previous) in [
            (5, "a", hash.as_str(), ""),
            (5, "", "odd", hash.as_str()),
            (i64::MAX, "ü", "", "F"),
            (9, "c", "", ""),
        ] {
            page.push(&RowText {
                wall,
                logic: -1,
                origin: "o",
                collection: key,
                key,
                operation: Operation::Delete,
                hash,
                previous,
            });
        }
        let message = page_to_proto(page.clone());
        assert_eq!(page_from_proto(message.clone()), Ok(page));
        let mut short = message;
        short.logic.pop();
        assert!(page_from_proto(short).is_err());
    }
}
