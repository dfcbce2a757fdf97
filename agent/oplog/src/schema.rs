//! The two schemas, as one set of columns: w(all), l(ogic), n(ode), i(d), c(ollection), k(ey),
//! o(peration), h(ash), p(revious).

use rusqlite::Connection;
use std::path::PathBuf;

/// Why a database could not be read.
#[derive(Debug, thiserror::Error)]
pub enum OplogError {
    /// It is no database, or not there.
    #[error("cannot open the database {path}")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
    /// It has no table of events.
    #[error(
        "the database {0} has no oplog of a schema that is known: EF Core, or SQLite as of 0.9.1"
    )]
    NoOplog(PathBuf),
    /// It was opened, and then a statement failed.
    #[error("cannot read the database {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: rusqlite::Error,
    },
}

/// Which tables there are.
#[derive(Debug)]
pub(crate) enum Schema {
    /// `Entities/*.cs`. The documents are in the application's own tables; the fixture has one.
    EfCore {
        has_boundaries: bool,
        has_documents: bool,
    },
    /// `SqlitePeerStore.cs` of 0.9.1: one table, or one per collection.
    Sqlite091 {
        oplogs: Vec<String>,
        documents: Vec<String>,
        has_boundaries: bool,
    },
}

impl Schema {
    pub(crate) fn of(db: &Connection) -> rusqlite::Result<Option<Self>> {
        let mut statement = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
        let tables = statement.query_map([], |row| row.get::<_, String>(0))?;
        let tables: Vec<String> = tables.collect::<rusqlite::Result<_>>()?;
        let has = |name: &str| tables.iter().any(|table| table == name);
        let has_column = |table: &str, column: &str| {
            let sql = "SELECT count(*) FROM pragma_table_info(?) WHERE name = ?";
            db.query_row(sql, [table, column], |row| row.get::<_, i64>(0))
                .map(|count| count > 0)
        };
        if has("Oplog") && has_column("Oplog", "TimestampPhysicalTime")? {
            return Ok(Some(Self::EfCore {
                has_boundaries: has("SnapshotMetadata"),
                has_documents: has("Documents")
                    && has("DocumentMetadata")
                    && has_column("Documents", "JsonData")?,
            }));
        }
        let all = |prefix: &str| {
            let of = |table: &&String| {
                table
                    .strip_prefix(prefix)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
            };
            tables.iter().filter(of).cloned().collect::<Vec<String>>()
        };
        let mut oplogs = Vec::new();
        for table in all("Oplog") {
            if has_column(&table, "HlcWall")? {
                oplogs.push(table);
            }
        }
        Ok((!oplogs.is_empty()).then(|| Self::Sqlite091 {
            oplogs,
            documents: all("Documents"),
            has_boundaries: has("SnapshotMetadata"),
        }))
    }

    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::EfCore { .. } => "EF Core",
            Self::Sqlite091 { .. } => "SQLite 0.9.1",
        }
    }

    pub(crate) fn boundaries(&self) -> Option<String> {
        let (has, columns) = match self {
            Self::EfCore { has_boundaries, .. } => (
                has_boundaries,
                "NodeId, TimestampPhysicalTime, TimestampLogicalCounter, Hash",
            ),
            Self::Sqlite091 { has_boundaries, .. } => {
                (has_boundaries, "NodeId, HlcWall, HlcLogic, Hash")
            }
        };
        has.then(|| format!("SELECT {columns} FROM SnapshotMetadata"))
    }

    /// A query for all rows, in any order.
    pub(crate) fn rows(&self) -> String {
        self.rows_and("", "")
    }

    /// All rows with further columns: the names in EF Core's schema and in that of 0.9.1.
    pub(crate) fn rows_and(&self, ef_core: &str, sqlite: &str) -> String {
        match self {
            Self::EfCore { .. } => format!(
                r#"SELECT "TimestampPhysicalTime" AS w, "TimestampLogicalCounter" AS l,
                "TimestampNodeId" AS n, "Id" AS i, "Collection" AS c, "Key" AS k, "Operation" AS o,
                "Hash" AS h, "PreviousHash" AS p {ef_core} FROM "Oplog""#
            ),
            Self::Sqlite091 { oplogs, .. } => {
                let parts = oplogs.iter().map(|table| {
                    format!(
                        r#"SELECT "HlcWall" AS w, "HlcLogic" AS l, "HlcNode" AS n, "Id" AS i,
                        "Collection" AS c, "Key" AS k, "Operation" AS o, "Hash" AS h,
                        "PreviousHash" AS p {sqlite} FROM {}"#,
                        quoted(table)
                    )
                });
                parts.collect::<Vec<_>>().join(" UNION ALL ")
            }
        }
    }

    /// A page of rows in order. The bare comparison of `w` is for the index.
    pub(crate) fn page(&self) -> String {
        format!(
            "SELECT w, l, n, i, c, k, o, h, p FROM ({}) \
             WHERE w >= ?1 AND (w, l, n, i) > (?1, ?2, ?3, ?4) ORDER BY w, l, n, i LIMIT ?5",
            self.rows()
        )
    }
}

/// A name that is nothing but a name.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
