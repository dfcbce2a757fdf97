//! Who gets in: the acceptor and the connector against right and wrong certificates.

use crate::fake::{Behaviour, Fake, Folders, files, listener, load_tls, steady};
use cbagent::adapters::tls::{Tls, TlsError};
use cbddc_domain::id::NodeName;
use cbddc_proto::v1;
use cbddc_proto::v1::node_service_client::NodeServiceClient;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const LIMIT: Duration = Duration::from_secs(20);

fn name(text: &str) -> NodeName {
    text.parse().expect("a node name")
}

/// Two members; n1 is served.
async fn mesh() -> (Folders, SocketAddr) {
    let (listener, address) = listener().await;
    let folders = Folders::init(
        "shop",
        &[
            ("n1", address),
            ("n2", "127.0.0.1:1".parse().expect("an address")),
        ],
    );
    Fake::new(Behaviour::Answer(steady().into())).serve(listener, &folders.tls("shop", "n1"));
    (folders, address)
}

/// Asks as an agent would; the answer is who the server saw.
async fn ask(tls: &Tls, address: SocketAddr, node: &str) -> Result<String, String> {
    let whole = async {
        let channel = tls.connect(&address.to_string(), &name(node), LIMIT).await;
        let channel = channel.map_err(|error| format!("{error:?}"))?;
        let answer = NodeServiceClient::new(channel)
            .get_status(v1::GetStatusRequest {})
            .await;
        answer
            .map(|answer| answer.into_inner().agent_version)
            .map_err(|status| format!("{status:?}"))
    };
    tokio::time::timeout(LIMIT, whole)
        .await
        .map_err(|_| "no answer".to_owned())?
}

#[tokio::test]
async fn a_member_gets_in_and_is_known() {
    let (folders, address) = mesh().await;
    assert_eq!(
        ask(&folders.tls("shop", "n2"), address, "n1").await,
        Ok("node n2".to_owned())
    );
}

#[tokio::test]
async fn another_nodes_certificate_is_not_believed() {
    let (folders, address) = mesh().await;
    let refused = ask(&folders.tls("shop", "n2"), address, "n2")
        .await
        .expect_err("n1 is not n2");
    assert!(refused.contains("NotValidForName"), "{refused}");
}

#[tokio::test]
async fn another_mesh_is_refused_by_both_sides() {
    let (folders, address) = mesh().await;
    // The same names, another authority.
    let other = Folders::init("shop", &[("n2", address)]);
    let refused = ask(&other.tls("shop", "n2"), address, "n1")
        .await
        .expect_err("another authority");
    assert!(
        refused.contains("does not come from the mesh's root"),
        "{refused}"
    );
    // A client that believes the server, but comes with the other mesh's certificate.
    let foreign = files(&other.path("mesh/nodes/n2"), "node");
    let cert = fs::read(&foreign.cert).expect("a file");
    let key = fs::read(&foreign.key).expect("a file");
    assert_eq!(
        shake(&folders, address, Some((cert, key))).await,
        Refused::Yes
    );
}

#[derive(Debug, PartialEq, Eq)]
enum Refused {
    Yes,
    No,
}

/// Whether the server ends the connection. In TLS 1.3 a client learns that only by reading.
async fn shake(
    folders: &Folders,
    address: SocketAddr,
    identity: Option<(Vec<u8>, Vec<u8>)>,
) -> Refused {
    let mut roots = RootCertStore::empty();
    let ca = fs::read(folders.path("mesh/ca.pem")).expect("a file");
    roots
        .add(CertificateDer::from_pem_slice(&ca).expect("PEM"))
        .expect("an authority");
    let builder =
        ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let cert = CertificateDer::from_pem_slice(&cert).expect("PEM");
            let key = PrivateKeyDer::from_pem_slice(&key).expect("PEM");
            builder
                .with_client_auth_cert(vec![cert], key)
                .expect("a pair")
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await.expect("it listens");
    let server = ServerName::try_from("n1").expect("a name");
    let Ok(mut stream) = TlsConnector::from(Arc::new(config))
        .connect(server, stream)
        .await
    else {
        return Refused::Yes;
    };
    // An HTTP/2 server speaks first once it has read the preface.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    if stream.write_all(preface).await.is_err() {
        return Refused::Yes;
    }
    let mut byte = [0];
    match tokio::time::timeout(LIMIT, stream.read(&mut byte))
        .await
        .expect("an answer or an end")
    {
        Ok(1) => Refused::No,
        Ok(_) | Err(_) => Refused::Yes,
    }
}

/// A certificate of the mesh's own authority, made as a test wants it.
fn issue(folders: &Folders, change: impl FnOnce(&mut CertificateParams)) -> (Vec<u8>, Vec<u8>) {
    let key = fs::read_to_string(folders.path("mesh/ca.key")).expect("the authority's key");
    let mut authority = CertificateParams::default();
    authority.distinguished_name = DistinguishedName::new();
    authority
        .distinguished_name
        .push(DnType::CommonName, "cbddc mesh shop");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let issuer = Issuer::new(authority, KeyPair::from_pem(&key).expect("a key"));
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![uri("cbddc://shop/user/eve/operator")];
    change(&mut params);
    let own = KeyPair::generate().expect("a key");
    let cert = params.signed_by(&own, &issuer).expect("a certificate");
    (cert.pem().into_bytes(), own.serialize_pem().into_bytes())
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ASCII"))
}

#[tokio::test]
async fn only_a_valid_certificate_of_this_mesh_gets_in() {
    let (folders, address) = mesh().await;
    // A host that joins has none; what it may call is the table's to say (`access.rs`).
    assert_eq!(
        shake(&folders, address, None).await,
        Refused::No,
        "no certificate"
    );
    type Change = fn(&mut CertificateParams);
    let cases: [(&str, Refused, Change); 7] = [
        ("as it should be", Refused::No, |_| ()),
        ("expired", Refused::Yes, |params| {
            params.not_after = date_time_ymd(2020, 1, 1)
        }),
        // This host's clock may be the one that is wrong: its battery died.
        ("not yet valid", Refused::No, |params| {
            params.not_before = date_time_ymd(2999, 1, 1)
        }),
        ("for servers only", Refused::Yes, |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        }),
        ("without a name", Refused::Yes, |params| {
            params.subject_alt_names.clear()
        }),
        ("another mesh's name", Refused::Yes, |params| {
            params.subject_alt_names = vec![uri("cbddc://other/user/eve/operator")];
        }),
        ("two names", Refused::Yes, |params| {
            params
                .subject_alt_names
                .push(uri("cbddc://shop/user/ana/admin"));
        }),
    ];
    for (what, expected, change) in cases {
        let identity = issue(&folders, change);
        assert_eq!(
            shake(&folders, address, Some(identity)).await,
            expected,
            "{what}"
        );
    }
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let (_folders, address) = mesh().await;
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.push(0); // no session
    hello.extend([0, 4, 0xc0, 0x2b, 0xc0, 0x2f]); // ECDHE with AES-128-GCM, ECDSA and RSA
    hello.extend([1, 0]); // no compression
    let groups = [0, 10, 0, 4, 0, 2, 0, 23]; // P-256
    let signatures = [0, 13, 0, 4, 0, 2, 4, 3]; // ECDSA with SHA-256
    hello.extend([0, 16]);
    hello.extend(groups);
    hello.extend(signatures);
    let length = u8::try_from(hello.len()).expect("short");
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    stream.write_all(&record).await.expect("sent");
    let mut alert = [0; 7];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut alert))
        .await
        .expect("an answer")
        .expect("an alert");
    assert_eq!(
        (alert[0], &alert[5..]),
        (21, &[2, 70][..]),
        "fatal alert protocol_version"
    );
}

#[tokio::test]
async fn who_dawdles_holds_up_nobody() {
    let (folders, address) = mesh().await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(address).await.expect("it listens"));
    }
    assert_eq!(
        ask(&folders.tls("shop", "n2"), address, "n1").await,
        Ok("node n2".to_owned())
    );
    // And is sent away in time.
    let mut byte = [0];
    let read = tokio::time::timeout(LIMIT * 2, silent[0].read(&mut byte));
    assert_eq!(read.await.expect("closed within the limit").unwrap_or(0), 0);
}

#[tokio::test]
async fn files_that_do_not_fit_are_named() {
    let (folders, _) = mesh().await;
    let own = files(&folders.path("mesh/nodes/n1"), "node");
    let load = |files, node: &str| load_tls(files, "shop", node).map(drop);
    assert!(load(&own, "n1").is_ok());
    assert!(matches!(load(&own, "n2"), Err(TlsError::NotOurs { .. })));

    let mixed = cbagent::config::TlsFiles {
        key: folders.path("mesh/nodes/n2/node.key"),
        ..own.clone()
    };
    assert!(matches!(load(&mixed, "n1"), Err(TlsError::Pair { .. })));
    let swapped = cbagent::config::TlsFiles {
        cert: own.key.clone(),
        ..own.clone()
    };
    assert!(matches!(load(&swapped, "n1"), Err(TlsError::NotPem { .. })));
    fs::set_permissions(&own.key, fs::Permissions::from_mode(0o644)).expect("own file");
    let error = load(&own, "n1")
        .expect_err("others may read it")
        .to_string();
    assert!(
        error.contains("0644") && error.contains("chmod 600"),
        "{error}"
    );
}
