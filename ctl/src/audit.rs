//! Reads every event of many nodes at once and lets the domain compare them while they stream by.

mod contents;
mod convergence;
mod files;
mod stranded;

pub use contents::{Compared, How, compare_documents};
pub use convergence::{Late, converge};
pub use files::audit_files;
pub use stranded::{Stranded, stranded_since};

use crate::error::CtlError;
use crate::mesh::{Outcome, Session, client, outcome_of};
use cbddc_domain::audit::{Audit, AuditReport, Page, Source};
use cbddc_domain::hlc::VectorClock;
use cbddc_domain::id::NodeName;
use cbddc_proto::convert::replication::{boundaries_from_proto, clock_from_proto, page_from_proto};
use cbddc_proto::v1;
use cbddc_proto::v1::read_oplog_response::Part;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::{Status, Streaming};

/// Pages of one node that wait to be compared.
const PAGES_WAITING: usize = 2;

/// How often an audit begins anew without a node that broke off.
const BEGINNINGS_MAX: usize = 4;

/// What a node said before its events.
#[derive(Debug, Clone)]
pub struct Head {
    /// Its CBDDC id.
    pub origin: String,
    /// Whether it took the token.
    pub token_accepted: bool,
    /// The collections it wants; empty: all.
    pub interests: Vec<String>,
    /// Its clock before its events were read.
    pub clock: VectorClock,
    /// Where its events were read from.
    pub read_from: String,
    /// The collections in which what is found is critical.
    pub critical_collections: Vec<String>,
}

/// What came of it.
#[derive(Debug)]
pub struct Audited {
    /// Per node: what it said, or why it said nothing.
    pub nodes: BTreeMap<NodeName, Outcome<Head>>,
    /// What was found among those that answered.
    pub report: AuditReport,
}

impl Audited {
    /// The last events that each node lacks and has yet to get; only nodes that lack some.
    pub fn owed(&self) -> BTreeMap<NodeName, VectorClock> {
        let nodes = self.nodes.keys().filter_map(|node| {
            let owed = &self.report.nodes.get(node.as_str())?.owed;
            (!owed.0.is_empty()).then(|| (node.clone(), owed.clone()))
        });
        nodes.collect()
    }
}

/// Compares the events that all nodes of a cluster hold, from a moment on. Nodes that fail are left out and say why.
///
/// # Errors
/// When a node's events make no sense.
pub async fn audit_mesh(
    session: &Session,
    cluster: &str,
    nodes: &BTreeSet<NodeName>,
    since_wall_ms: i64,
) -> Result<Audited, CtlError> {
    let mut failed = BTreeMap::new();
    for _ in 0..BEGINNINGS_MAX {
        let left: BTreeSet<NodeName> = nodes
            .iter()
            .filter(|node| !failed.contains_key(*node))
            .cloned()
            .collect();
        let mut run = Run::begin(session, cluster, &left, since_wall_ms).await;
        failed.append(&mut run.failed);
        match run.compare(since_wall_ms).await? {
            Ok((heads, report)) => {
                let answered = heads
                    .into_iter()
                    .map(|(node, head)| (node, Outcome::Ok(head)));
                let nodes = answered.chain(failed).collect();
                return Ok(Audited { nodes, report });
            }
            Err((node, status)) => drop(failed.insert(node, outcome_of(Err(status)))),
        }
    }
    Err(
        CtlError::failed("too many nodes broke off while their events were read")
            .hint("look at `cbctl status`, and try again"),
    )
}

type Parts = mpsc::Receiver<Result<Part, Status>>;

/// The streams of one beginning.
struct Run {
    nodes: Vec<(NodeName, Head, Source, Parts)>,
    failed: BTreeMap<NodeName, Outcome<Head>>,
    /// Dropped with this, the readers end.
    _readers: JoinSet<()>,
}

impl Run {
    async fn begin(
        session: &Session,
        cluster: &str,
        nodes: &BTreeSet<NodeName>,
        since_wall_ms: i64,
    ) -> Self {
        let request = v1::ReadOplogRequest {
            since_wall_ms,
            cluster: cluster.to_owned(),
        };
        let mut readers = JoinSet::new();
        let mut waiting = Vec::new();
        for node in nodes {
            let (parts, read) = mpsc::channel(PAGES_WAITING);
            readers.spawn(read_node(
                session.clone(),
                node.clone(),
                request.clone(),
                parts,
            ));
            waiting.push((node.clone(), read));
        }
        let mut run = Self {
            nodes: Vec::new(),
            failed: BTreeMap::new(),
            _readers: readers,
        };
        for (node, mut parts) in waiting {
            let head = match parts.recv().await {
                Some(Ok(Part::Head(head))) => head_of(&node, head),
                Some(Err(status)) => Err(status),
                Some(Ok(_)) | None => Err(Status::internal("the events came without a head")),
            };
            match head {
                Ok((head, source)) => run.nodes.push((node, head, source, parts)),
                Err(status) => drop(run.failed.insert(node, outcome_of(Err(status)))),
            }
        }
        run
    }

    /// Feeds the audit until all streams have ended. The inner error names a node that broke off.
    async fn compare(
        &mut self,
        since_wall_ms: i64,
    ) -> Result<Result<(Vec<(NodeName, Head)>, AuditReport), (NodeName, Status)>, CtlError> {
        let sources = self.nodes.iter().map(|(_, _, source, _)| source.clone());
        let mut audit = Audit::new(sources.collect(), since_wall_ms);
        while let Some(hungry) = audit.hungry() {
            let (node, _, source, parts) = &mut self.nodes[hungry];
            match parts.recv().await {
                Some(Ok(Part::Page(page))) => {
                    let page: Result<Page, _> = page_from_proto(page);
                    let page = page.map_err(|fault| nonsense(node, &fault.to_string()))?;
                    let fed = audit.feed(hungry, page);
                    fed.map_err(|fault| nonsense(node, &fault.to_string()))?;
                }
                Some(Ok(Part::Tail(tail))) => {
                    let boundaries = boundaries_from_proto(tail.boundaries);
                    let boundaries =
                        boundaries.map_err(|fault| nonsense(node, &fault.to_string()))?;
                    let known = source.boundaries.is_some();
                    audit.end(hungry, known.then_some(boundaries));
                }
                Some(Ok(Part::Head(_))) => return Err(nonsense(node, "a second head")),
                Some(Err(status)) => return Ok(Err((node.clone(), status))),
                None => {
                    let status = Status::unavailable("its events ended early");
                    return Ok(Err((node.clone(), status)));
                }
            }
        }
        let heads = self.nodes.iter();
        let heads = heads.map(|(node, head, _, _)| (node.clone(), head.clone()));
        Ok(Ok((heads.collect(), audit.finish())))
    }
}

fn nonsense(node: &NodeName, fault: &str) -> CtlError {
    CtlError::failed(format!("the events of {node} cannot be compared: {fault}"))
}

fn head_of(node: &NodeName, head: v1::OplogHead) -> Result<(Head, Source), Status> {
    let boundaries = boundaries_from_proto(head.boundaries);
    let boundaries = boundaries.map_err(|fault| Status::internal(fault.to_string()))?;
    let clock = clock_from_proto(head.clock);
    let source = Source {
        name: node.to_string(),
        origin: head.node_id.clone(),
        interests: head.interests.clone(),
        clock: clock.clone(),
        boundaries: head.boundaries_known.then_some(boundaries),
    };
    let head = Head {
        origin: head.node_id,
        token_accepted: head.token_accepted,
        interests: head.interests,
        clock,
        read_from: head.read_from,
        critical_collections: head.critical_collections,
    };
    Ok((head, source))
}

/// Passes on what a node sends; each part must come within the command's time limit.
async fn read_node(
    session: Session,
    node: NodeName,
    request: v1::ReadOplogRequest,
    parts: mpsc::Sender<Result<Part, Status>>,
) {
    let limit = session.timeout();
    let open = async {
        let channel = session.channel(&node).await?;
        let answer = client::replication(channel).read_oplog(request).await?;
        Ok(answer.into_inner())
    };
    let opened = timeout(limit, open).await;
    let opened = opened.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
    let ended = match opened {
        Ok(stream) => pass_on(stream, limit, &parts).await,
        Err(status) => Err(status),
    };
    if let Err(status) = ended {
        let _ = parts.send(Err(status)).await;
    }
}

async fn pass_on(
    mut stream: Streaming<v1::ReadOplogResponse>,
    limit: Duration,
    parts: &mpsc::Sender<Result<Part, Status>>,
) -> Result<(), Status> {
    loop {
        let next = timeout(limit, stream.message()).await;
        let next = next.map_err(|_| Status::deadline_exceeded("no events in time"))??;
        let Some(part) = next.and_then(|message| message.part) else {
            return Ok(());
        };
        if parts.send(Ok(part)).await.is_err() {
            return Ok(());
        }
    }
}
