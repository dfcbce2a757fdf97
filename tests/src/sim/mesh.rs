//! A mesh of simulated hosts, and the loop that makes things happen to it.

use super::checker::Checker;
use super::client::{Client, Script};
use super::random::Random;
use super::world::{Quality, World};
use cbddc_domain::build::{BuildRef, Digest};
use cbddc_domain::generation::GenerationNumber;
use cbddc_domain::id::NodeName;
use cbddc_domain::node::{Event, Node, Pending, Refusal};
use cbddc_domain::register::{Answer, Epoch, Record, RegisterView};
use cbddc_domain::release::Release;
use cbddc_domain::starts::Start;
use cbddc_domain::trigger::Policy;
use std::collections::{BTreeMap, BTreeSet};

mod agents;
mod memory;
mod network;
mod stops;
mod words;

/// How long asking the voters may take.
pub const ASK_LIMIT_MS: u64 = 4_000;

/// How often an agent is ticked.
pub const TICK_MS: u64 = 1_000;

/// How often an agent asks a peer for its register.
const GOSSIP_MS: u64 = 2_500;

/// After the last fault, everything must have settled within this.
const QUIET_MS: u64 = 400_000;

/// How rough the world is; chances are per mille.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// When the last fault happens, and every client is gone soon after.
    pub until_ms: u64,
    /// Messages lost.
    pub loss: u64,
    /// Messages doubled.
    pub double: u64,
    /// The usual longest delay of a message.
    pub delay_ms: u64,
    /// Messages that take up to half a minute.
    pub late: u64,
    /// Effects that fail.
    pub effect_fails: u64,
    /// Agents that crash at a step: before or after it is saved.
    pub crash_at_step: u64,
    /// Mean time between crashes of an agent or host at any moment; 0 for never.
    pub crash_every_ms: u64,
    /// Mean time between changes of the partition; 0 for never.
    pub partition_every_ms: u64,
    /// Mean time between processes that end by themselves; 0 for never.
    pub exit_every_ms: u64,
    /// Crashes of a host after which an older state of it comes back, or none at all.
    pub restored: u64,
    /// Spans in which something is found on a node.
    pub findings: u64,
}

/// Who sends or receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Endpoint {
    /// An agent.
    Host(usize),
    /// A client.
    Client(usize),
}

/// What is asked of an agent.
#[derive(Debug, Clone)]
pub enum Ask {
    /// Events, in this order; the first refusal ends it.
    Events(Vec<Event>),
    /// Only to look.
    Look,
    /// A peer's question at the end of a probation.
    Voted(Epoch),
    /// A peer asks for the register, and tells its starts.
    Gossip(Vec<Start>),
    /// A peer that lost its memory asks for a promise.
    Fence(Epoch),
}

/// What an agent answers.
#[derive(Debug, Clone)]
pub enum Told {
    /// What became of the events, and the register after them.
    Events(Result<Box<RegisterView>, Refusal>),
    /// The whole state: the harness picks from it what the API shows.
    Look(Box<Node>),
    /// The answer to a peer's question, and what the register shows.
    Voted(Epoch, Answer, Box<RegisterView>),
    /// The register, what is remembered of the asker's starts, and the own starts.
    Gossip(Box<RegisterView>, Option<Start>, Vec<Start>),
    /// It has promised the epoch; the register after that.
    Fenced(Epoch, Box<RegisterView>),
}

#[derive(Debug, Clone)]
enum Happening {
    Request {
        from: Endpoint,
        to: usize,
        call: u64,
        ask: Ask,
    },
    Response {
        from: usize,
        to: Endpoint,
        call: u64,
        told: Told,
    },
    EffectApplies {
        host: usize,
        life: u64,
        number: u64,
    },
    EffectReports {
        host: usize,
        life: u64,
        number: u64,
        result: Result<(), String>,
    },
    Health {
        host: usize,
        life: u64,
        generation: GenerationNumber,
        healthy: bool,
    },
    ProcessEnds {
        host: usize,
        process: u64,
    },
    Tick(usize),
    Gossip(usize),
    AgentUp(usize),
    ClientWakes(usize),
    ClientGivesUp {
        client: usize,
        call: u64,
    },
    ClientDies(usize),
    MeshChecked {
        client: usize,
        wave: usize,
    },
    Crash,
    Partition,
    Exit,
    Heal,
}

/// One host: its agent's saved state and what surrounds it.
pub struct Host {
    /// Its name.
    pub name: NodeName,
    /// What its agent has saved.
    pub node: Node,
    /// What surrounds the agent.
    pub world: World,
    /// Whether the agent runs.
    pub up: bool,
    /// When the agent came up last.
    pub up_since: u64,
    life: u64,
    boot: u64,
    boot_at: u64,
    wall_ms: i64,
    flight: Option<Pending>,
    watched: Option<(GenerationNumber, u64)>,
    next_peer: usize,
    /// An older state of the whole host, as a backup holds it.
    backup: (Node, World),
}

/// A whole mesh.
pub struct Mesh {
    /// Milliseconds since the beginning.
    pub t: u64,
    /// Chooses.
    pub random: Random,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// The clients.
    pub clients: Vec<Client>,
    /// Those whose votes decide until a record names others.
    pub voters: BTreeSet<NodeName>,
    /// What is done about triggers.
    pub policy: Policy,
    /// How long a rollout bakes.
    pub bake_ms: u64,
    /// How builds behave.
    pub builds: BTreeMap<Digest, Quality>,
    /// Holds every step to the rules.
    pub checker: Checker,
    /// Transitions that were seen, by the words of their phases.
    pub seen: BTreeSet<(&'static str, &'static str)>,
    /// What happened last, where it is asked for.
    pub trace: Option<Vec<String>>,
    /// How many steps were taken.
    pub steps: u64,
    /// Chooses whom a person quarantines, where one does.
    pub stops: Option<Random>,
    faults: Faults,
    healed: bool,
    /// The most rounds of gossip until every node knew the winner.
    pub rounds: u64,
    winner_since: u64,
    winner: Epoch,
    queue: BTreeMap<(u64, u64), Happening>,
    queued: u64,
    calls: u64,
    groups: BTreeMap<Endpoint, u64>,
}

/// The name of a host.
pub fn host_name(host: usize) -> NodeName {
    format!("n{}", host + 1).parse().expect("a valid name")
}

impl Mesh {
    /// A mesh of `hosts` hosts, on which nothing runs.
    pub fn new(random: Random, hosts: usize, voters: usize, faults: Faults, trace: bool) -> Self {
        let host = |index: usize| Host {
            name: host_name(index),
            node: Node::default(),
            world: World::default(),
            up: true,
            up_since: 0,
            life: 0,
            boot: 0,
            boot_at: 0,
            wall_ms: 1_700_000_000_000,
            flight: None,
            watched: None,
            next_peer: index,
            backup: Default::default(),
        };
        let mut mesh = Self {
            t: 0,
            random,
            hosts: (0..hosts).map(host).collect(),
            clients: Vec::new(),
            voters: (0..voters).map(host_name).collect(),
            policy: Policy::default(),
            bake_ms: 0,
            builds: BTreeMap::new(),
            checker: Checker::default(),
            seen: BTreeSet::new(),
            trace: trace.then(Vec::new),
            steps: 0,
            stops: None,
            faults,
            healed: false,
            rounds: 0,
            winner_since: 0,
            winner: Epoch::default(),
            queue: BTreeMap::new(),
            queued: 0,
            calls: 0,
            groups: BTreeMap::new(),
        };
        mesh.checker.genesis = mesh.voters.clone();
        mesh.all_have_met();
        for host in 0..hosts {
            let first = mesh.random.below(TICK_MS);
            mesh.at(first, Happening::Tick(host));
            let first = mesh.random.below(GOSSIP_MS);
            mesh.at(first, Happening::Gossip(host));
        }
        mesh.begin_faults();
        mesh
    }

    fn begin_faults(&mut self) {
        let every = [
            (self.faults.crash_every_ms, Happening::Crash),
            (self.faults.partition_every_ms, Happening::Partition),
            (self.faults.exit_every_ms, Happening::Exit),
        ];
        for (mean, happening) in every {
            if mean > 0 {
                let first = self.random.below(2 * mean);
                self.at(first, happening);
            }
        }
        self.at(self.faults.until_ms, Happening::Heal);
    }

    /// A new build of this quality.
    pub fn build(&mut self, version: u64, quality: Quality) -> Release {
        let text = format!("cbddc@{version}");
        let digest = Digest::of(text.as_bytes());
        self.builds.insert(digest, quality);
        let id = text.parse().expect("a valid build name");
        Release::of_build(BuildRef { id, digest })
    }

    /// Adds a client that begins at `at`, and may be struck dead later.
    pub fn add_client(&mut self, at: u64, script: Script, dies_at: Option<u64>) {
        let index = self.clients.len();
        self.clients.push(Client::new(index, script));
        self.at(at, Happening::ClientWakes(index));
        if let Some(dies_at) = dies_at {
            self.at(dies_at, Happening::ClientDies(index));
        }
    }

    /// Begins with `release` decided, as if by an earlier mesh-wide record.
    pub fn seed_record(&mut self, release: &Release) {
        let epoch = Epoch {
            counter: 1,
            nonce: 0,
        };
        let record = Record {
            epoch,
            kind: cbddc_domain::register::RecordKind::Rollout,
            release: Some(release.clone()),
            exceptions: BTreeMap::new(),
            voters: self.voters.clone(),
            previous: None,
            forced: false,
            revokes: BTreeMap::new(),
            lifts: BTreeMap::new(),
            restores: BTreeSet::new(),
            proposed_by: "the beginning".into(),
            reason: "first release".into(),
        };
        self.checker.decided_before(&record);
        self.healed = true;
        for host in 0..self.hosts.len() {
            self.handle(host, Event::Learn(Box::new(record.clone())));
        }
        self.healed = false;
    }

    fn at(&mut self, t: u64, happening: Happening) {
        self.queued += 1;
        self.queue.insert((t, self.queued), happening);
    }

    fn after(&mut self, low: u64, high: u64, happening: Happening) {
        let t = self.t + self.random.between(low, high.max(low));
        self.at(t, happening);
    }

    /// Appends to the trace.
    pub fn note(&mut self, text: impl FnOnce() -> String) {
        let t = self.t;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>8.3} s  {}", t as f64 / 1000.0, text()));
        }
    }

    /// Lets things happen until the mesh has settled; the error is the broken rule.
    pub fn run(&mut self) -> Result<(), String> {
        while let Some(((t, _), happening)) = self.queue.pop_first() {
            self.t = self.t.max(t);
            self.happen(happening);
            if let Some(broken) = self.checker.broken.take() {
                return Err(broken);
            }
            self.follow_the_winner()?;
            let over =
                self.t > self.faults.until_ms + 1_000 && self.clients.iter().all(Client::is_gone);
            if over && self.settled() && self.queue_is_idle() {
                break;
            }
            if self.t > self.faults.until_ms + QUIET_MS {
                let unsettled = self.why_unsettled();
                return Err(format!("it has not settled: {unsettled}"));
            }
        }
        self.checker.at_the_end(&self.hosts);
        self.checker.broken.take().map_or(Ok(()), Err)
    }

    fn queue_is_idle(&self) -> bool {
        self.queue.values().all(|happening| match happening {
            Happening::Tick(_) | Happening::Gossip(_) | Happening::Exit => true,
            Happening::Response { .. } | Happening::ClientGivesUp { .. } => true,
            Happening::Request { ask, .. } => matches!(ask, Ask::Look | Ask::Gossip(_)),
            Happening::EffectApplies { host, life, .. }
            | Happening::EffectReports { host, life, .. } => self.hosts[*host].life != *life,
            Happening::Health {
                host,
                life,
                generation,
                ..
            } => {
                let host = &self.hosts[*host];
                host.life != *life || host.node.phase.running() != Some(*generation)
            }
            Happening::ProcessEnds { host, process } => {
                let running = self.hosts[*host].world.process.as_ref();
                running.is_none_or(|running| running.number != *process)
            }
            Happening::ClientWakes(_)
            | Happening::ClientDies(_)
            | Happening::MeshChecked { .. } => true,
            Happening::AgentUp(_) | Happening::Crash | Happening::Partition | Happening::Heal => {
                false
            }
        })
    }

    fn settled(&self) -> bool {
        let winner = self.checker.winner();
        self.hosts
            .iter()
            .all(|host| self.checker.unsettled(host, winner).is_none())
    }

    fn why_unsettled(&self) -> String {
        let winner = self.checker.winner();
        let why = self
            .hosts
            .iter()
            .filter_map(|host| self.checker.unsettled(host, winner));
        let clients = self.clients.iter().filter(|client| !client.is_gone());
        let clients = clients.map(|client| format!("client {} is still there", client.index));
        why.chain(clients).collect::<Vec<_>>().join("; ")
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Request {
                from,
                to,
                call,
                ask,
            } => self.request_arrives(from, to, call, ask),
            Happening::Response {
                from,
                to,
                call,
                told,
            } => self.response_arrives(from, to, call, told),
            Happening::EffectApplies { host, life, number } => {
                self.effect_applies(host, life, number)
            }
            Happening::EffectReports {
                host,
                life,
                number,
                result,
            } => {
                if self.hosts[host].life == life {
                    self.hosts[host].flight = None;
                    let event = match result {
                        Ok(()) => Event::Done { number, note: None },
                        Err(error) => Event::Failed { number, error },
                    };
                    self.handle(host, event);
                }
            }
            Happening::Health {
                host,
                life,
                generation,
                healthy,
            } => {
                if self.hosts[host].life == life && self.hosts[host].up {
                    let event = if healthy {
                        Event::Clean(generation)
                    } else {
                        let cause = "unhealthy".to_owned();
                        Event::CheckFailed { generation, cause }
                    };
                    self.handle(host, event);
                }
            }
            Happening::ProcessEnds { host, process } => {
                let world = &mut self.hosts[host].world;
                if world
                    .process
                    .as_ref()
                    .is_some_and(|running| running.number == process)
                {
                    world.process = None;
                    self.note(|| format!("{}: the process ends", host_name(host)));
                    self.handle(
                        host,
                        Event::Exited {
                            how: "exit 1".into(),
                        },
                    );
                }
            }
            Happening::Tick(host) => {
                self.after(TICK_MS, TICK_MS, Happening::Tick(host));
                self.hosts[host].world.events +=
                    u64::from(self.hosts[host].world.process.is_some());
                self.handle(host, Event::Tick);
                self.meet(host);
                self.notice_exit(host);
                self.observe(host);
                self.propose_own(host);
            }
            Happening::Gossip(host) => {
                self.after(GOSSIP_MS / 2, GOSSIP_MS, Happening::Gossip(host));
                // One peer after another, as the agents do.
                self.hosts[host].next_peer += 1;
                let peer = self.hosts[host].next_peer % self.hosts.len();
                self.gossip(host, peer);
                self.stop_or_let_go(host);
                if self.random.chance(50) {
                    let host = &mut self.hosts[host];
                    host.backup = (host.node.clone(), host.world.clone());
                }
            }
            Happening::AgentUp(host) => self.agent_up(host),
            Happening::ClientWakes(client) => self.client_wakes(client),
            Happening::ClientGivesUp { client, call } => self.client_hears(client, call, None),
            Happening::ClientDies(client) => {
                if !self.clients[client].is_gone() {
                    self.note(|| format!("client {client} dies"));
                    self.clients[client].die();
                }
            }
            Happening::MeshChecked { client, wave } => self.client_mesh_checked(client, wave),
            Happening::Crash => {
                self.crash_somewhere();
            }
            Happening::Partition => {
                self.again(self.faults.partition_every_ms, Happening::Partition);
                self.partition();
            }
            Happening::Exit => {
                self.again(self.faults.exit_every_ms, Happening::Exit);
                let host = self.random.index(self.hosts.len());
                if let (false, Some(process)) = (self.healed, &self.hosts[host].world.process) {
                    let process = process.number;
                    self.after(0, 0, Happening::ProcessEnds { host, process });
                }
            }
            Happening::Heal => {
                self.heal();
            }
        }
    }

    fn client_wakes(&mut self, client: usize) {
        if self.clients[client].is_gone() {
            return;
        }
        let mut it = std::mem::take(&mut self.clients[client]);
        it.wake(self);
        self.clients[client] = it;
        if !self.clients[client].is_gone() {
            self.after(300, 500, Happening::ClientWakes(client));
        }
    }

    fn client_hears(&mut self, client: usize, call: u64, told: Option<(usize, Told)>) {
        if self.clients[client].is_gone() {
            return;
        }
        let mut it = std::mem::take(&mut self.clients[client]);
        it.hear(self, call, told);
        self.clients[client] = it;
    }

    fn client_mesh_checked(&mut self, client: usize, wave: usize) {
        if self.clients[client].is_gone() {
            return;
        }
        let mut it = std::mem::take(&mut self.clients[client]);
        it.mesh_checked(self, wave);
        self.clients[client] = it;
    }

    /// A client's call; returns its number.
    pub fn call(&mut self, client: usize, to: usize, ask: Ask) -> u64 {
        self.calls += 1;
        let call = self.calls;
        self.send(Endpoint::Client(client), to, call, ask);
        let gives_up = Happening::ClientGivesUp { client, call };
        self.after(2_500, 2_500, gives_up);
        call
    }

    /// A client's check of replication across the mesh.
    pub fn check_mesh(&mut self, client: usize, wave: usize) {
        self.after(100, 2_000, Happening::MeshChecked { client, wave });
    }
}

/// An epoch as the trace shows it.
pub fn short(epoch: Epoch) -> String {
    format!("e{}.{}", epoch.counter, epoch.nonce)
}
