//! What the certificates of a mesh look like.

use super::PkiError;
use crate::name::Holder;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};
use x509_cert::Certificate;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};
use x509_cert::der::{Decode as _, Tag, Tagged as _};
use x509_cert::ext::pkix::{BasicConstraints as Constraints, KeyUsage, SubjectKeyIdentifier};

/// Certificates count from this long before they are issued: clocks of hosts differ.
pub(super) const BACKDATED: Duration = Duration::hours(24);
/// How long an agent's certificate is valid.
pub(super) const NODE: Duration = Duration::days(90);
/// How long a person's certificate is valid.
pub(super) const PERSON: Duration = Duration::days(365);
/// How long an authority is valid, at most as long as the one that issued it.
pub(super) const AUTHORITY: Duration = Duration::days(3650);

/// From when to when a certificate counts.
pub(super) struct Period {
    pub(super) from: OffsetDateTime,
    pub(super) until: OffsetDateTime,
}

/// A root: one authority may stand below it.
pub(super) fn root(mesh: &str, now: OffsetDateTime) -> CertificateParams {
    let period = Period {
        from: now - BACKDATED,
        until: now + AUTHORITY,
    };
    let mut params = dated(&root_name(mesh), period);
    authority(&mut params, 1);
    params
}

/// What a root asks another authority for.
pub(super) fn root_request(mesh: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&root_name(mesh));
    authority(&mut params, 1);
    params
}

/// An issuing authority: no other may stand below it.
pub(super) fn issuing(mesh: &str, period: Period) -> CertificateParams {
    let mut params = dated(&format!("cbddc mesh {mesh} issuing"), period);
    authority(&mut params, 0);
    params.use_authority_key_identifier_extension = true;
    params
}

/// The certificate of a node or a person.
pub(super) fn leaf(
    mesh: &str,
    holder: &Holder,
    period: Period,
) -> Result<CertificateParams, PkiError> {
    let uri = SanType::URI(holder.uri(mesh).try_into()?);
    let (common_name, names, serves) = match holder {
        Holder::Node(node) => {
            let name = node.to_string();
            rustls_pki_types::DnsName::try_from(name.as_str())
                .map_err(|_| PkiError::Node(node.clone()))?;
            let host = SanType::DnsName(name.clone().try_into()?);
            (name, vec![uri, host], true)
        }
        Holder::Person { name, .. } => (name.clone(), vec![uri], false),
    };
    let mut params = dated(&common_name, period);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if serves {
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.subject_alt_names = names;
    Ok(params)
}

/// Whoever holds the key of this certificate issues under its name, whoever made it.
pub(super) fn issuer(
    certificate: &Certificate,
    key: KeyPair,
) -> Result<Issuer<'static, KeyPair>, PkiError> {
    may_issue(certificate)?;
    let body = certificate.tbs_certificate();
    let mut params = CertificateParams::default();
    params.distinguished_name =
        copied(certificate).ok_or(PkiError::NotAuthority("its name is of an unusual kind"))?;
    if let Ok(Some((_, id))) = body.get_extension::<SubjectKeyIdentifier>() {
        params.key_identifier_method = KeyIdMethod::PreSpecified(id.0.as_bytes().to_vec());
    }
    let issuer = Issuer::new(params, key);
    // The name is compared byte by byte by whoever checks a certificate: try it.
    let trial = CertificateParams::default().signed_by(issuer.key(), &issuer)?;
    let trial = Certificate::from_der(trial.der());
    if trial.is_ok_and(|trial| trial.tbs_certificate().issuer() == body.subject()) {
        Ok(issuer)
    } else {
        Err(PkiError::NotAuthority("its name is of an unusual kind"))
    }
}

fn may_issue(certificate: &Certificate) -> Result<(), PkiError> {
    let body = certificate.tbs_certificate();
    let not = PkiError::NotAuthority;
    match body.get_extension::<Constraints>() {
        Ok(Some((_, constraints))) if constraints.ca => {}
        _ => return Err(not("it is not marked as one (basic constraints, CA)")),
    }
    match body.get_extension::<KeyUsage>() {
        Ok(Some((_, usage))) if !usage.key_cert_sign() => {
            Err(not("its key may not sign certificates (key usage)"))
        }
        Ok(_) => Ok(()),
        Err(_) => Err(not("its key usage cannot be read")),
    }
}

/// Refuses an authority below which another one may stand, such as a root.
pub(super) fn may_issue_leaves_only(certificate: &Certificate) -> Result<(), PkiError> {
    let constraints = certificate.tbs_certificate().get_extension::<Constraints>();
    match constraints {
        Ok(Some((_, constraints))) if constraints.path_len_constraint == Some(0) => Ok(()),
        Ok(_) | Err(_) => Err(PkiError::NotAuthority(
            "it is not limited to agents' certificates: it is the issuing authority that is wanted, not the root",
        )),
    }
}

/// The subject of a certificate, part by part; [`None`] where a part cannot be written again.
fn copied(certificate: &Certificate) -> Option<DistinguishedName> {
    let mut name = DistinguishedName::new();
    for part in certificate.tbs_certificate().subject().iter() {
        let kind: Vec<u64> = part.oid.arcs().map(u64::from).collect();
        let tag = part.value.tag();
        let value = if tag == Tag::Utf8String {
            let text = part.value.decode_as::<Utf8StringRef<'_>>().ok()?;
            DnValue::Utf8String(text.as_str().to_owned())
        } else if tag == Tag::PrintableString {
            let text = part.value.decode_as::<PrintableStringRef<'_>>().ok()?;
            DnValue::PrintableString(text.as_str().try_into().ok()?)
        } else if tag == Tag::Ia5String {
            let text = part.value.decode_as::<Ia5StringRef<'_>>().ok()?;
            DnValue::Ia5String(text.as_str().try_into().ok()?)
        } else {
            return None;
        };
        name.push(DnType::from_oid(&kind), value);
    }
    Some(name)
}

fn authority(params: &mut CertificateParams, below: u8) {
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
}

fn root_name(mesh: &str) -> String {
    format!("cbddc mesh {mesh}")
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn dated(common_name: &str, period: Period) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(common_name);
    params.not_before = period.from;
    params.not_after = period.until;
    params
}
