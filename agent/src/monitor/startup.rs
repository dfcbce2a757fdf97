//! A start of the node, from its first sight until it is healthy: whether it is busy, as with reading
//! its database's log, and how long it took.

use super::Watched;
use cbddc_domain::node_starts::{LOG_COUNTS_BYTES, NodeStart, STARTS_KEPT, warning};
use cbddc_domain::readiness::{Effort, Readiness, ReadyLimits};
use cbddc_domain::time::Now;
use cbddc_domain::units::show_size_bytes;
use cbddc_domain::warmup::RunningProcess;

/// A process seen later than this after its start, in milliseconds, was not seen from its beginning: how
/// long it took is not known.
const SEEN_FROM_START_MS: u64 = 5_000;

/// How often the size of the log that a start would read is looked at, in milliseconds.
const LOG_INTERVAL_MS: u64 = 15_000;

/// The start of one process.
#[derive(Debug)]
pub(super) struct Startup {
    /// Whose.
    pub(super) process: RunningProcess,
    log_bytes: Option<u64>,
    readiness: Readiness,
    limits: ReadyLimits,
    from_start: bool,
    is_over: bool,
    is_busy: bool,
}

impl Startup {
    /// The process was seen for the first time.
    pub(super) fn new(
        process: RunningProcess,
        log_bytes: Option<u64>,
        limits: ReadyLimits,
        now: &Now,
    ) -> Self {
        let seen_ms = now.since_boot_ms.saturating_sub(process.started_ms);
        Self {
            process,
            log_bytes,
            readiness: Readiness::new(limits),
            limits,
            from_start: seen_ms <= SEEN_FROM_START_MS,
            is_over: false,
            is_busy: false,
        }
    }

    /// Whether it still has to be looked what the process does.
    pub(super) fn goes_on(&self) -> bool {
        !self.is_over
    }

    /// The node is not healthy yet; this is what its processes have done so far.
    pub(super) fn look(&mut self, effort: Option<Effort>, now: &Now) {
        let taken_ms = now.since_boot_ms.saturating_sub(self.process.started_ms);
        self.readiness.look(taken_ms, effort);
        // Where there is known to be nothing to read, a busy node is one that turns in circles.
        let reads_nothing = self.log_bytes.is_some_and(|log| log < LOG_COUNTS_BYTES);
        self.is_busy =
            self.readiness.is_busy() && !reads_nothing && taken_ms <= self.limits.busy_ms;
    }

    /// The node is healthy: the first time, this is the start to remember.
    pub(super) fn healthy(&mut self, now: &Now) -> Option<NodeStart> {
        self.is_busy = false;
        if std::mem::replace(&mut self.is_over, true) || !self.from_start {
            return None;
        }
        Some(NodeStart {
            wall_ms: now.wall_ms,
            took_ms: now.since_boot_ms.saturating_sub(self.process.started_ms),
            log_bytes: self.log_bytes,
        })
    }

    /// Whether it keeps the node busy, and may.
    pub(super) fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// What there is to say of it while it is busy.
    pub(super) fn text(&self) -> Option<String> {
        let what = match self.log_bytes {
            Some(bytes) => format!("replaying its log of {}", show_size_bytes(bytes)),
            None => "busy, as with replaying its log".to_owned(),
        };
        self.is_busy.then(|| format!("starting, {what}"))
    }
}

impl Watched {
    /// Looks at what the node does from its start until it is healthy, and now and then at the log that
    /// the next start will read.
    pub(super) async fn look_at_start(&mut self, process: RunningProcess, is_healthy: bool) {
        let now = self.world.now();
        let known = self.startup.take().filter(|it| it.process == process);
        let is_new = known.is_none();
        let mut startup = match known {
            Some(startup) => startup,
            None => {
                let log_bytes = self.world.log_bytes().await;
                Startup::new(process, log_bytes, self.settings.ready, &now)
            }
        };
        let waited_ms = now.since_boot_ms.saturating_sub(process.started_ms);
        let ReadyLimits { ready_ms, .. } = self.settings.ready;
        if is_healthy || (waited_ms > ready_ms && !startup.is_busy()) {
            self.world.node_is_up().await;
        }
        if is_healthy {
            if let Some(start) = startup.healthy(&now) {
                self.starts.insert(0, start);
                self.starts.truncate(STARTS_KEPT);
                self.world.keep_node_start(start).await;
            }
        } else if startup.goes_on() {
            startup.look(self.world.effort().await, &now);
        }
        self.panel.set_starting(startup.is_busy());
        self.startup = Some(startup);
        let is_due = |looked_ms: u64| now.since_boot_ms.saturating_sub(looked_ms) > LOG_INTERVAL_MS;
        if is_new || self.log_looked_ms.is_none_or(is_due) {
            self.log_looked_ms = Some(now.since_boot_ms);
            let ready_ms = self.settings.ready.ready_ms;
            self.start_warning = warning(&self.starts, self.world.log_bytes().await, ready_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Startup;
    use cbddc_domain::readiness::{Effort, ReadyLimits};
    use cbddc_domain::time::{BootId, Now};
    use cbddc_domain::warmup::RunningProcess;

    const LIMITS: ReadyLimits = ReadyLimits {
        ready_ms: 5_000,
        busy_ms: 60_000,
    };

    fn now(since_boot_ms: u64) -> Now {
        Now {
            boot: BootId("boot".to_owned()),
            since_boot_ms,
            wall_ms: 0,
        }
    }

    fn startup(log_bytes: Option<u64>, seen_ms: u64) -> Startup {
        let process = RunningProcess {
            pid: 7,
            started_ms: 1_000,
        };
        Startup::new(process, log_bytes, LIMITS, &now(1_000 + seen_ms))
    }

    /// Half a processor, all the time, until `until_ms` after its start.
    fn play(startup: &mut Startup, until_ms: u64) {
        for taken_ms in (0..=until_ms).step_by(250) {
            let effort = Effort {
                processor_ms: taken_ms / 2,
                read_bytes: 0,
            };
            startup.look(Some(effort), &now(1_000 + taken_ms));
        }
    }

    #[test]
    fn a_start_is_busy_while_there_is_a_log_to_read() {
        for (log_bytes, until_ms, said) in [
            (Some(40 << 20), 2_000, None),
            (
                Some(40 << 20),
                4_000,
                Some("starting, replaying its log of 40.0MiB"),
            ),
            (Some(40 << 20), 61_000, None),
            (Some(1_000), 4_000, None),
            (
                None,
                4_000,
                Some("starting, busy, as with replaying its log"),
            ),
        ] {
            let mut startup = startup(log_bytes, 20);
            play(&mut startup, until_ms);
            assert_eq!(startup.text().as_deref(), said, "{log_bytes:?} {until_ms}");
            startup.healthy(&now(100_000));
            assert_eq!(startup.text(), None);
        }
    }

    #[test]
    fn a_start_is_remembered_once_and_only_where_its_beginning_was_seen() {
        let mut seen = startup(Some(9), 900);
        let start = seen.healthy(&now(4_500)).expect("a start");
        assert_eq!((start.took_ms, start.log_bytes), (3_500, Some(9)));
        assert_eq!(seen.healthy(&now(5_000)), None);
        assert!(!seen.goes_on());
        assert_eq!(startup(None, 6_000).healthy(&now(8_000)), None);
    }
}
