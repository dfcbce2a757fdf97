//! What is known of the mesh beside the state: signed statements, tokens, signatures of records, and
//! how late it is.

use super::{SqliteError, SqliteStore, append};
use crate::ports::JournalLine;
use cbddc_domain::build::Digest;
use rusqlite::{OptionalExtension, params};

/// A use of a token, which counts together with the statement that it lets in, or not at all.
#[derive(Debug)]
pub struct TokenUse {
    /// The digest of its secret.
    pub secret: Digest,
    /// How often it may be used.
    pub uses: u32,
    /// What the journal says of it.
    pub line: JournalLine,
}

impl SqliteStore {
    /// The signed statements about the mesh's members, and who said each.
    pub async fn statements(&self) -> Result<Vec<(Vec<u8>, String)>, SqliteError> {
        self.run(|connection| {
            let query = "SELECT signed, author FROM statements ORDER BY subject";
            let mut statement = connection.prepare(query)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Writes a signed statement in the place of the one about the same subject, and the line; where a
    /// token is used for it, counts that, or fails with [`SqliteError::UsedUp`].
    pub async fn put_statement(
        &self,
        subject: String,
        signed: Vec<u8>,
        author: String,
        line: JournalLine,
        token: Option<TokenUse>,
    ) -> Result<(), SqliteError> {
        self.transact(move |transaction| {
            let mut lines = Vec::new();
            if let Some(TokenUse { secret, uses, line }) = token {
                let statement = "UPDATE grants SET used = used + 1 WHERE secret = ?1 AND used < ?2";
                if transaction.execute(statement, params![secret.as_bytes(), uses])? != 1 {
                    return Err(SqliteError::UsedUp);
                }
                lines.push(line);
            }
            lines.push(line);
            transaction.execute(
                "INSERT OR REPLACE INTO statements (subject, signed, author) VALUES (?1, ?2, ?3)",
                params![subject, signed, author],
            )?;
            append(transaction, lines)
        })
        .await
    }

    /// Writes the grant of a token; one that is here keeps its uses. Says whether it was new.
    pub async fn put_grant(
        &self,
        secret: Digest,
        signed: Vec<u8>,
        until_wall_ms: i64,
        line: JournalLine,
    ) -> Result<(), SqliteError> {
        self.transact(move |transaction| {
            // Tokens whose time was over a week ago only tell why they are refused.
            let old = line.wall_ms.saturating_sub(7 * 24 * 3600 * 1000);
            transaction.execute("DELETE FROM grants WHERE until_wall_ms < ?1", [old])?;
            let statement = "INSERT OR IGNORE INTO grants (secret, signed, until_wall_ms, used) \
                             VALUES (?1, ?2, ?3, 0)";
            transaction.execute(statement, params![secret.as_bytes(), signed, until_wall_ms])?;
            append(transaction, vec![line])
        })
        .await
    }

    /// How many tokens are kept.
    pub async fn count_grants(&self) -> Result<u64, SqliteError> {
        self.run(|connection| {
            Ok(connection.query_row("SELECT count(*) FROM grants", [], |row| row.get(0))?)
        })
        .await
    }

    /// The grant of a token by its secret's digest, and how often it was used.
    pub async fn grant(&self, secret: Digest) -> Result<Option<(Vec<u8>, u32)>, SqliteError> {
        self.run(move |connection| {
            let query = "SELECT signed, used FROM grants WHERE secret = ?1";
            let row = connection.query_row(query, [secret.as_bytes()], |row| {
                Ok((row.get(0)?, row.get(1)?))
            });
            Ok(row.optional()?)
        })
        .await
    }

    /// Records and their signatures, encoded.
    pub async fn evidence(&self) -> Result<Vec<Vec<u8>>, SqliteError> {
        self.run(|connection| {
            let mut statement = connection.prepare("SELECT signed FROM evidence")?;
            let rows = statement.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Writes a record and its signatures, encoded, by the digest of what its author signs.
    pub async fn put_evidence(&self, record: Digest, signed: Vec<u8>) -> Result<(), SqliteError> {
        self.run(move |connection| {
            connection.execute(
                "INSERT OR REPLACE INTO evidence (record, signed) VALUES (?1, ?2)",
                params![record.as_bytes(), signed],
            )?;
            Ok(())
        })
        .await
    }

    /// Drops records and their signatures.
    pub async fn drop_evidence(&self, records: Vec<Digest>) -> Result<(), SqliteError> {
        self.run(move |connection| {
            let transaction = connection.transaction()?;
            for record in records {
                let statement = "DELETE FROM evidence WHERE record = ?1";
                transaction.execute(statement, [record.as_bytes()])?;
            }
            transaction.commit()?;
            Ok(())
        })
        .await
    }

    /// The latest time that was written down, in Unix seconds.
    pub async fn latest_time_s(&self) -> Result<i64, SqliteError> {
        self.run(|connection| {
            let query = "SELECT max(coalesce((SELECT latest_s FROM clock WHERE id = 1), 0), \
                         coalesce((SELECT max(wall_ms) / 1000 FROM journal), 0))";
            Ok(connection.query_row(query, [], |row| row.get(0))?)
        })
        .await
    }

    /// Writes down how late it is.
    pub async fn put_time_s(&self, latest_s: i64) -> Result<(), SqliteError> {
        self.run(move |connection| {
            connection.execute(
                "INSERT INTO clock (id, latest_s) VALUES (1, ?1) \
                 ON CONFLICT (id) DO UPDATE SET latest_s = max(latest_s, ?1)",
                [latest_s],
            )?;
            Ok(())
        })
        .await
    }
}
