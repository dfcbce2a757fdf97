//! Connections that have proved who they are, for tonic's server.

use super::PeerIdentity;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// The most handshakes at once; further connections wait in the kernel's queue. A mesh has fewer
/// members and admins.
pub const HANDSHAKES_MAX: usize = 256;
/// How long a handshake may take.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Pause after a failed accept, such as one without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who is connected, in the extensions of every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectInfo {
    /// Who, as the certificate says.
    pub peer: PeerIdentity,
    /// From where; unset: from this host, through the socket.
    pub address: Option<SocketAddr>,
}

/// A connection whose other end has proved who it is.
pub struct TlsStream {
    stream: server::TlsStream<TcpStream>,
    info: ConnectInfo,
}

impl TlsStream {
    /// Who is at the other end.
    pub fn info(&self) -> &ConnectInfo {
        &self.info
    }
}

impl Connected for TlsStream {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        self.info.clone()
    }
}

/// Accepts connections and shakes hands, many at once, each within [`HANDSHAKE_LIMIT`].
///
/// A connection that fails or dawdles is closed, logged, and holds up nobody else. Accepting ends
/// when the stream is dropped. Must be called within a runtime.
pub fn incoming(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    mesh: &str,
) -> impl Stream<Item = io::Result<TlsStream>> + Send + use<> {
    let (ready, stream) = mpsc::channel(16);
    tokio::spawn(accept(listener, acceptor, mesh.into(), ready));
    ReceiverStream::new(stream)
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    mesh: Arc<str>,
    ready: mpsc::Sender<io::Result<TlsStream>>,
) {
    let room = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        // The semaphore is never closed, so waiting for it does not fail.
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ready.closed() => return,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, mesh, ready) = (acceptor.clone(), Arc::clone(&mesh), ready.clone());
        tokio::spawn(async move {
            let shaken = tokio::time::timeout(
                HANDSHAKE_LIMIT,
                shake_hands(stream, address, &acceptor, &mesh),
            );
            match shaken.await {
                // The server may be gone by now; then the connection just ends.
                Ok(Ok(stream)) => drop(ready.send(Ok(stream)).await),
                Ok(Err(error)) => tracing::info!(%address, %error, "refused a connection"),
                Err(_) => tracing::info!(%address, "refused a connection: no handshake in time"),
            }
            drop(permit);
        });
    }
}

async fn shake_hands(
    stream: TcpStream,
    address: SocketAddr,
    acceptor: &TlsAcceptor,
    mesh: &str,
) -> io::Result<TlsStream> {
    stream.set_nodelay(true)?;
    let stream = acceptor.accept(stream).await?;
    let refuse = |why: String| io::Error::new(io::ErrorKind::PermissionDenied, why);
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
        .ok_or_else(|| refuse("no certificate".to_owned()))?;
    let peer = PeerIdentity::of(certificate, mesh)
        .map_err(|found| refuse(format!("the certificate names {found}")))?;
    Ok(TlsStream {
        stream,
        info: ConnectInfo {
            peer,
            address: Some(address),
        },
    })
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
