//! A peer that answers as it was told, and then does something else.

use anyhow::Result;
use cbagent::adapters::cbddc_wire::channel::{ChannelKeys, Role, exchange_hellos};
use cbagent::adapters::cbddc_wire::frame::{Frame, read_frame};
use cbagent::adapters::cbddc_wire::messages::kind;
use prost::Message;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};

/// One answer, before it is sealed.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) kind: u8,
    pub(super) compression: u8,
    pub(super) payload: Vec<u8>,
    /// What is done to the bytes on the wire, after sealing: the byte at this place of a hundred is
    /// changed by this mask.
    pub(super) spoiled: Option<(u8, u8)>,
}

impl Reply {
    pub(super) fn message(kind: u8, message: &impl Message) -> Self {
        Self::raw(kind, message.encode_to_vec())
    }

    pub(super) fn raw(kind: u8, payload: Vec<u8>) -> Self {
        Self {
            kind,
            compression: 0,
            payload,
            spoiled: None,
        }
    }

    fn bytes(&self, keys: Option<&ChannelKeys>) -> Vec<u8> {
        let frame = match keys {
            None => Frame {
                kind: self.kind,
                compression: self.compression,
                payload: self.payload.clone(),
            },
            Some(keys) => Frame {
                kind: kind::SECURE_ENVELOPE,
                compression: 0,
                payload: keys
                    .seal(self.kind, self.compression, &self.payload)
                    .expect("random bytes")
                    .encode_to_vec(),
            },
        };
        let mut bytes = frame.encode().expect("below 2 GiB");
        if let Some((place, mask)) = self.spoiled {
            let at = bytes.len() * usize::from(place.min(99)) / 100;
            bytes[at] ^= mask;
        }
        bytes
    }
}

/// What it does after its last answer.
#[derive(Debug, Clone)]
pub(super) enum Then {
    /// Nothing, with the connection open.
    Silent,
    /// It closes the connection.
    Closes,
    /// It begins a frame and sends a byte of it now and then.
    Trickles,
    /// It sends frames as fast as it can.
    Floods,
    /// It says this at once, to whoever connects, and no more.
    Says(Vec<u8>),
}

/// Starts it; it ends with the runtime.
pub(super) async fn peer(secure: bool, answers: Vec<Reply>, then: Then) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (answers, then) = (answers.clone(), then.clone());
            tokio::spawn(async move { drop(talk(stream, secure, answers, then).await) });
        }
    });
    Ok(address)
}

async fn talk(mut stream: TcpStream, secure: bool, answers: Vec<Reply>, then: Then) -> Result<()> {
    if let Then::Says(bytes) = &then {
        stream.write_all(bytes).await?;
        std::future::pending::<()>().await;
    }
    let keys = match secure {
        true => Some(exchange_hellos(&mut stream, Role::Responder).await?),
        false => None,
    };
    for answer in answers {
        read_frame(&mut stream, 1 << 20).await?;
        stream.write_all(&answer.bytes(keys.as_ref())).await?;
    }
    match then {
        Then::Silent | Then::Says(_) => std::future::pending().await,
        Then::Closes => Ok(()),
        Then::Trickles => {
            stream.write_all(&[0, 0, 16, 0, 2, 0]).await?;
            loop {
                stream.write_all(&[0]).await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Then::Floods => {
            let flood = Reply::raw(kind::ACK, vec![7; 60_000]).bytes(keys.as_ref());
            loop {
                stream.write_all(&flood).await?;
            }
        }
    }
}
