//! What an audit found, as tables and JSON.

use crate::audit::Late;
use crate::render::Table;
use crate::render::values::exact_moment;
use cbddc_domain::audit::{AuditReport, EventFinding};
use cbddc_domain::replication::collection_of;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// How many findings that are alike are shown to people.
const EXAMPLES_MAX: usize = 3;

/// What an audit found; a part of the command's JSON.
#[derive(Debug, Default, Serialize)]
pub(super) struct ReportJson {
    /// Whether anything is wrong.
    pub(super) found: bool,
    /// Different events, on whatever node.
    events: u64,
    /// Events that are wherever they are wanted, exactly once.
    everywhere: u64,
    /// The same per collection.
    collections: BTreeMap<String, CollectionJson>,
    /// How many findings there are of each kind, notes included.
    counts: BTreeMap<&'static str, u64>,
    /// The findings that are alike, together, the worst first.
    groups: Vec<GroupJson>,
    /// The findings; of each kind the first 20,000.
    findings: Vec<FindingJson>,
}

/// Findings of one kind about events of one origin on the same nodes.
#[derive(Debug, Clone, Serialize)]
struct GroupJson {
    kind: &'static str,
    critical: bool,
    cluster: String,
    origin: String,
    on: Vec<String>,
    not_on: Vec<String>,
    count: u64,
    /// The first ones, as the table shows them.
    examples: Vec<String>,
}

#[derive(Debug, Default, Serialize)]
struct CollectionJson {
    events: u64,
    everywhere: u64,
}

/// A finding.
#[derive(Debug, Clone, Serialize)]
pub(super) struct FindingJson {
    kind: &'static str,
    /// `finding` where something is wrong, `note` otherwise.
    weight: &'static str,
    /// Whether the collection is configured as critical.
    critical: bool,
    /// The cluster; empty where it has no name.
    cluster: String,
    origin: String,
    collection: String,
    key: String,
    written_at: String,
    on: Vec<String>,
    not_on: Vec<String>,
    detail: String,
}

/// One node, or file.
#[derive(Debug, Serialize)]
pub(super) struct NodeJson {
    /// The cluster; empty where it has no name.
    pub(super) cluster: String,
    /// The CBDDC node's id; empty for a file.
    pub(super) origin: String,
    /// Where its events were read from.
    pub(super) read_from: String,
    /// Rows of its oplog.
    pub(super) rows: u64,
    /// Different events that it holds. With the four that follow these are all events of the audit.
    pub(super) held: u64,
    /// Events that it lacks although it has seen later ones of the same origin.
    pub(super) missed: u64,
    /// Events that it has yet to get.
    pub(super) behind: u64,
    /// Events in collections that it does not want.
    pub(super) not_wanted: u64,
    /// Events that it lacks because they are older than what pruning has left there.
    pub(super) pruned: u64,
    /// The oldest event.
    pub(super) oldest: Option<String>,
    /// The newest.
    pub(super) newest: Option<String>,
}

impl NodeJson {
    pub(super) fn new(name: &str, origin: &str, read_from: &str, report: &AuditReport) -> Self {
        let count = report.nodes.get(name).cloned().unwrap_or_default();
        Self {
            cluster: String::new(),
            origin: origin.to_owned(),
            read_from: read_from.to_owned(),
            rows: count.rows,
            held: count.held,
            missed: count.lacks.missed,
            behind: count.lacks.behind,
            not_wanted: count.lacks.unwanted,
            pruned: count.lacks.pruned,
            oldest: count.oldest_ms.map(exact_moment),
            newest: count.newest_ms.map(exact_moment),
        }
    }
}

impl ReportJson {
    pub(super) fn new(
        cluster: &str,
        report: &AuditReport,
        late: &[Late],
        critical: &BTreeSet<String>,
    ) -> Self {
        let mut counts: BTreeMap<&'static str, u64> = report
            .counts
            .iter()
            .map(|(kind, count)| (kind.as_str(), *count))
            .collect();
        for one in late {
            *counts.entry(one.kind.as_str()).or_default() += 1;
        }
        let events = report.findings.iter().map(|it| of_event(it, critical));
        let findings = events.chain(late.iter().map(of_clock));
        let findings = findings.map(|finding| FindingJson {
            cluster: cluster.to_owned(),
            ..finding
        });
        let findings: Vec<FindingJson> = findings.collect();
        let collections = report.collections.iter();
        Self {
            groups: groups_of(&findings),
            found: report.is_bad() || late.iter().any(|late| late.kind.is_definite()),
            events: report.events(),
            everywhere: report.everywhere(),
            collections: collections
                .map(|(name, count)| {
                    let (events, everywhere) = (count.events, count.everywhere);
                    (
                        collection_of(cluster, name),
                        CollectionJson { events, everywhere },
                    )
                })
                .collect(),
            counts,
            findings,
        }
    }

    /// Takes in what was found in another cluster.
    pub(super) fn add(&mut self, other: Self) {
        self.found |= other.found;
        self.events += other.events;
        self.everywhere += other.everywhere;
        for (name, count) in other.collections {
            let all = self.collections.entry(name).or_default();
            all.events += count.events;
            all.everywhere += count.everywhere;
        }
        for (kind, count) in other.counts {
            *self.counts.entry(kind).or_default() += count;
        }
        self.groups.extend(other.groups);
        self.findings.extend(other.findings);
    }

    /// For people: counts, then the findings.
    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "{} events, {} of them everywhere exactly once\n",
            self.events, self.everywhere
        );
        if self.counts.is_empty() {
            text.push_str("nothing was found\n");
            return text;
        }
        let mut counts = Table::new(&["FOUND", "COUNT"]);
        for (kind, count) in &self.counts {
            counts.row([(*kind).to_owned(), count.to_string()]);
        }
        text.push_str(&counts.render());
        let header = ["KIND", "COUNT", "ORIGIN", "ON", "NOT ON", "FOR EXAMPLE"];
        let mut table = Table::new(&header);
        for group in &self.groups {
            let critical = if group.critical { " (critical)" } else { "" };
            table.row([
                format!("{}{critical}", group.kind),
                group.count.to_string(),
                group.origin.clone(),
                group.on.join(","),
                group.not_on.join(","),
                group.examples.join("; "),
            ]);
        }
        text.push('\n');
        text.push_str(&table.render());
        if self.findings.len() > self.groups.len() {
            text.push_str("each of them, up to 20,000 of a kind: `-o json`\n");
        }
        text
    }
}

/// Puts together what is alike, in the order in which it was found.
fn groups_of(findings: &[FindingJson]) -> Vec<GroupJson> {
    type Key<'a> = (&'a str, bool, &'a str, &'a [String], &'a [String]);
    let mut places: BTreeMap<Key<'_>, usize> = BTreeMap::new();
    let mut groups: Vec<GroupJson> = Vec::new();
    for finding in findings {
        let of = finding;
        let key = (of.kind, of.critical, &*of.origin, &*of.on, &*of.not_on);
        let place = *places.entry(key).or_insert(groups.len());
        if place == groups.len() {
            groups.push(GroupJson {
                kind: finding.kind,
                critical: finding.critical,
                cluster: finding.cluster.clone(),
                origin: finding.origin.clone(),
                on: finding.on.clone(),
                not_on: finding.not_on.clone(),
                count: 0,
                examples: Vec::new(),
            });
        }
        let group = &mut groups[place];
        group.count += 1;
        if group.examples.len() < EXAMPLES_MAX {
            group.examples.push(finding.example());
        }
    }
    groups
}

impl FindingJson {
    /// The event, when it was written, and what else is to be said.
    fn example(&self) -> String {
        let mut parts = Vec::new();
        if !self.collection.is_empty() || !self.key.is_empty() {
            let event = format!("{}/{}", self.collection, self.key);
            parts.push(collection_of(&self.cluster, &event));
        }
        if !self.written_at.is_empty() {
            parts.push(format!("of {}", self.written_at));
        }
        match (parts.join(" "), self.detail.as_str()) {
            (event, "") => event,
            (event, detail) if event.is_empty() => detail.to_owned(),
            (event, detail) => format!("{event}: {detail}"),
        }
    }
}

/// What a finding weighs, as a word.
pub(super) fn weight(is_definite: bool) -> &'static str {
    if is_definite { "finding" } else { "note" }
}

fn of_event(finding: &EventFinding, critical: &BTreeSet<String>) -> FindingJson {
    FindingJson {
        kind: finding.kind.as_str(),
        weight: weight(finding.kind.is_definite()),
        critical: critical.contains(&finding.collection),
        cluster: String::new(),
        origin: finding.origin.clone(),
        collection: finding.collection.clone(),
        key: finding.key.clone(),
        written_at: if finding.origin.is_empty() {
            String::new()
        } else {
            exact_moment(finding.wall)
        },
        on: finding.on.clone(),
        not_on: finding.not_on.clone(),
        detail: finding.detail.clone(),
    }
}

fn of_clock(late: &Late) -> FindingJson {
    FindingJson {
        kind: late.kind.as_str(),
        weight: weight(late.kind.is_definite()),
        critical: false,
        cluster: String::new(),
        origin: late.origin.clone(),
        collection: String::new(),
        key: String::new(),
        written_at: exact_moment(late.wanted.0),
        on: Vec::new(),
        not_on: vec![late.node.to_string()],
        detail: match late.is {
            Some(is) => format!("its clock of that node stands at {}", exact_moment(is.0)),
            None => "its clock does not say how far it is with that node".to_owned(),
        },
    }
}
