//! `cbctl mesh enrol` without hosts: what it reads, what it decides, and how it uses ssh.

use crate::fake::{Folders, expect};
use cbctl::cli::{EnrolledHost, enrolled_host};
use cbctl::enrol::bundle::{Bundle, Join, config_of};
use cbctl::enrol::look::{Look, LookFault};
use cbctl::enrol::plan::{Refusal, Step, Wanted, Way, plan};
use cbctl::ssh::{Ssh, SshError};
use cbddc_domain::id::NodeName;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const FRESH: &str =
    "cbagent-look 1\nuid=0\nsystemd=252\nunit=not-found\nactive=inactive\nenabled=\nend\n";
const INSTALLED: &str =
    "uid=0\nsystemd=247\nagent=cbagent 0.1.0\nunit=loaded\nactive=inactive\nenabled=enabled\n";

fn node(name: &str) -> NodeName {
    name.parse().expect("a node name")
}

fn look(lines: &str) -> Look {
    Look::parse(&format!("cbagent-look 1\n{lines}end\n")).expect("an answer")
}

fn wanted() -> Wanted {
    Wanted {
        node: node("h1"),
        joins_at: None,
        package: None,
        config: true,
        token: false,
        replace: false,
        way: Way::Carried { issuer: false },
    }
}

#[test]
fn hosts_are_named_by_node_and_destination() {
    let named = |text: &str| enrolled_host(text).ok();
    let host = |name: &str, destination: Option<&str>| {
        Some(EnrolledHost {
            node: node(name),
            destination: destination.map(str::to_owned),
        })
    };
    assert_eq!(named("h1"), host("h1", None));
    assert_eq!(named("h1=10.0.0.1"), host("h1", Some("10.0.0.1")));
    assert_eq!(named("h1=ana@till.shop"), host("h1", Some("ana@till.shop")));
    assert_eq!(
        named("h1=root@fe80::1%eth0"),
        host("h1", Some("root@fe80::1%eth0"))
    );
    for bad in [
        "",
        "H1",
        "h1=",
        "h1=-oProxyCommand=x",
        "h1=a@-oProxyCommand",
        "h1=ana@",
        "h1=@x",
        "h1=a b",
        "h1=a;b",
        "h1=$(x)",
        "h1=a\nb",
    ] {
        assert_eq!(named(bad), None, "{bad:?}");
    }
}

#[test]
fn the_command_line_is_checked_before_anything_is_done() {
    let address = "127.0.0.1:7443".parse().expect("an address");
    let folders = Folders::init("shop", &[("n1", address)]);
    let mesh = || fs::read(folders.path("mesh/mesh.toml")).expect("a mesh file");
    let before = mesh();
    let nowhere = "/nowhere/ssh";
    for (arguments, code, said) in [
        ("", 64, "NODE"),
        ("N1", 64, "node name"),
        ("n1=-oProxyCommand=true", 64, "[USER@]HOST"),
        ("n1 n1=a", 64, "n1 is named twice"),
        ("n1 n2 --address a:1", 64, "--address is for one host"),
        ("n2", 1, "n2 is not in the mesh file"),
        ("n2 --address a", 1, "is not HOST:PORT"),
        (
            "n1 --package /nowhere/x.deb",
            1,
            "cannot read /nowhere/x.deb",
        ),
        (
            "n1 --package /etc/passwd",
            1,
            "/etc/passwd is no Debian package",
        ),
        ("n1 --config /dev/null", 1, "/dev/null is empty"),
        (
            "n1 --token /dev/zero",
            1,
            "/dev/zero is larger than 4096 bytes",
        ),
        ("n1 n2=b --yes", 1, "cannot start /nowhere/ssh"),
    ] {
        let words = ["mesh", "enrol", "--ssh", nowhere].into_iter();
        let words: Vec<&str> = words.chain(arguments.split_whitespace()).collect();
        let (stdout, stderr) = expect(&folders.ctl(&words), code);
        assert!(stdout.is_empty(), "{stdout}");
        assert!(stderr.contains(said), "{arguments}: {stderr}");
        assert_eq!(mesh(), before, "{arguments}");
    }
}

#[test]
fn what_a_host_says_is_read_strictly() {
    let found = Look::parse(&format!("Welcome!\n\n{FRESH}bye\n")).expect("an answer");
    assert_eq!(
        (found.uid, found.systemd, &found.agent),
        (0, Some(252), &None)
    );
    assert_eq!(found.unit, "not-found");
    let found = look(&format!(
        "{INSTALLED}has=node.pem\nhas=token\nhas=cbagent.toml\nnode=node = \"h7\" # here\n"
    ));
    assert_eq!(found.agent.as_deref(), Some("0.1.0"));
    assert_eq!(found.configured_node.as_deref(), Some("h7"));
    assert_eq!(found.has.len(), 3);

    assert_eq!(Look::parse("sh: not found\n"), Err(LookFault::NoBeginning));
    assert_eq!(
        Look::parse("cbagent-look 1\nuid=0\n"),
        Err(LookFault::NoEnd)
    );
    for bad in ["uid=root", "systemd=x", "what", "else=1", "uid=-1"] {
        let text = format!("cbagent-look 1\n{bad}\nend\n");
        assert_eq!(Look::parse(&text), Err(LookFault::Line(bad.to_owned())));
    }
    // Nobody is root by default.
    assert_ne!(look("").uid, 0);
    let odd = look("active=\u{1b}[31mred\n");
    assert_eq!(odd.active, "[31mred", "no control characters");
}

#[test]
fn hosts_are_refused_with_a_remedy() {
    let refused = |lines: &str, wanted: &Wanted| plan(&look(lines), wanted).err();
    let package = Wanted {
        package: Some("x.deb".into()),
        ..wanted()
    };
    let bare = Wanted {
        config: false,
        ..wanted()
    };
    let fresh = "uid=0\nsystemd=252\nunit=not-found\n";
    for (lines, wanted, refusal) in [
        ("uid=0\nsystemd=\n".to_owned(), wanted(), Refusal::NoSystemd),
        (
            "uid=0\nsystemd=246\n".to_owned(),
            package.clone(),
            Refusal::OldSystemd(246),
        ),
        (
            INSTALLED.replace("uid=0", "uid=1000"),
            wanted(),
            Refusal::NotRoot,
        ),
        (fresh.to_owned(), wanted(), Refusal::NotInstalled),
        (
            INSTALLED.replace("loaded", "masked"),
            wanted(),
            Refusal::Masked,
        ),
        (
            INSTALLED.replace("loaded", "not-found"),
            wanted(),
            Refusal::NoUnit("not-found".into()),
        ),
        (
            format!("{INSTALLED}has=cbagent.toml\nnode=node=\"h2\"\n"),
            wanted(),
            Refusal::OtherNode("h2".into()),
        ),
        (
            format!("{INSTALLED}has=node.pem\n"),
            wanted(),
            Refusal::Enrolled,
        ),
        (INSTALLED.to_owned(), bare.clone(), Refusal::NotConfigured),
        (
            fresh.to_owned(),
            Wanted {
                config: false,
                ..package.clone()
            },
            Refusal::NotConfigured,
        ),
    ] {
        assert_eq!(refused(&lines, &wanted), Some(refusal), "{lines}");
    }
    // A removed package leaves its unit masked; installing it takes that back.
    assert_eq!(refused("uid=0\nsystemd=252\nunit=masked\n", &package), None);
    let own = format!("{INSTALLED}has=cbagent.toml\nnode=node = 'h1'\n");
    assert_eq!(refused(&own, &bare), None);
}

#[test]
fn the_plan_says_each_step_and_the_certificate_comes_last() {
    let steps = |lines: &str, wanted: &Wanted| -> Vec<String> {
        let steps = plan(&look(lines), wanted).expect("it is not refused");
        steps.iter().map(ToString::to_string).collect()
    };
    let all = Wanted {
        joins_at: Some("10.0.0.1:7443".into()),
        package: Some("cbagent.deb".into()),
        token: true,
        replace: true,
        ..wanted()
    };
    assert_eq!(
        steps(
            "uid=0\nsystemd=252\nunit=not-found\nactive=inactive\nenabled=\n",
            &all
        ),
        [
            "list it in mesh.toml at 10.0.0.1:7443",
            "install cbagent.deb",
            "issue a certificate",
            "put /etc/cbagent/ca.pem",
            "put /etc/cbagent/mesh.toml",
            "put /etc/cbagent/token",
            "put /etc/cbagent/cbagent.toml",
            "put /etc/cbagent/node.key",
            "put /etc/cbagent/node.pem",
            "let cbagent.service start at boot",
            "start cbagent.service",
            "check that the agent answers with that certificate",
        ]
    );
    let enrolled = format!(
        "{}has=node.pem\nhas=token\nhas=cbagent.toml\nnode=node = \"h1\"\n",
        INSTALLED.replace("active=inactive", "active=active")
    );
    assert_eq!(
        steps(&enrolled, &all)[1..],
        [
            "keep cbagent 0.1.0, which is installed",
            "issue a certificate in place of the one it has",
            "put /etc/cbagent/ca.pem",
            "put /etc/cbagent/mesh.toml",
            "keep /etc/cbagent/token, which is there",
            "keep /etc/cbagent/cbagent.toml, which is there",
            "put /etc/cbagent/node.key",
            "put /etc/cbagent/node.pem",
            "restart cbagent.service",
            "check that the agent answers with that certificate",
        ]
    );
}

#[test]
fn a_host_that_joins_makes_its_own_key() {
    let joins = Wanted {
        way: Way::Token { issuer: node("h9") },
        ..wanted()
    };
    let steps = plan(&look(INSTALLED), &joins).expect("it is not refused");
    let said: Vec<String> = steps.iter().map(ToString::to_string).collect();
    assert_eq!(said[0], "make a key there, and join by a token of h9");
    assert_eq!(said[1], "put /etc/cbagent/cbagent.toml");
    assert!(!said.concat().contains("node."), "{said:?}");
    let bundle = Bundle::of(&steps, |file| Some(format!("<{file}>").into_bytes()));
    let bundle = bundle.joining(Join {
        token: "a secret".to_owned(),
        issuer: "it's:7443".to_owned(),
        node: node("h1"),
        listen: "10.0.0.1:7443".to_owned(),
    });
    let script = bundle.script(false);
    assert!(script.contains("JOIN=8 NODE=h1 ISSUER='it'\\''s:7443' LISTEN='10.0.0.1:7443'\n"));
    assert!(
        !script.contains("a secret"),
        "the token is not in the script"
    );
    assert!(bundle.payload().ends_with(b">a secret"));

    let first = Wanted {
        way: Way::Carried { issuer: true },
        ..wanted()
    };
    let steps = plan(&look(INSTALLED), &first).expect("it is not refused");
    let last = steps.iter().rposition(|step| matches!(step, Step::Put(_)));
    assert_eq!(steps[last.expect("files")], Step::Put("node.pem"));
    assert!(steps.contains(&Step::Put("issuing.key")) && steps.contains(&Step::MakeIssuer));
}

#[test]
fn a_configuration_gets_the_name_of_its_node() {
    let shipped = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/config/cbagent.toml"),
    );
    let shipped = shipped.expect("the example");
    let made = config_of(&shipped, &node("till-3"), true).expect("a configuration");
    assert_eq!(
        made,
        shipped
            .replace("node = \"n1\"", "node = \"till-3\"")
            .replace(
                // The comment on another key that only looks like it stays.
                "# node_id = \"till-3\"",
                "# node_id = \"n1\""
            )
    );
    let of = |text: &str, shared| config_of(text, &node("h1"), shared);
    assert_eq!(
        of("a = 1\n", false).expect("one without a name"),
        "node = \"h1\"\na = 1\n"
    );
    assert_eq!(of("node='h1'", false).expect("its own"), "node='h1'");
    assert_eq!(
        of("[x]\nnode = 1\n", true).expect("another key"),
        "node = \"h1\"\n[x]\nnode = 1\n"
    );
    assert!(of("node = 'h2'\n", false).is_err(), "another node's");
    assert!(of("node = [", true).is_err(), "no TOML");
    assert!(
        of("a = '''\nnode = 1\n'''\nnode = 'x'\n", true).is_err(),
        "it is not guessed"
    );
}

/// An ssh that runs its command on this machine, and writes down how it was called.
fn ssh(folder: &TempDir, body: &str) -> Ssh {
    let program = folder.path().join("ssh");
    let text = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$@\" >>{}/called\n{body}\n",
        folder.path().display()
    );
    fs::write(&program, text).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a mode can be set");
    Ssh {
        program,
        config: Some("/etc/none".into()),
        sudo: false,
        may_ask: false,
        connect_limit: Duration::from_millis(2500),
    }
}

const HERE: &str = "for last; do :; done; exec sh -c \"$last\"";

#[tokio::test]
async fn scripts_and_secrets_go_through_standard_input() {
    let folder = TempDir::new().expect("a folder");
    let ssh = ssh(&folder, HERE);
    let payload = b"a secret\0of 2 lines\n".repeat(3000);
    let script = "# with 'quotes'\nset -e\necho \"got $(wc -c)\"\n";
    let said = ssh
        .run("h1", script, &payload, Duration::from_secs(20))
        .await;
    assert_eq!(said.expect("it ran"), "got 60000\n");
    let called = fs::read_to_string(folder.path().join("called")).expect("it was called");
    let called: Vec<&str> = called.lines().collect();
    assert_eq!(called[..5], ["-F", "/etc/none", "-T", "-a", "-x"]);
    for option in ["BatchMode=yes", "ConnectTimeout=2"] {
        assert!(called.contains(&option), "{called:?}");
    }
    let (dashes, rest) = called.split_at(called.len() - 3);
    assert!(
        !dashes.contains(&"h1") && rest[..2] == ["--", "h1"],
        "{called:?}"
    );
    assert!(!called.concat().contains("secret") && !called.concat().contains("quotes"));
}

#[tokio::test]
async fn what_comes_back_is_bounded_and_clean() {
    let folder = TempDir::new().expect("a folder");
    let limit = Duration::from_secs(20);
    let ssh = ssh(&folder, HERE);
    let much = ssh.run("h1", "yes | head -c 5000000", &[], limit).await;
    assert_eq!(much.expect("it ran").len(), 64 * 1024);
    let failed = ssh
        .run(
            "h1",
            "yes no | head -c 5000000 >&2; printf 'why\\033[31m\\n' >&2; exit 3",
            &[],
            limit,
        )
        .await;
    match failed {
        Err(SshError::Failed(why)) => {
            assert!(why.ends_with("why [31m") && why.len() < 100, "{why:?}");
        }
        other => panic!("{other:?}"),
    }
    let refused = ssh
        .run("h1", "echo 'Permission denied' >&2; exit 255", &[], limit)
        .await;
    assert!(matches!(refused, Err(SshError::Unreachable(why)) if why == "Permission denied"));
    // A host that takes nothing: the payload does not hold the answer up.
    let early = ssh.run("h1", "exit 4", &vec![0; 9_000_000], limit).await;
    assert!(matches!(early, Err(SshError::Failed(_))), "{early:?}");

    // Something that outlives ssh holds its pipes, as a kept connection does.
    let began = tokio::time::Instant::now();
    let kept = ssh.run("h1", "sleep 8 & echo here; echo there >&2", &[], limit);
    assert_eq!(kept.await.expect("it ran"), "here\n");
    let hangs = ssh
        .run("h1", "sleep 8", &[], Duration::from_millis(300))
        .await;
    assert!(matches!(hangs, Err(SshError::TimedOut(_))), "{hangs:?}");
    assert!(began.elapsed() < Duration::from_secs(7));
    let missing = Ssh {
        program: "/nowhere/ssh".into(),
        ..ssh
    };
    let missing = missing.run("h1", "", &[], limit).await;
    assert!(
        matches!(missing, Err(SshError::Start { .. })),
        "{missing:?}"
    );
}

#[test]
fn a_bundle_is_what_the_plan_puts_in_its_order() {
    let steps = plan(&look(INSTALLED), &wanted()).expect("it is not refused");
    let bundle = Bundle::of(&steps, |file| Some(format!("<{file}>").into_bytes()));
    let files =
        "FILES='ca.pem:8 mesh.toml:11 cbagent.toml:14 node.key:10 node.pem:10' REPLACE=no\n";
    assert!(
        bundle.script(false).starts_with(files),
        "{}",
        bundle.script(false)
    );
    assert!(bundle.script(true).contains("REPLACE=yes\n"));
    let payload = String::from_utf8(bundle.payload()).expect("text");
    assert_eq!(
        payload,
        "<ca.pem><mesh.toml><cbagent.toml><node.key><node.pem>"
    );
    assert!(
        !bundle.script(false).contains("<node.key>"),
        "the key is not in the script"
    );
    assert!(steps.contains(&Step::Put("node.key")));
}
