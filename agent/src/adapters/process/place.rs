//! What runs of a node, judged by its lock file and `/proc`.

use super::lock::{Holder, LockFile, Record};
use super::procfs::{self, Process};
use cbddc_domain::time::BootId;
use std::io;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing of the node runs.
    Nothing,
    /// The process that the launcher became.
    Leader(Process),
    /// The first process ended, or is about to begin; these others run. Never empty, oldest first.
    Others(Vec<Process>),
    /// Something holds the lock, but `/proc` does not show it.
    Hidden,
}

/// How hard to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Reads what the lock file names; cheap enough for every health check.
    Quick,
    /// Looks through all processes, also for those that let go of the lock. Needed before anything
    /// relies on nothing running.
    Thorough,
}

/// The lock file of a node, in the boot that this agent lives in.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) lock: LockFile,
    pub(super) boot: BootId,
}

impl Place {
    pub(super) fn look(&self, depth: Depth) -> io::Result<Found> {
        let record = self.record()?;
        if let Some(leader) = record.as_ref().and_then(|record| self.leader(record)) {
            return Ok(Found::Leader(leader));
        }
        if depth == Depth::Quick && self.lock.holder()? == Holder::Nobody {
            return Ok(Found::Nothing);
        }
        let others = self.members_of(record.as_ref())?;
        if !others.is_empty() {
            return Ok(Found::Others(others));
        }
        // Asked after the search: what was ending while we searched is gone now.
        Ok(match self.lock.holder()? {
            Holder::Nobody => Found::Nothing,
            Holder::Somebody => Found::Hidden,
        })
    }

    /// Every process of the node, oldest first.
    pub(super) fn members(&self) -> io::Result<Vec<Process>> {
        self.members_of(self.record()?.as_ref())
    }

    /// The record, if it is of this boot: process numbers of another boot mean nothing.
    pub(super) fn record(&self) -> io::Result<Option<Record>> {
        Ok(self
            .lock
            .record()?
            .filter(|record| record.boot == self.boot))
    }

    fn members_of(&self, record: Option<&Record>) -> io::Result<Vec<Process>> {
        let lock = self.lock.path();
        let members = procfs::members(lock, record);
        if !members.is_empty() || self.lock.holder()? == Holder::Nobody {
            return Ok(members);
        }
        Ok(procfs::lock_holders(lock))
    }

    /// The recorded process, if it lives and is not merely another with its number.
    fn leader(&self, record: &Record) -> Option<Process> {
        let process = Process::read(record.pid)?;
        if process.start_ticks != record.start_ticks {
            return None;
        }
        let ours = match process.is_marked(self.lock.path()) {
            Some(marked) => marked,
            // Not readable, as when the node changed its user: the lock must speak for it.
            None => self
                .lock
                .holder()
                .is_ok_and(|holder| holder == Holder::Somebody),
        };
        ours.then_some(process)
    }
}
