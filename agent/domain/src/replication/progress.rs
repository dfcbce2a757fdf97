//! What is not there yet: convergence against an earlier round, joined peers, and patience.

use super::sights::{Moment, Sight, Table};
use super::words::{Report, list, plain, utc};
use super::{FindingKind, Goal, MeshWatch, Round};
use crate::hlc::VectorClock;
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
        let mut round = Round {
            unproven: unproven(table, &moved),
            moved,
            ..Round::default()
        };
        if everybody {
            self.all_asked_at_ms.get_or_insert(self.now_ms);
        }
        let not_there = match &self.goal {
            None => vec!["one more round is needed to compare with".to_owned()],
            Some(goal) => not_there(table, goal),
        };
        self.watch_standing(table, report);
        if not_there.is_empty() || self.goal.is_none() {
            self.goal = Some(Goal {
                events: u32::try_from(table.order.len()).unwrap_or(u32::MAX),
                clock: latest(table),
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
        for sight in &table.sights {
            for (origin, wanted, is) in behind(table, sight, goal) {
                // A clock that is empty after a restart says nothing.
                let Some(is) = is else { continue };
                let key = (sight.number, origin);
                let rounds = match self.standing.get(&key) {
                    Some((then, rounds)) if *then == is => rounds.saturating_add(1),
                    Some(_) | None => 1,
                };
                if rounds >= self.stalled_rounds {
                    report.add(FindingKind::Stalled, sight.name, &key.1, || {
                        let text = lagging(table, &key.1, wanted, Some(is));
                        format!("{text}, and has not moved for {rounds} rounds")
                    });
                }
                standing.insert(key, (is, rounds));
            }
        }
        self.standing = standing;
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

/// The latest moments that any node's clock shows.
fn latest(table: &Table<'_>) -> VectorClock {
    let mut clock = VectorClock::default();
    for sight in &table.sights {
        clock.merge(&sight.view.clock_before);
        clock.merge(&sight.view.clock_after);
    }
    clock
}

/// What of the goal has not been reached, a sentence per node and cause.
fn not_there(table: &Table<'_>, goal: &Goal) -> Vec<String> {
    let mut sentences = Vec::new();
    let of_goal: Vec<u32> = table
        .order
        .iter()
        .copied()
        .filter(|event| *event < goal.events && !table.is_settled(*event))
        .collect();
    for sight in &table.sights {
        let lacks = |event: &&u32| sight.wants(table.event(**event)) && !sight.holds(**event);
        let mut lacking = of_goal.iter().filter(lacks);
        if let Some(first) = lacking.next() {
            let rest = lacking.count();
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
    for sight in &table.sights {
        if sight.view.clock_before.0.is_empty() && !goal.clock.0.is_empty() {
            sentences.push(format!(
                "{} shows an empty clock, as some nodes do after a restart until traffic comes",
                sight.name
            ));
            continue;
        }
        for (origin, wanted, is) in behind(table, sight, goal) {
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
        None => format!("its clock of {writer} is empty, not {wanted}"),
    }
}

/// The origins of which the node has seen less than the goal: what is wanted, and what is.
///
/// An event that the node holds counts as seen, whatever its clock says. A node with interests need
/// only have seen what it wants: its clock may never show the other collections.
fn behind(
    table: &Table<'_>,
    sight: &Sight<'_>,
    goal: &Goal,
) -> Vec<(String, Moment, Option<Moment>)> {
    let wanted = if sight.view.interests.is_empty() {
        goal.clock.clone()
    } else {
        wanted_by(table, sight, goal)
    };
    let held = |origin: &str| {
        let number = table.ledger.origins.find(origin)?;
        sight.last[number as usize]
    };
    let late = wanted.0.into_iter().filter_map(|(origin, wanted)| {
        let is = sight.view.clock_before.get(&origin).max(held(&origin));
        (is < Some(wanted)).then_some((origin, wanted, is))
    });
    late.collect()
}

fn wanted_by(table: &Table<'_>, sight: &Sight<'_>, goal: &Goal) -> VectorClock {
    let mut clock = VectorClock::default();
    for event in table.order.iter().filter(|event| **event < goal.events) {
        let event = table.event(*event);
        if sight.wants(event) {
            clock.advance(table.origin_text(event), event.moment);
        }
    }
    clock
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
