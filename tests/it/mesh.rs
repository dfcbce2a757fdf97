//! A real mesh, end to end: agents, nodes and the client as an admin meets them.

use cbddc_tests::mesh::{MeshOptions, Ran, TestMesh, Writer};
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(30);

fn of_node(nodes: &Value, name: &str) -> Value {
    let nodes = nodes["nodes"].as_array().expect("a list of nodes");
    let found = nodes.iter().find(|node| node["node"] == name);
    found.expect("the node is listed").clone()
}

#[test]
fn an_empty_mesh_answers_and_takes_builds() {
    let mesh = TestMesh::start(MeshOptions::default());
    let status = mesh.cbctl(&["status", "-o", "json"]).expect(0).json();
    for node in ["n1", "n2", "n3"] {
        let node = of_node(&status, node);
        assert_eq!(node["outcome"], "ok");
        assert_eq!(node["result"]["phase"], "steady");
        assert_eq!(node["result"]["generation"], Value::Null);
    }

    mesh.make_build("1.0", "");
    let again = mesh.pack_build("1.1", "drop-every=1");
    let again = again.to_string_lossy();
    let pushed = mesh.cbctl(&["build", "push", &again, "--node", "n2"]);
    assert!(pushed.expect(0).stdout.contains("stored"));
    let pushed = mesh.cbctl(&["build", "push", &again, "--node", "n2"]);
    assert!(pushed.expect(0).stdout.contains("was there"));
    let builds = mesh
        .cbctl(&["build", "list", "-o", "json"])
        .expect(0)
        .json();
    for (node, expected) in [("n1", 1), ("n2", 2), ("n3", 1)] {
        let node = of_node(&builds, node);
        let builds = node["result"]["builds"].as_array().expect("a list");
        assert_eq!(builds.len(), expected, "{node}");
        assert!(builds.iter().all(|build| build["current"] == false));
    }

    // Nothing runs, and the commands that only look say so.
    let history = mesh.cbctl(&["node", "history", "n1", "-o", "json"]);
    history.expect(0);
    let health = mesh.cbctl(&["health", "show"]);
    assert_eq!(health.code, 8, "{health}");
    mesh.cbctl(&["snapshot", "list"]).expect(0);
    mesh.cbctl(&["release", "list"]).expect(0);
    let journal = mesh.cbctl(&["journal", "list"]).expect(0);
    assert!(journal.stdout.contains("cbddc@1.0"), "{journal}");
    assert!((0..3).all(|index| mesh.node_pid(index).is_none()));
}

/// What no refused command may change: what each node runs, holds and has voted for.
fn state(mesh: &TestMesh) -> Vec<Value> {
    let status = mesh.status();
    let builds = mesh
        .cbctl(&["build", "list", "-o", "json"])
        .expect(0)
        .json();
    let of = |node: &Value| {
        let result = &node["result"];
        let builds = &of_node(&builds, node["node"].as_str().expect("a name"))["result"]["builds"];
        serde_json::json!([node["node"], result["phase"], result["generation"], builds])
    };
    let nodes = status["nodes"].as_array().expect("a list");
    nodes.iter().map(of).collect()
}

/// It failed with this code, and says so with these words.
#[track_caller]
fn refused(ran: &Ran, code: i32, words: &str) {
    assert_eq!(ran.code, code, "{ran}");
    assert!(ran.stderr.contains(words), "no `{words}` in {ran}");
}

#[test]
fn bad_input_is_refused_and_changes_nothing() {
    let mesh = TestMesh::start(MeshOptions::default());
    let bundle = mesh.make_build("1.0", "");
    let before = state(&mesh);

    for line in [
        "status --node n9",
        "health show --node n9",
        "build list --node n1,n9",
        "journal list --node n9",
        "node history n9",
        "snapshot restore s1 --node n9 --yes",
        "rollout start --build cbddc@1.0 --node n9 --yes",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let ran = mesh.cbctl(&words);
        assert_ne!(ran.code, 0, "{ran}");
        assert!(ran.stderr.contains("n9"), "{ran}");
        assert!(ran.stdout.is_empty(), "{ran}");
    }

    let ran = mesh.cbctl(&[
        "rollout",
        "start",
        "--build",
        "cbddc@9.9",
        "--mesh",
        "--yes",
    ]);
    assert_ne!(ran.code, 0, "{ran}");
    assert!(ran.stderr.contains("cbddc@9.9"), "{ran}");
    let ran = mesh.cbctl(&["rollback", "--mesh", "--yes", "--to", "cbddc@9.9"]);
    assert_ne!(ran.code, 0, "{ran}");
    let ran = mesh.cbctl(&["rollback", "--mesh", "--yes"]);
    assert_ne!(ran.code, 0, "there is nothing to go back to: {ran}");
    let ran = mesh.cbctl(&["snapshot", "restore", "s1", "--node", "n1", "--yes"]);
    assert_ne!(ran.code, 0, "{ran}");
    // Nobody is asked where nobody can answer.
    let ran = mesh.cbctl(&["rollout", "start", "--build", "cbddc@1.0", "--mesh"]);
    assert_ne!(ran.code, 0, "{ran}");
    assert!(ran.stderr.contains("--yes"), "{ran}");

    // The same version with other bytes, cut off and altered.
    let bytes = fs::read(&bundle).expect("the bundle");
    let cut = mesh.root().join("cut.cbundle");
    fs::write(&cut, &bytes[..bytes.len() / 2]).expect("a file");
    let ran = mesh.cbctl(&["build", "push", "cut.cbundle"]);
    assert_ne!(ran.code, 0, "{ran}");
    let mut altered = bytes.clone();
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    fs::write(mesh.root().join("altered.cbundle"), altered).expect("a file");
    let ran = mesh.cbctl(&["build", "push", "altered.cbundle"]);
    assert!(ran.code != 0 || ran.stdout.contains("was there"), "{ran}");

    assert_eq!(state(&mesh), before);
    assert!((0..3).all(|index| mesh.node_pid(index).is_none()));
}

#[test]
fn an_unknown_key_keeps_the_agent_from_starting() {
    let mut mesh = TestMesh::start(MeshOptions {
        nodes: 1,
        ..MeshOptions::default()
    });
    mesh.stop_agent(0);
    let config = mesh.node(0).config();
    let good = fs::read_to_string(&config).expect("the configuration");
    fs::write(&config, format!("{good}frobnicate = true\n[nonsense]\n")).expect("a file");
    for word in ["check", "run"] {
        let ran = mesh.cbagent(0, word);
        refused(&ran, 1, "frobnicate");
        assert!(ran.stderr.contains("nonsense"), "all faults at once: {ran}");
    }
    assert_eq!(mesh.status_of(0)["outcome"], "unreachable");
    fs::write(&config, good).expect("a file");
    mesh.start_agent(0);
}

#[test]
fn strangers_are_refused() {
    let mesh = TestMesh::start(MeshOptions::default());
    let other = TestMesh::prepare(MeshOptions::default());

    // An admin of another mesh of the same name, who knows the addresses and the authority.
    let folder = mesh.root().join("stranger");
    let context = folder.join("contexts/shop");
    fs::create_dir_all(&context).expect("a folder");
    fs::write(folder.join("current"), "shop\n").expect("a file");
    for (mesh, file) in [
        (&mesh, "mesh.toml"),
        (&mesh, "ca.pem"),
        (&other, "user.pem"),
        (&other, "user.key"),
    ] {
        let from = mesh.cbctl_config().join("contexts/shop").join(file);
        fs::copy(from, context.join(file)).expect("a copy");
    }
    for line in ["status -o json", "journal list -o json"] {
        let words: Vec<&str> = line.split(' ').collect();
        let mut command = mesh.cbctl_command(&words);
        command.env("CBCTL_CONFIG", &folder);
        let ran = mesh.run(line, command);
        assert_ne!(ran.code, 0, "{ran}");
        for node in ["n1", "n2", "n3"] {
            assert_ne!(of_node(&ran.json(), node)["outcome"], "ok", "{ran}");
        }
    }

    // No certificate at all: `access.rs` shows that such a caller may join and do nothing else.
    // No TLS at all.
    let mut plain = TcpStream::connect(("127.0.0.1", mesh.node(0).agent_port)).expect("a port");
    plain.set_read_timeout(Some(LIMIT)).expect("a limit");
    plain
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .expect("sent");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    let is_alert = |answer: &[u8]| answer.is_empty() || answer[0] == 21;
    assert!(is_alert(&answer), "an answer without TLS: {answer:?}");

    mesh.cbctl(&["status"]).expect(0);
}

#[test]
fn the_journal_is_followed_until_ctrl_c() {
    let mesh = TestMesh::start(MeshOptions::default());
    mesh.make_build("1.0", "");
    let mut follow = mesh.cbctl_spawn(&["journal", "follow", "--limit", "1"]);
    mesh.wait_for("what was is shown", LIMIT, |_| {
        follow.stdout().contains("cbddc@1.0").then_some(())
    });
    mesh.make_build("1.1", "");
    mesh.wait_for("what comes is shown", LIMIT, |_| {
        let of_11 = follow.stdout().matches("cbddc@1.1").count();
        (of_11 >= 3).then_some(())
    });
    follow.interrupt();
    let ran = follow.wait(LIMIT);
    assert_eq!(ran.code, 130, "{ran}");
}

#[test]
fn a_node_runs_in_its_builds_folder_with_folders_of_its_own() {
    let mesh = TestMesh::start(MeshOptions {
        nodes: 1,
        ..MeshOptions::default()
    });
    mesh.make_build("1.0", "");
    mesh.first_release("1.0");
    let pid = mesh.node_pid(0).expect("the node runs");
    let state = mesh.node(0).folder.join("state");
    let runs_in = fs::read_link(format!("/proc/{pid}/cwd")).expect("its folder");
    let build = fs::canonicalize(state.join("store/current")).expect("the build's folder");
    assert_eq!(runs_in, build);
    let environment = fs::read(format!("/proc/{pid}/environ")).expect("its environment");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    for (variable, folder) in [
        ("HOME", "node-home"),
        ("TMPDIR", "node-tmp"),
        ("DOTNET_BUNDLE_EXTRACT_BASE_DIR", "node-home/unpacked"),
    ] {
        let folder = state.join(folder);
        let wanted = format!("{variable}={}", folder.display());
        let mut all = environment.split('\0');
        assert!(all.any(|one| one == wanted), "no {wanted} in {environment}");
        let mode = fs::metadata(&folder).expect("it is there").permissions();
        assert_eq!(mode.mode() & 0o777, 0o700, "{}", folder.display());
    }
}

#[test]
fn a_release_comes_in_waves_and_goes_again() {
    let mut mesh = TestMesh::start(MeshOptions::default());
    mesh.make_build("1.0", "");
    mesh.first_release("1.0");
    mesh.wait_until_all_run("1.0", LIMIT);
    let writer = Writer::start(&mesh, "orders");
    mesh.wait_for("documents are written", LIMIT, |_| {
        (writer.acknowledged() > 30).then_some(())
    });

    mesh.make_build("1.1", "");
    mesh.roll_out("1.1");
    mesh.wait_until_all_run("1.1", LIMIT);
    assert_eq!(mesh.stats(0).expect("the node answers")["version"], "1.1");
    mesh.cbctl(&["health", "show"]).expect(0);
    let history = mesh.cbctl(&["node", "history", "n2"]).expect(0);
    for version in ["cbddc@1.0", "cbddc@1.1"] {
        assert!(history.stdout.contains(version), "{history}");
    }
    let snapshots = mesh
        .cbctl(&["snapshot", "list", "-o", "json"])
        .expect(0)
        .json();
    let taken = of_node(&snapshots, "n3")["result"].to_string();
    assert!(taken.contains("before an activation"), "{taken}");

    // The node outlives its agent, and is found again.
    let node = mesh.node_pid(1).expect("the node runs");
    mesh.kill_agent(1);
    assert_eq!(mesh.node_pid(1), Some(node));
    mesh.start_agent(1);
    mesh.wait_until_all_run("1.1", LIMIT);
    assert_eq!(mesh.node_pid(1), Some(node));

    mesh.cbctl(&["rollback", "--mesh", "--yes", "--reason", "slow"])
        .expect(0);
    mesh.wait_until_all_run("1.0", LIMIT);
    assert_ne!(mesh.node_pid(1), Some(node));
    // What was revoked does not come back.
    let ran = mesh.cbctl(&mesh.rollout("1.1"));
    assert_ne!(ran.code, 0, "{ran}");
    mesh.wait_until_all_run("1.0", LIMIT);

    let count = mesh.count_documents(&writer.stop(), LIMIT);
    assert!(count.acknowledged > 30 && count.is_clean(), "{count:?}");
    let actors: Vec<Value> = mesh.journal(0).iter().map(|e| e["actor"].clone()).collect();
    assert!(actors.contains(&Value::from("ana")), "{actors:?}");
    // Each stop was preceded by a drain: for 1.1, and for the way back.
    let text = |entry: &Value| entry["text"].as_str().map(str::to_owned);
    let texts: Vec<String> = mesh.journal(0).iter().filter_map(text).collect();
    let drains = texts
        .iter()
        .filter(|text| text.contains("for two sync cycles"));
    assert_eq!(drains.count(), 2, "{texts:#?}");
}

/// Nobody writes: only an event that is written for the check can prove that replication works.
#[track_caller]
fn proven_by_a_canary(canary: &'static str, collection: &str) {
    let mesh = TestMesh::start(MeshOptions {
        canary,
        ..MeshOptions::default()
    });
    (0..3).for_each(|index| {
        mesh.node(index)
            .declare(&["cbagent.canary", "checks", "orders"])
    });
    for version in ["1.0", "1.1"] {
        mesh.make_build(version, "");
        let ran = mesh.roll_out(version);
        if version == "1.1" {
            let words = format!("arrived everywhere exactly once, in {collection}");
            assert!(ran.stderr.contains(&words), "{}", ran.stderr);
            assert!(!ran.stderr.contains("unproven"), "{}", ran.stderr);
        }
    }
    // What was written is taken away again, everywhere.
    let documents = |mesh: &TestMesh| {
        let all = (0..mesh.len()).map(|index| mesh.stats(index));
        let counts = all.map(|stats| stats.and_then(|stats| stats["documents"].as_u64()));
        counts.collect::<Option<Vec<u64>>>()
    };
    mesh.wait_for("it is taken away", LIMIT, |mesh| {
        (documents(mesh)? == [0, 0, 0]).then_some(())
    });
    let ran = mesh.cbctl(&["replication", "audit"]).expect(0);
    assert!(!ran.stdout.contains("missed"), "{ran}");
}

#[test]
fn an_event_of_the_agents_proves_replication_where_nothing_else_moves() {
    proven_by_a_canary("canary = \"push\"", "cbagent.canary");
}

#[test]
fn an_event_of_the_agents_may_be_in_a_collection_of_the_application() {
    proven_by_a_canary(
        "canary = \"push\"\ncanary_collection = \"orders\"",
        "orders",
    );
}

/// A node passes on what it declares, and nothing else.
#[test]
fn an_event_of_the_agents_that_no_node_would_pass_on_is_not_written_and_told() {
    let mesh = TestMesh::start(MeshOptions {
        canary: "canary = \"push\"",
        ..MeshOptions::default()
    });
    (0..3).for_each(|index| mesh.node(index).declare(&["orders"]));
    mesh.make_build("1.0", "");
    let ran = mesh.roll_out("1.0");
    let words = "n1: not checked: no canary event is written: the node declares its collections, and cbagent.canary is none of them";
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
    let checked = mesh
        .cbctl(&["replication", "check", "-o", "json"])
        .expect(0);
    let checked = checked.json();
    assert_eq!(checked["verdict"], "unproven", "{checked}");
    let told = &checked["not_checked"];
    assert_eq!(told.as_array().map(Vec::len), Some(3), "{told}");
    assert!(told.to_string().contains("canary_collection"), "{told}");
    assert_eq!(mesh.stats(0).expect("the node answers")["documents"], 0);
}

#[test]
fn an_event_that_a_page_of_the_application_writes_proves_it_too() {
    let page = "canary = \"http://127.0.0.1:HTTP_PORT/doc/checks/HTTP_PORT?flush=1\"";
    proven_by_a_canary(page, "checks");
}

#[test]
fn an_event_that_a_program_of_the_application_writes_proves_it_too() {
    let program = r#"canary_command = ["/bin/bash", "-c", """
exec 3<>/dev/tcp/127.0.0.1/HTTP_PORT
body='{"by":"a program"}'
case $CANARY_ACTION in
put) verb=PUT ;;
delete) verb=DELETE body= ;;
esac
printf '%s /doc/%s/%s?flush=1 HTTP/1.1\\r\\ncontent-length: %s\\r\\n\\r\\n%s' \\
    $verb $CANARY_COLLECTION $CANARY_KEY ${#body} "$body" >&3
read -r answer <&3
[[ $answer == *" 200 "* ]]
"""]"#;
    proven_by_a_canary(program, "cbagent.canary");
}
