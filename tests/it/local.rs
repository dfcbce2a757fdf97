//! Root's way in: the agent's socket, without a certificate.

use cbddc_tests::mesh::{MeshOptions, TestMesh};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

fn one_node() -> TestMesh {
    TestMesh::start(MeshOptions {
        nodes: 1,
        ..MeshOptions::default()
    })
}

fn socket(mesh: &TestMesh) -> String {
    let path = mesh.node(0).folder.join("state/run/agent.sock");
    path.to_string_lossy().into_owned()
}

#[test]
fn whoever_owns_the_host_looks_without_a_certificate() {
    let mut mesh = one_node();
    mesh.make_build("1.0", "");
    mesh.cbctl(&mesh.rollout("1.0")).expect(0);
    let socket = socket(&mesh);
    let mode = fs::metadata(&socket)
        .expect("a socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let run = |words: &[&str]| {
        let mut command = mesh.cbctl_command(words);
        // No mesh is known here.
        command.env("CBCTL_CONFIG", mesh.root().join("nothing"));
        command.args(["--socket", &socket]);
        mesh.run(&words.join(" "), command)
    };
    let status = run(&["status", "-o", "json"]).expect(0).json();
    assert_eq!(status["nodes"][0]["node"], "n1", "{status}");
    assert_eq!(status["nodes"][0]["result"]["phase"], "steady", "{status}");
    run(&["node", "history", "n1"]).expect(0);
    run(&["snapshot", "create", "--yes"]).expect(0);
    let journal = mesh.journal(0);
    let taken = journal.iter().find(|line| line["kind"] == "snapshot_taken");
    assert_eq!(taken.expect("it is told")["actor"], "root");

    // What the mesh decides takes a certificate of the mesh.
    let refused = run(&["rollback", "--mesh", "--yes"]).expect(1);
    assert!(
        refused.stderr.contains("needs a majority of the mesh"),
        "{refused}"
    );
    // Here the agent itself starts the node's process.
    let refused = run(&["node", "adopt", "--mesh", "--yes"]).expect(1);
    assert!(
        refused.stderr.contains("starts the node's process itself"),
        "{refused}"
    );

    // A new agent puts its own socket in the place of the one that was left behind.
    mesh.kill_agent(0);
    assert!(fs::exists(&socket).expect("a readable folder"));
    mesh.start_agent(0);
    let mut command = mesh.cbctl_command(&["status", "--socket", &socket]);
    command.env("CBCTL_CONFIG", mesh.root().join("nothing"));
    mesh.run("status", command).expect(0);
    mesh.stop_agent(0);
    assert!(!fs::exists(&socket).expect("a readable folder"));
}

#[test]
fn a_stranger_on_the_host_does_not_get_in() {
    if !rustix::process::geteuid().is_root() {
        assert!(
            std::env::var_os("CI").is_none(),
            "all tests are required, but to be somebody else takes root"
        );
        eprintln!("LEFT OUT: a stranger at the local socket: to be somebody else takes root");
        return;
    }
    let mesh = one_node();
    let socket = socket(&mesh);
    // Even where the file's mode would let them.
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).expect("our own file");
    for part in ["", "n1", "n1/state", "n1/state/run"] {
        let open = mesh.root().join(part);
        fs::set_permissions(open, fs::Permissions::from_mode(0o755)).expect("our own folder");
    }
    let program = mesh.cbctl_command::<&str>(&[]).get_program().to_owned();
    #[expect(clippy::disallowed_methods, reason = "a test becomes somebody else")]
    let mut stranger = std::process::Command::new("setpriv");
    stranger.args([
        "--reuid",
        "65534",
        "--regid",
        "65534",
        "--clear-groups",
        "--",
    ]);
    stranger.arg(program).args(["status", "--socket", &socket]);
    stranger.env("CBCTL_CONFIG", "/nonexistent");
    let refused = mesh.run("status as a stranger", stranger).expect(1);
    assert!(
        refused.stderr.contains("cannot reach this host's agent"),
        "{refused}"
    );
    let log = fs::read_to_string(mesh.node(0).folder.join("agent.log")).expect("a log");
    assert!(
        log.contains("a stranger was refused at the local socket"),
        "{log}"
    );
}
