//! One root takes the place of another.

use super::{MESH, Mesh, NOW, ders, node};
use crate::authority::{Issuing, PkiError};
use crate::certificate::facts;
use crate::signature::Roots;
use cbddc_domain::access::Role;

#[test]
fn certificates_of_the_newest_root_are_told_from_those_of_the_old() {
    let (old, new) = (Mesh::new(), Mesh::new());
    let der = |mesh: &Mesh| ders(&mesh.root.certificate_pem());
    let both = Roots::from_der([der(&new), der(&old)].concat()).unwrap();
    let (before, after) = (ders(&old.node("n1").cert), ders(&new.node("n1").cert));
    for (roots, chain, vouches) in [
        (&both, &before, true),
        (&both, &after, true),
        (&both.newest(), &before, false),
        (&both.newest(), &after, true),
        (&old.roots(), &after, false),
    ] {
        assert_eq!(roots.vouch_for(chain, MESH), vouches);
        assert!(!roots.vouch_for(chain, "other"));
    }
    assert!(!both.vouch_for::<Vec<u8>>(&[], MESH));
    assert_eq!(both.newest().fingerprints(), new.roots().fingerprints());
}

#[test]
fn an_issuing_authority_is_checked_before_it_is_used() {
    let (mesh, other) = (Mesh::new(), Mesh::new());
    let roots = mesh.roots();
    assert!(mesh.issuing.check(&roots, MESH, NOW).is_ok());
    let foreign = other.issuing.check(&roots, MESH, NOW);
    assert!(
        matches!(foreign, Err(PkiError::Unbelievable(_))),
        "{foreign:?}"
    );
    // The root's key does not belong on a host that runs.
    let root = Issuing::open(&mesh.root.certificate_pem(), &mesh.root.seal(None).unwrap());
    let root = root.unwrap().check(&roots, MESH, NOW);
    assert!(matches!(root, Err(PkiError::NotAuthority(_))), "{root:?}");
    let pair = Issuing::open(&mesh.issuing.certificate_pem(), &other.issuing.key_pem());
    assert!(matches!(pair, Err(PkiError::Pair)));
}

#[test]
fn a_person_stays_who_they_are_under_another_root() {
    let (old, new) = (Mesh::new(), Mesh::new());
    let ana = old
        .root
        .issue_person(MESH, "ana", Role::Admin, NOW)
        .unwrap();
    let again = new
        .root
        .issue_again(MESH, &ana.key, &ana.cert, NOW)
        .unwrap();
    assert!(new.roots().vouch_for(&ders(&again), MESH));
    let (before, after) = (
        facts(&ders(&ana.cert)[0], MESH).unwrap(),
        facts(&ders(&again)[0], MESH).unwrap(),
    );
    assert_eq!(before.mesh_holder, after.mesh_holder);
    assert_eq!(before.key, after.key);
    let host = new.issuing.issue_node(MESH, &node("n1"), NOW).unwrap();
    assert!(
        new.root
            .issue_again(MESH, &host.key, &host.cert, NOW)
            .is_err()
    );
}
