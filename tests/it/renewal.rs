//! Certificates that come of age, and one that was off past its end.

use crate::access::{Target, dial, now_s};
use cbddc_domain::access::Role;
use cbddc_pki::authority::{Issued, Issuing, Root};
use cbddc_pki::certificate::{facts, from_pem};
use cbddc_proto::v1;
use cbddc_proto::v1::node_service_client::NodeServiceClient;
use cbddc_tests::clocks;
use cbddc_tests::mesh::{MeshOptions, TestMesh};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const DAY_S: i64 = 24 * 3600;
const PATIENCE: Duration = Duration::from_secs(60);

fn put(path: &Path, text: &str) {
    drop(fs::remove_file(path));
    let options = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let written = options.and_then(|mut file| file.write_all(text.as_bytes()));
    written.expect("a new file");
}

/// A mesh that was made 200 days ago, with certificates of the given ages in days; n1 issues.
/// Returns ana's certificate.
fn old_mesh(mesh: &TestMesh, ages: &[i64]) -> Issued {
    let ago = |days: i64| now_s() - days * DAY_S;
    let root = Root::create("shop", ago(200)).expect("a root");
    let issuing: Issuing = root.create_issuing("shop", ago(200)).expect("an issuer");
    for (node, age) in mesh.nodes().iter().zip(ages) {
        let name = node.name.parse().expect("a name");
        let issued = issuing
            .issue_node("shop", &name, ago(*age))
            .expect("a certificate");
        put(&node.folder.join("ca.pem"), &root.certificate_pem());
        put(&node.folder.join("node.pem"), &issued.cert);
        put(&node.folder.join("node.key"), &issued.key);
        let file = node.folder.join("mesh.toml");
        let text = fs::read_to_string(&file).expect("the mesh file");
        let labelled = text.replace(
            "name = \"n1\"",
            "name = \"n1\"\nlabels = { issuer = \"yes\" }",
        );
        assert_ne!(labelled, text, "n1 is in the mesh file");
        put(&file, &labelled);
    }
    let n1 = &mesh.node(0).folder;
    put(&n1.join("issuing.pem"), &issuing.certificate_pem());
    put(&n1.join("issuing.key"), &issuing.key_pem());
    let ana = root
        .issue_person("shop", "ana", Role::Admin, ago(61))
        .expect("a certificate");
    let context = mesh.cbctl_config().join("contexts/shop");
    put(&context.join("ca.pem"), &root.certificate_pem());
    put(&context.join("user.pem"), &ana.cert);
    put(&context.join("user.key"), &ana.key);
    ana
}

/// Until when the certificate that an agent has renewed counts.
fn renewed_until(mesh: &TestMesh, index: usize) -> Option<i64> {
    let file = mesh.node(index).folder.join("state/node.pem");
    let chain = from_pem(&fs::read(file).ok()?).expect("a chain");
    Some(facts(&chain[0], "shop").expect("a certificate").not_after)
}

/// Calls an agent over one connection that stays open, and now and then over a new one; returns what
/// went wrong.
async fn load(target: Target, ana: Arc<Issued>, calls: Arc<AtomicUsize>) -> Option<String> {
    let open = dial(&target, Some(&ana)).await.expect("ana gets in");
    loop {
        let channel = match calls.fetch_add(1, Ordering::SeqCst) % 20 {
            0 => dial(&target, Some(&ana)).await,
            _ => Ok(open.clone()),
        };
        let answered = match channel {
            Ok(channel) => {
                let mut client = NodeServiceClient::new(channel);
                let answered = client.get_status(v1::GetStatusRequest {}).await;
                answered.map(drop).map_err(|status| status.to_string())
            }
            Err(why) => Err(why),
        };
        if let Err(why) = answered {
            return Some(why);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn certificates_are_renewed_under_load_without_a_dropped_call() {
    let mut mesh = TestMesh::prepare(MeshOptions::default());
    // All are due, but the issuer is off: it is started once there is load.
    let ana = Arc::new(old_mesh(&mesh, &[61, 61, 61]));
    let calls = Arc::new(AtomicUsize::new(0));
    tokio::task::block_in_place(|| (1..3).for_each(|index| mesh.start_agent(index)));
    let mut loads = tokio::task::JoinSet::new();
    for index in 1..3 {
        loads.spawn(load(Target::of(&mesh, index), ana.clone(), calls.clone()));
    }
    tokio::task::block_in_place(|| {
        let more = |mesh: &TestMesh| {
            let until = calls.load(Ordering::SeqCst) + 200;
            mesh.wait_for("calls are made", PATIENCE, |_| {
                (calls.load(Ordering::SeqCst) >= until).then_some(())
            });
        };
        more(&mesh);
        assert!(
            (1..3).all(|index| renewed_until(&mesh, index).is_none()),
            "nobody could"
        );
        mesh.start_agent(0);
        for index in 0..3 {
            mesh.wait_for("it has renewed", PATIENCE, |mesh| {
                renewed_until(mesh, index)
            });
        }
        more(&mesh);
    });
    // Whoever still calls had no failure.
    let failed = loads.try_join_next();
    assert!(failed.is_none(), "{failed:?}");
    assert_eq!(loads.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_was_off_past_the_end_renews_and_serves() {
    let mut mesh = TestMesh::prepare(MeshOptions::default());
    // n1 and n2 are due, n3 has expired ten days ago.
    old_mesh(&mesh, &[61, 61, 100]);
    tokio::task::block_in_place(|| {
        mesh.start_agent(0);
        mesh.start_agent(1);
        // Nobody gets through to it until it has renewed, which it does by itself.
        mesh.start_agent(2);
        for index in 0..3 {
            let until = mesh.wait_for("it has renewed", PATIENCE, |mesh| {
                renewed_until(mesh, index)
            });
            assert!(
                until > now_s() + 80 * DAY_S,
                "it counts for 90 days from now"
            );
            let journal = mesh.journal(index);
            let told = journal
                .iter()
                .any(|line| line["kind"] == "certificate_renewed");
            assert!(told, "{journal:?}");
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_a_dead_clock_battery_is_told_that_its_certificate_is_over() {
    let Some(library) = clocks::library("renewal on a host whose clock is dead") else {
        return;
    };
    let mut mesh = TestMesh::prepare(MeshOptions::default());
    // By its own clock the certificate of n3 is new.
    old_mesh(&mesh, &[0, 0, 100]);
    let environment = clocks::environment(&library.to_string_lossy(), clocks::DEAD_BATTERY);
    mesh.set_environment(2, environment);
    tokio::task::block_in_place(|| {
        mesh.start_agent(0);
        mesh.start_agent(1);
        mesh.start_agent(2);
        let until = renewed_until(&mesh, 2).expect("it has renewed");
        assert!(until > now_s() + 80 * DAY_S, "by the issuer's time");
        // From then on it is at least as late as its certificate begins.
        let log = fs::read_to_string(mesh.node(2).agent_log()).expect("a log");
        assert!(log.starts_with("1970-01-01"), "{log}");
        let journal = mesh.journal(2);
        let told = |line: &&serde_json::Value| line["kind"] == "certificate_renewed";
        let renewed = journal.iter().find(told).expect("it is told");
        let at = renewed["at"].as_str().unwrap_or_default();
        assert!(!at.starts_with("1970"), "{renewed}");
    });
}
