//! Certificates and keys from PEM files.

use super::{IdentityFiles, is_node};
use cbddc_domain::id::NodeName;
use cbddc_domain::roster::{ROOTS_MAX, TrustEntry};
use cbddc_pki::certificate::{CertificateFault, Facts, facts};
use cbddc_pki::signature::{Roots, Signer};
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
    /// A certificate cannot be read.
    #[error("the certificate {path} cannot be used")]
    Certificate {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: CertificateFault,
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
        source: Box<dyn Error + Send + Sync>,
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
    pub(super) roots: Arc<Roots>,
    /// The authorities that they replaced.
    pub(super) former: Option<Arc<Roots>>,
    /// Whether the own certificate comes from the newest authority.
    pub(super) newest: bool,
    /// The same, in DER.
    pub(super) roots_der: Vec<Vec<u8>>,
    /// What the own certificate says.
    pub(super) facts: Facts,
    /// Signs with the own key.
    pub(super) signer: Signer,
    /// The own certificate first, then its issuers. Never empty.
    pub(super) certificates: Vec<CertificateDer<'static>>,
    /// The own key.
    pub(super) key: PrivateKeyDer<'static>,
}

impl Loaded {
    pub(super) fn read(
        files: &IdentityFiles,
        mesh: &str,
        node: &NodeName,
        trust: Option<&TrustEntry>,
    ) -> Result<Self, TlsError> {
        let given = &files.given;
        let mut roots_der: Vec<Vec<u8>> = match trust {
            Some(trust) => trust.roots.clone(),
            None => certificates(&given.ca)?
                .iter()
                .map(|root| root.to_vec())
                .collect(),
        };
        roots_der.truncate(ROOTS_MAX);
        let unusable = |source| TlsError::Authority {
            path: given.ca.clone(),
            source: Box::new(source),
        };
        let roots = Roots::from_der(roots_der.clone()).map_err(unusable)?;
        let former = match trust {
            Some(trust) if !trust.former.is_empty() => {
                Some(Roots::from_der(trust.former.clone()).map_err(unusable)?)
            }
            Some(_) | None => None,
        };
        let key_pem = read_key(&given.key)?;
        let key = PrivateKeyDer::from_pem_slice(&key_pem).map_err(|_| TlsError::NotPem {
            path: given.key.clone(),
            what: "private key",
        })?;
        let (path, certificates, facts) = newest(files, mesh, &roots.newest())?;
        if !is_node(&facts, node) {
            return Err(TlsError::NotOurs {
                path,
                expected: format!("cbddc://{mesh}/node/{node}"),
                found: format!("`{}`", facts.mesh_holder.uri(mesh)),
            });
        }
        let chain_pem = read(&path)?;
        let signer = Signer::from_pem(&chain_pem, &key_pem).map_err(|source| TlsError::Pair {
            cert: path,
            key: given.key.clone(),
            source: Box::new(source),
        })?;
        Ok(Self {
            newest: roots.newest().vouch_for(&certificates, mesh),
            roots: Arc::new(roots),
            former: former.map(Arc::new),
            roots_der,
            facts,
            signer,
            certificates,
            key,
        })
    }
}

type Certificates = Vec<CertificateDer<'static>>;

/// The certificate that was given, or the one that the agent has renewed since for the same key:
/// whichever comes from the newest authority, and of two of those whichever lasts longer.
fn newest(
    files: &IdentityFiles,
    mesh: &str,
    root: &Roots,
) -> Result<(PathBuf, Certificates, Facts), TlsError> {
    let given = with_facts(&files.given.cert, mesh)?;
    if !files.renewed.exists() {
        return Ok(given);
    }
    let rank = |(_, chain, facts): &(PathBuf, Certificates, Facts)| {
        (root.vouch_for(chain, mesh), facts.not_after)
    };
    match with_facts(&files.renewed, mesh) {
        Ok(renewed) if renewed.2.key == given.2.key && rank(&renewed) > rank(&given) => Ok(renewed),
        // Of an earlier key: the host was given a new identity since.
        Ok(_) => Ok(given),
        Err(error) => {
            tracing::warn!("{}", crate::error_chain(&error));
            Ok(given)
        }
    }
}

fn with_facts(path: &Path, mesh: &str) -> Result<(PathBuf, Certificates, Facts), TlsError> {
    let certificates = certificates(path)?;
    let facts = facts(&certificates[0], mesh).map_err(|fault| {
        let path = path.to_owned();
        if let CertificateFault::Foreign { found, .. } = fault {
            return TlsError::NotOurs {
                path,
                expected: format!("cbddc://{mesh}/node/…"),
                found,
            };
        }
        TlsError::Certificate {
            path,
            source: fault,
        }
    })?;
    Ok((path.to_owned(), certificates, facts))
}

fn read_key(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mode = fs::metadata(path)
        .map_err(|source| read_error(path, source))?
        .permissions()
        .mode();
    // The owner, and at most a group that may read: 0600 or 0640.
    if mode & 0o037 != 0 {
        return Err(TlsError::KeyMode {
            path: path.to_owned(),
            mode: mode & 0o7777,
        });
    }
    read(path)
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
