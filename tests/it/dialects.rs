//! What the agent makes of nodes that do not answer as the newest release does, and what it makes them
//! log.

use crate::checks::{Told, checks, running};
use crate::fixture::{SOON, node, peer};
use anyhow::Result;
use cbagent::adapters::cbddc_wire::{Secret, Security};
use cbagent::adapters::checks::Probe;
use cbagent::adapters::connections::judge::Joined;
use cbagent::adapters::node_protocol::{JoinedPeers, NodeProtocol, NodeProtocolSettings};
use cbagent::ports::{EffectError, UnitState};
use cbddc_domain::health::{Check, Status};
use cbddc_domain::replication::{ExpectedPeer, Topology};
use cbddc_tests::fixture::process::FixtureNode;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const TOKEN: &str = "a-token-for-tests";

/// No process has this number: the kernel gives at most 2^22.
const NO_PROCESS: u32 = 1 << 23;

fn protocol(address: String, expected: &[&FixtureNode]) -> NodeProtocol {
    let expected = expected.iter().map(|peer| ExpectedPeer {
        address: peer.tcp.to_string(),
        node: None,
    });
    let settings = NodeProtocolSettings {
        cluster: String::new(),
        topology: Topology::Mesh,
        address,
        token: Secret::new(TOKEN),
        security: Security::Auto,
        expected_peers: expected.collect(),
        target_collections: Vec::new(),
        critical_collections: Vec::new(),
        canary: None,
        limit: Duration::from_secs(20),
        asked: None,
    };
    NodeProtocol::new(settings, Arc::new(|_| true))
}

fn process(pid: u32) -> Told {
    Told::new(UnitState::Running { pid, started_ms: 1 })
}

fn pids(node: &FixtureNode) -> Result<Vec<u32>, EffectError> {
    Ok(node.pid().into_iter().collect())
}

/// Looks until all of this is so.
async fn wait_until(
    protocol: &NodeProtocol,
    of: &FixtureNode,
    holds: impl Fn(&JoinedPeers) -> bool,
) -> Result<JoinedPeers> {
    let end = Instant::now() + SOON;
    loop {
        let joined = protocol.joined(pids(of)).await;
        if holds(&joined) {
            return Ok(joined);
        }
        anyhow::ensure!(Instant::now() < end, "still {joined:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_question_that_a_node_does_not_know_is_asked_once_and_only_where_the_kernel_cannot_tell()
-> Result<()> {
    let folder = tempfile::tempdir()?;
    let silent = node("old", folder.path())
        .with(&["--silent-node-status"])
        .start()
        .await?;
    let other = node("other", folder.path()).start().await?;
    let protocol = protocol(silent.tcp.to_string(), &[&other]);
    // The kernel tells: nobody is asked.
    let joined = protocol.joined(pids(&silent)).await;
    assert!(joined.values().eq([&Joined::No]), "{joined:?}");
    assert_eq!(silent.stats().await?["status_questions"], 0);
    let measured = protocol.measure(&process(NO_PROCESS)).await;
    assert_eq!(measured.status, Status::Healthy, "{measured:?}");
    let detail = &measured.detail;
    let words = format!(
        "joined 0 peers; not checked: whether it joined {}: ",
        other.tcp
    );
    assert!(detail.contains(&words), "{detail}");
    for _ in 0..3 {
        let joined = protocol.joined(Err(EffectError("away".into()))).await;
        assert!(joined.values().eq([&Joined::NotChecked("away".into())]));
    }
    assert_eq!(silent.stats().await?["status_questions"], 1);
    // Another process may be another release.
    protocol.measure(&process(NO_PROCESS + 1)).await;
    assert_eq!(silent.stats().await?["status_questions"], 2);
    Ok(())
}

#[tokio::test]
async fn a_node_that_answers_is_believed_where_the_kernel_cannot_tell() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let there = node("there", folder.path()).start().await?;
    let apart = node("apart", folder.path()).start().await?;
    let asked = node("asked", folder.path())
        .with(&["--peer", &peer("there", &there)])
        .start()
        .await?;
    let is_joined = |stats: &serde_json::Value| stats["peers_joined"][0] == "there";
    asked.wait_until(SOON, "it has joined", is_joined).await?;
    let protocol = protocol(asked.tcp.to_string(), &[&there, &apart]);
    let joined = protocol.joined(Err(EffectError("away".into()))).await;
    let address = |node: &FixtureNode| node.tcp.to_string();
    let expected = [
        (address(&there), Joined::Yes),
        (address(&apart), Joined::No),
    ];
    assert_eq!(joined, expected.into());
    Ok(())
}

#[tokio::test]
async fn the_kernel_tells_who_is_joined_in_which_direction() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let silent = ["--silent-node-status"];
    let a = node("a", folder.path()).with(&silent).start().await?;
    // Both join `a`; nobody joins `alone`.
    let joining = peer("a", &a);
    let joins = ["--silent-node-status", "--peer", &joining];
    let b = node("b", folder.path()).with(&joins).start().await?;
    let stranger = node("s", folder.path()).with(&joins).start().await?;
    let alone = node("alone", folder.path()).start().await?;
    let of_b = protocol(b.tcp.to_string(), &[&a, &alone]);
    let address = |node: &FixtureNode| node.tcp.to_string();
    let joined = wait_until(&of_b, &b, |all| all[&address(&a)] == Joined::Yes).await?;
    assert_eq!(joined[&address(&alone)], Joined::No);
    // The stranger's connection to `a` is nobody's who is expected.
    let of_a = protocol(a.tcp.to_string(), &[&b, &alone]);
    let joined = wait_until(&of_a, &a, |all| all[&address(&b)] != Joined::No).await?;
    let expected = [(address(&b), Joined::ByPeer), (address(&alone), Joined::No)];
    assert_eq!(joined, expected.into());
    assert_eq!(of_a.owed(&joined).await.len(), 2);
    // A peer that is joined and goes away is no longer.
    drop(stranger);
    a.stop().await?;
    wait_until(&of_b, &b, |all| all.values().all(|one| *one == Joined::No)).await?;
    assert_eq!(
        of_b.owed(&of_b.joined(pids(&b)).await).await,
        [address(&alone)]
    );
    Ok(())
}

#[tokio::test]
async fn connections_of_checks_carry_the_whole_hello() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let own = node("own", folder.path()).start().await?;
    let other = node("other", folder.path()).start().await?;
    let address = own.tcp.to_string();
    let protocol = Arc::new(protocol(address.clone(), &[&other]));
    let other_name = format!("localhost:{}", own.tcp.port());
    let mut probes = Vec::new();
    for address in [address, other_name, other.tcp.to_string()] {
        assert!(protocol.is_sync_port(&address), "{address}");
        probes.push((Check::Tcp, Probe::SyncPort(protocol.clone(), address)));
    }
    assert!(!protocol.is_sync_port("203.0.113.1:1"));
    assert!(!protocol.is_sync_port(&own.http.to_string()));
    let measured = checks(running(), probes).measure(Duration::MAX).await;
    let healthy = measured.iter().all(|one| one.status == Status::Healthy);
    assert!(healthy, "{measured:?}");
    // A check whose time is over in the middle of a hello leaves that to be finished.
    for _ in 0..20 {
        let limit = Duration::from_micros(400);
        let _ = tokio::time::timeout(limit, protocol.look()).await;
    }
    protocol.owed(&protocol.joined(pids(&own)).await).await;
    let (address, gone) = (other.tcp.to_string(), other);
    for node in [&own, &gone] {
        let logged = node.stats().await?["logged"].clone();
        assert_eq!(logged["bare_connections"], 0, "{logged}");
    }
    gone.stop().await?;
    let (status, detail) = protocol
        .takes_connections(&address, &process(NO_PROCESS))
        .await;
    assert_eq!(status, Status::Unhealthy);
    assert!(detail.contains("does not answer"), "{detail}");
    Ok(())
}
