//! The findings of one round. Each rule is a pass over numbers; words are made only for what is told.

use super::FindingKind;
use super::ledger::NO_HASH;
use super::sights::{Sight, Table};
use super::words::{Report, plain};
use crate::oplog::{HashCheck, is_doubled};
use std::collections::{BTreeMap, HashMap, HashSet};

/// What has to be seen in two successive rounds before it counts: clocks move while nodes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Suspicion {
    /// The node lacks the event.
    Missed { node: u32, event: u32 },
    /// The node lacks what precedes the row.
    Gap { node: u32, row: u32 },
    /// No node has the event any more.
    Lost { event: u32 },
}

/// Suspicions of the round before and of this one.
#[derive(Debug, Default)]
pub(super) struct Suspicions {
    pub(super) before: HashSet<Suspicion>,
    pub(super) now: HashSet<Suspicion>,
}

impl Suspicions {
    /// Takes note; true when it was suspected in the round before, too.
    fn confirms(&mut self, suspicion: Suspicion) -> bool {
        self.now.insert(suspicion);
        self.before.contains(&suspicion)
    }

    /// How many of this round's are new.
    pub(super) fn unconfirmed(&self) -> usize {
        self.now.difference(&self.before).count()
    }
}

/// All rules over the events.
///
/// `everybody` is false when some node could not be asked: an event that nobody shows may be there.
pub(super) fn apply(
    table: &Table<'_>,
    everybody: bool,
    suspicions: &mut Suspicions,
    report: &mut Report,
) {
    missed(table, everybody, suspicions, report);
    gaps(table, suspicions, report);
    duplicates(table, report);
    hashes(table, report);
    forks(table, report);
    changed(table, report);
    shared_ids(table, report);
}

fn missed(table: &Table<'_>, everybody: bool, suspicions: &mut Suspicions, report: &mut Report) {
    let all_complete = everybody && table.sights.iter().all(Sight::is_complete);
    for event in table.order.iter().copied() {
        let it = table.event(event);
        let (mut holders, mut wanting, mut missing) = (0, 0, Vec::new());
        for (place, sight) in table.sights.iter().enumerate() {
            if sight.holds(event) {
                holders += 1;
            } else if sight.wants(it) {
                wanting += 1;
                let node = sight.number;
                if sight.is_complete()
                    && sight.covers(it)
                    && suspicions.confirms(Suspicion::Missed { node, event })
                {
                    missing.push(place);
                }
            }
        }
        let origin = table.origin_text(it);
        if holders == 0 {
            let confirmed = all_complete && suspicions.confirms(Suspicion::Lost { event });
            if let Some(writer) = table.writer(it).filter(|_| confirmed) {
                let name = table.sights[writer].name;
                report.add(FindingKind::Lost, name, origin, || table.describe(event));
            }
            continue;
        }
        if missing.is_empty() {
            continue;
        }
        let have = || table.those(|sight| sight.holds(event));
        if holders == 1 && missing.len() == wanting && wanting > 1 {
            // All others lack what one holds: more likely one broken sender than many receivers.
            for place in have() {
                let name = table.sights[place].name;
                report.add(FindingKind::NotPassedOn, name, origin, || {
                    format!(
                        "{} (missed by {}: either {name} does not pass it on, or all of them drop it)",
                        table.describe(event),
                        table.names(&missing)
                    )
                });
            }
            continue;
        }
        for place in missing {
            report.add(
                FindingKind::Missed,
                table.sights[place].name,
                origin,
                || format!("{} ({})", table.describe(event), table.have_it(&have())),
            );
        }
    }
}

fn gaps(table: &Table<'_>, suspicions: &mut Suspicions, report: &mut Report) {
    let known = known_events(table);
    let mut of_row: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (place, sight) in table.sights.iter().enumerate() {
        // A node that showed only a part has gaps by right.
        if !sight.is_complete() {
            continue;
        }
        for row in sight.rows.iter().copied() {
            let node = sight.number;
            if has_gap(table, sight, row, &known)
                && suspicions.confirms(Suspicion::Gap { node, row })
            {
                of_row.entry(row).or_default().push(place);
            }
        }
    }
    for (row, places) in of_row {
        let event = table.ledger.rows[row as usize].event;
        let it = table.event(event);
        let blamed = blame_writer(table, event, &places);
        for place in &blamed {
            let name = table.sights[*place].name;
            report.add(FindingKind::ChainGap, name, table.origin_text(it), || {
                let link = table.ledger.rows[row as usize].previous;
                let link = short(table.ledger.hashes.text(link));
                let others = also(table, &places, &blamed);
                format!(
                    "{}: the event before it, {link}, is not there{others}",
                    table.describe(event)
                )
            });
        }
    }
}

/// For each hash the event that has it, if any node showed one in any round.
fn known_events(table: &Table<'_>) -> Vec<Option<u32>> {
    let mut known = vec![None; table.ledger.hashes.len()];
    for row in &table.ledger.rows {
        known[row.hash as usize] = Some(row.event);
    }
    known
}

fn has_gap(table: &Table<'_>, sight: &Sight<'_>, row: u32, known: &[Option<u32>]) -> bool {
    let ledger = table.ledger;
    let it = &ledger.rows[row as usize];
    let event = ledger.event_of(row);
    let origin = event.origin as usize;
    if it.hash == NO_HASH || it.previous == NO_HASH || sight.hashless[origin] {
        return false;
    }
    // What an altered row says about its predecessor is worth nothing, and is told already.
    if it.check == HashCheck::Differs || sight.of_hash[it.previous as usize] > 0 {
        return false;
    }
    match known[it.previous as usize] {
        // What the node does not want need not be there.
        Some(before) => sight.wants(table.event(before)),
        // The first one's predecessor lies before the window.
        None => {
            sight.first[origin] != Some(event.moment) && table.is_owed_chain(sight, event.origin)
        }
    }
}

fn duplicates(table: &Table<'_>, report: &mut Report) {
    for event in table.order.iter().copied() {
        let it = table.event(event);
        for sight in &table.sights {
            let count = sight.of_event[event as usize];
            if count > 1 && is_doubled(&rows_of(table, sight, event), &NO_HASH) {
                report.add(
                    FindingKind::Duplicate,
                    sight.name,
                    table.origin_text(it),
                    || {
                        let others = table.those(|other| other.of_event[event as usize] > 1);
                        let here: Vec<usize> = table.those(|other| other.number == sight.number);
                        let also = also(table, &others, &here);
                        format!("{} is there {count} times{also}", table.describe(event))
                    },
                );
            }
        }
    }
    for sight in &table.sights {
        let mut told = HashSet::new();
        for row in sight.rows.iter().copied() {
            let it = &table.ledger.rows[row as usize];
            let once = sight.of_event[it.event as usize] == 1;
            let count = sight.of_hash[it.hash as usize];
            if it.hash != NO_HASH && count > 1 && once && told.insert(it.hash) {
                let origin = table.origin_text(table.event(it.event));
                report.add(FindingKind::Duplicate, sight.name, origin, || {
                    format!(
                        "{} shares its hash with {} other event(s)",
                        table.describe(it.event),
                        count - 1
                    )
                });
            }
        }
    }
}

/// What a node shows of an event, row by row.
fn rows_of(table: &Table<'_>, sight: &Sight<'_>, event: u32) -> Vec<(HashCheck, u32, u32)> {
    let rows = table.event(event).rows.iter().copied();
    rows.flat_map(|row| {
        let it = &table.ledger.rows[row as usize];
        let times = usize::from(sight.of_row[row as usize]);
        std::iter::repeat_n((it.check, it.hash, it.previous), times)
    })
    .collect()
}

/// What recomputing hashes says about each row.
fn hashes(table: &Table<'_>, report: &mut Report) {
    for event in table.order.iter().copied() {
        for row in table.event(event).rows.iter().copied() {
            let check = table.ledger.rows[row as usize].check;
            let kind = match check {
                HashCheck::Matches | HashCheck::MatchesLegacyRule => continue,
                HashCheck::NoHash => FindingKind::NoHash,
                HashCheck::Swapped => FindingKind::SnapshotSwapped,
                HashCheck::Differs if table.ledger.is_tampered(row) => FindingKind::Tampered,
                HashCheck::Differs => FindingKind::UnknownHash,
            };
            let places = table.those(|sight| sight.of_row[row as usize] > 0);
            let blamed = if kind == FindingKind::Tampered {
                blame_writer(table, event, &places)
            } else {
                places.clone()
            };
            for place in &blamed {
                let origin = table.origin_text(table.event(event));
                report.add(kind, table.sights[*place].name, origin, || {
                    let others = also(table, &places, &blamed);
                    format!("{}{others}", table.describe(event))
                });
            }
        }
    }
}

/// Two different events after the same one, or a chain that begins again.
fn forks(table: &Table<'_>, report: &mut Report) {
    let mut after: HashMap<(u32, u32), Vec<u32>> = HashMap::new();
    let mut begun: HashSet<u32> = HashSet::new();
    let mut found: Vec<Vec<u32>> = Vec::new();
    for event in table.order.iter().copied() {
        let it = table.event(event);
        let mut is_hashed = false;
        for row in it.rows.iter().copied() {
            let link = &table.ledger.rows[row as usize];
            let usable = link.hash != NO_HASH && link.check != HashCheck::Differs;
            if !usable || !table.is_shown(row) {
                continue;
            }
            is_hashed = true;
            if link.previous != NO_HASH {
                let next = after.entry((it.origin, link.previous)).or_default();
                // Different rows of one event are told by `changed`.
                if !next.contains(&event) && next.len() < 8 {
                    next.push(event);
                }
            } else if begun.contains(&it.origin) {
                found.push(vec![event]);
            }
        }
        if is_hashed {
            begun.insert(it.origin);
        }
    }
    found.extend(after.into_values().filter(|next| next.len() > 1));
    found.sort_by_key(|events| events.first().map(|event| table.event(*event).moment));
    for events in found {
        report_fork(table, &events, report);
    }
}

fn report_fork(table: &Table<'_>, events: &[u32], report: &mut Report) {
    let Some((last, earlier)) = events.split_last() else {
        return;
    };
    let origin = table.origin_text(table.event(*last));
    let holders = |event: u32| table.those(|sight| sight.holds(event));
    for place in blame_fork(table, events) {
        report.add(FindingKind::Fork, table.sights[place].name, origin, || {
            let later = format!(
                "{} (on {})",
                table.describe(*last),
                table.names(&holders(*last))
            );
            match earlier.first() {
                Some(first) => format!(
                    "{later} follows the same event as {} (on {})",
                    table.describe(*first),
                    table.names(&holders(*first))
                ),
                None => format!("{later} begins a new chain although that node had one"),
            }
        });
    }
}

/// The writer, if it shows all that conflicts; else those who show what the writer does not; else,
/// where the writer cannot be asked, those who show what the fewest do.
fn blame_fork(table: &Table<'_>, events: &[u32]) -> Vec<usize> {
    let holders = |event: &u32| table.those(|sight| sight.holds(*event));
    let writer = events
        .first()
        .and_then(|event| table.writer(table.event(*event)));
    if let Some(writer) = writer {
        let foreign: Vec<&u32> = events
            .iter()
            .filter(|event| !table.sights[writer].holds(**event))
            .collect();
        if foreign.is_empty() {
            return vec![writer];
        }
        if foreign.len() < events.len() {
            return sorted(foreign.into_iter().flat_map(holders).collect());
        }
    }
    fewest(events.iter().map(holders).collect())
}

/// The same moment of the same origin, but not the same event.
fn changed(table: &Table<'_>, report: &mut Report) {
    for event in table.order.iter().copied() {
        let it = table.event(event);
        if it.rows.len() < 2 {
            continue;
        }
        let mut by_hash: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for row in it.rows.iter().copied() {
            let link = &table.ledger.rows[row as usize];
            if link.hash != NO_HASH && link.check != HashCheck::Differs {
                let places = table.those(|sight| sight.of_row[row as usize] > 0);
                by_hash.entry(link.hash).or_default().extend(places);
            }
        }
        by_hash.retain(|_, places| !places.is_empty());
        if by_hash.len() < 2 {
            continue;
        }
        let versions: Vec<Vec<usize>> = by_hash.into_values().map(sorted).collect();
        let writer = table.writer(it);
        let is_writers =
            |places: &Vec<usize>| writer.is_some_and(|writer| places.contains(&writer));
        let blamed = if versions.iter().all(is_writers) || !versions.iter().any(is_writers) {
            fewest(versions.clone())
        } else {
            let foreign = versions.iter().filter(|places| !is_writers(places));
            sorted(foreign.flatten().copied().collect())
        };
        for place in blamed {
            let origin = table.origin_text(it);
            report.add(FindingKind::Fork, table.sights[place].name, origin, || {
                let others = table.those(|sight| sight.holds(event));
                let others: Vec<usize> =
                    others.into_iter().filter(|other| *other != place).collect();
                format!(
                    "{} is another event there than on {}",
                    table.describe(event),
                    table.names(&others)
                )
            });
        }
    }
}

/// Two nodes that answer with one id: both would write one chain.
fn shared_ids(table: &Table<'_>, report: &mut Report) {
    let mut by_id: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, sight) in table.sights.iter().enumerate() {
        by_id.entry(&sight.view.origin).or_default().push(place);
    }
    for (id, places) in by_id {
        if id.is_empty() || places.len() < 2 {
            continue;
        }
        report.add(
            FindingKind::SharedId,
            table.sights[places[0]].name,
            id,
            || format!("\"{}\" with {}", plain(id), table.names(&places[1..])),
        );
    }
}

/// The writer alone where it shows the flaw itself, since the others took it over from there.
fn blame_writer(table: &Table<'_>, event: u32, places: &[usize]) -> Vec<usize> {
    match table.writer(table.event(event)) {
        Some(writer) if places.contains(&writer) => vec![writer],
        Some(_) | None => places.to_vec(),
    }
}

fn also(table: &Table<'_>, places: &[usize], blamed: &[usize]) -> String {
    let others: Vec<usize> = places
        .iter()
        .copied()
        .filter(|place| !blamed.contains(place))
        .collect();
    if others.is_empty() {
        String::new()
    } else {
        format!(" (also on {})", table.names(&others))
    }
}

fn sorted(mut places: Vec<usize>) -> Vec<usize> {
    places.sort_unstable();
    places.dedup();
    places
}

/// The nodes of the versions that the fewest nodes show; of all, when that is no difference.
fn fewest(versions: Vec<Vec<usize>>) -> Vec<usize> {
    let least = versions.iter().map(Vec::len).min().unwrap_or(0);
    let rare = versions.into_iter().filter(|places| places.len() == least);
    sorted(rare.flatten().collect())
}

fn short(hash: &str) -> String {
    plain(&hash.chars().take(8).collect::<String>())
}
