//! The documents as they stand, in no particular order.

use crate::schema::{Schema, quoted};
use crate::{OplogDb, OplogError};

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

    fn documents_sql(&self) -> String {
        match &self.schema {
            Schema::EfCore {
                has_documents: true,
                ..
            } => r#"SELECT m."Collection", m."Key", d."JsonData", m."IsDeleted", m."HlcPhysicalTime",
                m."HlcLogicalCounter", m."HlcNodeId" FROM "DocumentMetadata" m LEFT JOIN "Documents" d
                ON d."Collection" = m."Collection" AND d."Key" = m."Key""#
                .to_owned(),
            Schema::Sqlite091 { documents, .. } if !documents.is_empty() => {
                let parts = documents.iter().map(|table| {
                    format!(
                        r#"SELECT "Collection", "Key", "JsonData", "IsDeleted", "HlcWall", "HlcLogic",
                        "HlcNode" FROM {}"#,
                        quoted(table)
                    )
                });
                parts.collect::<Vec<_>>().join(" UNION ALL ")
            }
            // Of several events of a key the later one wins, by wall, logic and node.
            schema @ (Schema::EfCore { .. } | Schema::Sqlite091 { .. }) => format!(
                "SELECT c, k, j, o = 1, w, l, n FROM (SELECT *, row_number() OVER \
                 (PARTITION BY c, k ORDER BY w DESC, l DESC, n DESC) AS newest FROM ({})) \
                 WHERE newest = 1",
                schema.rows_and(r#", "PayloadJson" AS j"#, r#", "JsonData" AS j"#)
            ),
        }
    }
}
