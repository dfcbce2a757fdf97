//! The rules, applied to one event of all nodes at a time; and what must wait until all was seen.

mod absences;
mod chains;
mod hashes;

use super::report::{AuditReport, CollectionCount, EventFinding, NodeCount};
use super::row::{Link, Page, PageRow};
use super::{Boundaries, Source};
use crate::oplog::{HashCheck, is_doubled};
use crate::replication::FindingKind;
use absences::Absences;
use chains::Chains;
use std::collections::{BTreeMap, HashMap, HashSet};

/// A row of the event that is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held<'a> {
    pub(super) source: usize,
    pub(super) row: &'a PageRow,
    pub(super) key: &'a str,
}

/// What some nodes show for an event, the hashes put right where a snapshot import exchanged them.
struct Variant<'a> {
    first: Held<'a>,
    check: HashCheck,
    hash: Link,
    previous: Link,
    on: Vec<usize>,
}

impl Variant<'_> {
    /// Whether both are one event, in whatever form a snapshot import left it.
    fn is_form_of(&self, other: &Self) -> bool {
        let (a, b) = (&self.first, &other.first);
        self.hash == other.hash
            && self.previous == other.previous
            && a.row.collection == b.row.collection
            && a.row.operation == b.row.operation
            && a.key == b.key
    }

    /// What an altered row, or one without hash, says about chains is worth nothing.
    fn is_linked(&self) -> bool {
        self.hash != Link::NONE && self.check != HashCheck::Differs
    }
}

/// An event that waits for the end.
#[derive(Debug)]
struct Event {
    origin: u32,
    collection: u32,
    key: Box<str>,
    moment: (i64, i32),
}

/// A link whose other end was not there when it was looked at.
#[derive(Debug)]
struct Loose {
    event: Event,
    previous: Link,
    source: usize,
    is_first: bool,
}

/// Everything that the rules remember.
#[derive(Debug)]
pub(super) struct Judge {
    sources: Vec<Source>,
    since_wall_ms: i64,
    names: HashMap<String, u32>,
    texts: Vec<String>,
    /// Per source and collection: whether it is wanted there.
    wants: Vec<HashMap<u32, bool>>,
    /// Per source: the wall time of its oldest row, where boundaries cannot be seen.
    oldest: Vec<Option<i64>>,
    chains: Chains,
    absences: Absences,
    loose: Vec<Loose>,
    /// Rows whose hash differs, until it is known whether the hashes of their origin can be checked.
    differing: Vec<(Event, Vec<usize>)>,
    /// Origins of which some row has the hash that it should.
    verified: HashSet<u32>,
    counts: HashMap<u32, CollectionCount>,
    nodes: Vec<NodeCount>,
    report: AuditReport,
}

impl Judge {
    pub(super) fn new(sources: Vec<Source>, since_wall_ms: i64) -> Self {
        let count = sources.len();
        let mut judge = Self {
            chains: Chains::new(count),
            absences: Absences::new(count),
            wants: vec![HashMap::new(); count],
            oldest: vec![None; count],
            nodes: vec![NodeCount::default(); count],
            since_wall_ms,
            names: HashMap::new(),
            texts: Vec::new(),
            loose: Vec::new(),
            differing: Vec::new(),
            verified: HashSet::new(),
            counts: HashMap::new(),
            report: AuditReport::default(),
            sources,
        };
        for source in 0..count {
            let clock = std::mem::take(&mut judge.sources[source].clock);
            for (origin, moment) in clock.0 {
                let origin = judge.number(&origin, true);
                judge.absences.know_clock(source, origin, moment);
            }
            judge.chains.know_source(&judge.sources[source].origin);
        }
        judge
    }

    pub(super) fn name(&self, source: usize) -> &str {
        &self.sources[source].name
    }

    pub(super) fn origin(&self, number: u32) -> &str {
        &self.texts[number as usize]
    }

    /// The number of an origin or a collection; they share the numbers.
    pub(super) fn number(&mut self, text: &str, as_origin: bool) -> u32 {
        let number = match self.names.get(text) {
            Some(number) => *number,
            None => {
                let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
                self.names.insert(text.to_owned(), number);
                self.texts.push(text.to_owned());
                number
            }
        };
        if as_origin {
            self.chains.know_origin(number);
        } else {
            for (source, wants) in self.sources.iter().zip(&mut self.wants) {
                let interests = &source.interests;
                let wanted = interests.is_empty() || interests.iter().any(|one| one == text);
                wants.insert(number, wanted);
            }
        }
        number
    }

    /// Notes the beginning of what a source shows, before its first rows are looked at.
    pub(super) fn begin(&mut self, source: usize, page: &Page) {
        if let Some(row) = page.rows.first() {
            self.oldest[source].get_or_insert(row.wall);
        }
        for row in &page.rows {
            let count = &mut self.nodes[source];
            count.rows += 1;
            count.oldest_ms.get_or_insert(row.wall);
            count.newest_ms = Some(row.wall);
        }
    }

    /// The clock of a source of which not all rows were read names what may be among the rest.
    pub(super) fn trust_no_clock_of(&mut self, source: usize) {
        self.absences.trust_no_clock_of(source);
    }

    /// What origins that are no sources declare to write.
    pub(super) fn know_writers(&mut self, declared: &BTreeMap<String, Vec<String>>) {
        for (origin, collections) in declared {
            self.chains.know_writer(origin, collections);
        }
    }

    /// Boundaries move while rows are read: the later ones count.
    pub(super) fn boundaries_after(&mut self, source: usize, boundaries: Option<Boundaries>) {
        if let (Some(known), Some(now)) = (&mut self.sources[source].boundaries, boundaries) {
            known.extend(now);
        }
    }

    /// Looks at one event, on all nodes that show it.
    pub(super) fn look_at(&mut self, group: &[Held<'_>]) {
        let Some(first) = group.first() else { return };
        let variants = self.variants(group);
        let mut counts = vec![0; self.sources.len()];
        group.iter().for_each(|held| counts[held.source] += 1);
        let doubled = doubled(group, &variants, &counts);
        self.tell_hashes(&variants);
        self.tell_duplicates(first, &doubled, &counts);
        let is_forked = self.tell_forks(&variants);
        self.follow_chains(&variants);
        self.account(first, &variants, &counts);
        let wanted = |source: usize| self.wants[source].get(&first.row.collection) == Some(&true);
        let is_everywhere = !is_forked
            && variants.iter().all(|it| it.is_form_of(&variants[0]))
            && (0..counts.len()).all(|source| counts[source] > 0 || !wanted(source))
            && doubled.is_empty();
        let count = self.counts.entry(first.row.collection).or_default();
        count.events += 1;
        count.everywhere += u64::from(is_everywhere);
    }

    fn variants<'a>(&mut self, group: &[Held<'a>]) -> Vec<Variant<'a>> {
        let mut variants: Vec<Variant<'a>> = Vec::with_capacity(1);
        for held in group {
            let same = variants.iter_mut().find(|it| is_same(&it.first, held));
            if let Some(variant) = same {
                if !variant.on.contains(&held.source) {
                    variant.on.push(held.source);
                }
                continue;
            }
            let row = held.row;
            let names = (self.origin(row.origin), self.origin(row.collection));
            let check = hashes::check(held, names.0, names.1);
            let (hash, previous) = match check {
                HashCheck::Swapped => (row.previous, row.hash),
                HashCheck::Matches
                | HashCheck::MatchesLegacyRule
                | HashCheck::NoHash
                | HashCheck::Differs => (row.hash, row.previous),
            };
            variants.push(Variant {
                first: *held,
                check,
                hash,
                previous,
                on: vec![held.source],
            });
        }
        variants
    }

    fn tell_duplicates(&mut self, first: &Held<'_>, doubled: &[usize], counts: &[usize]) {
        if let Some(most) = doubled.iter().map(|source| counts[*source]).max() {
            let detail = format!("up to {most} rows");
            self.tell(FindingKind::Duplicate, &event(first), doubled, &[], detail);
        }
    }

    /// Whether pruning explains that a source lacks an event.
    fn is_pruned(&self, source: usize, origin: u32, moment: (i64, i32)) -> bool {
        if moment.0 < self.since_wall_ms {
            return true;
        }
        match &self.sources[source].boundaries {
            Some(boundaries) => boundaries
                .get(self.origin(origin))
                .is_some_and(|(boundary, _)| moment <= *boundary),
            None => self.oldest[source].is_none_or(|oldest| moment.0 <= oldest),
        }
    }

    fn tell(
        &mut self,
        kind: FindingKind,
        event: &Event,
        on: &[usize],
        not_on: &[usize],
        detail: String,
    ) {
        let names = |places: &[usize]| {
            let names = places.iter().map(|place| self.name(*place).to_owned());
            names.collect::<Vec<String>>()
        };
        let finding = EventFinding {
            kind,
            origin: self.origin(event.origin).to_owned(),
            collection: self.origin(event.collection).to_owned(),
            key: event.key.to_string(),
            wall: event.moment.0,
            logic: event.moment.1,
            on: names(on),
            not_on: names(not_on),
            detail,
        };
        self.report.add(finding);
    }

    pub(super) fn finish(mut self) -> AuditReport {
        self.count_behind();
        self.tell_absences();
        self.tell_gaps();
        self.tell_differing();
        let texts = std::mem::take(&mut self.texts);
        let counts = std::mem::take(&mut self.counts).into_iter();
        let mut report = self.report;
        report.collections = counts
            .map(|(number, count)| (texts[number as usize].clone(), count))
            .collect();
        let seen = self.absences.into_seen();
        let nodes = self.sources.into_iter().zip(self.nodes).zip(seen);
        let nodes = nodes.map(|((source, count), seen)| (source, seen.told(count, &texts)));
        report.nodes = nodes.map(|(source, count)| (source.name, count)).collect();
        report.sort();
        report
    }
}

/// The sources that hold the event more than once.
fn doubled(group: &[Held<'_>], variants: &[Variant<'_>], counts: &[usize]) -> Vec<usize> {
    let many = (0..counts.len()).filter(|source| counts[*source] > 1);
    many.filter(|source| {
        let rows = group.iter().filter(|held| held.source == *source);
        let shown = rows.filter_map(|held| {
            let variant = variants.iter().find(|it| is_same(&it.first, held))?;
            Some((variant.check, variant.hash, variant.previous))
        });
        is_doubled(&shown.collect::<Vec<_>>(), &Link::NONE)
    })
    .collect()
}

fn event(held: &Held<'_>) -> Event {
    Event {
        origin: held.row.origin,
        collection: held.row.collection,
        key: held.key.into(),
        moment: (held.row.wall, held.row.logic),
    }
}

fn is_same(a: &Held<'_>, b: &Held<'_>) -> bool {
    let (one, other) = (a.row, b.row);
    one.hash == other.hash
        && one.previous == other.previous
        && one.collection == other.collection
        && one.operation == other.operation
        && a.key == b.key
        && one.odd == other.odd
}
