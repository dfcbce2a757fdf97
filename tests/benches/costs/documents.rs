//! Digests of all documents of a node, beside a program that only reads the same rows.

use cbagent::adapters::document_digests::{DocumentDigests, Ways};
use cbagent::adapters::oplog_reader::OplogReader;
use cbddc_domain::hlc::Hlc;
use cbddc_tests::figures::{compare, median, timed};
use cbddc_tests::fixture::store::{self, Document};
use rusqlite::{Connection, OpenFlags};
use std::path::{Path, PathBuf};
use tokio::runtime::Runtime;

const DOCUMENTS: i64 = 100_000;

const TURNS: u32 = 7;

/// What is read of each document.
const ROWS: &str = r#"SELECT m."Collection", m."Key", d."JsonData", m."IsDeleted", m."HlcPhysicalTime",
    m."HlcLogicalCounter", m."HlcNodeId" FROM "DocumentMetadata" m LEFT JOIN "Documents" d
    ON d."Collection" = m."Collection" AND d."Key" = m."Key""#;

/// Prints one line.
pub(crate) fn measure() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("node.db");
    write(&path);
    let runtime = Runtime::new().expect("a runtime");
    let digests = DocumentDigests::new(OplogReader::new(vec![path.clone()]), PathBuf::new());
    let (mut ours, mut read) = (Vec::new(), Vec::new());
    for turn in 0..=TURNS {
        let made = timed(|| {
            let made = runtime.block_on(digests.state("", Vec::new(), Ways::Database));
            made.expect("the database can be read");
        });
        let plain = timed(|| assert!(read_plainly(&path) > 0));
        // The first turn only warms up.
        if turn > 0 {
            ours.push(made);
            read.push(plain);
        }
    }
    let job = format!("digests of {DOCUMENTS}");
    let peer = "the same rows read by rusqlite";
    compare(&job, peer, median(&ours), median(&read), None);
}

/// Documents of some 200 bytes, as a till's orders are.
fn write(path: &Path) {
    let db = store::open(path).expect("a database");
    db.execute_batch("BEGIN").expect("SQL");
    for number in 0..DOCUMENTS {
        let content = format!(
            r#"{{"number":{number},"till":"till-{}","lines":[{{"article":"{:013}","count":2,"price":"{}.95"}},{{"article":"{:013}","count":1,"price":"4.50"}}],"paid":true}}"#,
            number % 9,
            number * 7,
            number % 100,
            number * 11
        );
        let document = Document {
            collection: format!("collection-{}", number % 7),
            key: format!("document-{number:08}"),
            content: Some(content),
            hlc: Hlc::new(1_700_000_000_000 + number, 0, "n1".to_owned()),
        };
        store::write_document(&db, &document).expect("SQL");
    }
    db.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)")
        .expect("SQL");
}

/// Reads the rows and counts their bytes.
fn read_plainly(path: &Path) -> usize {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let db = db.expect("a database");
    let mut statement = db.prepare(ROWS).expect("SQL");
    let mut rows = statement.query([]).expect("SQL");
    let mut bytes = 0;
    while let Some(row) = rows.next().expect("SQL") {
        for column in [0, 1, 2, 6] {
            let text = row.get_ref(column).expect("a column");
            bytes += text.as_str().expect("a text").len();
        }
    }
    bytes
}
