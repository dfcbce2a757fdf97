//! One round in numbers: who holds which row how often, who wants it, and whose clock covers it.

use super::ledger::{Event, Ledger, NO_HASH};
use super::words::{list, plain, utc};
use super::{Accepted, PeerView};
use crate::id::NodeName;
use crate::oplog::HashCheck;
use std::collections::BTreeMap;

/// Wall and logic of an event.
pub(super) type Moment = (i64, i32);

/// One node's view, in the numbers of the ledger.
pub(super) struct Sight<'a> {
    pub(super) name: &'a NodeName,
    /// The watch's own number of the node, the same in every round.
    pub(super) number: u32,
    pub(super) view: &'a PeerView,
    /// Its rows, duplicates left out.
    pub(super) rows: Vec<u32>,
    /// How often it shows each row, event and hash.
    pub(super) of_row: Vec<u16>,
    pub(super) of_event: Vec<u16>,
    pub(super) of_hash: Vec<u16>,
    /// Per origin: the first and last moment that it holds, and its clock before it was read.
    pub(super) first: Vec<Option<Moment>>,
    pub(super) last: Vec<Option<Moment>>,
    pub(super) clock: Vec<Option<Moment>>,
    /// Per origin: it holds events without hash, so that its chains cannot be followed.
    pub(super) hashless: Vec<bool>,
    /// Per collection: whether it is interested.
    pub(super) wants: Vec<bool>,
    /// It lacked events before the rollout, and that is taken as it is.
    pub(super) is_excused: bool,
}

impl<'a> Sight<'a> {
    fn new(
        name: &'a NodeName,
        number: u32,
        view: &'a PeerView,
        shown: &[u32],
        ledger: &Ledger,
    ) -> Self {
        let origins = ledger.origins.len();
        let is_wanted =
            |collection: &String| view.interests.is_empty() || view.interests.contains(collection);
        let mut sight = Self {
            name,
            number,
            view,
            rows: Vec::with_capacity(shown.len()),
            of_row: vec![0; ledger.rows.len()],
            of_event: vec![0; ledger.events.len()],
            of_hash: vec![0; ledger.hashes.len()],
            first: vec![None; origins],
            last: vec![None; origins],
            clock: vec![None; origins],
            hashless: vec![false; origins],
            wants: ledger.collections.texts().iter().map(is_wanted).collect(),
            is_excused: false,
        };
        for (origin, moment) in &view.clock_before.0 {
            if let Some(origin) = ledger.origins.find(origin) {
                sight.clock[origin as usize] = Some(*moment);
            }
        }
        for row in shown {
            sight.take(*row, ledger);
        }
        sight
    }

    fn take(&mut self, number: u32, ledger: &Ledger) {
        let row = &ledger.rows[number as usize];
        let event = &ledger.events[row.event as usize];
        let origin = event.origin as usize;
        let count = |place: &mut u16| *place = place.saturating_add(1);
        if self.of_row[number as usize] == 0 {
            self.rows.push(number);
        }
        count(&mut self.of_row[number as usize]);
        count(&mut self.of_event[row.event as usize]);
        if row.hash == NO_HASH {
            self.hashless[origin] = true;
        } else {
            count(&mut self.of_hash[row.hash as usize]);
        }
        let moment = event.moment;
        let first = self.first[origin].get_or_insert(moment);
        *first = (*first).min(moment);
        let last = self.last[origin].get_or_insert(moment);
        *last = (*last).max(moment);
    }

    pub(super) fn holds(&self, event: u32) -> bool {
        self.of_event[event as usize] > 0
    }

    /// Whether the event belongs here.
    pub(super) fn wants(&self, event: &Event) -> bool {
        self.wants[event.collection as usize]
    }

    /// How far it has seen an origin: its clock, read before its events were, and where that names the
    /// origin not at all, as after some restarts, what its events say.
    pub(super) fn seen(&self, origin: u32) -> Option<Moment> {
        let origin = origin as usize;
        self.clock[origin].or(self.last[origin])
    }

    /// Whether it has seen the event, or a later one of the same origin.
    pub(super) fn covers(&self, event: &Event) -> bool {
        self.seen(event.origin)
            .is_some_and(|seen| seen >= event.moment)
    }

    /// True when an absent event or a missing link means something.
    pub(super) fn is_complete(&self) -> bool {
        !self.view.truncated
    }
}

/// What all nodes showed in one round.
pub(super) struct Table<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) sights: Vec<Sight<'a>>,
    /// All events, the earliest first.
    pub(super) order: Vec<u32>,
    /// Per origin: the sight of the node that writes it.
    writers: Vec<Option<usize>>,
    /// Per origin: the collections of all its events, without repetition.
    written: Vec<Vec<u32>>,
}

impl<'a> Table<'a> {
    /// `shown` are the rows of each view, as numbers of the ledger.
    pub(super) fn new(
        ledger: &'a Ledger,
        shown: &[(u32, &'a NodeName, &'a PeerView, Vec<u32>)],
        accepted: Option<&Accepted>,
    ) -> Self {
        let mut sights: Vec<Sight<'a>> = shown
            .iter()
            .map(|(number, name, view, rows)| Sight::new(name, *number, view, rows, ledger))
            .collect();
        for sight in &mut sights {
            sight.is_excused = accepted.is_some_and(|it| it.excuses(sight.name));
        }
        let mut writers = vec![None; ledger.origins.len()];
        for (place, sight) in sights.iter().enumerate() {
            if let Some(origin) = ledger.origins.find(&sight.view.origin) {
                writers[origin as usize] = Some(place);
            }
        }
        let mut written: Vec<Vec<u32>> = vec![Vec::new(); ledger.origins.len()];
        for event in &ledger.events {
            let collections = &mut written[event.origin as usize];
            if !collections.contains(&event.collection) {
                collections.push(event.collection);
            }
        }
        Self {
            ledger,
            sights,
            order: ledger.in_order(),
            writers,
            written,
        }
    }

    pub(super) fn event(&self, event: u32) -> &Event {
        &self.ledger.events[event as usize]
    }

    /// The place of the node that wrote the event, if it was asked.
    pub(super) fn writer(&self, event: &Event) -> Option<usize> {
        self.writers[event.origin as usize]
    }

    /// Whether the node must hold the origin's whole chain: it wants all that the origin was seen to
    /// write, and that was seen at its writer. What else a writer that cannot be asked writes is not
    /// known.
    pub(super) fn is_owed_chain(&self, sight: &Sight<'_>, origin: u32) -> bool {
        let writer = self.writers[origin as usize].map(|place| &self.sights[place]);
        let written = &self.written[origin as usize];
        sight.view.interests.is_empty()
            || (writer.is_some_and(Sight::is_complete)
                && written.iter().all(|of| sight.wants[*of as usize]))
    }

    pub(super) fn origin_text(&self, event: &Event) -> &str {
        self.ledger.origins.text(event.origin)
    }

    /// Whoever writes under that id: the node's name in the mesh if it is known, else the id.
    pub(super) fn writer_name(&self, origin: &str) -> String {
        let known = self.sights.iter().find(|sight| sight.view.origin == origin);
        known.map_or_else(
            || format!("node \"{}\"", plain(origin)),
            |sight| sight.name.to_string(),
        )
    }

    /// `orders/17 written on n3 at 2026-…Z`.
    pub(super) fn describe(&self, event: u32) -> String {
        let event = self.event(event);
        format!(
            "{}/{} written on {} at {}",
            plain(self.ledger.collections.text(event.collection)),
            plain(&event.key),
            self.writer_name(self.origin_text(event)),
            utc(event.moment)
        )
    }

    /// The places of the nodes for which it is true.
    pub(super) fn those(&self, is_it: impl Fn(&Sight<'_>) -> bool) -> Vec<usize> {
        let places = self.sights.iter().enumerate();
        places
            .filter_map(|(place, sight)| is_it(sight).then_some(place))
            .collect()
    }

    /// The names of the nodes at these places, for a sentence.
    pub(super) fn names(&self, places: &[usize]) -> String {
        let names: Vec<&str> = places
            .iter()
            .map(|place| self.sights[*place].name.as_str())
            .collect();
        list(&names)
    }

    /// `n2 has it`, `n2 and n3 have it`, `no node has it`.
    pub(super) fn have_it(&self, places: &[usize]) -> String {
        match places {
            [] => "no node has it".to_owned(),
            [one] => format!("{} has it", self.sights[*one].name),
            many => format!("{} have it", self.names(many)),
        }
    }

    /// True when every node that should hold the event does, once, and all show the same.
    pub(super) fn has_arrived(&self, event: u32) -> bool {
        let it = self.event(event);
        let mut holders = 0;
        for sight in &self.sights {
            match sight.of_event[event as usize] {
                0 if sight.wants(it) && !sight.is_excused => return false,
                0 => {}
                1 => holders += 1,
                _ => return false,
            }
        }
        let alone = self.sights.len() == 1;
        (holders > 1 || (alone && holders == 1)) && self.is_sound(it)
    }

    /// True when the event has gone wherever it is wanted, whether or not anybody wants it.
    pub(super) fn is_settled(&self, event: u32) -> bool {
        let it = self.event(event);
        let mut held = false;
        for sight in &self.sights {
            held |= sight.holds(event);
            if sight.wants(it) && !sight.holds(event) && !sight.is_excused {
                return false;
            }
        }
        held
    }

    fn is_sound(&self, event: &Event) -> bool {
        let mut hash = NO_HASH;
        for row in event.rows.iter().filter(|row| self.is_shown(**row)) {
            let row = &self.ledger.rows[*row as usize];
            if row.check == HashCheck::Differs || (hash != NO_HASH && row.hash != hash) {
                return false;
            }
            hash = row.hash.max(hash);
        }
        true
    }

    /// True when some node shows the row in this round.
    pub(super) fn is_shown(&self, row: u32) -> bool {
        self.sights
            .iter()
            .any(|sight| sight.of_row[row as usize] > 0)
    }

    /// Per collection, how many events arrived everywhere exactly once.
    pub(super) fn moved(&self) -> BTreeMap<String, u64> {
        let mut counts = vec![0_u64; self.ledger.collections.len()];
        for event in &self.order {
            if self.has_arrived(*event) {
                counts[self.event(*event).collection as usize] += 1;
            }
        }
        let names = self.ledger.collections.texts().iter().cloned();
        names.zip(counts).filter(|(_, count)| *count > 0).collect()
    }
}
