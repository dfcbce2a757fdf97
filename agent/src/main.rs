//! `cbagent`: arguments, logging, configuration, wiring, exit code. It alone picks adapters.

mod joining;
mod supervising;
mod wiring;

use anyhow::Context as _;
use cbagent::adapters::accounts::Accounts;
use cbagent::adapters::builds::{BuildStore, lead};
use cbagent::adapters::clock::{self, SystemClock, TrustedTime, begin_boot};
use cbagent::adapters::clusters::ClusterAccess;
use cbagent::adapters::crash::{CrashPoint, CrashingStore};
use cbagent::adapters::evidence::EvidenceKeeper;
use cbagent::adapters::gate_files::RevokingStore;
use cbagent::adapters::health_history::HealthHistory;
use cbagent::adapters::identity_files;
use cbagent::adapters::local::{self, LocalSocket};
use cbagent::adapters::node_protocol::NodeProtocol;
use cbagent::adapters::notify::Notifier;
use cbagent::adapters::peers::Peers;
use cbagent::adapters::process::launch;
use cbagent::adapters::roster::RosterKeeper;
use cbagent::adapters::seen::Seen;
use cbagent::adapters::snapshots::SnapshotStore;
use cbagent::adapters::sqlite::SqliteStore;
use cbagent::adapters::swim::Swim;
use cbagent::adapters::tls::{IdentityFiles, Tls};
use cbagent::config::Config;
use cbagent::engine::{Engine, START_WAIT};
use cbagent::gate::{self, store_folder};
use cbagent::grpc::{Joining, Services, UPLOADS_MAX, serve};
use cbagent::heartbeat::beat;
use cbagent::identity::Caretaker;
use cbagent::janitor::Janitor;
use cbagent::liveness::Liveness;
use cbagent::monitor::{Health, MonitorSettings, exchange_with_peers, meet_voters, watch_node};
use cbagent::ports::{Store, World as _};
use cbddc_domain::manifest::Limits;
use cbddc_domain::node::Context;
use cbddc_domain::replication::Findings;
use cbddc_domain::stops::Stops;
use cbddc_domain::units::parse_duration_ms;
use clap::{Parser, Subcommand};
use joining::Joining as JoinArguments;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_subscriber::EnvFilter;
use wiring::{
    bind_agent_check, databases_of, is_required, protocol_settings, spawn_following, spawn_watch,
    world,
};

/// How long what is under way may take to end after the agent was asked to stop.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// Owns what changes on this host: builds, snapshots, checks, and the switch between releases.
#[derive(Parser)]
#[command(name = "cbagent", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the agent in the foreground until SIGTERM; the node keeps running.
    Run {
        /// The configuration file.
        #[arg(long, default_value = CONFIG)]
        config: PathBuf,
    },
    /// Checks the configuration file and says everything that is wrong with it.
    Check {
        /// The configuration file.
        #[arg(long, default_value = CONFIG)]
        config: PathBuf,
    },
    /// Joins a mesh with a token: makes this host's key, and gets its certificate from an issuer.
    Join(JoinArguments),
    /// Answers systemd whether the node may start: exit code 0 (start) or 1 (skip), nothing else.
    Gate {
        /// The configuration file; where it cannot be read, the usual folders are looked at.
        #[arg(long, default_value = CONFIG)]
        config: PathBuf,
        /// How long to wait for the agent's permit; below the unit's TimeoutStartSec.
        #[arg(long, value_parser = duration, default_value = "75s")]
        wait: Duration,
    },
}

/// Changes of health that wait to be written down.
const HISTORY_WAITING: usize = 256;

/// Where the configuration lies unless an argument says otherwise.
const CONFIG: &str = "/etc/cbagent/cbagent.toml";

fn duration(text: &str) -> Result<Duration, String> {
    let ms = parse_duration_ms(text).map_err(|fault| fault.to_string())?;
    Ok(Duration::from_millis(ms))
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|command| command == "launch") {
        return launch(arguments);
    }
    let command = match Arguments::try_parse() {
        Ok(arguments) => arguments.command,
        // A gate that was called wrongly must not keep the node down.
        Err(error)
            if std::env::args_os()
                .nth(1)
                .is_some_and(|word| word == "gate") =>
        {
            let _ = error.print();
            if !error.use_stderr() {
                return ExitCode::SUCCESS;
            }
            let (config, wait) = (CONFIG.into(), gate::command::WAIT);
            Command::Gate { config, wait }
        }
        Err(error) => error.exit(),
    };
    let outcome = match command {
        Command::Gate { config, wait } => return gate::command::run(&config, wait).into(),
        Command::Run { config } => run(&config),
        Command::Join(joining) => joining.run(),
        Command::Check { config } => check(&config),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cbagent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn check(path: &Path) -> anyhow::Result<()> {
    let config = Config::load(path)?;
    let unknown = Accounts::default().unknown(&config.local);
    anyhow::ensure!(unknown.is_empty(), "{}", unknown.join("\n"));
    println!("{} is in order", path.display());
    Ok(())
}

fn run(config: &Path) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_env("CBAGENT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    let config = Config::load(config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // Each check may have one that hangs.
        .max_blocking_threads(48)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(run_agent(config))
}

async fn run_agent(config: Config) -> anyhow::Result<()> {
    std::fs::create_dir_all(&config.state_dir).with_context(|| {
        format!(
            "cannot create the state folder {}",
            config.state_dir.display()
        )
    })?;
    let notifier = Notifier::from_env().context("cannot use the socket in NOTIFY_SOCKET")?;
    let (store, node) = SqliteStore::open(&config.state_dir.join("state.db"))?;
    let limits = Limits {
        unpacked_bytes: config.limits.bundle_unpacked,
        ..Limits::default()
    };
    let place = store_folder(&config.state_dir);
    lead(&place, config.store_dir.as_deref())?;
    let builds = BuildStore::open(&place, limits)?;
    let snapshots = Arc::new(SnapshotStore::open(&config.state_dir.join("snapshots"))?);
    let time = TrustedTime::default();
    time.at_least(store.latest_time_s().await?);
    let roster = RosterKeeper::open(store.clone(), config.mesh.clone(), time.clone()).await?;
    let required = is_required(&roster);
    let clusters = config.clusters.iter().enumerate().map(|(place, cluster)| {
        let settings = protocol_settings(&config, cluster)?;
        let protocol = NodeProtocol::new(settings, required.clone());
        let databases = databases_of(&config, cluster);
        let folder = config.state_dir.join(format!("received/{place}"));
        Ok(ClusterAccess::new(protocol, databases, folder))
    });
    let clusters: Vec<ClusterAccess> = clusters.collect::<anyhow::Result<_>>()?;
    let identity = IdentityFiles {
        given: config.tls.clone(),
        renewed: config.state_dir.join("node.pem"),
    };
    let trust = roster.roster().trust().cloned();
    let tls = Tls::load(
        identity,
        &config.mesh.name,
        &config.node,
        trust.as_ref(),
        time,
    )?;
    let evidence = EvidenceKeeper::open(store.clone(), tls.clone(), roster.clone()).await?;
    evidence.sign_votes(node.register.votes.values()).await;
    let seen = Seen::default();
    let swim = Swim::new(
        config.node.clone(),
        clock::start_number(tls.time()),
        clock::nonce(),
        config.peers.probe,
    );
    let peers = Peers::new(
        tls.clone(),
        roster.clone(),
        evidence.clone(),
        seen.clone(),
        swim.clone(),
        config.peers.call_timeout,
    );
    let issuing = identity_files::issuing(tls.files())?;
    let (supervisor, unit) = supervising::pick(&config, &builds).await?;
    let run_dir = config.run_dir.clone();
    let begun = std::fs::create_dir_all(&run_dir).and_then(|()| begin_boot(&run_dir));
    let (boot, booted) =
        begun.with_context(|| format!("cannot use the run folder {}", run_dir.display()))?;
    let liveness = Liveness {
        swim: swim.clone(),
        peers: peers.clone(),
        seen: seen.clone(),
        clock: SystemClock::of(boot.clone()),
    };
    let history = HealthHistory::open(&config.state_dir.join("health.db"))?;
    let sync = wiring::file_sync(&config);
    let world = Arc::new(world(
        &config,
        boot,
        supervisor,
        (&builds, &snapshots, &store),
        &clusters,
        (peers.clone(), history.clone(), sync.clone()),
    )?);
    let listener = TcpListener::bind(&config.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", config.listen))?;
    // Somebody who left the company keeps no agent from starting.
    for unknown in Accounts::default().unknown(&config.local) {
        tracing::warn!("{unknown}");
    }
    let local = LocalSocket::bind(&run_dir, config.local.clone());
    let local = local
        .with_context(|| format!("cannot listen on {}", run_dir.join(local::SOCKET).display()))?;
    let context = Context {
        name: config.node.clone(),
        voters: config.mesh.voters(),
        ask_limit_ms: config
            .peers
            .ask_limit
            .as_millis()
            .try_into()
            .unwrap_or(u64::MAX),
        policy: config.triggers.policy.clone(),
    };
    let mut saving: Arc<dyn Store> = Arc::new(RevokingStore::new(
        Arc::new(store.clone()),
        config.state_dir.clone(),
        &node,
    ));
    if let Some(point) = std::env::var("CBAGENT_CRASH")
        .ok()
        .as_deref()
        .and_then(CrashPoint::parse)
    {
        tracing::warn!(
            ?point,
            "CBAGENT_CRASH is set: this agent will end itself there"
        );
        saving = Arc::new(CrashingStore {
            store: saving,
            point,
        });
    }
    // Before the engine may start the node: a start must not let traffic go on.
    let mut is_undone = false;
    if node.stops != Stops::default()
        && let Err(error) = world.apply_stops(&node.stops).await
    {
        tracing::error!("what is stopped could not be stopped again: {error}");
        is_undone = true;
    }
    let expects_peers = |cluster: &ClusterAccess| {
        let settings = cluster.protocol.settings();
        !settings.expected_peers.is_empty()
    };
    if booted && clusters.iter().any(expects_peers) {
        world.keep_clients_away_at_boot().await;
    }
    let agent_check = bind_agent_check(&config).await?;
    let (mut engine, handle) = Engine::new(context, node, world.clone(), saving);
    if booted {
        engine.wait_before_start(START_WAIT);
    }
    let (met_in, met) = watch::channel(!booted);
    let (health_in, health) = watch::channel(Health::default());
    let (history_in, kept) = mpsc::channel(HISTORY_WAITING);
    let janitor = Janitor {
        engine: handle.clone(),
        world: world.clone(),
        store: store.clone(),
        builds: builds.clone(),
        snapshots: snapshots.clone(),
        kept: config
            .limits
            .snapshots_kept
            .try_into()
            .unwrap_or(usize::MAX),
    };
    let (findings_in, findings) = watch::channel(Findings::default());
    let services = Services {
        uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
        engine: handle.clone(),
        store,
        builds,
        snapshots,
        databases: Arc::new(config.service.databases.clone()),
        world: world.clone(),
        health,
        history: history.clone(),
        clusters: Arc::new(clusters),
        findings,
        unit,
        met,
        state_dir: config.state_dir.clone(),
        roster: roster.clone(),
        evidence: evidence.clone(),
        tls: tls.clone(),
        joining: Joining::new(issuing),
        seen,
        swim,
    };
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let monitor = MonitorSettings {
        interval: config.health.interval,
        grace: config.health.grace.unwrap_or(config.service.ready_timeout),
        fall: config.health.fall,
        poll: config.peers.poll,
        ready: wiring::ready_limits(&config),
    };
    tasks.spawn(watch_node(
        handle.clone(),
        world.clone(),
        monitor,
        health_in,
        history_in,
        stop.clone(),
    ));
    tasks.spawn(history.run(kept));
    if let Some(sync) = sync {
        tasks.spawn(sync.run(stop.clone()));
    }
    spawn_watch(&tasks, &stop, &services, &peers, agent_check, is_undone);
    tasks.spawn(janitor.run(stop.clone()));
    tasks.spawn(meet_voters(
        handle.clone(),
        world.clone(),
        met_in,
        stop.clone(),
    ));
    if let Some(notifier) = notifier {
        tasks.spawn(beat(notifier, handle.clone(), stop.clone()));
    }
    let caretaker = Caretaker {
        tls,
        roster,
        evidence,
        peers,
        store: services.store.clone(),
        engine: handle.clone(),
    };
    tasks.spawn(caretaker.run(stop.clone()));
    let clock = liveness.clock.clone();
    spawn_following(&tasks, &stop, &config, &services, &clock, findings_in);
    tasks.spawn(liveness.run(stop.clone()));
    tasks.spawn(exchange_with_peers(
        handle,
        world,
        config.peers.poll,
        stop.clone(),
    ));
    let engine = tasks.spawn(engine.run(stop.clone()));
    let address = listener
        .local_addr()
        .context("cannot tell the address of the listener")?;
    tracing::info!(node = %config.node, %address, "the agent serves");
    let serving = tasks.spawn({
        let stop = stop.clone();
        async move { serve(listener, local, services, stop).await }
    });
    tasks.close();
    tokio::select! {
        () = asked_to_stop() => tracing::info!("asked to stop; the node keeps running"),
        ended = engine => ended.context("the engine ended by a fault")?,
        ended = serving => ended.context("the API ended by a fault")??,
    }
    stop.cancel();
    if tokio::time::timeout(SHUTDOWN_LIMIT, tasks.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            open = tasks.len(),
            "some calls did not end in time; leaving them"
        );
    }
    Ok(())
}

async fn asked_to_stop() {
    let wait = async |kind| match signal(kind) {
        Ok(mut signals) => drop(signals.recv().await),
        Err(error) => {
            tracing::error!(%error, "cannot listen for signals");
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = wait(SignalKind::terminate()) => {}
        () = wait(SignalKind::interrupt()) => {}
    }
}
