//! What is made of a unit that is to be taken over, and which units are refused.

use cbagent::adoption::{Files, OpenFiles, Plan, UnitFacts, plan};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::slice;

const LINK: &str = "/var/lib/cbagent/store/current";

const GATE: &str = "ExecCondition=+/bin/sh -c 'ask the gate'";

/// Files by their paths; a path that begins with `->` is a link.
struct Disk(BTreeMap<&'static str, &'static [u8]>);

impl Files for Disk {
    fn head(&self, path: &Path) -> io::Result<Vec<u8>> {
        let found = path.to_str().and_then(|path| self.0.get(path));
        found
            .map(|bytes| bytes.to_vec())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn real(&self, path: &Path) -> io::Result<PathBuf> {
        match self.head(path)?.strip_prefix(b"->") {
            Some(target) => Ok(String::from_utf8_lossy(target).into_owned().into()),
            None => Ok(path.to_owned()),
        }
    }
}

fn disk() -> Disk {
    let files: [(&str, &[u8]); 10] = [
        ("/opt/cbddc/Node", b"\x7fELF"),
        ("/opt/cbddc/Node.dll", b"MZ"),
        ("/opt/node", b"->/opt/cbddc/Node"),
        ("/opt/cbddc", b"a folder"),
        ("/opt/cbddc/data", b"a folder"),
        ("/usr/bin/dotnet", b"\x7fELF"),
        ("/usr/bin/node", b"\x7fELF"),
        (
            "/usr/local/bin/run-node",
            b"#!/bin/sh\n# starts it\nset -e\nexec /opt/cbddc/Node --fast \"$@\"\n",
        ),
        (
            "/usr/local/bin/odd",
            b"#!/bin/bash\nulimit -n 4096\nexec /opt/cbddc/Node\n",
        ),
        (
            "/usr/local/bin/loop",
            b"#!/bin/sh\nexec /usr/local/bin/loop\n",
        ),
    ];
    Disk(files.into())
}

fn facts(command: &[&str]) -> UnitFacts {
    UnitFacts {
        name: "cbddc.service".into(),
        load_state: "loaded".into(),
        commands: vec![command.iter().map(ToString::to_string).collect()],
        user: "cbddc".into(),
        start_limit_ms: Some(90_000),
        main_pid: 77,
        ..UnitFacts::default()
    }
}

fn open(written: &[&str]) -> OpenFiles {
    OpenFiles {
        written: written.iter().map(PathBuf::from).collect(),
        databases: Vec::new(),
    }
}

fn planned(facts: &UnitFacts) -> Result<Plan, String> {
    planned_with(facts, &open(&[]), &[])
}

fn planned_with(
    facts: &UnitFacts,
    open: &OpenFiles,
    databases: &[PathBuf],
) -> Result<Plan, String> {
    plan(facts, open, databases, Path::new(LINK), GATE, &disk()).map_err(|error| error.to_string())
}

#[test]
fn the_program_is_found_behind_links_runtimes_and_scripts() {
    let rows: [(&[&str], &str, &[&str]); 4] = [
        (
            &["/opt/cbddc/Node", "--settings", "/etc/cbddc/a.json"],
            "/opt/cbddc/Node",
            &[
                "/var/lib/cbagent/store/current/Node",
                "--settings",
                "/etc/cbddc/a.json",
            ],
        ),
        (
            &["/opt/node", "-v"],
            "/opt/cbddc/Node",
            &["/var/lib/cbagent/store/current/Node", "-v"],
        ),
        (
            &["/usr/bin/dotnet", "/opt/cbddc/Node.dll", "-v"],
            "/opt/cbddc/Node.dll",
            &[
                "/usr/bin/dotnet",
                "/var/lib/cbagent/store/current/Node.dll",
                "-v",
            ],
        ),
        (
            &["/usr/local/bin/run-node", "--deep"],
            "/opt/cbddc/Node",
            &["/var/lib/cbagent/store/current/Node", "--fast", "--deep"],
        ),
    ];
    for (command, program, then) in rows {
        let plan = planned(&facts(command)).expect("it can be taken over");
        assert_eq!(plan.program, Path::new(program), "{command:?}");
        assert_eq!(plan.folder, Path::new("/opt/cbddc"), "{command:?}");
        assert_eq!(plan.command, then, "{command:?}");
        assert_eq!((plan.main_pid, plan.user.as_str()), (77, "cbddc"));
    }
}

#[test]
fn the_drop_in_says_this_and_nothing_else() {
    let mut facts = facts(&["/opt/cbddc/Node", "100%", "a $b \"c\" \\"]);
    facts.working_dir = "/opt/cbddc/data".into();
    let plan = planned(&facts).expect("it can be taken over");
    assert_eq!(
        plan.drop_in,
        Path::new("/etc/systemd/system/cbddc.service.d/50-cbagent.conf")
    );
    let expected = r#"# Written by cbagent. `cbctl node unadopt` takes it away.
[Unit]
Wants=cbagent.service
After=cbagent.service

[Service]
ExecCondition=+/bin/sh -c 'ask the gate'
ExecStart=
ExecStart="/var/lib/cbagent/store/current/Node" "100%%" "a $$b \"c\" \\"
WorkingDirectory=/var/lib/cbagent/store/current/data
"#;
    assert_eq!(plan.text, expected);
}

#[test]
fn what_cannot_be_taken_over_is_refused_with_the_remedy() {
    let good = || facts(&["/opt/cbddc/Node"]);
    let of = |command: &[&str]| facts(command);
    let rows: [(UnitFacts, &str); 12] = [
        (
            UnitFacts {
                load_state: "not-found".into(),
                ..good()
            },
            "is not-found: name the unit",
        ),
        (
            UnitFacts {
                main_pid: 0,
                ..good()
            },
            "does not run: start it",
        ),
        (
            UnitFacts {
                siblings: vec!["cbddc@b.service".into()],
                ..good()
            },
            "one of several instances of a template (cbddc@b.service)",
        ),
        (
            UnitFacts {
                commands: Vec::new(),
                ..good()
            },
            "has 0 ExecStart= commands",
        ),
        (
            UnitFacts {
                root: "/srv/root".into(),
                ..good()
            },
            "root folder of its own",
        ),
        (
            UnitFacts {
                start_limit_ms: Some(30_000),
                ..good()
            },
            "gives up on a start after 30 s",
        ),
        (of(&["/usr/bin/node"]), "which it shares with others"),
        (of(&["/opt/cbddc/gone"]), "cannot read the program"),
        (
            of(&["/usr/local/bin/odd"]),
            "does more than start one program",
        ),
        (
            of(&["/usr/local/bin/loop"]),
            "does more than start one program",
        ),
        (
            of(&["/opt/cbddc/Node", "a\nExecStartPost=/bin/sh"]),
            "a line break or another control character",
        ),
        (
            UnitFacts {
                commands: vec![good().commands[0].clone(), good().commands[0].clone()],
                ..good()
            },
            "has 2 ExecStart= commands",
        ),
    ];
    for (facts, words) in rows {
        let error = planned(&facts).expect_err(words);
        assert!(error.contains(words), "no `{words}` in `{error}`");
    }
}

#[test]
fn data_in_the_programs_folder_would_be_left_behind() {
    let facts = facts(&["/opt/cbddc/Node"]);
    let inside = open(&["/var/log/node.log", "/opt/cbddc/data/node.db"]);
    let error = planned_with(&facts, &inside, &[]).expect_err("a refusal");
    assert!(
        error.contains("/opt/cbddc/data/node.db lies inside"),
        "{error}"
    );
    let configured = [PathBuf::from("/opt/cbddc/node.db")];
    let error = planned_with(&facts, &open(&[]), &configured).expect_err("a refusal");
    assert!(error.contains("/opt/cbddc/node.db lies inside"), "{error}");
    // Beside it is not inside it.
    let beside = [PathBuf::from("/opt/cbddc-data/node.db")];
    let plan = planned_with(&facts, &open(&[]), &beside).expect("it can be taken over");
    assert_eq!(plan.databases, beside);
}

#[test]
fn databases_that_nobody_has_configured_are_named() {
    let facts = facts(&["/opt/cbddc/Node"]);
    let [node, other] = ["/var/lib/cbddc/node.db", "/var/lib/cbddc/other.db"].map(PathBuf::from);
    let open = OpenFiles {
        written: vec![node.clone(), other.clone()],
        databases: vec![node.clone(), other.clone()],
    };
    let plan = planned_with(&facts, &open, &[]).expect("it can be taken over");
    assert_eq!(plan.databases, [node.clone(), other.clone()]);
    assert_eq!(plan.undeclared, [node.clone(), other.clone()]);
    let plan = planned_with(&facts, &open, slice::from_ref(&node)).expect("it can be taken over");
    assert_eq!(plan.databases, slice::from_ref(&node));
    assert_eq!(plan.undeclared, slice::from_ref(&other));
    let plan = planned_with(&facts, &open, &[node, other]).expect("it can be taken over");
    assert_eq!(plan.undeclared, [] as [PathBuf; 0]);
}
