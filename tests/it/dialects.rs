//! What the agent makes of nodes that do not answer as the newest release does.

use crate::checks::Told;
use crate::fixture::node;
use anyhow::Result;
use cbagent::adapters::cbddc_wire::{Secret, Security};
use cbagent::adapters::node_protocol::{NodeProtocol, NodeProtocolSettings};
use cbagent::ports::UnitState;
use cbddc_domain::health::Status;
use cbddc_domain::replication::Topology;
use std::sync::Arc;
use std::time::Duration;

const TOKEN: &str = "a-token-for-tests";

fn protocol(address: String) -> NodeProtocol {
    let settings = NodeProtocolSettings {
        cluster: String::new(),
        topology: Topology::Mesh,
        address,
        token: Secret::new(TOKEN),
        security: Security::Auto,
        expected_peers: Vec::new(),
        target_collections: Vec::new(),
        critical_collections: Vec::new(),
        canary: None,
        limit: Duration::from_secs(20),
    };
    NodeProtocol::new(settings, Arc::new(|_| true))
}

fn process(pid: u32) -> Told {
    Told::new(UnitState::Running { pid, started_ms: 1 })
}

#[tokio::test]
async fn a_question_that_a_node_does_not_know_is_asked_once_and_costs_little() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let silent = node("old", folder.path())
        .with(&["--silent-node-status"])
        .start()
        .await?;
    let protocol = protocol(silent.tcp.to_string());
    let measured = protocol.measure(&process(1)).await;
    assert_eq!(measured.status, Status::Healthy, "{measured:?}");
    let detail = &measured.detail;
    assert!(detail.contains("does not tell which peers"), "{detail}");
    for _ in 0..3 {
        assert_eq!(protocol.observe(0).await?.joined, None);
    }
    assert_eq!(silent.stats().await?["status_questions"], 1);
    // Another process may be another release.
    protocol.measure(&process(2)).await;
    protocol.observe(0).await?;
    assert_eq!(silent.stats().await?["status_questions"], 2);
    Ok(())
}
