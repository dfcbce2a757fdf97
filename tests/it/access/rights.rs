//! What the table lets people and agents do, and where the handlers look closer.

use super::{Authorities, LIMIT, ana, connect, now_s};
use cbagent::adapters::roster::signature_message;
use cbagent::grpc::access::{Access, TABLE};
use cbddc_domain::access::Role;
use cbddc_domain::build::Digest;
use cbddc_domain::id::NodeName;
use cbddc_domain::register::{Epoch, Record, RecordKind};
use cbddc_proto::v1;
use cbddc_proto::v1::rollout_service_client::RolloutServiceClient;
use cbddc_tests::mesh::{MeshOptions, TestMesh};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Agents are let in to three steps of a proposer, and may go nowhere but back.
#[tokio::test(flavor = "multi_thread")]
async fn agents_propose_nothing_but_the_way_back() {
    let mesh = TestMesh::start(MeshOptions::default());
    let n2: NodeName = "n2".parse().expect("a name");
    let issued = Authorities::of(&mesh)
        .issuing
        .issue_node("shop", &n2, now_s());
    let channel = connect(&mesh, Some(&issued.expect("a certificate"))).await;
    let mut client = RolloutServiceClient::new(channel.expect("an agent gets in"));
    let word = |status: &tonic::Status| {
        let word = status.metadata().get(cbddc_proto::WORD_KEY);
        word.and_then(|word| word.to_str().ok())
            .unwrap_or("none")
            .to_owned()
    };
    let prepare = |kind: v1::ProposalKind, lease_ms| v1::PrepareRequest {
        epoch: Some(v1::Epoch {
            counter: 5,
            nonce: 1,
        }),
        kind: kind.into(),
        what: "a test".into(),
        lease_ms,
        next: None,
        plan: None,
    };
    use v1::ProposalKind as Kind;
    for (kind, lease_ms) in [
        (Kind::Rollout, 1_000),
        (Kind::Resume, 1_000),
        (Kind::Abort, 1_000),
        (Kind::Amend, 1_000),
        (Kind::Rollback, 3_600_000),
    ] {
        let refused = client.prepare(prepare(kind, lease_ms)).await;
        assert_eq!(word(&refused.expect_err("refused")), "not_back", "{kind:?}");
    }
    // An agent that has just started asks the others first what they remember of it.
    let mut promised = client.prepare(prepare(Kind::Rollback, 1_000)).await;
    let until = Instant::now() + LIMIT;
    while promised
        .as_ref()
        .is_err_and(|status| word(status) == "starting")
        && Instant::now() < until
    {
        tokio::time::sleep(Duration::from_millis(100)).await;
        promised = client.prepare(prepare(Kind::Rollback, 1_000)).await;
    }
    promised.expect("the way back is promised");
    let record = |kind| Record {
        epoch: Epoch {
            counter: 9,
            nonce: 7,
        },
        kind,
        release: None,
        exceptions: BTreeMap::new(),
        voters: ["n1", "n2", "n3"]
            .map(|name| name.parse().expect("a name"))
            .into(),
        previous: None,
        forced: false,
        revokes: [(Digest::of(b"good"), "made up".to_owned())].into(),
        lifts: BTreeMap::new(),
        restores: BTreeSet::new(),
        proposed_by: "ana".into(),
        reason: "a test".into(),
    };
    // What a person signed does not help an agent that brings it.
    for kind in [RecordKind::Rollback, RecordKind::Trust] {
        let record = record(kind);
        let signed = ana(&mesh).sign(&record.signing_bytes("shop"));
        let author = Some(signature_message(signed));
        let vote = v1::VoteRequest {
            record: Some((&record).into()),
            author: author.clone(),
        };
        let refused = client.vote(vote).await.expect_err("refused");
        assert_eq!(word(&refused), "not_back", "{kind:?}: {refused}");
    }
    for record in [
        record(RecordKind::Trust),
        Record {
            forced: true,
            ..record(RecordKind::Rollback)
        },
    ] {
        let confirm = v1::ConfirmRequest {
            record: Some((&record).into()),
            ..v1::ConfirmRequest::default()
        };
        let refused = client.confirm(confirm).await.expect_err("refused");
        assert_eq!(word(&refused), "not_back", "{record:?}");
    }
}

/// What changes a node or the mesh is for people who may, and only what a host without a valid
/// certificate needs is open to it.
#[test]
fn the_table_lets_nobody_change_what_they_should_not() {
    for (path, access) in TABLE {
        let call = path.rsplit_once('/').map_or("", |(_, call)| call);
        match access {
            Access::Anybody => assert!(["Join", "GetTrust"].contains(&call), "{path}"),
            Access::AgentsEvenExpired => assert_eq!(*path, "/cbddc.agent.v1.MeshService/Renew"),
            Access::MembersEvenExpired => assert_eq!(call, "GetRecord"),
            Access::Agents => assert!(
                ["Ask", "Exchange", "Fence", "Gossip"].contains(&call),
                "{path}"
            ),
            Access::Members => {
                let reads = [
                    "Get", "List", "Watch", "Follow", "Observe", "Check", "Server", "Read", "Show",
                    "Find",
                ];
                let reads = reads.iter().any(|word| call.starts_with(word));
                // Each statement carries the signature of whoever may say it.
                assert!(reads || call == "PutStatements", "{path} changes something");
            }
            Access::PeopleOrAgents(roles) => {
                // For the way back alone: the next test.
                let steps = ["FetchBuild", "Prepare", "Vote", "Confirm"];
                assert!(steps.contains(&call), "{path}");
                assert!(!roles.contains(&Role::Viewer), "{path}");
            }
            Access::People(roles) => {
                assert!(roles.contains(&Role::Admin), "{path}");
                assert!(!roles.contains(&Role::Viewer), "{path}");
            }
        }
    }
}
