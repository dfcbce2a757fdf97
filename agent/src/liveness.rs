//! Carries the failure detection's datagrams to the members, and tells what it found.

use crate::adapters::clock::SystemClock;
use crate::adapters::peers::Peers;
use crate::adapters::seen::Seen;
use crate::adapters::swim::{News, Swim};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Datagrams under way at once; more are dropped, as a network would.
const UNDER_WAY_MAX: usize = 32;

/// What failure detection needs.
pub struct Liveness {
    /// What decides.
    pub swim: Swim,
    /// The other members.
    pub peers: Peers,
    /// Signs of life.
    pub seen: Seen,
    /// When they came.
    pub clock: SystemClock,
}

impl Liveness {
    /// Detects until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let room = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        let mut contact = tokio::time::interval(self.swim.period());
        contact.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = contact.tick() => self.swim.contact(self.peers.others()),
                news = self.swim.next() => news.into_iter().for_each(|one| self.tell(one, &room)),
            }
        }
    }

    fn tell(&self, news: News, room: &Arc<Semaphore>) {
        match news {
            News::Send(to, datagram) => {
                let Ok(place) = Arc::clone(room).try_acquire_owned() else {
                    return;
                };
                let (swim, peers) = (self.swim.clone(), self.peers.clone());
                tokio::spawn(async move {
                    let _place = place;
                    let limit = swim.period().max(Duration::from_secs(1));
                    match peers.gossip(&to, datagram, limit).await {
                        Ok(answered) => {
                            swim.outdo(answered.start);
                            for datagram in answered.datagrams {
                                if let Err(error) = swim.take(&to, &datagram) {
                                    tracing::debug!(%to, %error, "an answer is not understood");
                                }
                            }
                        }
                        Err(error) => tracing::debug!(%to, %error, "a member was not reached"),
                    }
                });
            }
            News::Up(name) => {
                tracing::info!("{name} is there");
                self.seen.note(&name, self.clock.now().wall_ms);
            }
            News::Down(name, since) => {
                tracing::warn!("{name} is away: no member has an answer from it");
                let unsure_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
                let wall_ms = self.clock.now().wall_ms.saturating_sub(unsure_ms);
                self.seen.note_past(&name, wall_ms);
            }
        }
    }
}
