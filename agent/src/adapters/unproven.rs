//! One question to whoever answers at an address: which authorities the mesh has now.
//!
//! A host that was away while they were replaced cannot tell who answers, and shows no certificate.
//! It sends nothing of its own, and believes the answer by its signatures alone.

use crate::adapters::belief::{Belief, client, dial};
use cbddc_domain::id::NodeName;
use cbddc_proto::v1;
use cbddc_proto::v1::mesh_service_client::MeshServiceClient;
use hyper_util::rt::TokioIo;
use rustls::Error;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;
use tonic::transport::{Endpoint, Uri};

/// The largest answer, in bytes: 16 certificates and two signatures.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum UnprovenError {
    /// No connection.
    #[error("no connection")]
    Connect(#[from] tonic::transport::Error),
    /// TLS could not be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] Error),
    /// It was refused.
    #[error("it was refused")]
    Refused(#[from] tonic::Status),
}

/// The newest statement about the authorities that is known there. Bound it with a time limit.
pub async fn trust_of(
    address: &str,
    node: &NodeName,
) -> Result<Option<v1::SignedStatement>, UnprovenError> {
    let mut config = client(Anybody)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    let (address, name) = (address.to_owned(), node.to_string());
    let channel = Endpoint::from_shared(format!("http://{node}"))?
        .connect_with_connector(tower::service_fn(move |_: Uri| {
            let dial = dial(Arc::clone(&config), address.clone(), name.clone());
            async { dial.await.map(TokioIo::new) }
        }))
        .await?;
    let answered = MeshServiceClient::new(channel)
        .max_decoding_message_size(ANSWER_BYTES_MAX)
        .get_trust(v1::GetTrustRequest {})
        .await?;
    Ok(answered.into_inner().trust)
}

#[derive(Debug)]
struct Anybody;

impl Belief for Anybody {
    fn believe(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: UnixTime,
    ) -> Result<(), Error> {
        Ok(())
    }
}
