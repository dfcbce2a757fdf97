//! Authorities, their keys and requests.

use super::{MESH, Mesh, NOW, ders, node, params, signer};
use crate::authority::{Issuing, PkiError, Root, is_sealed, make_csr, make_key, request_from_pem};
use crate::certificate::facts;
use crate::name::Holder;
use crate::secret::Secret;
use crate::signature::Roots;
use cbddc_domain::access::Role;
use rcgen::{BasicConstraints, CertificateParams, DnType, DnValue, IsCa, Issuer, KeyPair};
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::AuthorityKeyIdentifier;

#[test]
fn a_request_gives_its_key_and_nothing_else() {
    let mesh = Mesh::new();
    let key = make_key().unwrap();
    // Asks for another name than the one that it gets.
    let request = make_csr(&key, &node("n9")).unwrap();
    let chain = mesh.issuing.sign_node(MESH, &node("n1"), &request, NOW);
    let chain = chain.unwrap();
    let roots = mesh.roots();
    let ders = ders(&chain);
    let read = roots.check_chain(&ders[0], &ders[1..], NOW, MESH).unwrap();
    assert_eq!(read.mesh_holder, Holder::Node(node("n1")));
    // The key stays the holder's identity.
    let again = mesh
        .issuing
        .sign_node(MESH, &node("n1"), &request, NOW + 60);
    let again = facts(&super::ders(&again.unwrap())[0], MESH).unwrap();
    assert_eq!(again.key, read.key);
    let issued = crate::authority::Issued { cert: chain, key };
    let signature = signer(&issued).sign(b"m");
    assert_eq!(roots.verify(&signature, b"m", MESH), Ok(read));

    let chain = mesh
        .root
        .sign_person(MESH, "ana", Role::Viewer, &request, NOW);
    let read = facts(&super::ders(&chain.unwrap())[0], MESH).unwrap();
    assert_eq!(read.mesh_holder.to_string(), "ana");
    assert_eq!(read.key, again.key);
}

#[test]
fn a_request_that_asks_to_be_an_authority_makes_none() {
    let mesh = Mesh::new();
    let key = KeyPair::generate().unwrap();
    let mut wish = params("n1");
    wish.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let request = wish.serialize_request(&key).unwrap();
    let chain = mesh
        .issuing
        .sign_node(MESH, &node("n1"), request.der(), NOW);
    let key = key.serialize_pem();
    let leaf = chain.unwrap();
    let leaf = leaf
        .split_inclusive("-----END CERTIFICATE-----\n")
        .next()
        .unwrap();
    assert!(matches!(
        Issuing::open(leaf, &key),
        Err(PkiError::NotAuthority(_))
    ));
}

#[test]
fn requests_are_refused() {
    let mesh = Mesh::new();
    let sign = |request: &[u8]| mesh.issuing.sign_node(MESH, &node("n1"), request, NOW);
    let request = make_csr(&make_key().unwrap(), &node("n1")).unwrap();
    for place in [request.len() - 1, request.len() - 30, 20] {
        let mut broken = request.clone();
        broken[place] ^= 1;
        assert!(sign(&broken).is_err(), "byte {place}");
    }
    // The key of another in an own request.
    let other = make_csr(&make_key().unwrap(), &node("n1")).unwrap();
    let start = request
        .windows(2)
        .position(|pair| pair == [0x00, 0x04])
        .unwrap();
    let mut stolen = request.clone();
    stolen[start..start + 66].copy_from_slice(&other[start..start + 66]);
    let refused = sign(&stolen).unwrap_err().to_string();
    assert!(
        refused.contains("signature is not that of its key"),
        "{refused}"
    );

    let kinds = [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P384_SHA384];
    for kind in kinds {
        let key = KeyPair::generate_for(kind).unwrap();
        let request = params("n1").serialize_request(&key).unwrap();
        let refused = sign(request.der()).unwrap_err().to_string();
        assert!(refused.contains("P-256"), "{refused}");
    }
    assert!(sign(b"").is_err());
    assert!(sign(&vec![0; 5000]).is_err());
    assert!(request_from_pem(b"nothing").is_err());
}

#[test]
fn names_that_cannot_stand_in_a_certificate() {
    let mesh = Mesh::new();
    let numeric = mesh.issuing.issue_node(MESH, &node("7"), NOW);
    assert!(matches!(numeric, Err(PkiError::Node(_))));
    for bad in ["", "a/b", ".a", &"a".repeat(65)] {
        let refused = mesh.root.issue_person(MESH, bad, Role::Admin, NOW);
        assert!(matches!(refused, Err(PkiError::Plain(_))), "{bad}");
        let refused = Root::create(bad, NOW);
        assert!(matches!(refused, Err(PkiError::Plain(_))), "{bad}");
    }
}

#[test]
fn an_encrypted_root_opens_with_its_passphrase_alone() {
    let root = Root::create(MESH, NOW).unwrap();
    let certificate = root.certificate_pem();
    let right = Secret::new("correct horse battery");
    let sealed = root.seal(Some(&right)).unwrap();
    assert!(is_sealed(&sealed));
    assert!(!is_sealed(&root.seal(None).unwrap()));
    let opened = Root::open(&certificate, &sealed, Some(&right)).unwrap();
    assert_eq!(opened.fingerprint(), root.fingerprint());
    let issued = opened.issue_person(MESH, "ana", Role::Admin, NOW).unwrap();
    let roots = Roots::from_pem(certificate.as_bytes()).unwrap();
    let signature = signer(&issued).sign(b"m");
    assert!(roots.verify(&signature, b"m", MESH).is_ok());

    for wrong in ["", "correct horse batterY", "correct horse battery "] {
        let refused = Root::open(&certificate, &sealed, Some(&Secret::new(wrong)));
        assert!(matches!(refused, Err(PkiError::Passphrase)), "{refused:?}");
    }
    let refused = Root::open(&certificate, &sealed, None);
    assert!(matches!(refused, Err(PkiError::Sealed)));
    // Two times the same key: other bytes.
    assert_ne!(sealed, root.seal(Some(&right)).unwrap());
}

#[test]
fn a_passphrase_that_would_cost_the_machine_is_not_tried() {
    use pkcs8::der::SecretDocument;
    let root = Root::create(MESH, NOW).unwrap();
    let passphrase = Secret::new("correct horse battery");
    let sealed = root.seal(Some(&passphrase)).unwrap();
    let (_, document) = SecretDocument::from_pem(&sealed).unwrap();
    let der = document.as_bytes();
    // The parameters of scrypt: N = 2^14, r = 8, p = 5.
    let cost = [2, 2, 0x40, 0, 2, 1, 8, 2, 1, 5];
    let place = der.windows(cost.len()).position(|bytes| bytes == cost);
    let place = place.expect("2^14, 8, 5 stand in the key's file");
    for (byte, value) in [(6, 0x7f), (9, 0x7f)] {
        let mut changed = der.to_vec();
        changed[place + byte] = value;
        let changed = SecretDocument::try_from(changed.as_slice()).unwrap();
        let pem = changed.to_pem("ENCRYPTED PRIVATE KEY", pkcs8::LineEnding::LF);
        let opened = Root::open(&root.certificate_pem(), &pem.unwrap(), Some(&passphrase));
        assert!(matches!(opened, Err(PkiError::SealKind)), "{opened:?}");
    }
}

#[test]
fn keys_and_certificates_that_do_not_belong_together() {
    let mesh = Mesh::new();
    let other = Root::create(MESH, NOW).unwrap();
    let key = mesh.root.seal(None).unwrap();
    let refused = Root::open(&other.certificate_pem(), &key, None);
    assert!(matches!(refused, Err(PkiError::Pair)));
    let refused = Issuing::open(&mesh.root.certificate_pem(), &mesh.issuing.key_pem());
    assert!(matches!(refused, Err(PkiError::Pair)));
    // A person is no authority.
    let ana = mesh
        .root
        .issue_person(MESH, "ana", Role::Admin, NOW)
        .unwrap();
    let refused = Root::open(&ana.cert, &ana.key, None);
    assert!(matches!(refused, Err(PkiError::NotAuthority(_))));
    let refused = Root::open(&mesh.root.certificate_pem(), "nothing", None);
    assert!(matches!(refused, Err(PkiError::Key)));
    let again = Issuing::open(&mesh.issuing.certificate_pem(), &mesh.issuing.key_pem());
    assert!(again.unwrap().issue_node(MESH, &node("n2"), NOW).is_ok());
}

#[test]
fn a_root_that_another_authority_certified() {
    let root = Root::create(MESH, NOW).unwrap();
    let request = request_from_pem(root.csr_pem(MESH).unwrap().as_bytes()).unwrap();
    // Another authority, with a name and a key identifier of its own making.
    let above = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let above = Issuer::new(params("Example Corp Root"), above);
    let named = |shop: &str| -> CertificateParams {
        let mut params = params("Shop mesh");
        params.distinguished_name.push(
            DnType::CountryName,
            DnValue::PrintableString("AT".try_into().unwrap()),
        );
        params
            .distinguished_name
            .push(DnType::OrganizationName, shop);
        params.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![1, 2, 3]);
        params
    };
    let mut params = named("Example Corp");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    let key = KeyPair::from_pem(&root.seal(None).unwrap()).unwrap();
    let certificate = params.signed_by(&key, &above).unwrap();
    assert!(
        request
            .windows(65)
            .any(|bytes| bytes == key.public_key_raw())
    );

    let opened = Root::open(&certificate.pem(), &key.serialize_pem(), None).unwrap();
    assert_eq!(
        opened.certificate_pem(),
        certificate.pem().replace("\r\n", "\n")
    );
    let issuing = opened.create_issuing(MESH, NOW).unwrap();
    // Its key identifier is what other tools look for the issuer by.
    let read = x509_cert::Certificate::from_der(&ders(&issuing.certificate_pem())[0]).unwrap();
    let by = read
        .tbs_certificate()
        .get_extension::<AuthorityKeyIdentifier>();
    let (_, by) = by.unwrap().unwrap();
    assert_eq!(by.key_identifier.unwrap().as_bytes(), [1, 2, 3]);
    let roots = Roots::from_pem(certificate.pem().as_bytes()).unwrap();
    let chain = ders(&issuing.issue_node(MESH, &node("n1"), NOW).unwrap().cert);
    assert!(roots.check_chain(&chain[0], &chain[1..], NOW, MESH).is_ok());
    assert!(opened.issue_person(MESH, "ana", Role::Admin, NOW).is_ok());

    let plain = named("Example Corp").signed_by(&key, &above).unwrap();
    let refused = Root::open(&plain.pem(), &key.serialize_pem(), None);
    assert!(matches!(refused, Err(PkiError::NotAuthority(_))));
}
