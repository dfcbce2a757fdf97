//! A simulated `cbctl`: looks at the mesh, makes a proposal, drives the proposer, may die.

mod own;
mod views;

use super::mesh::{Ask, Mesh, Told as Answered, host_name, short};
use cbddc_domain::build::Digest;
use cbddc_domain::id::NodeName;
use cbddc_domain::node::{Event, Node, Prepare, ProposalKind, Refusal};
use cbddc_domain::plan::{Plan, Timing};
use cbddc_domain::proposer::{
    Command, Draft, Failure, MeshVerdict, Outcome, Proposal, Proposer, Told,
};
use cbddc_domain::register::{Epoch, Record, RecordKind};
use cbddc_domain::release::Release;
use cbddc_domain::waves::{WaveSizes, waves};
use std::collections::{BTreeMap, BTreeSet};
use views::view_of;

/// How long a client looks around before it proposes.
const LOOK_MS: u64 = 1_500;

/// The timing of simulated rollouts: like the real one, but everything is over sooner.
pub const TIMING: Timing = Timing {
    verify_ms: 25_000,
    healthy_ms: 2_000,
    probation_ms: 15_000,
    renew_ms: 4_000,
    soak_ms: 1_000,
    bake_ms: 0,
};

/// What a client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Script {
    /// Roll this out to these hosts; all hosts: the whole mesh.
    Rollout(Release, Vec<usize>),
    /// Back to the newest committed release that does not run; with a revocation of what runs.
    Rollback {
        /// Whether to revoke what runs.
        revoke: bool,
        /// Where to, if no node names anything.
        otherwise: Release,
    },
    /// Go on with what another client began.
    Resume,
    /// End what another client began.
    Abort,
    /// Let these hosts vote from now on.
    Voters(Vec<usize>),
    /// Lift every revocation.
    Trust,
    /// The rollback that this host's agent proposes by itself.
    Own(usize),
    /// Back, by force, without a majority.
    Minority {
        /// Where to, if no node names anything.
        otherwise: Release,
    },
}

enum Call {
    Look,
    Command(Command),
}

/// A client.
#[derive(Default)]
pub struct Client {
    /// Its number.
    pub index: usize,
    script: Option<Script>,
    gone: bool,
    began: Option<u64>,
    looked: BTreeMap<usize, Node>,
    calls: BTreeMap<u64, (usize, Call)>,
    proposal: Option<Proposal>,
    proposer: Option<Proposer>,
    /// How it ended, once it has.
    pub outcome: Option<Outcome>,
    last_words: Option<u64>,
    forced: Option<Record>,
}

impl Client {
    /// A client that has not begun.
    pub fn new(index: usize, script: Script) -> Self {
        Self {
            index,
            script: Some(script),
            ..Self::default()
        }
    }

    /// Whether it has ended or died.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// What it was about and how it ended, in a few words.
    pub fn word(&self) -> String {
        let kind = self
            .proposal
            .as_ref()
            .map(|proposal| format!("{:?}", proposal.kind));
        let outcome = self.outcome.as_ref().map(|outcome| {
            let text = format!("{outcome:?}");
            text.chars()
                .take_while(|c| c.is_alphanumeric())
                .collect::<String>()
        });
        format!(
            "{} {}",
            kind.unwrap_or_default(),
            outcome.unwrap_or_else(|| "died".into())
        )
    }

    /// Whether it was begun for just this.
    pub fn is_about(&self, script: &Script) -> bool {
        self.script.as_ref() == Some(script)
    }

    /// Ends it in the middle.
    pub fn die(&mut self) {
        self.gone = true;
    }

    /// A moment for it: it looks at the mesh, and decides what to do next.
    pub fn wake(&mut self, mesh: &mut Mesh) {
        if self.last_words.is_some_and(|at| mesh.t >= at) {
            self.gone = true;
            return;
        }
        let began = *self.began.get_or_insert(mesh.t);
        for host in 0..mesh.hosts.len() {
            let call = mesh.call(self.index, host, Ask::Look);
            self.calls.insert(call, (host, Call::Look));
        }
        if self.proposer.is_some() {
            self.tell(mesh, Told::Tick);
        } else if mesh.t >= began + LOOK_MS {
            self.begin(mesh);
        }
    }

    /// An answer, or none in time.
    pub fn hear(&mut self, mesh: &mut Mesh, call: u64, told: Option<(usize, Answered)>) {
        let Some((host, call)) = self.calls.remove(&call) else {
            return;
        };
        match (call, told) {
            (Call::Look, Some((_, Answered::Look(node)))) => {
                let view = Box::new(view_of(&node));
                self.looked.insert(host, *node);
                if self.proposer.is_some() {
                    self.tell(mesh, Told::Seen(host_name(host), view));
                }
            }
            (Call::Look, _) => {}
            (Call::Command(command), told) => {
                let answer = match told {
                    Some((_, Answered::Events(Ok(view)))) => Ok(view),
                    Some((_, Answered::Events(Err(refusal)))) => Err(refused(&refusal)),
                    Some((
                        _,
                        Answered::Look(_)
                        | Answered::Voted(..)
                        | Answered::Gossip(..)
                        | Answered::Fenced(..),
                    ))
                    | None => Err(Failure::Unreachable("no answer".into())),
                };
                let done = answer.as_ref().map(|_| ()).map_err(Clone::clone);
                let told = match command {
                    Command::Prepare(node, _) => Told::Prepared(node, answer),
                    Command::Activate(node) => Told::Activated(node, done),
                    Command::Renew(node) => Told::Renewed(node, done),
                    Command::Vote(node, _) => Told::Voted(node, done),
                    Command::Confirm(node, ..) => Told::Confirmed(node, done),
                    Command::Revert(node, _) => Told::Reverted(node, done),
                    Command::CheckMesh(_) => return,
                };
                self.tell(mesh, told);
            }
        }
    }

    /// The mesh check that was asked for has a verdict.
    pub fn mesh_checked(&mut self, mesh: &mut Mesh, wave: usize) {
        let Some(proposal) = &self.proposal else {
            return;
        };
        let quality = mesh.builds.get(&proposal.plan.release.build.digest);
        let verdict = if quality == Some(&super::world::Quality::FailsMesh) {
            MeshVerdict::Failed("an event did not arrive".into())
        } else if mesh.random.chance(200) {
            MeshVerdict::Pending("an event is on its way".into())
        } else {
            MeshVerdict::Passed
        };
        self.tell(mesh, Told::MeshChecked(wave, verdict));
    }

    fn tell(&mut self, mesh: &mut Mesh, told: Told) {
        if self.last_words.is_some() {
            return;
        }
        let Some(proposer) = &mut self.proposer else {
            return;
        };
        let commands = proposer.tell(told, mesh.t);
        self.perform(mesh, commands);
        let Some(outcome) = self.proposer.as_ref().and_then(Proposer::outcome) else {
            return;
        };
        let outcome = outcome.clone();
        let proposal = self.proposal.as_ref().expect("it has a proposer");
        mesh.note(|| {
            format!(
                "client {} ends {}: {outcome:?}",
                self.index,
                short(proposal.epoch)
            )
        });
        mesh.checker.outcome(proposal, &outcome, &mesh.hosts);
        if let (Some(Script::Own(host)), false) =
            (&self.script, matches!(outcome, Outcome::Decided { .. }))
        {
            mesh.own_tried(*host, "not decided", false);
        }
        self.outcome = Some(outcome);
        self.last_words = Some(mesh.t + 2_000);
    }

    fn perform(&mut self, mesh: &mut Mesh, commands: Vec<Command>) {
        let proposal = self
            .proposal
            .clone()
            .expect("commands come from a proposer");
        // The worst moment to die: some votes are asked for, others are not.
        let mut left = usize::MAX;
        let votes = commands
            .iter()
            .filter(|c| matches!(c, Command::Vote(..)))
            .count();
        if votes > 0 && mesh.strikes(150) {
            left = mesh.random.index(votes + 1);
        }
        for command in commands {
            if matches!(command, Command::Vote(..)) {
                if left == 0 {
                    mesh.note(|| format!("client {} dies while it asks for votes", self.index));
                    return self.die();
                }
                left -= 1;
            }
            if let Command::CheckMesh(wave) = command {
                mesh.check_mesh(self.index, wave);
                continue;
            }
            let (node, events) = events_of(&command, &proposal);
            let host = (0..mesh.hosts.len()).find(|host| host_name(*host) == node);
            let host = host.expect("every member is a host");
            let call = mesh.call(self.index, host, Ask::Events(events));
            self.calls.insert(call, (host, Call::Command(command)));
        }
    }

    fn begin(&mut self, mesh: &mut Mesh) {
        let own = self.script.clone();
        let planned = match own {
            Some(Script::Own(host)) => self.plan_own(mesh, host),
            Some(_) | None => self.plan(mesh),
        };
        let Some(proposal) = planned else {
            mesh.note(|| format!("client {} finds nothing to do", self.index));
            self.gone = true;
            return;
        };
        mesh.note(|| {
            let (kind, epoch) = (proposal.kind, short(proposal.epoch));
            let (what, base) = (&proposal.plan.release.build.id, short(proposal.based_on));
            format!(
                "client {} begins {kind:?} {epoch} of {what} on {base}",
                self.index
            )
        });
        self.proposal = Some(proposal.clone());
        mesh.checker.proposed(&proposal);
        let (proposer, commands) = match self.forced.clone() {
            Some(record) => Proposer::force(proposal, record, mesh.t),
            None => Proposer::begin(proposal, mesh.t),
        };
        self.proposer = Some(proposer);
        self.perform(mesh, commands);
    }

    fn plan(&mut self, mesh: &mut Mesh) -> Option<Proposal> {
        let nodes: Vec<&Node> = self.looked.values().collect();
        let highest = nodes
            .iter()
            .map(|node| node.register.highest_epoch())
            .max()?;
        let nonce = mesh.random.below(1_000) * 100 + self.index as u64;
        let epoch = highest.next(nonce);
        let decided = nodes
            .iter()
            .filter_map(|node| node.register.decided.as_ref());
        let decided = decided.max_by_key(|record| record.epoch);
        let based_on = decided.map_or(Epoch::default(), |record| record.epoch);
        let members: BTreeSet<NodeName> = mesh.hosts.iter().map(|host| host.name.clone()).collect();
        let holder = format!("client {}", self.index);
        let (mut voters, mut lifts) = (None, BTreeMap::new());
        let (kind, plan, revokes) = match self.script.clone()? {
            Script::Voters(hosts) => {
                voters = Some(hosts.into_iter().map(host_name).collect());
                let release = decided?.release.clone()?;
                let plan = plan_of(release, &holder);
                (ProposalKind::Amend, plan, BTreeMap::new())
            }
            Script::Trust => {
                let known = nodes.iter().flat_map(|node| &node.register.revocations);
                let known = known.filter(|(_, revocation)| !revocation.lifted);
                lifts = known
                    .map(|(build, _)| (*build, "mended".to_owned()))
                    .collect();
                let release = decided?.release.clone().filter(|_| !lifts.is_empty())?;
                let plan = plan_of(release, &holder);
                (ProposalKind::Amend, plan, BTreeMap::new())
            }
            Script::Own(_) => return None,
            Script::Minority { otherwise } => {
                let (target, runs) = rollback_target(&nodes, otherwise)?;
                let runs = runs.into_iter();
                let revokes = runs.map(|release| (release.build.digest, "it burns".to_owned()));
                let plan = plan_of(target, &holder);
                (ProposalKind::Rollback, plan, revokes.collect())
            }
            Script::Rollout(release, targets) => {
                let names: Vec<NodeName> = targets.iter().map(|host| host_name(*host)).collect();
                let sizes = WaveSizes::default_for(names.len());
                let plan = Plan {
                    id: format!("r{}", self.index),
                    waves: waves(&names, &sizes, members.len()),
                    whole_mesh: names.len() == members.len(),
                    timing: Timing {
                        bake_ms: mesh.bake_ms,
                        ..TIMING
                    },
                    ..plan_of(release, &holder)
                };
                (ProposalKind::Rollout, plan, BTreeMap::new())
            }
            Script::Rollback { revoke, otherwise } => {
                let (target, runs) = rollback_target(&nodes, otherwise)?;
                let revokes = runs
                    .filter(|_| revoke)
                    .map(|release| (release.build.digest, "it loses orders".to_owned()));
                let plan = plan_of(target, &holder);
                (ProposalKind::Rollback, plan, revokes.into_iter().collect())
            }
            Script::Resume => (ProposalKind::Resume, unfinished(&nodes)?, BTreeMap::new()),
            Script::Abort => {
                let plan = Plan {
                    waves: Vec::new(),
                    ..unfinished(&nodes)?
                };
                (ProposalKind::Abort, plan, BTreeMap::new())
            }
        };
        let targets: BTreeSet<NodeName> = plan.targets().cloned().collect();
        let partial =
            matches!(kind, ProposalKind::Rollout | ProposalKind::Resume) && !plan.whole_mesh;
        let amends = kind == ProposalKind::Amend;
        let draft = Draft {
            kind: match kind {
                ProposalKind::Rollback => RecordKind::Rollback,
                ProposalKind::Amend if voters.is_some() => RecordKind::Voters,
                ProposalKind::Amend => RecordKind::Trust,
                ProposalKind::Rollout | ProposalKind::Resume | ProposalKind::Abort => {
                    RecordKind::Rollout
                }
            },
            release: (!amends).then(|| plan.release.clone()),
            nodes: partial.then_some(targets),
            voters,
            revokes,
            lifts,
            restores: BTreeSet::new(),
            proposed_by: holder,
            reason: "simulated".into(),
        };
        let (voters, settle_ms) = (mesh.voters.clone(), 30_000);
        let mut epoch = epoch;
        if matches!(self.script, Some(Script::Minority { .. })) {
            let elected = nodes.iter().filter_map(|node| node.register.elected());
            let elected = elected.max_by_key(|record| record.epoch);
            let voters = elected.map_or(&voters, |record| &record.voters);
            let record = draft.forced(decided, highest, nonce, voters);
            epoch = record.epoch;
            self.forced = Some(record);
        }
        Some(Proposal {
            kind,
            epoch,
            members,
            voters,
            plan,
            draft,
            based_on,
            settle_ms,
        })
    }
}

fn plan_of(release: Release, holder: &str) -> Plan {
    Plan {
        id: "x".into(),
        release,
        waves: Vec::new(),
        whole_mesh: true,
        timing: TIMING,
        started_by: holder.to_owned(),
        reason: "simulated".into(),
        accepted: None,
    }
}

/// The newest rollout that has not ended everywhere.
fn unfinished(nodes: &[&Node]) -> Option<Plan> {
    let entries = nodes.iter().flat_map(|node| &node.rollouts);
    let open = entries.filter(|entry| entry.outcome.is_none());
    open.max_by_key(|entry| entry.epoch)
        .map(|entry| entry.plan.clone())
}

/// The newest committed and unrevoked release that is not the decided one, and what is decided.
fn rollback_target(nodes: &[&Node], otherwise: Release) -> Option<(Release, Option<Release>)> {
    let revoked: BTreeSet<Digest> = nodes
        .iter()
        .flat_map(|node| &node.register.revocations)
        .filter(|(_, revocation)| !revocation.lifted)
        .map(|(digest, _)| *digest)
        .collect();
    let decided = nodes
        .iter()
        .filter_map(|node| node.register.decided.as_ref());
    let decided = decided.max_by_key(|record| record.epoch);
    let runs = decided.and_then(|record| {
        let exception = record.exceptions.values().next();
        exception.or(record.release.as_ref()).cloned()
    });
    // In the middle of a rollout: back to what is decided, away from what is on its way.
    let open = unfinished(nodes).map(|plan| plan.release);
    if let (Some(open), Some(runs)) = (open, &runs)
        && open != *runs
        && !revoked.contains(&runs.build.digest)
    {
        return Some((runs.clone(), Some(open)));
    }
    let committed = nodes.iter().flat_map(|node| node.history.iter());
    let committed = committed.filter(|generation| generation.committed.is_some());
    let usable = committed
        .filter(|generation| Some(&generation.release) != runs.as_ref())
        .filter(|generation| !revoked.contains(&generation.release.build.digest));
    let newest = usable.max_by_key(|generation| generation.committed);
    let otherwise = Some(otherwise)
        .filter(|release| Some(release) != runs.as_ref())
        .filter(|release| !revoked.contains(&release.build.digest));
    let target = newest
        .map(|generation| generation.release.clone())
        .or(otherwise)?;
    Some((target, runs))
}

fn refused(refusal: &Refusal) -> Failure {
    Failure::Refused {
        word: refusal.word().to_owned(),
        text: refusal.to_string(),
    }
}

fn events_of(command: &Command, proposal: &Proposal) -> (NodeName, Vec<Event>) {
    let epoch = proposal.epoch;
    let timing = proposal.plan.timing;
    match command {
        Command::Prepare(node, next) => {
            let takes_part = matches!(proposal.kind, ProposalKind::Rollout | ProposalKind::Resume);
            let prepare = Prepare {
                epoch,
                kind: proposal.kind,
                holder: proposal.draft.proposed_by.clone(),
                what: proposal.plan.release.build.id.to_string(),
                lease_ms: timing.probation_ms,
                next: next.as_deref().cloned(),
                plan: takes_part.then(|| proposal.plan.clone()),
            };
            (node.clone(), vec![Event::Prepare(Box::new(prepare))])
        }
        Command::Activate(node) => {
            let activate = Event::Activate {
                epoch,
                release: Box::new(proposal.plan.release.clone()),
                probation_ms: timing.probation_ms,
                changes_persistence: epoch.nonce.is_multiple_of(3),
            };
            (node.clone(), vec![activate])
        }
        Command::Renew(node) => {
            let lease_ms = timing.probation_ms;
            (node.clone(), vec![Event::Renew { epoch, lease_ms }])
        }
        Command::Vote(node, record) if proposal.draft.proposed_by.starts_with("node ") => {
            (node.clone(), vec![Event::VoteBack(record.clone())])
        }
        Command::Vote(node, record) => (node.clone(), vec![Event::Vote(record.clone())]),
        Command::Confirm(node, record, _) if record.forced => {
            (node.clone(), vec![Event::Force(record.clone())])
        }
        Command::Confirm(node, record, voted) => {
            // Whoever confirms brings the votes along; here the checker knows whether they are real.
            let told = record
                .is_decided_by(voted)
                .then(|| Event::Learn(record.clone()));
            (node.clone(), told.into_iter().collect())
        }
        Command::Revert(node, cause) => {
            let cause = cause.clone();
            (node.clone(), vec![Event::Revert { epoch, cause }])
        }
        Command::CheckMesh(_) => unreachable!("a mesh check is not asked of a node"),
    }
}
