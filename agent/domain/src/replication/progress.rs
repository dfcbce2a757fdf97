//! What is not there yet: convergence against an earlier round, joined peers, and patience.
//!
//! What a node must have seen is what some node holds, never what a clock alone says: a clock may be
//! ahead of its own oplog (0.9.1, seen running), and its peers are not to be blamed for that.

use super::sights::{Moment, Sight, Table};
use super::words::{Report, list, plain, utc};
use super::{CLOCK_AHEAD_ROUNDS, FindingKind, Goal, MeshWatch, Round};
use crate::id::NodeName;
use std::collections::{BTreeMap, BTreeSet, HashMap};

impl MeshWatch {
    /// Judges convergence, and sets the next goal once the last one is reached.
    pub(super) fn progress(
        &mut self,
        table: &Table<'_>,
        everybody: bool,
        report: &mut Report,
        mut waiting: Vec<String>,
    ) -> Round {
        for sight in table.sights.iter().filter(|sight| !sight.is_complete()) {
            waiting.push(format!(
                "{} has more events since the wave began than were read: what it lacks cannot be told",
                sight.name
            ));
        }
        let moved = if everybody {
            table.moved()
        } else {
            BTreeMap::new()
        };
        let excused = table.sights.iter().filter(|sight| sight.is_excused);
        let mut round = Round {
            excused: excused.map(|sight| sight.name.clone()).collect(),
            unproven: unproven(table, &moved),
            moved,
            ..Round::default()
        };
        if everybody {
            self.all_asked_at_ms.get_or_insert(self.now_ms);
        }
        let not_there = match &self.goal {
            None => vec!["one more round is needed to compare with".to_owned()],
            Some(goal) => not_there(table, goal, &mut round.late),
        };
        self.watch_standing(table, report);
        self.watch_clocks_ahead(table, everybody, report);
        if not_there.is_empty() || self.goal.is_none() {
            self.goal = Some(Goal {
                events: u32::try_from(table.order.len()).unwrap_or(u32::MAX),
            });
        }
        waiting.extend(not_there);
        let proven = !round.moved.is_empty() && round.unproven.is_empty();
        // What was configured to be proven is proven, or somebody says that it need not be.
        let named = table.sights.iter();
        let mut named = named.flat_map(|sight| &sight.view.target_collections);
        let is_owed = !self.accepts_unproven && named.next().is_some();
        let looked = self.all_asked_at_ms.map(|at_ms| self.now_ms - at_ms);
        let is_patient = is_owed || looked.is_none_or(|ms| ms < self.patience_ms);
        if waiting.is_empty() && !proven && is_patient {
            waiting.push(nothing_yet(&round));
        }
        round.waiting = waiting;
        round
    }

    /// Counts for how long clocks that are behind have stood still.
    fn watch_standing(&mut self, table: &Table<'_>, report: &mut Report) {
        let Some(goal) = &self.goal else {
            return;
        };
        let mut standing = HashMap::new();
        let last = last_held(table, goal);
        for sight in &table.sights {
            for (origin, wanted, is) in behind(table, sight, &last) {
                let key = (sight.number, origin);
                let rounds = match self.standing.get(&key) {
                    Some((then, rounds)) if *then == is => rounds.saturating_add(1),
                    Some(_) | None => 1,
                };
                if rounds >= self.stalled_rounds {
                    report.add(FindingKind::Stalled, sight.name, &key.1, || {
                        let text = lagging(table, &key.1, wanted, is);
                        format!("{text}, and has not moved for {rounds} rounds")
                    });
                }
                standing.insert(key, (is, rounds));
            }
        }
        self.standing = standing;
    }

    /// Counts for how long a clock has named an event that no node holds, its own included. Events
    /// that travel while nodes are read are there a moment later.
    fn watch_clocks_ahead(&mut self, table: &Table<'_>, everybody: bool, report: &mut Report) {
        let mut ahead = HashMap::new();
        if !everybody || !table.sights.iter().all(Sight::is_complete) {
            return;
        }
        for sight in &table.sights {
            for (origin, moment) in &sight.view.clock_before.0 {
                let number = table.ledger.origins.find(origin);
                let event = number.and_then(|origin| table.ledger.find(origin, *moment));
                // What was held once and is not any more is lost, and told as that.
                if moment.0 < self.since_wall_ms || event.is_some() {
                    continue;
                }
                // What a writer that is not asked writes besides is not known.
                let filters = !sight.view.interests.is_empty();
                if filters && !table.sights.iter().any(|it| it.view.origin == *origin) {
                    continue;
                }
                let key = (sight.number, origin.clone(), *moment);
                let rounds = self.ahead.get(&key).copied().unwrap_or(0) + 1;
                if rounds >= CLOCK_AHEAD_ROUNDS {
                    report.add(FindingKind::ClockAhead, sight.name, origin, || {
                        let writer = table.writer_name(origin);
                        let at = utc(*moment);
                        format!("it names an event of {writer} at {at}, which no node holds")
                    });
                }
                ahead.insert(key, rounds);
            }
        }
        self.ahead = ahead;
    }

    /// Peers that a node is expected to join and has not, where it tells.
    pub(super) fn look_at_peers(
        &mut self,
        table: &Table<'_>,
        report: &mut Report,
        waiting: &mut Vec<String>,
    ) {
        let mut unjoined = HashMap::new();
        for sight in &table.sights {
            let Some(joined) = &sight.view.joined else {
                continue;
            };
            let joined: BTreeSet<&String> = joined.iter().collect();
            let expected = sight.view.expected.iter();
            let missing: Vec<&String> = expected.filter(|peer| !joined.contains(peer)).collect();
            for peer in &missing {
                let key = (sight.number, (*peer).clone());
                let rounds = self.unjoined.get(&key).copied().unwrap_or(0);
                let rounds = rounds.saturating_add(1);
                if rounds >= self.stalled_rounds {
                    report.add(FindingKind::NotJoined, sight.name, "", || {
                        format!("{} for {rounds} rounds", plain(peer))
                    });
                }
                unjoined.insert(key, rounds);
            }
            if !missing.is_empty() {
                let missing: Vec<String> = missing.iter().map(|peer| plain(peer)).collect();
                waiting.push(format!("{} has not joined {}", sight.name, list(&missing)));
            }
        }
        self.unjoined = unjoined;
    }
}

fn nothing_yet(round: &Round) -> String {
    let names: Vec<String> = round.unproven.iter().map(|name| plain(name)).collect();
    if names.is_empty() {
        "unproven: no event has moved yet".to_owned()
    } else {
        format!(
            "unproven: no event of {} has arrived everywhere yet",
            list(&names)
        )
    }
}

/// What of the goal has not been reached, a sentence per node and cause.
fn not_there(table: &Table<'_>, goal: &Goal, late: &mut BTreeSet<NodeName>) -> Vec<String> {
    let mut sentences = Vec::new();
    let of_goal: Vec<u32> = table
        .order
        .iter()
        .copied()
        .filter(|event| *event < goal.events && !table.is_settled(*event))
        .collect();
    let asked = || table.sights.iter().filter(|sight| !sight.is_excused);
    for sight in asked() {
        let lacks = |event: &&u32| sight.wants(table.event(**event)) && !sight.holds(**event);
        let mut lacking = of_goal.iter().filter(lacks);
        if let Some(first) = lacking.next() {
            let rest = lacking.count();
            late.insert(sight.name.clone());
            let more = if rest == 0 {
                String::new()
            } else {
                format!(" and {rest} later events")
            };
            sentences.push(format!(
                "{} does not have {}{more}",
                sight.name,
                table.describe(*first)
            ));
        }
    }
    if sentences.is_empty() && !of_goal.is_empty() {
        sentences.push(format!(
            "{} events that were seen are on no node",
            of_goal.len()
        ));
    }
    let last = last_held(table, goal);
    for sight in asked() {
        for (origin, wanted, is) in behind(table, sight, &last) {
            late.insert(sight.name.clone());
            let text = lagging(table, &origin, wanted, is);
            sentences.push(format!("{} lags: {text}", sight.name));
        }
    }
    sentences
}

fn lagging(table: &Table<'_>, origin: &str, wanted: Moment, is: Option<Moment>) -> String {
    let writer = table.writer_name(origin);
    let wanted = utc(wanted);
    match is {
        Some(is) => format!("its clock of {writer} stands at {}, not {wanted}", utc(is)),
        None => format!("it has seen nothing of {writer}, not {wanted}"),
    }
}

/// Per origin and collection: the last moment of the goal's events that some node holds.
type LastHeld = BTreeMap<(u32, u32), Moment>;

fn last_held(table: &Table<'_>, goal: &Goal) -> LastHeld {
    let mut last = LastHeld::new();
    for event in table.order.iter().filter(|event| **event < goal.events) {
        if table.sights.iter().any(|sight| sight.holds(*event)) {
            let it = table.event(*event);
            // They come in the order of their moments.
            last.insert((it.origin, it.collection), it.moment);
        }
    }
    last
}

/// The origins of which the node has seen less than it must: what is wanted, and what is. An event
/// that it holds counts as seen, whatever its clock says; what it does not want is not asked of it.
fn behind(
    table: &Table<'_>,
    sight: &Sight<'_>,
    last: &LastHeld,
) -> Vec<(String, Moment, Option<Moment>)> {
    let mut wanted: BTreeMap<u32, Moment> = BTreeMap::new();
    for ((origin, collection), moment) in last {
        if sight.wants[*collection as usize] {
            let place = wanted.entry(*origin).or_insert(*moment);
            *place = (*place).max(*moment);
        }
    }
    let late = wanted.into_iter().filter_map(|(origin, wanted)| {
        let is = sight.clock[origin as usize].max(sight.last[origin as usize]);
        let name = table.ledger.origins.text(origin).to_owned();
        (is < Some(wanted)).then_some((name, wanted, is))
    });
    late.collect()
}

fn unproven(table: &Table<'_>, moved: &BTreeMap<String, u64>) -> BTreeSet<String> {
    let configured: BTreeSet<String> = table
        .sights
        .iter()
        .flat_map(|sight| sight.view.target_collections.iter().cloned())
        .collect();
    let targets = if configured.is_empty() {
        table.ledger.collections.texts().iter().cloned().collect()
    } else {
        configured
    };
    targets
        .into_iter()
        .filter(|name| !moved.contains_key(name))
        .collect()
}
