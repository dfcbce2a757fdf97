//! The gRPC contract between `cbctl` and `cbagent`, and among agents.
//!
//! [`v1`] is generated from `cbddc/agent/v1/*.proto`, where every call and field is documented.
//! [`convert`] is the one place that knows both these messages and the domain's types: agent and
//! client share it, so that neither can read a message differently from the other.

pub mod convert;

/// Generated code; the documentation is in the `.proto` files.
#[allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm
)]
pub mod v1 {
    tonic::include_proto!("cbddc.agent.v1");
}

/// The compiled descriptors, for the reflection service.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The largest message that either side accepts, in bytes.
///
/// A view of 20,000 oplog events is about 5 MiB; a chunk of a bundle is at most 1 MiB.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The size of the chunks in which bundles travel, in bytes.
pub const CHUNK_BYTES: usize = 256 * 1024;

/// The metadata key that carries the stable word of a refusal.
pub const WORD_KEY: &str = "cbddc-word";
