//! Answers HAProxy's agent-check on a loopback port: one line per connection, and nothing is read.
//! `drain` while traffic is stopped or the node is between two releases, `down` where it does not
//! work or is cut off, and `ready up` otherwise.

use crate::engine::EngineHandle;
use crate::monitor::Health;
use cbddc_domain::health::Status;
use cbddc_domain::node::Node;
use cbddc_domain::phase::Phase;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How long one answer may take to be taken.
const LIMIT: Duration = Duration::from_secs(2);

/// Answers until `stop`.
pub async fn answer_haproxy(
    listener: TcpListener,
    engine: EngineHandle,
    health: watch::Receiver<Health>,
    stop: CancellationToken,
) {
    loop {
        let mut stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the port of the agent-check takes no connection");
                    tokio::time::sleep(LIMIT).await;
                    continue;
                }
            }
        };
        let line = line(&engine.node(), health.borrow().judgement.status);
        let answer = async {
            stream.write_all(line.as_bytes()).await?;
            stream.shutdown().await
        };
        // Whoever hung up asks again.
        drop(tokio::time::timeout(LIMIT, answer).await);
    }
}

/// The words of HAProxy's agent-check protocol, with their line end.
pub fn line(node: &Node, health: Status) -> &'static str {
    if node.stops.quarantined.is_some() {
        return "down # cut off from its peers\n";
    }
    if node.stops.drained.is_some() {
        return "drain\n";
    }
    match &node.phase {
        Phase::Switching(_) | Phase::Reverting(_) => "drain\n",
        Phase::Stuck { .. } => "down # stuck\n",
        Phase::Steady { running: None } | Phase::Prepared { running: None, .. } => {
            "down # nothing runs\n"
        }
        Phase::Steady { .. } | Phase::Prepared { .. } | Phase::Probation(_) => match health {
            Status::Unhealthy => "ready down # unhealthy\n",
            // Not to know is no reason to take it out.
            Status::Healthy | Status::Degraded | Status::Unknown => "ready up\n",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::line;
    use cbddc_domain::health::Status::{Healthy, Unhealthy};
    use cbddc_domain::node::Node;
    use cbddc_domain::phase::Phase;
    use cbddc_domain::stops::Stopped;

    #[test]
    fn what_haproxy_is_told() {
        let mut node = Node::default();
        assert!(line(&node, Healthy).starts_with("down "));
        node.phase = Phase::Steady { running: Some(1) };
        assert_eq!(line(&node, Healthy), "ready up\n");
        assert!(line(&node, Unhealthy).starts_with("ready down "));
        let stopped = Stopped {
            by: "ana".into(),
            reason: String::new(),
        };
        node.stops.drained = Some(stopped.clone());
        assert_eq!(line(&node, Healthy), "drain\n");
        node.stops.quarantined = Some(stopped);
        assert!(line(&node, Healthy).starts_with("down "));
    }
}
