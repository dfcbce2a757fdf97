//! The configuration as the adapters want it.

use anyhow::Context as _;
use cbagent::adapters::builds::BuildStore;
use cbagent::adapters::cbddc_wire::{Secret, Security};
use cbagent::adapters::checks::{
    BliteSettings, DatabaseCheck, DatabaseSettings, ExecSettings, HostSettings, NodeCheck,
    NodeChecks, Probe, UnitCheck,
};
use cbagent::adapters::clock::SystemClock;
use cbagent::adapters::clusters::ClusterAccess;
use cbagent::adapters::file_sync::{FileSync, blite_files};
use cbagent::adapters::health_history::HealthHistory;
use cbagent::adapters::http::{HttpAddress, HttpTarget};
use cbagent::adapters::https;
use cbagent::adapters::node_protocol::{
    CanaryBy, CanarySettings, IsRequired, NodeProtocolSettings,
};
use cbagent::adapters::peers::Peers;
use cbagent::adapters::quiesce::QuiesceSettings;
use cbagent::adapters::roster::RosterKeeper;
use cbagent::adapters::skews::Skews;
use cbagent::adapters::snapshots::SnapshotStore;
use cbagent::adapters::sqlite::SqliteStore;
use cbagent::adapters::world::{HostWorld, Writers};
use cbagent::agent_check::answer_haproxy;
use cbagent::config::{
    CanaryConfig, ChannelMode, CheckConfig, Cluster, Config, CutOff, HttpsTrust, ProbeConfig,
};
use cbagent::follow::Following;
use cbagent::grpc::Services;
use cbagent::ports::Supervisor;
use cbagent::proposing::RollbackProposer;
use cbagent::triggers::{keep_stopped, watch_triggers};
use cbddc_domain::id::NodeName;
use cbddc_domain::readiness::ReadyLimits;
use cbddc_domain::replication::Findings;
use cbddc_domain::time::BootId;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What a node waits beyond two sync cycles before it is stopped: an event that was flushed at the
/// end of the second cycle still has to travel.
const QUIESCE_MARGIN: Duration = Duration::from_millis(500);

/// Whether a member is required, as the roster says at that moment.
pub(crate) fn is_required(roster: &RosterKeeper) -> IsRequired {
    let roster = roster.clone();
    Arc::new(move |node: &NodeName| roster.roster().required().contains(node))
}

/// The databases that hold a cluster's events.
pub(crate) fn databases_of(config: &Config, cluster: &Cluster) -> Vec<PathBuf> {
    match (&cluster.database, cluster.name.is_empty()) {
        (Some(path), _) => vec![path.clone()],
        (None, true) => config.service.databases.clone(),
        (None, false) => Vec::new(),
    }
}

/// How the node is spoken to as a peer.
pub(crate) fn protocol_settings(
    config: &Config,
    cbddc: &Cluster,
) -> anyhow::Result<NodeProtocolSettings> {
    let canary = match &cbddc.canary {
        None => None,
        Some(CanaryConfig::Push) => Some(CanaryBy::Push),
        Some(CanaryConfig::Command(command)) => Some(CanaryBy::Command(command.clone())),
        Some(CanaryConfig::Http(url)) => {
            Some(CanaryBy::Http(HttpAddress::parse(url).context("`canary`")?))
        }
    };
    Ok(NodeProtocolSettings {
        cluster: cbddc.name.clone(),
        topology: config.topology,
        address: cbddc.address.clone(),
        token: Secret::new(cbddc.token.reveal()),
        security: match cbddc.channel {
            ChannelMode::Auto => Security::Auto,
            ChannelMode::Secure => Security::Secure,
            ChannelMode::Plaintext => Security::Plaintext,
        },
        expected_peers: cbddc.expected_peers.clone(),
        target_collections: cbddc.target_collections.clone(),
        critical_collections: cbddc.critical_collections.clone(),
        canary: canary.map(|by| CanarySettings {
            node: config.node.to_string(),
            collection: cbddc.canary_collection.clone(),
            by,
        }),
        limit: config.health.timeout,
        asked: Some(config.run_dir.join(match cbddc.name.as_str() {
            "" => "asked".to_owned(),
            name => format!("asked-{name}"),
        })),
    })
}

/// Who has the node's files synced; nobody where there are none, or that is switched off.
pub(crate) fn file_sync(config: &Config) -> Option<Arc<FileSync>> {
    let service = &config.service;
    let files = service.blite.iter().flat_map(|path| blite_files(path));
    let files: Vec<PathBuf> = files.chain(service.sync_also.iter().cloned()).collect();
    let is_off = files.is_empty() || service.sync_files.is_zero();
    (!is_off).then(|| FileSync::new(files, service.sync_files))
}

/// How long a start of the node may take.
pub(crate) fn ready_limits(config: &Config) -> ReadyLimits {
    ReadyLimits {
        ready_ms: milliseconds(config.service.ready_timeout),
        busy_ms: milliseconds(config.service.ready_timeout_busy),
    }
}

/// The adapters of this host.
pub(crate) fn world(
    config: &Config,
    boot: BootId,
    supervisor: Arc<dyn Supervisor>,
    (builds, snapshots, journal): (&BuildStore, &Arc<SnapshotStore>, &SqliteStore),
    clusters: &[ClusterAccess],
    (peers, history, sync): (Peers, HealthHistory, Option<Arc<FileSync>>),
) -> anyhow::Result<HostWorld> {
    let service = &config.service;
    let command = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
    let skews = peers.skews();
    let checks = config.checks.iter();
    let checks: anyhow::Result<Vec<NodeCheck>> = checks
        .map(|given| {
            Ok(NodeCheck::new(
                given.policy.clone(),
                probe(given, clusters, &skews, sync.as_ref())?,
            ))
        })
        .collect();
    Ok(HostWorld {
        clock: SystemClock::of(boot),
        supervisor: supervisor.clone(),
        builds: builds.clone(),
        verified: Mutex::default(),
        snapshots: snapshots.clone(),
        journal: journal.clone(),
        secrets: config
            .clusters
            .iter()
            .map(|cluster| cluster.token.reveal().to_owned())
            .collect(),
        databases: service.databases.clone(),
        quiesce: QuiesceSettings {
            drain: command(&service.drain),
            undrain: command(&service.undrain),
            command_limit: service.command_timeout,
            sync_interval: service.sync_interval,
            margin: QUIESCE_MARGIN,
        },
        stop_limit: service.stop_timeout,
        ready_limits: ready_limits(config),
        kept_logs: config.state_dir.join("kept-logs"),
        blite: service.blite.clone(),
        history,
        sync,
        checks: NodeChecks {
            supervisor,
            checks: Arc::new(checks?),
        },
        peers,
        drained: AtomicBool::new(false),
        // A table that an earlier start made is taken away once.
        blocks: AtomicBool::new(matches!(config.triggers.cut_off, Some(CutOff::Ports(_)))),
        cut_off: config.triggers.cut_off.clone(),
        drain_ports: config.drain_ports.clone(),
        writers: Writers::new(!config.drain_ports.is_empty()),
        found_dir: config.triggers.found_dir.clone(),
    })
}

fn milliseconds(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

fn probe(
    given: &CheckConfig,
    clusters: &[ClusterAccess],
    skews: &Skews,
    sync: Option<&Arc<FileSync>>,
) -> anyhow::Result<Probe> {
    Ok(match &given.probe {
        ProbeConfig::Unit { max_restarts } => Probe::Unit(UnitCheck::new(*max_restarts)),
        ProbeConfig::Tcp { address } => {
            let mut protocols = clusters.iter().map(|one| &one.protocol);
            match protocols.find(|protocol| protocol.is_sync_port(address)) {
                Some(protocol) => Probe::SyncPort(protocol.clone(), address.clone()),
                None => Probe::Tcp(address.clone()),
            }
        }
        ProbeConfig::Http { url, trust } => Probe::Http(HttpTarget {
            address: HttpAddress::parse(url)?,
            tls: match trust {
                None => None,
                Some(HttpsTrust::Authority(pem)) => Some(https::trusting(pem)?),
                Some(HttpsTrust::Certificate(pem)) => Some(https::pinning(pem)?),
            },
        }),
        ProbeConfig::Reads { url } => Probe::Reads(HttpTarget {
            address: HttpAddress::parse(url)?,
            tls: None,
        }),
        ProbeConfig::Cbddc { cluster } => {
            let mut clusters = clusters.iter();
            let found = clusters.find(|one| one.name() == cluster);
            let found = found.context("a cbddc check without its cluster")?;
            Probe::Cbddc(found.protocol.clone())
        }
        ProbeConfig::Database {
            path,
            quick_check,
            max_wal,
            max_growth,
        } => Probe::Database(DatabaseCheck::new(DatabaseSettings {
            path: path.clone(),
            quick_check: *quick_check,
            max_wal_bytes: *max_wal,
            max_growth_bytes: *max_growth,
        })),
        ProbeConfig::Blite { path, max_log } => Probe::Blite(BliteSettings {
            path: path.clone(),
            max_log_bytes: *max_log,
            sync: sync.cloned(),
        }),
        ProbeConfig::Host {
            path,
            min_free_disk,
            min_available_memory,
            max_load_per_cpu,
            max_open_files,
            max_clock_skew,
        } => Probe::Host(HostSettings {
            data_dir: path.clone(),
            min_free_disk_bytes: *min_free_disk,
            min_available_memory_bytes: *min_available_memory,
            max_load_per_cpu: *max_load_per_cpu,
            max_open_files_percent: (*max_open_files).into(),
            max_clock_skew: *max_clock_skew,
            skews: skews.clone(),
        }),
        ProbeConfig::Exec { command, env } => Probe::Exec(ExecSettings {
            command: command.clone(),
            env: env.clone(),
        }),
    })
}

/// The port of HAProxy's agent-check, where it is switched on.
pub(crate) async fn bind_agent_check(config: &Config) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = config.triggers.agent_check else {
        return Ok(None);
    };
    let bound = TcpListener::bind(address).await;
    let bound = bound.with_context(|| format!("cannot listen on {address} for the agent-check"));
    Ok(Some(bound?))
}

/// What follows replication in each cluster.
pub(crate) fn spawn_following(
    tasks: &TaskTracker,
    stop: &CancellationToken,
    config: &Config,
    services: &Services,
    clock: &SystemClock,
    findings: watch::Sender<Findings>,
) {
    let findings = Arc::new(findings);
    for (cluster, given) in services.clusters.iter().zip(&config.clusters) {
        let following = Following {
            node: config.node.clone(),
            cluster: cluster.clone(),
            store: services.store.clone(),
            engine: services.engine.clone(),
            world: services.world.clone(),
            clock: clock.clone(),
            interval: given.follow_interval,
            stalled_after: given.stalled_after,
            findings: findings.clone(),
        };
        tasks.spawn(following.run(stop.clone()));
    }
}

/// What watches the node after the commit, and what follows from it. `is_undone`: what is stopped is
/// still to be stopped on the host.
pub(crate) fn spawn_watch(
    tasks: &TaskTracker,
    stop: &CancellationToken,
    services: &Services,
    peers: &Peers,
    agent_check: Option<TcpListener>,
    is_undone: bool,
) {
    let (engine, world) = (&services.engine, &services.world);
    if let Some(listener) = agent_check {
        let (engine, health) = (engine.clone(), services.health.clone());
        tasks.spawn(answer_haproxy(listener, engine, health, stop.clone()));
    }
    tasks.spawn(keep_stopped(
        engine.clone(),
        world.clone(),
        is_undone,
        stop.clone(),
    ));
    tasks.spawn(watch_triggers(
        engine.clone(),
        world.clone(),
        services.health.clone(),
        services.findings.clone(),
        stop.clone(),
    ));
    let rollbacks = RollbackProposer {
        engine: engine.clone(),
        world: world.clone(),
        peers: peers.clone(),
        evidence: services.evidence.clone(),
        tls: services.tls.clone(),
    };
    tasks.spawn(rollbacks.run(stop.clone()));
}
