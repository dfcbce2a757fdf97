//! What a member believes: records and statements with the signatures of those who may decide them,
//! whoever brings them; and nothing that one member made up.

use crate::access::{Authorities, ana, connect, now_s, removal};
use cbagent::adapters::roster::signature_message;
use cbddc_domain::access::Role;
use cbddc_domain::id::NodeName;
use cbddc_domain::register::{Epoch, Record, RecordKind, vote_signing_bytes};
use cbddc_domain::roster::Subject;
use cbddc_pki::authority::Issued;
use cbddc_pki::signature::{Signature, Signer};
use cbddc_proto::v1;
use cbddc_proto::v1::mesh_service_client::MeshServiceClient;
use cbddc_proto::v1::rollout_service_client::RolloutServiceClient;
use cbddc_tests::mesh::{MeshOptions, TestMesh};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use tonic::transport::Channel;

mod till;

fn name(text: &str) -> NodeName {
    text.parse().expect("a name")
}

/// A record that orders nothing, and revokes one build.
fn record(counter: u64, by: &str) -> Record {
    Record {
        epoch: Epoch { counter, nonce: 7 },
        kind: RecordKind::Rollback,
        release: None,
        exceptions: BTreeMap::new(),
        voters: ["n1", "n2", "n3"].into_iter().map(name).collect(),
        previous: None,
        forced: false,
        revokes: BTreeMap::from([(
            cbddc_domain::build::Digest::of(b"bad"),
            "it loses documents".to_owned(),
        )]),
        lifts: BTreeMap::new(),
        restores: BTreeSet::new(),
        proposed_by: by.into(),
        reason: "a test".into(),
    }
}

fn signer(issued: &Issued) -> Signer {
    Signer::from_pem(issued.cert.as_bytes(), issued.key.as_bytes()).expect("a pair")
}

/// The agent of a host, as whoever holds its disk could sign.
fn agent(mesh: &TestMesh, index: usize) -> Signer {
    let read = |file: &str| fs::read(mesh.node(index).folder.join(file)).expect("its file");
    Signer::from_pem(&read("node.pem"), &read("node.key")).expect("a pair")
}

fn by(signer: &Signer, record: &Record) -> Option<v1::Signature> {
    let signed = signer.sign(&record.signing_bytes("shop"));
    Some(signature_message(signed))
}

fn vote_by(signer: &Signer, record: &Record) -> v1::Signature {
    signature_message(signer.sign(&vote_signing_bytes("shop", record)))
}

/// What the first agent knows.
async fn register(channel: &Channel) -> v1::RegisterView {
    let asked = MeshServiceClient::new(channel.clone())
        .get_record(v1::GetRecordRequest::default())
        .await;
    asked
        .expect("an answer")
        .into_inner()
        .register
        .expect("a register")
}

struct Ground {
    mesh: TestMesh,
    ana: Signer,
    channel: Channel,
}

async fn ground() -> Ground {
    let mesh = TestMesh::start(MeshOptions::default());
    let folder = mesh.cbctl_config().join("contexts/shop");
    let read = |file: &str| fs::read_to_string(folder.join(file)).expect("ana's file");
    let issued = Issued {
        cert: read("user.pem"),
        key: read("user.key"),
    };
    let channel = connect(&mesh, Some(&issued)).await.expect("ana gets in");
    Ground {
        ana: ana(&mesh),
        mesh,
        channel,
    }
}

async fn vote(
    channel: &Channel,
    record: &Record,
    author: Option<v1::Signature>,
) -> Result<v1::Signature, String> {
    let request = v1::VoteRequest {
        record: Some(record.into()),
        author,
    };
    let answered = RolloutServiceClient::new(channel.clone())
        .vote(request)
        .await;
    let word = |status: &tonic::Status| {
        let word = status.metadata().get(cbddc_proto::WORD_KEY);
        let word = word.and_then(|word| word.to_str().ok()).unwrap_or("none");
        format!("{word}: {}", status.message())
    };
    match answered {
        Ok(answer) => Ok(answer.into_inner().vote.expect("a signed vote")),
        Err(status) => Err(word(&status)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_votes_for_what_nobody_signed_who_may() {
    let ground = ground().await;
    let (mesh, channel) = (&ground.mesh, &ground.channel);
    let own = Authorities::of(mesh);
    let other = TestMesh::prepare(MeshOptions::default());
    let issue = |authorities: &Authorities, who: &str, role| {
        let issued = authorities.root.issue_person("shop", who, role, now_s());
        signer(&issued.expect("a certificate"))
    };
    let eve = issue(&own, "eve", Role::Admin);
    let statements = vec![removal(Subject::User("eve".into()), &ground.ana)];
    let put = MeshServiceClient::new(channel.clone())
        .put_statements(v1::PutStatementsRequest { statements })
        .await;
    put.expect("ana is believed");

    let good = record(9, "ana");
    let mut altered = by(&ground.ana, &good).expect("signed");
    let mut bytes = altered.bytes.to_vec();
    *bytes.last_mut().expect("bytes") ^= 1;
    altered.bytes = bytes.into();
    let another = Record {
        reason: "another".into(),
        ..good.clone()
    };
    let rollout = Record {
        kind: RecordKind::Rollout,
        revokes: BTreeMap::new(),
        ..record(9, "node n2")
    };
    let forced = Record {
        forced: true,
        ..record(9, "node n2")
    };
    let cases: Vec<(&str, Record, Option<v1::Signature>, &str)> = vec![
        ("unsigned", good.clone(), None, "nobody signed it"),
        (
            "a tampered byte",
            good.clone(),
            Some(altered),
            "signature of its author",
        ),
        (
            "of another record",
            good.clone(),
            by(&ground.ana, &another),
            "signature of its author",
        ),
        (
            "by ana of another mesh",
            good.clone(),
            by(&issue(&Authorities::of(&other), "ana", Role::Admin), &good),
            "signature of its author",
        ),
        (
            "by a viewer",
            record(9, "vic"),
            by(&issue(&own, "vic", Role::Viewer), &record(9, "vic")),
            "takes an operator or admin",
        ),
        (
            "by an approver",
            record(9, "app"),
            by(&issue(&own, "app", Role::Approver), &record(9, "app")),
            "takes an operator or admin",
        ),
        (
            "in another's name",
            good.clone(),
            by(&issue(&own, "bob", Role::Admin), &good),
            "and was signed by bob",
        ),
        (
            "by a removed admin",
            record(9, "eve"),
            by(&eve, &record(9, "eve")),
            "taken out of the mesh",
        ),
        (
            "a rollout by an agent",
            rollout.clone(),
            by(&agent(mesh, 1), &rollout),
            "agents may only go back",
        ),
        (
            "forced by an agent",
            forced.clone(),
            by(&agent(mesh, 1), &forced),
            "agents may only go back",
        ),
    ];
    for (what, record, author, words) in cases {
        let refused = vote(channel, &record, author).await.expect_err(what);
        assert!(refused.starts_with("distrusted: "), "{what}: {refused}");
        assert!(refused.contains(words), "{what}: {refused}");
        assert_eq!(register(channel).await.votes, [], "{what}");
    }
    vote(channel, &good, by(&ground.ana, &good))
        .await
        .expect("as it should be");
    // Once more, as a client does whose answer got lost.
    vote(channel, &good, by(&ground.ana, &good))
        .await
        .expect("twice is once");
    assert_eq!(register(channel).await.votes.len(), 1);
}

async fn confirm(
    channel: &Channel,
    record: &Record,
    author: Option<v1::Signature>,
    votes: Vec<v1::Signature>,
) -> Result<(), String> {
    let request = v1::ConfirmRequest {
        record: Some(record.into()),
        // Whatever is claimed: signatures count.
        voted: ["n1", "n2", "n3"].map(str::to_owned).to_vec(),
        author,
        votes,
    };
    let answered = RolloutServiceClient::new(channel.clone())
        .confirm(request)
        .await;
    answered
        .map(drop)
        .map_err(|status| status.message().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_needs_the_signatures_of_a_majority() {
    let ground = ground().await;
    let (mesh, channel) = (&ground.mesh, &ground.channel);
    let good = record(9, "ana");
    let author = || by(&ground.ana, &good);
    let voter = |index: usize| vote_by(&agent(mesh, index), &good);
    let stranger = Authorities::of(mesh)
        .issuing
        .issue_node("shop", &name("n9"), now_s());
    let stranger = signer(&stranger.expect("a certificate"));
    let other = record(10, "ana");
    let swapped: Signature = agent(mesh, 2).sign(&vote_signing_bytes("shop", &other));
    let refusals = [
        ("nobody voted", vec![], "no majority"),
        ("one", vec![voter(1)], "no majority"),
        ("one, twice", vec![voter(1), voter(1)], "no majority"),
        (
            "who does not vote",
            vec![voter(1), vote_by(&stranger, &good)],
            "no majority",
        ),
        (
            "a person",
            vec![voter(1), vote_by(&ground.ana, &good)],
            "no majority",
        ),
        (
            "a vote for another record",
            vec![voter(1), signature_message(swapped)],
            "signature of its voter",
        ),
    ];
    for (what, votes, words) in refusals {
        let refused = confirm(channel, &good, author(), votes)
            .await
            .expect_err(what);
        assert!(refused.contains(words), "{what}: {refused}");
        assert_eq!(register(channel).await.decided, None, "{what}");
    }
    let votes = || vec![voter(1), voter(2)];
    let unsigned = confirm(channel, &good, None, votes())
        .await
        .expect_err("unsigned");
    assert!(unsigned.contains("nobody signed it"), "{unsigned}");
    confirm(channel, &good, author(), votes())
        .await
        .expect("a majority");
    let view = register(channel).await;
    assert_eq!(view.decided, Some((&good).into()));
    assert_eq!(view.revocations.len(), 1);

    // An older one, brought again, changes nothing.
    let replayed = record(8, "ana");
    let votes = vec![
        vote_by(&agent(mesh, 1), &replayed),
        vote_by(&agent(mesh, 2), &replayed),
    ];
    drop(confirm(channel, &replayed, by(&ground.ana, &replayed), votes).await);
    assert_eq!(register(channel).await.decided, Some((&good).into()));
    // And the others hear of the decision, and can prove it.
    mesh.wait_for("the decision is known everywhere", till::PATIENCE, |mesh| {
        let knows = |index: &usize| {
            let journal = mesh.journal(*index);
            journal.iter().any(|line| line["kind"] == "decided")
        };
        (0..3).all(|index| knows(&index)).then_some(())
    });
}
