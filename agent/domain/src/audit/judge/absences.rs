//! What each node lacks, and why: every event is accounted for on every node.

use super::{Event, Held, Judge, Variant, event};
use crate::audit::report::{EventFinding, NodeCount};
use crate::replication::FindingKind;

/// How many events that some node lacks are kept until the end. A node that lacks more has lost its
/// data, and the first ones say so.
const ABSENCES_MAX: usize = 100_000;

type Moment = (i64, i32);

/// An event that some nodes lack.
#[derive(Debug)]
struct Absence {
    event: Event,
    on: Vec<usize>,
    /// Sources that will not ask for it any more, as they have seen later ones.
    missed: Vec<usize>,
    /// Sources that had not got so far when it was looked at.
    awaited: Vec<usize>,
}

/// How far a source is with an origin.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// What its clock said.
    clock: Option<Moment>,
    /// The last event that it holds.
    held: Option<Moment>,
    /// How many events it lacks after that, and the last of them.
    open: u64,
    owed: Option<Moment>,
}

/// How far a source is with each origin, by the origin's number.
#[derive(Debug, Default)]
pub(super) struct SeenOf(Vec<Seen>);

impl SeenOf {
    fn of(&self, origin: u32) -> Seen {
        self.0.get(origin as usize).copied().unwrap_or_default()
    }

    fn place(&mut self, origin: u32) -> &mut Seen {
        let origin = origin as usize;
        if self.0.len() <= origin {
            self.0.resize(origin + 1, Seen::default());
        }
        &mut self.0[origin]
    }

    /// Adds how far the source is to what was counted of it. `texts` are the origins by number.
    pub(super) fn told(&self, mut count: NodeCount, texts: &[String]) -> NodeCount {
        for (seen, origin) in self.0.iter().zip(texts) {
            if let Some(held) = seen.held {
                count.latest.advance(origin, held);
            }
            if let Some(owed) = seen.owed.filter(|_| seen.open > 0) {
                count.owed.advance(origin, owed);
            }
        }
        count
    }
}

/// The last event of an origin that some clocks name.
#[derive(Debug)]
struct Top {
    moment: Moment,
    named_by: Vec<usize>,
    is_there: bool,
}

/// Who lacks what.
#[derive(Debug)]
pub(super) struct Absences {
    of: Vec<SeenOf>,
    /// By the origin's number.
    tops: Vec<Vec<Top>>,
    /// Sources of which not all rows were read.
    cut: Vec<usize>,
    kept: Vec<Absence>,
    /// The same where nobody misses it yet.
    awaited: Vec<Absence>,
}

impl Absences {
    pub(super) fn new(sources: usize) -> Self {
        Self {
            of: (0..sources).map(|_| SeenOf::default()).collect(),
            tops: Vec::new(),
            cut: Vec::new(),
            kept: Vec::new(),
            awaited: Vec::new(),
        }
    }

    pub(super) fn know_clock(&mut self, source: usize, origin: u32, moment: Moment) {
        self.of[source].place(origin).clock = Some(moment);
        let at = origin as usize;
        if self.tops.len() <= at {
            self.tops.resize_with(at + 1, Vec::new);
        }
        let tops = &mut self.tops[at];
        match tops.iter_mut().find(|top| top.moment == moment) {
            Some(top) => top.named_by.push(source),
            None => tops.push(Top {
                moment,
                named_by: vec![source],
                is_there: false,
            }),
        }
    }

    pub(super) fn trust_no_clock_of(&mut self, source: usize) {
        self.cut.push(source);
    }

    pub(super) fn into_seen(self) -> Vec<SeenOf> {
        self.of
    }

    /// Some source holds the event.
    fn see(&mut self, origin: u32, moment: Moment) {
        let tops = self.tops.get_mut(origin as usize);
        for top in tops.into_iter().flatten() {
            top.is_there |= top.moment == moment;
        }
    }

    /// The source holds an event of the origin; returns how many earlier ones it has missed with that.
    fn hold(&mut self, source: usize, origin: u32, moment: Moment) -> u64 {
        let seen = self.of[source].place(origin);
        seen.held = Some(moment);
        seen.owed = None;
        std::mem::take(&mut seen.open)
    }

    fn covers(&self, source: usize, origin: u32, moment: Moment) -> bool {
        let seen = self.of[source].of(origin);
        seen.clock.max(seen.held) >= Some(moment)
    }

    fn await_at(&mut self, source: usize, origin: u32, moment: Moment) {
        let seen = self.of[source].place(origin);
        seen.open += 1;
        seen.owed = Some(moment);
    }

    fn note(&mut self, absence: Absence) {
        let place = match absence.missed.is_empty() {
            true => &mut self.awaited,
            false => &mut self.kept,
        };
        if place.len() < ABSENCES_MAX {
            place.push(absence);
        }
    }
}

impl Judge {
    /// Accounts for the event on each node: it holds it, or lacks it and why.
    pub(super) fn account(&mut self, first: &Held<'_>, variants: &[Variant<'_>], counts: &[usize]) {
        let row = first.row;
        let (origin, moment) = (row.origin, (row.wall, row.logic));
        self.chains.note_collection(origin, row.collection);
        self.absences.see(origin, moment);
        let (mut missed, mut awaited) = (Vec::new(), Vec::new());
        for (source, count) in counts.iter().enumerate() {
            if *count > 0 {
                self.nodes[source].held += 1;
                let late = self.absences.hold(source, origin, moment);
                self.nodes[source].lacks.missed += late;
            } else if self.wants[source].get(&row.collection) != Some(&true) {
                self.nodes[source].lacks.unwanted += 1;
            } else if self.is_pruned(source, origin, moment) {
                self.nodes[source].lacks.pruned += 1;
            } else {
                for variant in variants {
                    self.chains.note_absent(source, variant.hash);
                }
                if self.absences.covers(source, origin, moment) {
                    self.nodes[source].lacks.missed += 1;
                    missed.push(source);
                } else {
                    self.absences.await_at(source, origin, moment);
                    awaited.push(source);
                }
            }
        }
        if missed.is_empty() && awaited.is_empty() {
            return;
        }
        let on = (0..counts.len()).filter(|source| counts[*source] > 0);
        let on = on.collect();
        self.absences.note(Absence {
            event: event(first),
            on,
            missed,
            awaited,
        });
    }

    /// What is missed, now that it is known how far each node is and what pruning took.
    pub(super) fn tell_absences(&mut self) {
        let kept = std::mem::take(&mut self.absences.kept);
        let awaited = std::mem::take(&mut self.absences.awaited);
        for absence in kept.into_iter().chain(awaited) {
            let (event, on) = (absence.event, absence.on);
            let (mut missed, origin) = (Vec::new(), event.origin);
            for source in absence.missed.into_iter().chain(absence.awaited) {
                let is_missed = self.absences.covers(source, origin, event.moment);
                if self.is_pruned(source, origin, event.moment) {
                    // Boundaries moved while rows were read.
                    let lacks = &mut self.nodes[source].lacks;
                    let counted = match is_missed {
                        true => &mut lacks.missed,
                        false => &mut lacks.behind,
                    };
                    *counted = counted.saturating_sub(1);
                    lacks.pruned += 1;
                } else if is_missed {
                    missed.push(source);
                }
            }
            if !missed.is_empty() {
                missed.sort_unstable();
                self.tell(FindingKind::Missed, &event, &on, &missed, String::new());
            }
        }
        self.tell_clocks_ahead();
    }

    /// Counts what is still open as behind; before the absences are told.
    pub(super) fn count_behind(&mut self) {
        for (seen, count) in self.absences.of.iter().zip(&mut self.nodes) {
            count.lacks.behind = seen.0.iter().map(|seen| seen.open).sum();
        }
    }

    /// Clocks that name an event which nobody holds.
    fn tell_clocks_ahead(&mut self) {
        let tops = std::mem::take(&mut self.absences.tops);
        for (origin, tops) in (0..).zip(tops) {
            for top in tops.into_iter().filter(|top| !top.is_there) {
                let moment = top.moment;
                let is_meant = |source: &usize| {
                    !self.absences.cut.contains(source)
                        && !self.is_pruned(*source, origin, moment)
                        && self.knows_writer(*source, origin)
                };
                let on: Vec<usize> = top.named_by.into_iter().filter(is_meant).collect();
                if on.is_empty() {
                    continue;
                }
                let on = on.into_iter().map(|source| self.name(source).to_owned());
                self.report.add(EventFinding {
                    kind: FindingKind::ClockAhead,
                    origin: self.origin(origin).to_owned(),
                    collection: String::new(),
                    key: String::new(),
                    wall: moment.0,
                    logic: moment.1,
                    on: on.collect(),
                    not_on: Vec::new(),
                    detail: "its clock names an event that is on no node that was read".to_owned(),
                });
            }
        }
    }
}
