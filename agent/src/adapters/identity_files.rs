//! The files of a host's identity: its key, a request for a certificate, the issuing authority.
//!
//! An issuing authority that the host was given lies beside the mesh's `ca.pem`, where the agent may
//! not write. One that an admin gave the agent since lies in the state folder, certificate and key in
//! one file, and stands before the other; an empty file says that there is none any more.

use crate::adapters::disk;
use crate::adapters::tls::IdentityFiles;
use cbddc_domain::build::Digest;
use cbddc_domain::id::NodeName;
use cbddc_pki::authority::{Issuing, PkiError, make_csr};
use cbddc_pki::certificate::{self, CertificateFault};
use cbddc_pki::name::Holder;
use cbddc_pki::signature::Roots;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The issuing authority's certificate, beside the mesh's.
pub const ISSUING_CERT: &str = "issuing.pem";
/// Its key.
pub const ISSUING_KEY: &str = "issuing.key";
/// What begins a key in PEM.
const KEY_BEGINS: &str = "-----BEGIN PRIVATE KEY-----";
/// Both in one, in the state folder.
const ISSUING_KEPT: &str = "issuing.pem";

/// Why the files of an identity cannot be used. Never contains a key.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written or removed.
    #[error("cannot write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A key cannot be used, or nothing can be made with it.
    #[error("cannot use {path}")]
    Pki {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: PkiError,
    },
    /// A certificate that was issued is not to be used.
    #[error("the certificate that was issued cannot be used")]
    Issued(#[from] CertificateFault),
    /// A certificate that was issued is for someone else.
    #[error("the certificate that was issued is for {0}")]
    Other(String),
}

fn read(path: &Path) -> Result<String, IdentityError> {
    fs::read_to_string(path).map_err(|source| IdentityError::Read {
        path: path.to_owned(),
        source,
    })
}

/// A request for a certificate for the own key.
pub fn csr(files: &IdentityFiles, node: &NodeName) -> Result<Vec<u8>, IdentityError> {
    let path = &files.given.key;
    make_csr(&read(path)?, node).map_err(|source| IdentityError::Pki {
        path: path.clone(),
        source,
    })
}

/// The issuing authority, where this host holds it.
pub fn issuing(files: &IdentityFiles) -> Result<Option<Issuing>, IdentityError> {
    let kept = kept(files);
    let (path, cert, key) = if kept.exists() {
        let both = read(&kept)?;
        if both.is_empty() {
            return Ok(None);
        }
        let key = both.find(KEY_BEGINS).unwrap_or(both.len());
        let (cert, key) = both.split_at(key);
        (kept, cert.to_owned(), key.to_owned())
    } else {
        let (cert, key) = given(files);
        if !key.exists() {
            return Ok(None);
        }
        (key.clone(), read(&cert)?, read(&key)?)
    };
    let opened = Issuing::open(&cert, &key);
    let opened = opened.map_err(|source| IdentityError::Pki { path, source });
    opened.map(Some)
}

/// Keeps an issuing authority, for the agent alone.
pub fn keep_issuing(files: &IdentityFiles, issuing: &Issuing) -> Result<(), IdentityError> {
    let both = issuing.certificate_pem() + &issuing.key_pem();
    write(&kept(files), both.as_bytes())
}

/// Takes the issuing authority away; returns the key's file that this agent may not remove, which
/// counts no more.
pub fn drop_issuing(files: &IdentityFiles) -> Result<Option<PathBuf>, IdentityError> {
    // First it counts no more, then it goes.
    write(&kept(files), b"")?;
    let (cert, key) = given(files);
    for path in [&key, &cert] {
        match fs::remove_file(path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(%error, "{} stays", path.display());
            }
        }
    }
    Ok(Some(key).filter(|key| key.exists()))
}

fn kept(files: &IdentityFiles) -> PathBuf {
    files.renewed.with_file_name(ISSUING_KEPT)
}

fn given(files: &IdentityFiles) -> (PathBuf, PathBuf) {
    let folder = files.given.ca.parent().unwrap_or(Path::new("."));
    (folder.join(ISSUING_CERT), folder.join(ISSUING_KEY))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    disk::replace(path, bytes).map_err(|source| IdentityError::Write {
        path: path.to_owned(),
        source,
    })
}

/// Checks a certificate that an issuer made for this node and this key. Its time is not looked at:
/// the issuer's clock may be right where this one is wrong.
pub fn check_own(
    chain_pem: &[u8],
    roots: &Roots,
    mesh: &str,
    node: &NodeName,
    key: Digest,
) -> Result<(), IdentityError> {
    let chain = certificate::from_pem(chain_pem)?;
    let facts = match roots.check_chain(&chain[0], &chain[1..], i64::MAX, mesh) {
        Ok(facts) => facts,
        Err(CertificateFault::Expired { .. }) => certificate::facts(&chain[0], mesh)?,
        Err(fault) => return Err(fault.into()),
    };
    if facts.mesh_holder == Holder::Node(node.clone()) && facts.key == key {
        Ok(())
    } else {
        Err(IdentityError::Other(facts.mesh_holder.to_string()))
    }
}
