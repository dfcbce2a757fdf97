//! Judging, from tables as text.

use super::judge::{
    Expected, JOINS_MS, Joined, STANDS_MS, Shown, Standing, Verdict, by_owners, judge,
};
use super::table::{Row, State};

fn row(text: &str) -> Row {
    let words: Vec<&str> = text.split(' ').collect();
    let state = match words[2] {
        "L" => State::Listens,
        _ => State::Established,
    };
    Row {
        local: words[0].parse().unwrap(),
        remote: words[1].parse().unwrap(),
        state,
        inode: words[3].parse().unwrap(),
    }
}

fn expected(address: &str, at: &[&str]) -> Expected {
    Expected {
        address: address.to_owned(),
        at: Ok(at.iter().map(|at| at.parse().unwrap()).collect()),
    }
}

/// A node on 10.0.0.6 that listens on 4001 and holds the sockets below 100.
fn shown(rows: &[&str]) -> Shown {
    let mut rows: Vec<Row> = rows.iter().map(|text| row(text)).collect();
    rows.push(row("[::]:4001 [::]:0 L 1"));
    Shown {
        rows,
        own: (1..100).collect(),
        sync_port: 4001,
    }
}

/// What is said of the first peer once all connections have stood for so long.
fn verdict(peers: &[Expected], shown: &Shown, stood_ms: u64) -> Verdict {
    let mut standing = Standing::default();
    standing.look(shown, 1_000);
    let now_ms = 1_000 + stood_ms;
    standing.look(shown, now_ms);
    judge(&peers[0], peers, shown, &standing, now_ms)
}

fn known(joined: Joined) -> Verdict {
    Verdict::Known(joined)
}

#[test]
fn an_outgoing_connection_of_the_node_is_joined_once_it_has_stood() {
    let peers = [expected("till-7:4001", &["10.0.0.7:4001"])];
    let cases: [(&[&str], Joined); 5] = [
        (&["10.0.0.6:5000 10.0.0.7:4001 E 2"], Joined::Yes),
        (&[], Joined::No),
        // Another program of this host, as the agent; another port of the peer's host; not made yet.
        (&["10.0.0.6:5000 10.0.0.7:4001 E 500"], Joined::No),
        (&["10.0.0.6:5000 10.0.0.7:4002 E 2"], Joined::No),
        (&["10.0.0.6:4001 10.0.0.7:4001 L 2"], Joined::No),
    ];
    for (rows, joined) in cases {
        let said = verdict(&peers, &shown(rows), JOINS_MS);
        assert_eq!(said, known(joined), "{rows:?}");
    }
    let young = shown(&["10.0.0.6:5000 10.0.0.7:4001 E 2"]);
    assert_eq!(verdict(&peers, &young, JOINS_MS - 1), Verdict::TooYoung);
}

#[test]
fn an_accepted_connection_is_the_peers_once_it_has_stood() {
    let peers = [expected("till-7:4001", &["10.0.0.7:4001"])];
    let accepted = shown(&["10.0.0.6:4001 10.0.0.7:5000 E 2"]);
    assert_eq!(verdict(&peers, &accepted, STANDS_MS), known(Joined::ByPeer));
    assert_eq!(verdict(&peers, &accepted, STANDS_MS - 1), known(Joined::No));
    for rows in [
        // Not on the sync port; from another host; not the node's.
        "10.0.0.6:8080 10.0.0.7:5000 E 2",
        "10.0.0.6:4001 10.0.0.8:5000 E 2",
        "10.0.0.6:4001 10.0.0.7:5000 E 500",
    ] {
        let said = verdict(&peers, &shown(&[rows]), STANDS_MS);
        assert_eq!(said, known(Joined::No), "{rows}");
    }
    // One after another from the same host, as agents ask, is none that stands.
    let mut standing = Standing::default();
    standing.look(&accepted, 0);
    let other = shown(&["10.0.0.6:4001 10.0.0.7:5001 E 3"]);
    standing.look(&other, STANDS_MS);
    let said = judge(&peers[0], &peers, &other, &standing, STANDS_MS);
    assert_eq!(said, known(Joined::No));
}

#[test]
fn what_cannot_be_told_is_no_guess() {
    let accepted = shown(&["10.0.0.6:4001 10.0.0.7:5000 E 2"]);
    let two = [
        expected("a:4001", &["10.0.0.7:4001"]),
        expected("b:4002", &["10.0.0.7:4002"]),
    ];
    assert_eq!(verdict(&two, &accepted, STANDS_MS), known(Joined::No));
    let lost = [Expected {
        address: "till-9:4001".into(),
        at: Err("no such host".into()),
    }];
    let Verdict::Known(Joined::NotChecked(why)) = verdict(&lost, &accepted, STANDS_MS) else {
        panic!("a guess");
    };
    assert_eq!(why, "the address till-9:4001 cannot be found: no such host");
}

#[test]
fn on_one_host_the_other_end_must_belong_to_who_listens_there() {
    let peers = [
        expected("127.0.0.1:4002", &["127.0.0.1:4002"]),
        expected("127.0.0.1:4003", &["127.0.0.1:4003"]),
    ];
    let loopback = shown(&[
        "127.0.0.1:4001 127.0.0.1:5000 E 2",
        "127.0.0.1:5000 127.0.0.1:4001 E 200",
        "127.0.0.1:4002 0.0.0.0:0 L 201",
        "127.0.0.1:4003 0.0.0.0:0 L 301",
    ]);
    let Verdict::AskOwners { ends, listeners } = verdict(&peers, &loopback, STANDS_MS) else {
        panic!("a guess");
    };
    assert_eq!((&ends, &listeners), (&[200].into(), &[201].into()));
    let cases: [(&[&[u64]], Joined); 3] = [
        (&[&[301], &[200, 201]], Joined::ByPeer),
        // The other peer's.
        (&[&[200, 301], &[201]], Joined::No),
        (&[&[201]], Joined::No),
    ];
    for (processes, joined) in cases {
        let held = processes.iter().map(|held| held.iter().copied().collect());
        assert_eq!(by_owners(&ends, &listeners, held), joined, "{processes:?}");
    }
}
