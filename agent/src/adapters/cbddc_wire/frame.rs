//! Frames: `int32 LE payload length | type u8 | compression u8 | payload` (`ProtocolHandler.cs`).
//!
//! The protocol itself sets no limit on the length, so the reader brings one.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The largest payload accepted unless told otherwise: 64 MiB. A pull is not paged, so an answer
/// can be as long as everything in the window asked for.
pub const DEFAULT_PAYLOAD_LIMIT: usize = 64 << 20;

/// The payload is as it is.
pub const COMPRESSION_NONE: u8 = 0;
/// The payload is Brotli-compressed.
pub const COMPRESSION_BROTLI: u8 = 1;

const HEADER_BYTES: usize = 6;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The message type, as one byte: wider types are truncated by the nodes too.
    pub kind: u8,
    /// How the payload is compressed.
    pub compression: u8,
    /// What the frame carries, at most `i32::MAX` bytes.
    pub payload: Vec<u8>,
}

/// A frame that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The length in the header is below zero.
    #[error(
        "the frame announces a payload of {0} bytes, which is below zero; is this a CBDDC port?"
    )]
    NegativeLength(i32),
    /// The length in the header is above the limit. Nothing of the payload was read.
    #[error(
        "the frame announces a payload of {length} bytes, above the limit of {limit}; is this a CBDDC port?"
    )]
    TooLong {
        /// The announced length.
        length: usize,
        /// The limit in force.
        limit: usize,
    },
    /// The stream ended inside a frame.
    #[error("the peer closed the connection in the middle of a frame")]
    Truncated,
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
}

impl Frame {
    /// The bytes of the frame as they travel.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] when the payload does not fit the length field.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let length = i32::try_from(self.payload.len()).map_err(|_| FrameError::TooLong {
            length: self.payload.len(),
            limit: i32::MAX as usize,
        })?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.payload.len());
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&[self.kind, self.compression]);
        bytes.extend_from_slice(&self.payload);
        Ok(bytes)
    }
}

/// Reads one frame, or `None` when the peer closed the connection between two frames.
///
/// The length is checked before anything is allocated for it, and memory grows only with what
/// arrives. Sets no time limit: the caller does.
///
/// # Errors
/// Every [`FrameError`]; after one, the stream is of no further use.
pub async fn read_frame<R>(reader: &mut R, limit: usize) -> Result<Option<Frame>, FrameError>
where
    R: AsyncRead + Unpin,
{
    let mut header = [0; HEADER_BYTES];
    if reader.read(&mut header[..1]).await? == 0 {
        return Ok(None);
    }
    read_all(reader, &mut header[1..]).await?;
    let [l0, l1, l2, l3, kind, compression] = header;
    let announced = i32::from_le_bytes([l0, l1, l2, l3]);
    let length = usize::try_from(announced).map_err(|_| FrameError::NegativeLength(announced))?;
    if length > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    let payload = read_growing(reader, length).await?;
    Ok(Some(Frame {
        kind,
        compression,
        payload,
    }))
}

/// Writes one frame and flushes it.
///
/// # Errors
/// [`FrameError::TooLong`] and [`FrameError::Io`].
pub async fn write_frame<W>(writer: &mut W, frame: &Frame) -> Result<(), FrameError>
where
    W: AsyncWrite + Unpin,
{
    writer.write_all(&frame.encode()?).await?;
    Ok(writer.flush().await?)
}

async fn read_all<R>(reader: &mut R, buffer: &mut [u8]) -> Result<(), FrameError>
where
    R: AsyncRead + Unpin,
{
    match reader.read_exact(buffer).await {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Err(FrameError::Truncated),
        Err(e) => Err(FrameError::Io(e)),
    }
}

pub(super) async fn read_growing<R>(reader: &mut R, length: usize) -> Result<Vec<u8>, FrameError>
where
    R: AsyncRead + Unpin,
{
    let mut payload = Vec::new();
    // A usize always fits: the supported targets have at most 64 bits.
    let read = reader.take(length as u64).read_to_end(&mut payload).await?;
    if read < length {
        Err(FrameError::Truncated)
    } else {
        Ok(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::{Frame, FrameError, read_frame};

    #[tokio::test]
    async fn lengths_are_checked_before_the_payload() {
        let read = |bytes: &'static [u8]| async move { read_frame(&mut &bytes[..], 10).await };
        let too_long = read(&[0xff, 0xff, 0xff, 0x7f, 1, 0]).await;
        assert!(matches!(
            too_long,
            Err(FrameError::TooLong {
                length: 0x7fff_ffff,
                limit: 10
            })
        ));
        assert!(matches!(
            read(&[0xff; 6]).await,
            Err(FrameError::NegativeLength(-1))
        ));
        assert!(matches!(
            read(&[1, 0, 0, 0, 1, 0]).await,
            Err(FrameError::Truncated)
        ));
        assert!(matches!(read(&[1, 0, 0]).await, Err(FrameError::Truncated)));
        assert!(matches!(read(&[]).await, Ok(None)));
        let frame = read(&[1, 0, 0, 0, 7, 1, 42]).await.unwrap().unwrap();
        assert_eq!(
            frame,
            Frame {
                kind: 7,
                compression: 1,
                payload: vec![42]
            }
        );
    }
}
