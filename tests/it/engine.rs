//! The engine's order: first it is written down, then it is told and done. What cannot be written
//! down has not happened.

use async_trait::async_trait;
use cbagent::engine::{ACTOR_AGENT, Engine, EngineError, EngineHandle};
use cbagent::ports::{Compared, EffectError, JournalLine, Store, Told, UnitState, World};
use cbagent::triggers::keep_stopped;
use cbddc_domain::build::{BuildRef, Digest};
use cbddc_domain::health::{Measurement, Policy};
use cbddc_domain::id::NodeName;
use cbddc_domain::node::{Context, Effect, Event, Node, Prepare, ProposalKind};
use cbddc_domain::register::{Answer, Epoch, RegisterView};
use cbddc_domain::release::Release;
use cbddc_domain::starts::Start;
use cbddc_domain::stops::{Stops, StopsChange};
use cbddc_domain::time::{BootId, Now};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

const LIMIT: Duration = Duration::from_secs(30);

/// A disk that may be full, and a world that looks at it before each effect.
#[derive(Default)]
pub(crate) struct Bench {
    full: AtomicBool,
    saved: Mutex<Node>,
    /// The effects that were performed, and whether each stood on the disk before.
    performed: Mutex<Vec<(Effect, bool)>>,
    /// How often the host still refuses to stop its node's traffic.
    refusals: AtomicUsize,
    /// What it stopped.
    stopped: watch::Sender<Stops>,
}

#[async_trait]
impl Store for Bench {
    async fn save(&self, node: &Node, _: Vec<JournalLine>) -> Result<(), EffectError> {
        if self.full.load(Ordering::SeqCst) {
            return Err(EffectError("the disk is full".into()));
        }
        *self.saved.lock().expect("no panic") = node.clone();
        Ok(())
    }
}

#[async_trait]
impl World for Bench {
    fn now(&self) -> Now {
        Now {
            boot: BootId("boot".into()),
            since_boot_ms: 1_000,
            wall_ms: 0,
        }
    }

    async fn perform(&self, effect: &Effect) -> Result<Option<String>, EffectError> {
        let saved = self.saved.lock().expect("no panic").pending.clone();
        let stood = saved.is_some_and(|pending| pending.effect == *effect);
        let mut performed = self.performed.lock().expect("no panic");
        performed.push((effect.clone(), stood));
        Ok(None)
    }

    async fn check_startable(&self, _: &BuildRef) -> Result<(), EffectError> {
        Ok(())
    }

    async fn apply_stops(&self, stops: &Stops) -> Result<(), EffectError> {
        let left = self
            .refusals
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                left.checked_sub(1)
            });
        if left.is_ok() {
            return Err(EffectError("nft is not there yet".into()));
        }
        self.stopped.send_replace(stops.clone());
        Ok(())
    }

    async fn unit(&self) -> Result<UnitState, EffectError> {
        Ok(UnitState::Stopped { last_exit: None })
    }

    async fn measure(&self, _: Duration) -> Vec<Measurement> {
        Vec::new()
    }

    fn checks(&self) -> Vec<Policy> {
        Vec::new()
    }

    async fn measure_one(&self, _: usize) -> Measurement {
        unreachable!("there is no check")
    }

    async fn ask(&self, _: &NodeName, _: Epoch) -> Result<(Answer, RegisterView), EffectError> {
        Err(EffectError("there is nobody".into()))
    }

    async fn register_of(&self, _: &NodeName, _: &[Start]) -> Result<Told, EffectError> {
        Err(EffectError("there is nobody".into()))
    }

    fn partner(&self) -> Option<NodeName> {
        None
    }

    async fn exchange(&self, _: &NodeName) -> Result<Compared, EffectError> {
        Err(EffectError("there is nobody".into()))
    }

    async fn fence(&self, _: &NodeName, _: Epoch) -> Result<RegisterView, EffectError> {
        Err(EffectError("there is nobody".into()))
    }

    fn nonce(&self) -> u64 {
        1
    }
}

fn release() -> Release {
    Release::of_build(BuildRef {
        id: "cbddc@1".parse().expect("a name"),
        digest: Digest::of(b"1"),
    })
}

pub(crate) fn prepare() -> Event {
    Event::Prepare(Box::new(Prepare {
        epoch: Epoch::default().next(1),
        kind: ProposalKind::Rollout,
        holder: "ana".into(),
        what: "a test".into(),
        lease_ms: 60_000,
        next: Some(release()),
        plan: None,
    }))
}

fn activate() -> Event {
    Event::Activate {
        epoch: Epoch::default().next(1),
        release: Box::new(release()),
        probation_ms: 60_000,
        changes_persistence: false,
    }
}

/// Told while the disk is full, the event changes nothing; told again, it is taken.
async fn only_once_saved(bench: &Bench, engine: &EngineHandle, event: Event) {
    let before = engine.node();
    bench.full.store(true, Ordering::SeqCst);
    let refused = engine.tell(event.clone(), "ana").await;
    assert!(
        matches!(refused, Err(EngineError::NotSaved(_))),
        "{refused:?}"
    );
    assert_eq!(engine.node(), before);
    bench.full.store(false, Ordering::SeqCst);
    engine.tell(event, "ana").await.expect("it is taken now");
    assert_ne!(engine.node(), before);
}

/// An engine that has started.
async fn started(bench: &Arc<Bench>) -> (EngineHandle, tokio::task::JoinHandle<()>) {
    let name: NodeName = "a".parse().expect("a name");
    let context = Context {
        voters: BTreeSet::from([name.clone()]),
        name,
        ask_limit_ms: 1_000,
        policy: Default::default(),
    };
    let (engine, handle) = Engine::new(context, Node::default(), bench.clone(), bench.clone());
    let running = tokio::spawn(engine.run(Default::default()));
    // That it started is written down first.
    let mut started = handle.watch();
    let begun = |node: &Arc<Node>| node.starts.is_sound() && !node.starts.known.is_empty();
    started.wait_for(begun).await.expect("it starts");
    (handle, running)
}

#[tokio::test]
async fn a_host_that_could_not_cut_its_node_off_is_asked_again() {
    let bench = Arc::new(Bench::default());
    bench.refusals.store(1, Ordering::SeqCst);
    let (handle, running) = started(&bench).await;
    let world: Arc<dyn World> = bench.clone();
    let keeping = tokio::spawn(keep_stopped(
        handle.clone(),
        world,
        false,
        Default::default(),
    ));
    let mut stopped = bench.stopped.subscribe();
    let event = Event::ChangeStops {
        change: StopsChange::Quarantined(true),
        reason: "forks".into(),
        by: ACTOR_AGENT.into(),
    };
    handle.tell(event, ACTOR_AGENT).await.expect("it is taken");
    let cut_off = stopped.wait_for(|stops| stops.quarantined.is_some());
    let cut_off = tokio::time::timeout(LIMIT, cut_off).await;
    cut_off
        .expect("it is cut off in time")
        .expect("the bench is there");
    keeping.abort();
    running.abort();
}

#[tokio::test]
async fn what_cannot_be_written_down_has_not_happened() {
    let bench = Arc::new(Bench::default());
    let (handle, running) = started(&bench).await;
    only_once_saved(&bench, &handle, prepare()).await;
    assert_eq!(*bench.performed.lock().expect("no panic"), []);
    only_once_saved(&bench, &handle, activate()).await;
    let mut changes = handle.watch();
    let on_probation = |node: &Arc<Node>| node.phase.word() == "probation";
    changes.wait_for(on_probation).await.expect("it goes on");

    let performed = bench.performed.lock().expect("no panic").clone();
    let effects: Vec<&Effect> = performed.iter().map(|(effect, _)| effect).collect();
    let build = release().build;
    let snapshot = Effect::Snapshot("before-g1".into());
    let way = [
        Effect::Stop,
        snapshot,
        Effect::Point(Some(build)),
        Effect::Start,
    ];
    assert!(effects.into_iter().eq(&way), "{performed:?}");
    assert!(performed.iter().all(|(_, stood)| *stood), "{performed:?}");
    running.abort();
}
