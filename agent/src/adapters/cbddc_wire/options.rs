//! How to talk to a node.

use super::frame::DEFAULT_PAYLOAD_LIMIT;
use std::fmt;
use std::time::Duration;

/// A text that must not be seen, such as the token of a cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text. The caller must not log, print or store it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Whether the node speaks the secure channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Wait whether the node speaks first, as secure ones do.
    Auto,
    /// It does.
    Secure,
    /// It does not.
    Plaintext,
}

/// Options of a connection.
#[derive(Debug, Clone)]
pub struct WireOptions {
    /// Whether the node speaks the secure channel.
    pub security: Security,
    /// The name under which the agent asks.
    pub node_id: String,
    /// The token of the cluster.
    pub token: Secret,
    /// Whether to offer Brotli.
    pub offer_brotli: bool,
    /// How long opening the connection may take.
    pub connect_timeout: Duration,
    /// How long, under [`Security::Auto`], to wait for the node to speak first. A secure node slower
    /// than this is taken for a plaintext one, and its late hello for garbage: set
    /// [`Security::Secure`] where that happens.
    pub detect_timeout: Duration,
    /// How long a short answer may take.
    pub read_timeout: Duration,
    /// How long an answer with events may take.
    pub bulk_timeout: Duration,
    /// The largest payload to accept, in bytes, packed or unpacked.
    pub payload_limit: usize,
}

impl WireOptions {
    /// The usual options: detect the channel, offer Brotli, 2 s to connect, 5 s for a short answer,
    /// 30 s for events, 64 MiB at most.
    pub fn new(node_id: impl Into<String>, token: Secret) -> Self {
        Self {
            security: Security::Auto,
            node_id: node_id.into(),
            token,
            offer_brotli: true,
            connect_timeout: Duration::from_secs(2),
            detect_timeout: Duration::from_millis(500),
            read_timeout: Duration::from_secs(5),
            bulk_timeout: Duration::from_secs(30),
            payload_limit: DEFAULT_PAYLOAD_LIMIT,
        }
    }
}
