//! What can go wrong between the agent and a node.

use super::channel::ChannelError;
use super::link::LinkError;
use super::messages::UnknownOperation;
use std::net::SocketAddr;
use std::time::Duration;

/// A question that was not answered. Never contains the token.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The port could not be reached.
    #[error("{addr} cannot be reached; is the node running?")]
    Connect {
        /// The address asked for.
        addr: SocketAddr,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// A step took too long.
    #[error("{step}: nothing within {} ms", .after.as_millis())]
    Timeout {
        /// What was waited for.
        step: &'static str,
        /// The limit.
        after: Duration,
    },
    /// The node closed the connection instead of answering.
    #[error("{step}: the node closed the connection")]
    Closed {
        /// What was waited for.
        step: &'static str,
    },
    /// The secure channel was not opened.
    #[error("the secure channel was not opened")]
    Channel(#[source] ChannelError),
    /// A message was not sent or received.
    #[error("{step}: the exchange failed")]
    Exchange {
        /// What was asked.
        step: &'static str,
        /// What went wrong.
        #[source]
        source: LinkError,
    },
    /// The node answered with another message than the one asked for.
    #[error("{step}: the node answered with type {got} instead of {expected}")]
    UnexpectedType {
        /// What was asked.
        step: &'static str,
        /// The type that answers it.
        expected: u8,
        /// The type that came.
        got: u8,
    },
    /// The answer holds more than any node has to say.
    #[error("{step}: the node answered with more than {most} {what}")]
    TooMuch {
        /// What was asked.
        step: &'static str,
        /// Of what there is too much.
        what: &'static str,
        /// How much is taken.
        most: usize,
    },
    /// An event of the answer makes no sense.
    #[error("{step}: an event cannot be read")]
    Event {
        /// What was asked.
        step: &'static str,
        /// What is wrong with it.
        #[source]
        source: UnknownOperation,
    },
    /// What the node sends cannot be kept.
    #[error("cannot write down what the node sends")]
    Keep {
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An earlier question on this connection failed.
    #[error("this connection failed before; open a new one")]
    Broken,
}
