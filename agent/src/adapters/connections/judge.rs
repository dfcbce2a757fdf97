//! Which peers a node has joined, decided from the kernel's table of connections.
//!
//! A node keeps a connection to the sync port of each peer that it joined (`NODE.md`, section 3). So a
//! peer counts as joined where a process of the node holds an established connection to one of the
//! peer's sync addresses, and has held it for [`JOINS_MS`]: one that is refused does not last. The kernel
//! knows, so that the absence of one is as certain.
//!
//! A connection that was *accepted* on the node's own sync port from the peer's host says that the peer
//! has joined this node, which is another thing: a node that presents a wrong token, or that a firewall
//! keeps in, is joined by all and joins nobody. It is told, and counts only where the peer's port cannot
//! be reached from here. It must have stood for [`STANDS_MS`], since agents open short connections to
//! their peers' nodes, too, and its remote port says nothing: where several expected peers are on that
//! host, nothing is concluded. Where the other end is on this very host, as on a mesh on loopback, its
//! socket must belong to the process that listens on the peer's sync port: [`Verdict::AskOwners`].
//!
//! What cannot be told is [`Joined::NotChecked`], never a guess.

use super::table::{Row, State};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// How long an outgoing connection must have stood to count, in milliseconds: a peer that refuses the
/// token answers and closes within a few.
pub const JOINS_MS: u64 = 500;

/// How long an accepted connection must have stood to be a node's, in milliseconds. A short question of
/// an agent ends earlier, answered or not: it may take 5 s.
pub const STANDS_MS: u64 = 6_000;

/// Whether a peer is joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joined {
    /// The node holds a connection to it.
    Yes,
    /// The node holds none, but has accepted one of the peer.
    ByPeer,
    /// Neither.
    No,
    /// It cannot be told, for this reason.
    NotChecked(String),
}

/// A peer that the node is expected to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// As configured, `HOST:PORT`.
    pub address: String,
    /// What that means, or why it cannot be found.
    pub at: Result<Vec<SocketAddr>, String>,
}

/// What was read of the node.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// The sockets of the network that the node's processes are in.
    pub rows: Vec<Row>,
    /// The numbers of those that its processes hold.
    pub own: BTreeSet<u64>,
    /// The port on which it takes its peers' connections.
    pub sync_port: u16,
}

/// Both ends of a connection.
type Ends = (SocketAddr, SocketAddr);

/// Since when the node's connections stand, in milliseconds of a clock that never goes back.
#[derive(Debug, Default)]
pub struct Standing(BTreeMap<Ends, u64>);

impl Standing {
    /// Takes in what is there now, and forgets what is not.
    pub fn look(&mut self, shown: &Shown, now_ms: u64) {
        let before = std::mem::take(&mut self.0);
        let held = shown.held().map(|row| (row.local, row.remote));
        let since = |ends: Ends| (ends, before.get(&ends).copied().unwrap_or(now_ms));
        self.0 = held.map(since).collect();
    }

    fn stands(&self, row: &Row, for_ms: u64, now_ms: u64) -> bool {
        let since = self.0.get(&(row.local, row.remote));
        since.is_some_and(|since| now_ms.saturating_sub(*since) >= for_ms)
    }
}

impl Shown {
    /// The node's connections.
    fn held(&self) -> impl Iterator<Item = &Row> {
        let established = |row: &&Row| row.state == State::Established;
        let rows = self.rows.iter().filter(established);
        rows.filter(|row| self.own.contains(&row.inode))
    }

    fn accepted(&self) -> impl Iterator<Item = &Row> {
        self.held().filter(|row| row.local.port() == self.sync_port)
    }

    /// Whether something waits for connections there.
    pub fn listens_at(&self, at: SocketAddr) -> bool {
        self.listeners(at).next().is_some()
    }

    fn listeners(&self, at: SocketAddr) -> impl Iterator<Item = u64> {
        let there = move |row: &&Row| {
            let (ip, port) = (row.local.ip(), row.local.port());
            row.state == State::Listens
                && port == at.port()
                && (ip.is_unspecified() || ip == at.ip())
        };
        self.rows.iter().filter(there).map(|row| row.inode)
    }
}

/// What the table says of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is decided.
    Known(Joined),
    /// A connection to the peer has not stood for [`JOINS_MS`] yet: another look is needed.
    TooYoung,
    /// The peer has joined the node if one process holds a socket of each list.
    AskOwners {
        /// The other ends of accepted connections.
        ends: BTreeSet<u64>,
        /// What listens on the peer's sync port.
        listeners: BTreeSet<u64>,
    },
}

/// Judges one of the expected peers.
pub fn judge(
    peer: &Expected,
    all: &[Expected],
    shown: &Shown,
    standing: &Standing,
    now_ms: u64,
) -> Verdict {
    let at = match &peer.at {
        Ok(at) => at,
        Err(why) => {
            let text = format!("the address {} cannot be found: {why}", peer.address);
            return Verdict::Known(Joined::NotChecked(text));
        }
    };
    let mut outgoing = shown
        .held()
        .filter(|row| at.contains(&row.remote))
        .peekable();
    let is_young = outgoing.peek().is_some();
    if outgoing.any(|row| standing.stands(row, JOINS_MS, now_ms)) {
        return Verdict::Known(Joined::Yes);
    }
    if is_young {
        return Verdict::TooYoung;
    }
    let of_host = |row: &&Row| at.iter().any(|at| at.ip() == row.remote.ip());
    let stands = |row: &&Row| standing.stands(row, STANDS_MS, now_ms);
    let accepted: Vec<&Row> = shown.accepted().filter(of_host).filter(stands).collect();
    if accepted.is_empty() {
        return Verdict::Known(Joined::No);
    }
    let ends: BTreeSet<u64> = accepted
        .iter()
        .filter_map(|row| other_end(shown, row))
        .collect();
    if !ends.is_empty() {
        let listeners = at.iter().flat_map(|at| shown.listeners(*at)).collect();
        return Verdict::AskOwners { ends, listeners };
    }
    let same_host = |other: &&Expected| {
        let others = other.at.iter().flatten();
        let mut shared = others.filter(|other| at.iter().any(|at| at.ip() == other.ip()));
        shared.next().is_some()
    };
    match all.iter().filter(same_host).count() {
        0 | 1 => Verdict::Known(Joined::ByPeer),
        _ => Verdict::Known(Joined::No),
    }
}

/// The socket at the other end, where it is on this host, too.
fn other_end(shown: &Shown, accepted: &Row) -> Option<u64> {
    let mut rows = shown.rows.iter();
    let other = rows.find(|row| row.local == accepted.remote && row.remote == accepted.local)?;
    Some(other.inode)
}

/// Whether the peer has joined the node, by who holds what: `processes` are the sockets of each process
/// of the host that may be looked into.
pub fn by_owners(
    ends: &BTreeSet<u64>,
    listeners: &BTreeSet<u64>,
    processes: impl IntoIterator<Item = BTreeSet<u64>>,
) -> Joined {
    let mut processes = processes.into_iter();
    match processes.any(|held| !held.is_disjoint(ends) && !held.is_disjoint(listeners)) {
        true => Joined::ByPeer,
        false => Joined::No,
    }
}
