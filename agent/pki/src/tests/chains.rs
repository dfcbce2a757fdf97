//! Which certificates are believed.

use super::{DAY, MESH, Mesh, NOW, ders, node, params};
use crate::authority::Root;
use crate::certificate::{CertificateFault, facts, fingerprint};
use crate::name::Holder;
use crate::signature::Roots;
use cbddc_domain::access::Role;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::BasicConstraints as Constraints;

type Checked = Result<Holder, CertificateFault>;

fn check(roots: &Roots, chain: &[Vec<u8>], now: i64) -> Checked {
    let (leaf, between) = chain.split_first().unwrap();
    let facts = roots.check_chain(leaf, between, now, MESH)?;
    Ok(facts.mesh_holder)
}

/// A leaf with names of its own.
fn leaf(uris: &[&str], hosts: &[&str]) -> CertificateParams {
    let mut params = params("leaf");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let uri = |uri: &&str| SanType::URI((*uri).try_into().unwrap());
    let host = |host: &&str| SanType::DnsName((*host).try_into().unwrap());
    params.subject_alt_names = uris.iter().map(uri).chain(hosts.iter().map(host)).collect();
    params
}

fn forged(params: &CertificateParams, issuer: &Issuer<'static, KeyPair>) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    params.signed_by(&key, issuer).unwrap().der().to_vec()
}

fn is_untrusted(checked: &Checked) -> bool {
    matches!(checked, Err(CertificateFault::Untrusted(_)))
}

#[test]
fn nodes_from_either_authority_and_people_from_the_root_alone() {
    let mesh = Mesh::new();
    let roots = mesh.roots();
    let n1 = Holder::Node(node("n1"));
    assert_eq!(
        check(&roots, &ders(&mesh.node("n1").cert), NOW),
        Ok(n1.clone())
    );
    let direct = forged(&leaf(&["cbddc://shop/node/n1"], &["n1"]), &mesh.forger());
    assert_eq!(check(&roots, &[direct], NOW), Ok(n1));

    let ana = Holder::Person {
        name: "ana".to_owned(),
        role: Role::Operator,
    };
    let issued = mesh.root.issue_person(MESH, "ana", Role::Operator, NOW);
    let chain = ders(&issued.unwrap().cert);
    assert_eq!(check(&roots, &chain, NOW), Ok(ana.clone()));

    let issuing = ders(&mesh.issuing.certificate_pem()).remove(0);
    let person = leaf(&["cbddc://shop/user/ana/operator"], &[]);
    let person = forged(&person, &mesh.issuing_forger());
    let refused = check(&roots, &[person, issuing], NOW);
    assert_eq!(refused, Err(CertificateFault::NotFromRoot(ana)));
}

#[test]
fn the_issuing_authority_makes_no_other_authority() {
    let mesh = Mesh::new();
    let issuing = ders(&mesh.issuing.certificate_pem()).remove(0);
    let read = x509_cert::Certificate::from_der(&issuing).unwrap();
    let constraints = read.tbs_certificate().get_extension::<Constraints>();
    let (_, constraints) = constraints.unwrap().unwrap();
    assert_eq!(
        (constraints.ca, constraints.path_len_constraint),
        (true, Some(0))
    );
    let chain_below = |first: &Issuer<'static, KeyPair>, above: &[Vec<u8>]| {
        let key = KeyPair::generate().unwrap();
        let mut second = params("second");
        second.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let between = second.signed_by(&key, first).unwrap().der().to_vec();
        let below = Issuer::new(second, key);
        let leaf = forged(&leaf(&["cbddc://shop/node/n1"], &["n1"]), &below);
        [&[leaf, between], above].concat()
    };
    let chain = chain_below(&mesh.issuing_forger(), &[issuing]);
    assert!(is_untrusted(&check(&mesh.roots(), &chain, NOW)));
    // The authority of a node's own key is none either.
    let own = mesh.node("n1");
    let host = super::forger("n1", &own.key);
    let chain = chain_below(&host, &ders(&own.cert)[..1]);
    assert!(is_untrusted(&check(&mesh.roots(), &chain, NOW)));
    // Longer chains are not even looked at.
    let long = vec![chain[0].clone(); 4];
    let refused = check(&mesh.roots(), &long, NOW);
    assert_eq!(refused, Err(CertificateFault::TooLong(3)));
}

#[test]
fn other_roots_and_other_meshes_are_foreign() {
    let (mesh, other) = (Mesh::new(), Mesh::new());
    assert!(is_untrusted(&check(
        &mesh.roots(),
        &ders(&other.node("n1").cert),
        NOW
    )));
    // Foreign issuing authority beside the own one.
    let chain = [ders(&other.node("n1").cert), ders(&mesh.node("n1").cert)].concat();
    assert!(is_untrusted(&check(
        &mesh.roots(),
        &[chain[0].clone(), chain[3].clone()],
        NOW
    )));
    // Both roots are there while one replaces the other.
    let both = mesh.root.certificate_pem() + &other.root.certificate_pem();
    let both = Roots::from_pem(both.as_bytes()).unwrap();
    assert!(check(&both, &ders(&other.node("n1").cert), NOW).is_ok());
    let fingerprints = [mesh.root.fingerprint(), other.root.fingerprint()];
    assert_eq!(both.fingerprints(), fingerprints);

    let elsewhere = mesh.issuing.issue_node("shop2", &node("n1"), NOW);
    let elsewhere = check(&mesh.roots(), &ders(&elsewhere.unwrap().cert), NOW);
    assert!(matches!(elsewhere, Err(CertificateFault::Foreign { .. })));
}

#[test]
fn expiry_is_told_only_of_what_is_genuine() {
    let mesh = Mesh::new();
    let chain = ders(&mesh.node("n1").cert);
    let read = facts(&chain[0], MESH).unwrap();
    assert_eq!(read.not_before, NOW - DAY);
    assert_eq!(read.not_after, NOW + 90 * DAY);
    let roots = mesh.roots();
    let late = NOW + 91 * DAY;
    let since = read.not_after;
    assert_eq!(
        check(&roots, &chain, late),
        Err(CertificateFault::Expired { since })
    );
    assert!(check(&roots, &chain, since).is_ok());
    let from = read.not_before;
    assert!(check(&roots, &chain, from).is_ok());
    assert_eq!(
        check(&roots, &chain, from - 1),
        Err(CertificateFault::NotYet { from })
    );
    // Expired, and not of this mesh's root: that is what is wrong with it.
    assert!(is_untrusted(&check(&Mesh::new().roots(), &chain, late)));
    // Expired, and changed.
    let mut changed = chain.clone();
    let last = changed[0].len() - 1;
    changed[0][last] ^= 1;
    assert!(is_untrusted(&check(&roots, &changed, late)));
}

#[test]
fn a_certificate_ends_with_the_authority_that_issued_it() {
    let root = Root::create(MESH, NOW).unwrap();
    let late = NOW + 3645 * DAY;
    let issuing = root.create_issuing(MESH, late).unwrap();
    let issued = issuing.issue_node(MESH, &node("n1"), late).unwrap();
    let read = facts(&ders(&issued.cert)[0], MESH).unwrap();
    assert_eq!(read.not_after, NOW + 3650 * DAY);
    assert!(
        issuing
            .issue_node(MESH, &node("n1"), NOW + 3651 * DAY)
            .is_err()
    );
    // A clock that lost the years.
    assert!(issuing.issue_node(MESH, &node("n1"), 0).is_err());
    // A clock that is a little behind the one that made the authority.
    let early = issuing
        .issue_node(MESH, &node("n1"), late - DAY / 2)
        .unwrap();
    let roots = Roots::from_pem(root.certificate_pem().as_bytes()).unwrap();
    assert!(check(&roots, &ders(&early.cert), late).is_ok());
    let read = facts(&ders(&early.cert)[0], MESH).unwrap();
    assert_eq!(read.not_before, late - DAY);
}

#[test]
fn the_issuing_authoritys_time_counts_too() {
    let mesh = Mesh::new();
    let roots = mesh.roots();
    let issuing = ders(&mesh.issuing.certificate_pem()).remove(0);
    let moment = |seconds| time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    let mut params = leaf(&["cbddc://shop/node/n1"], &["n1"]);
    params.not_before = moment(NOW - 10 * DAY);
    params.not_after = moment(NOW + 9000 * DAY);
    let chain = [forged(&params, &mesh.issuing_forger()), issuing.clone()];
    assert!(check(&roots, &chain, NOW).is_ok());
    let (from, since) = (NOW - DAY, NOW + 3650 * DAY);
    assert_eq!(
        check(&roots, &chain, from - 1),
        Err(CertificateFault::NotYet { from })
    );
    assert_eq!(
        check(&roots, &chain, since + 1),
        Err(CertificateFault::Expired { since })
    );
    // Never at the same time: there is no moment at which this was in order.
    params.not_after = moment(NOW - 5 * DAY);
    let chain = [forged(&params, &mesh.issuing_forger()), issuing];
    assert!(is_untrusted(&check(&roots, &chain, NOW - 7 * DAY)));
}

#[test]
fn exactly_one_name() {
    let mesh = Mesh::new();
    let node_uri = "cbddc://shop/node/n1";
    let ana = "cbddc://shop/user/ana/admin";
    type Expected = fn(&CertificateFault) -> bool;
    let names: Expected = |fault| matches!(fault, CertificateFault::Names(_));
    let hosts: Expected = |fault| matches!(fault, CertificateFault::DnsNames(_));
    let foreign: Expected = |fault| matches!(fault, CertificateFault::Foreign { .. });
    let table: &[(&[&str], &[&str], Expected)] = &[
        (&[], &["n1"], names),
        (&[node_uri, ana], &["n1"], names),
        (&[node_uri, node_uri], &["n1"], names),
        (&[node_uri, "https://example.org"], &["n1"], names),
        (&[node_uri], &[], hosts),
        (&[node_uri], &["n2"], hosts),
        (&[node_uri], &["n1", "n2"], hosts),
        (&[ana], &["n1"], hosts),
        (&["cbddc://shop/user/ana"], &[], foreign),
        (&["https://example.org"], &[], foreign),
    ];
    for (uris, dns, expected) in table {
        let der = forged(&leaf(uris, dns), &mesh.forger());
        let fault = facts(&der, MESH).unwrap_err();
        assert!(expected(&fault), "{uris:?} {dns:?}: {fault:?}");
        let checked = check(&mesh.roots(), &[der], NOW);
        assert_eq!(checked, Err(fault));
    }
}

#[test]
fn unreadable_certificates_and_other_keys() {
    let mesh = Mesh::new();
    let der = ders(&mesh.node("n1").cert).remove(0);
    assert_eq!(fingerprint(&der), cbddc_domain::build::Digest::of(&der));
    for bad in [
        &[][..],
        b"nothing",
        &der[..der.len() - 1],
        &[&der[..], b"x"].concat(),
    ] {
        let fault = facts(bad, MESH).unwrap_err();
        assert!(
            matches!(fault, CertificateFault::Unreadable(_)),
            "{fault:?}"
        );
    }
    let huge = facts(&vec![0; 5000], MESH);
    assert_eq!(huge, Err(CertificateFault::TooLarge(5000)));

    let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let params = leaf(&["cbddc://shop/node/n1"], &["n1"]);
    let other = params.signed_by(&other, &mesh.forger()).unwrap();
    assert_eq!(facts(other.der(), MESH), Err(CertificateFault::KeyKind));
    // Neither is the root a holder, nor does a certificate for servers alone make one.
    let root = ders(&mesh.root.certificate_pem()).remove(0);
    assert_eq!(facts(&root, MESH), Err(CertificateFault::Names(0)));
    let mut servers = leaf(&["cbddc://shop/node/n1"], &["n1"]);
    servers.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let servers = forged(&servers, &mesh.forger());
    assert!(is_untrusted(&check(&mesh.roots(), &[servers], NOW)));
    assert_eq!(Roots::from_pem(b"").unwrap_err(), CertificateFault::NotPem);
}
