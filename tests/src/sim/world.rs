//! What surrounds one simulated agent: the node's process, the `current` link, the database and its
//! snapshots, and what the effects do to them.

use cbddc_domain::build::{BuildRef, Digest};
use cbddc_domain::node::Effect;
use cbddc_domain::trigger::Trigger;
use std::collections::BTreeMap;

/// How a build behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quality {
    /// It works.
    Good,
    /// It does not start.
    FailsStart,
    /// It starts and is found to be unhealthy.
    FailsCheck,
    /// It starts, and its process ends after a while.
    Exits,
    /// It starts and is healthy, but does not replicate.
    FailsMesh,
    /// It works on all nodes but one, where it is found to be unhealthy.
    FailsOn(usize),
    /// It passes every check, and turns bad once it is committed: what the checks then find.
    Rots(Rot),
}

/// What is found on a build that turned bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rot {
    /// It is unhealthy, however often it is started.
    Unhealthy,
    /// This trigger's condition holds.
    Found(Trigger),
}

/// The process of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// What it runs.
    pub build: BuildRef,
    /// Tells it from later ones.
    pub number: u64,
}

/// What surrounds one agent.
#[derive(Debug, Clone, Default)]
pub struct World {
    /// The build that `current` points to.
    pub current: Option<BuildRef>,
    /// What runs.
    pub process: Option<Process>,
    /// How many processes were started so far.
    pub processes: u64,
    /// How often `current` was pointed elsewhere.
    pub points: u64,
    /// The database: how many events were acknowledged by its node.
    pub events: u64,
    /// Snapshots by name, with the events in each.
    pub snapshots: BTreeMap<String, u64>,
    /// Snapshots that hold what a restore replaced.
    pub replaced: Vec<String>,
}

/// What a build does here.
#[derive(Debug, Clone, Copy)]
pub struct Behaviour<'a> {
    /// All builds.
    pub builds: &'a BTreeMap<Digest, Quality>,
    /// Which node this is.
    pub host: usize,
}

impl Behaviour<'_> {
    /// How `build` behaves on this node.
    pub fn of(&self, build: &BuildRef) -> Quality {
        match self.builds.get(&build.digest) {
            Some(Quality::FailsOn(host)) if *host == self.host => Quality::FailsCheck,
            Some(Quality::FailsOn(_)) | None => Quality::Good,
            Some(quality) => *quality,
        }
    }
}

impl World {
    /// Does what an effect orders. The outer error is a broken rule, the inner one a failure that
    /// the agent is told.
    pub fn apply(
        &mut self,
        effect: &Effect,
        behaviour: Behaviour<'_>,
    ) -> Result<Result<(), String>, String> {
        match effect {
            Effect::Fetch(_) | Effect::Drain => Ok(Ok(())),
            Effect::Stop => {
                self.process = None;
                Ok(Ok(()))
            }
            Effect::Snapshot(name) => {
                if self.process.is_some() {
                    return Err(format!("snapshot {name} was taken of a node that runs"));
                }
                self.snapshots.insert(name.clone(), self.events);
                Ok(Ok(()))
            }
            Effect::Restore(name, kept) => {
                if self.process.is_some() {
                    return Err(format!("snapshot {name} was put under a node that runs"));
                }
                let Some(events) = self.snapshots.get(name).copied() else {
                    return Ok(Err(format!("there is no snapshot {name}")));
                };
                if !self.replaced.contains(kept) {
                    self.snapshots.insert(kept.clone(), self.events);
                    self.replaced.push(kept.clone());
                }
                self.events = events;
                Ok(Ok(()))
            }
            Effect::Point(build) => {
                if let Some(process) = &self.process
                    && Some(&process.build) != build.as_ref()
                {
                    return Err(format!(
                        "`current` was pointed elsewhere while {} runs",
                        process.build
                    ));
                }
                if self.current != *build {
                    self.points += 1;
                }
                self.current.clone_from(build);
                Ok(Ok(()))
            }
            Effect::Start => self.start(behaviour),
            Effect::Restart => {
                self.process = None;
                self.start(behaviour)
            }
            Effect::Halt => {
                self.process = None;
                Ok(Ok(()))
            }
            Effect::Check => Ok(match &self.process {
                None => Err("the node does not run".into()),
                Some(process) => match behaviour.of(&process.build) {
                    Quality::FailsCheck => Err("the node is not ready".into()),
                    Quality::Good
                    | Quality::FailsStart
                    | Quality::Exits
                    | Quality::FailsMesh
                    | Quality::Rots(_)
                    | Quality::FailsOn(_) => Ok(()),
                },
            }),
        }
    }

    fn start(&mut self, behaviour: Behaviour<'_>) -> Result<Result<(), String>, String> {
        let Some(build) = self.current.clone() else {
            return Ok(Err("there is nothing to start".into()));
        };
        match &self.process {
            Some(process) if process.build != build => Err(format!(
                "{build} was started while {} runs: two generations at once",
                process.build
            )),
            Some(_) => Ok(Ok(())),
            None if behaviour.of(&build) == Quality::FailsStart => {
                Ok(Err(format!("{build} does not start")))
            }
            None => {
                self.processes += 1;
                let number = self.processes;
                self.process = Some(Process { build, number });
                Ok(Ok(()))
            }
        }
    }
}
