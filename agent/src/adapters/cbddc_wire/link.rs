//! One connection: frames, encrypted or not, compressed or not.
//!
//! Client and server use the same link; only the [`Role`] in the secure hello differs.

use super::channel::{ChannelError, ChannelKeys, Role, exchange_hellos};
use super::compression::{CompressionError, THRESHOLD_BYTES, compress, decompress};
use super::frame::{
    COMPRESSION_BROTLI, COMPRESSION_NONE, Frame, FrameError, read_frame, write_frame,
};
use super::messages::{SecureEnvelope, kind};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

/// Encrypting adds padding, nonce, tag and field headers; 256 bytes are more than all of them.
const ENVELOPE_OVERHEAD: usize = 256;

/// Why a message was not sent or received.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The frame itself was bad.
    #[error("the frame was not transferred")]
    Frame(#[from] FrameError),
    /// Encryption or decryption failed.
    #[error("the secure channel failed")]
    Channel(#[from] ChannelError),
    /// Compression or decompression failed.
    #[error("the payload was not unpacked")]
    Compression(#[from] CompressionError),
    /// The compression byte is neither 0 nor 1.
    #[error("the frame names compression {0}, which is not known; is this a CBDDC port?")]
    UnknownCompression(u8),
    /// A frame came in clear on a secure channel.
    #[error("the peer sent a frame of type {0} in clear on a secure channel")]
    NotEncrypted(u8),
    /// The bytes are not the message that their type announces.
    #[error("the payload of a frame of type {kind} cannot be decoded")]
    Decode {
        /// The frame's type.
        kind: u8,
        /// What the decoder found.
        #[source]
        source: prost::DecodeError,
    },
}

/// One message as it arrived: its type and its unpacked payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The message type.
    pub kind: u8,
    /// The payload, decrypted and decompressed.
    pub payload: Vec<u8>,
}

impl Received {
    /// Decodes the payload.
    ///
    /// # Errors
    /// [`LinkError::Decode`].
    pub fn decode<M: Message + Default>(&self) -> Result<M, LinkError> {
        M::decode(self.payload.as_slice()).map_err(|source| LinkError::Decode {
            kind: self.kind,
            source,
        })
    }
}

/// A connection that messages travel on.
#[derive(Debug)]
pub struct Link<S> {
    stream: S,
    keys: Option<ChannelKeys>,
    brotli: bool,
    limit: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    /// A link in clear that accepts payloads up to `limit` bytes, before and after decompression.
    pub fn plain(stream: S, limit: usize) -> Self {
        Self {
            stream,
            keys: None,
            brotli: false,
            limit,
        }
    }

    /// Exchanges hellos and returns an encrypted link.
    ///
    /// # Errors
    /// [`ChannelError`]; the stream is of no further use then.
    pub async fn secure(mut stream: S, role: Role, limit: usize) -> Result<Self, ChannelError> {
        let keys = exchange_hellos(&mut stream, role).await?;
        Ok(Self {
            stream,
            keys: Some(keys),
            brotli: false,
            limit,
        })
    }

    /// Compresses longer payloads from now on; both sides must have agreed.
    pub fn use_brotli(&mut self) {
        self.brotli = true;
    }

    /// True when frames are encrypted.
    pub fn is_secure(&self) -> bool {
        self.keys.is_some()
    }

    /// Sends one message.
    ///
    /// # Errors
    /// [`LinkError`]; the link is of no further use then.
    pub async fn send<M: Message>(
        &mut self,
        message_kind: u8,
        message: &M,
    ) -> Result<(), LinkError> {
        let encoded = message.encode_to_vec();
        // The nodes never compress snapshot chunks.
        let worth_it = encoded.len() > THRESHOLD_BYTES && message_kind != kind::SNAPSHOT_CHUNK;
        let (compression, payload) = if self.brotli && worth_it {
            (COMPRESSION_BROTLI, compress(&encoded)?)
        } else {
            (COMPRESSION_NONE, encoded)
        };
        let frame = match &self.keys {
            None => Frame {
                kind: message_kind,
                compression,
                payload,
            },
            Some(keys) => Frame {
                kind: kind::SECURE_ENVELOPE,
                compression: COMPRESSION_NONE,
                payload: keys
                    .seal(message_kind, compression, &payload)?
                    .encode_to_vec(),
            },
        };
        Ok(write_frame(&mut self.stream, &frame).await?)
    }

    /// Receives one message, or `None` when the peer closed the connection between two.
    ///
    /// # Errors
    /// [`LinkError`]; the link is of no further use then.
    pub async fn receive(&mut self) -> Result<Option<Received>, LinkError> {
        let overhead = if self.keys.is_some() {
            ENVELOPE_OVERHEAD
        } else {
            0
        };
        let limit = self.limit.saturating_add(overhead);
        let Some(frame) = read_frame(&mut self.stream, limit).await? else {
            return Ok(None);
        };
        let (kind, compression, payload) = match &self.keys {
            None => (frame.kind, frame.compression, frame.payload),
            Some(keys) => open_envelope(keys, &frame)?,
        };
        let payload = match compression {
            COMPRESSION_NONE => payload,
            COMPRESSION_BROTLI => decompress(&payload, self.limit)?,
            unknown => return Err(LinkError::UnknownCompression(unknown)),
        };
        Ok(Some(Received { kind, payload }))
    }
}

fn open_envelope(keys: &ChannelKeys, frame: &Frame) -> Result<(u8, u8, Vec<u8>), LinkError> {
    if frame.kind != kind::SECURE_ENVELOPE {
        return Err(LinkError::NotEncrypted(frame.kind));
    }
    let envelope =
        SecureEnvelope::decode(frame.payload.as_slice()).map_err(|source| LinkError::Decode {
            kind: frame.kind,
            source,
        })?;
    Ok(keys.open(&envelope)?)
}
