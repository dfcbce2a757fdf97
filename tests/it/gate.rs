//! The gate at start: the real `cbagent gate` against folders as an agent leaves them, and what the
//! agent writes there.

#![expect(clippy::disallowed_methods, reason = "plays systemd")]

use cbagent::adapters::clock::boot_of;
use cbagent::adapters::gate_files::{RevokingStore, write_permit, write_revoked};
use cbagent::gate::condition;
use cbagent::gate::{Permit, permit_file, revoked_file, socket_file, store_folder};
use cbagent::ports::{EffectError, JournalLine, Store};
use cbddc_domain::build::Digest;
use cbddc_domain::node::Node;
use cbddc_domain::register::{Epoch, Revocation};
use cbddc_tests::bins::binary;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Long enough for a busy machine; only a failing test waits that long.
const PATIENCE: Duration = Duration::from_secs(20);

/// An agent's folders.
struct Folders(TempDir);

impl Folders {
    /// With `current` pointing to a build, and a configuration that says nothing else that is right.
    fn new(build: Digest) -> Self {
        let folders = Self(TempDir::new().expect("a temporary folder"));
        let text = "state_dir = \"state\"\nrun_dir = \"run\"\n";
        fs::write(folders.config(), text).expect("written");
        fs::create_dir_all(folders.run()).expect("made");
        let store = store_folder(&folders.state());
        fs::create_dir_all(&store).expect("made");
        symlink(format!("builds/{build}/tree"), store.join("current")).expect("linked");
        folders
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("cbagent.toml")
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn run(&self) -> PathBuf {
        self.0.path().join("run")
    }

    fn ask(&self, wait: &str) -> Child {
        ask(&[
            "--config",
            self.config().to_str().expect("UTF-8"),
            "--wait",
            wait,
        ])
    }
}

fn ask(arguments: &[&str]) -> Child {
    let mut command = Command::new(binary("cbagent"));
    command.arg("gate").args(arguments);
    command.stderr(Stdio::piped()).stdin(Stdio::null());
    command.spawn().expect("the gate can be asked")
}

/// The exit code and what it said.
fn answer(mut gate: Child) -> (i32, String) {
    let began = Instant::now();
    while gate.try_wait().expect("own child").is_none() {
        if began.elapsed() > PATIENCE {
            gate.kill().expect("own child");
            panic!("the gate did not answer");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut said = String::new();
    let mut stderr = gate.stderr.take().expect("piped");
    stderr.read_to_string(&mut said).expect("UTF-8");
    let code = gate.wait().expect("own child").code();
    (code.expect("it ends by itself"), said)
}

fn is_start(answered: &(i32, String), said: &str) {
    assert!(
        answered.0 == 0 && answered.1.contains(said),
        "{said}: {answered:?}"
    );
}

fn is_refusal(answered: &(i32, String), said: &str) {
    assert!(
        answered.0 == 1 && answered.1.contains(said),
        "{said}: {answered:?}"
    );
}

#[test]
fn a_permit_opens_and_nothing_is_said() {
    let build = Digest::of(b"a");
    let folders = Folders::new(build);
    let _agent = UnixListener::bind(socket_file(&folders.run())).expect("a socket");
    write_permit(&folders.run(), Some(build)).expect("written");
    assert_eq!(answer(folders.ask("1min")), (0, String::new()));
}

#[test]
fn a_permit_of_another_boot_or_build_is_none() {
    let build = Digest::of(b"a");
    let folders = Folders::new(build);
    let _agent = UnixListener::bind(socket_file(&folders.run())).expect("a socket");
    write_permit(&folders.run(), Some(Digest::of(b"b"))).expect("written");
    is_start(
        &answer(folders.ask("100ms")),
        "did not give its permit in time",
    );

    let text = format!("{{\"boot_id\":\"another\",\"build\":\"{build}\"}}");
    fs::write(permit_file(&folders.run()), text).expect("written");
    is_start(
        &answer(folders.ask("100ms")),
        "did not give its permit in time",
    );
    fs::write(permit_file(&folders.run()), "{").expect("written");
    is_start(
        &answer(folders.ask("100ms")),
        "did not give its permit in time",
    );
}

#[test]
fn the_gate_waits_for_the_permit_of_a_living_agent() {
    let build = Digest::of(b"a");
    let folders = Folders::new(build);
    let agent = UnixListener::bind(socket_file(&folders.run())).expect("a socket");
    let mut gate = folders.ask("1min");
    // It asks whether the agent lives before it waits.
    drop(agent.accept().expect("the gate calls"));
    assert!(gate.try_wait().expect("own child").is_none(), "it waits");
    write_permit(&folders.run(), Some(build)).expect("written");
    assert_eq!(answer(gate), (0, String::new()));
}

#[test]
fn only_the_first_gate_of_a_boot_waits() {
    let folders = Folders::new(Digest::of(b"a"));
    let agent = UnixListener::bind(socket_file(&folders.run())).expect("a socket");
    let silent = "did not give its permit in time";
    is_start(&answer(folders.ask("100ms")), silent);
    // Within the patience of `answer`, which is shorter than this.
    is_start(&answer(folders.ask("1min")), silent);
    // It was another boot that it waited in.
    fs::write(folders.run().join("gate-waited"), "another").expect("written");
    let mut gate = folders.ask("1min");
    // Each of the three asks whether the agent lives, before it waits.
    for _ in 0..3 {
        drop(agent.accept().expect("the gate calls"));
    }
    assert!(gate.try_wait().expect("own child").is_none(), "it waits");
    write_permit(&folders.run(), Some(Digest::of(b"a"))).expect("written");
    assert_eq!(answer(gate), (0, String::new()));
}

#[test]
fn a_node_that_the_agent_holds_stopped_does_not_start() {
    let folders = Folders::new(Digest::of(b"a"));
    let agent = UnixListener::bind(socket_file(&folders.run())).expect("a socket");
    write_permit(&folders.run(), None).expect("written");
    is_refusal(&answer(folders.ask("100ms")), "holds the node stopped");
    drop(agent);
    // The socket is still there, as after a crash; nobody listens.
    is_start(&answer(folders.ask("1min")), "the agent does not run");
}

#[test]
fn a_full_queue_is_a_busy_agent() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, listen, socket};
    let folders = Folders::new(Digest::of(b"a"));
    let address = SocketAddrUnix::new(socket_file(&folders.run())).expect("short enough");
    let new = || socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
    let agent = new();
    bind(&agent, &address).expect("bound");
    listen(&agent, 0).expect("listening");
    let first = new();
    connect(&first, &address).expect("one fits");
    is_start(
        &answer(folders.ask("1s")),
        "did not give its permit in time",
    );
}

#[test]
fn without_an_agent_all_but_the_revoked_start() {
    let build = Digest::of(b"a");
    let folders = Folders::new(build);
    is_start(&answer(folders.ask("1min")), "the agent does not run");

    write_revoked(&folders.state(), &BTreeSet::from([Digest::of(b"b")])).expect("written");
    is_start(&answer(folders.ask("1min")), "the agent does not run");

    let both = BTreeSet::from([Digest::of(b"b"), build]);
    write_revoked(&folders.state(), &both).expect("written");
    is_refusal(&answer(folders.ask("1min")), "was revoked");
    write_permit(&folders.run(), Some(build)).expect("written");
    is_refusal(&answer(folders.ask("1min")), &build.short());
}

#[test]
fn what_cannot_be_read_keeps_no_node_down() {
    let build = Digest::of(b"a");
    let folders = Folders::new(build);
    // Folders where files should be: unreadable for root, too.
    fs::create_dir(revoked_file(&folders.state())).expect("made");
    fs::create_dir(permit_file(&folders.run())).expect("made");
    is_start(&answer(folders.ask("1min")), "the agent does not run");

    let current = store_folder(&folders.state()).join("current");
    fs::remove_file(&current).expect("a link");
    is_start(&answer(folders.ask("1min")), "no build was activated");
    fs::write(&current, "not a link").expect("written");
    is_start(&answer(folders.ask("1min")), "the agent does not run");
    fs::remove_dir_all(folders.state()).expect("removed");
    is_start(&answer(folders.ask("1min")), "no build was activated");
}

#[test]
fn a_broken_line_does_not_hide_a_revocation() {
    let build = Digest::of(b"a");
    let folders = Folders::new(build);
    let text = [b"\xff\xfe nonsense\n".to_vec(), format!("{build}\n").into()].concat();
    fs::write(revoked_file(&folders.state()), text).expect("written");
    is_refusal(&answer(folders.ask("1min")), "was revoked");
}

#[test]
fn a_wrong_call_lets_the_node_start() {
    for arguments in [&["--nonsense"][..], &["--wait", "soon"], &["--config"]] {
        let (code, _) = answer(ask(arguments));
        assert_eq!(code, 0, "{arguments:?}");
    }
    let (code, said) = answer(ask(&["--config", "/proc/nothing/cbagent.toml"]));
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("cannot read the configuration"), "{said}");
}

/// A store that looks at the gate's file while it saves.
struct Looking {
    file: PathBuf,
    seen: Mutex<Vec<String>>,
}

#[async_trait::async_trait]
impl Store for Looking {
    async fn save(&self, _: &Node, _: Vec<JournalLine>) -> Result<(), EffectError> {
        let text = fs::read_to_string(&self.file).expect("the gate was told");
        self.seen.lock().expect("not poisoned").push(text);
        Ok(())
    }
}

fn revoking(builds: &[(Digest, bool)]) -> Node {
    let mut node = Node::default();
    for (build, lifted) in builds {
        let revocation = Revocation {
            epoch: Epoch::default(),
            lifted: *lifted,
            reason: "test".to_owned(),
        };
        node.register.revocations.insert(*build, revocation);
    }
    node
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("the gate was told")
}

#[tokio::test]
async fn a_revocation_is_on_disk_before_the_state_that_holds_it() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = revoked_file(folder.path());
    let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
    let looking = Arc::new(Looking {
        file: file.clone(),
        seen: Mutex::default(),
    });
    // Told at start, from the state.
    let node = revoking(&[(a, false)]);
    let store = RevokingStore::new(looking.clone(), folder.path().to_owned(), &node);
    assert_eq!(read(&file), format!("{a}\n"));
    // One more stands while the state is saved, and one that is lifted still stands.
    let node = revoking(&[(a, true), (b, false)]);
    store.save(&node, Vec::new()).await.expect("saved");
    let seen = looking
        .seen
        .lock()
        .expect("not poisoned")
        .pop()
        .expect("saved");
    assert_eq!(
        seen.lines().collect::<BTreeSet<_>>(),
        BTreeSet::from([&*a.to_string(), &b.to_string()])
    );
    assert_eq!(read(&file), format!("{b}\n"), "lifted after it was saved");
    // What cannot be told is not saved.
    fs::remove_dir_all(folder.path()).expect("removed");
    let node = revoking(&[(a, false), (b, false)]);
    assert!(store.save(&node, Vec::new()).await.is_err());
    assert!(looking.seen.lock().expect("not poisoned").is_empty());
}

#[test]
fn a_permit_is_of_this_boot() {
    let folder = TempDir::new().expect("a temporary folder");
    let build = Some(Digest::of(b"a"));
    // The folder is made where it is missing.
    let run_dir = folder.path().join("run");
    write_permit(&run_dir, build).expect("written");
    let permit: Permit = serde_json::from_str(&read(&permit_file(&run_dir))).expect("JSON");
    let boot_id = boot_of(&run_dir).expect("Linux").expect("it was begun");
    assert_eq!(permit, Permit { boot_id, build });
}

/// What the line in the unit answers with this program in the gate's place.
fn shell(folders: &Folders, program: &str) -> i32 {
    let path = folders.0.path().join("program");
    let _ = fs::remove_file(&path);
    if !program.is_empty() {
        fs::write(&path, program).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("own file");
    }
    let script = condition::script(path.to_str().expect("UTF-8"), &folders.state());
    let mut command = Command::new("/bin/sh");
    let status = command.args(["-c", &script]).stderr(Stdio::null()).status();
    status
        .expect("there is a shell")
        .code()
        .expect("it ends by itself")
}

#[test]
fn a_broken_agent_keeps_no_unrevoked_node_down() {
    let build = Digest::of(b"a");
    let folders = Folders::new(build);
    let broken = [
        "",
        "#!/bin/sh\nkill -SEGV $$\n",
        "#!/bin/sh\nexit 101\n",
        "#!/no/such/interpreter\n",
        "\x7fELF nonsense",
        "#!/bin/sh\nexit 2\n",
    ];
    for program in broken {
        assert_eq!(shell(&folders, program), 0, "{program:?}");
    }
    assert_eq!(shell(&folders, "#!/bin/sh\nexit 1\n"), 1);
    assert_eq!(shell(&folders, "#!/bin/sh\ntest \"$*\" = gate\n"), 0);

    let revoked = BTreeSet::from([Digest::of(b"b"), build]);
    write_revoked(&folders.state(), &revoked).expect("written");
    for program in &broken[1..] {
        assert_eq!(shell(&folders, program), 1, "{program:?}");
    }
    // The package is gone: so are its promises.
    assert_eq!(shell(&folders, ""), 0);
    assert_eq!(shell(&folders, "#!/bin/sh\nexit 0\n"), 0);
    fs::remove_file(store_folder(&folders.state()).join("current")).expect("a link");
    assert_eq!(shell(&folders, broken[1]), 0);
}

#[test]
fn the_line_is_escaped_for_systemd() {
    let line = condition::line("/usr/bin/cbagent", Path::new("/var/lib/cbagent"));
    let line = line.expect("plain paths");
    assert!(line.starts_with("ExecCondition=+/bin/sh -c 'test -x /usr/bin/cbagent || exit 0; "));
    assert!(
        line.contains("\"$${b%%/tree}\" /var/lib/cbagent/revoked"),
        "{line}"
    );
    assert_eq!(line.matches('\'').count(), 2, "{line}");
    for state_dir in ["/var/lib/a b", "var/lib", "/var/$x", "/var/'x'"] {
        let refused = condition::line("/usr/bin/cbagent", Path::new(state_dir));
        assert!(
            refused.is_err_and(|why| why.contains(state_dir)),
            "{state_dir}"
        );
    }
}
