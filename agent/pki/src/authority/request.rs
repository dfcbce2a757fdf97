//! Requests for certificates (PKCS#10): how a key is certified without ever leaving its host.

use super::PkiError;
use crate::certificate::{CERTIFICATE_BYTES_MAX, p256_point};
use cbddc_domain::build::Digest;
use cbddc_domain::id::NodeName;
use pkcs8::ObjectIdentifier;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject as _;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::request::CertReq;

/// `ecdsa-with-SHA256`, RFC 5758 section 3.2.
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

/// Makes a new key, in PEM (PKCS#8).
pub fn make_key() -> Result<String, PkiError> {
    Ok(super::new_key()?.serialize_pem())
}

/// Makes a request, in DER, for the key of a node. The name in it is for people: whoever signs it
/// decides on the name.
pub fn make_csr(key: &str, node: &NodeName) -> Result<Vec<u8>, PkiError> {
    let key = p256_key(key)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, node.as_str());
    Ok(params.serialize_request(&key)?.der().to_vec())
}

/// The request in a PEM text, in DER. Does not look into it.
pub fn request_from_pem(pem: &[u8]) -> Result<Vec<u8>, PkiError> {
    let refused = PkiError::RequestRefused("it is not in PEM form");
    let request = CertificateSigningRequestDer::from_pem_slice(pem).map_err(|_| refused)?;
    Ok(request.as_ref().to_vec())
}

/// A key in PEM, which must be ECDSA P-256.
pub(super) fn p256_key(pem: &str) -> Result<KeyPair, PkiError> {
    KeyPair::from_pkcs8_pem_and_sign_algo(pem, &rcgen::PKCS_ECDSA_P256_SHA256)
        .map_err(|_| PkiError::Key)
}

/// The key of a request whose sender has proved to have it.
pub(super) struct RequestedKey(Vec<u8>);

impl PublicKeyData for RequestedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// The key of a request, after its signature was checked.
pub(super) fn key(request: &[u8]) -> Result<RequestedKey, PkiError> {
    let refused = PkiError::RequestRefused;
    if request.len() > CERTIFICATE_BYTES_MAX {
        return Err(refused("it is too large"));
    }
    let request = CertReq::from_der(request).map_err(PkiError::Request)?;
    let point = p256_point(&request.info.public_key)
        .ok_or_else(|| refused("its key is not ECDSA P-256"))?;
    if request.algorithm.oid != ECDSA_SHA256 {
        return Err(refused("it is not signed with ECDSA and SHA-256"));
    }
    let signed = request.info.to_der().map_err(PkiError::Request)?;
    let signature = request.signature.as_bytes().unwrap_or_default();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
        .verify(&signed, signature)
        .map_err(|_| refused("its signature is not that of its key"))?;
    Ok(RequestedKey(point.to_vec()))
}

/// The digest of a key's public half (SubjectPublicKeyInfo in DER), by which a holder is known.
pub fn key_id(key: &str) -> Result<Digest, PkiError> {
    Ok(Digest::of(&p256_key(key)?.subject_public_key_info()))
}
