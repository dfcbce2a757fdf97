//! The documents as they stand, in no particular order.

use crate::schema::{Schema, quoted};
use crate::{OplogDb, OplogError};
use cbddc_domain::documents::DocumentVersion;
use rusqlite::{OptionalExtension as _, params};

/// A document as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DocumentText<'a> {
    /// Its collection.
    pub collection: &'a str,
    /// Its key.
    pub key: &'a str,
    /// Its JSON text; unset once it was deleted.
    pub content: Option<&'a str>,
    /// The event that wrote it last: wall, logic.
    pub version: (i64, i32),
    /// Who wrote it last.
    pub origin: &'a str,
}

impl OplogDb {
    /// Where documents are read from, for people.
    pub fn documents_from(&self) -> &'static str {
        match &self.schema {
            Schema::EfCore {
                has_documents: false,
                ..
            } => "the newest event of each key",
            Schema::EfCore { .. } => "the table Documents",
            Schema::Sqlite091 { documents, .. } if documents.is_empty() => {
                "the newest event of each key"
            }
            Schema::Sqlite091 { .. } => "the tables Documents",
        }
    }

    /// Shows every document, one after the other.
    ///
    /// # Errors
    /// [`OplogError::Read`].
    pub fn each_document(&self, mut look: impl FnMut(&DocumentText<'_>)) -> Result<(), OplogError> {
        let sql = self.documents_sql();
        self.read(|db| {
            let mut statement = db.prepare(&sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let text = |column: usize| -> rusqlite::Result<Option<&str>> {
                    Ok(row.get_ref(column)?.as_str_or_null()?)
                };
                let is_deleted: bool = row.get(3)?;
                look(&DocumentText {
                    collection: text(0)?.unwrap_or_default(),
                    key: text(1)?.unwrap_or_default(),
                    content: text(2)?.filter(|_| !is_deleted),
                    version: (row.get(4)?, row.get(5)?),
                    origin: text(6)?.unwrap_or_default(),
                });
            }
            Ok(())
        })
    }

    /// Whether documents are kept apart from events, so that one can be there without the other.
    pub fn keeps_documents(&self) -> bool {
        match &self.schema {
            Schema::EfCore { has_documents, .. } => *has_documents,
            Schema::Sqlite091 { documents, .. } => !documents.is_empty(),
        }
    }

    /// Whether there is an event of this version, whatever its row says otherwise.
    ///
    /// # Errors
    /// [`OplogError::Read`].
    pub fn has_event(&self, version: &DocumentVersion) -> Result<bool, OplogError> {
        let sql = format!(
            "SELECT EXISTS (SELECT 1 FROM ({}) WHERE w = ?1 AND l = ?2 AND n = ?3)",
            self.schema.rows()
        );
        let DocumentVersion {
            wall,
            logic,
            origin,
            ..
        } = version;
        self.read(|db| {
            let mut statement = db.prepare_cached(&sql)?;
            statement.query_row(params![wall, logic, origin], |row| row.get(0))
        })
    }

    /// Whether the document is there in this version or a later one. [`None`]: it cannot be told, as
    /// documents are in tables of the application's own.
    ///
    /// # Errors
    /// [`OplogError::Read`].
    pub fn has_document(&self, version: &DocumentVersion) -> Result<Option<bool>, OplogError> {
        if !self.keeps_documents() {
            return Ok(None);
        }
        let sql = format!(
            "SELECT w, l, n FROM ({}) WHERE c = ?1 AND k = ?2",
            self.documents_sql()
        );
        let (collection, key) = (&version.collection, &version.key);
        let held: Option<(i64, i32, String)> = self.read(|db| {
            let mut statement = db.prepare_cached(&sql)?;
            let moment = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            statement.query_row([collection, key], moment).optional()
        })?;
        let wanted = (version.wall, version.logic, version.origin.clone());
        Ok(Some(held.is_some_and(|held| held >= wanted)))
    }

    /// The documents, and the deletions, written from one moment until another, in Unix milliseconds,
    /// that no event here explains: at most `most`, the oldest first. [`None`]: it cannot be told, as
    /// documents are in tables of the application's own.
    ///
    /// # Errors
    /// [`OplogError::Read`].
    pub fn documents_without_event(
        &self,
        from_wall_ms: i64,
        until_wall_ms: i64,
        most: usize,
    ) -> Result<Option<Vec<DocumentVersion>>, OplogError> {
        if !self.keeps_documents() {
            return Ok(None);
        }
        let sql = format!(
            "SELECT c, k, w, l, n FROM ({}) AS written WHERE w >= ?1 AND w < ?2 AND NOT EXISTS \
             (SELECT 1 FROM ({}) AS event WHERE event.w = written.w AND event.l = written.l \
             AND event.n = written.n) ORDER BY w, l, n LIMIT ?3",
            self.documents_sql(),
            self.schema.rows()
        );
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        self.read(|db| {
            let mut statement = db.prepare_cached(&sql)?;
            let version = |row: &rusqlite::Row<'_>| {
                Ok(DocumentVersion {
                    collection: row.get(0)?,
                    key: row.get(1)?,
                    wall: row.get(2)?,
                    logic: row.get(3)?,
                    origin: row.get(4)?,
                })
            };
            let rows = statement.query_map(params![from_wall_ms, until_wall_ms, most], version)?;
            rows.collect::<rusqlite::Result<_>>().map(Some)
        })
    }

    fn documents_sql(&self) -> String {
        match &self.schema {
            Schema::EfCore {
                has_documents: true,
                ..
            } => r#"SELECT m."Collection" AS c, m."Key" AS k, d."JsonData" AS j, m."IsDeleted" AS d,
                m."HlcPhysicalTime" AS w, m."HlcLogicalCounter" AS l, m."HlcNodeId" AS n FROM "DocumentMetadata" m LEFT JOIN "Documents" d
                ON d."Collection" = m."Collection" AND d."Key" = m."Key""#
                .to_owned(),
            Schema::Sqlite091 { documents, .. } if !documents.is_empty() => {
                let parts = documents.iter().map(|table| {
                    format!(
                        r#"SELECT "Collection" AS c, "Key" AS k, "JsonData" AS j, "IsDeleted" AS d,
                        "HlcWall" AS w, "HlcLogic" AS l, "HlcNode" AS n FROM {}"#,
                        quoted(table)
                    )
                });
                parts.collect::<Vec<_>>().join(" UNION ALL ")
            }
            // Of several events of a key the later one wins, by wall, logic and node.
            schema @ (Schema::EfCore { .. } | Schema::Sqlite091 { .. }) => format!(
                "SELECT c, k, j, o = 1 AS d, w, l, n FROM (SELECT *, row_number() OVER \
                 (PARTITION BY c, k ORDER BY w DESC, l DESC, n DESC) AS newest FROM ({})) \
                 WHERE newest = 1",
                schema.rows_and(r#", "PayloadJson" AS j"#, r#", "JsonData" AS j"#)
            ),
        }
    }
}
