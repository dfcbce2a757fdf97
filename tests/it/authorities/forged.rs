//! What says that the mesh has other authorities is believed by a good signature of the root or of the
//! recovery key, and by nothing that only looks like one.

use crate::access::now_s;
use cbagent::adapters::roster::{Signed, Untrusted, signature_message};
use cbddc_domain::access::Role;
use cbddc_domain::mesh::{Environment, Member, MeshFile};
use cbddc_domain::roster::{Author, Roster, Says, Statement, Subject, TrustEntry};
use cbddc_pki::authority::{Issued, Root};
use cbddc_pki::certificate::from_pem;
use cbddc_pki::recovery::RecoveryKey;
use cbddc_pki::signature::{Roots, Signature, Signer};
use cbddc_proto::convert::roster::{statement_bytes, statement_message};
use cbddc_proto::v1;
use std::sync::Arc;

/// What a member of the mesh knows.
struct Ground {
    root: Root,
    paper: RecoveryKey,
    signed: Signed,
}

fn ground() -> Ground {
    let root = Root::create("shop", now_s()).expect("a root");
    let paper = RecoveryKey::generate().expect("a key");
    let spki = paper.public_spki();
    let recovery = spki.iter().map(|byte| format!("{byte:02x}")).collect();
    let file = MeshFile {
        name: "shop".into(),
        environment: Environment::Production,
        recovery: Some(recovery),
        voters: None,
        members: vec![Member::new("n1".parse().expect("a name"), "10.0.0.1:7443")],
    };
    let signed = Signed {
        roots: Arc::new(roots(&root)),
        mesh: "shop".into(),
        former: None,
        roster: Arc::new(Roster::new(file)),
    };
    Ground {
        root,
        paper,
        signed,
    }
}

fn roots(root: &Root) -> Roots {
    Roots::from_pem(root.certificate_pem().as_bytes()).expect("a root")
}

fn ders(root: &Root) -> Vec<Vec<u8>> {
    from_pem(root.certificate_pem().as_bytes()).expect("PEM")
}

/// "From now on that root counts".
fn names(root: &Root) -> Vec<u8> {
    statement_bytes(&Statement {
        mesh: "shop".into(),
        subject: Subject::Trust,
        version: 1,
        says: Says::Trust(TrustEntry {
            roots: ders(root),
            former: Vec::new(),
        }),
        reason: String::new(),
    })
}

fn message(bytes: &[u8], signature: Signature, second: Option<Signature>) -> v1::SignedStatement {
    v1::SignedStatement {
        statement: bytes.to_vec().into(),
        signature: Some(signature_message(signature)),
        grant: None,
        second: second.map(signature_message),
    }
}

fn signer(issued: &Issued) -> Signer {
    Signer::from_pem(issued.cert.as_bytes(), issued.key.as_bytes()).expect("a pair")
}

fn by_root(root: &Root, bytes: &[u8]) -> Signature {
    let signer = root.signer().expect("it signs");
    signer.sign(&statement_message(bytes))
}

fn by_paper(paper: &RecoveryKey, bytes: &[u8]) -> Signature {
    Signature {
        chain: Vec::new(),
        bytes: paper.sign(&statement_message(bytes)),
    }
}

/// The same with one byte changed.
fn changed(mut signature: Signature) -> Signature {
    let last = signature.bytes.last_mut().expect("a signature");
    *last ^= 1;
    signature
}

impl Ground {
    /// Who said it, and whether a member goes by it.
    fn said(&self, message: &v1::SignedStatement) -> Result<Author, Untrusted> {
        let said = self.signed.said(message)?;
        let author = said.author.clone();
        Roster::clone(&self.signed.roster).offer(said)?;
        Ok(author)
    }

    #[track_caller]
    fn refused(&self, what: &str, message: &v1::SignedStatement) {
        let said = self.said(message);
        assert!(said.is_err(), "{what}: believed as of {said:?}");
    }
}

#[test]
fn other_authorities_are_believed_by_a_good_signature_alone() {
    let ground = ground();
    let newer = Root::create("shop", now_s()).expect("a root");
    let bytes = names(&newer);
    let good = message(&bytes, by_root(&ground.root, &bytes), None);
    assert_eq!(ground.said(&good).expect("the root"), Author::Root);
    let good = message(&bytes, by_paper(&ground.paper, &bytes), None);
    assert_eq!(ground.said(&good).expect("the paper"), Author::Recovery);

    let thief = Root::create("shop", now_s()).expect("a root");
    let stolen = names(&thief);
    let root = by_root(&ground.root, &bytes);
    ground.refused("another statement", &message(&stolen, root.clone(), None));
    ground.refused("another signature", &message(&bytes, changed(root), None));
    // The certificate of the root, which everybody has, and a key of one's own.
    let worn = Signature {
        chain: ders(&ground.root),
        ..by_root(&thief, &stolen)
    };
    ground.refused("the root's certificate", &message(&stolen, worn, None));
    ground.refused(
        "another root",
        &message(&stolen, by_root(&thief, &stolen), None),
    );
    let paper = by_paper(&ground.paper, &bytes);
    ground.refused(
        "the paper of another",
        &message(&stolen, paper.clone(), None),
    );
    ground.refused("a changed paper", &message(&bytes, changed(paper), None));
    let other = RecoveryKey::generate().expect("a key");
    ground.refused(
        "another paper",
        &message(&stolen, by_paper(&other, &stolen), None),
    );

    // People and hosts, whose signatures are good, may not say it.
    let issuing = ground
        .root
        .create_issuing("shop", now_s())
        .expect("an issuer");
    let host = issuing.issue_node("shop", &"n1".parse().expect("a name"), now_s());
    let admin = ground
        .root
        .issue_person("shop", "ana", Role::Admin, now_s());
    for issued in [host, admin] {
        let signer = signer(&issued.expect("a certificate"));
        let signature = signer.sign(&statement_message(&bytes));
        ground.refused("not the root", &message(&bytes, signature, None));
    }
}

/// A rotation is signed by the new root, and by the old one for those who know no other.
#[test]
fn the_second_signature_is_as_good_as_the_first_and_no_worse() {
    let ground = ground();
    let newer = Root::create("shop", now_s()).expect("a root");
    let bytes = names(&newer);
    let (first, second) = (by_root(&newer, &bytes), by_root(&ground.root, &bytes));
    let both = |second| message(&bytes, first.clone(), Some(second));
    let author = ground.said(&both(second.clone()));
    assert_eq!(author.expect("the root that it knows"), Author::Root);
    ground.refused("a changed one", &both(changed(second)));
    ground.refused("the same again", &both(first.clone()));
    ground.refused("none", &message(&bytes, first.clone(), None));
    let thief = Root::create("shop", now_s()).expect("a root");
    ground.refused("a stranger's", &both(by_root(&thief, &bytes)));
}
