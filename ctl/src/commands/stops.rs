//! Stopping traffic, peers and rollouts, and letting them go: the same question to every node.

use super::confirm;
use crate::cli::{ConfirmArgs, DrainArgs, FreezeArgs, Output, QuarantineArgs, ThawArgs};
use crate::error::{CtlError, Exit};
use crate::mesh::{Session, client};
use crate::render::{self, NodeRow};
use cbddc_domain::id::NodeName;
use cbddc_proto::convert::Malformed;
use cbddc_proto::v1;
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;
use tonic::Status;
use tonic::transport::Channel;

/// What `-o json` prints.
#[derive(Debug, Serialize)]
struct StopsJson {
    nodes: Vec<NodeRow<&'static str>>,
}

/// What every node is asked.
#[derive(Clone)]
enum Change {
    Drained(v1::SetDrainedRequest),
    Quarantined(v1::SetQuarantinedRequest),
    Frozen(v1::SetFrozenRequest),
}

impl Change {
    /// What a person is asked first, and what is said of each node afterwards.
    fn words(&self) -> (&'static str, &'static str) {
        match self {
            Self::Drained(request) if request.drained => ("Stop the traffic of", "drained"),
            Self::Drained(_) => ("Let traffic go on to", "takes traffic again"),
            Self::Quarantined(request) if request.quarantined => {
                ("Cut off from its peers:", "quarantined")
            }
            Self::Quarantined(_) => ("Let join its peers again:", "released"),
            Self::Frozen(request) if request.lasts_ms > 0 => ("Refuse rollouts on", "frozen"),
            Self::Frozen(_) => ("Let rollouts begin on", "thawed"),
        }
    }

    async fn ask(self, channel: Channel) -> Result<(), Status> {
        let mut node = client::node(channel);
        match self {
            Self::Drained(request) => node.set_drained(request).await.map(drop),
            Self::Quarantined(request) => node.set_quarantined(request).await.map(drop),
            Self::Frozen(request) => node.set_frozen(request).await.map(drop),
        }
    }
}

pub(super) async fn drain(
    arguments: DrainArgs,
    drained: bool,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    let targets = session.targets(&arguments.targets.node)?;
    let change = Change::Drained(v1::SetDrainedRequest {
        drained,
        reason: arguments.reason,
    });
    ask_all(session, &targets, change, arguments.confirm, output).await
}

pub(super) async fn quarantine(
    arguments: QuarantineArgs,
    quarantined: bool,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    let targets = session.targets(&arguments.targets.node)?;
    let change = Change::Quarantined(v1::SetQuarantinedRequest {
        quarantined,
        reason: arguments.reason,
    });
    ask_all(session, &targets, change, arguments.confirm, output).await
}

pub(super) async fn freeze(
    arguments: &FreezeArgs,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    if arguments.reason.trim().is_empty() {
        return Err(CtlError::usage("a freeze needs --reason TEXT"));
    }
    let change = Change::Frozen(v1::SetFrozenRequest {
        lasts_ms: arguments.lasts.as_millis().try_into().unwrap_or(u64::MAX),
        reason: arguments.reason.clone(),
    });
    ask_all(session, &session.nodes(), change, arguments.confirm, output).await
}

pub(super) async fn thaw(
    arguments: &ThawArgs,
    session: &Session,
    output: Output,
) -> Result<Exit, CtlError> {
    let change = Change::Frozen(v1::SetFrozenRequest {
        lasts_ms: 0,
        reason: arguments.reason.clone(),
    });
    ask_all(session, &session.nodes(), change, arguments.confirm, output).await
}

/// A command of the host's own may run for as long as its agent lets it.
const COMMAND_LIMIT: Duration = Duration::from_secs(70);

async fn ask_all(
    session: &Session,
    targets: &BTreeSet<NodeName>,
    change: Change,
    asked: ConfirmArgs,
    output: Output,
) -> Result<Exit, CtlError> {
    let (question, done) = change.words();
    let names: Vec<&str> = targets.iter().map(NodeName::as_str).collect();
    if let Some(exit) = confirm(&format!("{question} {}?", names.join(", ")), asked)? {
        return Ok(exit);
    }
    let limit = session.timeout().max(COMMAND_LIMIT);
    let outcomes = session
        .fan_out_within(targets, session.jobs(), limit, move |_, channel| {
            change.clone().ask(channel)
        })
        .await;
    let nodes = render::rows(outcomes, |()| Ok::<_, Malformed>(done));
    let json = StopsJson { nodes };
    render::print(output, &json, || {
        let well = json.nodes.iter().filter(|row| row.result.is_some());
        well.map(|row| format!("{}: {done}\n", row.node)).collect()
    })?;
    render::complain(&json.nodes);
    Ok(render::exit_of(&json.nodes))
}
