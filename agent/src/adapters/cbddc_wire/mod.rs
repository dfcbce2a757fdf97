//! The CBDDC sync protocol, compatible with `EntglDb.Net` v2.3.8, read by an agent that is a
//! read-mostly peer of its node.
//!
//! From the wire upwards: [`frame`] cuts the stream into frames, [`compression`] and [`channel`]
//! wrap and protect payloads, [`link`] joins the three into one connection, [`messages`] are the
//! payloads, and [`client`] asks the safe questions, with [`answers`] and [`error`]. [`canary`] holds the one request that writes, [`snapshot`] the one that is costly.
//! There is no server here; the fixture node of the tests builds one from the same pieces.

pub mod answers;
pub mod canary;
pub mod channel;
pub mod client;
pub mod compression;
pub mod error;
pub mod frame;
pub mod link;
pub mod messages;
pub mod options;
pub mod snapshot;

pub use answers::{ChainRangeAnswer, HandshakeOutcome, NodeStatus, PushOutcome};
pub use canary::CanaryWriter;
pub use client::WireClient;
pub use error::WireError;
pub use options::{Secret, Security, WireOptions};
