//! Asks one node the questions that change nothing.
//!
//! Requests and answers alternate strictly. After any failure the connection is of no further use,
//! because an answer that comes late would be taken for the next one; the client then refuses.

use super::answers::{ChainRangeAnswer, HandshakeOutcome, NodeStatus};
use super::channel::Role;
use super::compression::BROTLI;
use super::error::WireError;
use super::link::{Link, LinkError, Received};
use super::messages::{
    ChainRange, ChangeSet, Clock, Empty, GetChainRange, HandshakeRequest, HandshakeResponse,
    NodeStatusResponse, PullChanges, VectorClockResponse, first_fields, kind, to_domain,
};
use super::options::{Security, WireOptions};
use cbddc_domain::hlc::{Hlc, VectorClock};
use cbddc_domain::oplog::OplogEntry;
use prost::Message;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

/// The most events of one answer. The oplog of a busy day; who needs more asks from a later moment on.
pub const EVENTS_MAX: usize = 500_000;

/// An event of the shortest names has some 40 bytes; fewer on average, and it is none.
const EVENT_BYTES_MIN: usize = 24;

/// So many are taken whatever they are.
const EVENTS_ANYHOW: usize = 1000;

/// The most bytes of an answer that lists no events: clocks of a thousand origins have a tenth of it.
pub const SMALL_BYTES_MAX: usize = 1 << 20;

/// A connection to one node.
#[derive(Debug)]
pub struct WireClient {
    pub(super) link: Option<Link<TcpStream>>,
    options: WireOptions,
}

impl WireClient {
    /// Connects and, where the node wants it, opens the secure channel.
    ///
    /// # Errors
    /// [`WireError::Connect`], [`WireError::Timeout`], [`WireError::Closed`], [`WireError::Channel`].
    pub async fn connect(addr: SocketAddr, options: WireOptions) -> Result<Self, WireError> {
        let connecting = TcpStream::connect(addr);
        let stream = within("connect", options.connect_timeout, connecting)
            .await?
            .map_err(|source| WireError::Connect { addr, source })?;
        stream
            .set_nodelay(true)
            .map_err(|source| WireError::Connect { addr, source })?;
        let secure = match options.security {
            Security::Secure => true,
            Security::Plaintext => false,
            Security::Auto => speaks_first(&stream, options.detect_timeout).await?,
        };
        let link = if secure {
            let opening = Link::secure(stream, Role::Initiator, options.payload_limit);
            within("secure hello", options.read_timeout, opening)
                .await?
                .map_err(WireError::Channel)?
        } else {
            Link::plain(stream, options.payload_limit)
        };
        Ok(Self {
            link: Some(link),
            options,
        })
    }

    /// Whether the connection is encrypted.
    pub fn is_secure(&self) -> bool {
        self.link.as_ref().is_some_and(Link::is_secure)
    }

    /// Presents the token.
    ///
    /// # Errors
    /// As every question: [`WireError`]. A refused token is not an error but an outcome.
    pub async fn handshake(&mut self) -> Result<HandshakeOutcome, WireError> {
        let request = HandshakeRequest {
            node_id: self.options.node_id.clone(),
            auth_token: self.options.token.expose().to_owned(),
            supported_compression: self
                .options
                .offer_brotli
                .then(|| BROTLI.to_owned())
                .into_iter()
                .collect(),
            interesting_collections: Vec::new(),
        };
        let answer: HandshakeResponse = self
            .ask(
                "handshake",
                kind::HANDSHAKE_REQUEST,
                &request,
                kind::HANDSHAKE_RESPONSE,
                self.options.read_timeout,
            )
            .await?;
        let brotli =
            self.options.offer_brotli && answer.selected_compression.eq_ignore_ascii_case(BROTLI);
        if let Some(link) = self.link.as_mut().filter(|_| brotli) {
            link.use_brotli();
        }
        Ok(HandshakeOutcome {
            node_id: answer.node_id,
            accepted: answer.accepted,
            interests: answer.interesting_collections,
        })
    }

    /// The latest event that the node knows, or `None` when it knows none.
    ///
    /// # Errors
    /// As every question: [`WireError`].
    pub async fn clock(&mut self) -> Result<Option<Hlc>, WireError> {
        let limit = self.options.read_timeout;
        let answer: Clock = self
            .ask("clock", kind::GET_CLOCK, &Empty {}, kind::CLOCK, limit)
            .await?;
        Ok(Some(Hlc::from(answer)).filter(|hlc| *hlc != Hlc::default()))
    }

    /// The latest event that the node knows, per origin. A BLite node's is empty after a start.
    ///
    /// # Errors
    /// As every question: [`WireError`].
    pub async fn vector_clock(&mut self) -> Result<VectorClock, WireError> {
        let limit = self.options.read_timeout;
        let answer: VectorClockResponse = self
            .ask(
                "vector clock",
                kind::GET_VECTOR_CLOCK,
                &Empty {},
                kind::VECTOR_CLOCK,
                limit,
            )
            .await?;
        Ok(answer.into())
    }

    /// All events after (wall, logic) of `since`, of every origin, in the collections named (none
    /// means all). Order and duplicates are kept as received: they are evidence.
    ///
    /// # Errors
    /// As every question: [`WireError`], and [`WireError::Event`].
    pub async fn pull(
        &mut self,
        since: &Hlc,
        collections: &[String],
    ) -> Result<Vec<OplogEntry>, WireError> {
        let request = PullChanges {
            since_wall: since.wall,
            since_logic: since.logic,
            since_node: since.node.clone(),
            collections: collections.to_vec(),
        };
        let limit = self.options.bulk_timeout;
        let answer: ChangeSet = self
            .ask(
                "pull",
                kind::PULL_CHANGES,
                &request,
                kind::CHANGE_SET,
                limit,
            )
            .await?;
        to_domain(answer.entries).map_err(|source| WireError::Event {
            step: "pull",
            source,
        })
    }

    /// The events of one origin after the event with hash `start` up to that with hash `end`.
    ///
    /// # Errors
    /// As every question: [`WireError`], and [`WireError::Event`].
    pub async fn chain_range(
        &mut self,
        start: &str,
        end: &str,
    ) -> Result<ChainRangeAnswer, WireError> {
        let request = GetChainRange {
            start_hash: start.to_owned(),
            end_hash: end.to_owned(),
        };
        let limit = self.options.bulk_timeout;
        let answer: ChainRange = self
            .ask(
                "chain range",
                kind::GET_CHAIN_RANGE,
                &request,
                kind::CHAIN_RANGE,
                limit,
            )
            .await?;
        if answer.snapshot_required {
            return Ok(ChainRangeAnswer::SnapshotRequired);
        }
        let entries = to_domain(answer.entries).map_err(|source| WireError::Event {
            step: "chain range",
            source,
        })?;
        Ok(ChainRangeAnswer::Entries(entries))
    }

    /// What the node says about itself, or `None` where it does not know the question.
    ///
    /// Most builds do not: some close the connection on it, others say nothing for ever (`NODE.md`,
    /// section 2). So it has a limit of its own, and takes the client: it is the last question.
    pub async fn node_status(mut self, limit: Duration) -> Option<NodeStatus> {
        let answer: NodeStatusResponse = self
            .ask(
                "node status",
                kind::NODE_STATUS_REQUEST,
                &Empty {},
                kind::NODE_STATUS,
                limit,
            )
            .await
            .ok()?;
        Some(NodeStatus {
            node_id: answer.node_id,
            uptime_seconds: answer.uptime_seconds,
            known_peer_count: answer.known_peer_count,
            known_peer_addresses: answer.known_peer_addresses,
            service_version: answer.service_version,
        })
    }

    pub(super) fn bulk_timeout(&self) -> Duration {
        self.options.bulk_timeout
    }

    /// Sends a request and reads its answer within `limit`. The link is put back only when all went
    /// well, so that a failed or abandoned exchange cannot be continued.
    pub(super) async fn ask<Q: Message, A: Message + Default>(
        &mut self,
        step: &'static str,
        request_kind: u8,
        request: &Q,
        expected: u8,
        limit: Duration,
    ) -> Result<A, WireError> {
        let mut link = self.link.take().ok_or(WireError::Broken)?;
        let exchange = async {
            link.send(request_kind, request).await?;
            link.receive().await
        };
        let received: Option<Received> = within(step, limit, exchange)
            .await?
            .map_err(|source| WireError::Exchange { step, source })?;
        let received = received.ok_or(WireError::Closed { step })?;
        if received.kind != expected {
            return Err(WireError::UnexpectedType {
                step,
                expected,
                got: received.kind,
            });
        }
        check_size(step, &received)?;
        let answer = received
            .decode()
            .map_err(|source| WireError::Exchange { step, source })?;
        self.link = Some(link);
        Ok(answer)
    }
}

/// A decoded message takes far more memory than its bytes: an event of two bytes becomes one of 250.
/// So what would be too much is refused before it is decoded.
fn check_size(step: &'static str, received: &Received) -> Result<(), WireError> {
    let (what, count, most) = match received.kind {
        kind::CHANGE_SET | kind::CHAIN_RANGE => {
            let payload = &received.payload;
            let most = EVENTS_MAX.min(EVENTS_ANYHOW + payload.len() / EVENT_BYTES_MIN);
            ("events", first_fields(payload, most), most)
        }
        _ => ("bytes", received.payload.len(), SMALL_BYTES_MAX),
    };
    match count <= most {
        true => Ok(()),
        false => Err(WireError::TooMuch { step, what, most }),
    }
}

/// Secure nodes send their hello at once; plaintext ones wait for a request.
async fn speaks_first(stream: &TcpStream, limit: Duration) -> Result<bool, WireError> {
    let step = "detect secure channel";
    match tokio::time::timeout(limit, stream.peek(&mut [0])).await {
        Err(_silent) => Ok(false),
        Ok(Ok(0)) => Err(WireError::Closed { step }),
        Ok(Ok(_)) => Ok(true),
        Ok(Err(source)) => Err(WireError::Exchange {
            step,
            source: LinkError::Frame(source.into()),
        }),
    }
}

async fn within<T>(
    step: &'static str,
    after: Duration,
    work: impl Future<Output = T>,
) -> Result<T, WireError> {
    tokio::time::timeout(after, work)
        .await
        .map_err(|_| WireError::Timeout { step, after })
}
