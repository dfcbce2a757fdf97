//! Compares database files: copies, or those of nodes that are off.

use super::contents::compare_files;
use crate::error::CtlError;
use cbddc_domain::audit::{Audit, AuditReport, Source};
use cbddc_oplog::{Cursor, OplogDb, OplogError};
use std::path::PathBuf;

/// Rows read at once.
const PAGE_ROWS: usize = 4096;

/// Compares the events of database files. Each is called as its path; a file's clock is what its
/// boundaries and events show, so that what one lacks at its end is not called missed.
///
/// # Errors
/// When a file cannot be read, or has no oplog.
pub fn audit_files(
    files: &[PathBuf],
    with_documents: bool,
) -> Result<(Vec<OplogDb>, AuditReport), CtlError> {
    let failed = |error: OplogError| {
        let what = error.to_string();
        match std::error::Error::source(&error) {
            Some(why) => CtlError::failed(format!("{what}: {why}")),
            None => CtlError::failed(what),
        }
    };
    let mut databases = Vec::new();
    let mut sources = Vec::new();
    for file in files {
        let db = OplogDb::open(file).map_err(failed)?;
        sources.push(Source {
            name: file.display().to_string(),
            origin: String::new(),
            interests: Vec::new(),
            clock: db.clock().map_err(failed)?,
            boundaries: db.boundaries().map_err(failed)?,
        });
        databases.push(db);
    }
    let mut audit = Audit::new(sources, 0);
    let mut next: Vec<Option<Cursor>> = vec![Some(Cursor::at(i64::MIN)); databases.len()];
    while let Some(hungry) = audit.hungry() {
        let db = &databases[hungry];
        let Some(cursor) = next[hungry].take() else {
            audit.end(hungry, db.boundaries().map_err(failed)?);
            continue;
        };
        let (page, after) = db.page(&cursor, PAGE_ROWS).map_err(failed)?;
        next[hungry] = after;
        let fed = audit.feed(hungry, page);
        fed.map_err(|fault| CtlError::failed(fault.to_string()))?;
    }
    let mut report = audit.finish();
    if with_documents {
        report.add_all(compare_files(&databases).map_err(failed)?);
    }
    Ok((databases, report))
}
