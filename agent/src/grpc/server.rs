//! The listeners: mutual TLS for the network, root's socket for the host; bounded messages and streams, reflection and the standard health
//! service.

use super::Services;
use crate::adapters::local::LocalSocket;
use crate::adapters::tls::incoming;
use crate::grpc::access::AccessLayer;
use cbddc_proto::v1::build_service_server::BuildServiceServer;
use cbddc_proto::v1::health_service_server::HealthServiceServer;
use cbddc_proto::v1::journal_service_server::JournalServiceServer;
use cbddc_proto::v1::mesh_service_server::MeshServiceServer;
use cbddc_proto::v1::node_service_server::NodeServiceServer;
use cbddc_proto::v1::release_service_server::ReleaseServiceServer;
use cbddc_proto::v1::replication_service_server::ReplicationServiceServer;
use cbddc_proto::v1::rollout_service_server::RolloutServiceServer;
use cbddc_proto::v1::snapshot_service_server::SnapshotServiceServer;
use cbddc_proto::{DESCRIPTORS, MESSAGE_BYTES_MAX};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Router;
use tower::layer::util::{Identity, Stack};

/// Calls at once on one connection.
const STREAMS_PER_CONNECTION: u32 = 64;
/// HTTP/2 windows in bytes: a bundle is not slowed down by the round trips of a LAN.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// For all streams of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// A silent peer is asked for a sign of life after this.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Why the agent cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The reflection service could not be made.
    #[error("the descriptors of the API cannot be read")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The listener failed.
    #[error("the API's listener failed")]
    Listener(#[from] tonic::transport::Error),
}

/// Serves the API on a bound listener, and on the host's own socket, until `stop`; then ends the
/// calls that are under way.
pub async fn serve(
    listener: TcpListener,
    local: LocalSocket,
    services: Services,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<NodeServiceServer<Services>>().await;
    let (network, socket) = (stop.clone(), stop.clone());
    let stopping = async move {
        network.cancelled().await;
        reporter
            .set_not_serving::<NodeServiceServer<Services>>()
            .await;
    };
    let incoming = incoming(listener, services.tls.clone());
    let network = router(services.clone())?
        .add_service(health.clone())
        .serve_with_incoming_shutdown(incoming, stopping);
    let socket = router(services)?
        .add_service(health)
        .serve_with_incoming_shutdown(local.incoming(), socket.cancelled_owned());
    tokio::try_join!(network, socket)?;
    Ok(())
}

/// The table of calls, before all services.
type Guard = Stack<AccessLayer, Identity>;

/// Everything that is served, with its bounds.
fn router(services: Services) -> Result<Router<Guard>, ServeError> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    macro_rules! bounded {
        ($server:ident) => {
            $server::new(services.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX)
        };
    }
    Ok(Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .layer(AccessLayer {
            roster: services.roster.clone(),
        })
        .add_service(bounded!(NodeServiceServer))
        .add_service(bounded!(BuildServiceServer))
        .add_service(bounded!(ReleaseServiceServer))
        .add_service(bounded!(ReplicationServiceServer))
        .add_service(bounded!(RolloutServiceServer))
        .add_service(bounded!(MeshServiceServer))
        .add_service(bounded!(SnapshotServiceServer))
        .add_service(bounded!(HealthServiceServer))
        .add_service(bounded!(JournalServiceServer))
        .add_service(reflection))
}
