//! Which of its expected peers the node has joined: from the kernel, and only where that cannot tell,
//! from the node itself. Most nodes do not know that question, and some log a warning about it.

use super::{
    ASKER, NodeProtocol, ProtocolError, STATUS_LIMIT_HANDSHAKES, STATUS_LIMIT_MIN, resolve,
};
use crate::adapters::checks::join_all;
use crate::adapters::connections::judge::{
    Expected, JOINS_MS, Joined, Shown, Standing, Verdict, by_owners, judge,
};
use crate::adapters::connections::{of_all_processes, read_node, read_rows};
use crate::error_chain;
use crate::ports::{EffectError, Supervisor};
use cbddc_domain::health::Status;
use cbddc_domain::replication::ExpectedPeer;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::lookup_host;
use tokio::time::{Instant, timeout};

/// How long the address of a peer may take to be found, and how long what was found is good.
const RESOLVE_LIMIT: Duration = Duration::from_secs(1);
const RESOLVED_FOR: Duration = Duration::from_secs(30);

/// The most addresses that one name may have.
const ADDRESSES_MAX: usize = 16;

/// How long a peer's port may take to accept a connection before the peer counts as down, and how long
/// all of it may take to answer.
const PEER_CONNECT_LIMIT: Duration = Duration::from_millis(500);
const PEER_LIMIT: Duration = Duration::from_secs(1);

/// What is remembered between two looks.
#[derive(Debug)]
pub(super) struct Memory {
    began: Instant,
    standing: Standing,
    resolved: BTreeMap<String, (Instant, Vec<SocketAddr>)>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            standing: Standing::default(),
            resolved: BTreeMap::new(),
        }
    }
}

impl Memory {
    /// What the peers' addresses mean. A name that cannot be found any more is what it was.
    async fn find(&mut self, peers: &[ExpectedPeer]) -> Vec<Expected> {
        let mut found = Vec::with_capacity(peers.len());
        for peer in peers {
            let address = &peer.address;
            let known = self.resolved.get(address);
            let is_fresh = known.is_some_and(|(when, _)| when.elapsed() < RESOLVED_FOR);
            let mut why = String::new();
            if !is_fresh {
                match timeout(RESOLVE_LIMIT, lookup_host(address)).await {
                    Ok(Ok(all)) => {
                        let plain =
                            |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
                        let all: Vec<SocketAddr> = all.take(ADDRESSES_MAX).map(plain).collect();
                        self.resolved.insert(address.clone(), (Instant::now(), all));
                    }
                    Ok(Err(error)) => why = error.to_string(),
                    Err(_) => why = format!("nothing within {} s", RESOLVE_LIMIT.as_secs()),
                }
            }
            let at = self.resolved.get(address).map(|(_, at)| at.clone());
            found.push(Expected {
                address: address.clone(),
                at: at.ok_or(why),
            });
        }
        found
    }
}

/// What is known of the expected peers, each as configured.
pub type JoinedPeers = BTreeMap<String, Joined>;

pub(super) fn not_joined(peers: &[&ExpectedPeer]) -> String {
    let are = if peers.len() == 1 { "is" } else { "are" };
    let peers: Vec<&str> = peers.iter().map(|peer| peer.address.as_str()).collect();
    format!("not joined with {}, which {are} up", peers.join(", "))
}

/// That nothing is wrong, and what could not be looked at.
pub(super) fn all_joined(joined: &JoinedPeers) -> String {
    let (mut count, mut by_peer) = (0, 0);
    for joined in joined.values() {
        match joined {
            Joined::Yes => count += 1,
            Joined::ByPeer => by_peer += 1,
            Joined::No | Joined::NotChecked(_) => {}
        }
    }
    let mut text = format!("it takes the token, refuses a wrong one, and joined {count} peers");
    if by_peer > 0 {
        text.push_str(&format!(
            ", and {by_peer} joined it that cannot be reached from here"
        ));
    }
    if let Some(what) = not_checked(joined) {
        text.push_str(&format!("; not checked: {what}"));
    }
    text
}

/// Which of the expected peers cannot be told to be joined or not, and why.
pub fn not_checked(joined: &JoinedPeers) -> Option<String> {
    let mut unknown: Vec<(&String, &String)> = Vec::new();
    for (address, joined) in joined {
        if let Joined::NotChecked(why) = joined {
            unknown.push((address, why));
        }
    }
    let (_, why) = unknown.first()?;
    let names: Vec<&str> = unknown
        .iter()
        .map(|(address, _)| address.as_str())
        .collect();
    Some(format!("whether it joined {}: {why}", names.join(", ")))
}

impl NodeProtocol {
    /// Which of the expected peers the node has joined; `processes` are the node's.
    pub async fn joined(&self, processes: Result<Vec<u32>, EffectError>) -> JoinedPeers {
        let peers = &self.settings.expected_peers;
        if peers.is_empty() {
            return JoinedPeers::new();
        }
        let mut joined = self.joined_by_kernel(processes).await;
        let unknown = |joined: &Joined| matches!(joined, Joined::NotChecked(_));
        if joined.values().any(unknown)
            && let Some(told) = self.told_peers().await
        {
            for (address, joined) in joined.iter_mut().filter(|(_, joined)| unknown(joined)) {
                *joined = match told.contains(address) {
                    true => Joined::Yes,
                    false => Joined::No,
                };
            }
        }
        joined
    }

    async fn joined_by_kernel(&self, processes: Result<Vec<u32>, EffectError>) -> JoinedPeers {
        let peers = &self.settings.expected_peers;
        let unknown = |why: String| {
            let all = peers.iter();
            all.map(|peer| (peer.address.clone(), Joined::NotChecked(why.clone())))
                .collect()
        };
        let pids = match processes {
            Ok(pids) => pids,
            Err(error) => return unknown(error.to_string()),
        };
        let port = self.settings.address.rsplit_once(':');
        let Some(port) = port.and_then(|(_, port)| port.parse::<u16>().ok()) else {
            return unknown("the node's own address has no port".to_owned());
        };
        let mut memory = self.joining.lock().await;
        let expected = memory.find(peers).await;
        let mut joined = self.look_once(&mut memory, &pids, port, &expected).await;
        // A connection that is new is looked at once more.
        if matches!(&joined, Ok((_, true))) {
            tokio::time::sleep(Duration::from_millis(JOINS_MS)).await;
            joined = self.look_once(&mut memory, &pids, port, &expected).await;
        }
        match joined {
            Ok((joined, _)) => joined,
            Err(why) => unknown(why),
        }
    }

    /// What the kernel says now, and whether another look would say more.
    async fn look_once(
        &self,
        memory: &mut Memory,
        pids: &[u32],
        port: u16,
        expected: &[Expected],
    ) -> Result<(JoinedPeers, bool), String> {
        let now_ms = memory.began.elapsed().as_millis();
        let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
        let mut standing = std::mem::take(&mut memory.standing);
        let (pids, expected) = (pids.to_vec(), expected.to_vec());
        let look = move || {
            let joined = read_node(&pids, port).map(|shown| {
                standing.look(&shown, now_ms);
                judge_all(&expected, &shown, &standing, now_ms)
            });
            (standing, joined)
        };
        let looked = tokio::task::spawn_blocking(look).await;
        let (standing, joined) =
            looked.map_err(|_| "the look into /proc ended by a fault".to_owned())?;
        memory.standing = standing;
        joined.map_err(|error| error_chain(&error))
    }

    /// The peers that the node says it has joined; `None` where it does not know the question, which is
    /// asked once per process.
    async fn told_peers(&self) -> Option<Vec<String>> {
        if self.knows_no_status.load(Ordering::Relaxed) {
            return None;
        }
        let mut client = self.connect(self.settings.token.clone()).await.ok()?;
        let asked = Instant::now();
        if !client.handshake().await.ok()?.accepted {
            return None;
        }
        let limit = (asked.elapsed() * STATUS_LIMIT_HANDSHAKES).max(STATUS_LIMIT_MIN);
        let status = client.node_status(limit).await;
        if status.is_none() {
            self.knows_no_status.store(true, Ordering::Relaxed);
        }
        Some(status?.known_peer_addresses)
    }

    /// The required peers among `joined` that can be judged: those that the node has joined, and those
    /// that it has not although they answer.
    pub async fn owed(&self, joined: &JoinedPeers) -> Vec<String> {
        let peers = self.settings.expected_peers.iter();
        let required = peers.filter(|peer| self.requires(peer));
        let (mut owed, mut open) = (Vec::new(), Vec::new());
        for peer in required {
            match joined.get(&peer.address) {
                Some(Joined::Yes) => owed.push(peer.address.clone()),
                Some(Joined::No | Joined::ByPeer) => open.push(peer.address.clone()),
                Some(Joined::NotChecked(_)) | None => {}
            }
        }
        owed.extend(self.up(open).await);
        owed
    }

    /// Those of the addresses at which a CBDDC node answers: each is asked at once, with one whole
    /// connection, so that no node has to log anything.
    pub(super) async fn up(&self, addresses: Vec<String>) -> Vec<String> {
        let answers = addresses.iter().map(|address| async move {
            let asking = async {
                let token = self.settings.token.clone();
                let mut client = self.open(address, token, PEER_CONNECT_LIMIT).await?;
                client.handshake().await.map_err(ProtocolError::from)
            };
            matches!(timeout(PEER_LIMIT, asking).await, Ok(Ok(_)))
        });
        let answers = join_all(answers).await;
        let both = addresses.into_iter().zip(answers);
        both.filter_map(|(address, up)| up.then_some(address))
            .collect()
    }

    /// Whether an address is a sync port: this node's own, or that of a peer. To open and close a
    /// connection there without a word makes a node log an error.
    pub fn is_sync_port(&self, address: &str) -> bool {
        let peers = self.settings.expected_peers.iter();
        let mut peers = peers.map(|peer| peer.address.as_str());
        address == self.settings.address
            || peers.any(|peer| peer == address)
            || self.is_own(address)
    }

    /// Whether it is the own port by another of this host's addresses.
    fn is_own(&self, address: &str) -> bool {
        let port = |address: &str| Some(address.rsplit_once(':')?.1.to_owned());
        let same_port = port(address) == port(&self.settings.address);
        let is_here = |at: SocketAddr| {
            at.ip().is_loopback() || UdpSocket::bind(SocketAddr::new(at.ip(), 0)).is_ok()
        };
        let is_named = address.starts_with("localhost:");
        same_port && (is_named || address.parse().is_ok_and(is_here))
    }

    /// Whether a sync port takes connections: of this node's own the kernel tells, another is asked with
    /// one whole connection.
    pub async fn takes_connections(
        &self,
        address: &str,
        supervisor: &dyn Supervisor,
    ) -> (Status, String) {
        let is_own = address == self.settings.address || self.is_own(address);
        if is_own && self.listens(address, supervisor).await {
            return (Status::Healthy, format!("{address} waits for connections"));
        }
        let token = self.settings.token.clone();
        let asking = async {
            let mut client = self.connect_to(address, token).await?;
            client.handshake().await.map_err(ProtocolError::from)
        };
        match asking.await {
            Ok(_) => (Status::Healthy, format!("{address} answers {ASKER}")),
            Err(error) => {
                let text = format!("{address} does not answer: {}", error_chain(&error));
                (Status::Unhealthy, text)
            }
        }
    }

    async fn listens(&self, address: &str, supervisor: &dyn Supervisor) -> bool {
        let Ok(pids) = supervisor.processes().await else {
            return false;
        };
        let (Some(pid), Ok(at)) = (pids.first().copied(), resolve(address).await) else {
            return false;
        };
        let look = move || {
            let rows = read_rows(pid).ok()?;
            let (own, sync_port) = (BTreeSet::new(), at.port());
            let shown = Shown {
                rows,
                own,
                sync_port,
            };
            Some(shown.listens_at(at))
        };
        let looked = tokio::task::spawn_blocking(look).await;
        looked.ok().flatten().unwrap_or(false)
    }
}

fn judge_all(
    expected: &[Expected],
    shown: &Shown,
    standing: &Standing,
    now_ms: u64,
) -> (JoinedPeers, bool) {
    let processes = OnceCell::new();
    let mut is_young = false;
    let mut joined = JoinedPeers::new();
    for peer in expected {
        let verdict = match judge(peer, expected, shown, standing, now_ms) {
            Verdict::Known(joined) => joined,
            Verdict::TooYoung => {
                is_young = true;
                Joined::No
            }
            Verdict::AskOwners { ends, listeners } => {
                let all: &Vec<BTreeSet<u64>> =
                    processes.get_or_init(|| of_all_processes().collect());
                by_owners(&ends, &listeners, all.iter().cloned())
            }
        };
        joined.insert(peer.address.clone(), verdict);
    }
    (joined, is_young)
}
