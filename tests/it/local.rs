//! Root's way in: the agent's socket, without a certificate.

use cbagent::adapters::accounts::Accounts;
use cbddc_tests::mesh::{MeshOptions, Ran, TestMesh};
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
    mesh.first_release("1.0");
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

/// Whether this test may become somebody else; says so where it may not.
fn may_be_somebody_else(what: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "all tests are required, but to be somebody else takes root"
    );
    eprintln!("LEFT OUT: {what}: to be somebody else takes root");
    false
}

/// Lets everybody come as far as the socket.
fn open_the_way(mesh: &TestMesh) {
    for part in ["", "n1", "n1/state", "n1/state/run"] {
        let open = mesh.root().join(part);
        fs::set_permissions(open, fs::Permissions::from_mode(0o755)).expect("our own folder");
    }
}

/// `cbctl` at the socket, as a user by its number, in these groups.
fn as_user(mesh: &TestMesh, uid: u32, groups: &[u32], words: &[&str]) -> Ran {
    let program = mesh.cbctl_command::<&str>(&[]).get_program().to_owned();
    #[expect(clippy::disallowed_methods, reason = "a test becomes somebody else")]
    let mut command = std::process::Command::new("setpriv");
    let gid = groups.first().copied().unwrap_or(uid);
    command.args(["--reuid", &uid.to_string(), "--regid", &gid.to_string()]);
    command.args(["--clear-groups", "--"]);
    command
        .arg(program)
        .args(words)
        .args(["--socket", &socket(mesh)]);
    command.env("CBCTL_CONFIG", "/nonexistent");
    mesh.run(&format!("{} as {uid}", words.join(" ")), command)
}

#[test]
fn a_stranger_on_the_host_does_not_get_in() {
    if !may_be_somebody_else("a stranger at the local socket") {
        return;
    }
    let mesh = one_node();
    // Even where the file's mode would let them.
    fs::set_permissions(socket(&mesh), fs::Permissions::from_mode(0o666)).expect("our own file");
    open_the_way(&mesh);
    let refused = as_user(&mesh, 65534, &[], &["status"]).expect(1);
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

#[test]
fn users_and_groups_of_the_host_do_what_the_configuration_lets_them() {
    if !may_be_somebody_else("users at the local socket") {
        return;
    }
    let mut mesh = one_node();
    mesh.make_build("1.0", "");
    mesh.first_release("1.0");
    mesh.stop_agent(0);
    let config = mesh.node(0).folder.join("cbagent.toml");
    let text = fs::read_to_string(&config).expect("a configuration");
    // `daemon` is a user and `games` a group on every Debian.
    let local = "\n[local]\nusers = { daemon = \"operator\", 4711 = \"viewer\", nobody-here = \"admin\" }\n\
                 groups = { games = \"viewer\", 4242 = \"operator\" }\n";
    fs::write(&config, text + local).expect("our own file");
    let checked = mesh.cbagent(0, "check").expect(1);
    assert!(
        checked
            .stderr
            .contains("this host has no user `nobody-here`"),
        "{checked}"
    );
    mesh.start_agent(0);
    open_the_way(&mesh);
    let mode = fs::metadata(socket(&mesh)).expect("a socket").permissions();
    assert_eq!(mode.mode() & 0o777, 0o666);

    let take = ["snapshot", "create", "--yes"];
    let passwd = fs::read_to_string("/etc/passwd").expect("users");
    let daemon = passwd.lines().find(|line| line.starts_with("daemon:"));
    let daemon = daemon.and_then(|line| line.split(':').nth(2)?.parse().ok());
    let group = fs::read_to_string("/etc/group").expect("groups");
    let games = group.lines().find(|line| line.starts_with("games:"));
    let games = games.and_then(|line| line.split(':').nth(2)?.parse().ok());
    let (daemon, games): (u32, u32) = (daemon.expect("daemon"), games.expect("games"));
    as_user(&mesh, daemon, &[], &["status"]).expect(0);
    as_user(&mesh, daemon, &[], &take).expect(0);
    let journal = mesh.journal(0);
    let taken = journal
        .iter()
        .rfind(|line| line["kind"] == "snapshot_taken");
    assert_eq!(taken.expect("it is told")["actor"], "daemon");
    for (uid, groups) in [(4711, &[][..]), (4712, &[games])] {
        as_user(&mesh, uid, groups, &["status"]).expect(0);
        let refused = as_user(&mesh, uid, groups, &take).expect(7);
        let said = &refused.stderr;
        assert!(
            said.contains("not_allowed") && said.contains("viewer"),
            "{refused}"
        );
    }
    as_user(&mesh, 4712, &[4242], &take).expect(0);
    let journal = mesh.journal(0);
    let taken = journal
        .iter()
        .rfind(|line| line["kind"] == "snapshot_taken");
    assert_eq!(taken.expect("it is told")["actor"], "uid 4712");
    as_user(&mesh, 4712, &[], &["status"]).expect(1);
}

#[test]
fn groups_of_a_user_are_found_in_the_files() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let accounts = Accounts {
        passwd: folder.path().join("passwd"),
        group: folder.path().join("group"),
    };
    fs::write(
        &accounts.passwd,
        "root:x:0:0::/:/bin/sh\nana:x:1001:100:Ana, at the till:/srv/ana:/bin/sh\nbad line\n:x:1:1\n",
    )
    .expect("a file");
    fs::write(
        &accounts.group,
        "root:x:0:\nusers:x:100:\nadm:x:4:bob,ana\nops:x:60:anabel\nx:y:z\n",
    )
    .expect("a file");
    let ana = accounts.account(1001, 1001);
    assert_eq!(ana.name.as_deref(), Some("ana"));
    let groups: Vec<_> = ana.groups.into_iter().collect();
    let some = |name: &str| Some(name.to_owned());
    assert_eq!(
        groups,
        [(4, some("adm")), (100, some("users")), (1001, None)]
    );
    let other = accounts.account(7, 60);
    assert_eq!((other.shown(), other.groups.len()), ("uid 7".to_owned(), 1));
}
