//! Free ports for programs that must know each other's before they start.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

/// Below the range from which the system takes the ports of outgoing connections: one of those would
/// otherwise take a port between our look and the program's start.
const RANGE: std::ops::Range<u16> = 10_000..32_000;

static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// So many ports on which nothing listens, and that nobody else in this process was given.
pub fn free(count: usize) -> Vec<u16> {
    let mut taken = TAKEN.lock().expect("no holder panics");
    let mut found = Vec::new();
    let mut next = random_port();
    for _ in RANGE {
        if found.len() == count {
            return found;
        }
        if TcpListener::bind((Ipv4Addr::LOCALHOST, next)).is_ok() && taken.insert(next) {
            found.push(next);
        }
        next = if next + 1 < RANGE.end {
            next + 1
        } else {
            RANGE.start
        };
    }
    panic!("this machine has no {count} free ports in {RANGE:?}");
}

/// Where to begin: other meshes on this machine begin elsewhere.
fn random_port() -> u16 {
    let mut bytes = [0; 2];
    getrandom::fill(&mut bytes).expect("the system gives random numbers");
    RANGE.start + u16::from_le_bytes(bytes) % (RANGE.end - RANGE.start)
}
