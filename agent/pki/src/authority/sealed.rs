//! Private keys in PEM, encrypted with a passphrase: PKCS#8 with PBES2, which other tools can read.

use super::{PkiError, request};
use crate::secret::Secret;
use pkcs8::der::{Decode as _, SecretDocument};
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::{EncryptionScheme as Cipher, Kdf, Parameters, Salt, ScryptParams};
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef};
use rcgen::KeyPair;

/// What stands in the first line of an encrypted key.
const LABEL: &str = "ENCRYPTED PRIVATE KEY";

/// The largest file with a key that is read, in bytes.
const KEY_BYTES_MAX: usize = 16 * 1024;

/// What trying a passphrase costs: OWASP's parameters of scrypt for 16 MiB, the most memory that
/// OpenSSL 3 agrees to. About 0.2 s.
const SCRYPT_N: u64 = 1 << 14;
const SCRYPT_R: u16 = 8;
const SCRYPT_P: u16 = 5;

/// The most that opening a key may cost: bytes of memory, or rounds of PBKDF2.
const MEMORY_MAX: u64 = 128 << 20;
const SCRYPT_P_MAX: u16 = 16;
const ROUNDS_MAX: u32 = 10_000_000;

/// Whether a key in PEM is encrypted.
pub fn is_sealed(pem: &str) -> bool {
    pem.contains(LABEL)
}

pub(super) fn seal(key: &KeyPair, passphrase: Option<&Secret>) -> Result<String, PkiError> {
    let Some(passphrase) = passphrase else {
        return Ok(key.serialize_pem());
    };
    let der = key.serialize_der();
    let sealed = PrivateKeyInfoRef::from_der(&der)
        .map_err(pkcs8::Error::from)
        .and_then(|info| info.encrypt_with_params(parameters()?, passphrase.reveal()))
        .map_err(PkiError::Seal)?;
    let pem = sealed.to_pem(LABEL, LineEnding::LF);
    Ok(pem
        .map_err(|error| PkiError::Seal(error.into()))?
        .to_string())
}

pub(super) fn open(pem: &str, passphrase: Option<&Secret>) -> Result<KeyPair, PkiError> {
    if pem.len() > KEY_BYTES_MAX {
        return Err(PkiError::Key);
    }
    if !is_sealed(pem) {
        return request::p256_key(pem);
    }
    let passphrase = passphrase.ok_or(PkiError::Sealed)?;
    let (label, sealed) = SecretDocument::from_pem(pem).map_err(|_| PkiError::Key)?;
    let sealed = Some(sealed)
        .filter(|_| label == LABEL)
        .ok_or(PkiError::Key)?;
    let info =
        EncryptedPrivateKeyInfoRef::try_from(sealed.as_bytes()).map_err(|_| PkiError::Key)?;
    if !is_reasonable(&info.encryption_algorithm) {
        return Err(PkiError::SealKind);
    }
    // A wrong passphrase gives bytes that are no key, or no padding.
    let key = info
        .decrypt(passphrase.reveal())
        .map_err(|_| PkiError::Passphrase)?;
    let pem = key
        .to_pem("PRIVATE KEY", LineEnding::LF)
        .map_err(|_| PkiError::Passphrase)?;
    PrivateKeyInfoRef::try_from(key.as_bytes()).map_err(|_| PkiError::Passphrase)?;
    request::p256_key(&pem)
}

fn parameters() -> pkcs8::Result<Parameters> {
    let (mut salt, mut iv) = ([0; 16], [0; 16]);
    for bytes in [&mut salt, &mut iv] {
        getrandom::fill(bytes).map_err(|_| pkcs8::pkcs5::Error::Rng)?;
    }
    let kdf = ScryptParams {
        salt: Salt::new(salt)?,
        cost_parameter: SCRYPT_N,
        block_size: SCRYPT_R,
        parallelization: SCRYPT_P,
        key_length: None,
    };
    Ok(Parameters {
        kdf: Kdf::from(kdf),
        encryption: Cipher::Aes256Cbc { iv },
    })
}

/// Whether a passphrase can be tried without taking all of this machine.
fn is_reasonable(scheme: &EncryptionScheme) -> bool {
    let Some(parameters) = scheme.pbes2() else {
        return false;
    };
    match &parameters.kdf {
        Kdf::Scrypt(scrypt) => {
            let block = u64::from(scrypt.block_size) * 128;
            scrypt.parallelization <= SCRYPT_P_MAX
                && scrypt
                    .cost_parameter
                    .checked_mul(block)
                    .is_some_and(|bytes| bytes <= MEMORY_MAX)
        }
        Kdf::Pbkdf2(rounds) => rounds.iteration_count <= ROUNDS_MAX,
        _ => false,
    }
}
