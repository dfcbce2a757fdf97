//! The way in for who has this host already: a Unix socket that root alone may use, without a
//! certificate.
//!
//! Two locks on one door: the file's mode lets nobody else connect, and the kernel tells whose
//! process connected.

use crate::adapters::disk;
use crate::adapters::tls::{ConnectInfo, PeerIdentity};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// The name of the socket in the run folder.
pub const SOCKET: &str = "agent.sock";

/// Pause after a failed accept, such as one without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who comes in this way, in the journal.
const LOCAL_PERSON: &str = "root";

/// The socket of this host's agent. The file is removed with it.
#[derive(Debug)]
pub struct LocalSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl LocalSocket {
    /// Makes the socket in the run folder, in the place of one that an agent left behind.
    ///
    /// # Errors
    /// The folder is not there or may not be written to, or its path is longer than a socket's may
    /// be (107 bytes).
    pub fn bind(run_dir: &Path) -> io::Result<Self> {
        let path = run_dir.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        let listener = UnixListener::bind(&path)?;
        // Whoever connects before this is asked for its user below.
        disk::set_mode(&path, 0o600)?;
        Ok(Self { listener, path })
    }

    /// Connections of root, or of the user that the agent runs as. Must be called within a runtime.
    pub fn incoming(self) -> impl Stream<Item = io::Result<LocalStream>> + Send + use<> {
        let (ready, stream) = mpsc::channel(16);
        tokio::spawn(self.accept(ready));
        ReceiverStream::new(stream)
    }

    async fn accept(self, ready: mpsc::Sender<io::Result<LocalStream>>) {
        let own = rustix::process::geteuid().as_raw();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = ready.closed() => return,
            };
            let user = accepted.and_then(|(stream, _)| Ok((stream.peer_cred()?.uid(), stream)));
            match user {
                Ok((user, stream)) if user == 0 || user == own => {
                    drop(ready.send(Ok(LocalStream(stream))).await);
                }
                Ok((user, _)) => {
                    tracing::warn!(user, "a stranger was refused at the local socket");
                }
                Err(error) => {
                    tracing::warn!(%error, "could not accept a local connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        // Another agent may have put its own there meanwhile only if this one had ended.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A connection of root.
#[derive(Debug)]
pub struct LocalStream(UnixStream);

impl Connected for LocalStream {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        ConnectInfo {
            peer: PeerIdentity::Person(LOCAL_PERSON.to_owned()),
            address: None,
        }
    }
}

impl AsyncRead for LocalStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for LocalStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
