//! What is believed, and what is not.

mod authorities;
mod chains;
mod names;
mod rotation;
mod secrets;
mod signatures;

use crate::authority::{Issued, Issuing, Root};
use crate::certificate::from_pem;
use crate::signature::{Roots, Signer};
use cbddc_domain::id::NodeName;
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};

/// A moment in 2025, in Unix seconds.
const NOW: i64 = 1_750_000_000;
const DAY: i64 = 24 * 3600;
const MESH: &str = "shop";

/// A mesh's authorities.
struct Mesh {
    root: Root,
    issuing: Issuing,
}

impl Mesh {
    fn new() -> Self {
        let root = Root::create(MESH, NOW).unwrap();
        let issuing = root.create_issuing(MESH, NOW).unwrap();
        Self { root, issuing }
    }

    fn roots(&self) -> Roots {
        Roots::from_pem(self.root.certificate_pem().as_bytes()).unwrap()
    }

    fn node(&self, name: &str) -> Issued {
        self.issuing.issue_node(MESH, &node(name), NOW).unwrap()
    }

    /// The root's key with which anything can be signed.
    fn forger(&self) -> Issuer<'static, KeyPair> {
        forger(
            &format!("cbddc mesh {MESH}"),
            &self.root.seal(None).unwrap(),
        )
    }

    /// The same for the issuing authority.
    fn issuing_forger(&self) -> Issuer<'static, KeyPair> {
        let name = format!("cbddc mesh {MESH} issuing");
        forger(&name, &self.issuing.key_pem())
    }
}

fn forger(name: &str, key: &str) -> Issuer<'static, KeyPair> {
    Issuer::new(params(name), KeyPair::from_pem(key).unwrap())
}

/// Parameters that count around [`NOW`].
fn params(name: &str) -> CertificateParams {
    let moment = |seconds| time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = moment(NOW - DAY);
    params.not_after = moment(NOW + 90 * DAY);
    params
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn ders(pem: &str) -> Vec<Vec<u8>> {
    from_pem(pem.as_bytes()).unwrap()
}

fn signer(issued: &Issued) -> Signer {
    Signer::from_pem(issued.cert.as_bytes(), issued.key.as_bytes()).unwrap()
}
