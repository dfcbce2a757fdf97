//! Free ports for programs that must know each other's before they start.
//!
//! Tests run as many processes, and several runs may share a machine. The range is cut into blocks,
//! and a process that needs ports holds the lock of a block until it ends: nobody else gives away
//! what it was given, also while nothing listens there yet.

use std::fs::{self, File, TryLockError};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;

/// Below the range from which the system takes the ports of outgoing connections: one of those would
/// otherwise take a port between our look and the program's start.
const RANGE: std::ops::Range<u16> = 10_000..32_000;

/// How many ports are locked together: a mesh of three takes fifteen.
const BLOCK: u16 = 20;

static HELD: Mutex<Held> = Mutex::new(Held {
    locks: Vec::new(),
    free: Vec::new(),
});

/// What this process holds.
struct Held {
    /// The locked files; the system lets them go when the process ends, however it does.
    locks: Vec<File>,
    /// What is left of the blocks.
    free: Vec<u16>,
}

/// So many ports on which nothing listens, and that nobody else was given.
pub fn free(count: usize) -> Vec<u16> {
    let mut held = HELD.lock().expect("no holder panics");
    while held.free.len() < count {
        let (lock, ports) = lock_a_block();
        held.locks.push(lock);
        held.free.extend(ports);
    }
    let left = held.free.len() - count;
    held.free.split_off(left)
}

/// Locks a block that nobody holds, and tells which of its ports are free.
fn lock_a_block() -> (File, Vec<u16>) {
    let folder = std::env::temp_dir().join("cbddc-test-ports");
    fs::create_dir_all(&folder).expect("a folder for the locks of ports");
    let blocks = (RANGE.end - RANGE.start) / BLOCK;
    // Processes that begin together begin elsewhere.
    let first = random() % blocks;
    for block in (first..blocks).chain(0..first) {
        let path = folder.join(block.to_string());
        let mut options = File::options();
        options.write(true).create(true).truncate(false);
        let file = options.open(&path).expect("the lock of a block of ports");
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => panic!("cannot lock {}: {error}", path.display()),
        }
        let start = RANGE.start + block * BLOCK;
        let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
        return (file, (start..start + BLOCK).filter(is_free).collect());
    }
    panic!("this machine has no free ports in {RANGE:?}");
}

fn random() -> u16 {
    let mut bytes = [0; 2];
    getrandom::fill(&mut bytes).expect("the system gives random numbers");
    u16::from_le_bytes(bytes)
}
