//! `cbagent`: arguments, logging, configuration, wiring, exit code. It alone picks adapters.

use anyhow::Context as _;
use cbagent::adapters::builds::{BuildStore, lead};
use cbagent::adapters::cbddc_wire::{Secret, Security};
use cbagent::adapters::checks::{HostSettings, NodeChecks};
use cbagent::adapters::clock::{SystemClock, begin_boot};
use cbagent::adapters::crash::{CrashPoint, CrashingStore};
use cbagent::adapters::gate_files::RevokingStore;
use cbagent::adapters::http::HttpAddress;
use cbagent::adapters::local::{self, LocalSocket};
use cbagent::adapters::node_protocol::{NodeProtocol, NodeProtocolSettings};
use cbagent::adapters::notify::Notifier;
use cbagent::adapters::peers::Peers;
use cbagent::adapters::process::{ProcessSettings, ProcessSupervisor, launch, own_binary};
use cbagent::adapters::quiesce::QuiesceSettings;
use cbagent::adapters::snapshots::SnapshotStore;
use cbagent::adapters::sqlite::SqliteStore;
use cbagent::adapters::systemd::{SystemdError, SystemdSettings, SystemdSupervisor};
use cbagent::adapters::tls::Tls;
use cbagent::adapters::world::HostWorld;
use cbagent::config::{ChannelMode, Config};
use cbagent::engine::{Engine, START_WAIT};
use cbagent::error_chain;
use cbagent::gate::{self, store_folder};
use cbagent::grpc::{Services, UPLOADS_MAX, serve};
use cbagent::heartbeat::beat;
use cbagent::janitor::Janitor;
use cbagent::monitor::{Health, MonitorSettings, meet_voters, poll_peers, watch_node};
use cbagent::ports::{Store, Supervisor, Units};
use cbddc_domain::manifest::Limits;
use cbddc_domain::node::Context;
use cbddc_domain::time::BootId;
use cbddc_domain::units::parse_duration_ms;
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_subscriber::EnvFilter;

/// How long what is under way may take to end after the agent was asked to stop.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// What a node waits beyond two sync cycles before it is stopped: an event that was flushed at the
/// end of the second cycle still has to travel.
const QUIESCE_MARGIN: Duration = Duration::from_millis(500);

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
        Command::Check { config } => Config::load(&config).map_err(Into::into).map(|_| {
            println!("{} is in order", config.display());
        }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cbagent: {error:#}");
            ExitCode::FAILURE
        }
    }
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
        .max_blocking_threads(16)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(run_agent(config))
}

async fn run_agent(config: Config) -> anyhow::Result<()> {
    let tls = Tls::load(&config.tls, &config.mesh.name, &config.node)?;
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
    let protocol = config
        .cbddc
        .as_ref()
        .map(|_| Arc::new(NodeProtocol::new(protocol_settings(&config))));
    let mut others = config.mesh.addresses();
    others.remove(&config.node);
    let peers = Peers::new(tls.clone(), others.clone(), config.peers.call_timeout);
    let (supervisor, unit) = supervisor(&config, &builds).await?;
    let run_dir = config.run_dir.clone();
    let begun = std::fs::create_dir_all(&run_dir).and_then(|()| begin_boot(&run_dir));
    let (boot, booted) =
        begun.with_context(|| format!("cannot use the run folder {}", run_dir.display()))?;
    let world = Arc::new(world(
        &config,
        boot,
        supervisor,
        &builds,
        &snapshots,
        protocol.clone(),
        peers,
    )?);
    let listener = TcpListener::bind(&config.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", config.listen))?;
    let local = LocalSocket::bind(&run_dir);
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
    let (mut engine, handle) = Engine::new(context, node, world.clone(), saving);
    if booted {
        engine.wait_before_start(START_WAIT);
    }
    let (met_in, met) = watch::channel(!booted);
    let (health_in, health) = watch::channel(Health::default());
    let janitor = Janitor {
        engine: handle.clone(),
        world: world.clone(),
        store: store.clone(),
        snapshots: snapshots.clone(),
        kept: config
            .limits
            .snapshots_kept
            .try_into()
            .unwrap_or(usize::MAX),
    };
    let services = Services {
        uploads: Arc::new(Semaphore::new(UPLOADS_MAX)),
        engine: handle.clone(),
        store,
        builds,
        snapshots,
        databases: Arc::new(config.service.databases.clone()),
        world: world.clone(),
        health,
        protocol,
        unit,
        met,
        state_dir: config.state_dir.clone(),
        mesh_name: config.mesh.name.as_str().into(),
    };
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let monitor = MonitorSettings {
        interval: config.health.interval,
        fall: config.health.fall,
        poll: config.peers.poll,
    };
    tasks.spawn(watch_node(
        handle.clone(),
        world.clone(),
        monitor,
        health_in,
        stop.clone(),
    ));
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
    let others = others.into_keys().collect();
    tasks.spawn(poll_peers(
        handle,
        world,
        others,
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
        async move { serve(listener, local, &tls, services, stop).await }
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

fn protocol_settings(config: &Config) -> NodeProtocolSettings {
    let cbddc = config
        .cbddc
        .as_ref()
        .expect("only called where the section is there");
    NodeProtocolSettings {
        address: cbddc.address.clone(),
        token: Secret::new(cbddc.token.reveal()),
        security: match cbddc.channel {
            ChannelMode::Auto => Security::Auto,
            ChannelMode::Secure => Security::Secure,
            ChannelMode::Plaintext => Security::Plaintext,
        },
        expected_peers: cbddc.expected_peers.clone(),
        target_collections: cbddc.target_collections.clone(),
        canary: cbddc.canary_writes.then(|| config.node.to_string()),
        limit: config.health.timeout,
    }
}

/// Who starts the node, and where it is a unit, how that is read.
async fn supervisor(
    config: &Config,
    builds: &BuildStore,
) -> anyhow::Result<(Arc<dyn Supervisor>, Option<Arc<dyn Units>>)> {
    let service = &config.service;
    if let Some(unit) = service.unit.clone() {
        let supervisor = SystemdSupervisor::new(SystemdSettings {
            unit,
            run_dir: config.run_dir.clone(),
            builds: builds.clone(),
        });
        match supervisor.check().await {
            Ok(()) => {}
            Err(error @ SystemdError::TooOld(_)) => return Err(error.into()),
            // The agent answers its peers also while the bus is away.
            Err(error) => tracing::error!("{}", error_chain(&error)),
        }
        let supervisor = Arc::new(supervisor);
        return Ok((supervisor.clone(), Some(supervisor)));
    }
    let supervisor = ProcessSupervisor::new(ProcessSettings {
        run_dir: config.run_dir.clone(),
        log_file: config.state_dir.join("node.log"),
        program: builds.current_link().join(&service.program),
        args: service.args.clone(),
        env: service.env.clone().into_iter().collect(),
        working_dir: service
            .working_dir
            .clone()
            .unwrap_or_else(|| config.state_dir.clone()),
        launcher: own_binary(),
    })?;
    Ok((Arc::new(supervisor), None))
}

fn world(
    config: &Config,
    boot: BootId,
    supervisor: Arc<dyn Supervisor>,
    builds: &BuildStore,
    snapshots: &Arc<SnapshotStore>,
    protocol: Option<Arc<NodeProtocol>>,
    peers: Peers,
) -> anyhow::Result<HostWorld> {
    let service = &config.service;
    let command = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
    let http = config
        .health
        .http
        .as_deref()
        .map(HttpAddress::parse)
        .transpose()?;
    Ok(HostWorld {
        clock: SystemClock::of(boot),
        supervisor: supervisor.clone(),
        builds: builds.clone(),
        verified: Mutex::default(),
        snapshots: snapshots.clone(),
        databases: service.databases.clone(),
        quiesce: QuiesceSettings {
            drain: command(&service.drain),
            undrain: command(&service.undrain),
            command_limit: service.command_timeout,
            sync_interval: service.sync_interval,
            margin: QUIESCE_MARGIN,
        },
        stop_limit: service.stop_timeout,
        ready_limit: service.ready_timeout,
        checks: NodeChecks {
            supervisor,
            tcp: config.health.tcp,
            http,
            host: Some(HostSettings {
                data_dir: config.state_dir.clone(),
                min_free_disk_bytes: config.health.min_free_disk,
                min_available_memory_bytes: 0,
                max_load_per_cpu: None,
            }),
            limit: config.health.timeout,
        },
        protocol,
        peers,
    })
}
