//! Which members a command is for: named, by label, or all.

use super::Session;
use crate::error::CtlError;
use cbddc_domain::id::NodeName;
use cbddc_domain::mesh::Member;
use std::collections::BTreeSet;

impl Session {
    /// The named nodes, or all of them where none is named.
    pub fn targets(&self, named: &[NodeName]) -> Result<BTreeSet<NodeName>, CtlError> {
        if named.is_empty() {
            return Ok(self.nodes());
        }
        let unknown: Vec<&str> = named
            .iter()
            .filter(|name| !self.inner.nodes.contains_key(*name))
            .map(NodeName::as_str)
            .collect();
        if unknown.is_empty() {
            return Ok(named.iter().cloned().collect());
        }
        let members: Vec<String> = self.nodes().iter().map(ToString::to_string).collect();
        Err(CtlError::usage(format!(
            "the mesh {} has no node {}",
            self.inner.mesh.name,
            unknown.join(", ")
        ))
        .hint(format!("its nodes are {}", members.join(", "))))
    }

    /// The named nodes, or those that have all of the labels, or all of them where neither is given.
    pub fn selected(
        &self,
        named: &[NodeName],
        labels: &[(String, String)],
    ) -> Result<BTreeSet<NodeName>, CtlError> {
        if labels.is_empty() {
            return self.targets(named);
        }
        let members = &self.inner.mesh.members;
        let fits = |member: &&Member| {
            let has = |(key, value): &(String, String)| member.labels.get(key) == Some(value);
            labels.iter().all(has)
        };
        let selected: BTreeSet<NodeName> = members
            .iter()
            .filter(fits)
            .map(|member| member.name.clone())
            .collect();
        if !selected.is_empty() {
            return Ok(selected);
        }
        let show = |(key, value): (&String, &String)| format!("{key}={value}");
        let wanted: Vec<String> = labels
            .iter()
            .map(|(key, value)| show((key, value)))
            .collect();
        let known: BTreeSet<String> = members
            .iter()
            .flat_map(|member| member.labels.iter().map(show))
            .collect();
        let known: Vec<String> = known.into_iter().collect();
        let hint = match known.as_slice() {
            [] => "no member has a label: `cbctl mesh label NODE KEY=VALUE` gives one".to_owned(),
            known => format!("its labels are {}", known.join(", ")),
        };
        Err(CtlError::usage(format!(
            "no member of {} is {}: nothing was changed",
            self.inner.mesh.name,
            wanted.join(" and ")
        ))
        .hint(hint))
    }
}
