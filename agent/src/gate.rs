//! The gate at start: systemd asks it each time before it starts the node's unit.
//!
//! It answers from files alone and never through the engine, so that it works when the agent is slow,
//! broken or gone. Deciding is [`decide`]; [`wait_for_verdict`] looks and waits. What it looks at is
//! written by the agent: the permit in the run folder before each start, and in the state folder the
//! builds that must not start.
//!
//! Facts about systemd that shape it, seen on 252: a condition that exits with 1 to 254 skips the
//! unit, and nothing starts it again; one that crashes or takes longer than the unit's
//! `TimeoutStartSec` fails the unit; it runs again at each automatic restart.

pub mod command;
pub mod condition;

use cbddc_domain::build::Digest;
use cbddc_domain::time::BootId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the gate looks for the permit.
const LOOK: Duration = Duration::from_millis(50);

/// After how many looks the agent is asked again whether it lives: about once a second.
const LOOKS_PER_CALL: u32 = 20;

/// What the agent last wanted of the node in this boot; the file `permit` in the run folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permit {
    /// The boot that it is valid in.
    pub boot_id: BootId,
    /// The build that may start; unset while the agent holds the node stopped.
    pub build: Option<Digest>,
}

/// What `current` in the store points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Current {
    /// Nothing: no build was ever activated here, or there is no store.
    Nothing,
    /// This build.
    Build(Digest),
    /// It cannot be read.
    Unreadable,
}

/// What the gate sees at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// What would start.
    pub current: Current,
    /// The permit, if there is one that can be read.
    pub permit: Option<Permit>,
    /// This boot, where it can be told.
    pub boot: Option<BootId>,
    /// Whether the agent's socket accepts connections.
    pub agent_lives: bool,
    /// The builds that must not start; none where the list cannot be read.
    pub revoked: BTreeSet<Digest>,
}

/// What the gate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The unit starts.
    Start,
    /// The unit starts although the agent has not said so, for this reason.
    StartUnverified(&'static str),
    /// Not yet: look again.
    Wait,
    /// The unit is skipped, for this reason.
    Refuse(String),
}

/// Decides. `over` is whether the time to wait for the agent is used up.
pub fn decide(sight: &Sight, over: bool) -> Verdict {
    let permit = sight
        .permit
        .as_ref()
        .filter(|permit| Some(&permit.boot_id) == sight.boot.as_ref());
    // A revocation comes first: it may have arrived after the permit.
    if let Current::Build(build) = sight.current
        && sight.revoked.contains(&build)
    {
        return Verdict::Refuse(format!(
            "build {} was revoked and must not start; the agent starts the one that follows it, see `cbctl status`",
            build.short()
        ));
    }
    match (sight.current, permit) {
        (Current::Nothing, _) => Verdict::StartUnverified("no build was activated here yet"),
        (Current::Build(build), Some(permit)) if permit.build == Some(build) => Verdict::Start,
        _ if !sight.agent_lives => Verdict::StartUnverified("the agent does not run"),
        _ if !over => Verdict::Wait,
        (_, Some(Permit { build: None, .. })) => Verdict::Refuse(
            "the agent holds the node stopped, and starts it itself when it is done; see `cbctl status`"
                .to_owned(),
        ),
        _ => Verdict::StartUnverified("the agent did not give its permit in time"),
    }
}

/// Where the gate looks.
pub trait Lookout {
    /// What there is to see. `call` asks anew whether the agent lives.
    fn look(&mut self, call: bool) -> Sight;
    /// Lets time pass.
    fn pause(&mut self, time: Duration);
    /// The time that has passed since the gate began.
    fn passed(&self) -> Duration;
    /// Whether a gate of this boot has waited in vain before.
    fn has_waited(&self) -> bool;
    /// Remembers that for this boot.
    fn note_waited(&mut self);
}

/// Looks until there is a verdict other than to wait, for at most `budget`, which only the first gate of
/// a boot has: a node that systemd starts again and again must not wait again and again.
pub fn wait_for_verdict(lookout: &mut impl Lookout, budget: Duration) -> Verdict {
    let budget = match lookout.has_waited() {
        true => Duration::ZERO,
        false => budget,
    };
    for number in 0_u32.. {
        let sight = lookout.look(number % LOOKS_PER_CALL == 0);
        let over = lookout.passed() >= budget;
        let verdict = decide(&sight, over);
        if over && decide(&sight, false) == Verdict::Wait {
            lookout.note_waited();
        }
        if verdict != Verdict::Wait {
            return verdict;
        }
        lookout.pause(LOOK);
    }
    Verdict::StartUnverified("the gate has looked too often")
}

/// The permit of an agent in this run folder.
pub fn permit_file(run_dir: &Path) -> PathBuf {
    run_dir.join("permit")
}

/// The boot in which a gate has waited in vain, in this run folder.
pub fn waited_file(run_dir: &Path) -> PathBuf {
    run_dir.join("gate-waited")
}

/// The list of builds that must not start, one digest per line, in this state folder.
pub fn revoked_file(state_dir: &Path) -> PathBuf {
    state_dir.join("revoked")
}

/// The socket on which an agent in this run folder answers.
pub fn socket_file(run_dir: &Path) -> PathBuf {
    run_dir.join("agent.sock")
}

/// The store of an agent in this state folder.
pub fn store_folder(state_dir: &Path) -> PathBuf {
    state_dir.join("store")
}

#[cfg(test)]
mod tests;
