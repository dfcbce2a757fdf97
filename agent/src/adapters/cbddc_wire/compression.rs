//! Brotli, as `CompressionHelper.cs` uses it: only once both sides offered it, and only for payloads
//! above [`THRESHOLD_BYTES`].

use std::io::{Read, Write};

/// The name of the algorithm in handshakes.
pub const BROTLI: &str = "brotli";

/// Payloads up to this many bytes travel as they are.
pub const THRESHOLD_BYTES: usize = 1024;

/// Fast enough for a request path; .NET's `CompressionLevel.Fastest` is of the same order.
const QUALITY: u32 = 4;
const WINDOW_BITS: u32 = 22;
const BUFFER_BYTES: usize = 4096;

/// A compressed payload that could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// The bytes are not Brotli, or are cut short.
    #[error("the compressed payload cannot be read")]
    Malformed(#[source] std::io::Error),
    /// The content is larger than allowed. Reading stopped at the limit.
    #[error("the compressed payload holds more than the limit of {limit} bytes")]
    TooLong {
        /// The limit in force.
        limit: usize,
    },
    /// Compressing failed, which only happens when memory runs out.
    #[error("the payload cannot be compressed")]
    Compress(#[source] std::io::Error),
}

/// Compresses a payload.
///
/// # Errors
/// [`CompressionError::Compress`].
pub fn compress(payload: &[u8]) -> Result<Vec<u8>, CompressionError> {
    let mut writer = brotli::CompressorWriter::new(Vec::new(), BUFFER_BYTES, QUALITY, WINDOW_BITS);
    writer
        .write_all(payload)
        .map_err(CompressionError::Compress)?;
    Ok(writer.into_inner())
}

/// Decompresses a payload, giving up once it grows above `limit` bytes.
///
/// # Errors
/// [`CompressionError::Malformed`] and [`CompressionError::TooLong`].
pub fn decompress(compressed: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    let mut payload = Vec::new();
    let reader = brotli::Decompressor::new(compressed, BUFFER_BYTES);
    let one_more = limit.saturating_add(1) as u64;
    reader
        .take(one_more)
        .read_to_end(&mut payload)
        .map_err(CompressionError::Malformed)?;
    if payload.len() > limit {
        Err(CompressionError::TooLong { limit })
    } else {
        Ok(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::{CompressionError, compress, decompress};

    #[test]
    fn output_is_bounded_and_round_trips() {
        let payload = vec![b'x'; 100_000];
        let compressed = compress(&payload).unwrap();
        assert!(compressed.len() < 1000);
        assert_eq!(decompress(&compressed, 100_000).unwrap(), payload);
        let refused = decompress(&compressed, 99_999);
        assert!(matches!(
            refused,
            Err(CompressionError::TooLong { limit: 99_999 })
        ));
        let cut = decompress(&compressed[..compressed.len() / 2], 100_000);
        assert!(matches!(cut, Err(CompressionError::Malformed(_))));
        assert!(matches!(
            decompress(b"garbage", 10),
            Err(CompressionError::Malformed(_))
        ));
    }
}
