//! Room for those who have not said yet who they are.
//!
//! Where it is full, whoever comes still gets in: the address that holds most of it gives up what it
//! has held for longest. So neither a host that opens one connection after the other nor one that
//! opens them and falls silent keeps anybody else out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// A bounded number of places.
#[derive(Debug, Clone)]
pub(super) struct Room {
    places: usize,
    held: Arc<Mutex<Held>>,
}

/// Who holds them, in the order in which they came.
#[derive(Debug, Default)]
struct Held {
    next: u64,
    by: BTreeMap<u64, (IpAddr, CancellationToken)>,
}

/// A place; it is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    held: Arc<Mutex<Held>>,
    number: u64,
    /// Cancelled once somebody else needs the place.
    pub(super) taken: CancellationToken,
}

impl Room {
    /// With this many places, at least one.
    pub(super) fn new(places: usize) -> Self {
        Self {
            places: places.max(1),
            held: Arc::default(),
        }
    }

    /// Takes a place, if need be somebody else's.
    pub(super) fn enter(&self, from: IpAddr) -> Place {
        let mut held = lock(&self.held);
        while held.by.len() >= self.places {
            let Some(number) = held.who_gives_way() else {
                break;
            };
            if let Some((_, taken)) = held.by.remove(&number) {
                taken.cancel();
            }
        }
        let (number, taken) = (held.next, CancellationToken::new());
        held.next += 1;
        held.by.insert(number, (from, taken.clone()));
        Place {
            held: Arc::clone(&self.held),
            number,
            taken,
        }
    }
}

impl Held {
    /// The oldest place of the address with most of them.
    fn who_gives_way(&self) -> Option<u64> {
        let mut of: BTreeMap<IpAddr, (usize, u64)> = BTreeMap::new();
        for (number, (address, _)) in self.by.iter().rev() {
            let (count, oldest) = of.entry(*address).or_default();
            (*count, *oldest) = (*count + 1, *number);
        }
        let most = of
            .into_values()
            .max_by_key(|(count, oldest)| (*count, u64::MAX - oldest));
        most.map(|(_, oldest)| oldest)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.held).by.remove(&self.number);
    }
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::{Place, Room};
    use std::net::IpAddr;

    fn from(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn taken(places: &[Place]) -> Vec<bool> {
        places.iter().map(|one| one.taken.is_cancelled()).collect()
    }

    #[test]
    fn the_address_with_most_places_gives_up_its_oldest() {
        let room = Room::new(4);
        let mut places: Vec<Place> = [1, 2, 2, 2].map(|last| room.enter(from(last))).into();
        assert_eq!(taken(&places), [false; 4]);
        places.push(room.enter(from(3)));
        assert_eq!(taken(&places), [false, true, false, false, false]);
        places.push(room.enter(from(2)));
        assert_eq!(taken(&places), [false, true, true, false, false, false]);
        // Alike: the oldest of all.
        places.push(room.enter(from(4)));
        assert_eq!(taken(&places[..5]), [false, true, true, true, false]);
        places.push(room.enter(from(5)));
        assert_eq!(taken(&places[..5]), [true, true, true, true, false]);
    }

    #[test]
    fn a_place_that_was_left_is_free() {
        let room = Room::new(2);
        let first = room.enter(from(1));
        for _ in 0..5 {
            drop(room.enter(from(2)));
        }
        let second = room.enter(from(2));
        assert!(!first.taken.is_cancelled() && !second.taken.is_cancelled());
    }
}
