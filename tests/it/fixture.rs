//! Fixture nodes among themselves, and as the wire client sees them.

use anyhow::{Context, Result};
use cbagent::adapters::cbddc_wire::{
    CanaryWriter, ChainRangeAnswer, Secret, Security, WireClient, WireError, WireOptions,
};
use cbddc_domain::hlc::Hlc;
use cbddc_domain::oplog::{HashCheck, Operation, OplogEntry, check_hash};
use cbddc_tests::fixture::dialect::Dialect;
use cbddc_tests::fixture::process::{FixtureNode, FixtureSpec};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

pub(crate) const TOKEN: &str = "a-token-for-tests";
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A node that does what the protocol says, whose files are in `folder`; what those of some release do
/// is told with [`FixtureSpec::like`].
pub(crate) fn node(id: &str, folder: &Path) -> FixtureSpec {
    FixtureSpec::new(env!("CARGO_BIN_EXE_fixture-node"), id, folder).like(Dialect::None)
}

/// The argument that names a running node as a peer.
pub(crate) fn peer(id: &str, node: &FixtureNode) -> String {
    format!("{id}={}", node.tcp)
}

pub(crate) fn options(security: Security, token: &str) -> WireOptions {
    WireOptions {
        security,
        ..WireOptions::new("agent", Secret::new(token))
    }
}

/// A connection whose handshake was accepted.
pub(crate) async fn joined(node: &FixtureNode) -> Result<WireClient> {
    let mut client = WireClient::connect(node.tcp, options(Security::Secure, TOKEN)).await?;
    anyhow::ensure!(client.handshake().await?.accepted, "the token was refused");
    Ok(client)
}

/// All rows of a node, as the wire shows them.
pub(crate) async fn dump(node: &FixtureNode) -> Result<Vec<OplogEntry>> {
    Ok(joined(node).await?.pull(&Hlc::default(), &[]).await?)
}

/// Two nodes that pull from each other, once both have joined.
pub(crate) async fn pair(
    folder: &Path,
    faults_of_b: &[&str],
) -> Result<(FixtureNode, FixtureNode)> {
    // The first needs a port that the second can be told of; b's is known only after its start.
    let first = node("a", folder).start().await?;
    let b = node("b", folder)
        .with(&["--peer", &peer("a", &first)])
        .with(faults_of_b)
        .start()
        .await?;
    let (tcp, http) = (first.tcp.port(), first.http.port());
    first.stop().await?;
    let a = node("a", folder)
        .on_ports(tcp, http)
        .with(&["--peer", &peer("b", &b)])
        .start()
        .await?;
    let one = |stats: &Value| {
        stats["peers_joined"]
            .as_array()
            .is_some_and(|peers| peers.len() == 1)
    };
    a.wait_until(SOON, "a joins b", one).await?;
    b.wait_until(SOON, "b joins a", one).await?;
    Ok((a, b))
}

/// Waits until `/stats` shows so many rows.
pub(crate) async fn rows(node: &FixtureNode, count: usize) -> Result<Value> {
    node.wait_until(SOON, "the rows", |stats| {
        stats["oplog_rows"] == json!(count)
    })
    .await
}

#[tokio::test]
async fn two_nodes_converge_under_writes_and_the_later_write_wins() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (a, b) = pair(folder.path(), &[]).await?;
    for i in 0..20 {
        let (path, body) = (format!("/doc/users/{i}"), format!("{{\"n\":{i}}}"));
        assert_eq!(a.request("PUT", &path, &body).await?.0, 200);
        assert_eq!(
            b.request("PUT", &format!("/doc/todos/{i}"), &body).await?.0,
            200
        );
    }
    rows(&a, 40).await?;
    rows(&b, 40).await?;
    b.put("users", "3", "{\"n\":\"later\"}").await?;
    b.request("DELETE", "/doc/users/4?flush=1", "").await?;
    rows(&a, 42).await?;
    assert_eq!(
        a.get("users", "3").await?.as_deref(),
        Some("{\"n\":\"later\"}")
    );
    assert_eq!(a.get("users", "4").await?, None);
    assert_eq!(a.stats().await?["documents"], 39);

    let (mut of_a, mut of_b) = (dump(&a).await?, dump(&b).await?);
    // Events of one moment come in the order in which they arrived at each node.
    of_a.sort_by(|x, y| x.hlc.cmp(&y.hlc));
    of_b.sort_by(|x, y| x.hlc.cmp(&y.hlc));
    assert!(of_a == of_b, "the nodes hold different events");
    assert!(
        of_a.iter()
            .all(|entry| check_hash(entry) == HashCheck::Matches)
    );
    for origin in ["a", "b"] {
        let chain: Vec<_> = of_a
            .iter()
            .filter(|entry| entry.hlc.node == origin)
            .collect();
        assert_eq!(chain[0].previous_hash, "");
        assert!(
            chain
                .windows(2)
                .all(|pair| pair[1].previous_hash == pair[0].hash)
        );
    }
    let clocks = (
        joined(&a).await?.vector_clock().await?,
        joined(&b).await?.vector_clock().await?,
    );
    assert_eq!(clocks.0, clocks.1);
    Ok(())
}

#[tokio::test]
async fn the_client_reads_a_node_with_and_without_the_secure_channel() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (id, arguments) in [("secure", &[][..]), ("plain", &["--plaintext"][..])] {
        let node = node(id, folder.path())
            .with(arguments)
            .with(&["--version", "1.2.3"])
            .start()
            .await?;
        let mut client = WireClient::connect(node.tcp, options(Security::Auto, TOKEN)).await?;
        assert_eq!(client.is_secure(), id == "secure");
        let outcome = client.handshake().await?;
        assert_eq!((outcome.node_id.as_str(), outcome.accepted), (id, true));
        assert_eq!(client.clock().await?, None);
        let long = format!("{{\"text\":\"{}\"}}", "x".repeat(5000));
        node.put("users", "alice", &long).await?;
        node.put("todos", "t%2F1", "{}").await?;
        node.put("users", "bob", "{}").await?;

        let all = client.pull(&Hlc::default(), &[]).await?;
        let keys: Vec<_> = all.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, ["alice", "t/1", "bob"]);
        assert_eq!(all[0].payload, long);
        assert_eq!(client.clock().await?.as_ref(), Some(&all[2].hlc));
        assert_eq!(
            client.vector_clock().await?.get(id),
            Some(all[2].hlc.moment())
        );
        assert_eq!(client.pull(&all[0].hlc, &["users".into()]).await?, all[2..]);
        let range = client.chain_range(&all[0].hash, &all[2].hash).await?;
        assert_eq!(range, ChainRangeAnswer::Entries(all[1..].to_vec()));
        let unknown = client.chain_range("nothing", &all[2].hash).await?;
        assert_eq!(unknown, ChainRangeAnswer::SnapshotRequired);
        let status = client
            .node_status(Duration::from_secs(20))
            .await
            .context("the node status is answered")?;
        assert_eq!(
            (status.node_id.as_str(), status.service_version.as_str()),
            (id, "1.2.3")
        );
    }
    Ok(())
}

#[tokio::test]
async fn tokens_and_handshakes_are_enforced() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let strict = node("strict", folder.path())
        .with(&["--no-node-status"])
        .start()
        .await?;
    let mut wrong = WireClient::connect(strict.tcp, options(Security::Secure, "another")).await?;
    assert!(!wrong.handshake().await?.accepted);
    let after = wrong.clock().await;
    assert!(
        matches!(
            after,
            Err(WireError::Closed { .. } | WireError::Exchange { .. })
        ),
        "{after:?}"
    );
    assert!(matches!(wrong.clock().await, Err(WireError::Broken)));
    let mut without = WireClient::connect(strict.tcp, options(Security::Secure, TOKEN)).await?;
    assert!(
        without.clock().await.is_err(),
        "the node answered without a handshake"
    );
    assert_eq!(
        joined(&strict)
            .await?
            .node_status(Duration::from_secs(20))
            .await,
        None
    );

    let lax = node("lax", folder.path())
        .with(&["--legacy-noauth"])
        .start()
        .await?;
    let mut without = WireClient::connect(lax.tcp, options(Security::Secure, TOKEN)).await?;
    assert_eq!(without.clock().await?, None);
    Ok(())
}

#[tokio::test]
async fn unflushed_writes_are_lost_by_a_kill_and_kept_by_a_stop() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let spec = node("a", folder.path()).with(&["--interval-ms", "60000"]);
    let spec = FixtureSpec {
        arguments: without_pair(&spec.arguments, "--interval-ms", "50"),
        ..spec
    };
    let running = spec.start().await?;
    running.put("users", "durable", "{}").await?;
    running.request("PUT", "/doc/users/lost", "{}").await?;
    assert_eq!(running.stats().await?["pending"], 1);
    running.kill().await?;
    let running = spec.start().await?;
    assert_eq!(running.stats().await?["oplog_rows"], 1);
    running.request("PUT", "/doc/users/kept", "{}").await?;
    let (tcp, http) = (running.tcp.port(), running.http.port());
    assert!(running.stop().await?.success());
    let running = spec.on_ports(tcp, http).start().await?;
    let entries = dump(&running).await?;
    assert_eq!(entries.len(), 2);
    assert_eq!(
        entries[1].previous_hash, entries[0].hash,
        "the chain goes on after a start"
    );
    Ok(())
}

fn without_pair(arguments: &[String], name: &str, value: &str) -> Vec<String> {
    let mut left = arguments.to_vec();
    if let Some(at) = left
        .windows(2)
        .position(|pair| pair[0] == name && pair[1] == value)
    {
        left.drain(at..at + 2);
    }
    left
}

#[tokio::test]
async fn a_node_reads_its_settings_file_and_the_environment_overrides_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("appsettings.json");
    let settings = json!({
        "EntglDb": { "NodeName": "from-file", "Port": 0, "AuthToken": "a token from a file" },
        "Database": { "Path": folder.path().join("data/file.db") },
        "Fixture": { "Faults": "degraded-after=0", "Version": "from file" },
    });
    std::fs::write(&file, settings.to_string())?;
    let spec = node("unused", folder.path());
    let arguments = vec!["--settings".into(), file.display().to_string()];
    let running = FixtureSpec { arguments, ..spec }.start().await?;
    let stats = running.stats().await?;
    assert_eq!(
        (stats["node_id"].as_str(), stats["version"].as_str()),
        (Some("from-file"), Some("from file"))
    );
    assert_eq!(
        running.request("GET", "/health", "").await?,
        (200, "Degraded".into())
    );
    let mut client = WireClient::connect(
        running.tcp,
        options(Security::Secure, "a token from a file"),
    )
    .await?;
    assert!(client.handshake().await?.accepted);
    Ok(())
}

#[tokio::test]
async fn pushes_are_taken_where_they_link_and_refused_where_not() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let a = node("a", folder.path()).start().await?;
    let event = |wall: i64, previous_hash: &str| {
        OplogEntry {
            collection: "canary".into(),
            key: "k".into(),
            operation: Operation::Put,
            payload: "{}".into(),
            hlc: Hlc::new(wall, 0, "agent"),
            hash: String::new(),
            previous_hash: previous_hash.into(),
        }
        .seal()
    };
    let first = event(1, "");
    let second = event(2, &first.hash);
    let third = event(3, &second.hash);
    let mut client = joined(&a).await?;
    let mut writer = CanaryWriter::switched_on(&mut client);
    assert!(writer.push(vec![first.clone()]).await?.accepted);
    assert!(
        writer.push(vec![first.clone()]).await?.accepted,
        "a repeated push does no harm"
    );
    let refused = writer.push(vec![third.clone()]).await?;
    assert!(!refused.accepted && refused.snapshot_required);
    assert!(
        !writer
            .push(vec![second.clone(), first.clone(), event(4, "")])
            .await?
            .accepted
    );
    assert!(
        writer
            .push(vec![second.clone(), third.clone()])
            .await?
            .accepted
    );
    assert_eq!(
        client.pull(&Hlc::default(), &[]).await?,
        [first, second, third]
    );
    Ok(())
}

#[tokio::test]
async fn nobody_listens_is_a_named_error() -> Result<()> {
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let refused = WireClient::connect(free, options(Security::Auto, TOKEN)).await;
    let named = |e: &WireError, addr: SocketAddr| matches!(e, WireError::Connect { addr: a, .. } if *a == addr);
    assert!(
        refused.as_ref().is_err_and(|e| named(e, free)),
        "{refused:?}"
    );
    Ok(())
}
