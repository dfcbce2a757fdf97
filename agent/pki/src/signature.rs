//! Signatures by a mesh's people and agents, and the roots by which they are believed.

use crate::certificate::{self, CertificateFault, Facts};
use crate::name::Holder;
use cbddc_domain::build::Digest;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, TrustAnchor, UnixTime};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use webpki::EndEntityCert;

/// The most certificates that a signature carries: holder, issuing authority, and one to spare.
pub const CHAIN_MAX: usize = 3;
/// The longest signature, in bytes. One of P-256 in ASN.1 has at most 72.
pub const SIGNATURE_BYTES_MAX: usize = 128;
/// How many chains are remembered as checked: twice the members that a mesh may have, in some 500 KiB.
const CHECKED_MAX: usize = 2048;
/// How many authorities may stand between a node and the root.
const BETWEEN_MAX: usize = 1;

/// A detached signature, ECDSA P-256 with SHA-256, and who made it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signature {
    /// The signer's certificate in DER, then its issuers without the root. At most [`CHAIN_MAX`].
    pub chain: Vec<Vec<u8>>,
    /// The signature in ASN.1, at most [`SIGNATURE_BYTES_MAX`].
    pub bytes: Vec<u8>,
}

/// Why a signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    /// It carries no certificate, or too many.
    #[error("the signature carries {0} certificates, and must carry 1 to {CHAIN_MAX}")]
    Chain(usize),
    /// It is too long.
    #[error("the signature has {0} bytes, more than {SIGNATURE_BYTES_MAX}")]
    TooLong(usize),
    /// The signer's certificate does not count.
    #[error("the signer's certificate does not count")]
    Certificate(#[from] CertificateFault),
    /// It is not the signer's, or not of this message.
    #[error("the signature is not that of {0} over this message")]
    Wrong(Holder),
    /// It is not the root's, or not of this message.
    #[error("the signature is not that of the root authority over this message")]
    WrongRoot,
}

/// Why nobody can sign with these files, or no roots can be read. Never shows a key.
#[derive(Debug, thiserror::Error)]
pub enum SignerFault {
    /// The certificates cannot be read.
    #[error("the certificates cannot be used")]
    Certificate(#[from] CertificateFault),
    /// Too many.
    #[error("there are {0} certificates before the root, more than {CHAIN_MAX}")]
    Chain(usize),
    /// The key cannot be read.
    #[error("there is no ECDSA P-256 key in PEM form (PKCS#8, not encrypted)")]
    Key,
    /// They do not belong together.
    #[error("the key is not that of the certificate")]
    Pair,
}

/// Who signs: a key and the certificates that say whose it is.
pub struct Signer {
    chain: Vec<Vec<u8>>,
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl Signer {
    /// Takes a chain of certificates, the holder's first, and its key, PKCS#8, both in PEM.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, SignerFault> {
        let chain = certificate::from_pem(chain)?;
        if chain.len() > CHAIN_MAX {
            return Err(SignerFault::Chain(chain.len()));
        }
        let random = SystemRandom::new();
        let key = PrivatePkcs8KeyDer::from_pem_slice(key).map_err(|_| SignerFault::Key)?;
        let key = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            key.secret_pkcs8_der(),
            &random,
        )
        .map_err(|_| SignerFault::Key)?;
        let leaf = certificate::parse(&chain[0])?;
        let spki = leaf.tbs_certificate().subject_public_key_info();
        if certificate::p256_point(spki) != Some(key.public_key().as_ref()) {
            return Err(SignerFault::Pair);
        }
        Ok(Self { chain, key, random })
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> Signature {
        // Fails only without random bytes; Linux gives them for good once it began to, which it had
        // when the TLS keys of this process were made.
        let bytes = self.key.sign(&self.random, message);
        Signature {
            chain: self.chain.clone(),
            bytes: bytes
                .expect("the system gives random bytes")
                .as_ref()
                .to_vec(),
        }
    }

    /// The signer's certificate and those between it and the root, in DER.
    pub fn chain(&self) -> &[Vec<u8>] {
        &self.chain
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").finish_non_exhaustive()
    }
}

/// The roots of a mesh.
#[derive(Debug, Clone)]
pub struct Roots {
    anchors: Vec<TrustAnchor<'static>>,
    certificates: Vec<Vec<u8>>,
    /// What [`Roots::believed`] found, by a digest of all that it depends on besides these roots:
    /// members sign much, and with the same certificates.
    checked: Arc<Mutex<HashMap<Digest, Checked>>>,
}

/// Who a certificate is of, and from when to when it and its issuer both count.
type Checked = (Facts, (i64, i64));

impl Roots {
    /// Takes the roots' certificates, in PEM; several while one replaces another.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CertificateFault> {
        Self::from_der(certificate::from_pem(pem)?)
    }

    /// Takes the roots' certificates, in DER: at least one.
    pub fn from_der(certificates: Vec<Vec<u8>>) -> Result<Self, CertificateFault> {
        if certificates.is_empty() {
            return Err(CertificateFault::NotPem);
        }
        let mut anchors = Vec::new();
        for der in &certificates {
            certificate::parse(der)?;
            let der = CertificateDer::from(der.as_slice());
            let anchor =
                webpki::anchor_from_trusted_cert(&der).map_err(CertificateFault::Untrusted)?;
            anchors.push(anchor.to_owned());
        }
        Ok(Self {
            anchors,
            certificates,
            checked: Arc::default(),
        })
    }

    /// The fingerprints of the roots, in the order in which they were given.
    pub fn fingerprints(&self) -> Vec<Digest> {
        let fingerprint = |der: &Vec<u8>| certificate::fingerprint(der);
        self.certificates.iter().map(fingerprint).collect()
    }

    /// The one root that was given first: the newest.
    pub fn newest(&self) -> Self {
        Self {
            anchors: self.anchors[..1].to_vec(),
            certificates: self.certificates[..1].to_vec(),
            checked: Arc::default(),
        }
    }

    /// Whether a chain, the holder's certificate first, comes from one of these roots, whatever the
    /// time is.
    pub fn vouch_for<C: AsRef<[u8]>>(&self, chain: &[C], mesh: &str) -> bool {
        let Some((leaf, between)) = chain.split_first() else {
            return false;
        };
        self.believed(leaf.as_ref(), between, mesh).is_ok()
    }

    /// Whether a signature is that of somebody of the mesh over this message, and whose.
    ///
    /// The certificates are looked at as of a time at which they all counted: what was signed stays
    /// signed after they expired.
    pub fn verify(
        &self,
        signature: &Signature,
        message: &[u8],
        mesh: &str,
    ) -> Result<Facts, SignatureFault> {
        if signature.bytes.len() > SIGNATURE_BYTES_MAX {
            return Err(SignatureFault::TooLong(signature.bytes.len()));
        }
        let Some((leaf, between)) = signature
            .chain
            .split_first()
            .filter(|_| signature.chain.len() <= CHAIN_MAX)
        else {
            return Err(SignatureFault::Chain(signature.chain.len()));
        };
        let (facts, _) = self.believed(leaf, between, mesh)?;
        let der = CertificateDer::from(leaf.as_slice());
        let signer = EndEntityCert::try_from(&der).map_err(CertificateFault::Untrusted)?;
        signer
            .verify_signature(
                webpki::ring::ECDSA_P256_SHA256,
                message,
                signature.bytes.as_slice(),
            )
            .map_err(|_| SignatureFault::Wrong(facts.mesh_holder.clone()))?;
        Ok(facts)
    }

    /// Whether a signature claims to be one of a root's own key.
    pub fn is_root(&self, signature: &Signature) -> bool {
        matches!(signature.chain.as_slice(), [only] if self.certificates.contains(only))
    }

    /// Whether a signature is one of a root's own key over this message.
    pub fn verify_root(&self, signature: &Signature, message: &[u8]) -> Result<(), SignatureFault> {
        let root = signature.chain.first().filter(|_| self.is_root(signature));
        let root = root.ok_or(SignatureFault::Chain(signature.chain.len()))?;
        if signature.bytes.len() > SIGNATURE_BYTES_MAX {
            return Err(SignatureFault::TooLong(signature.bytes.len()));
        }
        let der = CertificateDer::from(root.as_slice());
        let signer = EndEntityCert::try_from(&der).map_err(CertificateFault::Untrusted)?;
        let algorithm = webpki::ring::ECDSA_P256_SHA256;
        signer
            .verify_signature(algorithm, message, signature.bytes.as_slice())
            .map_err(|_| SignatureFault::WrongRoot)
    }

    /// Whether a certificate is that of somebody of the mesh and counts at `now` (Unix seconds).
    ///
    /// [`CertificateFault::Expired`] says that nothing else is wrong with it.
    pub fn check_chain<C: AsRef<[u8]>>(
        &self,
        leaf: &[u8],
        intermediates: &[C],
        now: i64,
        mesh: &str,
    ) -> Result<Facts, CertificateFault> {
        let (facts, (from, until)) = self.believed(leaf, intermediates, mesh)?;
        if now < from {
            return Err(CertificateFault::NotYet { from });
        }
        if now > until {
            return Err(CertificateFault::Expired { since: until });
        }
        Ok(facts)
    }

    /// Whether a certificate comes from a root, whatever the time is; and from when to when it and
    /// its issuer both count.
    fn believed<C: AsRef<[u8]>>(
        &self,
        leaf: &[u8],
        between: &[C],
        mesh: &str,
    ) -> Result<Checked, CertificateFault> {
        if between.len() >= CHAIN_MAX {
            return Err(CertificateFault::TooLong(between.len()));
        }
        let mut whole = Vec::new();
        let parts = between.iter().map(AsRef::as_ref);
        for part in [mesh.as_bytes(), leaf].into_iter().chain(parts) {
            whole.extend(part.len().to_le_bytes());
            whole.extend(part);
        }
        let digest = Digest::of(&whole);
        if let Some(found) = self.checked().get(&digest) {
            return Ok(found.clone());
        }
        let found = self.check(leaf, between, mesh)?;
        let mut checked = self.checked();
        if checked.len() >= CHECKED_MAX {
            checked.clear();
        }
        checked.insert(digest, found.clone());
        Ok(found)
    }

    fn checked(&self) -> MutexGuard<'_, HashMap<Digest, Checked>> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check<C: AsRef<[u8]>>(
        &self,
        leaf: &[u8],
        between: &[C],
        mesh: &str,
    ) -> Result<Checked, CertificateFault> {
        let facts = certificate::facts(leaf, mesh)?;
        let own = (facts.not_before, facts.not_after);
        let mut fault = match self.path(leaf, None, own.0) {
            Ok(()) => return Ok((facts, own)),
            Err(fault) => fault,
        };
        for issuing in between {
            let issuing = issuing.as_ref();
            let (from, until) = certificate::validity(&certificate::parse(issuing)?);
            // The path is looked at as of the later beginning: there neither has ended, or it fails.
            let both = (own.0.max(from), own.1.min(until));
            match self.path(leaf, Some(issuing), both.0) {
                Ok(()) => match facts.mesh_holder {
                    Holder::Node(_) => return Ok((facts, both)),
                    Holder::Person { .. } => {
                        return Err(CertificateFault::NotFromRoot(facts.mesh_holder));
                    }
                },
                Err(other) => fault = other,
            }
        }
        Err(fault)
    }

    /// Whether there is a path from a certificate to a root, by way of one that is given or none.
    fn path(&self, leaf: &[u8], issuing: Option<&[u8]>, at: i64) -> Result<(), CertificateFault> {
        let leaf = CertificateDer::from(leaf);
        let leaf = EndEntityCert::try_from(&leaf).map_err(CertificateFault::Untrusted)?;
        let issuing: Vec<CertificateDer<'_>> =
            issuing.map(CertificateDer::from).into_iter().collect();
        // Times before 1970 are the same to everything that was ever issued.
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at.max(0).cast_unsigned()));
        let path = leaf
            .verify_for_usage(
                &[webpki::ring::ECDSA_P256_SHA256],
                &self.anchors,
                &issuing,
                at,
                // What everybody's certificate is for; that a server is one is TLS's business.
                webpki::KeyUsage::client_auth(),
                None,
                None,
            )
            .map_err(CertificateFault::Untrusted)?;
        match path.intermediate_certificates().count() {
            0..=BETWEEN_MAX => Ok(()),
            more => Err(CertificateFault::TooLong(more)),
        }
    }
}
