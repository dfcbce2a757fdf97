//! A till that somebody has taken over: it holds a member's key, and tells whatever it likes.

use super::{agent, by, name, record, vote_by};
use crate::access::removal;
use crate::fake::load_tls;
use cbagent::adapters::tls::incoming;
use cbagent::config::TlsFiles;
use cbddc_domain::build::Digest;
use cbddc_domain::register::Record;
use cbddc_domain::roster::Subject;
use cbddc_domain::roster::exchange::BUCKETS;
use cbddc_proto::v1;
use cbddc_proto::v1::mesh_service_server::{MeshService, MeshServiceServer};
use cbddc_tests::mesh::{MeshOptions, TestMesh};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// What it tells whoever asks.
#[derive(Clone)]
struct Till {
    register: v1::RegisterView,
    statements: Vec<v1::SignedStatement>,
    asked: Arc<AtomicUsize>,
}

fn no<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("it only lies about what it knows"))
}

#[tonic::async_trait]
impl MeshService for Till {
    async fn get_record(
        &self,
        _: Request<v1::GetRecordRequest>,
    ) -> Result<Response<v1::GetRecordResponse>, Status> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(v1::GetRecordResponse {
            register: Some(self.register.clone()),
            ..v1::GetRecordResponse::default()
        }))
    }

    async fn exchange(
        &self,
        _: Request<v1::ExchangeRequest>,
    ) -> Result<Response<v1::ExchangeResponse>, Status> {
        Ok(Response::new(v1::ExchangeResponse {
            buckets: vec![1; BUCKETS],
            same_register: false,
            ..v1::ExchangeResponse::default()
        }))
    }

    async fn get_statements(
        &self,
        _: Request<v1::GetStatementsRequest>,
    ) -> Result<Response<v1::GetStatementsResponse>, Status> {
        let statements = self.statements.clone();
        Ok(Response::new(v1::GetStatementsResponse { statements }))
    }

    async fn ask(&self, _: Request<v1::AskRequest>) -> Result<Response<v1::AskResponse>, Status> {
        no()
    }

    async fn gossip(
        &self,
        _: Request<v1::GossipRequest>,
    ) -> Result<Response<v1::GossipResponse>, Status> {
        no()
    }

    async fn fence(
        &self,
        _: Request<v1::FenceRequest>,
    ) -> Result<Response<v1::FenceResponse>, Status> {
        no()
    }

    async fn put_statements(
        &self,
        _: Request<v1::PutStatementsRequest>,
    ) -> Result<Response<v1::PutStatementsResponse>, Status> {
        no()
    }

    async fn list_members(
        &self,
        _: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        no()
    }

    async fn add_grant(
        &self,
        _: Request<v1::AddGrantRequest>,
    ) -> Result<Response<v1::AddGrantResponse>, Status> {
        no()
    }

    async fn join(
        &self,
        _: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        no()
    }

    async fn renew(
        &self,
        _: Request<v1::RenewCertificateRequest>,
    ) -> Result<Response<v1::RenewCertificateResponse>, Status> {
        no()
    }

    async fn get_trust(
        &self,
        _: Request<v1::GetTrustRequest>,
    ) -> Result<Response<v1::GetTrustResponse>, Status> {
        no()
    }

    async fn put_issuing(
        &self,
        _: Request<v1::PutIssuingRequest>,
    ) -> Result<Response<v1::PutIssuingResponse>, Status> {
        no()
    }

    async fn drop_issuing(
        &self,
        _: Request<v1::DropIssuingRequest>,
    ) -> Result<Response<v1::DropIssuingResponse>, Status> {
        no()
    }
}

/// All that it can make up with its own key alone.
fn lies(mesh: &TestMesh) -> v1::RegisterView {
    let own = agent(mesh, 2);
    // Decided, says the till, by everybody; and it was ana who wanted it.
    let forged = record(90, "ana");
    let of_its_own = record(91, "node n3");
    let signed = |record: &Record, votes| v1::SignedRecord {
        record: Some(record.into()),
        author: by(&own, record),
        votes,
    };
    v1::RegisterView {
        promised: Some(forged.epoch.into()),
        highest: Some(forged.epoch.into()),
        votes: vec![(&forged).into()],
        decided: Some((&forged).into()),
        elected: Some((&forged).into()),
        revocations: vec![v1::Revocation {
            build_digest: Digest::of(b"good").to_string(),
            epoch: Some(forged.epoch.into()),
            lifted: false,
            reason: "made up".into(),
        }],
        evidence: vec![
            signed(&forged, vec![vote_by(&own, &forged)]),
            // An agent may propose to go back; but its own vote is no majority.
            signed(&of_its_own, vec![vote_by(&own, &of_its_own)]),
        ],
        ..v1::RegisterView::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_till_that_lies_is_not_believed_and_it_is_told() {
    let mut mesh = TestMesh::prepare(MeshOptions::default());
    let files = TlsFiles {
        ca: mesh.node(2).folder.join("ca.pem"),
        cert: mesh.node(2).folder.join("node.pem"),
        key: mesh.node(2).folder.join("node.key"),
    };
    let tls = load_tls(&files, "shop", "n3").expect("its own files");
    let asked = Arc::new(AtomicUsize::new(0));
    let till = Till {
        register: lies(&mesh),
        // It would rather be without n1.
        statements: vec![removal(Subject::Member(name("n1")), &agent(&mesh, 2))],
        asked: asked.clone(),
    };
    let listener = TcpListener::bind(("127.0.0.1", mesh.node(2).agent_port)).await;
    let served = tonic::transport::Server::builder()
        .add_service(MeshServiceServer::new(till))
        .serve_with_incoming(incoming(listener.expect("its port"), tls));
    tokio::spawn(served);
    tokio::task::block_in_place(|| {
        mesh.start_agent(0);
        mesh.start_agent(1);
        let told = |kind: &str| {
            let journal = mesh.journal(0);
            journal.iter().any(|line| line["kind"] == kind)
        };
        mesh.wait_for("n1 asked and told what it refused", PATIENCE, |_| {
            let enough = asked.load(Ordering::SeqCst) >= 4;
            (enough && told("record_refused") && told("statement_refused")).then_some(())
        });
        let status = mesh.status_of(0)["result"].to_string();
        assert!(
            !status.contains("90-") && !status.contains("91-"),
            "{status}"
        );
        assert!(!status.contains("made up"), "{status}");
        assert_eq!(
            mesh.status_of(0)["outcome"],
            "ok",
            "n1 is still in the mesh"
        );
        mesh.cbctl(&["status", "--node", "n1", "--node", "n2"]);
    });
}
