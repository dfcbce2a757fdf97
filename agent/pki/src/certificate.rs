//! What a certificate says. Reading one does not mean believing it: that is
//! [`Roots`](crate::signature::Roots).

use crate::name::Holder;
use cbddc_domain::build::Digest;
use p256::pkcs8::ObjectIdentifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

/// The largest certificate that is read, in bytes of DER. Those of a mesh have about 600.
pub const CERTIFICATE_BYTES_MAX: usize = 4096;
/// The most certificates of one PEM text.
pub const CERTIFICATES_MAX: usize = 16;
/// The longest part of a foreign name that an error shows, in characters.
const SHOWN_MAX: usize = 80;

/// `id-ecPublicKey`, RFC 5480 section 2.1.1.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// `secp256r1`, RFC 5480 section 2.1.1.1.
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

/// What the certificate of a node or a person says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Who it is for.
    pub mesh_holder: Holder,
    /// SHA-256 of the public key (SubjectPublicKeyInfo in DER): the holder's identity, which stays
    /// the same when the certificate is renewed.
    pub key: Digest,
    /// The public key itself, SubjectPublicKeyInfo in DER.
    pub spki: Vec<u8>,
    /// From when on it counts, in Unix seconds.
    pub not_before: i64,
    /// Until when, in Unix seconds.
    pub not_after: i64,
}

/// Why a certificate does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// It is too large.
    #[error("the certificate has {0} bytes, more than {CERTIFICATE_BYTES_MAX}")]
    TooLarge(usize),
    /// There are too many.
    #[error("there are more than {CERTIFICATES_MAX} certificates")]
    TooMany,
    /// There is none, or not in PEM form.
    #[error("there is no certificate in PEM form")]
    NotPem,
    /// It is not a certificate.
    #[error("the certificate cannot be read")]
    Unreadable(#[source] x509_cert::der::Error),
    /// Its key is of another kind.
    #[error("the certificate's key is not ECDSA P-256")]
    KeyKind,
    /// It does not name exactly one holder.
    #[error("the certificate has {0} URI names, and must have exactly one")]
    Names(usize),
    /// Its holder is nobody of this mesh.
    #[error("the certificate names {found:?}, which is nobody of the mesh {mesh}")]
    Foreign {
        /// What it names, cut to 80 characters.
        found: String,
        /// The mesh.
        mesh: String,
    },
    /// Its DNS names are not those of its holder.
    #[error("the certificate's DNS names are not those of {0}")]
    DnsNames(Holder),
    /// Too many certificates between it and the root.
    #[error("there are {0} certificates between holder and root, more than one")]
    TooLong(usize),
    /// It comes from nobody whom the mesh trusts.
    #[error("the certificate does not come from the mesh's root")]
    Untrusted(#[source] webpki::Error),
    /// A person's certificate that the root did not issue itself.
    #[error("the certificate of {0} comes from the issuing authority, which may name agents only")]
    NotFromRoot(Holder),
    /// It, or the one that issued it, does not count any more.
    #[error("the certificate expired (at {since} Unix seconds): it has to be renewed")]
    Expired {
        /// Since when, in Unix seconds.
        since: i64,
    },
    /// It does not count yet.
    #[error("the certificate counts only later (from {from} Unix seconds): is the clock right?")]
    NotYet {
        /// From when on, in Unix seconds.
        from: i64,
    },
}

/// Reads the certificate of a node or a person of `mesh`. Checks neither signature nor time.
pub fn facts(der: &[u8], mesh: &str) -> Result<Facts, CertificateFault> {
    let certificate = parse(der)?;
    let body = certificate.tbs_certificate();
    let (not_before, not_after) = validity(&certificate);
    p256_point(body.subject_public_key_info()).ok_or(CertificateFault::KeyKind)?;
    let spki = body
        .subject_public_key_info()
        .to_der()
        .map_err(CertificateFault::Unreadable)?;
    let names = body
        .get_extension::<SubjectAltName>()
        .map_err(CertificateFault::Unreadable)?
        .map_or_else(Vec::new, |(_, names)| names.0);
    Ok(Facts {
        mesh_holder: holder(&names, mesh)?,
        key: Digest::of(&spki),
        spki,
        not_before,
        not_after,
    })
}

/// The SHA-256 of a certificate's DER.
pub fn fingerprint(der: &[u8]) -> Digest {
    Digest::of(der)
}

fn pem(der: &[u8]) -> String {
    use x509_cert::der::pem::{LineEnding, encode_string};
    encode_string("CERTIFICATE", LineEnding::LF, der)
        .expect("a label of capital letters and some bytes are PEM")
}

/// Certificates in PEM, one after the other.
pub fn to_pem(certificates: &[Vec<u8>]) -> String {
    certificates.iter().map(|der| pem(der)).collect()
}

/// The certificates of a PEM text, in its order: at least one. Does not look into them.
pub fn from_pem(pem: &[u8]) -> Result<Vec<Vec<u8>>, CertificateFault> {
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let der = certificate.map_err(|_| CertificateFault::NotPem)?.to_vec();
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(CertificateFault::TooLarge(der.len()));
        }
        if found.len() == CERTIFICATES_MAX {
            return Err(CertificateFault::TooMany);
        }
        found.push(der);
    }
    if found.is_empty() {
        return Err(CertificateFault::NotPem);
    }
    Ok(found)
}

/// Parses a certificate of bounded size.
pub(crate) fn parse(der: &[u8]) -> Result<Certificate, CertificateFault> {
    if der.len() > CERTIFICATE_BYTES_MAX {
        return Err(CertificateFault::TooLarge(der.len()));
    }
    Certificate::from_der(der).map_err(CertificateFault::Unreadable)
}

/// From when to when it counts, in Unix seconds.
pub(crate) fn validity(certificate: &Certificate) -> (i64, i64) {
    let validity = certificate.tbs_certificate().validity();
    // DER's times end with the year 9999.
    let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs().cast_signed();
    (seconds(validity.not_before), seconds(validity.not_after))
}

/// The point of a P-256 key; [`None`] where the key is of another kind or not on the curve.
pub(crate) fn p256_point(spki: &SubjectPublicKeyInfoOwned) -> Option<&[u8]> {
    let curve = spki.algorithm.parameters.as_ref()?;
    let curve: ObjectIdentifier = curve.decode_as().ok()?;
    if spki.algorithm.oid != EC_PUBLIC_KEY || curve != P256 {
        return None;
    }
    let point = spki.subject_public_key.as_bytes()?;
    p256::PublicKey::from_sec1_bytes(point).ok()?;
    Some(point)
}

/// The one holder that a certificate's names are about.
fn holder(names: &[GeneralName], mesh: &str) -> Result<Holder, CertificateFault> {
    let (mut uris, mut hosts) = (Vec::new(), Vec::new());
    for name in names {
        if let GeneralName::UniformResourceIdentifier(uri) = name {
            uris.push(uri.as_str());
        }
        if let GeneralName::DnsName(host) = name {
            hosts.push(host.as_str());
        }
    }
    let [uri] = uris[..] else {
        return Err(CertificateFault::Names(uris.len()));
    };
    let holder = Holder::parse(uri, mesh).ok_or_else(|| CertificateFault::Foreign {
        found: uri.chars().take(SHOWN_MAX).collect(),
        mesh: mesh.to_owned(),
    })?;
    // TLS looks at the DNS name, everything else at the URI: they must not be of two hosts.
    let agree = match &holder {
        Holder::Node(name) => hosts == [name.as_str()],
        Holder::Person { .. } => hosts.is_empty(),
    };
    if agree {
        Ok(holder)
    } else {
        Err(CertificateFault::DnsNames(holder))
    }
}
