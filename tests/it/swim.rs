//! Which members are there: agents' failure detection over a network that can be cut, in one process.

use bytes::Bytes;
use cbagent::adapters::swim::{News, Swim};
use cbddc_domain::id::NodeName;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

const PERIOD: Duration = Duration::from_millis(60);
const LIMIT: Duration = Duration::from_secs(40);
/// A start in our days, in milliseconds.
const LATE: u64 = 1_800_000_000_000;

fn name(of: &str) -> NodeName {
    of.parse().expect("a name")
}

/// Members and the datagrams between them.
#[derive(Clone, Default)]
struct Net {
    members: Arc<Mutex<BTreeMap<NodeName, Swim>>>,
    cut: Arc<Mutex<BTreeSet<(NodeName, NodeName)>>>,
    datagrams: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl Net {
    fn all(&self) -> Vec<NodeName> {
        self.members.lock().unwrap().keys().cloned().collect()
    }

    fn find(&self, from: &NodeName, to: &NodeName) -> Option<Swim> {
        let cut = self.cut.lock().unwrap();
        if cut.contains(&(from.clone(), to.clone())) || cut.contains(&(to.clone(), from.clone())) {
            return None;
        }
        self.members.lock().unwrap().get(to).cloned()
    }

    fn count(&self, datagram: &Bytes) {
        self.datagrams.fetch_add(1, Ordering::Relaxed);
        self.bytes
            .fetch_add(datagram.len() as u64, Ordering::Relaxed);
    }

    /// Starts a member's agent, and lets it run until it is stopped.
    fn start(&self, of: &str, start: u64, period: Duration) -> Swim {
        let own = name(of);
        let swim = Swim::new(
            own.clone(),
            start,
            start ^ own.as_str().len() as u64,
            period,
        );
        self.members
            .lock()
            .unwrap()
            .insert(own.clone(), swim.clone());
        let (net, running) = (self.clone(), swim.clone());
        tokio::spawn(async move {
            let mut contact = tokio::time::interval(period);
            loop {
                tokio::select! {
                    _ = contact.tick() => {
                        let mut others = net.all();
                        others.retain(|other| *other != own);
                        running.contact(others);
                    }
                    news = running.next() => net.deliver(&own, &running, news),
                }
                let members = net.members.lock().unwrap();
                if !members.get(&own).is_some_and(|now| now.is(&running)) {
                    return;
                }
            }
        });
        swim
    }

    fn deliver(&self, own: &NodeName, swim: &Swim, news: Vec<News>) {
        for one in news {
            let News::Send(to, datagram) = one else {
                continue;
            };
            self.count(&datagram);
            let Some(peer) = self.find(own, &to) else {
                continue;
            };
            let answered = peer.take(own, &datagram).expect("a datagram of SWIM");
            swim.outdo(answered.start);
            for datagram in answered.datagrams {
                self.count(&datagram);
                swim.take(&to, &datagram).expect("a datagram of SWIM");
            }
        }
    }

    fn stop(&self, of: &str) {
        self.members.lock().unwrap().remove(&name(of));
    }

    fn cut(&self, left: &[&str], right: &[&str]) {
        let mut cut = self.cut.lock().unwrap();
        let pairs = left
            .iter()
            .flat_map(|a| right.iter().map(|b| (name(a), name(b))));
        cut.extend(pairs);
    }
}

async fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < until, "waited in vain until {what}");
        tokio::time::sleep(PERIOD / 4).await;
    }
}

fn sees(swim: &Swim, expected: &[&str]) -> bool {
    swim.alive() == expected.iter().map(|of| name(of)).collect()
}

#[tokio::test]
async fn members_find_each_other_and_notice_who_is_gone() {
    let net = Net::default();
    let swims: Vec<Swim> = (1..=5)
        .map(|n| net.start(&format!("n{n}"), LATE, PERIOD))
        .collect();
    wait_for("all see all", || {
        swims.iter().all(|swim| swim.alive().len() == 4)
    })
    .await;
    net.stop("n5");
    wait_for("four see that one is gone", || {
        let four = ["n1", "n2", "n3", "n4"];
        (0..4).all(|own| {
            let others: Vec<&str> = four.into_iter().filter(|of| *of != four[own]).collect();
            sees(&swims[own], &others)
        })
    })
    .await;
    // Its clock is in 1970 now: it takes a later number than the one that stands.
    let again = net.start("n5", 3, PERIOD);
    wait_for("it is there again", || {
        again.alive().len() == 4 && (0..4).all(|own| swims[own].alive().contains(&name("n5")))
    })
    .await;
}

#[tokio::test]
async fn a_member_that_one_other_cannot_reach_is_there_and_a_partition_heals() {
    let net = Net::default();
    let swims: Vec<Swim> = (1..=5)
        .map(|n| net.start(&format!("n{n}"), LATE, PERIOD))
        .collect();
    wait_for("all see all", || {
        swims.iter().all(|swim| swim.alive().len() == 4)
    })
    .await;
    net.cut(&["n1"], &["n2"]);
    // Long enough to be held for down, if nobody else were asked.
    let until = Instant::now() + PERIOD * 30;
    while Instant::now() < until {
        assert!(swims[0].alive().contains(&name("n2")), "others reach it");
        tokio::time::sleep(PERIOD).await;
    }
    net.cut(&["n1", "n2"], &["n3", "n4", "n5"]);
    net.cut.lock().unwrap().remove(&(name("n1"), name("n2")));
    wait_for("each side sees itself alone", || {
        let sides = [
            &["n2"][..],
            &["n1"],
            &["n4", "n5"],
            &["n3", "n5"],
            &["n3", "n4"],
        ];
        swims.iter().zip(sides).all(|(swim, side)| sees(swim, side))
    })
    .await;
    // Long enough for all that was still under way.
    let until = Instant::now() + PERIOD * 20;
    while Instant::now() < until {
        assert!(sees(&swims[0], &["n2"]));
        tokio::time::sleep(PERIOD).await;
    }
    net.cut.lock().unwrap().clear();
    wait_for("all see all again", || {
        swims.iter().all(|swim| swim.alive().len() == 4)
    })
    .await;
}

#[tokio::test]
async fn what_is_no_datagram_of_its_sender_changes_nothing() {
    let (one, two) = (
        Swim::new(name("n1"), 1, 1, PERIOD),
        Swim::new(name("n2"), 1, 2, PERIOD),
    );
    one.contact(vec![name("n2")]);
    let news = one.next().await;
    let [News::Send(to, datagram)] = news.as_slice() else {
        panic!("an announcement: {news:?}");
    };
    assert_eq!(*to, name("n2"));
    let fault = two
        .take(&name("n3"), datagram)
        .expect_err("n3 speaks for n1");
    assert!(fault.to_string().contains("n3 speaks for n1"), "{fault}");
    for bytes in [&b""[..], b"\xff\xff\xff", &[7; 20_000], &datagram[..5]] {
        assert!(
            two.take(&name("n1"), bytes).is_err(),
            "{} bytes",
            bytes.len()
        );
    }
    assert!(two.alive().is_empty());
    let answered = two
        .take(&name("n1"), datagram)
        .expect("n1 speaks for itself");
    assert_eq!(two.alive(), BTreeSet::from([name("n1")]));
    assert_eq!(answered.start, 1);
    assert_eq!(answered.datagrams.len(), 1, "the answer goes back with it");
}

#[tokio::test]
async fn made_up_members_do_not_fill_the_memory() {
    let victim = Swim::new(name("n1"), 1, 1, PERIOD);
    let liar = Swim::new(name("liar"), 1, 2, PERIOD);
    let mut most = 0;
    for round in 0..3000 {
        let of = name(&format!("nobody-{round}"));
        let nobody = Swim::new(of.clone(), 1, 3, PERIOD);
        nobody.contact(vec![name("liar")]);
        for one in nobody.next().await {
            if let News::Send(_, datagram) = one {
                liar.take(&of, &datagram).expect("the liar takes all");
            }
        }
        if round % 100 == 99 {
            // What the liar has just heard of it passes on.
            liar.contact(vec![name("n1")]);
            let news = liar.next().await;
            for one in news {
                match one {
                    News::Send(to, datagram) if to == name("n1") => {
                        let answered = victim.take(&name("liar"), &datagram);
                        let answered = answered.expect("well-formed");
                        for datagram in answered.datagrams {
                            drop(liar.take(&name("n1"), &datagram));
                        }
                    }
                    News::Send(..) | News::Up(_) | News::Down(..) => {}
                }
            }
        }
        most = most.max(liar.known());
    }
    assert!(most <= 2049, "{most} lives are remembered");
}

/// Bytes and datagrams per member and period, once everybody knows everybody and nothing is new.
async fn quiet_cost(size: usize) -> (f64, f64) {
    let net = Net::default();
    let swims: Vec<Swim> = (0..size)
        .map(|n| net.start(&format!("m{n}"), LATE + n as u64, PERIOD))
        .collect();
    wait_for("all see all", || {
        swims.iter().all(|swim| swim.alive().len() == size - 1)
    })
    .await;
    let began = Instant::now();
    loop {
        net.bytes.store(0, Ordering::Relaxed);
        net.datagrams.store(0, Ordering::Relaxed);
        let since = Instant::now();
        tokio::time::sleep(PERIOD * 10).await;
        #[expect(clippy::cast_precision_loss, reason = "thousands")]
        let (bytes, datagrams) = (
            net.bytes.load(Ordering::Relaxed) as f64,
            net.datagrams.load(Ordering::Relaxed) as f64,
        );
        #[expect(clippy::cast_precision_loss, reason = "at most a hundred")]
        let members = size as f64 * since.elapsed().as_secs_f64() / PERIOD.as_secs_f64();
        // What was new has been passed on often enough when datagrams are empty.
        if bytes / datagrams < 60.0 {
            return (bytes / members, datagrams / members);
        }
        assert!(began.elapsed() < LIMIT, "{} bytes each", bytes / datagrams);
    }
}

#[tokio::test]
async fn a_quiet_period_costs_the_same_in_a_mesh_of_10_and_of_100() {
    let mut seen = Vec::new();
    // On a busy machine members are late and doubted, and then a period is not quiet: doubts cost more,
    // never less.
    for _ in 0..8 {
        let mut costs = Vec::new();
        for size in [10, 100] {
            let (bytes, datagrams) = quiet_cost(size).await;
            println!(
                "{size} members: {bytes:.0} bytes in {datagrams:.1} datagrams per member and period"
            );
            costs.push(bytes);
        }
        if costs[1] < 1.5 * costs[0] {
            return;
        }
        seen.push(costs);
    }
    panic!("it grows with the mesh: {seen:?}");
}
