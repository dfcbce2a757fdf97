//! Asks one member who is in the mesh, so that one address that answers is enough: whoever joined is
//! known to the next command, and whoever was taken out is spoken to no more.
//!
//! What was learnt is written to the context's mesh file, its members only: voters and recovery key are
//! the beginning of the mesh, and stay as they were given.

use crate::context::{self, Context};
use crate::error::{CtlError, chain};
use crate::mesh::{Outcome, Session, client};
use cbddc_domain::id::NodeName;
use cbddc_domain::mesh::{Member, MeshFile};
use cbddc_domain::roster::MemberEntry;
use cbddc_proto::convert::{Malformed, required};
use cbddc_proto::v1;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

/// How long a member may take to answer, until the mesh file has to do.
const LIMIT: Duration = Duration::from_secs(1);
/// How many members are asked at once.
const AT_ONCE: usize = 2;
/// After this, more of them are asked.
const MORE_AFTER: Duration = Duration::from_millis(100);

/// One member, as another one knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub name: NodeName,
    /// What is said of it.
    pub entry: MemberEntry,
    /// Whether its votes decide at present.
    pub votes: bool,
    /// Whether it is thought to be there.
    pub alive: bool,
    /// When it was last heard of, Unix time in milliseconds.
    pub last_seen_wall_ms: Option<i64>,
}

/// What a member said of who is in the mesh.
#[derive(Debug, Clone)]
pub struct Heard {
    /// Which one said it.
    pub from: NodeName,
    /// All members, by name.
    pub members: Vec<Known>,
}

impl Heard {
    /// What was said of one member.
    pub fn of(&self, node: &NodeName) -> Option<&Known> {
        self.members.iter().find(|known| known.name == *node)
    }
}

impl Session {
    /// The mesh with the members that one of them knows; where none answers, as the file lists it.
    pub async fn learn(&self) -> Self {
        let Some(context) = self.context() else {
            return self.clone();
        };
        let Some(heard) = ask(self).await else {
            return self.clone();
        };
        let learnt = merged(self.mesh(), &heard);
        if learnt == *self.mesh() {
            return self.with(learnt, heard);
        }
        match context::checked(learnt).and_then(|mesh| keep(context, mesh)) {
            Ok(mesh) => self.with(mesh, heard),
            Err(error) => {
                let from = &heard.from;
                eprintln!(
                    "what {from} says of the members was not kept: {}",
                    chain(&error)
                );
                self.clone()
            }
        }
    }
}

/// The first answer. Those that are still asked then go on with connecting: they are needed next.
async fn ask(session: &Session) -> Option<Heard> {
    let until = Instant::now() + LIMIT.min(session.timeout());
    let nodes = session.nodes();
    let mut waiting = nodes.into_iter().peekable();
    let mut asked = JoinSet::new();
    loop {
        for node in waiting.by_ref().take(AT_ONCE) {
            let session = session.clone();
            asked.spawn(async move {
                let limit = session.timeout();
                let answer = session.call(&node, limit, list).await;
                (node, answer)
            });
        }
        tokio::select! {
            ended = asked.join_next() => match ended {
                Some(Ok((from, Outcome::Ok(members)))) => {
                    asked.detach_all();
                    return Some(Heard { from, members });
                }
                Some(_) => {}
                None if waiting.peek().is_none() => return None,
                None => {}
            },
            () = sleep(MORE_AFTER), if waiting.peek().is_some() => {}
            () = sleep_until(until) => return None,
        }
    }
}

/// Asks one member.
pub async fn list(channel: tonic::transport::Channel) -> Result<Vec<Known>, tonic::Status> {
    let answer = client::mesh(channel)
        .list_members(v1::ListMembersRequest {})
        .await?
        .into_inner();
    let members: Result<Vec<Known>, Malformed> = answer.members.into_iter().map(known).collect();
    let senseless = |fault| tonic::Status::internal(format!("the answer makes no sense: {fault}"));
    members.map_err(senseless)
}

fn known(info: v1::MemberInfo) -> Result<Known, Malformed> {
    let name: NodeName = info.name.parse()?;
    Ok(Known {
        name,
        entry: required("entry", info.entry)?.try_into()?,
        votes: info.votes,
        alive: info.alive,
        last_seen_wall_ms: Some(info.last_seen_wall_ms).filter(|ms| *ms > 0),
    })
}

/// The mesh file with the members that were heard of.
pub(crate) fn merged(file: &MeshFile, heard: &Heard) -> MeshFile {
    let member = |known: &Known| Member {
        name: known.name.clone(),
        address: known.entry.address.clone(),
        key: known.entry.key,
        required: known.entry.required,
        labels: known.entry.labels.clone(),
    };
    let mut members: Vec<Member> = heard.members.iter().map(member).collect();
    // In the order of the file, so that only what differs is written.
    let place = |member: &Member| {
        let place = file
            .members
            .iter()
            .position(|held| held.name == member.name);
        place.unwrap_or(usize::MAX)
    };
    members.sort_by_key(place);
    MeshFile {
        members,
        ..file.clone()
    }
}

fn keep(context: &Context, mesh: MeshFile) -> Result<MeshFile, CtlError> {
    let text = context::mesh_text(&mesh)?;
    // A folder that cannot be written to does not keep anybody from looking.
    if let Err(error) = context::replace(&context.dir.join("mesh.toml"), text.as_bytes()) {
        eprintln!("the newer list of members was not kept: {}", chain(&error));
    }
    Ok(mesh)
}
