//! What every gRPC tool may ask of an agent: which services it has, whether they serve, and where
//! the node stands from now on.

use crate::fake::load_tls;
use cbagent::config::Config;
use cbddc_domain::id::NodeName;
use cbddc_proto::v1;
use cbddc_proto::v1::node_service_client::NodeServiceClient;
use cbddc_tests::mesh::{MeshOptions, TestMesh};
use std::collections::BTreeSet;
use std::time::Duration;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

const LIMIT: Duration = Duration::from_secs(30);

/// A connection to the first agent, as the second one would make it.
async fn connect(mesh: &TestMesh) -> Channel {
    let config = Config::load(&mesh.node(1).config()).expect("the agent's configuration");
    let name = |index: usize| -> NodeName { mesh.node(index).name.parse().expect("a node name") };
    let tls = load_tls(&config.tls, &config.mesh.name, name(1).as_str()).expect("usable files");
    let address = format!("127.0.0.1:{}", mesh.node(0).agent_port);
    let connected = tls.connect(&address, &name(0), LIMIT).await;
    connected.expect("the agent listens")
}

fn two_nodes() -> TestMesh {
    TestMesh::start(MeshOptions {
        nodes: 2,
        ..MeshOptions::default()
    })
}

async fn reflect(channel: &Channel, asked: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(asked),
    };
    let mut client = ServerReflectionClient::new(channel.clone());
    let answers = client.server_reflection_info(tokio_stream::once(request));
    let mut answers = answers.await.expect("reflection is served").into_inner();
    let answer = answers.message().await.expect("an answer");
    answer
        .and_then(|answer| answer.message_response)
        .expect("a complete answer")
}

#[tokio::test]
async fn reflection_names_every_service_and_describes_them() {
    let mesh = two_nodes();
    let channel = connect(&mesh).await;
    let list = reflect(&channel, MessageRequest::ListServices(String::new())).await;
    let MessageResponse::ListServicesResponse(list) = list else {
        panic!("not a list: {list:?}");
    };
    let names: BTreeSet<&str> = list.service.iter().map(|one| one.name.as_str()).collect();
    let ours = [
        "Node", "Build", "Release", "Rollout", "Mesh", "Snapshot", "Health", "Journal",
    ];
    for name in ours {
        let name = format!("cbddc.agent.v1.{name}Service");
        assert!(names.contains(name.as_str()), "{name} is not in {names:?}");
        let described = reflect(&channel, MessageRequest::FileContainingSymbol(name)).await;
        assert!(
            matches!(&described, MessageResponse::FileDescriptorResponse(file) if !file.file_descriptor_proto.is_empty()),
            "{described:?}"
        );
    }
    assert!(names.contains("grpc.health.v1.Health"), "{names:?}");
}

#[tokio::test]
async fn the_standard_health_service_answers() {
    let mesh = two_nodes();
    let mut client = HealthClient::new(connect(&mesh).await);
    for service in ["", "cbddc.agent.v1.NodeService"] {
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = client.check(request).await.expect("an answer").into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let request = HealthCheckRequest {
        service: "cbddc.agent.v1.NoSuchService".to_owned(),
    };
    let refused = client.check(request).await.expect_err("no such service");
    assert_eq!(refused.code(), Code::NotFound);
}

#[tokio::test]
async fn whoever_watches_a_node_is_told_of_changes_and_of_the_end() {
    let roll_out = |mesh: &TestMesh, version: &str| {
        mesh.make_build(version, "");
        mesh.roll_out(version);
    };
    let mesh = two_nodes();
    let mesh = tokio::task::spawn_blocking(move || {
        roll_out(&mesh, "1.0");
        mesh
    });
    let mut mesh = mesh.await.expect("the first rollout went well");
    let watch = NodeServiceClient::new(connect(&mesh).await)
        .watch_status(v1::WatchStatusRequest {})
        .await;
    let mut watch = watch.expect("it can be watched").into_inner();
    let mut next = async || {
        let message = tokio::time::timeout(LIMIT, watch.message()).await;
        message.expect("news in time").map(|message| {
            let status = message.and_then(|message| message.status);
            status.map(|status| status.phase)
        })
    };
    assert_eq!(
        next().await.expect("the first sight").as_deref(),
        Some("steady")
    );
    // Unchanged, it is told again.
    assert_eq!(
        next().await.expect("a sign of life").as_deref(),
        Some("steady")
    );

    let mesh = tokio::task::spawn_blocking(move || {
        roll_out(&mesh, "1.1");
        mesh.stop_agent(0);
        mesh
    });
    let mut phases = vec!["steady".to_owned()];
    while let Ok(Some(phase)) = next().await {
        if phases.last() != Some(&phase) {
            phases.push(phase);
        }
    }
    // Each message is the latest state, so a short phase may pass unseen; these two last: a node that ran
    // waits out two sync cycles before it is stopped.
    let saw = |phase: &str| phases.iter().any(|seen| seen == phase);
    assert!(saw("probation"), "no probation in {phases:?}");
    assert!(saw("switching"), "no switch in {phases:?}");
    assert_eq!(phases.last().map(String::as_str), Some("steady"));
    drop(mesh.await.expect("the rollout went well"));
}
