//! Documents on hosts: written through every node that is up, and counted in the end.

use super::{HTTP_PORT, Hosts, network};
use crate::fixture::store::Held;
use crate::mesh::writer::Written;
use crate::mesh::{Count, Writer, wait_for};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A writer for each host: one that is down keeps nobody waiting.
#[derive(Debug)]
pub struct HostWriters {
    collection: String,
    writers: Vec<Writer>,
}

impl HostWriters {
    /// How many documents were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.writers.iter().map(Writer::acknowledged).sum()
    }

    /// Stops, and tells what was written.
    pub fn stop(self) -> Written {
        let mut all = Written {
            collection: self.collection,
            ..Written::default()
        };
        for writer in self.writers {
            let written = writer.stop();
            all.acknowledged.extend(written.acknowledged);
            all.unknown.extend(written.unknown);
        }
        all
    }
}

impl Hosts {
    /// Begins to write to a collection through the nodes of all hosts. What a node acknowledges, it
    /// has synced: see `Durable` in its settings.
    pub fn start_writers(&self, collection: &str) -> HostWriters {
        self.begin_writers(collection, true)
    }

    /// The same with writers who take a node's word for what it has not flushed yet.
    pub fn start_unflushed_writers(&self, collection: &str) -> HostWriters {
        self.begin_writers(collection, false)
    }

    fn begin_writers(&self, collection: &str, flushed: bool) -> HostWriters {
        let writer = |host: u8| {
            let address = SocketAddr::from((self.address(host), HTTP_PORT));
            let namespace = network::open(self);
            let nodes = vec![(self.name(host), address)];
            let first = move || network::join(&namespace);
            match flushed {
                true => Writer::start_at(nodes, collection, first),
                false => Writer::start_unflushed_at(nodes, collection, first),
            }
        };
        HostWriters {
            collection: collection.to_owned(),
            writers: self.numbers().map(writer).collect(),
        }
    }

    /// Counts until every node holds every acknowledged document, or the limit is over.
    #[track_caller]
    pub fn count_documents(&self, written: &Written, limit: Duration) -> Count {
        let until = Instant::now() + limit;
        wait_for("the documents are counted", limit * 2, || {
            let held = self.numbers().map(|host| {
                let held = self.held(host, &written.collection);
                (self.name(host), held)
            });
            let count = Count::of(written, held);
            (count.lost.is_empty() || Instant::now() >= until).then_some(count)
        })
    }

    #[track_caller]
    fn held(&self, host: u8, collection: &str) -> Held {
        let path = format!("/held/{collection}");
        let answer = network::request(self, host, "GET", &path, "");
        let (status, body) = answer.unwrap_or_else(|error| panic!("h{host} is to count: {error}"));
        assert_eq!(status, 200, "h{host}: {body}");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        let set = |name: &str| {
            let list = body[name].as_array().expect("a list").iter();
            list.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        Held {
            keys: set("keys"),
            doubled: set("doubled"),
        }
    }
}
