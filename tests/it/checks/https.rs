//! Health pages over TLS: whom is believed, and where a redirect may lead.

use super::{answer, checks, of, running, server};
use cbagent::adapters::checks::Probe;
use cbagent::adapters::http::{HttpAddress, HttpTarget};
use cbagent::adapters::https;
use cbddc_domain::health::{Check, Status};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// An authority, and a certificate for one name that it issued, with its key.
struct Identity {
    authority: String,
    certificate: rcgen::Certificate,
    key: KeyPair,
}

fn identity(name: &str) -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    Identity {
        authority,
        certificate,
        key,
    }
}

/// Answers every connection over TLS with this.
async fn tls_server(identity: &Identity, answer: Vec<u8>) -> SocketAddr {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.serialize_der()));
    let config =
        ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![identity.certificate.der().clone()], key)
            .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(socket).await else {
                continue;
            };
            let _ = stream.read(&mut [0; 1_024]).await;
            let _ = stream.write_all(&answer).await;
            let _ = stream.read(&mut [0; 1_024]).await;
        }
    });
    address
}

async fn ask(url: &str, tls: Option<TlsConnector>) -> (Status, String) {
    let address = HttpAddress::parse(url).unwrap();
    let probe = Probe::Http(HttpTarget { address, tls });
    let measured = checks(running(), vec![(Check::Http, probe)])
        .measure(Duration::MAX)
        .await;
    let (status, detail) = of(&measured, Check::Http);
    (status, detail.to_owned())
}

#[tokio::test]
async fn a_private_authority_or_the_very_certificate_is_believed_and_nothing_else() {
    let (right, other) = (identity("127.0.0.1"), identity("127.0.0.1"));
    let wrong_name = identity("till-9");
    let healthy = || answer("200 OK", "Healthy");
    let server = tls_server(&right, healthy()).await;
    let url = format!("https://{server}/health");
    let trusting = |identity: &Identity| https::trusting(identity.authority.as_bytes()).unwrap();
    let pinning =
        |identity: &Identity| https::pinning(identity.certificate.pem().as_bytes()).unwrap();
    for tls in [trusting(&right), pinning(&right)] {
        let (status, detail) = ask(&url, Some(tls)).await;
        assert_eq!(status, Status::Healthy, "{detail}");
    }
    for tls in [trusting(&other), pinning(&other)] {
        let (status, detail) = ask(&url, Some(tls)).await;
        assert_eq!(status, Status::Unhealthy);
        assert!(
            detail.contains("no TLS with the right certificate"),
            "{detail}"
        );
    }
    let server = tls_server(&wrong_name, healthy()).await;
    let url = format!("https://{server}/health");
    assert_eq!(
        ask(&url, Some(trusting(&wrong_name))).await.0,
        Status::Unhealthy
    );
    // A pinned certificate is the node's, whatever name it has.
    assert_eq!(
        ask(&url, Some(pinning(&wrong_name))).await.0,
        Status::Healthy
    );
    let (status, detail) = ask(&url, None).await;
    assert_eq!(status, Status::Unhealthy);
    assert!(detail.contains("nothing says whom to believe"), "{detail}");
}

#[tokio::test]
async fn a_redirect_is_followed_to_tls_on_the_same_host_and_nowhere_else() {
    let right = identity("127.0.0.1");
    let secure = tls_server(&right, answer("200 OK", "Degraded")).await;
    let to = |place: String| {
        let head = format!("307 Temporary Redirect\r\nLocation: {place}");
        server(answer(&head, "Healthy"))
    };
    let tls = || https::trusting(right.authority.as_bytes()).ok();
    let moved = to(format!("https://{secure}/health")).await;
    let (status, detail) = ask(&format!("http://{moved}/"), tls()).await;
    assert_eq!(
        (status, detail.as_str()),
        (Status::Degraded, "answered 200 with Degraded")
    );
    // The same server under another name is another host.
    let elsewhere = to(format!("https://localhost:{}/health", secure.port())).await;
    let (status, detail) = ask(&format!("http://{elsewhere}/"), tls()).await;
    assert_eq!(status, Status::Unknown);
    assert!(detail.contains("it is not followed"), "{detail}");
    let (status, _) = ask(&format!("http://{moved}/"), None).await;
    assert_eq!(status, Status::Unknown);
    // From TLS to none.
    let plain = server(answer("200 OK", "Healthy")).await;
    let head = format!("302 Found\r\nLocation: http://{plain}/");
    let down = tls_server(&right, answer(&head, "")).await;
    assert_eq!(
        ask(&format!("https://{down}/"), tls()).await.0,
        Status::Unknown
    );
    // A circle ends.
    let circle = server(answer("302 Found\r\nLocation: /", "")).await;
    assert_eq!(
        ask(&format!("http://{circle}/"), None).await.0,
        Status::Unknown
    );
}
