//! The wire client and a peer that means harm: bytes of a fuzzer at every answer, points that are on
//! no curve, frames that never end, silence at each step, and answers that would grow beyond bounds.
//!
//! More cases: `CBDDC_FUZZ_CASES=100000`; one of them: `CBDDC_FUZZ_CASE=17`.

mod cases;
mod peer;

use crate::fixture::{TOKEN, options};
use anyhow::Result;
use cases::{Case, ask_all, fuzzed};
use cbagent::adapters::cbddc_wire::channel::ChannelError;
use cbagent::adapters::cbddc_wire::messages::{ChangeSet, Entry, HandshakeResponse, kind};
use cbagent::adapters::cbddc_wire::{Security, WireClient, WireError, WireOptions};
use cbddc_domain::hlc::Hlc;
use p256::pkcs8::EncodePublicKey as _;
use peer::{Reply, Then, peer};
use prost::Message as _;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;
use tokio::time::Instant;

/// Far above every limit that is set here, far below what an unlimited wait would take.
const IN_TIME: Duration = Duration::from_secs(10);
/// What all cases together may add to the process, in KiB: a few payloads of the limit below.
const GROWTH_KIB_MAX: u64 = 64 * 1024;

fn quick(security: Security) -> WireOptions {
    WireOptions {
        read_timeout: Duration::from_millis(250),
        bulk_timeout: Duration::from_millis(250),
        detect_timeout: Duration::from_millis(150),
        payload_limit: 2 << 20,
        ..options(security, TOKEN)
    }
}

/// The error of the first question that fails; it never tells the token, and comes in time.
async fn refusal(address: SocketAddr, options: WireOptions) -> WireError {
    let started = Instant::now();
    let error = ask_all(address, options).await.expect_err("it is believed");
    assert!(started.elapsed() < IN_TIME, "{:?}", started.elapsed());
    let said = format!("{error:?} {error}");
    assert!(!said.contains(TOKEN), "the token is in the error");
    error
}

fn accepted() -> Reply {
    let message = HandshakeResponse {
        node_id: "b".into(),
        accepted: true,
        ..HandshakeResponse::default()
    };
    Reply::message(kind::HANDSHAKE_RESPONSE, &message)
}

#[tokio::test]
async fn silence_at_each_step_is_named() -> Result<()> {
    let answers = cases::honest();
    let steps = ["handshake", "clock", "vector clock", "pull", "chain range"];
    for (number, step) in steps.into_iter().enumerate() {
        for secure in [false, true] {
            let told = answers[..number].to_vec();
            let address = peer(secure, told, Then::Silent).await?;
            let error = refusal(address, quick(Security::Auto)).await;
            assert!(
                matches!(&error, WireError::Timeout { step: at, .. } if *at == step),
                "{step}: {error:?}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn frames_that_never_end_and_never_stop_end_in_time() -> Result<()> {
    // Within the length that it announces, a byte now and then.
    let address = peer(false, Vec::new(), Then::Trickles).await?;
    let error = refusal(address, quick(Security::Plaintext)).await;
    assert!(matches!(error, WireError::Timeout { .. }), "{error:?}");
    // One good answer, then as many as it can send: each is the answer to the next question.
    for secure in [false, true] {
        let address = peer(secure, vec![accepted()], Then::Floods).await?;
        let error = refusal(address, quick(Security::Auto)).await;
        assert!(
            matches!(error, WireError::UnexpectedType { .. }),
            "{error:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn points_that_are_on_no_curve_are_refused() -> Result<()> {
    let secret = p256::SecretKey::from_slice(&[7; 32]).expect("a scalar");
    let good = secret.public_key().to_public_key_der().expect("a key");
    let good = good.as_bytes();
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut der = good.to_vec();
        change(&mut der);
        der
    };
    let last = good.len() - 1;
    let bad = [
        ("off the curve", with(&|der| der[last] ^= 1)),
        ("a zero point", with(&|der| der[27..].fill(0))),
        ("not a point", with(&|der| der[26] = 9)),
        ("another curve's name", with(&|der| der[22] ^= 1)),
        ("cut", with(&|der| der.truncate(60))),
        ("followed by more", with(&|der| der.push(0))),
        ("larger than the field", with(&|der| der[27..59].fill(0xff))),
    ];
    for (what, der) in bad {
        let mut hello = i32::try_from(der.len())?.to_le_bytes().to_vec();
        hello.extend(der);
        let address = peer(false, Vec::new(), Then::Says(hello)).await?;
        let error = refusal(address, quick(Security::Secure)).await;
        assert!(
            matches!(error, WireError::Channel(ChannelError::HelloKey)),
            "{what}: {error:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn answers_of_too_many_parts_are_refused_before_they_are_decoded() -> Result<()> {
    // Two bytes each, and 250 in memory.
    let many = [0x0a, 0x00].repeat(520_000);
    let pulls = |payload: Vec<u8>| {
        let mut answers = cases::honest();
        answers[3] = Reply::raw(kind::CHANGE_SET, payload);
        answers
    };
    let address = peer(false, pulls(many), Then::Silent).await?;
    let error = refusal(address, quick(Security::Plaintext)).await;
    assert!(
        matches!(
            &error,
            WireError::TooMuch {
                step: "pull",
                what: "events",
                ..
            }
        ),
        "{error:?}"
    );
    let mut answers = cases::honest();
    answers[2] = Reply::raw(kind::VECTOR_CLOCK, [0x0a, 0x00].repeat(525_000));
    let address = peer(false, answers, Then::Silent).await?;
    let error = refusal(address, quick(Security::Plaintext)).await;
    assert!(
        matches!(
            &error,
            WireError::TooMuch {
                step: "vector clock",
                what: "bytes",
                ..
            }
        ),
        "{error:?}"
    );
    // What is left of the bound is still taken.
    let entry = Entry {
        operation: "put".into(),
        ..Entry::default()
    };
    let few = ChangeSet {
        entries: vec![entry; 1000],
    };
    let address = peer(false, pulls(few.encode_to_vec()), Then::Silent).await?;
    let mut client = WireClient::connect(address, quick(Security::Plaintext)).await?;
    client.handshake().await?;
    client.clock().await?;
    client.vector_clock().await?;
    assert_eq!(client.pull(&Hlc::default(), &[]).await?.len(), 1000);
    Ok(())
}

/// Set in the process of its own that the fuzzer runs in, whose memory nobody else uses.
const ALONE: &str = "CBDDC_FUZZ_ALONE";

#[test]
fn whatever_it_answers_memory_and_time_are_bounded() {
    if std::env::var_os(ALONE).is_some() {
        return fuzz();
    }
    let own = std::env::current_exe().expect("this program's path");
    let name = "wire_malice::whatever_it_answers_memory_and_time_are_bounded";
    #[expect(
        clippy::disallowed_methods,
        reason = "this test in a process of its own"
    )]
    let ran = Command::new(own)
        .args([name, "--exact", "--nocapture"])
        .env(ALONE, "yes")
        .output()
        .expect("this program can be started");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    let growth = said
        .lines()
        .find_map(|line| line.strip_prefix("growth in KiB: "));
    let growth: u64 = growth
        .and_then(|kib| kib.parse().ok())
        .unwrap_or_else(|| panic!("no figure in {said}"));
    assert!(growth < GROWTH_KIB_MAX, "it grew by {growth} KiB");
}

fn fuzz() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let cases = match number("CBDDC_FUZZ_CASE") {
        Some(one) => one..one + 1,
        None => 0..number("CBDDC_FUZZ_CASES").unwrap_or(1500),
    };
    let before = peak_kib();
    let mut failed = 0;
    for number in cases {
        let case: Case = fuzzed(number);
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().expect("a runtime");
        let started = Instant::now();
        let outcome = runtime.block_on(async {
            let address = peer(case.secure, case.answers.clone(), case.then.clone()).await?;
            let security = match case.secure {
                true => Security::Secure,
                false => Security::Plaintext,
            };
            let options = WireOptions {
                read_timeout: Duration::from_millis(100),
                bulk_timeout: Duration::from_millis(100),
                ..quick(security)
            };
            anyhow::Ok(ask_all(address, options).await)
        });
        // With the case its peer ends, and what the peer held.
        drop(runtime);
        let outcome = outcome.expect("a port of this machine");
        assert!(started.elapsed() < IN_TIME, "case {number}: {case:?}");
        if let Err(error) = outcome {
            failed += 1;
            let said = format!("{error:?} {error}");
            assert!(!said.contains(TOKEN), "case {number} tells the token");
        }
    }
    println!("{failed} cases were refused");
    println!("growth in KiB: {}", peak_kib() - before);
}

/// The most memory that this process ever had.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.trim().parse().ok())
        .expect("a number")
}
