//! The agents: their steps, their effects, their crashes and what their checks find.

use super::super::client::Script;
use super::super::world::{Behaviour, Quality, Rot};
use super::{ASK_LIMIT_MS, Ask, Endpoint, Happening, Mesh, host_name, words};
use cbddc_domain::node::{Action, Context, Effect, Event, Refusal, Reply};
use cbddc_domain::phase::Phase;
use cbddc_domain::step::step;
use cbddc_domain::time::{BootId, Now};
use cbddc_domain::trigger::{Observation, Trigger};

/// How long a node waits for news after its host came up; nothing tells it that it need not.
const BOOT_WAIT_MS: u64 = 1_500;

impl Mesh {
    pub(super) fn now(&self, host: usize) -> Now {
        let host = &self.hosts[host];
        Now {
            boot: BootId(format!("{}-{}", host.name, host.boot)),
            since_boot_ms: self.t - host.boot_at,
            wall_ms: host.wall_ms,
        }
    }

    /// Has an agent take an event; `None`: it is down, or went down on the way.
    pub(super) fn handle(&mut self, index: usize, event: Event) -> Option<Result<Reply, Refusal>> {
        if !self.hosts[index].up {
            return None;
        }
        let crash = self.faults.crash_at_step;
        if !self.healed && self.random.chance(20) {
            // The wall clock jumps: nothing may depend on it.
            self.hosts[index].wall_ms += 3_600_000 - self.random.below(7_200_000) as i64;
        }
        let now = self.now(index);
        let context = Context {
            name: self.hosts[index].name.clone(),
            voters: self.voters.clone(),
            ask_limit_ms: ASK_LIMIT_MS,
            policy: self.policy.clone(),
        };
        self.steps += 1;
        let words = self.trace.is_some().then(|| words::event_words(&event));
        let taken = match step(&context, &self.hosts[index].node, event.clone(), &now) {
            Ok(taken) => taken,
            Err(refusal) => {
                self.note(|| {
                    format!(
                        "n{}: {} REFUSED {}",
                        index + 1,
                        words.unwrap_or_default(),
                        refusal.word()
                    )
                });
                return Some(Err(refusal));
            }
        };
        if let Some(words) = words
            && (!(words == "tick"
                || words.starts_with("observed")
                || words.starts_with("Exited")
                || words.starts_with("hear ")
                || words.starts_with("PeerStarts")
                || words.starts_with("Recalled")
                || words.starts_with("learn "))
                || !taken.entries.is_empty())
        {
            let entries: Vec<_> = taken.entries.iter().map(|e| e.kind).collect();
            let phase = words::phase_words(&taken.node.phase);
            self.note(|| format!("n{}: {words} -> {phase} {entries:?}", index + 1));
        }
        let quiet = matches!(event, Event::Tick | Event::Observed { .. });
        let quiet = quiet && taken.entries.is_empty();
        if !self.healed && !quiet && self.random.chance(crash) {
            self.crash(index, false);
            return None;
        }
        let (before, after) = (&self.hosts[index].node.phase, &taken.node.phase);
        if before.word() != after.word() {
            self.seen.insert((before.word(), after.word()));
        }
        self.checker
            .step(index, &self.hosts[index], &event, &taken, &now);
        self.hosts[index].node = taken.node;
        if !self.healed && !quiet && self.random.chance(crash) {
            self.crash(index, false);
            return None;
        }
        for action in taken.actions {
            self.perform(index, action);
        }
        self.watch_health(index);
        Some(Ok(taken.reply))
    }

    pub(super) fn perform(&mut self, index: usize, action: Action) {
        match action {
            Action::Recover(epoch, others) => self.fence_others(index, epoch, &others),
            Action::AskVoters(epoch, voters) => {
                for peer in 0..self.hosts.len() {
                    if peer != index && voters.contains(&host_name(peer)) {
                        self.calls += 1;
                        self.send(Endpoint::Host(index), peer, self.calls, Ask::Voted(epoch));
                    }
                }
            }
            Action::Perform(pending) => {
                let host = &mut self.hosts[index];
                if let Some(flight) = &host.flight {
                    self.checker.broken = Some(format!(
                        "{}: {:?} was ordered while {:?} was under way",
                        host.name, pending.effect, flight.effect
                    ));
                }
                let (life, number) = (host.life, pending.number);
                let longest = match pending.effect {
                    Effect::Fetch(_) | Effect::Drain | Effect::Check => 3_000,
                    Effect::Snapshot(_) | Effect::Restore(..) => 2_000,
                    Effect::Stop | Effect::Start => 1_500,
                    Effect::Restart | Effect::Halt => 4_000,
                    Effect::Point(_) => 50,
                };
                host.flight = Some(pending);
                let applies = Happening::EffectApplies {
                    host: index,
                    life,
                    number,
                };
                self.after(1, longest, applies);
            }
        }
    }

    pub(super) fn effect_applies(&mut self, index: usize, life: u64, number: u64) {
        if self.hosts[index].life != life {
            return;
        }
        let Some(flight) = self.hosts[index].flight.clone() else {
            return;
        };
        let fails = !self.healed && self.random.chance(self.faults.effect_fails);
        let mut result = Ok(());
        if !fails || self.random.chance(300) {
            result = self.apply(index, &flight.effect);
        }
        if fails {
            result = Err("it failed".to_owned());
        }
        self.checker.effect_ended(index, result.is_ok());
        let reports = Happening::EffectReports {
            host: index,
            life,
            number,
            result,
        };
        self.after(0, 200, reports);
    }

    pub(super) fn apply(&mut self, index: usize, effect: &Effect) -> Result<(), String> {
        let behaviour = Behaviour {
            builds: &self.builds,
            host: index,
        };
        let host = &mut self.hosts[index];
        let processes = host.world.processes;
        let result = match host.world.apply(effect, behaviour) {
            Ok(result) => result,
            Err(broken) => {
                let name = &host.name;
                self.checker.broken = Some(format!("{name}: {broken}"));
                return Ok(());
            }
        };
        let started = host
            .world
            .process
            .as_ref()
            .filter(|_| host.world.processes > processes);
        if let Some(process) = started
            && behaviour.of(&process.build) == Quality::Exits
        {
            let process = process.number;
            self.after(
                500,
                15_000,
                Happening::ProcessEnds {
                    host: index,
                    process,
                },
            );
        }
        let well = result.is_ok();
        let words = match effect {
            Effect::Fetch(build) => format!("Fetch {}", build.id),
            Effect::Point(Some(build)) => format!("Point {}", build.id),
            Effect::Drain | Effect::Stop | Effect::Snapshot(_) | Effect::Restore(..) => {
                format!("{effect:?}")
            }
            Effect::Point(None)
            | Effect::Start
            | Effect::Restart
            | Effect::Halt
            | Effect::Check => format!("{effect:?}"),
        };
        self.note(|| format!("n{}: performed {words}: {well}", index + 1));
        result
    }

    pub(super) fn crash(&mut self, index: usize, whole_host: bool) {
        if !self.hosts[index].up {
            return;
        }
        self.note(|| {
            format!(
                "n{}: CRASH{}",
                index + 1,
                if whole_host { " of the host" } else { "" }
            )
        });
        self.checker.crashed(index);
        // What its agent was proposing ends with it.
        let own = Script::Own(index);
        let proposing = self.clients.iter_mut().filter(|one| one.is_about(&own));
        proposing.for_each(super::super::client::Client::die);
        let flight = self.hosts[index].flight.take();
        if let Some(flight) = flight
            && self.random.chance(500)
        {
            let _ = self.apply(index, &flight.effect);
        }
        let down_ms = if self.random.chance(300) {
            30_000
        } else {
            3_000
        };
        let back = self.t + self.random.between(100, down_ms);
        let host = &mut self.hosts[index];
        host.up = false;
        host.life += 1;
        host.watched = None;
        if whole_host {
            host.world.process = None;
            host.boot += 1;
            host.boot_at = self.t;
        }
        self.at(back, Happening::AgentUp(index));
    }

    pub(super) fn agent_up(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if host.up {
            return;
        }
        host.up = true;
        let booted = host.boot_at > host.up_since;
        host.up_since = self.t;
        let node_runs = host.world.process.is_some();
        let wait_ms = if booted { BOOT_WAIT_MS } else { 0 };
        self.started(index, node_runs, wait_ms);
        self.notice_exit(index);
    }

    /// The engine compares the process table with what should run, at each tick.
    pub(super) fn notice_exit(&mut self, index: usize) {
        let host = &self.hosts[index];
        let should_run = host.node.pending.is_none() && host.node.phase.running().is_some();
        let down = host.world.process.is_none();
        let asking = matches!(&host.node.phase, Phase::Probation(p) if p.asking.is_some());
        if host.up && should_run && down && !asking {
            self.handle(
                index,
                Event::Exited {
                    how: "it does not run".into(),
                },
            );
        }
    }

    /// What is found on a node that runs: what its build does, and whatever else, at random.
    pub(super) fn observe(&mut self, index: usize) {
        let host = &self.hosts[index];
        let Some(generation) = host.node.phase.running() else {
            return;
        };
        let mut observation = Observation::default();
        let why = || "it is found".to_owned();
        let steady = matches!(host.node.phase, Phase::Steady { .. });
        let behaviour = Behaviour {
            builds: &self.builds,
            host: index,
        };
        if let (true, Some(process)) = (steady, &host.world.process)
            && let Quality::Rots(rot) = behaviour.of(&process.build)
        {
            match rot {
                Rot::Unhealthy => observation.unhealthy = Some(why()),
                Rot::Found(trigger) => drop(observation.found.insert(trigger, why())),
            }
        }
        // Often for a while, so that it counts for long enough.
        let (seed, chance) = (self.t / 10_000 + index as u64, self.faults.findings);
        if !self.healed && chance > 0 && (seed * 7_919) % 1_000 < chance {
            match self.random.index(5) {
                0 => observation.unhealthy = Some(why()),
                1 => drop(
                    observation
                        .found
                        .insert(Trigger::ALL[seed as usize % 4], why()),
                ),
                _ => drop(
                    observation
                        .found
                        .insert(Trigger::ALL[seed as usize % 2], why()),
                ),
            }
        }
        let event = Event::Observed {
            generation,
            observation,
        };
        self.handle(index, event);
    }

    /// An agent proposes the rollback that a trigger asks for; one attempt at a time.
    pub(super) fn propose_own(&mut self, index: usize) {
        let host = &self.hosts[index];
        let own = host.node.vigil.rollback.as_ref();
        let script = Script::Own(index);
        let under_way =
            |one: &super::super::client::Client| one.is_about(&script) && !one.is_gone();
        if host.up
            && own.is_some_and(|own| own.at.passed(&self.now(index)))
            && !self.clients.iter().any(under_way)
        {
            self.add_client(self.t, script, None);
        }
    }

    /// What became of an own attempt.
    pub fn own_tried(&mut self, index: usize, why: &str, nowhere: bool) {
        let jitter_ms = self.random.below(3_000);
        let event = Event::RollbackTried {
            why: why.to_owned(),
            nowhere,
            jitter_ms,
        };
        self.handle(index, event);
    }

    /// Local checks: their verdicts on a new probation arrive after a while.
    pub(super) fn watch_health(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let Phase::Probation(probation) = &host.node.phase else {
            return;
        };
        let watched = (probation.running, host.life);
        if host.watched == Some(watched) {
            return;
        }
        host.watched = Some(watched);
        let build = &host
            .node
            .history
            .get(probation.running)
            .expect("it runs")
            .release
            .build;
        let behaviour = Behaviour {
            builds: &self.builds,
            host: index,
        };
        let healthy = behaviour.of(build) != Quality::FailsCheck;
        let (generation, life) = watched;
        let verdict = Happening::Health {
            host: index,
            life,
            generation,
            healthy,
        };
        self.after(500, 6_000, verdict);
    }
}
