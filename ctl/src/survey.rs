//! What the nodes show of themselves before and during a change.

use crate::error::{CtlError, Exit};
use crate::mesh::{Outcome, Session, client};
use cbddc_domain::id::NodeName;
use cbddc_domain::proposer::View;
use cbddc_domain::register::{Epoch, Record, RegisterView};
use cbddc_domain::release::Release;
use cbddc_proto::convert::{Malformed, required};
use cbddc_proto::v1;
use std::collections::{BTreeMap, BTreeSet};

/// One node, as it showed itself.
#[derive(Debug, Clone)]
pub struct Shown {
    /// What the proposer needs.
    pub view: View,
    /// What the agent has promised, voted for and learnt.
    pub register: RegisterView,
    /// Where it stands, in a sentence.
    pub phase_text: String,
    /// The phase's word.
    pub phase: String,
    /// The rollout that is on probation or under way there.
    pub epoch: Option<Epoch>,
    /// The newest judgement of its checks.
    pub health: String,
    /// What there is to know before it is replaced.
    pub warnings: Vec<String>,
}

/// Asks one node.
pub async fn look(channel: tonic::transport::Channel) -> Result<Shown, tonic::Status> {
    let answer = client::node(channel)
        .get_status(v1::GetStatusRequest {})
        .await?
        .into_inner();
    shown(answer).map_err(senseless)
}

/// Follows one node: what it shows now, and whatever it shows from now on.
pub struct Watch(tonic::Streaming<v1::WatchStatusResponse>);

impl Watch {
    /// Begins.
    pub async fn begin(channel: tonic::transport::Channel) -> Result<Self, tonic::Status> {
        let answer = client::node(channel)
            .watch_status(v1::WatchStatusRequest {})
            .await?;
        Ok(Self(answer.into_inner()))
    }

    /// Waits for the next sight of it; none: the agent ended.
    pub async fn next(&mut self) -> Result<Option<Shown>, tonic::Status> {
        let Some(message) = self.0.message().await? else {
            return Ok(None);
        };
        let status = required("status", message.status).map_err(senseless)?;
        shown(status).map(Some).map_err(senseless)
    }
}

fn senseless(fault: Malformed) -> tonic::Status {
    tonic::Status::internal(format!("the answer makes no sense: {fault}"))
}

fn shown(status: v1::GetStatusResponse) -> Result<Shown, Malformed> {
    let register: RegisterView = required("register", status.register)?.try_into()?;
    let some = |text: String| (!text.is_empty()).then_some(text);
    let epoch: Option<Epoch> = status.epoch.map(Into::into);
    let release = status.release.map(TryInto::try_into).transpose()?;
    let view = View {
        probation: epoch.filter(|_| status.phase == "probation"),
        clean: status.probation_clean,
        unhealthy: some(status.health_reasons.join("; ")),
        starting: !status.starting.is_empty(),
        last_rollout: status
            .last_rollout
            .map(|epoch| (epoch.into(), some(status.last_rollout_outcome))),
        running: release,
        steady: status.phase == "steady",
        decided: register
            .decided
            .as_ref()
            .map(|record| record.epoch)
            .unwrap_or_default(),
        stuck: some(status.stuck),
        drift: some(status.drift),
    };
    let (phase_text, phase, health) = (status.phase_text, status.phase, status.health);
    let warnings = [status.uncovered, status.start_warning]
        .map(some)
        .into_iter()
        .flatten();
    let warnings = warnings.collect();
    Ok(Shown {
        view,
        register,
        phase_text,
        phase,
        epoch,
        health,
        warnings,
    })
}

/// All nodes, as they showed themselves.
pub struct Survey {
    /// By node.
    pub nodes: BTreeMap<NodeName, Outcome<Shown>>,
}

impl Survey {
    /// Asks every member.
    pub async fn take(session: &Session) -> Result<Self, CtlError> {
        let nodes = session
            .fan_out(&session.nodes(), |_, channel| look(channel))
            .await;
        let survey = Self { nodes };
        if survey.reached().next().is_none() {
            let mut error = CtlError::failed("no node of the mesh could be reached")
                .hint("check the addresses with `cbctl mesh show`, and whether the agents run");
            for (node, outcome) in &survey.nodes {
                error = error.detail(format!("{node}: {}", outcome.why()));
            }
            return Err(error);
        }
        Ok(survey)
    }

    /// The nodes that answered.
    pub fn reached(&self) -> impl Iterator<Item = (&NodeName, &Shown)> {
        self.nodes
            .iter()
            .filter_map(|(node, outcome)| Some((node, outcome.ok()?)))
    }

    /// The decided record with the highest epoch.
    pub fn decided(&self) -> Option<&Record> {
        let records = self
            .reached()
            .filter_map(|(_, shown)| shown.register.decided.as_ref());
        records.max_by_key(|record| record.epoch)
    }

    /// The epoch of that record.
    pub fn decided_epoch(&self) -> Epoch {
        self.decided()
            .map(|record| record.epoch)
            .unwrap_or_default()
    }

    /// The undecided vote with the highest epoch.
    pub fn undecided(&self) -> Option<&Record> {
        let decided = self.decided_epoch();
        let votes = self.reached().flat_map(|(_, shown)| &shown.register.votes);
        votes
            .filter(|vote| vote.epoch > decided)
            .max_by_key(|vote| vote.epoch)
    }

    /// An epoch above everything that any reached node has heard of.
    pub fn next_epoch(&self) -> Result<Epoch, CtlError> {
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).map_err(|error| {
            CtlError::failed("the system gives no random numbers").because(error)
        })?;
        Ok(self.highest_epoch().next(u64::from_le_bytes(nonce)))
    }

    /// The highest epoch that any reached node has heard of.
    pub fn highest_epoch(&self) -> Epoch {
        self.reached()
            .map(|(_, shown)| shown.register.highest)
            .max()
            .unwrap_or_default()
    }

    /// The standing revocation of a release's build, from any node.
    pub fn revoked(&self, release: &Release) -> Option<&str> {
        self.reached().find_map(|(_, shown)| {
            let revocation = shown.register.revocations.get(&release.build.digest)?;
            (!revocation.lifted).then_some(revocation.reason.as_str())
        })
    }

    /// The newest record that was decided by votes: it says who votes (rule 15).
    pub fn elected(&self) -> Option<&Record> {
        let elected = self
            .reached()
            .filter_map(|(_, shown)| shown.register.elected());
        elected.max_by_key(|record| record.epoch)
    }

    /// Who votes: those that the newest record names, and until there is one those that the agents
    /// were told at the beginning, which then has to be the same everywhere.
    pub fn voters(&self) -> Result<BTreeSet<NodeName>, CtlError> {
        if let Some(record) = self.elected() {
            return Ok(record.voters.clone());
        }
        let mut told: BTreeMap<&BTreeSet<NodeName>, Vec<&str>> = BTreeMap::new();
        for (node, shown) in self.reached() {
            let nodes = told.entry(&shown.register.voters).or_default();
            nodes.push(node.as_str());
        }
        if told.len() <= 1 {
            return Ok(told.into_keys().next().cloned().unwrap_or_default());
        }
        let mut error = CtlError::new(Exit::Refused, "the agents do not agree on who votes");
        for (voters, nodes) in told {
            let voters: Vec<&str> = voters.iter().map(NodeName::as_str).collect();
            error = error.detail(format!("{}: {}", nodes.join(", "), voters.join(", ")));
        }
        Err(error.hint("give every one of these hosts the same mesh.toml, and restart its agent"))
    }
}
