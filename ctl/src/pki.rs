//! A mesh's own authority and the certificates that it issues.
//!
//! Every certificate names its holder in a URI, `cbddc://MESH/node/NAME` or `cbddc://MESH/user/NAME`;
//! a node's also in a DNS name, by which callers know that they reached the right host. Keys are
//! ECDSA P-256. Not here yet: an issuing authority of its own, renewal, roles.

use cbddc_domain::id::NodeName;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use std::path::PathBuf;
use time::{Duration, OffsetDateTime};

/// Certificates count from this long ago: clocks of hosts differ.
const BACKDATED: Duration = Duration::hours(24);
/// How long an agent's certificate is valid.
const NODE_VALID: Duration = Duration::days(90);
/// How long a person's certificate is valid.
const PERSON_VALID: Duration = Duration::days(365);
/// How long the authority is valid.
const AUTHORITY_VALID: Duration = Duration::days(3650);

/// Certificates that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The authority's key cannot be read.
    #[error("cannot read the authority's key {path}: it is only where the mesh was made")]
    ReadKey {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The name cannot stand in a certificate.
    #[error(
        "{0} cannot be a host's name in a certificate: a name's last part must not be a number"
    )]
    Name(String),
    /// A key or certificate could not be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
}

/// Who a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A host's agent: serves and asks.
    Node(NodeName),
    /// A person: asks only.
    Person(String),
}

/// A certificate and its key, in PEM form.
pub struct Issued {
    /// The certificate.
    pub cert: String,
    /// The key. For its holder only.
    pub key: String,
}

/// The authority of one mesh.
pub struct Authority {
    mesh: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new one, and the files that hold it.
    pub fn create(mesh: &str) -> Result<(Self, Issued), PkiError> {
        let key = KeyPair::generate()?;
        let params = authority_params(mesh);
        let cert: Certificate = params.self_signed(&key)?;
        let issued = Issued {
            cert: cert.pem(),
            key: key.serialize_pem(),
        };
        Ok((Self::of(mesh, key), issued))
    }

    /// Opens the one whose key is in `path`.
    pub fn open(mesh: &str, path: &std::path::Path) -> Result<Self, PkiError> {
        let text = std::fs::read_to_string(path).map_err(|source| PkiError::ReadKey {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self::of(mesh, KeyPair::from_pem(&text)?))
    }

    fn of(mesh: &str, key: KeyPair) -> Self {
        Self {
            mesh: mesh.to_owned(),
            // The issuer's name follows from the mesh's, so the certificate need not be parsed.
            issuer: Issuer::new(authority_params(mesh), key),
        }
    }

    /// Issues a certificate with a new key.
    pub fn issue(&self, holder: &Holder) -> Result<Issued, PkiError> {
        let key = KeyPair::generate()?;
        let (kind, name, valid) = match holder {
            Holder::Node(name) => ("node", name.to_string(), NODE_VALID),
            Holder::Person(name) => ("user", name.clone(), PERSON_VALID),
        };
        let mut params = params(&name, valid);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let uri = format!("cbddc://{}/{kind}/{name}", self.mesh);
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        if let Holder::Node(_) = holder {
            rustls_pki_types::DnsName::try_from(name.as_str())
                .map_err(|_| PkiError::Name(name.clone()))?;
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
            params
                .subject_alt_names
                .push(SanType::DnsName(name.try_into()?));
        }
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Issued {
            cert: cert.pem(),
            key: key.serialize_pem(),
        })
    }
}

fn authority_params(mesh: &str) -> CertificateParams {
    let mut params = params(&format!("cbddc mesh {mesh}"), AUTHORITY_VALID);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn params(common_name: &str, valid: Duration) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.not_before = now - BACKDATED;
    params.not_after = now + valid;
    params
}
