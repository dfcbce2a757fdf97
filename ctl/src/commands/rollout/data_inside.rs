//! Data in the folders of builds: a rollout would leave it behind, so none begins.

use crate::error::{CtlError, Exit};
use crate::mesh::{Outcome, Session, client};
use cbddc_domain::build::BuildId;
use cbddc_domain::id::NodeName;
use cbddc_proto::v1;
use std::collections::BTreeSet;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// What one node said of the build that runs and of the one that is to follow.
type Looked = Vec<v1::ShowBuildResponse>;

/// Refuses to go on where databases lie in the folder of a build that a node is to leave or to come to.
/// Files that nodes have open there count as data, unless they are logs, which are told.
pub(super) async fn check(
    nodes: &BTreeSet<NodeName>,
    next: &BuildId,
    session: &Session,
) -> Result<(), CtlError> {
    let next = next.to_string();
    let outcomes = session.fan_out(nodes, move |_, channel| look(channel, next.clone()));
    let mut found = Vec::new();
    for (node, outcome) in outcomes.await {
        let looked = match outcome {
            Outcome::Ok(looked) => looked,
            // Each node looks again for itself before it lets a rollout begin.
            Outcome::Unreachable { .. } | Outcome::Refused { .. } | Outcome::TimedOut => {
                let why = outcome.why();
                eprintln!("note: {node}: the folders of its builds were not looked at: {why}");
                continue;
            }
        };
        for shown in &looked {
            if !shown.logs_written.is_empty() {
                let written = shown.logs_written.join(", ");
                eprintln!(
                    "note: {node} has logs open for writing in its build's folder, where the next \
                     build does not find them: {written}"
                );
            }
            if !shown.written_unknown.is_empty() {
                eprintln!("note: {node}: {}", shown.written_unknown);
            }
            let written = shown.written.iter();
            found.extend(written.map(|path| format!("{node}: {path}, which the node has open")));
            found.extend(data_in(shown).map(|what| format!("{node}: {what}")));
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    let what = "data lies in the folders of builds, where the next build would not find it";
    let mut error = CtlError::new(Exit::Refused, format!("{what}: nothing was changed"));
    for line in found {
        error = error.detail(line);
    }
    Err(error.hint(
        "move the data elsewhere, for example to /var/lib, set the application's path to it, and \
         restart the node",
    ))
}

/// The data in one build's folder, where there is or may be any.
fn data_in(shown: &v1::ShowBuildResponse) -> Option<String> {
    let grown = shown.grown.as_ref()?;
    match (grown.databases.is_empty(), grown.more) {
        (false, _) => Some(grown.databases.join(", ")),
        (true, true) => {
            let build = shown.info.as_ref().and_then(|info| info.build.as_ref());
            let name = build.map_or_else(String::new, |build| build.id.clone());
            Some(format!(
                "the folder of {name} holds more files than are looked through"
            ))
        }
        (true, false) => None,
    }
}

/// Looks at both; nothing is found in what follows itself, or is not there.
async fn look(channel: Channel, next: String) -> Result<Looked, Status> {
    let mut looked = Vec::new();
    for build in [String::new(), next.clone()] {
        let request = v1::ShowBuildRequest { build };
        match client::build(channel.clone()).show_build(request).await {
            Ok(shown) => looked.push(shown.into_inner()),
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => return Err(status),
        }
    }
    let follows_itself = |shown: &v1::ShowBuildResponse| {
        let info = shown.info.as_ref();
        info.is_some_and(|info| {
            info.current && info.build.as_ref().is_some_and(|build| build.id == next)
        })
    };
    if looked.iter().any(follows_itself) {
        looked.clear();
    }
    Ok(looked)
}
