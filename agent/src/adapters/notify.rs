//! Tells systemd how this service is (`sd_notify(3)`): one datagram per message on the socket that the
//! environment names. Without systemd nothing is told, and nothing fails.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The most bytes of a status line; systemd shows it in one line.
const STATUS_BYTES_MAX: usize = 256;

/// A way to systemd.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment of this process says: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`. None
    /// where nobody listens.
    ///
    /// # Errors
    /// If the socket named there cannot be used.
    pub fn from_env() -> io::Result<Option<Self>> {
        let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
            return Ok(None);
        };
        let variable = |name: &str| std::env::var(name).ok();
        let watchdog = watchdog(
            variable("WATCHDOG_USEC").as_deref(),
            variable("WATCHDOG_PID").as_deref(),
            std::process::id(),
        );
        Self::new(&socket, watchdog).map(Some)
    }

    /// A way to the socket of that name; a name that begins with `@` is an abstract one.
    ///
    /// # Errors
    /// If there can be no such socket.
    pub fn new(socket: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match socket.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(socket)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A full queue must not hold the agent up; the next message says what matters again.
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            address,
            watchdog,
        })
    }

    /// How often systemd wants to hear [`Self::alive`] at least; unset: it does not care.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The service is up.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The service ends because it was asked to.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// The service is not stuck.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    /// What `systemctl status` shows. Cut to one line.
    pub fn status(&self, text: &str) {
        let line = text.lines().next().unwrap_or_default();
        let end = line.floor_char_boundary(STATUS_BYTES_MAX.min(line.len()));
        self.send(&format!("STATUS={}", &line[..end]));
    }

    fn send(&self, message: &str) {
        let sent = self.socket.send_to_addr(message.as_bytes(), &self.address);
        if let Err(error) = sent {
            tracing::warn!(%error, "cannot tell systemd how the agent is");
        }
    }
}

/// The time that systemd set for this process, if it set one.
fn watchdog(usec: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let for_us = pid.is_none_or(|pid| pid.parse() == Ok(own));
    let usec: u64 = usec?.parse().ok()?;
    (for_us && usec > 0).then(|| Duration::from_micros(usec))
}

#[cfg(test)]
mod tests {
    use super::watchdog;
    use std::time::Duration;

    #[test]
    fn a_watchdog_is_for_the_process_it_names() {
        let minute = Some(Duration::from_secs(60));
        for (usec, pid, expected) in [
            (Some("60000000"), None, minute),
            (Some("60000000"), Some("7"), minute),
            (Some("60000000"), Some("8"), None),
            (Some("60000000"), Some("x"), None),
            (Some("0"), None, None),
            (Some("soon"), None, None),
            (None, Some("7"), None),
        ] {
            assert_eq!(watchdog(usec, pid, 7), expected, "{usec:?} {pid:?}");
        }
    }
}
