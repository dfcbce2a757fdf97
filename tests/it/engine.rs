//! The engine's order: first it is written down, then it is told and done. What cannot be written
//! down has not happened.

use async_trait::async_trait;
use cbagent::engine::{Engine, EngineError, EngineHandle};
use cbagent::ports::{EffectError, JournalLine, Store, UnitState, World};
use cbddc_domain::build::{BuildRef, Digest};
use cbddc_domain::health::Measurement;
use cbddc_domain::id::NodeName;
use cbddc_domain::node::{Context, Effect, Event, Node, Prepare, ProposalKind};
use cbddc_domain::register::{Answer, Epoch, RegisterView};
use cbddc_domain::release::Release;
use cbddc_domain::time::{BootId, Now};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A disk that may be full, and a world that looks at it before each effect.
#[derive(Default)]
pub(crate) struct Bench {
    full: AtomicBool,
    saved: Mutex<Node>,
    /// The effects that were performed, and whether each stood on the disk before.
    performed: Mutex<Vec<(Effect, bool)>>,
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

    async fn unit(&self) -> Result<UnitState, EffectError> {
        Ok(UnitState::Stopped { last_exit: None })
    }

    async fn measure(&self) -> Vec<Measurement> {
        Vec::new()
    }

    async fn ask(&self, _: &NodeName, _: Epoch) -> Result<(Answer, RegisterView), EffectError> {
        Err(EffectError("there is nobody".into()))
    }

    async fn register_of(&self, _: &NodeName) -> Result<RegisterView, EffectError> {
        Err(EffectError("there is nobody".into()))
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

#[tokio::test]
async fn what_cannot_be_written_down_has_not_happened() {
    let bench = Arc::new(Bench::default());
    let name: NodeName = "a".parse().expect("a name");
    let context = Context {
        voters: BTreeSet::from([name.clone()]),
        name,
        ask_limit_ms: 1_000,
    };
    let (engine, handle) = Engine::new(context, Node::default(), bench.clone(), bench.clone());
    let running = tokio::spawn(engine.run(Default::default()));

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
