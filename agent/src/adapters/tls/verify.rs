//! Certificates of others: by the mesh's authorities, its name, and this host's idea of time.
//!
//! A certificate counts from the beginning, whatever this host's clock says: who signs for the
//! mesh never signs ahead, and a host whose clock battery died must not lock itself out. One that
//! has expired is let through the handshake for an agent only, and marked: what may be called with
//! it is the table's to say.

use crate::adapters::belief::{Belief, only_tls13};
use cbddc_domain::id::NodeName;
use cbddc_pki::certificate::{CertificateFault, Facts, facts};
use cbddc_pki::name::Holder;
use cbddc_pki::signature::Roots;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

/// Judges the certificates of one mesh.
#[derive(Debug, Clone)]
pub(super) struct Verifier {
    pub(super) mesh: Arc<str>,
    pub(super) roots: Arc<Roots>,
    /// Those that they replaced: a host with a certificate of theirs is let in to renew it.
    pub(super) former: Option<Arc<Roots>>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// Who holds a certificate, and whether it has expired.
    pub(super) fn judge(
        &self,
        leaf: &[u8],
        intermediates: &[CertificateDer<'_>],
        now_s: i64,
    ) -> Result<Facts, CertificateFault> {
        let found = facts(leaf, &self.mesh)?;
        let between: Vec<&[u8]> = intermediates.iter().map(AsRef::as_ref).collect();
        match self.roots.check_chain(leaf, &between, now_s, &self.mesh) {
            // Nothing else is wrong with it.
            Ok(_) | Err(CertificateFault::NotYet { .. } | CertificateFault::Expired { .. }) => {
                Ok(found)
            }
            Err(fault) => Err(fault),
        }
    }

    /// Which host holds a certificate of an authority that was replaced.
    fn judge_former(&self, leaf: &[u8], intermediates: &[CertificateDer<'_>]) -> Option<Facts> {
        let mut chain: Vec<&[u8]> = vec![leaf];
        chain.extend(intermediates.iter().map(AsRef::<[u8]>::as_ref));
        let former = self.former.as_ref()?;
        let found = facts(leaf, &self.mesh).ok()?;
        let is_host = matches!(found.mesh_holder, Holder::Node(_));
        (is_host && former.vouch_for(&chain, &self.mesh)).then_some(found)
    }

    /// The other side hears an alert only; the reason is for this host.
    fn refuse(fault: &CertificateFault) -> Error {
        Error::General(crate::error_chain(fault))
    }
}

fn seconds(now: UnixTime) -> i64 {
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        // Whoever joins has none yet.
        false
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let now_s = seconds(now);
        let found = match self.judge(leaf, intermediates, now_s) {
            Err(fault) => self.judge_former(leaf, intermediates).ok_or(fault),
            good => good,
        };
        let found = found.map_err(|fault| Self::refuse(&fault))?;
        match found.mesh_holder {
            Holder::Person { .. } if found.not_after < now_s => {
                Err(Error::InvalidCertificate(CertificateError::Expired))
            }
            Holder::Person { .. } | Holder::Node(_) => Ok(ClientCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, leaf, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl Belief for Arc<Verifier> {
    fn believe(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let now_s = seconds(now);
        let found = self.judge(leaf, intermediates, now_s);
        let found = found.map_err(|fault| Verifier::refuse(&fault))?;
        if found.not_after < now_s {
            return Err(Error::InvalidCertificate(CertificateError::Expired));
        }
        let expected: Option<NodeName> = name.to_str().parse().ok();
        match found.mesh_holder {
            Holder::Node(node) if Some(&node) == expected.as_ref() => Ok(()),
            Holder::Node(_) | Holder::Person { .. } => {
                Err(Error::InvalidCertificate(CertificateError::NotValidForName))
            }
        }
    }
}
