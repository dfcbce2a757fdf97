//! The authorities of a mesh: a root, which is kept offline, and an issuing authority, which names
//! agents only. Each certificate that is issued is checked before it is handed out.

mod request;
mod sealed;
mod template;

pub use request::{key_id, make_csr, make_key, request_from_pem};
pub use sealed::is_sealed;

use crate::certificate::{self, CertificateFault};
use crate::name::{Holder, is_plain};
use crate::secret::Secret;
use crate::signature::{Roots, Signer, SignerFault};
use cbddc_domain::access::Role;
use cbddc_domain::build::Digest;
use cbddc_domain::id::NodeName;
use rcgen::{Issuer, KeyPair, PublicKeyData as _};
use std::fmt;
use time::OffsetDateTime;

/// Certificates and keys that cannot be made or used. Never shows a key or a passphrase.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The name cannot stand in a certificate.
    #[error(
        "{0} cannot be a host's name in a certificate: a name's last part must not be a number"
    )]
    Node(NodeName),
    /// The name of a mesh or a person.
    #[error(
        "{0:?} is no name for a mesh or a person: 1 to 64 letters, digits, `.`, `_`, `-`, not beginning with a dot"
    )]
    Plain(String),
    /// A key or certificate could not be made.
    #[error("cannot make a key or certificate")]
    Make(#[from] rcgen::Error),
    /// The time is out of range.
    #[error("the time {0} (Unix seconds) is none at which a certificate can be issued")]
    Time(i64),
    /// The authority does not count at this time.
    #[error(
        "the authority's certificate does not count now, but from {from} until {until} (Unix seconds): is this host's clock right?"
    )]
    AuthorityTime {
        /// From when on.
        from: i64,
        /// Until when.
        until: i64,
    },
    /// The authority's certificate cannot be read.
    #[error("the authority's certificate cannot be used")]
    Authority(#[source] CertificateFault),
    /// The authority's certificate is not one.
    #[error("this certificate is not an authority's that may issue others: {0}")]
    NotAuthority(&'static str),
    /// Key and certificate do not belong together.
    #[error("the key is not that of the authority's certificate")]
    Pair,
    /// The key cannot be read.
    #[error("this is no key of ECDSA P-256 in PEM form (PKCS#8)")]
    Key,
    /// The key is encrypted.
    #[error("the key is encrypted, and needs its passphrase")]
    Sealed,
    /// The passphrase does not open the key.
    #[error("the passphrase is wrong, or the key's file is damaged")]
    Passphrase,
    /// The key is encrypted in a way that is not known, or not reasonable.
    #[error("the key is encrypted in a way that is not supported: PBES2 with scrypt or PBKDF2 is")]
    SealKind,
    /// The key could not be encrypted.
    #[error("the key could not be encrypted")]
    Seal(#[source] pkcs8::Error),
    /// The request cannot be read.
    #[error("the request for a certificate cannot be read")]
    Request(#[source] x509_cert::der::Error),
    /// The request is not what is accepted.
    #[error("the request for a certificate is refused: {0}")]
    RequestRefused(&'static str),
    /// What was issued would not be believed.
    #[error("the certificate that was issued would be believed by nobody")]
    Unbelievable(#[source] CertificateFault),
}

/// A certificate and its key, in PEM form.
#[derive(Clone)]
pub struct Issued {
    /// The certificate, then its issuers without the root.
    pub cert: String,
    /// The key. For its holder only.
    pub key: String,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued")
            .field("cert", &self.cert)
            .finish_non_exhaustive()
    }
}

/// The root authority of a mesh.
pub struct Root(Authority);

/// The authority that issues agents' certificates.
pub struct Issuing(Authority);

/// A key, its certificate, and the name under which it issues.
struct Authority {
    certificate: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
    /// From when to when its certificate counts, in Unix seconds.
    valid: (i64, i64),
}

impl Root {
    /// Makes a new one, and signs its certificate itself. `now` is in Unix seconds, as everywhere.
    pub fn create(mesh: &str, now: i64) -> Result<Self, PkiError> {
        let key = new_key()?;
        let certificate = template::root(checked(mesh)?, moment(now)?).self_signed(&key)?;
        Authority::of(certificate.der().to_vec(), key).map(Self)
    }

    /// Opens one. The certificate may come from another authority: it is the root all the same.
    pub fn open(
        certificate: &str,
        key: &str,
        passphrase: Option<&Secret>,
    ) -> Result<Self, PkiError> {
        let key = sealed::open(key, passphrase)?;
        Authority::open(certificate, key).map(Self)
    }

    /// The key in PEM: PKCS#8, encrypted (PBES2, scrypt) where there is a passphrase.
    pub fn seal(&self, passphrase: Option<&Secret>) -> Result<String, PkiError> {
        sealed::seal(self.0.issuer.key(), passphrase)
    }

    /// Its certificate in PEM.
    pub fn certificate_pem(&self) -> String {
        certificate::to_pem(std::slice::from_ref(&self.0.certificate))
    }

    /// The SHA-256 of its certificate.
    pub fn fingerprint(&self) -> Digest {
        certificate::fingerprint(&self.0.certificate)
    }

    /// Signs with the root's own key: what names the mesh's authorities, and nothing else.
    pub fn signer(&self) -> Result<Signer, SignerFault> {
        let key = self.0.issuer.key().serialize_pem();
        Signer::from_pem(self.certificate_pem().as_bytes(), key.as_bytes())
    }

    /// A request, in PEM, for a certificate of this key by another authority.
    pub fn csr_pem(&self, mesh: &str) -> Result<String, PkiError> {
        let request = template::root_request(checked(mesh)?);
        Ok(request.serialize_request(self.0.issuer.key())?.pem()?)
    }

    /// Issues a person's certificate with a new key.
    pub fn issue_person(
        &self,
        mesh: &str,
        name: &str,
        role: Role,
        now: i64,
    ) -> Result<Issued, PkiError> {
        let holder = person(name, role)?;
        self.0
            .issue(mesh, &holder, now, |leaf| self.believed(leaf, mesh, now))
    }

    /// Issues a person's certificate for the key of a request, in DER. Nothing else of it is taken.
    pub fn sign_person(
        &self,
        mesh: &str,
        name: &str,
        role: Role,
        request: &[u8],
        now: i64,
    ) -> Result<String, PkiError> {
        let (holder, key) = (person(name, role)?, request::key(request)?);
        let leaf = self.0.sign(mesh, &holder, &key, now)?;
        self.believed(&leaf, mesh, now)?;
        Ok(certificate::to_pem(&[leaf]))
    }

    /// Issues a person's certificate for the key of one that they have, in PEM: another root replaces
    /// the one that issued it, and the person stays who they are.
    pub fn issue_again(
        &self,
        mesh: &str,
        key: &str,
        pem: &str,
        now: i64,
    ) -> Result<String, PkiError> {
        let chain = certificate::from_pem(pem.as_bytes()).map_err(PkiError::Authority)?;
        let held = certificate::facts(&chain[0], mesh).map_err(PkiError::Unbelievable)?;
        let request = make_csr(key, &"person".parse().expect("a name"))?;
        match held.mesh_holder {
            Holder::Person { name, role } => self.sign_person(mesh, &name, role, &request, now),
            Holder::Node(_) => Err(PkiError::RequestRefused("it is a host's, not a person's")),
        }
    }

    /// Makes a new issuing authority, as valid as the root.
    pub fn create_issuing(&self, mesh: &str, now: i64) -> Result<Issuing, PkiError> {
        let key = new_key()?;
        let params = template::issuing(checked(mesh)?, self.0.period(now, template::AUTHORITY)?);
        let certificate = params.signed_by(&key, &self.0.issuer)?;
        Authority::of(certificate.der().to_vec(), key).map(Issuing)
    }

    fn believed(&self, leaf: &[u8], mesh: &str, now: i64) -> Result<(), PkiError> {
        let roots = Roots::from_der(vec![self.0.certificate.clone()]);
        let checked = roots.and_then(|roots| roots.check_chain::<&[u8]>(leaf, &[], now, mesh));
        checked.map(drop).map_err(PkiError::Unbelievable)
    }
}

impl Issuing {
    /// Opens one.
    pub fn open(certificate: &str, key: &str) -> Result<Self, PkiError> {
        let key = sealed::open(key, None)?;
        Authority::open(certificate, key).map(Self)
    }

    /// Its certificate in PEM.
    pub fn certificate_pem(&self) -> String {
        certificate::to_pem(std::slice::from_ref(&self.0.certificate))
    }

    /// Its key in PEM: PKCS#8, not encrypted, for a file of mode 0600.
    pub fn key_pem(&self) -> String {
        self.0.issuer.key().serialize_pem()
    }

    /// Whether what it issues is believed by members that trust these roots, and nothing but agents'
    /// certificates is.
    pub fn check(&self, roots: &Roots, mesh: &str, now: i64) -> Result<(), PkiError> {
        let own = &self.0.certificate;
        let certificate = certificate::parse(own).map_err(PkiError::Authority)?;
        template::may_issue_leaves_only(&certificate)?;
        let holder = Holder::Node("probe".parse().expect("a name"));
        let leaf = self.0.sign(mesh, &holder, &new_key()?, now)?;
        let checked = roots.check_chain(&leaf, &[own], now, mesh);
        checked.map(drop).map_err(PkiError::Unbelievable)
    }

    /// Issues a node's certificate with a new key.
    pub fn issue_node(&self, mesh: &str, node: &NodeName, now: i64) -> Result<Issued, PkiError> {
        let holder = Holder::Node(node.clone());
        let mut issued = self
            .0
            .issue(mesh, &holder, now, |leaf| readable(leaf, mesh))?;
        issued.cert.push_str(&self.certificate_pem());
        Ok(issued)
    }

    /// Issues a node's certificate for the key of a request, in DER. Takes nothing of the request but
    /// its key, once its signature proved that the sender has it. Returns the chain in PEM.
    pub fn sign_node(
        &self,
        mesh: &str,
        node: &NodeName,
        request: &[u8],
        now: i64,
    ) -> Result<String, PkiError> {
        let (holder, key) = (Holder::Node(node.clone()), request::key(request)?);
        let leaf = self.0.sign(mesh, &holder, &key, now)?;
        readable(&leaf, mesh)?;
        Ok(certificate::to_pem(&[leaf]) + &self.certificate_pem())
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Root").finish_non_exhaustive()
    }
}

impl fmt::Debug for Issuing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuing").finish_non_exhaustive()
    }
}

impl Authority {
    fn open(pem: &str, key: KeyPair) -> Result<Self, PkiError> {
        let mut found = certificate::from_pem(pem.as_bytes()).map_err(PkiError::Authority)?;
        if found.len() != 1 {
            return Err(PkiError::NotAuthority("there is more than one in the file"));
        }
        Self::of(found.remove(0), key)
    }

    fn of(der: Vec<u8>, key: KeyPair) -> Result<Self, PkiError> {
        let certificate = certificate::parse(&der).map_err(PkiError::Authority)?;
        let spki = certificate.tbs_certificate().subject_public_key_info();
        if certificate::p256_point(spki) != Some(key.der_bytes()) {
            return Err(PkiError::Pair);
        }
        Ok(Self {
            valid: certificate::validity(&certificate),
            issuer: template::issuer(&certificate, key)?,
            certificate: der,
        })
    }

    fn issue(
        &self,
        mesh: &str,
        holder: &Holder,
        now: i64,
        check: impl Fn(&[u8]) -> Result<(), PkiError>,
    ) -> Result<Issued, PkiError> {
        let key = new_key()?;
        let leaf = self.sign(mesh, holder, &key, now)?;
        check(&leaf)?;
        Ok(Issued {
            cert: certificate::to_pem(&[leaf]),
            key: key.serialize_pem(),
        })
    }

    fn sign(
        &self,
        mesh: &str,
        holder: &Holder,
        key: &impl rcgen::PublicKeyData,
        now: i64,
    ) -> Result<Vec<u8>, PkiError> {
        let valid = match holder {
            Holder::Node(_) => template::NODE,
            Holder::Person { .. } => template::PERSON,
        };
        let params = template::leaf(checked(mesh)?, holder, self.period(now, valid)?)?;
        Ok(params.signed_by(key, &self.issuer)?.der().to_vec())
    }

    /// From when to when a certificate counts that is issued now: never outside the issuer's time.
    fn period(&self, now: i64, valid: time::Duration) -> Result<template::Period, PkiError> {
        let (from, until) = self.valid;
        if !(from..=until).contains(&now) {
            return Err(PkiError::AuthorityTime { from, until });
        }
        let moment = moment(now)?;
        Ok(template::Period {
            from: (moment - template::BACKDATED).max(self::moment(from)?),
            until: (moment + valid).min(self::moment(until)?),
        })
    }
}

fn readable(leaf: &[u8], mesh: &str) -> Result<(), PkiError> {
    let read = certificate::facts(leaf, mesh);
    read.map(drop).map_err(PkiError::Unbelievable)
}

fn new_key() -> Result<KeyPair, PkiError> {
    Ok(KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?)
}

fn person(name: &str, role: Role) -> Result<Holder, PkiError> {
    let name = checked(name)?.to_owned();
    Ok(Holder::Person { name, role })
}

fn checked(name: &str) -> Result<&str, PkiError> {
    let shown = || PkiError::Plain(name.chars().take(80).collect());
    Some(name).filter(|name| is_plain(name)).ok_or_else(shown)
}

fn moment(seconds: i64) -> Result<OffsetDateTime, PkiError> {
    // Certificates have no time before 1950, and none of ours is after 9000.
    let range = 0..=221_845_392_000;
    let found = OffsetDateTime::from_unix_timestamp(seconds).ok();
    found
        .filter(|_| range.contains(&seconds))
        .ok_or(PkiError::Time(seconds))
}
