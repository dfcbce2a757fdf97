//! Certificates and keys from PEM files.

use crate::config::TlsFiles;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The largest PEM file that is read, in bytes: a chain of certificates is far smaller.
const PEM_BYTES_MAX: u64 = 256 * 1024;

/// Certificates or keys that cannot be used. Never contains a key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path} holds no {what} in PEM form")]
    NotPem {
        /// Which.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// A file is too large.
    #[error("{0} is larger than {PEM_BYTES_MAX} bytes: this is no PEM file of a mesh")]
    TooLarge(PathBuf),
    /// Others may read the key.
    #[error("others may read the key {path} (mode {mode:04o}): run `chmod 600` on it")]
    KeyMode {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The authority's certificate cannot be used.
    #[error("the authority in {path} cannot be used")]
    Authority {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Certificate and key do not belong together.
    #[error("certificate {cert} and key {key} cannot be used together")]
    Pair {
        /// The certificate.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The certificate names someone else.
    #[error(
        "the certificate {path} must name {expected}, but names {found}: issue it with `cbctl mesh issue`"
    )]
    NotOurs {
        /// Which.
        path: PathBuf,
        /// Who it should name.
        expected: String,
        /// Who it names.
        found: String,
    },
}

/// What the files held.
pub(super) struct Loaded {
    /// The authorities that certificates must come from.
    pub(super) roots: Arc<RootCertStore>,
    /// The own certificate first, then its issuers. Never empty.
    pub(super) certificates: Vec<CertificateDer<'static>>,
    /// The own key.
    pub(super) key: PrivateKeyDer<'static>,
}

impl Loaded {
    pub(super) fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for authority in certificates(&files.ca)? {
            roots.add(authority).map_err(|source| TlsError::Authority {
                path: files.ca.clone(),
                source: Box::new(source),
            })?;
        }
        let certificates = certificates(&files.cert)?;
        let mode = fs::metadata(&files.key)
            .map_err(|source| read_error(&files.key, source))?
            .permissions()
            .mode();
        // The owner, and at most a group that may read: 0600 or 0640.
        if mode & 0o037 != 0 {
            return Err(TlsError::KeyMode {
                path: files.key.clone(),
                mode: mode & 0o7777,
            });
        }
        let key =
            PrivateKeyDer::from_pem_slice(&read(&files.key)?).map_err(|_| TlsError::NotPem {
                path: files.key.clone(),
                what: "private key",
            })?;
        Ok(Self {
            roots: Arc::new(roots),
            certificates,
            key,
        })
    }
}

fn read_error(path: &Path, source: std::io::Error) -> TlsError {
    TlsError::Read {
        path: path.to_owned(),
        source,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let size = fs::metadata(path)
        .map_err(|source| read_error(path, source))?
        .len();
    if size > PEM_BYTES_MAX {
        return Err(TlsError::TooLarge(path.to_owned()));
    }
    fs::read(path).map_err(|source| read_error(path, source))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    found
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| TlsError::NotPem {
            path: path.to_owned(),
            what: "certificate",
        })
}
