//! The documents of a node whose database does not tell them: by the snapshot that it would send a peer.
//! 1.x and 2.x send JSON, 0.9.1 its database file (`NODE.md`, section 8).
//!
//! It is kept in a file for as long as it is read, and read without being held in memory.

use crate::adapters::disk;
use crate::adapters::effort::of_processes;
use crate::adapters::node_protocol::{NodeProtocol, ProtocolError};
use cbddc_domain::documents::{DocumentRow, content_digest};
use cbddc_domain::units::show_size_bytes;
use cbddc_oplog::{OplogDb, OplogError};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};
use tokio::time::Instant;

/// The most that a node may send.
const BYTES_MAX: u64 = 1 << 30;

/// Of the free space, this part may be taken.
const FREE_PART: u64 = 10;

/// How a database file begins (the file format of SQLite, section 1.3).
const SQLITE: &[u8] = b"SQLite format 3\0";

/// Why there is no snapshot, or none that can be read.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The node did not send it.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The token was refused.
    #[error("the node refuses the cluster's token")]
    Refused,
    /// It cannot be kept.
    #[error("cannot keep the node's snapshot in {}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is not JSON as expected.
    #[error("the node's snapshot cannot be read")]
    Json(#[source] serde_json::Error),
    /// It is a database that cannot be read.
    #[error("the node's snapshot cannot be read")]
    Database(#[source] OplogError),
}

/// A snapshot as the node sent it; the file goes with this.
#[derive(Debug)]
pub struct Sent {
    path: PathBuf,
    /// How large it is, how long it took, and what of the node's processor time, for people.
    pub told: String,
}

impl Drop for Sent {
    fn drop(&mut self) {
        // With what SQLite has put beside a database.
        let folder = self.path.parent().unwrap_or(&self.path);
        if let Err(error) = disk::empty_folder(folder) {
            tracing::warn!(%error, "a snapshot that was read stays in {}", folder.display());
        }
    }
}

/// Has the node send its snapshot into the folder. `pid` is its process, to tell what that cost it.
///
/// # Errors
/// [`StreamError`].
pub async fn fetch(
    protocol: &NodeProtocol,
    folder: &Path,
    pid: Option<u32>,
) -> Result<Sent, StreamError> {
    let path = folder.join("documents");
    let failed = |source| StreamError::Io {
        path: folder.to_owned(),
        source,
    };
    // What an agent that was killed has left.
    std::fs::create_dir_all(folder).map_err(failed)?;
    disk::set_mode(folder, 0o700).map_err(failed)?;
    disk::empty_folder(folder).map_err(failed)?;
    let most = BYTES_MAX.min(disk::free_bytes(folder).map_err(failed)? / FREE_PART);
    let pids: Vec<u32> = pid.into_iter().collect();
    let spent = || of_processes(&pids).map(|effort| effort.processor_ms);
    let (began, before) = (Instant::now(), spent());
    let file = File::create_new(&path).map_err(failed)?;
    let mut sent = Sent {
        path,
        told: String::new(),
    };
    let mut file = tokio::fs::File::from_std(file);
    let bytes = protocol.snapshot(&mut file, most).await?;
    let bytes = bytes.ok_or(StreamError::Refused)?;
    let cost = match (before, spent()) {
        (Some(before), Some(after)) => format!(
            ", {} ms of its processor time",
            after.saturating_sub(before)
        ),
        _ => String::new(),
    };
    sent.told = format!(
        "a snapshot that the node sent: {} in {} ms{cost}",
        show_size_bytes(bytes),
        began.elapsed().as_millis()
    );
    Ok(sent)
}

impl Sent {
    /// Shows each document. Blocks.
    ///
    /// # Errors
    /// [`StreamError::Json`], [`StreamError::Database`], [`StreamError::Io`].
    pub fn each_document(&self, look: impl FnMut(DocumentRow)) -> Result<(), StreamError> {
        let failed = |source| StreamError::Io {
            path: self.path.clone(),
            source,
        };
        let mut first = Vec::new();
        let file = File::open(&self.path).map_err(failed)?;
        let mut begin = (&file).take(SQLITE.len() as u64);
        begin.read_to_end(&mut first).map_err(failed)?;
        if first == SQLITE {
            return self.of_database(look);
        }
        let rest = first.chain(&file);
        let mut reader = serde_json::Deserializer::from_reader(BufReader::new(rest));
        Snapshot(look)
            .deserialize(&mut reader)
            .and_then(|()| reader.end())
            .map_err(StreamError::Json)
    }

    fn of_database(&self, mut look: impl FnMut(DocumentRow)) -> Result<(), StreamError> {
        let db = OplogDb::open_copy(&self.path).map_err(StreamError::Database)?;
        let read = db.each_document(|document| {
            look(DocumentRow {
                collection: document.collection.to_owned(),
                key: document.key.to_owned(),
                version: document.version,
                origin: document.origin.to_owned(),
                digest: document.content.map(content_digest),
            });
        });
        read.map_err(StreamError::Database)
    }
}

/// The whole JSON object: all but its documents is passed over.
struct Snapshot<F>(F);

impl<'de, F: FnMut(DocumentRow)> DeserializeSeed<'de> for Snapshot<F> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(DocumentRow)> Visitor<'de> for Snapshot<F> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a snapshot")
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut found = false;
        while let Some(name) = map.next_key::<String>()? {
            if name == "Documents" {
                found = true;
                map.next_value_seed(Documents(&mut self.0))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        match found {
            true => Ok(()),
            false => Err(serde::de::Error::missing_field("Documents")),
        }
    }
}

struct Documents<'a, F>(&'a mut F);

impl<'de, F: FnMut(DocumentRow)> DeserializeSeed<'de> for Documents<'_, F> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(DocumentRow)> Visitor<'de> for Documents<'_, F> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("documents")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while let Some(document) = items.next_element::<Document>()? {
            (self.0)(document.row());
        }
        Ok(())
    }
}

/// A document of the stream, by the names that .NET gives.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    collection: String,
    key: String,
    /// A text that is JSON, or JSON itself.
    #[serde(default)]
    json_data: Value,
    is_deleted: bool,
    hlc_wall: i64,
    hlc_logic: i32,
    hlc_node: String,
}

impl Document {
    fn row(self) -> DocumentRow {
        let digest = match self.json_data {
            _ if self.is_deleted => None,
            Value::Null => None,
            Value::String(text) => Some(content_digest(&text)),
            json @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                Some(content_digest(&json.to_string()))
            }
        };
        DocumentRow {
            collection: self.collection,
            key: self.key,
            version: (self.hlc_wall, self.hlc_logic),
            origin: self.hlc_node,
            digest,
        }
    }
}
