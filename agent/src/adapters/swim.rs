//! Which members are there: failure detection by foca's SWIM, without sockets or threads of its own.
//!
//! Each period some member is probed, directly and then through others; who answers nobody is
//! suspected, and down after a while. Datagrams travel in calls between members, so that they are
//! sealed and their sender is known; what they say is a hint for people and for the choice of
//! partners, and decides nothing.
//!
//! An identity is one start of a member's agent: the later start wins. A peer tells a caller which
//! start of it stands, so that an agent whose clock went back to 1970 takes a later number at once.

use bytes::Bytes;
use cbddc_domain::id::NodeName;
use cbddc_domain::mesh::MEMBERS_MAX;
use foca::{AccumulatingRuntime, Config, Foca, Identity, NoCustomBroadcast, OwnedNotification};
use foca::{PostcardCodec, Timer};
use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::{NonZeroU8, NonZeroUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The largest datagram in bytes. Those of a quiet mesh have some 100, whatever its size; only who
/// just came, and asks for all that somebody knows, gets as many members as fit: some 700.
pub const DATAGRAM_BYTES_MAX: usize = 16 * 1024;
/// Datagrams that wait to be sent; more are dropped, as a network would.
const OUTBOX_MAX: usize = 256;
/// How many lives are remembered: twice the members that a mesh may have. More are made up, and
/// everything is forgotten.
const LIVES_MAX: usize = 2 * MEMBERS_MAX;
/// A suspect has this many periods to say that it is there.
const SUSPECT_PERIODS: u32 = 5;
/// An agent that started less than so many periods ago holds nobody for away.
const SETTLING_PERIODS: u32 = 2 * SUSPECT_PERIODS;
/// Somebody who does not seem to be there is spoken to every so many periods, so that a partition
/// heals: SWIM itself forgets whom it holds for down.
const CONTACT_PERIODS: u32 = 8;
/// How many others probe a member that does not answer.
const INDIRECT: usize = 3;
/// How often a change is passed on: more than the logarithm of the largest mesh.
const TRANSMISSIONS: u8 = 12;

/// One start of a member's agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Life {
    name: NodeName,
    start: u64,
}

/// A name of at most 63 bytes, in place: foca compares addresses all the time.
#[derive(PartialEq)]
struct Address([u8; 63]);

impl Identity for Life {
    type Addr = Address;

    fn renew(&self) -> Option<Self> {
        Some(Self {
            name: self.name.clone(),
            start: self.start.saturating_add(1),
        })
    }

    fn addr(&self) -> Address {
        let mut address = [0; 63];
        let name = self.name.as_str().as_bytes();
        let length = name.len().min(address.len());
        address[..length].copy_from_slice(&name[..length]);
        Address(address)
    }

    fn win_addr_conflict(&self, other: &Self) -> bool {
        self.start > other.start
    }
}

/// A datagram that is no message of SWIM, or not from who brought it.
#[derive(Debug, thiserror::Error)]
#[error("the datagram is not one of the mesh's failure detection: {0}")]
pub struct NotSwim(String);

/// What is answered to who brought a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// Datagrams for the caller.
    pub datagrams: Vec<Bytes>,
    /// The start of the caller that stands here; zero: none.
    pub start: u64,
}

/// What has happened, in the order in which it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A datagram is to be sent.
    Send(NodeName, Bytes),
    /// A member is there.
    Up(NodeName),
    /// A member is not there any more; it was last sure to be this long before.
    Down(NodeName, Duration),
}

/// The failure detection of one agent. Cheap to clone.
#[derive(Clone)]
pub struct Swim {
    inner: Arc<Inner>,
}

struct Inner {
    period: Duration,
    begun: Instant,
    state: Mutex<State>,
    wake: Notify,
}

struct State {
    foca: Foca<Life, PostcardCodec, SmallRng, NoCustomBroadcast>,
    config: Config,
    dice: SmallRng,
    contacts: u32,
    /// By when they are due, and a count that keeps their order.
    timers: BTreeMap<(Instant, u64), Timer<Life>>,
    count: u64,
    news: VecDeque<News>,
}

impl Swim {
    /// Probes a member each `period`. `start` is higher than at the agent's last start, as far as its
    /// clock knows; `seed` is drawn at random.
    pub fn new(name: NodeName, start: u64, seed: u64, period: Duration) -> Self {
        let config = config(period);
        let life = Life { name, start };
        let state = State {
            foca: fresh(life, &config, seed),
            config,
            dice: SmallRng::seed_from_u64(!seed),
            contacts: 0,
            timers: BTreeMap::new(),
            count: 0,
            news: VecDeque::new(),
        };
        Self {
            inner: Arc::new(Inner {
                period,
                begun: Instant::now(),
                state: Mutex::new(state),
                wake: Notify::new(),
            }),
        }
    }

    /// How often a member is probed.
    pub fn period(&self) -> Duration {
        self.inner.period
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        let state = self.inner.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// The other members that are there.
    pub fn alive(&self) -> BTreeSet<NodeName> {
        let state = self.lock();
        let members = state.foca.iter_members();
        members.map(|member| member.id().name.clone()).collect()
    }

    /// How many members are remembered, those that are away included.
    pub fn known(&self) -> usize {
        self.lock().foca.iter_membership_state().len()
    }

    /// Whether both are the same agent's.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Whether this agent has listened for long enough to hold somebody for away.
    pub fn is_settled(&self) -> bool {
        self.inner.begun.elapsed() > self.inner.period * SETTLING_PERIODS
    }

    /// To be called once a period with all other members: speaks to one that does not seem to be
    /// there, each time while this agent has just started, and now and then later.
    pub fn contact(&self, mut members: Vec<NodeName>) {
        let settled = self.is_settled();
        let mut state = self.lock();
        state.contacts = state.contacts.wrapping_add(1);
        if settled && !state.contacts.is_multiple_of(CONTACT_PERIODS) {
            return;
        }
        let alive: BTreeSet<&NodeName> = state.foca.iter_members().map(|m| &m.id().name).collect();
        members.retain(|name| !alive.contains(name));
        if members.is_empty() {
            return;
        }
        let index = state.dice.random_range(..members.len());
        // Whatever start of it there is takes this as its own.
        let life = Life {
            name: members.swap_remove(index),
            start: 0,
        };
        if let Err(fault) = state.apply(|foca, runtime| foca.announce(life, runtime)) {
            tracing::debug!("{fault}");
        }
        drop(state);
        self.inner.wake.notify_one();
    }

    /// Takes a datagram from a member that has proved to be `from`.
    ///
    /// # Errors
    /// It is none, or speaks for somebody else; nothing has changed then.
    pub fn take(&self, from: &NodeName, datagram: &[u8]) -> Result<Answered, NotSwim> {
        let mut state = self.lock();
        let header = postcard::take_from_bytes::<foca::Header<Life>>(datagram);
        let (header, _) = header.map_err(|fault| NotSwim(fault.to_string()))?;
        if header.src.name != *from {
            let name = &header.src.name;
            return Err(NotSwim(format!("{from} speaks for {name}")));
        }
        let before = state.news.len();
        state.apply(|foca, runtime| foca.handle_data(datagram, runtime))?;
        // What is for the caller goes back with the answer.
        let mut datagrams = Vec::new();
        let fresh = state.news.split_off(before);
        for one in fresh {
            match one {
                News::Send(to, datagram) if to == *from => datagrams.push(datagram),
                other @ (News::Send(..) | News::Up(_) | News::Down(..)) => {
                    state.news.push_back(other)
                }
            }
        }
        let start = state.start_of(from);
        if state.foca.iter_membership_state().len() > LIVES_MAX {
            tracing::warn!(%from, "more members are named than a mesh may have: forgetting them all");
            state.begin_anew();
        }
        drop(state);
        self.inner.wake.notify_one();
        Ok(Answered { datagrams, start })
    }

    /// What a peer said of this agent's own start: a later one that stands there is outdone.
    pub fn outdo(&self, start: u64) {
        let mut state = self.lock();
        let own = state.foca.identity().clone();
        if start > own.start {
            let life = Life {
                start: start.saturating_add(1),
                ..own
            };
            let _ = state.apply(|foca, runtime| foca.change_identity(life, runtime));
        }
    }

    /// Waits for what there is to send and to tell.
    pub async fn next(&self) -> Vec<News> {
        loop {
            let due = {
                let mut state = self.lock();
                state.run_due(Instant::now());
                if !state.news.is_empty() {
                    return state.news.drain(..).collect();
                }
                state.timers.keys().next().map(|(due, _)| *due)
            };
            let timer = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = timer => {}
                () = self.inner.wake.notified() => {}
            }
        }
    }
}

impl State {
    /// Lets foca work, and collects what it wants done.
    fn apply(
        &mut self,
        work: impl FnOnce(
            &mut Foca<Life, PostcardCodec, SmallRng, NoCustomBroadcast>,
            &mut AccumulatingRuntime<Life>,
        ) -> Result<(), foca::Error>,
    ) -> Result<(), NotSwim> {
        let mut runtime = AccumulatingRuntime::new();
        let done = work(&mut self.foca, &mut runtime);
        while let Some((after, timer)) = runtime.to_schedule() {
            self.count += 1;
            let due = (Instant::now() + after, self.count);
            self.timers.insert(due, timer);
        }
        while let Some(notification) = runtime.to_notify() {
            match notification {
                OwnedNotification::MemberUp(life) => self.news.push_back(News::Up(life.name)),
                OwnedNotification::MemberDown(life) => {
                    let unsure = self.config.suspect_to_down_after + self.config.probe_period;
                    self.news.push_back(News::Down(life.name, unsure));
                }
                OwnedNotification::Rename(..)
                | OwnedNotification::Active
                | OwnedNotification::Idle
                | OwnedNotification::Defunct
                | OwnedNotification::Rejoin(_) => {}
            }
        }
        while let Some((to, datagram)) = runtime.to_send() {
            if self.news.len() < OUTBOX_MAX {
                self.news.push_back(News::Send(to.name, datagram));
            }
        }
        done.map_err(|fault| NotSwim(fault.to_string()))
    }

    fn run_due(&mut self, now: Instant) {
        while let Some(entry) = self.timers.first_entry()
            && entry.key().0 <= now
        {
            let timer = entry.remove();
            if let Err(fault) = self.apply(|foca, runtime| foca.handle_timer(timer, runtime)) {
                tracing::debug!("{fault}");
            }
        }
    }

    fn start_of(&self, name: &NodeName) -> u64 {
        let lives = self.foca.iter_membership_state();
        let known = lives.filter(|member| member.id().name == *name);
        known.map(|member| member.id().start).max().unwrap_or(0)
    }

    fn begin_anew(&mut self) {
        let own = self.foca.identity().clone();
        let life = Life {
            start: own.start.saturating_add(1),
            ..own
        };
        self.foca = fresh(life, &self.config, self.dice.next_u64());
        self.timers.clear();
    }
}

fn fresh(
    life: Life,
    config: &Config,
    seed: u64,
) -> Foca<Life, PostcardCodec, SmallRng, NoCustomBroadcast> {
    let dice = SmallRng::seed_from_u64(seed);
    Foca::new(life, config.clone(), dice, PostcardCodec)
}

fn config(period: Duration) -> Config {
    let one = NonZeroUsize::MIN;
    Config {
        probe_period: period,
        probe_rtt: period / 3,
        num_indirect_probes: NonZeroUsize::new(INDIRECT).unwrap_or(one),
        max_transmissions: NonZeroU8::new(TRANSMISSIONS).unwrap_or(NonZeroU8::MIN),
        suspect_to_down_after: period * SUSPECT_PERIODS,
        max_packet_size: NonZeroUsize::new(DATAGRAM_BYTES_MAX).unwrap_or(one),
        notify_down_members: true,
        ..Config::simple()
    }
}
