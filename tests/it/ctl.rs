//! `cbctl` as people and scripts meet it: the command line, files, exit codes, outcomes.

mod identity;
mod passphrases;

use crate::fake::{Behaviour, Fake, Folders, expect, listener, steady};
use cbddc_domain::build::{BuildRef, Digest};
use cbddc_domain::register::{Epoch, Record, RecordKind};
use cbddc_domain::release::Release;
use cbddc_proto::v1;
use serde_json::Value;
use std::fs;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn nowhere() -> Folders {
    Folders {
        temp: TempDir::new().expect("a temporary folder"),
    }
}

#[test]
fn usage_errors_exit_with_64() {
    let folders = nowhere();
    for arguments in [
        "",
        "frobnicate",
        "status --frobnicate",
        "status --node UPPER",
        "status --timeout 10",
        "status -o xml",
        "rollback",
        "rollback --mesh --node n1",
        "rollout start --build cbddc@1.0.0",
        "rollout start --mesh --build cbddc",
        "rollout start --mesh --wave-size 0",
        "rollout start --mesh --wave-size 1 --waves 1,2",
        "rollout start --mesh --waves 1,150%",
        "rollout start --mesh --soak 1.5s",
        "rollout start --mesh --soak 2d",
        "build push",
        "node history",
        "snapshot restore s1",
        "journal list --limit 0",
        "mesh init --name a/b --dir d",
        "mesh init --name a --dir d --member n1",
        "mesh init --name a --dir d --no-passphrase --environment production",
        "mesh init --name a --dir d --no-passphrase --environment staging",
        "mesh init --name a --dir d --no-passphrase --passphrase-file f",
        "mesh init --name a --dir d --csr-only --ca-cert f",
        "mesh init --name a --dir d",
        "mesh user add ana",
        "mesh user add ana --role root",
    ] {
        let words: Vec<&str> = arguments.split_whitespace().collect();
        let output = folders.ctl(&words);
        assert_eq!(output.status.code(), Some(64), "cbctl {arguments}");
        assert!(output.stdout.is_empty(), "cbctl {arguments} printed data");
        assert!(!output.stderr.is_empty(), "cbctl {arguments} said nothing");
    }
    assert!(!folders.path("d").exists());
}

#[test]
fn help_has_every_command() {
    let folders = nowhere();
    for (arguments, commands) in [
        (
            "--help",
            "status rollback build release rollout snapshot health node journal mesh",
        ),
        ("build --help", "pack push list show rm gc"),
        ("release --help", "list show"),
        ("rollout --help", "plan start status list resume abort"),
        (
            "rollout start --help",
            "--build --config --secrets --mesh --node --wave-size --waves --verify --healthy --probation --renew --soak --bake --reason --dry-run --yes",
        ),
        (
            "rollback --help",
            "--mesh --node --to --restore --reason --dry-run --yes",
        ),
        ("snapshot --help", "create list restore"),
        ("health --help", "show"),
        ("node --help", "history"),
        ("journal --help", "list follow"),
        ("mesh --help", "init issue enrol user show"),
        ("mesh user --help", "add"),
        (
            "status --help",
            "--output --context --timeout --jobs --node",
        ),
        ("--help", "64 130"),
    ] {
        let words: Vec<&str> = arguments.split_whitespace().collect();
        let (help, _) = expect(&folders.ctl(&words), 0);
        let listed: Vec<&str> = help
            .split_whitespace()
            .map(|word| word.trim_end_matches(',').split('[').next().unwrap_or(word))
            .collect();
        for command in commands.split_whitespace() {
            assert!(
                listed.contains(&command),
                "cbctl {arguments} lacks {command}:\n{help}"
            );
        }
    }
}

#[test]
fn without_a_mesh_the_hint_says_how_to_get_one() {
    let (_, stderr) = expect(&nowhere().ctl(&["status"]), 1);
    assert!(stderr.contains("error: no mesh is known here"), "{stderr}");
    assert!(
        stderr.contains("hint: make one with `cbctl mesh init`"),
        "{stderr}"
    );
}

#[tokio::test]
async fn one_outcome_per_node_within_the_limit() {
    let (fast, fast_at) = listener().await;
    let (hanging, hanging_at) = listener().await;
    let (refusing, refusing_at) = listener().await;
    let (gone, gone_at) = listener().await;
    drop(gone);
    let members = [
        ("fast", fast_at),
        ("gone", gone_at),
        ("hanging", hanging_at),
        ("refusing", refusing_at),
    ];
    let folders = Folders::init("shop", &members);
    Fake::new(Behaviour::Answer(steady().into())).serve(fast, &folders.tls("shop", "fast"));
    Fake::new(Behaviour::Hang).serve(hanging, &folders.tls("shop", "hanging"));
    Fake::new(Behaviour::Refuse("locked")).serve(refusing, &folders.tls("shop", "refusing"));

    let begun = now();
    let output = folders
        .ctl_async(&["status", "-o", "json", "--timeout", "700ms", "--jobs", "2"])
        .await;
    let took = begun.elapsed();
    let (stdout, stderr) = expect(&output, 3);
    assert!(took < Duration::from_secs(5), "took {took:?}");
    let json: Value = serde_json::from_str(&stdout).expect("JSON");
    let nodes = json["nodes"].as_array().expect("an array");
    let outcome = |index: usize| {
        (
            nodes[index]["node"].as_str(),
            nodes[index]["outcome"].as_str(),
        )
    };
    assert_eq!(nodes.len(), 4);
    assert_eq!(outcome(0), (Some("fast"), Some("ok")));
    assert_eq!(nodes[0]["result"]["agent_version"], "ana");
    assert_eq!(outcome(1), (Some("gone"), Some("unreachable")));
    assert_eq!(outcome(2), (Some("hanging"), Some("timed_out")));
    assert_eq!(outcome(3), (Some("refusing"), Some("refused")));
    assert_eq!(nodes[3]["word"], "locked");
    assert_eq!(json["summary"]["voters_reached"], 1);
    assert!(stderr.contains("3 of 4 nodes gave no result"), "{stderr}");
    assert!(
        stderr.to_lowercase().contains("connection refused"),
        "{stderr}"
    );

    let (table, _) = expect(&folders.ctl_async(&["status", "--node", "fast"]).await, 0);
    assert!(table.starts_with("NODE  PHASE   RELEASE  GEN  HEALTH   LOCK  DRIFT\nfast  steady  -        -    healthy  -     -\n"), "{table}");
    let (_, stderr) = expect(
        &folders
            .ctl_async(&["status", "--node", "fast,nobody"])
            .await,
        64,
    );
    assert!(stderr.contains("no node nobody"), "{stderr}");
}

#[tokio::test]
async fn status_says_by_its_exit_code_who_is_needed() {
    let stuck = v1::GetStatusResponse {
        phase: "stuck".into(),
        ..steady()
    };
    let drifting = v1::GetStatusResponse {
        drift: "the build is not here yet".into(),
        ..steady()
    };
    let voted = |voters: &[&str], lease_left_ms| {
        let record = Record {
            epoch: Epoch {
                counter: 5,
                nonce: 1,
            },
            kind: RecordKind::Rollout,
            release: Some(release()),
            exceptions: Default::default(),
            voters: voters
                .iter()
                .map(|name| name.parse().expect("a name"))
                .collect(),
            previous: None,
            forced: false,
            revokes: Default::default(),
            lifts: Default::default(),
            restores: Default::default(),
            proposed_by: "ana".into(),
            reason: String::new(),
        };
        let mut status = steady();
        let register = status.register.as_mut().expect("set above");
        register.votes.push((&record).into());
        status.epoch = Some(record.epoch.into());
        status.lease_holder = "ana".into();
        status.lease_left_ms = lease_left_ms;
        status
    };
    for (what, answer, code, said) in [
        ("steady", steady(), 0, "decided: nothing yet"),
        ("stuck", stuck, 5, "stuck: n1"),
        ("drift", drifting, 3, "the build is not here yet"),
        (
            "a vote without majority",
            voted(&["n1", "x", "y"], 0),
            5,
            "in doubt: epoch 5-",
        ),
        (
            "the same while someone works on it",
            voted(&["n1", "x", "y"], 9_000),
            0,
            "decided: nothing yet",
        ),
        (
            "a majority's vote",
            voted(&["n1"], 0),
            0,
            "decided: cbddc@1.0.0",
        ),
    ] {
        let (listener, address) = listener().await;
        let folders = Folders::init("shop", &[("n1", address)]);
        Fake::new(Behaviour::Answer(answer.into())).serve(listener, &folders.tls("shop", "n1"));
        let output = folders.ctl_async(&["status"]).await;
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{what}: {stdout}");
        assert!(stdout.contains(said), "{what}: {stdout}");
    }
}

fn release() -> Release {
    Release::of_build(BuildRef {
        id: "cbddc@1.0.0".parse().expect("a build"),
        digest: Digest::of(b"x"),
    })
}

#[tokio::test]
async fn a_bundle_reaches_every_node_that_takes_it() {
    let (first, first_at) = listener().await;
    let (second, second_at) = listener().await;
    let folders = Folders::init("shop", &[("n1", first_at), ("n2", second_at)]);
    let taker = Fake::new(Behaviour::Answer(steady().into()));
    taker.serve(first, &folders.tls("shop", "n1"));
    Fake::new(Behaviour::Refuse("no_space")).serve(second, &folders.tls("shop", "n2"));

    let bundle = folders.path("b.cbundle");
    let path = bundle.to_str().expect("plain");
    pack_noise(&folders, path).await;
    let bytes = fs::read(&bundle).expect("a bundle");
    assert!(bytes.len() > 1 << 20, "more than several chunks");
    expect(
        &folders
            .ctl_async(&["build", "push", path, "--dry-run"])
            .await,
        0,
    );
    assert!(taker.bundles.lock().expect("not poisoned").is_empty());
    let output = folders
        .ctl_async(&["build", "push", path, "-o", "json"])
        .await;
    let (stdout, stderr) = expect(&output, 3);
    let json: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!(json["build"], "cbddc@1.0.0");
    assert_eq!(json["nodes"][0]["outcome"], "ok");
    assert_eq!(json["nodes"][1]["outcome"], "refused");
    assert!(stderr.contains("no_space"), "{stderr}");
    let stored = taker.bundles.lock().expect("not poisoned");
    assert!(stored["cbddc@1.0.0"] == bytes, "other bytes arrived");
}

/// Packs a bundle that is larger than several chunks: noise does not compress.
async fn pack_noise(folders: &Folders, bundle: &str) {
    let folder = folders.path("build");
    fs::create_dir(&folder).expect("a folder");
    let noise: Vec<u8> = (0..40_000_u32)
        .flat_map(|number| *Digest::of(&number.to_le_bytes()).as_bytes())
        .collect();
    fs::write(folder.join("noise"), noise).expect("a file");
    let folder = folder.to_str().expect("plain").to_owned();
    let words = [
        "build",
        "pack",
        &folder,
        "--build",
        "cbddc@1.0.0",
        "--out",
        bundle,
    ];
    expect(&folders.ctl_async(&words).await, 0);
}

#[tokio::test]
async fn nothing_changes_without_a_yes() {
    let (listener, address) = listener().await;
    let folders = Folders::init("shop", &[("n1", address)]);
    Fake::new(Behaviour::Hang).serve(listener, &folders.tls("shop", "n1"));
    let restore = ["snapshot", "restore", "s1", "--node", "n1"];
    let (_, stderr) = expect(&folders.ctl_async(&restore).await, 64);
    assert!(stderr.contains("add --yes"), "{stderr}");
    let dry = ["snapshot", "restore", "s1", "--node", "n1", "--dry-run"];
    let (_, stderr) = expect(&folders.ctl_async(&dry).await, 0);
    assert!(stderr.contains("nothing was changed"), "{stderr}");
}

#[tokio::test]
async fn ctrl_c_says_how_things_stand() {
    let (listener, address) = listener().await;
    let folders = Folders::init("shop", &[("n1", address)]);
    let connected = tokio::spawn(async move { listener.accept().await });
    #[expect(
        clippy::disallowed_methods,
        reason = "a test starts the program under test"
    )]
    let child = tokio::process::Command::new(cbddc_tests::bins::binary("cbctl"))
        .args(["status", "--timeout", "60s"])
        .env("CBCTL_CONFIG", folders.path("config"))
        .stdin(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("cbctl can be started");
    // Once it dials, it also listens for Ctrl-C.
    let _open = connected.await.expect("no panic").expect("a connection");
    let pid = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("it runs"), rustix::process::Signal::INT)
        .expect("it runs");
    let output = tokio::time::timeout(Duration::from_secs(20), child.wait_with_output())
        .await
        .expect("it ends soon")
        .expect("it ends");
    let (_, stderr) = expect(&output, 130);
    assert_eq!(stderr, "interrupted: nothing was changed\n");
}

#[expect(clippy::disallowed_methods, reason = "a test measures")]
fn now() -> Instant {
    Instant::now()
}
