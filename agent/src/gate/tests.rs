//! What the gate says to what it may see, as a table; and that it waits no longer than it is told.

use super::{Current, Lookout, Permit, Sight, Verdict, decide, wait_for_verdict};
use cbddc_domain::build::Digest;
use cbddc_domain::time::BootId;
use std::collections::BTreeSet;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Start,
    Unverified,
    Wait,
    Refuse,
}
use Said::{Refuse, Start, Unverified, Wait};

fn said(sight: &Sight, over: bool) -> Said {
    match decide(sight, over) {
        Verdict::Start => Start,
        Verdict::StartUnverified(_) => Unverified,
        Verdict::Wait => Wait,
        Verdict::Refuse(_) => Refuse,
    }
}

fn boot(name: &str) -> BootId {
    BootId(name.to_owned())
}

fn permit(boot_id: &str, build: Option<Digest>) -> Option<Permit> {
    Some(Permit {
        boot_id: boot(boot_id),
        build,
    })
}

#[test]
fn what_is_said_to_what_is_seen() {
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    let on_a = Current::Build(a);
    // current, permit, revoked: with the agent in time, with the agent too late, without the agent.
    let table = [
        (on_a, permit("now", Some(a)), None, [Start, Start, Start]),
        (on_a, None, None, [Wait, Unverified, Unverified]),
        // A permit of another boot or for another build is none.
        (
            on_a,
            permit("old", Some(a)),
            None,
            [Wait, Unverified, Unverified],
        ),
        (
            on_a,
            permit("now", Some(b)),
            None,
            [Wait, Unverified, Unverified],
        ),
        // The agent has stopped the node: while it lives, it alone starts it.
        (on_a, permit("now", None), None, [Wait, Refuse, Unverified]),
        (
            on_a,
            permit("old", None),
            None,
            [Wait, Unverified, Unverified],
        ),
        // A revocation beats everything, a permit too.
        (on_a, None, Some(a), [Refuse, Refuse, Refuse]),
        (
            on_a,
            permit("now", Some(a)),
            Some(a),
            [Refuse, Refuse, Refuse],
        ),
        // One of another build does not matter.
        (on_a, permit("now", Some(a)), Some(b), [Start, Start, Start]),
        (on_a, None, Some(b), [Wait, Unverified, Unverified]),
        // Nothing was activated yet: the node is what it was before the agent came.
        (Current::Nothing, None, None, [Unverified; 3]),
        (
            Current::Nothing,
            permit("now", Some(a)),
            Some(a),
            [Unverified; 3],
        ),
        // What cannot be read must not keep a node down.
        (
            Current::Unreadable,
            None,
            Some(a),
            [Wait, Unverified, Unverified],
        ),
        (
            Current::Unreadable,
            permit("now", Some(a)),
            None,
            [Wait, Unverified, Unverified],
        ),
    ];
    for (current, permit, revoked, [in_time, too_late, alone]) in table {
        let mut sight = Sight {
            current,
            permit,
            boot: Some(boot("now")),
            agent_lives: true,
            revoked: revoked.into_iter().collect(),
        };
        assert_eq!(said(&sight, false), in_time, "in time: {sight:?}");
        assert_eq!(said(&sight, true), too_late, "too late: {sight:?}");
        sight.agent_lives = false;
        assert_eq!(said(&sight, false), alone, "alone: {sight:?}");
        assert_eq!(said(&sight, true), alone, "alone and late: {sight:?}");
    }
}

#[test]
fn without_a_boot_id_no_permit_is_valid() {
    let a = Digest::of(b"a");
    let sight = Sight {
        current: Current::Build(a),
        permit: permit("now", Some(a)),
        boot: None,
        agent_lives: true,
        revoked: BTreeSet::new(),
    };
    assert_eq!(said(&sight, false), Wait);
}

/// An agent that gives its permit, or dies, after some time.
struct Played {
    time: Duration,
    permit_at: Option<Duration>,
    dies_at: Option<Duration>,
    alive: bool,
    calls: u32,
    waited: bool,
}

impl Lookout for Played {
    fn look(&mut self, call: bool) -> Sight {
        let build = Digest::of(b"a");
        if call {
            self.calls += 1;
            self.alive = self.dies_at.is_none_or(|at| self.time < at);
        }
        Sight {
            current: Current::Build(build),
            permit: permit("now", Some(build))
                .filter(|_| self.permit_at.is_some_and(|at| self.time >= at)),
            boot: Some(boot("now")),
            agent_lives: self.alive,
            revoked: BTreeSet::new(),
        }
    }

    fn pause(&mut self, time: Duration) {
        self.time += time;
    }

    fn passed(&self) -> Duration {
        self.time
    }

    fn has_waited(&self) -> bool {
        self.waited
    }

    fn note_waited(&mut self) {
        self.waited = true;
    }
}

#[test]
fn it_waits_for_a_permit_but_not_for_ever_nor_for_the_dead() {
    let seconds = |number: u64| Some(Duration::from_secs(number));
    let budget = Duration::from_secs(75);
    for (permit_at, dies_at, said, at_least, at_most) in [
        (seconds(3), None, Verdict::Start, 3_000, 3_100),
        (
            None,
            None,
            Verdict::StartUnverified("the agent did not give its permit in time"),
            75_000,
            75_100,
        ),
        (
            None,
            seconds(5),
            Verdict::StartUnverified("the agent does not run"),
            5_000,
            6_100,
        ),
    ] {
        let mut played = Played {
            time: Duration::ZERO,
            permit_at,
            dies_at,
            alive: true,
            calls: 0,
            waited: false,
        };
        assert_eq!(wait_for_verdict(&mut played, budget), said);
        let ms = played.time.as_millis();
        assert!((at_least..=at_most).contains(&ms), "{said:?} after {ms} ms");
        assert!(
            played.calls <= 76,
            "the agent was called {} times",
            played.calls
        );
        // The next start of this boot does not wait for the same silent agent again.
        let in_vain = permit_at.is_none() && dies_at.is_none();
        assert_eq!(played.waited, in_vain, "{said:?}");
        if in_vain {
            played.time = Duration::ZERO;
            assert_eq!(wait_for_verdict(&mut played, budget), said);
            assert_eq!(played.time, Duration::ZERO);
        }
    }
}
