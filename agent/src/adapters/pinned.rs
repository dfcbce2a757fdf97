//! A connection to the issuer of a token, by a host that knows no more of the mesh than the digest
//! of its root authority.

use crate::adapters::belief::{Belief, client, dial};
use cbddc_domain::build::Digest;
use cbddc_domain::id::NodeName;
use cbddc_pki::certificate::{CertificateFault, fingerprint};
use cbddc_pki::name::Holder;
use cbddc_pki::signature::Roots;
use cbddc_pki::token::Token;
use hyper_util::rt::TokioIo;
use rustls::{CertificateError, Error};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint, Uri};

/// How long connecting, and the call after it, may take.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Why the issuer cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum PinnedError {
    /// No connection, or whoever answers is not the token's issuer.
    #[error("no connection to the issuer that the token names")]
    Connect(#[from] tonic::transport::Error),
    /// TLS could not be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] Error),
    /// Nothing came in time.
    #[error("no answer within {} s", LIMIT.as_secs())]
    NoAnswer,
}

/// Connects to the issuer of a token, without a certificate.
pub async fn connect(address: &str, token: &Token) -> Result<Channel, PinnedError> {
    let mut config = client(Pinned {
        mesh: token.mesh.clone(),
        issuer: token.issuer.clone(),
        root: token.root,
    })?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (config, address, issuer) = (
        Arc::new(config),
        address.to_owned(),
        token.issuer.to_string(),
    );
    let endpoint = Endpoint::from_shared(format!("http://{issuer}"))?;
    let connecting = endpoint.connect_with_connector(tower::service_fn(move |_: Uri| {
        let dial = dial(Arc::clone(&config), address.clone(), issuer.clone());
        async { dial.await.map(TokioIo::new) }
    }));
    let connected = tokio::time::timeout(LIMIT, connecting).await;
    Ok(connected.map_err(|_| PinnedError::NoAnswer)??)
}

#[derive(Debug)]
struct Pinned {
    mesh: String,
    issuer: NodeName,
    root: Digest,
}

impl Pinned {
    fn check(
        &self,
        leaf: &[u8],
        others: &[CertificateDer<'_>],
        now_s: i64,
    ) -> Result<Holder, CertificateFault> {
        let is_root = |der: &&CertificateDer<'_>| fingerprint(der) == self.root;
        let root = others.iter().find(is_root).map(|der| der.to_vec());
        let roots = Roots::from_der(root.into_iter().collect())?;
        let between: Vec<&[u8]> = others.iter().map(AsRef::as_ref).collect();
        match roots.check_chain(leaf, &between, now_s, &self.mesh) {
            Ok(facts) => Ok(facts.mesh_holder),
            // This host's clock is behind: it may have none.
            Err(CertificateFault::NotYet { .. }) => {
                Ok(cbddc_pki::certificate::facts(leaf, &self.mesh)?.mesh_holder)
            }
            Err(fault) => Err(fault),
        }
    }
}

impl Belief for Pinned {
    fn believe(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        match self.check(leaf, others, now_s) {
            Ok(Holder::Node(name)) if name == self.issuer => Ok(()),
            Ok(_) => Err(Error::InvalidCertificate(CertificateError::NotValidForName)),
            Err(fault) => Err(Error::General(format!(
                "whoever answers there does not belong to the mesh of the token: {}",
                crate::error_chain(&fault)
            ))),
        }
    }
}
