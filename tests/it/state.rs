//! The agent's state database: what is saved is there after a restart, and damage is noticed.

use cbagent::adapters::sqlite::{SqliteError, SqliteStore};
use cbagent::ports::{JournalLine, Store as _};
use cbddc_domain::node::Node;
use cbddc_domain::phase::Phase;
use cbddc_domain::register::Epoch;
use rusqlite::Connection;
use std::path::Path;
use tempfile::TempDir;

fn line(number: u64) -> JournalLine {
    JournalLine {
        wall_ms: 1_700_000_000_000,
        kind: "test".into(),
        epoch: Some(Epoch {
            counter: number,
            nonce: u64::MAX,
        }),
        generation: Some(number),
        actor: "ana".into(),
        text: format!("line {number}"),
    }
}

/// A state with something in every place, saved by a real agent.
const SHAPE_1: &str = include_str!("../vectors/state-shape-1.json");

/// The same, with what shape 2 adds.
const SHAPE_2: &str = include_str!("../vectors/state-shape-2.json");

/// The same, with what triggers and people have come to.
const SHAPE_3: &str = include_str!("../vectors/state-shape-3.json");

/// Saves three times, and closes the database.
async fn filled(folder: &TempDir) -> (std::path::PathBuf, Node) {
    let path = folder.path().join("state.db");
    let (store, mut node) = SqliteStore::open(&path).expect("a new database");
    assert_eq!(node, Node::default());
    node = serde_json::from_str(SHAPE_1).expect("a state");
    let mut vote = node.register.decided.clone().expect("a decided record");
    vote.epoch = vote.epoch.next(1);
    node.register.sealed.insert(vote.epoch.next(2));
    node.register.closed.insert(vote.epoch.next(3));
    node.register.votes.insert(vote.epoch, vote);
    for number in 1..=3 {
        node.effects = number;
        store
            .save(&node, vec![line(2 * number - 1), line(2 * number)])
            .await
            .expect("it is saved");
    }
    drop(store);
    (path, node)
}

/// The database's thread closes it a moment after the last handle is gone.
fn reopened(path: &Path) -> Result<(SqliteStore, Node), SqliteError> {
    let mut outcome = SqliteStore::open(path);
    for _ in 0..200 {
        match &outcome {
            Err(SqliteError::InUse { .. }) => std::thread::yield_now(),
            Ok(_) | Err(_) => break,
        }
        outcome = SqliteStore::open(path);
    }
    outcome
}

#[tokio::test]
async fn what_was_saved_is_there_again() {
    let folder = TempDir::new().expect("a folder");
    let (path, node) = filled(&folder).await;
    let (store, found) = reopened(&path).expect("it opens again");
    assert_eq!(found, node);
    let lines = store.lines_after(4, 10).await.expect("the journal");
    let lines: Vec<_> = lines
        .into_iter()
        .map(|stored| (stored.number, stored.line))
        .collect();
    assert_eq!(lines, [(5, line(5)), (6, line(6))]);
    assert_eq!(*store.newest().borrow(), 6);
}

#[tokio::test]
async fn a_journal_that_was_changed_is_noticed() {
    let changes = [
        ("UPDATE journal SET text = 'line 4 ' WHERE number = 4", 4),
        ("UPDATE journal SET actor = 'bob' WHERE number = 1", 1),
        (
            "UPDATE journal SET wall_ms = wall_ms + 1 WHERE number = 6",
            6,
        ),
        ("UPDATE journal SET kind = 'Test' WHERE number = 2", 2),
        ("UPDATE journal SET epoch = NULL WHERE number = 3", 3),
        ("UPDATE journal SET generation = 6 WHERE number = 5", 5),
        // Nothing may move from one field into another.
        (
            "UPDATE journal SET actor = 'an', text = 'aline 4' WHERE number = 4",
            4,
        ),
        ("DELETE FROM journal WHERE number = 3", 3),
        ("DELETE FROM journal WHERE number > 4", 5),
        ("UPDATE journal SET hash = zeroblob(32) WHERE number = 2", 2),
    ];
    for (change, at) in changes {
        let folder = TempDir::new().expect("a folder");
        let (path, _) = filled(&folder).await;
        drop(reopened(&path).expect("it is in order"));
        let changed = || Connection::open(&path)?.execute(change, []);
        while changed().is_err() {
            std::thread::yield_now();
        }
        match reopened(&path) {
            Err(SqliteError::ChainBroken(line)) => assert_eq!(line, at, "{change}"),
            Err(error) => panic!("{change}: {error}"),
            Ok(_) => panic!("{change}: not noticed"),
        }
    }
}

/// Whoever can compute a line's own hash has to compute those of all later lines, too.
#[tokio::test]
async fn a_line_is_bound_to_those_before_it() {
    let (folder, other) = (TempDir::new(), TempDir::new());
    let (folder, other) = (folder.expect("a folder"), other.expect("a folder"));
    let (path, node) = filled(&folder).await;
    let forged = other.path().join("state.db");
    let (store, _) = SqliteStore::open(&forged).expect("a new database");
    let mut lines: Vec<_> = (1..=4).map(line).collect();
    lines[3].text = "another line 4".into();
    store.save(&node, lines).await.expect("it is saved");
    drop(store);
    drop(reopened(&forged).expect("the forged line fits those before it"));
    drop(reopened(&path).expect("it is in order"));
    let changed = || {
        let connection = Connection::open(&path)?;
        connection.execute("ATTACH ?1 AS forged", [forged.to_str()])?;
        let change = "UPDATE journal SET (text, hash) = \
                      (SELECT text, hash FROM forged.journal WHERE number = 4) WHERE number = 4";
        connection.execute(change, [])
    };
    while changed().is_err() {
        std::thread::yield_now();
    }
    assert!(matches!(reopened(&path), Err(SqliteError::ChainBroken(5))));
}

#[tokio::test]
async fn two_agents_never_share_a_state() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("state.db");
    let (_held, _) = SqliteStore::open(&path).expect("a new database");
    assert!(matches!(
        SqliteStore::open(&path),
        Err(SqliteError::InUse { .. })
    ));
}

#[tokio::test]
async fn a_newer_shape_is_left_alone() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("state.db");
    Connection::open(&path)
        .and_then(|c| c.pragma_update(None, "user_version", 99))
        .expect("a database");
    assert!(matches!(
        SqliteStore::open(&path),
        Err(SqliteError::Newer { found: 99 })
    ));
}

/// A state that an earlier agent saved must be read by every later one. The file is from a real
/// agent; a new shape gets a file of its own beside it.
#[test]
fn saved_states_of_every_shape_are_read() {
    let node: Node = serde_json::from_str(SHAPE_1).expect("the state of shape 1");
    assert!(
        matches!(node.phase, Phase::Steady { running: Some(6) }),
        "{:?}",
        node.phase
    );
    assert!(node.history.iter().count() >= 5 && node.rollouts.len() >= 4);
    let decided = node.register.decided.as_ref().expect("a decided record");
    assert_eq!(decided.epoch.counter, 6);
    assert_eq!(node.register.revocations.len(), 1);
    round_trips(&node);
    assert!(node.starts.is_sound() && node.peers.is_empty());
    let node: Node = serde_json::from_str(SHAPE_2).expect("the state of shape 2");
    round_trips(&node);
    let register = &node.register;
    assert!(
        register
            .decided
            .as_ref()
            .is_some_and(|record| record.forced)
    );
    let elected = register
        .elected()
        .expect("who votes is kept beside what was forced");
    assert!(elected.previous.is_some() && elected.voters.len() == 2);
    assert!(register.forgotten > Default::default() && !node.starts.is_sound());
    assert_eq!((node.starts.known.len(), node.peers.len()), (2, 1));
    assert!(
        node.history
            .iter()
            .any(|generation| generation.forced.is_some())
    );
}

#[test]
fn what_triggers_and_people_stopped_is_saved() {
    let node: Node = serde_json::from_str(SHAPE_3).expect("the state of shape 3");
    round_trips(&node);
    let (vigil, stops) = (&node.vigil, &node.stops);
    assert!(
        vigil
            .guard
            .as_ref()
            .is_some_and(|guard| guard.left.is_some())
    );
    assert!(vigil.rollback.is_some() && vigil.patience.is_some());
    assert_eq!(
        (vigil.restarts.len(), vigil.due.len(), vigil.alarms.len()),
        (1, 1, 1)
    );
    assert!(stops.drained.is_some() && stops.quarantined.is_some() && stops.frozen.is_some());
    assert!(node.bake.is_some_and(|bake| bake.unclean));
}

fn round_trips(node: &Node) {
    let again: Node =
        serde_json::from_str(&serde_json::to_string(node).expect("JSON")).expect("the same");
    assert_eq!(again, *node);
}
