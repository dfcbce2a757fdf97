//! The rules, held against every step by one who sees everything.

use super::mesh::{ASK_LIMIT_MS, Host, TICK_MS, short};
use cbddc_domain::generation::{Fallback, GenerationNumber};
use cbddc_domain::id::NodeName;
use cbddc_domain::node::{Action, Effect, Event, Node, ProposalKind, Reply, Step};
use cbddc_domain::phase::{CauseKind, Phase, Purpose};
use cbddc_domain::proposer::{Outcome, Proposal};
use cbddc_domain::register::{Answer, Epoch, Record, is_majority};
use cbddc_domain::time::Now;
use std::collections::{BTreeMap, BTreeSet};

/// What really happened, whoever knows of it.
#[derive(Default)]
pub struct Checker {
    /// The first broken rule.
    pub broken: Option<String>,
    votes: BTreeMap<Epoch, (Record, BTreeSet<NodeName>)>,
    decided: BTreeMap<Epoch, Record>,
    answered_no: BTreeSet<(usize, Epoch)>,
    gone_back: BTreeSet<(usize, Epoch)>,
    activated: BTreeSet<(usize, Epoch)>,
    reverted: BTreeMap<Epoch, String>,
    highest: BTreeMap<usize, (Epoch, Epoch)>,
    budgets: BTreeMap<usize, Budget>,
    went_back_at: BTreeMap<usize, u64>,
}

/// How often one node may switch, and why.
#[derive(Default)]
struct Budget {
    activations: u64,
    records: BTreeSet<Epoch>,
    failures: u64,
    crashes: u64,
}

/// The longest that a switch or a revert may take while its agent is up: every step, and each of
/// them as often as it is tried.
const UNDER_WAY_MS: u64 = 120_000;

impl Checker {
    fn break_(&mut self, text: String) {
        self.broken.get_or_insert(text);
    }

    /// A record that was decided before the simulation began.
    pub fn decided_before(&mut self, record: &Record) {
        self.decided.insert(record.epoch, record.clone());
    }

    /// The record that stands in the end.
    pub fn winner(&self) -> Option<&Record> {
        self.decided.last_key_value().map(|(_, record)| record)
    }

    /// A proposer begins.
    pub fn proposed(&mut self, _proposal: &Proposal) {}

    /// An agent or a host crashed.
    pub fn crashed(&mut self, host: usize) {
        self.budgets.entry(host).or_default().crashes += 1;
    }

    /// An effect ended.
    pub fn effect_ended(&mut self, host: usize, well: bool) {
        self.budgets.entry(host).or_default().failures += u64::from(!well);
    }

    /// A step is about to be saved.
    pub fn step(&mut self, index: usize, host: &Host, event: &Event, step: &Step, now: &Now) {
        if self.broken.is_some() {
            return;
        }
        let (before, after) = (&host.node, &step.node);
        let checked = self
            .register_rules(index, before, event, step)
            .and_then(|()| self.request_rules(index, before, event, after))
            .and_then(|()| self.phase_rules(index, host, after, event))
            .and_then(|()| self.effect_rules(host, step))
            .and_then(|()| self.time_rules(index, host, after, event, now));
        if let Err(text) = checked {
            self.break_(format!("{}: {text}", host.name));
        }
    }

    fn register_rules(
        &mut self,
        index: usize,
        before: &Node,
        event: &Event,
        step: &Step,
    ) -> Result<(), String> {
        let after = &step.node;
        let (old, new) = (&before.register, &after.register);
        if new.promised < old.promised || new.decided_epoch() < old.decided_epoch() {
            return Err("promise or decision went back".into());
        }
        if let Event::Vote(record) = event {
            self.vote(index, before, record)?;
        }
        if let (Event::Ask(epoch), Reply::Answer(Answer::No)) = (event, &step.reply) {
            let voted = self.votes.get(epoch);
            let name = super::mesh::host_name(index);
            if voted.is_some_and(|(_, voters)| voters.contains(&name)) {
                return Err(format!("voted for {} and answers no", short(*epoch)));
            }
            self.answered_no.insert((index, *epoch));
        }
        if new.decided_epoch() > old.decided_epoch() {
            let record = new.decided.as_ref().expect("it has an epoch");
            match self.decided.get(&record.epoch) {
                Some(truth) if truth == record => {}
                Some(_) => {
                    return Err(format!(
                        "another record is decided in {}",
                        short(record.epoch)
                    ));
                }
                None => {
                    return Err(format!(
                        "{} was taken for decided without a majority",
                        short(record.epoch)
                    ));
                }
            }
            self.budgets
                .entry(index)
                .or_default()
                .records
                .insert(record.epoch);
        }
        for generation in after.history.iter() {
            let known = before
                .history
                .get(generation.number)
                .and_then(|held| held.committed);
            if let Some(epoch) = generation.committed.filter(|epoch| Some(*epoch) != known) {
                let record = self.decided.get(&epoch);
                if record.is_none() {
                    return Err(format!(
                        "g{} is committed by {}, undecided",
                        generation.number,
                        short(epoch)
                    ));
                }
                let name = super::mesh::host_name(index);
                if record.and_then(|r| r.release_for(&name)) != Some(&generation.release) {
                    return Err(format!(
                        "g{} is committed by a record of another release",
                        generation.number
                    ));
                }
            }
        }
        Ok(())
    }

    fn vote(&mut self, index: usize, before: &Node, record: &Record) -> Result<(), String> {
        let register = &before.register;
        let epoch = record.epoch;
        if register.votes.contains_key(&epoch) || register.decided_epoch() == epoch {
            return Ok(());
        }
        if epoch < register.promised {
            return Err(format!(
                "rule 6: voted for {} below its promise",
                short(epoch)
            ));
        }
        if self.answered_no.contains(&(index, epoch)) {
            return Err(format!(
                "rule 9: voted for {} after it answered no",
                short(epoch)
            ));
        }
        if self.gone_back.contains(&(index, epoch)) {
            return Err(format!(
                "rule 10: voted for {} after it went back",
                short(epoch)
            ));
        }
        let mut ordered = record.release.iter().chain(record.exceptions.values());
        if ordered.any(|release| register.revoked(&release.build.digest).is_some()) {
            return Err(format!(
                "rule 6: voted for {} of a revoked build",
                short(epoch)
            ));
        }
        let name = super::mesh::host_name(index);
        let entry = self
            .votes
            .entry(epoch)
            .or_insert_with(|| (record.clone(), BTreeSet::new()));
        if entry.0 != *record {
            return Err(format!("two records were voted for in {}", short(epoch)));
        }
        entry.1.insert(name);
        let votes = entry.1.intersection(&record.voters).count();
        if is_majority(votes, record.voters.len()) && !self.decided.contains_key(&epoch) {
            if let Some(cause) = self.reverted.get(&epoch) {
                return Err(format!(
                    "{} was reverted ({cause}) and is decided now",
                    short(epoch)
                ));
            }
            self.decided.insert(epoch, record.clone());
        }
        Ok(())
    }

    fn request_rules(
        &mut self,
        index: usize,
        before: &Node,
        event: &Event,
        after: &Node,
    ) -> Result<(), String> {
        let highest = self.highest.entry(index).or_default();
        match event {
            Event::Prepare(prepare) => {
                let repeated = before.register.promised == prepare.epoch;
                if prepare.epoch <= highest.0 && !repeated {
                    return Err(format!("rule 3: promised {} again", short(prepare.epoch)));
                }
                let free = matches!(before.phase, Phase::Steady { .. } | Phase::Prepared { .. });
                if prepare.kind == ProposalKind::Rollout && !repeated && !free {
                    return Err("rule 3: prepared a rollout while busy".into());
                }
            }
            Event::Activate { epoch, release, .. } => {
                if *epoch != highest.0 {
                    return Err(format!(
                        "rule 5: activated {} but promised {}",
                        short(*epoch),
                        short(highest.0)
                    ));
                }
                if self.answered_no.contains(&(index, *epoch))
                    || self.gone_back.contains(&(index, *epoch))
                {
                    return Err(format!(
                        "rule 5: activated {}, sealed or closed",
                        short(*epoch)
                    ));
                }
                if before.register.revoked(&release.build.digest).is_some() {
                    return Err("rule 5: activated a revoked build".into());
                }
                if before
                    .lease
                    .as_ref()
                    .is_none_or(|lease| lease.epoch != *epoch)
                {
                    return Err(format!(
                        "rule 5: activated {} without its lease",
                        short(*epoch)
                    ));
                }
                self.activated.insert((index, *epoch));
                if matches!(before.phase, Phase::Prepared { .. }) {
                    self.budgets.entry(index).or_default().activations += 1;
                }
            }
            Event::Renew { epoch, .. } => {
                if self.answered_no.contains(&(index, *epoch))
                    || self.gone_back.contains(&(index, *epoch))
                {
                    return Err(format!(
                        "rule 9: {} was renewed, sealed or closed",
                        short(*epoch)
                    ));
                }
            }
            Event::Revert { epoch, .. } => {
                let running = before
                    .phase
                    .running()
                    .filter(|_| !matches!(before.phase, Phase::Probation(_)));
                let generation = running.and_then(|number| before.history.get(number));
                if generation
                    .and_then(|g| g.committed)
                    .is_some_and(|committed| committed >= *epoch)
                {
                    return Err(format!(
                        "rule 8: confirmed, and takes a revert of {}",
                        short(*epoch)
                    ));
                }
                self.gone_back.insert((index, *epoch));
            }
            Event::Vote(_)
            | Event::Learn(_)
            | Event::Hear { .. }
            | Event::HearRevocations(_)
            | Event::Ask(_)
            | Event::Answered { .. }
            | Event::Done { .. }
            | Event::Failed { .. }
            | Event::Clean(_)
            | Event::CheckFailed { .. }
            | Event::Exited { .. }
            | Event::Restore { .. }
            | Event::Started { .. }
            | Event::Tick => {}
        }
        let highest = self.highest.entry(index).or_default();
        highest.0 = highest.0.max(after.register.promised);
        highest.1 = highest.1.max(after.register.decided_epoch());
        Ok(())
    }

    fn phase_rules(
        &mut self,
        index: usize,
        host: &Host,
        after: &Node,
        event: &Event,
    ) -> Result<(), String> {
        let before = &host.node;
        if let Some((epoch, left)) = rollout_of(&before.phase) {
            let goes_on = rollout_of(&after.phase).is_some_and(|(_, number)| number == left);
            let committed = after
                .history
                .get(left)
                .is_some_and(|g| g.committed.is_some());
            if !goes_on && !committed {
                self.gone_back.insert((index, epoch));
            }
        }
        if let Phase::Probation(probation) = &after.phase
            && probation.asking.is_some()
            && !after.register.votes.contains_key(&probation.epoch)
            && after.register.decided_epoch() < probation.epoch
        {
            if after.register.sealed.contains(&probation.epoch) {
                self.answered_no.insert((index, probation.epoch));
            } else if probation.epoch >= after.register.promised {
                return Err(format!(
                    "rule 9: asks about {} without sealing it",
                    short(probation.epoch)
                ));
            }
        }
        let (was, is) = (&before.phase, &after.phase);
        if let Phase::Switching(switch) = is
            && !matches!(was, Phase::Switching(held) if held.to == switch.to)
        {
            self.switch_begins(index, before, after, event)?;
        }
        if let Phase::Reverting(revert) = is
            && !matches!(was, Phase::Reverting(_))
        {
            self.revert_begins(before, after, revert.left)?;
        }
        Ok(())
    }

    fn switch_begins(
        &mut self,
        index: usize,
        before: &Node,
        after: &Node,
        event: &Event,
    ) -> Result<(), String> {
        let Phase::Switching(switch) = &after.phase else {
            return Ok(());
        };
        let release = &after
            .history
            .get(switch.to)
            .ok_or("a switch to a forgotten generation")?
            .release;
        if after.register.revoked(&release.build.digest).is_some() {
            return Err("rule 14: a switch to a revoked build began".into());
        }
        match switch.purpose {
            Purpose::Converge { epoch } => {
                let decided = self.highest.get(&index).map(|highest| highest.1);
                if Some(epoch) != decided {
                    return Err(format!(
                        "rule 11: converges to {}, not to the newest it knows",
                        short(epoch)
                    ));
                }
                let name = super::mesh::host_name(index);
                let target = self
                    .decided
                    .get(&epoch)
                    .and_then(|record| record.release_for(&name));
                if target != Some(release) {
                    return Err("rule 7: converges to what the record does not order".into());
                }
                if let Phase::Probation(probation) = &before.phase
                    && probation.epoch > epoch
                {
                    return Err("rule 11: a probation converges to an older record".into());
                }
            }
            Purpose::Rollout { epoch, .. } => {
                if !matches!(event, Event::Activate { epoch: ordered, .. } if *ordered == epoch) {
                    return Err("rule 5: a rollout's switch began without its order".into());
                }
            }
            Purpose::Restore => {}
        }
        Ok(())
    }

    fn revert_begins(
        &self,
        before: &Node,
        after: &Node,
        left: GenerationNumber,
    ) -> Result<(), String> {
        let generation = after
            .history
            .get(left)
            .ok_or("a revert from a forgotten generation")?;
        if generation.committed.is_some() {
            return Err(format!("rule 8: g{left} was confirmed and is reverted"));
        }
        let Phase::Reverting(revert) = &after.phase else {
            return Ok(());
        };
        if let Some(epoch) = rollout_of(&before.phase).map(|(epoch, _)| epoch) {
            if revert.cause.kind == CauseKind::Aborted && self.decided.contains_key(&epoch) {
                return Err(format!(
                    "rule 9: {} is decided, and is called aborted",
                    short(epoch)
                ));
            }
            if epoch >= after.register.promised && !after.register.closed.contains(&epoch) {
                return Err(format!(
                    "rule 10: went back from {} without closing it",
                    short(epoch)
                ));
            }
        }
        if let Some(Fallback::Generation(number)) = revert.to {
            let generation = after
                .history
                .get(number)
                .ok_or("falls back to a forgotten generation")?;
            if generation.committed.is_none() {
                return Err(format!(
                    "rule 11: falls back to g{number}, which never was committed"
                ));
            }
        }
        Ok(())
    }

    fn effect_rules(&self, host: &Host, step: &Step) -> Result<(), String> {
        let after = &step.node;
        for action in &step.actions {
            let Action::Perform(pending) = action else {
                continue;
            };
            if after.pending.as_ref() != Some(pending) {
                return Err("an effect is ordered that is not saved".into());
            }
            if pending.effect == Effect::Start
                && host.world.process.is_none()
                && let Some(build) = &host.world.current
            {
                if after.register.revoked(&build.digest).is_some() {
                    return Err(format!("starts {build}, which it knows to be revoked"));
                }
                let number = match &after.phase {
                    Phase::Steady { running } | Phase::Prepared { running, .. } => *running,
                    Phase::Switching(switch) => Some(switch.to),
                    Phase::Reverting(revert) => match revert.to {
                        Some(Fallback::Generation(number)) => Some(number),
                        Some(Fallback::Nothing) | None => None,
                    },
                    Phase::Probation(probation) => Some(probation.running),
                    Phase::Stuck { .. } => None,
                };
                let meant = number.and_then(|number| after.history.get(number));
                if meant.is_none_or(|generation| generation.release.build != *build) {
                    return Err(format!("starts {build}, which is not what its phase names"));
                }
            }
        }
        Ok(())
    }

    fn time_rules(
        &mut self,
        index: usize,
        host: &Host,
        after: &Node,
        event: &Event,
        now: &Now,
    ) -> Result<(), String> {
        let t = now.since_boot_ms;
        if let Phase::Probation(probation) = &after.phase
            && probation.asking.is_none()
            && probation.deadline.boot != now.boot
        {
            return Err("a probation goes on in another boot".into());
        }
        if !matches!(event, Event::Tick) {
            return Ok(());
        }
        match &after.phase {
            Phase::Probation(probation) => {
                let over = match &probation.asking {
                    None => probation.deadline.clone(),
                    Some(asking) => asking.until.clone(),
                };
                if over.passed(now) {
                    return Err("rule 9: stays on probation past its deadline".into());
                }
                if over.left_ms(now) > 15_000 + ASK_LIMIT_MS + TICK_MS {
                    return Err("its deadline lies too far away".into());
                }
                self.went_back_at.remove(&index);
            }
            Phase::Switching(_) | Phase::Reverting(_) => {
                let since = *self.went_back_at.entry(index).or_insert(t);
                let since = since.max(host.up_since.min(t)).min(t);
                if t - since > UNDER_WAY_MS {
                    return Err(format!("is in phase {} for too long", after.phase.word()));
                }
            }
            Phase::Steady { .. } | Phase::Prepared { .. } | Phase::Stuck { .. } => {
                self.went_back_at.remove(&index);
            }
        }
        Ok(())
    }

    /// A client was told how it ended.
    pub fn outcome(&mut self, proposal: &Proposal, outcome: &Outcome, hosts: &[Host]) {
        let epoch = proposal.epoch;
        let began = (0..hosts.len()).any(|host| self.activated.contains(&(host, epoch)));
        match outcome {
            Outcome::Decided { pending, failed } => {
                let Some(record) = self.decided.get(&epoch) else {
                    return self.break_(format!("{} was called decided and is not", short(epoch)));
                };
                let overtaken = self.winner().is_some_and(|winner| winner.epoch > epoch);
                for host in hosts.iter().filter(|_| !overtaken) {
                    let next = rollout_of(&host.node.phase).is_some_and(|(held, _)| held > epoch);
                    let named =
                        next || pending.contains_key(&host.name) || failed.contains_key(&host.name);
                    let ordered = record.release_for(&host.name);
                    let running = host
                        .node
                        .phase
                        .running()
                        .and_then(|n| host.node.history.get(n));
                    if !named && ordered.is_some() && running.map(|g| &g.release) != ordered {
                        let text = format!(
                            "{} was called decided, and {} does not run it",
                            short(epoch),
                            host.name
                        );
                        return self.break_(text);
                    }
                }
            }
            Outcome::Reverted {
                cause,
                pending,
                failed,
            } => {
                if self.decided.contains_key(&epoch) {
                    return self.break_(format!(
                        "{} was called reverted and is decided",
                        short(epoch)
                    ));
                }
                self.reverted.insert(epoch, cause.clone());
                for host in hosts {
                    let named = pending.contains_key(&host.name) || failed.contains_key(&host.name);
                    let on = rollout_of(&host.node.phase).filter(|(held, _)| *held <= epoch);
                    if let (false, Some((held, _))) = (named, on) {
                        let text = format!(
                            "{} was called reverted, and {} is on {}",
                            short(epoch),
                            host.name,
                            short(held)
                        );
                        return self.break_(text);
                    }
                }
            }
            Outcome::Refused(_) | Outcome::Locked(_) | Outcome::Undecided(_) | Outcome::Changed => {
                if began {
                    self.break_(format!(
                        "{} was called not begun, and a node was activated",
                        short(epoch)
                    ));
                }
            }
            Outcome::TakenOver(_) | Outcome::InDoubt(_) => {}
        }
    }

    /// Why a host has not settled, once all faults and clients are gone.
    pub fn unsettled(&self, host: &Host, winner: Option<&Record>) -> Option<String> {
        let (node, name) = (&host.node, &host.name);
        if !host.up {
            return Some(format!("{name} is down"));
        }
        if node.pending.is_some() {
            return Some(format!(
                "{name} awaits {:?} in {}",
                node.pending,
                node.phase.word()
            ));
        }
        if node.lease.is_some() {
            return Some(format!("{name} is still locked"));
        }
        if node.register.decided.as_ref() != winner {
            return Some(format!("{name} does not know the newest record"));
        }
        let held = node
            .held
            .as_ref()
            .is_some_and(|held| held.epoch >= node.register.decided_epoch());
        let running = match &node.phase {
            Phase::Stuck { .. } => {
                return host
                    .world
                    .process
                    .as_ref()
                    .map(|p| format!("{name} is stuck and runs {}", p.build));
            }
            Phase::Steady { running } => *running,
            Phase::Prepared { .. }
            | Phase::Switching(_)
            | Phase::Probation(_)
            | Phase::Reverting(_) => {
                return Some(format!("{name} is in phase {}", node.phase.word()));
            }
        };
        let release = running
            .and_then(|number| node.history.get(number))
            .map(|g| &g.release);
        let ordered = winner.and_then(|record| record.release_for(name));
        let blocked =
            ordered.is_some_and(|release| node.register.revoked(&release.build.digest).is_some());
        if ordered.is_some() && release != ordered && !held && !blocked {
            return Some(format!(
                "{name} does not run what is decided, and shows no drift"
            ));
        }
        let runs = host.world.process.as_ref().map(|process| &process.build);
        let revoked =
            release.is_some_and(|release| node.register.revoked(&release.build.digest).is_some());
        // A build that was committed and keeps ending is started again and again, visibly.
        let stopped = runs.is_none() && (revoked || node.restart.is_some());
        if runs != release.map(|release| &release.build) && !stopped {
            let (release, runs) = (release.map(|r| &r.build.id), runs.map(|build| &build.id));
            return Some(format!("{name} is steady on {release:?} and runs {runs:?}"));
        }
        None
    }

    /// Rules that can only be judged at the end.
    pub fn at_the_end(&mut self, hosts: &[Host]) {
        for (index, host) in hosts.iter().enumerate() {
            let budget = self.budgets.entry(index).or_default();
            let records = budget.records.len() as u64;
            let allowed =
                3 * budget.activations + records + 2 * budget.failures + 2 * budget.crashes + 1;
            let points = host.world.points;
            if points > allowed {
                let text = format!(
                    "rule 10: {} switched {points} times, {allowed} are allowed",
                    host.name
                );
                return self.break_(text);
            }
            // What a switch set aside is back once its revert restored it, and set aside its own.
            let told = |kept: &String| {
                let back = kept.replace("replaced-g", "replaced-by-revert-g");
                host.node.owed.contains(kept) || host.node.owed.contains(&back)
            };
            let kept = host.world.replaced.iter().find(|kept| !told(kept));
            if let Some(kept) = kept {
                let text = format!(
                    "{}: a restore set {kept} aside, and nothing tells so",
                    host.name
                );
                return self.break_(text);
            }
        }
    }
}

/// The rollout that a node is switching to or on probation for, and its generation.
fn rollout_of(phase: &Phase) -> Option<(Epoch, GenerationNumber)> {
    match phase {
        Phase::Switching(switch) => match switch.purpose {
            Purpose::Rollout { epoch, .. } => Some((epoch, switch.to)),
            Purpose::Converge { .. } | Purpose::Restore => None,
        },
        Phase::Probation(probation) => Some((probation.epoch, probation.running)),
        Phase::Steady { .. }
        | Phase::Prepared { .. }
        | Phase::Reverting(_)
        | Phase::Stuck { .. } => None,
    }
}
