//! The recovery key: a P-256 key on paper, for the day when everything else is lost.
//!
//! Its text has 14 groups of 4: 32 bytes of key and 3 of SHA-256 over them, in Crockford's base 32,
//! which has neither I, L, O nor U.

use p256::SecretKey;
use p256::pkcs8::EncodePublicKey as _;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
};
use sha2::{Digest as _, Sha256};
use std::fmt;
use x509_cert::der::Decode as _;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

/// Crockford's base 32: a digit's value is its place.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// How many bytes the text holds: the key and its check.
const TEXT_BYTES: usize = KEY_BYTES + CHECK_BYTES;
const KEY_BYTES: usize = 32;
const CHECK_BYTES: usize = 3;
/// How many digits, 5 bits each.
const TEXT_DIGITS: usize = TEXT_BYTES * 8 / 5;
/// How many digits a group has.
const GROUP: usize = 4;
/// What the check is made of besides the key, so that no other text with one passes.
const CHECK_CONTEXT: &[u8] = b"cbddc recovery key 1";

/// A recovery key. Shows itself only through [`RecoveryKey::paper`].
pub struct RecoveryKey {
    bytes: [u8; KEY_BYTES],
    key: SecretKey,
}

/// Why a text is no recovery key, or none can be made. Never shows the text.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryFault {
    /// The kernel gives no random bytes.
    #[error("cannot make a recovery key: the system gives no random bytes")]
    Random(#[source] getrandom::Error),
    /// A character that no recovery key has.
    #[error("{0:?} is in no recovery key: it has digits and letters only, and never a U")]
    Character(char),
    /// Too short or too long.
    #[error("a recovery key has {TEXT_DIGITS} letters and digits, and this text has {0}")]
    Length(usize),
    /// The check does not fit.
    #[error("the recovery key has a typing error: compare it with the paper")]
    Typo,
}

impl RecoveryKey {
    /// Makes a new one.
    pub fn generate() -> Result<Self, RecoveryFault> {
        loop {
            let mut bytes = [0; KEY_BYTES];
            getrandom::fill(&mut bytes).map_err(RecoveryFault::Random)?;
            // Not every number is below the group's order: one in four thousand million is not.
            if let Some(key) = Self::of(bytes) {
                return Ok(key);
            }
        }
    }

    /// Its text, for paper: groups of four, in one line.
    pub fn paper(&self) -> String {
        let mut bytes = self.bytes.to_vec();
        bytes.extend(check(&self.bytes));
        let digits = encode(&bytes);
        let groups: Vec<&str> = digits
            .as_bytes()
            .chunks(GROUP)
            .map(|group| str::from_utf8(group).expect("base 32 digits are ASCII"))
            .collect();
        groups.join("-")
    }

    /// Reads the text from paper. Case, spaces and dashes do not matter, nor do O for 0, I or L for 1.
    pub fn parse(text: &str) -> Result<Self, RecoveryFault> {
        let mut values = Vec::new();
        let mut length = 0_usize;
        for letter in text.chars() {
            if letter.is_whitespace() || letter == '-' {
                continue;
            }
            length += 1;
            // A longer text is counted, not kept.
            if length <= TEXT_DIGITS {
                values.push(value(letter).ok_or(RecoveryFault::Character(letter))?);
            }
        }
        if length != TEXT_DIGITS {
            return Err(RecoveryFault::Length(length));
        }
        let read = decode(&values);
        let (key, shown) = read.split_at(KEY_BYTES);
        let bytes: [u8; KEY_BYTES] = key.try_into().map_err(|_| RecoveryFault::Typo)?;
        if shown != check(&bytes) {
            return Err(RecoveryFault::Typo);
        }
        Self::of(bytes).ok_or(RecoveryFault::Typo)
    }

    /// Its public half, SubjectPublicKeyInfo in DER.
    pub fn public_spki(&self) -> Vec<u8> {
        let der = self.key.public_key().to_public_key_der();
        der.expect("91 bytes of a fixed form are DER").into_vec()
    }

    /// Signs a message: ECDSA with SHA-256, in ASN.1.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let public = self.key.public_key().to_sec1_bytes();
        let key = EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            &self.bytes,
            &public,
            &random,
        )
        .expect("the public key was computed from the private one");
        // Linux gives random bytes once it has begun to: that was before this key was made or read.
        let signature = key.sign(&random, message);
        signature
            .expect("the system gives random bytes")
            .as_ref()
            .to_vec()
    }

    fn of(bytes: [u8; KEY_BYTES]) -> Option<Self> {
        let key = SecretKey::from_slice(&bytes).ok()?;
        Some(Self { bytes, key })
    }
}

impl fmt::Debug for RecoveryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecoveryKey(hidden)")
    }
}

/// Whether `signature` is that of the key whose public half is `spki`, over `message`.
pub fn verify(spki: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Ok(spki) = SubjectPublicKeyInfoOwned::from_der(spki) else {
        return false;
    };
    crate::certificate::p256_point(&spki).is_some_and(|point| {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point);
        key.verify(message, signature).is_ok()
    })
}

fn check(key: &[u8; KEY_BYTES]) -> [u8; CHECK_BYTES] {
    let digest = Sha256::new().chain_update(CHECK_CONTEXT).chain_update(key);
    let digest: [u8; 32] = digest.finalize().into();
    [digest[0], digest[1], digest[2]]
}

fn value(letter: char) -> Option<u8> {
    let letter = match letter.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    let place = DIGITS.iter().position(|digit| char::from(*digit) == letter);
    place.and_then(|place| u8::try_from(place).ok())
}

/// Five bytes are eight digits; the length must be a multiple of five.
fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for five in bytes.chunks(5) {
        let bits = five.iter().fold(0_u64, |bits, b| bits << 8 | u64::from(*b));
        let digit = |place: u32| DIGITS[(bits >> (35 - 5 * place) & 31) as usize];
        text.extend((0..8).map(|place| char::from(digit(place))));
    }
    text
}

/// The opposite of [`encode`].
fn decode(values: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for eight in values.chunks(8) {
        let bits = eight
            .iter()
            .fold(0_u64, |bits, v| bits << 5 | u64::from(*v));
        bytes.extend_from_slice(&bits.to_be_bytes()[3..]);
    }
    bytes
}
