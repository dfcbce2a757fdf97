//! Who is believed, and that members that heard the same hold the same.

use super::rules::Distrust;
use super::{
    Author, Grant, MemberEntry, Merge, Roster, Said, Says, Standing, Statement, Subject,
    TrustEntry, UserEntry,
};
use crate::access::Role;
use crate::build::Digest;
use crate::id::NodeName;
use crate::mesh::{Environment, Member, MeshFile};
use std::collections::BTreeMap;

fn name(text: &str) -> NodeName {
    text.parse().expect("a name")
}

fn key(of: &str) -> Digest {
    Digest::of(of.as_bytes())
}

fn genesis() -> MeshFile {
    let mut issuer = Member::new(name("n1"), "10.0.0.1:7443");
    issuer.labels.insert("issuer".into(), "yes".into());
    MeshFile {
        name: "shop".into(),
        environment: Environment::Production,
        recovery: None,
        voters: None,
        members: vec![issuer, Member::new(name("n2"), "10.0.0.2:7443")],
    }
}

fn person(who: &str, role: Role) -> Author {
    Author::Person {
        name: who.into(),
        role,
        key: key(who),
    }
}

fn agent(which: &str) -> Author {
    Author::Agent {
        name: name(which),
        key: key(which),
    }
}

fn entry(of: &str) -> MemberEntry {
    MemberEntry {
        address: "10.0.0.9:7443".into(),
        labels: BTreeMap::new(),
        required: true,
        key: Some(key(of)),
    }
}

fn said(subject: Subject, version: u64, says: Says, author: Author) -> Said {
    let statement = Statement {
        mesh: "shop".into(),
        subject,
        version,
        says,
        reason: "because".into(),
    };
    let digest = Digest::of(format!("{statement:?}{author:?}").as_bytes());
    Said {
        statement,
        author,
        grant: None,
        digest,
    }
}

fn member(of: &str, version: u64, says: Says, author: Author) -> Said {
    said(Subject::Member(name(of)), version, says, author)
}

fn user(of: &str, version: u64, says: Says, author: Author) -> Said {
    said(Subject::User(of.into()), version, says, author)
}

fn grant(host: Option<&str>, replaces: bool) -> Grant {
    Grant {
        mesh: "shop".into(),
        issuer: name("n1"),
        secret: key("secret"),
        uses: 1,
        until_wall_ms: 0,
        host: host.map(name),
        replaces,
        labels: BTreeMap::new(),
        required: true,
    }
}

fn admitted(of: &str, by: &str, grant: Option<(Grant, Author)>) -> Said {
    Said {
        grant,
        ..member(of, 1, Says::Member(entry(of)), agent(by))
    }
}

#[track_caller]
fn check(before: &[Said], offered: Said, expected: Result<Merge, &str>) {
    let mut roster = Roster::new(genesis());
    for said in before {
        roster
            .offer(said.clone())
            .expect("what stood before is believed");
    }
    let held = roster.clone();
    let outcome = roster.offer(offered);
    match (&outcome, expected) {
        (Ok(merge), Ok(wanted)) => assert_eq!(*merge, wanted),
        (Err(fault), Err(words)) => {
            assert!(fault.to_string().contains(words), "{fault}");
            assert_eq!(roster, held, "a refusal changes nothing");
        }
        _ => panic!("{outcome:?}, not {expected:?}"),
    }
}

fn ana() -> Author {
    person("ana", Role::Admin)
}

fn a_user(of: &str) -> Says {
    Says::User(UserEntry {
        role: Role::Operator,
        key: key(of),
    })
}

#[test]
fn admins_say_who_is_in_and_nobody_else_does() {
    let new = |author| member("n9", 1, Says::Member(entry("n9")), author);
    check(&[], new(ana()), Ok(Merge::News));
    for role in [Role::Viewer, Role::Operator, Role::Approver] {
        check(&[], new(person("bob", role)), Err("only admins may"));
        let removal = member("n2", 1, Says::Removed, person("bob", role));
        check(&[], removal, Err("only admins may"));
        check(
            &[],
            user("eve", 1, a_user("eve"), person("bob", role)),
            Err("only admins may"),
        );
    }
    check(&[], new(agent("n2")), Err("only admins and issuers may"));
    check(
        &[],
        member("n1", 1, Says::Removed, agent("n2")),
        Err("takes nobody out"),
    );
    check(
        &[],
        user("ana", 1, Says::Removed, agent("n1")),
        Err("agents say nothing of people"),
    );
    check(&[], new(Author::Recovery), Err("only admins may"));
    check(
        &[],
        user("eve", 1, a_user("eve"), Author::Recovery),
        Ok(Merge::News),
    );
}

#[test]
fn authorities_are_named_by_root_and_recovery_key_alone() {
    let trust = |author| {
        let entry = TrustEntry {
            roots: vec![vec![1]],
            former: Vec::new(),
        };
        said(Subject::Trust, 1, Says::Trust(entry), author)
    };
    check(&[], trust(Author::Root), Ok(Merge::News));
    check(&[], trust(Author::Recovery), Ok(Merge::News));
    check(&[], trust(ana()), Err("only the root authority"));
    check(&[], trust(agent("n1")), Err("only the root authority"));
    let none = TrustEntry {
        roots: Vec::new(),
        former: vec![vec![1]],
    };
    check(
        &[],
        said(Subject::Trust, 1, Says::Trust(none), Author::Root),
        Err("malformed"),
    );
    check(
        &[],
        said(Subject::Trust, 1, Says::Removed, Author::Root),
        Err("malformed"),
    );
}

#[test]
fn an_issuer_admits_what_an_admin_granted_and_no_more() {
    let by_ana = |grant| Some((grant, ana()));
    check(
        &[],
        admitted("n9", "n1", by_ana(grant(None, false))),
        Ok(Merge::News),
    );
    check(
        &[],
        admitted("n9", "n1", by_ana(grant(Some("n9"), false))),
        Ok(Merge::News),
    );
    check(
        &[],
        admitted("n9", "n1", None),
        Err("needs an admin's grant"),
    );
    check(
        &[],
        admitted("n9", "n2", by_ana(grant(None, false))),
        Err("only admins and issuers"),
    );
    check(
        &[],
        admitted("n9", "n1", by_ana(grant(Some("n8"), false))),
        Err("another host"),
    );
    let others = Some((grant(None, false), person("bob", Role::Operator)));
    check(
        &[],
        admitted("n9", "n1", others),
        Err("not signed by an admin"),
    );
    let foreign = Grant {
        mesh: "barn".into(),
        ..grant(None, false)
    };
    check(
        &[],
        admitted("n9", "n1", by_ana(foreign)),
        Err("another mesh"),
    );
    let optional = Grant {
        required: false,
        ..grant(None, false)
    };
    check(
        &[],
        admitted("n9", "n1", by_ana(optional)),
        Err("more than the grant"),
    );
    let out = user("ana", 1, Says::Removed, person("bea", Role::Admin));
    check(
        &[out],
        admitted("n9", "n1", by_ana(grant(None, false))),
        Err("not signed by an admin"),
    );
}

#[test]
fn a_name_is_taken_over_only_where_an_admin_said_so() {
    let by_ana = |grant| Some((grant, ana()));
    let again = |grant| Said {
        grant: by_ana(grant),
        ..member("n2", 2, Says::Member(entry("another disk")), agent("n1"))
    };
    let held = member("n2", 1, Says::Member(entry("n2")), ana());
    check(
        std::slice::from_ref(&held),
        again(grant(None, false)),
        Err("mesh replace"),
    );
    check(
        std::slice::from_ref(&held),
        again(grant(Some("n2"), false)),
        Err("mesh replace"),
    );
    check(
        std::slice::from_ref(&held),
        again(grant(Some("n2"), true)),
        Ok(Merge::News),
    );
    // A name of the mesh file is taken too, and so is one that was taken out.
    check(&[], again(grant(None, false)), Err("mesh replace"));
    let out = member("n2", 1, Says::Removed, ana());
    check(&[out], again(grant(None, false)), Err("mesh replace"));
}

#[test]
fn a_host_that_joined_later_believes_who_joined_before() {
    let mut file = genesis();
    let mut earlier = Member::new(name("n9"), "10.0.0.9:7443");
    earlier.key = Some(key("n9"));
    file.members.push(earlier);
    let by_ana = Some((grant(None, false), ana()));
    let mut roster = Roster::new(file);
    assert_eq!(
        roster.standing_of_agent(&name("n9"), key("n9")),
        Standing::Good
    );
    assert_eq!(
        roster.standing_of_agent(&name("n9"), key("other")),
        Standing::Replaced
    );
    let other = Said {
        grant: by_ana.clone(),
        ..member("n9", 1, Says::Member(entry("other")), agent("n1"))
    };
    assert!(roster.offer(other).is_err(), "the name is taken");
    assert_eq!(roster.offer(admitted("n9", "n1", by_ana)), Ok(Merge::News));
}

#[test]
fn who_was_taken_out_is_heard_no_more() {
    let out = user("bob", 1, Says::Removed, ana());
    let bob = person("bob", Role::Admin);
    let new = member("n9", 1, Says::Member(entry("n9")), bob.clone());
    check(std::slice::from_ref(&out), new.clone(), Err("taken out"));
    check(
        std::slice::from_ref(&out),
        user("ana", 1, Says::Removed, bob),
        Err("taken out"),
    );
    // What was believed before stays.
    let mut roster = Roster::new(genesis());
    assert_eq!(roster.offer(new), Ok(Merge::News));
    assert_eq!(roster.offer(out), Ok(Merge::News));
    assert!(roster.member(&name("n9")).is_some());
    assert!(matches!(
        roster.standing_of_person("bob", key("bob")),
        Standing::Removed { .. }
    ));
    assert_eq!(roster.standing_of_person("ana", key("ana")), Standing::Good);
}

#[test]
fn the_higher_version_wins_and_removed_wins_ties() {
    let known = member("n9", 2, Says::Member(entry("n9")), ana());
    let removed = |version| member("n9", version, Says::Removed, ana());
    check(std::slice::from_ref(&known), removed(1), Ok(Merge::Known));
    check(std::slice::from_ref(&known), removed(2), Ok(Merge::News));
    check(
        std::slice::from_ref(&known),
        known.clone(),
        Ok(Merge::Known),
    );
    check(&[removed(2)], known, Ok(Merge::Known));
    check(&[], removed(0), Err("leaps"));
    check(&[], removed(2 << 20), Err("leaps"));
    let mut other = removed(1);
    other.statement.mesh = "barn".into();
    check(&[], other, Err("about the mesh barn"));
}

#[test]
fn keys_decide_who_a_name_is() {
    let mut roster = Roster::new(genesis());
    let n2 = name("n2");
    assert_eq!(roster.standing_of_agent(&n2, key("any")), Standing::Good);
    assert_eq!(
        roster.standing_of_agent(&name("n9"), key("n9")),
        Standing::Unknown
    );
    let held = member("n2", 1, Says::Member(entry("n2")), ana());
    roster.offer(held).expect("an admin's");
    assert_eq!(roster.standing_of_agent(&n2, key("n2")), Standing::Good);
    assert_eq!(
        roster.standing_of_agent(&n2, key("any")),
        Standing::Replaced
    );
    roster
        .offer(member("n2", 2, Says::Removed, ana()))
        .expect("an admin's");
    assert!(matches!(
        roster.standing_of_agent(&n2, key("n2")),
        Standing::Removed { .. }
    ));
    assert!(!roster.members().contains_key(&n2));
    let fault = roster.offer(admitted("n2", "n2", None));
    assert!(
        matches!(fault, Err(Distrust::Removed(_)) | Ok(Merge::Known)),
        "{fault:?}"
    );
}

#[test]
fn two_members_find_what_one_of_them_lacks() {
    let mut here = Roster::new(genesis());
    for index in 0..200 {
        let of = format!("till-{index}");
        here.offer(member(&of, 1, Says::Member(entry(&of)), ana()))
            .expect("an admin's");
    }
    let mut there = here.clone();
    assert_eq!(here.digest(), there.digest());
    here.offer(member("till-7", 2, Says::Removed, ana()))
        .expect("an admin's");
    assert_ne!(here.digest(), there.digest());
    let differing = here.differing(&there.buckets());
    assert_eq!(differing.len(), 1, "one statement is in one bucket");
    let listing = there.listing(&differing);
    assert!(listing.len() < 30, "{} of 200 are listed", listing.len());
    let lacking: Vec<Said> = here
        .lacking(&differing, &listing)
        .into_iter()
        .cloned()
        .collect();
    assert_eq!(lacking.len(), 1);
    for said in lacking {
        assert_eq!(there.offer(said), Ok(Merge::News));
    }
    assert_eq!(here.digest(), there.digest());
    assert_eq!(here.differing(&there.buckets()), Vec::<usize>::new());
}

/// Where an authority was replaced, the roster alone vouches for a signer: for the very key and role
/// that were said, and for nobody of whom nothing was said.
#[test]
fn the_roster_names_only_the_very_key_that_was_said() {
    let mut roster = Roster::new(genesis());
    let role = Role::Admin;
    let user = Says::User(UserEntry {
        role,
        key: key("ana"),
    });
    for said in [
        said(Subject::User("ana".into()), 1, user, Author::Root),
        said(
            Subject::Member(name("n9")),
            1,
            Says::Member(entry("n9")),
            ana(),
        ),
        said(Subject::User("bea".into()), 1, Says::Removed, Author::Root),
    ] {
        roster.offer(said).expect("it is believed");
    }
    let other = |key| Author::Agent {
        name: name("n9"),
        key,
    };
    for (author, named) in [
        (person("ana", Role::Admin), true),
        (person("ana", Role::Operator), false),
        (person("bea", Role::Admin), false),
        (person("eva", Role::Admin), false),
        (agent("n9"), true),
        (other(key("n2")), false),
        // In the mesh file, and without a key there.
        (agent("n2"), false),
        (Author::Root, false),
        (Author::Recovery, false),
    ] {
        assert_eq!(roster.names(&author), named, "{author:?}");
    }
}
