//! How a statement spreads over large meshes, and what it costs: the exchange by digest among 10, 100
//! and 1,000 members, in rounds in which each member asks one other that it draws at random.

use cbddc_domain::access::Role;
use cbddc_domain::build::Digest;
use cbddc_domain::mesh::{Environment, Member, MeshFile};
use cbddc_domain::roster::{Author, MemberEntry, Roster, Said, Says, Statement, Subject};
use cbddc_proto::convert::roster::{listed, statement_bytes};
use cbddc_proto::v1;
use prost::Message as _;
use std::collections::BTreeMap;

/// Bytes of a signature with its certificate, as they are measured on a real mesh.
const SIGNATURE_BYTES: usize = 620;

/// Draws numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % bound
    }
}

fn file() -> MeshFile {
    MeshFile {
        name: "shop".into(),
        environment: Environment::Production,
        recovery: None,
        voters: None,
        members: vec![Member::new("m0".parse().expect("a name"), "10.0.0.1:7443")],
    }
}

fn said(member: usize, version: u64) -> Said {
    let name = format!("m{member}");
    let statement = Statement {
        mesh: "shop".into(),
        subject: Subject::Member(name.parse().expect("a name")),
        version,
        says: Says::Member(MemberEntry {
            address: format!("10.0.{}.{}:7443", member / 250, member % 250 + 1),
            labels: BTreeMap::from([("role".to_owned(), "till".to_owned())]),
            required: false,
            key: Some(Digest::of(name.as_bytes())),
        }),
        reason: String::new(),
    };
    Said {
        digest: Digest::of(&statement_bytes(&statement)),
        statement,
        author: Author::Person {
            name: "ana".into(),
            role: Role::Admin,
            key: Digest::of(b"ana"),
        },
        grant: None,
    }
}

/// One member asks another; returns the bytes of both directions.
fn exchange(members: &mut [Roster], asker: usize, answerer: usize) -> usize {
    let digest = |roster: &Roster| roster.digest().as_bytes().to_vec();
    let (own, theirs) = (&members[asker], &members[answerer]);
    let request = v1::ExchangeRequest {
        roster: digest(own).into(),
        register: vec![7; 32].into(),
    };
    let same = own.digest() == theirs.digest();
    let answer = v1::ExchangeResponse {
        buckets: if same { Vec::new() } else { theirs.buckets() },
        same_register: true,
        ..v1::ExchangeResponse::default()
    };
    let mut bytes = request.encoded_len() + answer.encoded_len();
    if same {
        return bytes;
    }
    let differing = own.differing(&answer.buckets);
    let listing = own.listing(&differing);
    let asked = v1::GetStatementsRequest {
        buckets: differing
            .iter()
            .map(|bucket| u32::try_from(*bucket).expect("64"))
            .collect(),
        held: listed(&listing),
    };
    let lacking: Vec<Said> = theirs
        .lacking(&differing, &listing)
        .into_iter()
        .cloned()
        .collect();
    bytes += asked.encoded_len();
    for said in lacking {
        bytes += statement_bytes(&said.statement).len() + SIGNATURE_BYTES;
        members[asker].offer(said).expect("an admin's");
    }
    bytes
}

/// What a mesh of one size costs.
struct Cost {
    /// Bytes per member and round while nothing is new.
    quiet: usize,
    /// The same while a statement spreads, on average.
    busy: usize,
    /// Rounds until everybody has it.
    rounds: usize,
}

fn measure(size: usize) -> Cost {
    let mut full = Roster::new(file());
    for member in 0..size {
        full.offer(said(member, 1)).expect("an admin's");
    }
    let mut members = vec![full; size];
    let mut dice = Dice(42);
    let mut round = |members: &mut Vec<Roster>| {
        let mut bytes = 0;
        for asker in 0..size {
            let other = (asker + 1 + dice.below(size - 1)) % size;
            bytes += exchange(members, asker, other);
        }
        bytes / size
    };
    let quiet = round(&mut members);
    members[0].offer(said(3, 2)).expect("an admin's");
    let (mut busy, mut rounds) = (0, 0);
    let wanted = members[0].digest();
    while members.iter().any(|member| member.digest() != wanted) {
        busy += round(&mut members);
        rounds += 1;
        assert!(rounds < 100, "it does not arrive");
    }
    Cost {
        quiet,
        busy: busy / rounds,
        rounds,
    }
}

#[test]
fn a_round_costs_the_same_in_a_mesh_of_10_and_of_1000() {
    let costs = [10, 100, 1000].map(|size| (size, measure(size)));
    for (size, cost) in &costs {
        println!(
            "{size} members: {} bytes per member and round while nothing is new, {} while a statement \
             spreads, which takes {} rounds",
            cost.quiet, cost.busy, cost.rounds
        );
        // Asking alone spreads it like an epidemic: a few rounds more than the logarithm.
        let logarithm = size.ilog2() as usize;
        assert!(
            cost.rounds <= 2 * logarithm + 6,
            "{size}: {} rounds",
            cost.rounds
        );
    }
    let (_, small) = &costs[0];
    for (size, cost) in &costs[1..] {
        assert_eq!(cost.quiet, small.quiet, "{size} members");
        assert!(
            cost.busy <= 3 * small.busy,
            "{size}: {} beside {}",
            cost.busy,
            small.busy
        );
    }
}
