//! The secure channel: anonymous P-256 ECDH, then AES-256-CBC with HMAC-SHA256 over every frame
//! (`SecureHandshakeService.cs`, `CryptoHelper.cs`).
//!
//! It hides frames from a listener. It proves nobody's identity and refuses no replay: the token in
//! the handshake, and the network, have to do that.

use super::frame::{FrameError, read_growing};
use super::messages::SecureEnvelope;
use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use hmac::{Hmac, KeyInit, Mac};
use p256::pkcs8::{DecodePublicKey, EncodePublicKey};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest hello that nodes accept, in bytes.
pub const HELLO_LIMIT: i32 = 10_000;

const NONCE_BYTES: usize = 16;
/// A random scalar is out of range once in 2^32 draws, so this many in a row mean a broken source.
const SCALAR_DRAWS: usize = 8;

/// Why a channel was not opened, or a frame not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The operating system gave no random bytes.
    #[error("the operating system gave no usable random bytes; look at its entropy source")]
    Random,
    /// The key pair could not be written as a hello.
    #[error("the own public key cannot be encoded")]
    EncodeKey,
    /// The length of the peer's hello is out of range: it does not speak this protocol, or not
    /// securely.
    #[error(
        "the peer's hello announces {0} bytes, which no secure CBDDC node does; is this a CBDDC port, and is its secure channel on?"
    )]
    HelloLength(i32),
    /// The peer's hello holds no P-256 key.
    #[error("the peer's hello holds no P-256 public key; is this a CBDDC port?")]
    HelloKey,
    /// The connection ended or failed during the hello.
    #[error("the hello was not exchanged")]
    Hello(#[source] FrameError),
    /// The nonce has the wrong length.
    #[error("the encrypted frame has a nonce of {0} bytes instead of 16")]
    NonceLength(usize),
    /// The tag does not fit: the frame was changed, or the keys differ.
    #[error("the encrypted frame fails its check; it was changed on the way, or the keys differ")]
    Tag,
    /// The content is not padded as it should be, though the tag fits.
    #[error("the encrypted frame is padded wrongly")]
    Padding,
    /// The content is too short to be a frame.
    #[error("the encrypted frame is empty")]
    Empty,
}

/// Which side of the channel this is; it decides which key is whose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The side that connected.
    Initiator,
    /// The side that listened.
    Responder,
}

/// The two keys of an open channel. Secret: they are in no debug output.
pub struct ChannelKeys {
    sending: [u8; 32],
    receiving: [u8; 32],
}

impl std::fmt::Debug for ChannelKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChannelKeys")
    }
}

impl ChannelKeys {
    /// Derives the keys from both ends: `S = SHA256(Z)`, `K1 = SHA256(S‖00)`, `K2 = SHA256(S‖01)`,
    /// where the initiator sends with K1.
    pub fn agree(secret: &p256::SecretKey, peer: &p256::PublicKey, role: Role) -> Self {
        let shared = secret.diffie_hellman(peer);
        let material = Sha256::digest(shared.raw_secret_bytes());
        let key = |suffix: u8| {
            Sha256::new()
                .chain_update(material)
                .chain_update([suffix])
                .finalize()
                .into()
        };
        match role {
            Role::Initiator => Self {
                sending: key(0),
                receiving: key(1),
            },
            Role::Responder => Self {
                sending: key(1),
                receiving: key(0),
            },
        }
    }

    /// Encrypts the inside of a frame with a fresh random nonce.
    ///
    /// # Errors
    /// [`ChannelError::Random`].
    pub fn seal(
        &self,
        kind: u8,
        compression: u8,
        payload: &[u8],
    ) -> Result<SecureEnvelope, ChannelError> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| ChannelError::Random)?;
        Ok(self.seal_with_nonce(nonce, kind, compression, payload))
    }

    /// Encrypts with a given nonce, which only test vectors should choose.
    pub fn seal_with_nonce(
        &self,
        nonce: [u8; NONCE_BYTES],
        kind: u8,
        compression: u8,
        payload: &[u8],
    ) -> SecureEnvelope {
        let mut inner = Vec::with_capacity(payload.len() + 2);
        inner.extend_from_slice(&[kind, compression]);
        inner.extend_from_slice(payload);
        let cipher = cbc::Encryptor::<aes::Aes256>::new(&self.sending.into(), &nonce.into());
        let ciphertext = cipher.encrypt_padded_vec::<Pkcs7>(&inner);
        let auth_tag = authenticate(&self.sending, &nonce, &ciphertext)
            .finalize()
            .into_bytes()
            .to_vec();
        SecureEnvelope {
            ciphertext,
            nonce: nonce.to_vec(),
            auth_tag,
        }
    }

    /// Checks and decrypts the inside of a frame: type, compression, payload.
    ///
    /// The tag is compared in constant time, and nothing is decrypted before it fits.
    ///
    /// # Errors
    /// [`ChannelError::NonceLength`], [`ChannelError::Tag`], [`ChannelError::Padding`] and
    /// [`ChannelError::Empty`].
    pub fn open(&self, envelope: &SecureEnvelope) -> Result<(u8, u8, Vec<u8>), ChannelError> {
        let nonce: [u8; NONCE_BYTES] = envelope
            .nonce
            .as_slice()
            .try_into()
            .map_err(|_| ChannelError::NonceLength(envelope.nonce.len()))?;
        authenticate(&self.receiving, &nonce, &envelope.ciphertext)
            .verify_slice(&envelope.auth_tag)
            .map_err(|_| ChannelError::Tag)?;
        let cipher = cbc::Decryptor::<aes::Aes256>::new(&self.receiving.into(), &nonce.into());
        let mut inner = cipher
            .decrypt_padded_vec::<Pkcs7>(&envelope.ciphertext)
            .map_err(|_| ChannelError::Padding)?;
        let [kind, compression] = *inner.first_chunk::<2>().ok_or(ChannelError::Empty)?;
        inner.drain(..2);
        Ok((kind, compression, inner))
    }
}

/// The hello of a key: `int32 LE length + SPKI DER`.
///
/// # Errors
/// [`ChannelError::EncodeKey`].
pub fn encode_hello(secret: &p256::SecretKey) -> Result<Vec<u8>, ChannelError> {
    let der = secret
        .public_key()
        .to_public_key_der()
        .map_err(|_| ChannelError::EncodeKey)?;
    let length = i32::try_from(der.as_bytes().len()).map_err(|_| ChannelError::EncodeKey)?;
    Ok([length.to_le_bytes().as_slice(), der.as_bytes()].concat())
}

/// Draws a key, sends its hello without waiting, reads the peer's, and derives the keys.
///
/// Sets no time limit: the caller does.
///
/// # Errors
/// [`ChannelError::Random`], [`ChannelError::EncodeKey`] and the hello errors.
pub async fn exchange_hellos<S>(stream: &mut S, role: Role) -> Result<ChannelKeys, ChannelError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let secret = draw_secret_key()?;
    let io = |e: std::io::Error| ChannelError::Hello(FrameError::Io(e));
    stream
        .write_all(&encode_hello(&secret)?)
        .await
        .map_err(io)?;
    stream.flush().await.map_err(io)?;
    let length = match stream.read_i32_le().await {
        Ok(length) => length,
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
            return Err(ChannelError::Hello(FrameError::Truncated));
        }
        Err(e) => return Err(io(e)),
    };
    if !(1..=HELLO_LIMIT).contains(&length) {
        return Err(ChannelError::HelloLength(length));
    }
    let der = read_growing(stream, length.unsigned_abs() as usize)
        .await
        .map_err(ChannelError::Hello)?;
    let peer = p256::PublicKey::from_public_key_der(&der).map_err(|_| ChannelError::HelloKey)?;
    Ok(ChannelKeys::agree(&secret, &peer, role))
}

fn draw_secret_key() -> Result<p256::SecretKey, ChannelError> {
    for _ in 0..SCALAR_DRAWS {
        let mut scalar = [0; 32];
        getrandom::fill(&mut scalar).map_err(|_| ChannelError::Random)?;
        if let Ok(secret) = p256::SecretKey::from_slice(&scalar) {
            return Ok(secret);
        }
    }
    Err(ChannelError::Random)
}

fn authenticate(key: &[u8; 32], nonce: &[u8], ciphertext: &[u8]) -> Hmac<Sha256> {
    // HMAC accepts a key of any length; this one has 32 bytes.
    let mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.chain_update(nonce).chain_update(ciphertext)
}
