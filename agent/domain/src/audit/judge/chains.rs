//! The chain of each origin, as each node shows it: gaps and forks.

use super::{Held, Judge, Loose, Variant, event};
use crate::audit::row::Link;
use crate::oplog::HashCheck;
use crate::replication::FindingKind;
use std::collections::{HashMap, HashSet};

/// Some event has the hash.
const KNOWN: u8 = 1;
/// Some event names it as the one before.
const FOLLOWED: u8 = 2;

/// How many loose links are kept until the end.
const LOOSE_MAX: usize = 100_000;

/// What one node showed last of one origin.
#[derive(Debug, Clone, Copy, Default)]
struct Chain {
    last: Option<Link>,
    /// It holds events without hash, so that its chain cannot be followed.
    is_hashless: bool,
}

/// The links that were seen.
#[derive(Debug)]
pub(super) struct Chains {
    seen: HashMap<u64, u8>,
    /// Per source: hashes of events that it should have and has not.
    absent: Vec<HashSet<u64>>,
    /// Per source and origin.
    of: Vec<HashMap<u32, Chain>>,
    /// Origins whose chain has begun.
    begun: HashSet<u32>,
    /// The collections of all events of an origin, by its number.
    written: Vec<Vec<u32>>,
    /// What is known of who writes under an id.
    writers: HashMap<String, Writer>,
}

/// Who writes under an id.
#[derive(Debug)]
enum Writer {
    /// A source: all that it writes is seen.
    Source,
    /// Somebody else, who declares these collections.
    Declares(Vec<String>),
}

impl Chains {
    pub(super) fn new(sources: usize) -> Self {
        Self {
            seen: HashMap::new(),
            absent: vec![HashSet::new(); sources],
            of: vec![HashMap::new(); sources],
            begun: HashSet::new(),
            written: Vec::new(),
            writers: HashMap::new(),
        }
    }

    pub(super) fn know_source(&mut self, origin: &str) {
        if !origin.is_empty() {
            self.writers.insert(origin.to_owned(), Writer::Source);
        }
    }

    pub(super) fn know_writer(&mut self, origin: &str, declares: &[String]) {
        let writer = || Writer::Declares(declares.to_owned());
        if !declares.is_empty() {
            self.writers.entry(origin.to_owned()).or_insert_with(writer);
        }
    }

    pub(super) fn note_collection(&mut self, origin: u32, collection: u32) {
        let at = origin as usize;
        if self.written.len() <= at {
            self.written.resize_with(at + 1, Vec::new);
        }
        if !self.written[at].contains(&collection) {
            self.written[at].push(collection);
        }
    }

    pub(super) fn know_origin(&mut self, origin: u32) {
        for chains in &mut self.of {
            chains.entry(origin).or_default();
        }
    }

    pub(super) fn note_absent(&mut self, source: usize, hash: Link) {
        let absent = &mut self.absent[source];
        if absent.len() < LOOSE_MAX && hash != Link::NONE {
            absent.insert(hash.short());
        }
    }

    fn is(&self, link: Link, what: u8) -> bool {
        let seen = self.seen.get(&link.short());
        seen.is_some_and(|seen| seen & what != 0)
    }

    fn mark(&mut self, link: Link, what: u8) {
        *self.seen.entry(link.short()).or_default() |= what;
    }
}

impl Judge {
    /// Two different events after the same one, a chain that begins again, or two different events at
    /// one moment.
    pub(super) fn tell_forks(&mut self, variants: &[Variant<'_>]) -> bool {
        let linked: Vec<&Variant<'_>> = variants.iter().filter(|it| it.is_linked()).collect();
        let mut hashes: Vec<Link> = linked.iter().map(|it| it.hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        let mut found = Vec::new();
        if hashes.len() > 1 {
            // The version that the fewest nodes show is the one to look at.
            let rarest = (0..linked.len()).min_by_key(|place| linked[*place].on.len());
            let text = "another event at the same moment than elsewhere";
            found.extend(rarest.map(|place| (place, text.to_owned())));
        }
        let is_one = found.is_empty();
        for (place, variant) in linked.iter().enumerate().filter(|_| is_one) {
            let origin = variant.first.row.origin;
            let is_begun = self.chains.begun.contains(&origin);
            if variant.previous == Link::NONE {
                if is_begun {
                    let text = "begins a new chain although its node had one";
                    found.push((place, text.to_owned()));
                }
            } else if self.chains.is(variant.previous, FOLLOWED) {
                let text = format!("another event follows {} too", brief(variant.previous));
                found.push((place, text));
            }
        }
        for variant in &linked {
            self.chains.begun.insert(variant.first.row.origin);
            if variant.previous != Link::NONE {
                self.chains.mark(variant.previous, FOLLOWED);
            }
        }
        for variant in variants.iter().filter(|it| it.hash != Link::NONE) {
            self.chains.mark(variant.hash, KNOWN);
        }
        found.dedup_by_key(|(place, _)| *place);
        let is_forked = !found.is_empty();
        for (place, detail) in found {
            let it = event(&linked[place].first);
            let on = linked[place].on.clone();
            self.tell(FindingKind::Fork, &it, &on, &[], detail);
        }
        is_forked
    }

    /// Goes on along the chain of each node that shows the event.
    pub(super) fn follow_chains(&mut self, variants: &[Variant<'_>]) {
        for variant in variants {
            let held = variant.first;
            for source in &variant.on {
                let chain = self.chains.of[*source].entry(held.row.origin).or_default();
                let (last, is_hashless) = (chain.last, chain.is_hashless);
                if variant.hash == Link::NONE {
                    chain.is_hashless = true;
                    continue;
                }
                chain.last = Some(variant.hash);
                let links = last == Some(variant.previous)
                    || variant.previous == Link::NONE
                    || self.is_unwanted(*source, variant.previous);
                if !is_hashless && !links && variant.check != HashCheck::Differs {
                    self.note_loose(*source, &held, variant.previous, last.is_none());
                }
            }
        }
    }

    /// Whether a node that filters collections need not hold an event that came before: some node does,
    /// and it is not among those that this one lacks and should have.
    fn is_unwanted(&self, source: usize, previous: Link) -> bool {
        !self.sources[source].interests.is_empty()
            && self.chains.is(previous, KNOWN)
            && !self.chains.absent[source].contains(&previous.short())
    }

    /// Whether what an origin writes is known well enough to say what a source should hold of it.
    pub(super) fn knows_writer(&self, source: usize, origin: u32) -> bool {
        let is_whole = self.sources[source].interests.is_empty();
        is_whole || self.chains.writers.contains_key(self.origin(origin))
    }

    /// Whether a source must hold the whole chain of an origin: it wants all that the origin writes.
    fn is_owed_chain(&self, source: usize, origin: u32) -> bool {
        let interests = &self.sources[source].interests;
        if interests.is_empty() {
            return true;
        }
        match self.chains.writers.get(self.origin(origin)) {
            None => false,
            Some(Writer::Source) => {
                let written = self.chains.written.get(origin as usize);
                let mut written = written.into_iter().flatten();
                written.all(|of| self.wants[source].get(of) == Some(&true))
            }
            Some(Writer::Declares(declared)) => {
                declared.iter().all(|name| interests.contains(name))
            }
        }
    }

    fn note_loose(&mut self, source: usize, held: &Held<'_>, previous: Link, is_first: bool) {
        if self.loose.len() < LOOSE_MAX {
            self.loose.push(Loose {
                event: event(held),
                previous,
                source,
                is_first,
            });
        }
    }

    /// The loose links whose other end is really not there, an event at a time.
    pub(super) fn tell_gaps(&mut self) {
        let loose = std::mem::take(&mut self.loose);
        let mut gaps: Vec<(Loose, Vec<usize>)> = Vec::new();
        for link in loose.into_iter().filter(|link| self.is_gap(link)) {
            let it = |gap: &(Loose, Vec<usize>)| {
                let (a, b) = (&gap.0.event, &link.event);
                (a.moment, a.origin) == (b.moment, b.origin) && gap.0.previous == link.previous
            };
            match gaps.last_mut() {
                Some(gap) if it(gap) => gap.1.push(link.source),
                Some(_) | None => {
                    let source = link.source;
                    gaps.push((link, vec![source]));
                }
            }
        }
        for (link, on) in gaps {
            let before = brief(link.previous);
            let detail = format!("the event before it, {before}, is not there");
            self.tell(FindingKind::ChainGap, &link.event, &on, &[], detail);
        }
    }

    fn is_gap(&self, link: &Loose) -> bool {
        let source = &self.sources[link.source];
        let boundaries = source.boundaries.as_ref();
        let boundary =
            boundaries.and_then(|boundaries| boundaries.get(self.origin(link.event.origin)));
        // Pruning took away what came before it, or before an event that is as old as what it took.
        let is_excused = |(moment, hash): &((i64, i32), Link)| {
            *hash == link.previous || link.event.moment <= *moment
        };
        if boundary.is_some_and(is_excused) {
            return false;
        }
        let short = link.previous.short();
        let is_absent = self.chains.absent[link.source].contains(&short);
        let is_known = self.chains.is(link.previous, KNOWN);
        // The first one's predecessor lies before the window, unless some node shows it inside.
        let is_owed = || self.is_owed_chain(link.source, link.event.origin);
        is_absent || (!is_known && !link.is_first && is_owed())
    }
}

/// The beginning of a hash, for people.
fn brief(link: Link) -> String {
    link.to_string().chars().take(8).collect()
}
