//! Hosts of the neighbourhood that flood an agent without a certificate, in every way that costs it
//! something, keep neither an admin nor an honest host out.

use super::{member, members_by, mesh, token};
use crate::access::{Authorities, Target, dial, now_s};
use cbagent::adapters::tls::LINES_MAX;
use cbddc_domain::access::Role;
use cbddc_pki::authority::{Issued, make_csr, make_key};
use cbddc_pki::token::Token;
use cbddc_proto::v1;
use cbddc_proto::v1::mesh_service_client::MeshServiceClient;
use cbddc_proto::v1::node_service_client::NodeServiceClient;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Connections that are opened and say nothing: more than the agent shakes hands with at once.
const SILENT: usize = 600;
/// Hosts that connect again and again to try a token.
const GUESSING: usize = 24;
/// Hosts that send calls without end over what connections they get.
const HAMMERING: usize = 4;
/// Calls at once of each of those.
const CALLS: usize = 32;
/// How many hosts come with a good token.
const GOOD: usize = 8;
/// For how long the flood goes on.
const LASTS: Duration = Duration::from_secs(5);
/// An admin has to be answered within this.
const BOUND: Duration = Duration::from_secs(5);
/// How much longer than without the flood an answer may take at the median, on two busy cores.
const MEDIAN_BOUND: Duration = Duration::from_secs(1);

#[test]
fn a_flood_of_joins_keeps_neither_admins_nor_hosts_out() {
    let mut mesh = mesh(1);
    let good = token(&mesh, &["--uses", &GOOD.to_string(), "--optional"]);
    let honest = token(&mesh, &["--host", "n4"]);
    let late = token(&mesh, &["--host", "n5"]);
    let (fourth, fifth) = (mesh.add_host(), mesh.add_host());
    let target = Target::of(&mesh, 0);
    let root = Authorities::of(&mesh).root;
    let ana = root.issue_person("shop", "ana", Role::Admin, now_s());
    let ana = ana.expect("a certificate");

    let calm = median(&statuses(&target, &ana, Duration::from_secs(1)));
    let flood = Flood::start(&target, &good);
    let admin = thread::spawn({
        let target = target.clone();
        move || {
            let ana = ana;
            statuses(&target, &ana, LASTS)
        }
    });
    // From another address than the flood, a host gets in while it goes on.
    mesh.join(fourth, 0, &honest, &[]).expect(0);
    let took = admin.join().expect("every call was answered");
    let attempts = flood.stop();

    let (slowest, flooded) = (took.iter().max().copied(), median(&took));
    eprintln!(
        "{attempts} attempts; {} status calls, {flooded:?} at the median ({calm:?} before), {slowest:?} at most",
        took.len()
    );
    assert!(attempts > 100, "{attempts} attempts are no flood");
    assert!(slowest < Some(BOUND), "one took {slowest:?}");
    assert!(
        flooded < calm + MEDIAN_BOUND,
        "{flooded:?}, before {calm:?}"
    );
    // Its log is not filled: at most one window ends while the flood goes on.
    let log = std::fs::read_to_string(mesh.node(0).agent_log()).expect("a log");
    let lines = log.matches("refused a connection").count();
    assert!(
        (1..=2 * LINES_MAX as usize).contains(&lines),
        "{lines} lines"
    );
    mesh.join(fifth, 0, &late, &[]).expect(0);
    let members = members_by(&mesh, 0);
    for name in ["n4", "n5", "flood-0"] {
        assert!(member(&members, name).is_some(), "{name} is no member");
    }
}

/// How long each of an admin's status calls took, one after the other, each with a connection of its
/// own as `cbctl` makes it.
fn statuses(target: &Target, ana: &Issued, lasts: Duration) -> Vec<Duration> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let (begun, mut took) = (Instant::now(), Vec::new());
        while begun.elapsed() < lasts {
            let asked = Instant::now();
            let status = async {
                let channel = dial(target, Some(ana)).await?;
                let mut client = NodeServiceClient::new(channel);
                let status = client.get_status(v1::GetStatusRequest {}).await;
                status.map_err(|status| status.to_string())
            };
            let answered = tokio::time::timeout(BOUND, status).await;
            let answered = answered.expect("an answer within the bound");
            answered.expect("the status");
            took.push(asked.elapsed());
        }
        took
    })
}

fn median(took: &[Duration]) -> Duration {
    let mut sorted = took.to_vec();
    sorted.sort();
    sorted[sorted.len() / 2]
}

/// Everything that strangers can do at once.
struct Flood {
    stop: CancellationToken,
    attempts: Arc<AtomicUsize>,
    thread: thread::JoinHandle<()>,
}

impl Flood {
    fn start(target: &Target, good: &str) -> Self {
        let (stop, attempts) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let from = |last| target.from(Ipv4Addr::new(127, 0, 0, last));
        let (silent, guessing, hammering, joining) = (from(2), from(3), from(4), from(5));
        let token: Token = good.parse().expect("a token");
        let (ended, counted) = (stop.clone(), Arc::clone(&attempts));
        let thread = thread::spawn(move || {
            runtime.block_on(async move {
                let mut tasks = JoinSet::new();
                for _ in 0..SILENT {
                    tasks.spawn(say_nothing(silent.clone()));
                }
                for _ in 0..GUESSING {
                    tasks.spawn(guess(guessing.clone(), token.clone(), counted.clone()));
                }
                for _ in 0..HAMMERING {
                    tasks.spawn(hammer(hammering.clone(), token.clone(), counted.clone()));
                }
                tasks.spawn(join_well(joining, token));
                ended.cancelled().await;
            });
        });
        Self {
            stop,
            attempts,
            thread,
        }
    }

    fn stop(self) -> usize {
        self.stop.cancel();
        self.thread.join().expect("the flood only connects");
        self.attempts.load(Ordering::Relaxed)
    }
}

async fn say_nothing(target: Target) {
    loop {
        if let Ok(mut stream) = target.reach().await {
            // Until the agent has had enough of it.
            let _ = stream.read(&mut [0]).await;
        }
        tokio::task::yield_now().await;
    }
}

fn request(token: &Token, name: &str) -> v1::JoinRequest {
    let key = make_key().expect("a key");
    let csr = make_csr(&key, &name.parse().expect("a name")).expect("a request");
    v1::JoinRequest {
        mesh: token.mesh.clone(),
        secret: token.secret.to_vec().into(),
        name: name.to_owned(),
        address: format!("{name}.invalid:7443"),
        csr: csr.into(),
    }
}

fn wrong(mut token: Token) -> v1::JoinRequest {
    token.secret[0] ^= 1;
    request(&token, "guess")
}

async fn guess(target: Target, token: Token, attempts: Arc<AtomicUsize>) {
    let wrong = wrong(token);
    loop {
        if let Ok(channel) = dial(&target, None).await {
            let _ = MeshServiceClient::new(channel).join(wrong.clone()).await;
        }
        attempts.fetch_add(1, Ordering::Relaxed);
        tokio::task::yield_now().await;
    }
}

async fn hammer(target: Target, token: Token, attempts: Arc<AtomicUsize>) {
    let wrong = wrong(token);
    loop {
        if let Ok(channel) = dial(&target, None).await {
            let mut calls = JoinSet::new();
            for _ in 0..CALLS {
                let mut client = MeshServiceClient::new(channel.clone());
                let (wrong, attempts) = (wrong.clone(), attempts.clone());
                calls.spawn(async move {
                    while client.get_trust(v1::GetTrustRequest {}).await.is_ok() {
                        let _ = client.join(wrong.clone()).await;
                        attempts.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            calls.join_all().await;
        }
        tokio::task::yield_now().await;
    }
}

async fn join_well(target: Target, token: Token) {
    for host in 0.. {
        let request = request(&token, &format!("flood-{}", host % GOOD));
        if let Ok(channel) = dial(&target, None).await {
            let _ = MeshServiceClient::new(channel).join(request).await;
        }
        tokio::task::yield_now().await;
    }
}

/// How many hosts come at the same moment with one token: fewer than there is room for.
const CROWD: u8 = 12;

#[test]
fn of_many_at_once_a_token_lets_in_as_many_as_it_says() {
    let mesh = mesh(1);
    let token = token(&mesh, &["--uses", "2", "--optional"]);
    let token: Token = token.parse().expect("a token");
    let target = Target::of(&mesh, 0);
    let runtime = Builder::new_multi_thread().enable_all().build();
    let answers = runtime.expect("a runtime").block_on(async {
        let together = Arc::new(tokio::sync::Barrier::new(usize::from(CROWD)));
        let mut hosts = JoinSet::new();
        for host in 0..CROWD {
            // Attempts are counted by address.
            let target = target.from(Ipv4Addr::new(127, 0, 1, host + 1));
            let together = together.clone();
            let request = request(&token, &format!("crowd-{host}"));
            hosts.spawn(async move {
                let channel = dial(&target, None).await;
                together.wait().await;
                let mut client = MeshServiceClient::new(channel.expect("a connection"));
                client.join(request).await.map(|_| host)
            });
        }
        hosts.join_all().await
    });
    let (let_in, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    let refused = refused.into_iter().filter_map(Result::err);
    let refused: Vec<String> = refused.map(|status| status.message().to_owned()).collect();
    assert_eq!(
        (let_in.len(), refused.len()),
        (2, usize::from(CROWD) - 2),
        "{refused:?}"
    );
    assert!(
        refused.iter().all(|why| why.contains("used already")),
        "{refused:?}"
    );
    let members = members_by(&mesh, 0);
    let crowd = (0..CROWD).filter(|host| member(&members, &format!("crowd-{host}")).is_some());
    assert_eq!(crowd.count(), 2);
}
