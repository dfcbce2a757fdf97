//! The way in for who has this host already: a Unix socket without a certificate, for root, and for
//! the users and groups that the configuration names.
//!
//! The kernel tells whose process connected, and that alone decides. As long as nobody but root may
//! come, the file's mode lets nobody else connect either: two locks on one door.

use crate::adapters::accounts::Accounts;
use crate::adapters::disk;
use crate::adapters::tls::{ConnectInfo, Shown};
use cbddc_domain::access::{LocalRoles, Role};
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

/// The socket of this host's agent. The file is removed with it.
#[derive(Debug)]
pub struct LocalSocket {
    listener: UnixListener,
    path: PathBuf,
    roles: LocalRoles,
}

impl LocalSocket {
    /// Makes the socket in the run folder, in the place of one that an agent left behind.
    ///
    /// # Errors
    /// The folder is not there or may not be written to, or its path is longer than a socket's may
    /// be (107 bytes).
    pub fn bind(run_dir: &Path, roles: LocalRoles) -> io::Result<Self> {
        let path = run_dir.join(SOCKET);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
        let listener = UnixListener::bind(&path)?;
        // Whoever connects before this is asked for its user below.
        if roles.is_empty() {
            disk::set_mode(&path, 0o600)?;
        } else {
            disk::set_mode(&path, 0o666)?;
            // Others get to the socket by its name, and see no names of what else is there.
            disk::set_mode(run_dir, 0o711)?;
        }
        Ok(Self {
            listener,
            path,
            roles,
        })
    }

    /// Connections of those who may: root, the user that the agent runs as, and who is named. Must be called within a runtime.
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
            let peer = accepted.and_then(|(stream, _)| Ok((stream.peer_cred()?, stream)));
            match peer {
                Ok((peer, stream)) => {
                    let account = Accounts::default().account(peer.uid(), peer.gid());
                    let is_own = account.uid == own;
                    let role = self.roles.role_of(&account);
                    let Some(role) = role.or(is_own.then_some(Role::Admin)) else {
                        let (user, uid) = (account.shown(), account.uid);
                        tracing::warn!(user, uid, "a stranger was refused at the local socket");
                        continue;
                    };
                    let name = account.shown();
                    drop(ready.send(Ok(LocalStream { stream, name, role })).await);
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

/// A connection of a user of this host.
#[derive(Debug)]
pub struct LocalStream {
    stream: UnixStream,
    name: String,
    role: Role,
}

impl Connected for LocalStream {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        ConnectInfo {
            shown: Shown::Local {
                name: self.name.clone(),
                role: self.role,
            },
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
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for LocalStream {
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
