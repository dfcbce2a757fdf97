//! Who may call what: one row for every call, and the layer that goes by it before a service sees a
//! request. A call without a row is refused, and fails a test.

use crate::adapters::roster::RosterKeeper;
use crate::adapters::tls::{Caller, ConnectInfo, Shown};
use cbddc_domain::access::Role;
use cbddc_domain::roster::Standing;
use cbddc_pki::name::Holder;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tower::{Layer, Service};

/// Who may make a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// A host without a certificate: with a token, or one that looks for the mesh's authorities.
    /// Nobody is kept from it.
    Anybody,
    /// Agents, also with a certificate that has expired.
    AgentsEvenExpired,
    /// Agents, also with a certificate that has expired, and people of every role.
    MembersEvenExpired,
    /// Agents only.
    Agents,
    /// Agents and people of every role.
    Members,
    /// People of these roles, and agents never.
    People(&'static [Role]),
    /// People of these roles, and agents.
    PeopleOrAgents(&'static [Role]),
}

/// Those who roll out and back.
const OPERATORS: &[Role] = &[Role::Operator, Role::Admin];
/// Those who say who is in the mesh.
const ADMINS: &[Role] = &[Role::Admin];

/// The table: every call of every service, by its path.
pub const TABLE: &[(&str, Access)] = {
    use Access::{Agents, AgentsEvenExpired, Anybody, Members, MembersEvenExpired, People};
    &[
        ("/cbddc.agent.v1.BuildService/PushBuild", People(OPERATORS)),
        ("/cbddc.agent.v1.BuildService/ListBuilds", Members),
        ("/cbddc.agent.v1.BuildService/ShowBuild", Members),
        (
            "/cbddc.agent.v1.BuildService/FetchBuild",
            Access::PeopleOrAgents(OPERATORS),
        ),
        (
            "/cbddc.agent.v1.BuildService/RemoveBuilds",
            People(OPERATORS),
        ),
        ("/cbddc.agent.v1.HealthService/GetHealth", Members),
        ("/cbddc.agent.v1.HealthService/ListHealthHistory", Members),
        ("/cbddc.agent.v1.HealthService/FollowHealthHistory", Members),
        ("/cbddc.agent.v1.HealthService/ObserveReplication", Members),
        ("/cbddc.agent.v1.JournalService/ListEntries", Members),
        ("/cbddc.agent.v1.JournalService/FollowEntries", Members),
        ("/cbddc.agent.v1.MeshService/Ask", Agents),
        ("/cbddc.agent.v1.MeshService/GetRecord", MembersEvenExpired),
        ("/cbddc.agent.v1.MeshService/Exchange", Agents),
        ("/cbddc.agent.v1.MeshService/Gossip", Agents),
        ("/cbddc.agent.v1.MeshService/Fence", Agents),
        ("/cbddc.agent.v1.MeshService/GetStatements", Members),
        // Each statement carries its own right.
        ("/cbddc.agent.v1.MeshService/PutStatements", Members),
        ("/cbddc.agent.v1.MeshService/ListMembers", Members),
        ("/cbddc.agent.v1.MeshService/AddGrant", People(ADMINS)),
        ("/cbddc.agent.v1.MeshService/Join", Anybody),
        ("/cbddc.agent.v1.MeshService/Renew", AgentsEvenExpired),
        // Believed by its signatures, by hosts that know none of the newest authorities yet.
        ("/cbddc.agent.v1.MeshService/GetTrust", Anybody),
        ("/cbddc.agent.v1.MeshService/PutIssuing", People(ADMINS)),
        ("/cbddc.agent.v1.MeshService/DropIssuing", People(ADMINS)),
        ("/cbddc.agent.v1.NodeService/GetStatus", Members),
        ("/cbddc.agent.v1.NodeService/WatchStatus", Members),
        ("/cbddc.agent.v1.NodeService/ListGenerations", Members),
        ("/cbddc.agent.v1.NodeService/Adopt", People(OPERATORS)),
        ("/cbddc.agent.v1.NodeService/Unadopt", People(OPERATORS)),
        ("/cbddc.agent.v1.NodeService/SetDrained", People(OPERATORS)),
        (
            "/cbddc.agent.v1.NodeService/SetQuarantined",
            People(OPERATORS),
        ),
        ("/cbddc.agent.v1.NodeService/SetFrozen", People(OPERATORS)),
        ("/cbddc.agent.v1.ReleaseService/ListReleases", Members),
        ("/cbddc.agent.v1.ReleaseService/GetRelease", Members),
        ("/cbddc.agent.v1.ReplicationService/ReadOplog", Members),
        ("/cbddc.agent.v1.ReplicationService/ReadClock", Members),
        ("/cbddc.agent.v1.ReplicationService/ReadDigests", Members),
        (
            "/cbddc.agent.v1.ReplicationService/ListDocumentsWithoutEvent",
            Members,
        ),
        ("/cbddc.agent.v1.ReplicationService/FindDocuments", Members),
        ("/cbddc.agent.v1.ReplicationService/ListClusters", Members),
        ("/cbddc.agent.v1.ReplicationService/ListFindings", Members),
        // Agents only for a rollback: the handlers hold them to it.
        (
            "/cbddc.agent.v1.RolloutService/Prepare",
            Access::PeopleOrAgents(OPERATORS),
        ),
        ("/cbddc.agent.v1.RolloutService/Renew", People(OPERATORS)),
        ("/cbddc.agent.v1.RolloutService/Activate", People(OPERATORS)),
        (
            "/cbddc.agent.v1.RolloutService/Vote",
            Access::PeopleOrAgents(OPERATORS),
        ),
        (
            "/cbddc.agent.v1.RolloutService/Confirm",
            Access::PeopleOrAgents(OPERATORS),
        ),
        ("/cbddc.agent.v1.RolloutService/Revert", People(OPERATORS)),
        ("/cbddc.agent.v1.RolloutService/ListRollouts", Members),
        (
            "/cbddc.agent.v1.SnapshotService/CreateSnapshot",
            People(OPERATORS),
        ),
        ("/cbddc.agent.v1.SnapshotService/ListSnapshots", Members),
        (
            "/cbddc.agent.v1.SnapshotService/ReseedNode",
            People(OPERATORS),
        ),
        (
            "/cbddc.agent.v1.SnapshotService/ListOnlyInSnapshot",
            Members,
        ),
        (
            "/cbddc.agent.v1.SnapshotService/RestoreSnapshot",
            People(OPERATORS),
        ),
        ("/grpc.health.v1.Health/Check", Members),
        ("/grpc.health.v1.Health/Watch", Members),
        (
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            Members,
        ),
    ]
};

/// The row of a call.
pub fn access_of(path: &str) -> Option<Access> {
    let row = TABLE.iter().find(|(of, _)| *of == path);
    row.map(|(_, access)| *access)
}

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The table has no such call.
    #[error("this agent has no call {0}")]
    NoSuchCall(String),
    /// Whoever calls showed no certificate.
    #[error(
        "this call needs a certificate of the mesh: a host gets one with `cbagent join`, a person from an admin"
    )]
    NoCertificate,
    /// The certificate's time is over.
    #[error(
        "the certificate of {0} has expired: a host renews its own by itself, a person asks an admin for a new one"
    )]
    Expired(String),
    /// Whoever calls is out.
    #[error("{who} was taken out of the mesh: {reason}")]
    Removed {
        /// Who.
        who: String,
        /// Why.
        reason: String,
    },
    /// Another key stands for the name.
    #[error("{0} has another key now: this certificate was replaced")]
    Replaced(String),
    /// The certificate's authority was replaced, and the roster does not name the key.
    #[error(
        "the certificate of {0} comes from an authority that was replaced, and nobody has said which key the host has: it comes back with `cbctl mesh replace {0}`"
    )]
    Former(String),
    /// The mesh has no such member.
    #[error("the mesh has no member {0}")]
    Unknown(String),
    /// The role does not allow it.
    #[error("{who} may not do this: it takes {needed}")]
    NotAllowed {
        /// Who, with the role.
        who: String,
        /// What would do.
        needed: String,
    },
}

impl Denied {
    fn status(&self) -> Status {
        let (code, word) = match self {
            Self::NoSuchCall(_) => (tonic::Code::Unimplemented, "unknown_call"),
            Self::NoCertificate => (tonic::Code::Unauthenticated, "no_certificate"),
            Self::Expired(_) => (tonic::Code::Unauthenticated, "expired"),
            Self::Removed { .. } | Self::Replaced(_) | Self::Former(_) | Self::Unknown(_) => {
                (tonic::Code::PermissionDenied, "removed")
            }
            Self::NotAllowed { .. } => (tonic::Code::PermissionDenied, "not_allowed"),
        };
        super::refuse(code, word, self.to_string())
    }
}

/// Decides a call: by its row, who calls, and how they stand in the roster.
pub fn decide(path: &str, caller: &Caller, standing: &Standing) -> Result<(), Denied> {
    let access = access_of(path).ok_or_else(|| Denied::NoSuchCall(path.to_owned()))?;
    if access == Access::Anybody {
        return Ok(());
    }
    let who = match caller {
        Caller::Stranger => return Err(Denied::NoCertificate),
        Caller::Agent { name, .. } => format!("node {name}"),
        Caller::Person { name, .. } => name.clone(),
    };
    match standing {
        Standing::Good => {}
        Standing::Removed { reason } => {
            let reason = reason.clone();
            return Err(Denied::Removed { who, reason });
        }
        Standing::Replaced => return Err(Denied::Replaced(who)),
        Standing::Unknown => return Err(Denied::Unknown(who)),
    }
    let (agents, even_expired, roles): (bool, bool, &[Role]) = match access {
        Access::Anybody => (true, true, &Role::ALL),
        Access::AgentsEvenExpired => (true, true, &[]),
        Access::MembersEvenExpired => (true, true, &Role::ALL),
        Access::Agents => (true, false, &[]),
        Access::Members => (true, false, &Role::ALL),
        Access::People(roles) => (false, false, roles),
        Access::PeopleOrAgents(roles) => (true, false, roles),
    };
    match caller {
        Caller::Stranger => Err(Denied::NoCertificate),
        Caller::Agent { expired: true, .. } if !even_expired => Err(Denied::Expired(who)),
        Caller::Agent { .. } if agents => Ok(()),
        Caller::Person { expired: true, .. } => Err(Denied::Expired(who)),
        Caller::Person { role, .. } if roles.contains(role) => Ok(()),
        Caller::Agent { .. } | Caller::Person { .. } => Err(Denied::NotAllowed {
            who: match caller {
                Caller::Person { name, role, .. } => format!("{name} ({role})"),
                Caller::Agent { .. } | Caller::Stranger => who,
            },
            needed: needed(agents, roles),
        }),
    }
}

fn needed(agents: bool, roles: &[Role]) -> String {
    let mut who: Vec<&str> = roles.iter().map(|role| role.word()).collect();
    if agents {
        who.push("an agent");
    }
    who.join(" or ")
}

/// Puts the table before every service.
#[derive(Clone)]
pub struct AccessLayer {
    /// Who is in the mesh.
    pub roster: RosterKeeper,
}

impl<S> Layer<S> for AccessLayer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            inner,
            roster: self.roster.clone(),
        }
    }
}

/// A service behind the table.
#[derive(Clone)]
pub struct Guarded<S> {
    inner: S,
    roster: RosterKeeper,
}

impl<S> Guarded<S> {
    /// Why a host whose certificate's authority was replaced is not let in even to renew it: who
    /// stole that authority could have made the certificate, but not the key that the roster names.
    fn former(&self, path: &str, info: &ConnectInfo) -> Option<Denied> {
        let Shown::Former(facts) = &info.shown else {
            return None;
        };
        let roster = self.roster.roster();
        match &facts.mesh_holder {
            _ if access_of(path) == Some(Access::Anybody) => None,
            Holder::Node(name) if roster.names_key(name, facts.key) => None,
            Holder::Node(name) => Some(Denied::Former(name.to_string())),
            Holder::Person { name, .. } => Some(Denied::Former(name.clone())),
        }
    }
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let info = request.extensions().get::<ConnectInfo>();
        // Looked at anew for each call: connections live longer than memberships.
        let caller = info.map_or(Caller::Stranger, |info| info.caller_at(self.roster.now_s()));
        let standing = self.roster.standing(&caller);
        let path = request.uri().path();
        let former = info.and_then(|info| self.former(path, info));
        let denied = || decide(path, &caller, &standing).err();
        if let Some(denied) = former.or_else(denied) {
            tracing::info!(path, caller = %caller, %denied, "a call was refused");
            let response = denied.status().into_http();
            return Box::pin(async { Ok(response) });
        }
        request.extensions_mut().insert(caller);
        Box::pin(self.inner.call(request))
    }
}
