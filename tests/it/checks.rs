//! The node checks against real sockets, files and programs that behave, misbehave and keep silent.

mod blite;
mod database;
mod deleted_logs;
mod exec;
mod file_sync;
mod https;

use async_trait::async_trait;
use cbagent::adapters::checks::{HostSettings, NodeCheck, NodeChecks, Probe, UnitCheck};
use cbagent::adapters::http::{BODY_BYTES_MAX, HttpAddress, HttpError, HttpTarget, get};
use cbagent::adapters::skews::Skews;
use cbagent::ports::{Care, EffectError, Stop, Supervisor, UnitState};
use cbddc_domain::health::{Check, Measurement, Policy, Severity, Status};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_millis(1500);

/// A supervisor that only tells a state; `None` never answers.
pub(crate) struct Told(
    Option<Result<UnitState, EffectError>>,
    Arc<Mutex<Option<Care>>>,
);

impl Told {
    /// A supervisor that tells this state.
    pub(crate) fn new(state: UnitState) -> Self {
        Self(Some(Ok(state)), Arc::default())
    }
}

#[async_trait]
impl Supervisor for Told {
    async fn start(&self) -> Result<u32, EffectError> {
        Err(EffectError("checks start nothing".into()))
    }

    async fn stop(&self, _: Duration) -> Result<Stop, EffectError> {
        Err(EffectError("checks stop nothing".into()))
    }

    async fn commands(&self) -> Result<Vec<Vec<String>>, EffectError> {
        Ok(Vec::new())
    }

    async fn state(&self) -> Result<UnitState, EffectError> {
        match &self.0 {
            Some(state) => state.clone(),
            None => std::future::pending().await,
        }
    }

    async fn care(&self) -> Result<Option<Care>, EffectError> {
        let care = self.1.lock().expect("no panic").clone();
        Ok(care)
    }
}

/// Answers every connection with these bytes and then keeps it open; without any it keeps silent.
async fn server(answer: impl Into<Vec<u8>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = answer.into();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let _ = socket.read(&mut [0; 1_024]).await;
                let _ = socket.write_all(&answer).await;
                // Until the other side hangs up.
                let _ = socket.read(&mut [0; 1_024]).await;
            });
        }
    });
    address
}

fn answer(head: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn address(socket: SocketAddr) -> HttpTarget {
    HttpTarget {
        address: HttpAddress::parse(&format!("http://{socket}/health")).unwrap(),
        tls: None,
    }
}

pub(crate) fn running() -> Option<Result<UnitState, EffectError>> {
    Some(Ok(UnitState::Running {
        pid: 7,
        started_ms: 1,
    }))
}

/// The check of the process, and these.
pub(crate) fn checks(
    state: Option<Result<UnitState, EffectError>>,
    probes: Vec<(Check, Probe)>,
) -> NodeChecks {
    let all = [(Check::Unit, Probe::Unit(UnitCheck::new(3)))]
        .into_iter()
        .chain(probes);
    let check = |(kind, probe): (Check, Probe)| {
        let policy = Policy {
            name: kind.as_str().to_owned(),
            kind,
            severity: Severity::Critical,
            interval_ms: 60_000,
            timeout_ms: LIMIT.as_millis() as u64,
            rise: 1,
            fall: 1,
        };
        NodeCheck::new(policy, probe)
    };
    NodeChecks {
        supervisor: Arc::new(Told(state, Arc::default())),
        checks: Arc::new(all.map(check).collect()),
    }
}

pub(crate) fn of(measurements: &[Measurement], check: Check) -> (Status, &str) {
    let found = measurements
        .iter()
        .find(|one| one.check == check)
        .expect("the check was measured");
    (found.status, &found.detail)
}

async fn http_of(answer: Vec<u8>) -> (Status, String) {
    let socket = server(answer).await;
    let probe = (Check::Http, Probe::Http(address(socket)));
    let measured = checks(running(), vec![probe]).measure(Duration::MAX).await;
    let (status, detail) = of(&measured, Check::Http);
    (status, detail.to_owned())
}

#[tokio::test]
async fn health_in_all_its_forms_and_in_none() {
    let large = "x".repeat(BODY_BYTES_MAX + 1);
    let many_headers = format!("200 OK{}", "\r\nA: b".repeat(100));
    let long_header = format!("200 OK\r\nA: {}", "b".repeat(40_000));
    let moved = "307 Temporary Redirect\r\nLocation: https://127.0.0.1/health";
    let cases: [(Vec<u8>, Status, &str); 14] = [
        (
            answer("200 OK", "Healthy"),
            Status::Healthy,
            "answered 200 with Healthy",
        ),
        (answer("200 OK", "Degraded"), Status::Degraded, "Degraded"),
        (
            answer("503 Service Unavailable", "Unhealthy"),
            Status::Unhealthy,
            "answered 503",
        ),
        (
            answer("503 Service Unavailable", "Healthy"),
            Status::Unhealthy,
            "answered 503 with Healthy",
        ),
        (
            answer(
                "200 OK",
                r#"{"status":"Healthy","results":{"db":{"status":"Healthy"}}}"#,
            ),
            Status::Healthy,
            "Healthy",
        ),
        (
            answer(
                "200 OK",
                r#"{"status":"Healthy","entries":{"db":{"status":"Unhealthy"}}}"#,
            ),
            Status::Unhealthy,
            "\"db\" is \"Unhealthy\"",
        ),
        (
            answer(moved, "Healthy"),
            Status::Unknown,
            "points to \"https://127.0.0.1/health\"",
        ),
        (answer("200 OK", "<html>"), Status::Unknown, "\"<html>\""),
        (
            answer("200 OK", &large),
            Status::Unhealthy,
            "larger than 64 KiB",
        ),
        (
            answer(&many_headers, "Healthy"),
            Status::Unhealthy,
            "not valid HTTP",
        ),
        (
            answer(&long_header, "Healthy"),
            Status::Unhealthy,
            "not valid HTTP",
        ),
        (
            b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
            Status::Unhealthy,
            "not valid HTTP",
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHealthy".to_vec(),
            Status::Unhealthy,
            "within 1500 ms",
        ),
        (Vec::new(), Status::Unhealthy, "within 1500 ms"),
    ];
    for (answer, status, words) in cases {
        let shown = String::from_utf8_lossy(&answer[..answer.len().min(60)]).into_owned();
        let (found, detail) = http_of(answer).await;
        assert_eq!(found, status, "{shown}: {detail}");
        assert!(
            detail.contains(words) && detail.len() < 300,
            "{shown}: {detail}"
        );
    }
}

#[tokio::test]
async fn a_body_without_a_length_is_bounded_too() {
    let endless = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}",
        "x".repeat(BODY_BYTES_MAX + 1)
    );
    let socket = server(endless.into_bytes()).await;
    assert!(matches!(
        get(&address(socket), LIMIT).await,
        Err(HttpError::TooLarge)
    ));
}

#[tokio::test]
async fn the_process_is_told_in_a_sentence() {
    let stopped = |words: Option<&str>| {
        Some(Ok(UnitState::Stopped {
            last_exit: words.map(str::to_owned),
        }))
    };
    let cases = [
        (running(), Status::Healthy, "runs as process 7"),
        (
            stopped(Some("exit code 3")),
            Status::Unhealthy,
            "does not run; it ended with: exit code 3",
        ),
        (stopped(None), Status::Unhealthy, "does not run"),
        (
            Some(Err(EffectError("no /proc".into()))),
            Status::Unknown,
            "no /proc",
        ),
        (None, Status::Unhealthy, "no answer within 1500 ms"),
    ];
    for (state, status, detail) in cases {
        let measured = checks(state, Vec::new()).measure(Duration::MAX).await;
        assert_eq!(of(&measured, Check::Unit), (status, detail));
        assert_eq!(measured.len(), 1, "what is not configured is not measured");
    }
}

#[tokio::test]
async fn a_process_that_keeps_restarting_is_degraded() {
    let care = Arc::new(Mutex::default());
    let checks = NodeChecks {
        supervisor: Arc::new(Told(running(), care.clone())),
        ..checks(None, Vec::new())
    };
    let after = async |restarts| {
        *care.lock().expect("no panic") = Some(Care {
            restarts,
            watchdog: Some(Duration::from_secs(30)),
        });
        let measured = checks.measure(Duration::MAX).await;
        let (status, detail) = of(&measured, Check::Unit);
        (status, detail.to_owned())
    };
    // What happened before the agent looked is told, and not judged.
    let (status, detail) = after(7).await;
    assert_eq!(status, Status::Healthy);
    assert_eq!(
        detail,
        "runs as process 7, watched every 30 s, started again 7 times since it was ordered to"
    );
    assert_eq!(after(9).await.0, Status::Healthy);
    let (status, detail) = after(10).await;
    assert_eq!(status, Status::Degraded);
    assert!(
        detail.ends_with("started again 3 times within 10 min"),
        "{detail}"
    );
    // An ordered start begins anew.
    assert_eq!(after(0).await.0, Status::Healthy);
    assert_eq!(after(2).await.0, Status::Healthy);
}

#[tokio::test]
async fn a_port_accepts_or_does_not() {
    let open = server("").await;
    let probe = (Check::Tcp, Probe::Tcp(open.to_string()));
    let measured = checks(running(), vec![probe]).measure(Duration::MAX).await;
    assert_eq!(of(&measured, Check::Tcp).0, Status::Healthy);
    // Bound and not listening: nobody else can take the port meanwhile.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let closed_address = closed.local_addr().unwrap();
    let probe = (Check::Tcp, Probe::Tcp(closed_address.to_string()));
    let measured = checks(running(), vec![probe]).measure(Duration::MAX).await;
    let (status, detail) = of(&measured, Check::Tcp);
    assert_eq!(status, Status::Unhealthy);
    assert!(detail.contains("does not accept connections"), "{detail}");
}

#[tokio::test]
async fn a_short_host_is_a_warning() {
    let folder = tempfile::TempDir::new().unwrap();
    let plenty = HostSettings {
        data_dir: folder.path().to_owned(),
        min_free_disk_bytes: 1,
        min_available_memory_bytes: 1,
        max_load_per_cpu: Some(1e9),
        max_open_files_percent: 100,
        max_clock_skew: Duration::from_secs(1),
        skews: Skews::default(),
    };
    let skews = Skews::default();
    skews.note(&"n2".parse().unwrap(), 0, Duration::ZERO, 9_000);
    let cases = [
        (plenty.clone(), Status::Healthy, "MiB of disk free"),
        (
            HostSettings {
                skews,
                ..plenty.clone()
            },
            Status::Degraded,
            "9000 ms behind that of n2",
        ),
        (
            HostSettings {
                min_free_disk_bytes: u64::MAX,
                ..plenty.clone()
            },
            Status::Degraded,
            "MiB wanted on",
        ),
        (
            HostSettings {
                min_available_memory_bytes: u64::MAX,
                ..plenty.clone()
            },
            Status::Degraded,
            "of memory available of",
        ),
        (
            HostSettings {
                max_load_per_cpu: Some(-1.0),
                ..plenty.clone()
            },
            Status::Degraded,
            "CPUs",
        ),
        (
            HostSettings {
                data_dir: "/no/such/folder".into(),
                ..plenty
            },
            Status::Unknown,
            "cannot ask for the room",
        ),
    ];
    for (settings, status, words) in cases {
        let probe = (Check::Host, Probe::Host(settings));
        let measured = checks(running(), vec![probe]).measure(Duration::MAX).await;
        let (found, detail) = of(&measured, Check::Host);
        assert_eq!(found, status, "{detail}");
        assert!(detail.contains(words), "{detail}");
    }
}

#[tokio::test]
async fn what_hangs_does_not_hold_up_the_others() {
    let silent = server("").await;
    let probes = vec![
        (Check::Tcp, Probe::Tcp(silent.to_string())),
        (Check::Http, Probe::Http(address(silent))),
    ];
    let checks = checks(None, probes);
    let began = Instant::now();
    let measured = checks.measure(Duration::MAX).await;
    // Two of the three hang: one after the other would take twice the limit.
    assert!(began.elapsed() < LIMIT * 2, "{:?}", began.elapsed());
    let order: Vec<Check> = measured.iter().map(|one| one.check).collect();
    assert_eq!(order, [Check::Unit, Check::Tcp, Check::Http]);
    assert_eq!(of(&measured, Check::Tcp).0, Status::Healthy);
    assert!(measured[1].took_ms < measured[2].took_ms);
}

#[tokio::test]
async fn whoever_does_not_wait_for_a_check_hears_what_it_said_last() {
    let silent = server("").await;
    let checks = checks(running(), vec![(Check::Http, Probe::Http(address(silent)))]);
    let soon = Duration::from_millis(50);
    let began = Instant::now();
    let first = checks.measure(soon).await;
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    let (status, detail) = of(&first, Check::Http);
    assert_eq!(status, Status::Unknown);
    assert!(detail.contains("within 50 ms yet"), "{detail}");
    assert_eq!(of(&first, Check::Unit).0, Status::Healthy);
    let whole = checks.measure(Duration::MAX).await;
    let again = checks.measure(soon).await;
    assert_eq!(of(&again, Check::Http), of(&whole, Check::Http));
    assert_eq!(of(&again, Check::Http).0, Status::Unhealthy);
}
