//! Every call, by everyone: allowed exactly where the table says.
//!
//! The calls are made over real TLS to a real agent, each with an empty message: what is refused by
//! the table says so, everything else got past it. That the table itself says what it should is
//! held by rules of its own below.

mod identities;
mod rights;

pub(crate) use identities::{Authorities, ana, expired_agent, now_s};

use crate::fake::load_tls;
use cbagent::adapters::roster::signature_message;
use cbagent::adapters::tls::Caller;
use cbagent::config::TlsFiles;
use cbagent::grpc::access::{Access, TABLE, decide};
use cbddc_domain::access::Role;
use cbddc_domain::build::Digest;
use cbddc_domain::roster::{Says, Standing, Statement, Subject};
use cbddc_pki::authority::Issued;
use cbddc_pki::signature::Signer;
use cbddc_proto::convert::roster::{statement_bytes, statement_message};
use cbddc_proto::v1;
use cbddc_proto::v1::mesh_service_client::MeshServiceClient;
use cbddc_tests::mesh::{MeshOptions, TestMesh};
use identities::{authority_file, expired};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, DnsName, PrivateKeyDer, ServerName};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::codegen::http::{Request, Response};
use tonic::transport::{Channel, Endpoint, Uri};

const LIMIT: Duration = Duration::from_secs(30);
/// Words by which the table refuses.
const REFUSALS: [&str; 4] = ["no_certificate", "expired", "removed", "not_allowed"];

/// Who calls, and in which state.
struct Calling {
    what: String,
    /// Unset: an agent.
    role: Option<Role>,
    state: State,
    identity: Option<Issued>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    NoCertificate,
    Good,
    Expired,
    OtherMesh,
    Removed,
}

const STATES: [State; 4] = [
    State::Good,
    State::Expired,
    State::OtherMesh,
    State::Removed,
];

fn callers(mesh: &TestMesh, other: &TestMesh) -> Vec<Calling> {
    let (own, foreign) = (Authorities::of(mesh), Authorities::of(other));
    let mut callers = vec![Calling {
        what: "nobody".into(),
        role: None,
        state: State::NoCertificate,
        identity: None,
    }];
    for state in STATES {
        let authorities = match state {
            State::OtherMesh => &foreign,
            State::Good | State::Removed | State::NoCertificate | State::Expired => &own,
        };
        for role in Role::ALL {
            let name = format!("{role}-{state:?}").to_lowercase();
            let identity = match state {
                State::Expired => expired(
                    &authority_file(mesh, "ca.key"),
                    "cbddc mesh shop",
                    &format!("user/{name}/{role}"),
                ),
                State::NoCertificate | State::Good | State::OtherMesh | State::Removed => {
                    let issued = authorities.root.issue_person("shop", &name, role, now_s());
                    issued.expect("a certificate")
                }
            };
            callers.push(Calling {
                what: format!("{role}, {state:?}"),
                role: Some(role),
                state,
                identity: Some(identity),
            });
        }
        // Of the members n2 and n3, the second is going to be taken out.
        let node = if state == State::Removed { "n3" } else { "n2" };
        let node = node.parse().expect("a name");
        let identity = match state {
            State::Expired => expired_agent(mesh, "n2"),
            State::NoCertificate | State::Good | State::OtherMesh | State::Removed => {
                let issued = authorities.issuing.issue_node("shop", &node, now_s());
                issued.expect("a certificate")
            }
        };
        callers.push(Calling {
            what: format!("agent, {state:?}"),
            role: None,
            state,
            identity: Some(identity),
        });
    }
    callers
}

/// What the table means, said once more and otherwise.
fn is_allowed(access: Access, role: Option<Role>, state: State) -> bool {
    let has = |roles: &[Role]| role.is_some_and(|role| roles.contains(&role));
    let is_agent = role.is_none();
    match (state, access) {
        (_, Access::Anybody) => state != State::OtherMesh,
        (State::NoCertificate | State::OtherMesh | State::Removed, _) => false,
        (State::Expired, Access::AgentsEvenExpired | Access::MembersEvenExpired) => is_agent,
        (State::Expired, _) => false,
        (State::Good, Access::Agents | Access::AgentsEvenExpired) => is_agent,
        (State::Good, Access::Members | Access::MembersEvenExpired) => true,
        (State::Good, Access::People(roles)) => has(roles),
        (State::Good, Access::PeopleOrAgents(roles)) => is_agent || has(roles),
    }
}

pub(crate) async fn connect(mesh: &TestMesh, identity: Option<&Issued>) -> Result<Channel, String> {
    dial(&Target::of(mesh, 0), identity).await
}

/// An agent of a test mesh, for those who connect while the mesh changes.
#[derive(Clone)]
pub(crate) struct Target {
    node: String,
    port: u16,
    /// The address of this host that is called from.
    from: Ipv4Addr,
    authority: Vec<u8>,
}

impl Target {
    pub(crate) fn of(mesh: &TestMesh, index: usize) -> Self {
        let authority = mesh.cbctl_config().join("contexts/shop/ca.pem");
        Self {
            node: mesh.node(index).name.clone(),
            port: mesh.node(index).agent_port,
            from: Ipv4Addr::LOCALHOST,
            authority: std::fs::read(authority).expect("the authority"),
        }
    }

    /// The same, called from another address of this host.
    pub(crate) fn from(&self, from: Ipv4Addr) -> Self {
        Self {
            from,
            ..self.clone()
        }
    }

    /// A TCP connection, and nothing more.
    pub(crate) async fn reach(&self) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.from, 0).into())?;
        socket
            .connect((Ipv4Addr::LOCALHOST, self.port).into())
            .await
    }
}

/// Connects to an agent, with a certificate or without.
pub(crate) async fn dial(target: &Target, identity: Option<&Issued>) -> Result<Channel, String> {
    let mut roots = rustls::RootCertStore { roots: Vec::new() };
    roots
        .add(CertificateDer::from_pem_slice(&target.authority).expect("PEM"))
        .expect("an authority");
    let builder =
        ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let chain = CertificateDer::pem_slice_iter(issued.cert.as_bytes());
            let chain: Result<Vec<_>, _> = chain.collect();
            let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("a key");
            builder
                .with_client_auth_cert(chain.expect("PEM"), key)
                .expect("a pair")
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (config, target) = (Arc::new(config), target.clone());
    let connected = Endpoint::from_static("http://n1")
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let connector = TlsConnector::from(Arc::clone(&config));
            let target = target.clone();
            async move {
                let stream = target.reach().await?;
                let name = DnsName::try_from(target.node).expect("a name");
                let stream = connector.connect(ServerName::DnsName(name), stream).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        }))
        .await;
    connected.map_err(|error| format!("{error:?}"))
}

/// Makes a call with an empty message; the word by which the table refused it, if it did. A
/// connection that is refused counts as `no_connection`.
async fn call(channel: &Channel, path: &str) -> Option<String> {
    let body = bytes::Bytes::from_static(&[0; 5]);
    let request = Request::post(format!("http://n1{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(http_body_util::Full::new(body)))
        .expect("a request");
    let mut channel = channel.clone();
    let answered = async {
        std::future::poll_fn(|context| channel.poll_ready(context)).await?;
        channel.call(request).await
    };
    let answered = tokio::time::timeout(LIMIT, answered)
        .await
        .expect("an answer in time");
    let Ok(answered) = answered else {
        return Some("no_connection".to_owned());
    };
    word_of(&answered)
}

fn word_of(response: &Response<Body>) -> Option<String> {
    let word = response
        .headers()
        .get(cbddc_proto::WORD_KEY)?
        .to_str()
        .ok()?;
    REFUSALS.contains(&word).then(|| word.to_owned())
}

pub(crate) fn removal(subject: Subject, signer: &Signer) -> v1::SignedStatement {
    let statement = Statement {
        mesh: "shop".into(),
        subject,
        version: 1,
        says: Says::Removed,
        reason: "a test".into(),
    };
    let bytes = statement_bytes(&statement);
    v1::SignedStatement {
        signature: Some(signature_message(signer.sign(&statement_message(&bytes)))),
        statement: bytes.into(),
        grant: None,
        second: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_is_allowed_exactly_where_the_table_says() {
    let mesh = TestMesh::start(MeshOptions {
        nodes: 3,
        ..MeshOptions::default()
    });
    let other = TestMesh::prepare(MeshOptions::default());
    let callers = callers(&mesh, &other);
    let signer = ana(&mesh);
    let mut statements = vec![removal(
        Subject::Member("n3".parse().expect("a name")),
        &signer,
    )];
    for role in Role::ALL {
        statements.push(removal(Subject::User(format!("{role}-removed")), &signer));
    }
    let admin = callers.iter().find(|caller| caller.what == "admin, Good");
    let admin = connect(&mesh, admin.and_then(|admin| admin.identity.as_ref())).await;
    let mut client = MeshServiceClient::new(admin.expect("an admin gets in"));
    let put = client
        .put_statements(v1::PutStatementsRequest { statements })
        .await;
    assert_eq!(put.expect("ana is believed").into_inner().news, 5);

    let mut faults = Vec::new();
    for caller in &callers {
        let channel = connect(&mesh, caller.identity.as_ref()).await;
        for (path, access) in TABLE {
            let refused = match &channel {
                Ok(channel) => call(channel, path).await,
                Err(_) => Some("no_connection".to_owned()),
            };
            // Who joins is let in by the token alone; a person whose certificate is no good is kept
            // out by the handshake already.
            let shut_out = *access == Access::Anybody && caller.role.is_some();
            let shut_out = shut_out && caller.state == State::Expired;
            let expected = is_allowed(*access, caller.role, caller.state) && !shut_out;
            if refused.is_none() != expected {
                faults.push(format!("{path} by {}: {refused:?}", caller.what));
            }
        }
    }
    assert!(
        faults.is_empty(),
        "not as the table says:\n{}",
        faults.join("\n")
    );
}

/// The same of the table alone: services look for themselves, too, and would hide a wrong row.
#[test]
fn the_decision_alone_is_as_the_table_says() {
    let key = Digest::of(b"a key");
    let (agent, person) = (
        |expired| Caller::Agent {
            name: "n2".parse().expect("a name"),
            key,
            expired,
        },
        |role, expired| Caller::Person {
            name: "bea".into(),
            role,
            key: Some(key),
            expired,
        },
    );
    let removed = Standing::Removed {
        reason: "a test".into(),
    };
    for (path, access) in TABLE {
        let is_allowed = |role, state| is_allowed(*access, role, state);
        let decide = |caller: &Caller, standing: &Standing| decide(path, caller, standing).is_ok();
        assert_eq!(
            decide(&Caller::Stranger, &Standing::Unknown),
            is_allowed(None, State::NoCertificate)
        );
        for (role, good, expired) in Role::ALL
            .map(|role| (Some(role), person(role, false), person(role, true)))
            .into_iter()
            .chain([(None, agent(false), agent(true))])
        {
            let what = format!("{path} by {role:?}");
            assert_eq!(
                decide(&good, &Standing::Good),
                is_allowed(role, State::Good),
                "{what}"
            );
            assert_eq!(
                decide(&expired, &Standing::Good),
                is_allowed(role, State::Expired),
                "{what}"
            );
            for bad in [&removed, &Standing::Replaced, &Standing::Unknown] {
                assert_eq!(
                    decide(&good, bad),
                    is_allowed(role, State::Removed),
                    "{what}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_out_is_out_on_open_connections() {
    let mesh = TestMesh::start(MeshOptions {
        nodes: 3,
        ..MeshOptions::default()
    });
    let files = TlsFiles {
        ca: mesh.node(2).folder.join("ca.pem"),
        cert: mesh.node(2).folder.join("node.pem"),
        key: mesh.node(2).folder.join("node.key"),
    };
    let tls = load_tls(&files, "shop", "n3").expect("usable files");
    let address = format!("127.0.0.1:{}", mesh.node(0).agent_port);
    let n1 = "n1".parse().expect("a name");
    let open = tls
        .connect(&address, &n1, LIMIT)
        .await
        .expect("a member gets in");
    let path = "/cbddc.agent.v1.NodeService/GetStatus";
    assert_eq!(call(&open, path).await, None);
    let bea = Authorities::of(&mesh)
        .root
        .issue_person("shop", "bea", Role::Viewer, now_s());
    let channel = connect(&mesh, Some(&bea.expect("a certificate")))
        .await
        .expect("she gets in");
    let subject = Subject::Member("n3".parse().expect("a name"));
    let statements = vec![removal(subject, &ana(&mesh))];
    // Whoever brings it: what counts is who signed.
    let put = MeshServiceClient::new(channel)
        .put_statements(v1::PutStatementsRequest { statements })
        .await;
    put.expect("ana is believed");
    assert_eq!(call(&open, path).await.as_deref(), Some("removed"));
}

#[test]
fn every_call_has_a_row_and_every_row_a_call() {
    let mut served = BTreeSet::new();
    for bytes in [
        cbddc_proto::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
    ] {
        let set = FileDescriptorSet::decode(bytes).expect("descriptors");
        for file in set.file {
            for service in &file.service {
                for method in &service.method {
                    let service = service.name();
                    served.insert(format!("/{}.{service}/{}", file.package(), method.name()));
                }
            }
        }
    }
    served.insert("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".to_owned());
    let rows: BTreeSet<String> = TABLE.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(rows.len(), TABLE.len(), "a call has two rows");
    let without: Vec<_> = served.difference(&rows).collect();
    assert!(
        without.is_empty(),
        "give these calls a row in agent/src/grpc/access.rs: {without:?}"
    );
    let stale: Vec<_> = rows.difference(&served).collect();
    assert!(
        stale.is_empty(),
        "these rows are of calls that are not served: {stale:?}"
    );
}
