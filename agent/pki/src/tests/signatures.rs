//! Signatures.

use super::{DAY, MESH, Mesh, NOW, ders, node, signer};
use crate::authority::Root;
use crate::certificate::CertificateFault;
use crate::name::Holder;
use crate::signature::{Signature, SignatureFault, Signer, SignerFault};
use cbddc_domain::access::Role;

#[test]
fn who_signed_is_told_from_who_did_not() {
    let mesh = Mesh::new();
    let roots = mesh.roots();
    let ana = mesh.root.issue_person(MESH, "ana", Role::Admin, NOW);
    for (issued, name) in [(ana.unwrap(), "ana"), (mesh.node("n1"), "node n1")] {
        let signature = signer(&issued).sign(b"message");
        let read = roots.verify(&signature, b"message", MESH).unwrap();
        assert_eq!(read.mesh_holder.to_string(), name);
        // The message.
        let wrong = SignatureFault::Wrong(read.mesh_holder.clone());
        for other in [&b""[..], b"messagf", b"message "] {
            assert_eq!(roots.verify(&signature, other, MESH), Err(wrong.clone()));
        }
        // Each byte of the signature.
        for place in 0..signature.bytes.len() {
            let mut changed = signature.clone();
            changed.bytes[place] ^= 1;
            assert!(roots.verify(&changed, b"message", MESH).is_err(), "{place}");
        }
        // Another's certificate.
        let other = Signature {
            chain: ders(&mesh.node("n2").cert),
            bytes: signature.bytes.clone(),
        };
        let n2 = SignatureFault::Wrong(Holder::Node(node("n2")));
        assert_eq!(roots.verify(&other, b"message", MESH), Err(n2));
        assert!(roots.verify(&signature, b"message", "shop2").is_err());
        assert!(
            Mesh::new()
                .roots()
                .verify(&signature, b"message", MESH)
                .is_err()
        );
    }
}

#[test]
fn a_signature_outlives_its_certificate() {
    let root = Root::create(MESH, NOW - 400 * DAY).unwrap();
    let issuing = root.create_issuing(MESH, NOW - 400 * DAY).unwrap();
    let issued = issuing
        .issue_node(MESH, &node("n1"), NOW - 200 * DAY)
        .unwrap();
    let roots = crate::signature::Roots::from_pem(root.certificate_pem().as_bytes()).unwrap();
    let signature = signer(&issued).sign(b"m");
    let chain = &signature.chain;
    let since = NOW - 110 * DAY;
    let expired = roots.check_chain(&chain[0], &chain[1..], NOW, MESH);
    assert_eq!(expired, Err(CertificateFault::Expired { since }));
    assert!(roots.verify(&signature, b"m", MESH).is_ok());
}

#[test]
fn bounds_of_signatures() {
    let mesh = Mesh::new();
    let roots = mesh.roots();
    let good = signer(&mesh.node("n1")).sign(b"m");
    assert_eq!(good.chain.len(), 2);
    let check = |signature: Signature| roots.verify(&signature, b"m", MESH).unwrap_err();
    let mut none = good.clone();
    none.chain.clear();
    assert_eq!(check(none), SignatureFault::Chain(0));
    let mut many = good.clone();
    many.chain.extend(vec![good.chain[1].clone(); 2]);
    assert_eq!(check(many), SignatureFault::Chain(4));
    let mut long = good.clone();
    long.bytes.resize(129, 0);
    assert_eq!(check(long), SignatureFault::TooLong(129));
    let mut large = good.clone();
    large.chain[1] = vec![0x30; 4097];
    let fault = SignatureFault::Certificate(CertificateFault::TooLarge(4097));
    assert_eq!(check(large), fault);
    let mut short = good.clone();
    short.chain.truncate(1);
    assert!(matches!(
        check(short),
        SignatureFault::Certificate(CertificateFault::Untrusted(_))
    ));
}

#[test]
fn signers_of_what_does_not_belong_together() {
    let mesh = Mesh::new();
    let (one, two) = (mesh.node("n1"), mesh.node("n2"));
    let from = |cert: &str, key: &str| Signer::from_pem(cert.as_bytes(), key.as_bytes());
    assert!(matches!(from(&one.cert, &two.key), Err(SignerFault::Pair)));
    assert!(matches!(from(&one.cert, "nothing"), Err(SignerFault::Key)));
    assert!(matches!(
        from("nothing", &one.key),
        Err(SignerFault::Certificate(_))
    ));
    let signer = from(&one.cert, &one.key).unwrap();
    assert_eq!(format!("{signer:?}"), "Signer { .. }");
    assert_eq!(signer.chain(), ders(&one.cert));
}
