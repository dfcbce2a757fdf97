//! Members that do not answer: what that means depends on whether the mesh counts on them.

use crate::error::{CtlError, Exit};
use crate::mesh::Session;
use crate::render::values;
use crate::survey::Survey;
use cbddc_domain::id::NodeName;
use std::collections::{BTreeMap, BTreeSet};

/// Those that did not answer, each with the reason in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Away {
    /// The mesh counts on these.
    pub required: BTreeMap<NodeName, String>,
    /// These come and go: they get there when they are back.
    pub optional: BTreeMap<NodeName, String>,
}

impl Away {
    /// Who is away, by the survey.
    pub fn of(session: &Session, survey: &Survey, voters: &BTreeSet<NodeName>) -> Self {
        let mut away = Self::default();
        for member in &session.mesh().members {
            let Some(outcome) = survey.nodes.get(&member.name) else {
                continue;
            };
            // One that refuses is there.
            if outcome.ok().is_some() || outcome.word() == "refused" {
                continue;
            }
            let known = session.heard().and_then(|heard| heard.of(&member.name));
            let seen = known.and_then(|known| known.last_seen_wall_ms);
            let seen = seen.map_or_else(
                || "never seen by the others".to_owned(),
                |ms| format!("last seen {}", values::moment(ms)),
            );
            let why = format!("{}, {seen}", outcome.why());
            // Whoever votes is counted on, whatever is said of it since.
            if member.required || voters.contains(&member.name) {
                away.required.insert(member.name.clone(), why);
            } else {
                away.optional.insert(member.name.clone(), why);
            }
        }
        away
    }

    /// Whom a change waits for: all but the optional ones that are away.
    pub fn without_optional(&self, nodes: &BTreeSet<NodeName>) -> BTreeSet<NodeName> {
        let there = |node: &&NodeName| !self.optional.contains_key(*node);
        nodes.iter().filter(there).cloned().collect()
    }

    /// The optional ones among `nodes`, as an ending shows them.
    pub fn pending(&self, nodes: &BTreeSet<NodeName>) -> BTreeMap<NodeName, String> {
        let optional = self.optional.iter();
        let among = optional.filter(|(node, _)| nodes.contains(*node));
        among
            .map(|(node, why)| (node.clone(), format!("optional and away: {why}")))
            .collect()
    }

    /// A rollout needs every required member that it is for. The others may be on the far side of a
    /// partition: their votes are counted on, and the mesh check says that it leaves them out.
    pub fn check_rollout(&self, targets: &BTreeSet<NodeName>) -> Result<(), CtlError> {
        let required = self.required.iter();
        let needed: Vec<_> = required
            .filter(|(node, _)| targets.contains(*node))
            .collect();
        if needed.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = needed.iter().map(|(node, _)| node.as_str()).collect();
        let what = format!(
            "members that are required are away: {}; nothing was changed",
            names.join(", ")
        );
        let mut error = CtlError::new(Exit::Refused, what);
        for (node, why) in needed {
            error = error.detail(format!("{node}: {why}"));
        }
        Err(error.hint(
            "bring them back, or let them come and go with `cbctl mesh label NODE --optional` and \
             then `cbctl mesh voters`",
        ))
    }
}
