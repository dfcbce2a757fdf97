//! Every event that the watch has seen, each row once. Views become lists of numbers, so that the
//! rules compare numbers and a row is hashed once, however many nodes show it and however often.

use crate::oplog::{HashCheck, Operation, OplogEntry, check_hash};
use std::collections::HashMap;

/// How many different rows of one event are told apart; beyond that the last one stands for all.
const VARIANTS_MAX: usize = 8;

/// The number of the empty hash.
pub(super) const NO_HASH: u32 = 0;

/// Texts as numbers, in the order in which they were first seen.
#[derive(Debug, Default)]
pub(super) struct Interner {
    numbers: HashMap<String, u32>,
    texts: Vec<String>,
}

impl Interner {
    pub(super) fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        self.numbers.insert(text.to_owned(), number);
        self.texts.push(text.to_owned());
        number
    }

    pub(super) fn find(&self, text: &str) -> Option<u32> {
        self.numbers.get(text).copied()
    }

    pub(super) fn text(&self, number: u32) -> &str {
        self.texts.get(number as usize).map_or("", String::as_str)
    }

    pub(super) fn len(&self) -> usize {
        self.texts.len()
    }

    pub(super) fn texts(&self) -> &[String] {
        &self.texts
    }
}

/// One event: what an origin wrote at one moment.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) origin: u32,
    pub(super) moment: (i64, i32),
    pub(super) collection: u32,
    pub(super) key: String,
    /// The different rows that nodes show for it; one, unless something is wrong.
    pub(super) rows: Vec<u32>,
}

/// What some node shows for an event, hash and previous hash put right if they were exchanged.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) event: u32,
    pub(super) hash: u32,
    pub(super) previous: u32,
    pub(super) check: HashCheck,
    operation: Operation,
    raw: [String; 4],
}

impl Row {
    fn is(&self, entry: &OplogEntry) -> bool {
        let [collection, key, hash, previous] = &self.raw;
        *hash == entry.hash
            && *previous == entry.previous_hash
            && *key == entry.key
            && *collection == entry.collection
            && self.operation == entry.operation
    }
}

/// All rows, numbered.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) origins: Interner,
    pub(super) collections: Interner,
    pub(super) hashes: Interner,
    pub(super) events: Vec<Event>,
    pub(super) rows: Vec<Row>,
    /// Per origin: some row follows the rule of 0.8.3, which needs payloads to be checked.
    legacy: Vec<bool>,
    /// Some row, of any origin, follows the rule of today.
    any_verified: bool,
    index: HashMap<(u32, i64, i32), u32>,
}

impl Ledger {
    pub(super) fn new() -> Self {
        let mut hashes = Interner::default();
        // The first number is `NO_HASH`.
        hashes.number("");
        Self {
            origins: Interner::default(),
            collections: Interner::default(),
            hashes,
            events: Vec::new(),
            rows: Vec::new(),
            legacy: Vec::new(),
            any_verified: false,
            index: HashMap::new(),
        }
    }

    /// The number of the row, which is new or was seen before.
    pub(super) fn note(&mut self, entry: &OplogEntry) -> u32 {
        let origin = self.origins.number(&entry.hlc.node);
        let key = (origin, entry.hlc.wall, entry.hlc.logic);
        let event = match self.index.get(&key) {
            Some(event) => *event,
            None => self.new_event(key, entry),
        };
        let rows = &self.events[event as usize].rows;
        if let Some(row) = rows.iter().find(|row| self.rows[**row as usize].is(entry)) {
            return *row;
        }
        if rows.len() >= VARIANTS_MAX {
            return rows[rows.len() - 1];
        }
        self.new_row(event, origin, entry)
    }

    /// The event of an origin at a moment, if any node showed it in any round.
    pub(super) fn find(&self, origin: u32, (wall, logic): (i64, i32)) -> Option<u32> {
        self.index.get(&(origin, wall, logic)).copied()
    }

    fn new_event(&mut self, key: (u32, i64, i32), entry: &OplogEntry) -> u32 {
        let event = u32::try_from(self.events.len()).unwrap_or(u32::MAX);
        self.events.push(Event {
            origin: key.0,
            moment: (key.1, key.2),
            collection: self.collections.number(&entry.collection),
            key: entry.key.clone(),
            rows: Vec::new(),
        });
        self.index.insert(key, event);
        event
    }

    fn new_row(&mut self, event: u32, origin: u32, entry: &OplogEntry) -> u32 {
        let check = check_hash(entry);
        let (hash, previous) = if check == HashCheck::Swapped {
            (&entry.previous_hash, &entry.hash)
        } else {
            (&entry.hash, &entry.previous_hash)
        };
        let row = u32::try_from(self.rows.len()).unwrap_or(u32::MAX);
        self.rows.push(Row {
            event,
            hash: self.hashes.number(hash),
            previous: self.hashes.number(previous),
            check,
            operation: entry.operation,
            raw: [
                entry.collection.clone(),
                entry.key.clone(),
                entry.hash.clone(),
                entry.previous_hash.clone(),
            ],
        });
        self.legacy.resize(self.origins.len(), false);
        self.legacy[origin as usize] |= check == HashCheck::MatchesLegacyRule;
        self.any_verified |= check == HashCheck::Matches;
        self.events[event as usize].rows.push(row);
        row
    }

    pub(super) fn event_of(&self, row: u32) -> &Event {
        &self.events[self.rows[row as usize].event as usize]
    }

    /// True when the row's hash differs although this mesh's hashes can be checked. Views carry no
    /// payloads, without which the hashes of 0.8.3 and 0.8.4 cannot.
    pub(super) fn is_tampered(&self, row: u32) -> bool {
        self.rows[row as usize].check == HashCheck::Differs
            && self.any_verified
            && !self.legacy[self.event_of(row).origin as usize]
    }

    /// The numbers of all events, the earliest first.
    pub(super) fn in_order(&self) -> Vec<u32> {
        let mut order: Vec<u32> = (0..).take(self.events.len()).collect();
        order.sort_by_key(|event| {
            let event = &self.events[*event as usize];
            (event.moment, event.origin)
        });
        order
    }
}
