//! Connections that have proved who they are, for tonic's server.

use super::room::{Place, Room};
use super::sparing::Sparing;
use super::{ConnectInfo, Shown, Tls};
use cbddc_pki::certificate::facts;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio::time::Sleep;
use tokio_rustls::server;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

/// The most handshakes at once; for a further connection, the oldest of the address with most of
/// them ends. A mesh has fewer members and admins.
pub const HANDSHAKES_MAX: usize = 256;
/// How long a handshake may take.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Pause after a failed accept, such as one without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The most connections at once of hosts without a certificate: they can only join, and a flood of
/// them leaves room for members. A further one takes the place of another, as with handshakes.
pub const STRANGERS_MAX: usize = 16;
/// How long such a connection may last.
const STRANGER_LIMIT: Duration = Duration::from_secs(15);
/// How many bytes it may send: several attempts to join, and not calls without end.
pub const STRANGER_BYTES_MAX: usize = 64 * 1024;

/// A connection, and what its other end has proved.
pub struct TlsStream {
    stream: server::TlsStream<TcpStream>,
    info: ConnectInfo,
    stranger: Option<Stranger>,
}

/// A connection without a certificate: its place among few, and its end.
struct Stranger {
    _place: Place,
    taken: Pin<Box<WaitForCancellationFutureOwned>>,
    until: Pin<Box<Sleep>>,
    bytes_left: usize,
}

impl Stranger {
    fn new(place: Place) -> Self {
        Self {
            taken: Box::pin(place.taken.clone().cancelled_owned()),
            _place: place,
            until: Box::pin(tokio::time::sleep(STRANGER_LIMIT)),
            bytes_left: STRANGER_BYTES_MAX,
        }
    }

    /// Why it ends now, if it does.
    fn ends(&mut self, context: &mut Context<'_>) -> Option<io::ErrorKind> {
        if self.until.as_mut().poll(context).is_ready() {
            return Some(io::ErrorKind::TimedOut);
        }
        let taken = self.taken.as_mut().poll(context).is_ready();
        (taken || self.bytes_left == 0).then_some(io::ErrorKind::ConnectionAborted)
    }
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
/// A connection that fails or dawdles is closed, logged (up to so many a minute), and holds up nobody else. Accepting ends
/// when the stream is dropped. Must be called within a runtime.
pub fn incoming(
    listener: TcpListener,
    tls: Tls,
) -> impl Stream<Item = io::Result<TlsStream>> + Send + use<> {
    let (ready, stream) = mpsc::channel(16);
    tokio::spawn(accept(listener, tls, ready));
    ReceiverStream::new(stream)
}

async fn accept(listener: TcpListener, tls: Tls, ready: mpsc::Sender<io::Result<TlsStream>>) {
    let (room, strangers) = (Room::new(HANDSHAKES_MAX), Room::new(STRANGERS_MAX));
    let log = Arc::new(Sparing::default());
    loop {
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
        let place = room.enter(address.ip());
        let (tls, strangers, ready) = (tls.clone(), strangers.clone(), ready.clone());
        let log = Arc::clone(&log);
        tokio::spawn(async move {
            let shaken = shake_hands(stream, address, &tls, &strangers);
            let shaken = tokio::time::timeout(HANDSHAKE_LIMIT, shaken);
            let shaken = tokio::select! {
                shaken = shaken => shaken,
                () = place.taken.cancelled() => {
                    tracing::debug!(%address, "ended a handshake: another one needs its place");
                    return;
                }
            };
            match shaken {
                // The server may be gone by now; then the connection just ends.
                Ok(Ok(stream)) => drop(ready.send(Ok(stream)).await),
                Ok(Err(error)) => tell(&log, address, &error.to_string()),
                Err(_) => tell(&log, address, "no handshake in time"),
            }
        });
    }
}

/// Logs a refused connection, as far as the log has room for strangers.
fn tell(log: &Sparing, address: SocketAddr, why: &str) {
    let Some(left_out) = log.admit(Instant::now()) else {
        return;
    };
    tracing::info!(%address, "refused a connection: {why}");
    if left_out > 0 {
        tracing::warn!("{left_out} more connections were refused within a minute before that");
    }
}

async fn shake_hands(
    stream: TcpStream,
    address: SocketAddr,
    tls: &Tls,
    strangers: &Room,
) -> io::Result<TlsStream> {
    stream.set_nodelay(true)?;
    let stream = tls.acceptor().accept(stream).await?;
    let refuse = |why: String| io::Error::new(io::ErrorKind::PermissionDenied, why);
    let certificates = stream.get_ref().1.peer_certificates();
    let (shown, stranger) = match certificates.and_then(<[_]>::first) {
        Some(certificate) => {
            let facts =
                facts(certificate, tls.mesh()).map_err(|fault| refuse(fault.to_string()))?;
            let chain = certificates.unwrap_or_default();
            let shown = match tls.roots().vouch_for(chain, tls.mesh()) {
                true => Shown::Certificate(Arc::new(facts)),
                // The handshake let it in: it is a host's, of an authority that was replaced.
                false => Shown::Former(Arc::new(facts)),
            };
            (shown, None)
        }
        None => {
            let place = strangers.enter(address.ip());
            (Shown::Nothing, Some(Stranger::new(place)))
        }
    };
    Ok(TlsStream {
        stream,
        info: ConnectInfo {
            shown,
            address: Some(address),
        },
        stranger,
    })
}

impl AsyncRead for TlsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(ends) = self.stranger.as_mut().map(|one| one.ends(context)) else {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        };
        if let Some(why) = ends {
            return Poll::Ready(Err(why.into()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(stranger) = &mut self.stranger {
            let bytes = buffer.filled().len() - before;
            stranger.bytes_left = stranger.bytes_left.saturating_sub(bytes);
        }
        read
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
