//! Certificates of a test mesh, good and bad ones.

use cbddc_pki::authority::{Issued, Issuing, Root};
use cbddc_pki::signature::Signer;
use cbddc_tests::mesh::TestMesh;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType,
};
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};
use time::{Duration as TimeSpan, OffsetDateTime};

/// Unix seconds.
pub(crate) fn now_s() -> i64 {
    #[expect(
        clippy::disallowed_methods,
        reason = "certificates are of the real time"
    )]
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    i64::try_from(since.as_secs()).expect("before the sun goes out")
}

/// The authorities of a mesh that a test made.
pub(crate) struct Authorities {
    pub(crate) root: Root,
    pub(crate) issuing: Issuing,
}

impl Authorities {
    pub(crate) fn of(mesh: &TestMesh) -> Self {
        let folder = mesh.root().join("authority");
        let read = |name: &str| fs::read_to_string(folder.join(name)).expect("an authority's file");
        Self {
            root: Root::open(&read("ca.pem"), &read("ca.key"), None).expect("the root"),
            issuing: Issuing::open(&read("issuing.pem"), &read("issuing.key")).expect("the issuer"),
        }
    }
}

pub(crate) fn authority_file(mesh: &TestMesh, name: &str) -> String {
    let path = mesh.root().join("authority").join(name);
    fs::read_to_string(path).expect("an authority's key")
}

/// An agent's certificate that has expired an hour ago, with a new key.
pub(crate) fn expired_agent(mesh: &TestMesh, node: &str) -> Issued {
    let mut issued = expired(
        &authority_file(mesh, "issuing.key"),
        ISSUING_NAME,
        &format!("node/{node}"),
    );
    issued.cert.push_str(&authority_file(mesh, "issuing.pem"));
    issued
}

/// The name of the issuing authority of the mesh `shop`.
const ISSUING_NAME: &str = "cbddc mesh shop issuing";

/// A certificate that has expired an hour ago. The authorities of this code make none.
pub(crate) fn expired(authority_key: &str, authority: &str, holder: &str) -> Issued {
    let mut ca = CertificateParams::default();
    ca.distinguished_name = DistinguishedName::new();
    ca.distinguished_name.push(DnType::CommonName, authority);
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let issuer = Issuer::new(ca, KeyPair::from_pem(authority_key).expect("a key"));
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    let uri = format!("cbddc://shop/{holder}");
    params.subject_alt_names = vec![SanType::URI(uri.try_into().expect("ASCII"))];
    if let Some(node) = holder.strip_prefix("node/") {
        let name = node.try_into().expect("ASCII");
        params.subject_alt_names.push(SanType::DnsName(name));
    }
    let now = OffsetDateTime::from_unix_timestamp(now_s()).expect("a time");
    params.not_before = now - TimeSpan::hours(20);
    params.not_after = now - TimeSpan::hours(1);
    let key = KeyPair::generate().expect("a key");
    Issued {
        cert: params
            .signed_by(&key, &issuer)
            .expect("a certificate")
            .pem(),
        key: key.serialize_pem(),
    }
}

/// The person who made the mesh.
pub(crate) fn ana(mesh: &TestMesh) -> Signer {
    let folder = mesh.cbctl_config().join("contexts/shop");
    let read = |name: &str| fs::read(folder.join(name)).expect("ana's file");
    Signer::from_pem(&read("user.pem"), &read("user.key")).expect("ana's key")
}
