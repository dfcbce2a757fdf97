//! What agents ask each other, and who is in the mesh.

use super::{Services, caller, engine_error, malformed, person, refuse};
use crate::adapters::roster::{OfferError, Signed, Untrusted};
use crate::adapters::tls::{Caller, ConnectInfo};
use cbddc_domain::node::{Event, Reply};
use cbddc_domain::register::Answer;
use cbddc_domain::roster::exchange::BUCKETS;
use cbddc_domain::roster::{Distrust, Merge, Subject};
use cbddc_proto::convert::roster::{STATEMENTS_MAX, buckets, listing};
use cbddc_proto::convert::{Malformed, required, starts_from_proto, starts_to_proto};
use cbddc_proto::v1;
use cbddc_proto::v1::mesh_service_server::MeshService;
use prost::Message as _;
use tonic::{Code, Request, Response, Status};

/// How many bytes of statements one answer holds; the asker comes again for the rest.
const STATEMENTS_BYTES_MAX: usize = 4 * 1024 * 1024;

#[tonic::async_trait]
impl MeshService for Services {
    async fn ask(
        &self,
        request: Request<v1::AskRequest>,
    ) -> Result<Response<v1::AskResponse>, Status> {
        let actor = caller(&request)?.to_string();
        let epoch = required("epoch", request.into_inner().epoch)
            .map_err(malformed)?
            .into();
        let reply = self
            .engine
            .tell(Event::Ask(epoch), &actor)
            .await
            .map_err(engine_error)?;
        let answer = match reply {
            Reply::Answer(answer) => answer,
            Reply::Ok => Answer::No,
        };
        Ok(Response::new(v1::AskResponse {
            answer: v1::Answer::from(answer).into(),
            register: Some(self.register_view().await),
        }))
    }

    async fn get_record(
        &self,
        request: Request<v1::GetRecordRequest>,
    ) -> Result<Response<v1::GetRecordResponse>, Status> {
        let asker = caller(&request)?;
        let starts = starts_from_proto(request.into_inner().starts).map_err(malformed)?;
        let mut remembered = None;
        if let Caller::Agent { name: peer, .. } = asker {
            remembered = self.engine.node().peers.get(&peer).copied();
            // Durable before it answers: the peer counts on its being remembered (16).
            if remembered.as_ref() != starts.last() {
                let actor = peer.to_string();
                let told = Event::PeerStarts { peer, starts };
                self.engine.tell(told, &actor).await.map_err(engine_error)?;
            }
        }
        let node = self.engine.node();
        Ok(Response::new(v1::GetRecordResponse {
            register: Some(self.register_view().await),
            remembered: remembered.map(Into::into),
            starts: starts_to_proto(&node.starts.known),
        }))
    }

    async fn fence(
        &self,
        request: Request<v1::FenceRequest>,
    ) -> Result<Response<v1::FenceResponse>, Status> {
        let Caller::Agent { name: peer, .. } = caller(&request)? else {
            let text = "only an agent that lost its memory asks for this";
            return Err(refuse(Code::PermissionDenied, "not_allowed", text));
        };
        let epoch = required("epoch", request.into_inner().epoch).map_err(malformed)?;
        let asked = Event::Fence(epoch.into());
        let told = self.engine.tell(asked, peer.as_str()).await;
        told.map_err(engine_error)?;
        Ok(Response::new(v1::FenceResponse {
            register: Some(self.register_view().await),
        }))
    }

    async fn exchange(
        &self,
        request: Request<v1::ExchangeRequest>,
    ) -> Result<Response<v1::ExchangeResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let node = self.engine.node();
        let mut remembered = None;
        if let Caller::Agent { name, .. } = &caller {
            self.seen.note(name, self.world.now().wall_ms);
            remembered = node.peers.get(name).copied();
        }
        let roster = self.roster.roster();
        let buckets = match request.roster == roster.digest().as_bytes()[..] {
            true => Vec::new(),
            false => roster.buckets(),
        };
        Ok(Response::new(v1::ExchangeResponse {
            buckets,
            same_register: request.register == self.evidence.summary().as_bytes()[..],
            remembered: remembered.map(Into::into),
            start: node.starts.known.last().copied().map(Into::into),
            wall_ms: self.world.now().wall_ms,
        }))
    }

    async fn gossip(
        &self,
        request: Request<v1::GossipRequest>,
    ) -> Result<Response<v1::GossipResponse>, Status> {
        let Caller::Agent { name, .. } = caller(&request)? else {
            let text = "only agents look for each other";
            return Err(refuse(Code::PermissionDenied, "not_allowed", text));
        };
        let datagram = request.into_inner().datagram;
        let answered = self
            .swim
            .take(&name, &datagram)
            .map_err(|fault| refuse(Code::InvalidArgument, "malformed", fault.to_string()))?;
        self.seen.note(&name, self.world.now().wall_ms);
        Ok(Response::new(v1::GossipResponse {
            datagrams: answered.datagrams,
            start: answered.start,
        }))
    }

    async fn get_statements(
        &self,
        request: Request<v1::GetStatementsRequest>,
    ) -> Result<Response<v1::GetStatementsResponse>, Status> {
        let request = request.into_inner();
        let wanted = match request.buckets.as_slice() {
            [] => (0..BUCKETS).collect(),
            some => buckets(some).map_err(malformed)?,
        };
        let held = listing(request.held).map_err(malformed)?;
        let roster = self.roster.roster();
        let lacking = roster.lacking(&wanted, &held);
        let subjects = lacking.iter().map(|said| &said.statement.subject);
        let mut room = STATEMENTS_BYTES_MAX;
        let mut statements = self.roster.signed(subjects);
        statements.retain(|statement| {
            let length = statement.encoded_len();
            let fits = length <= room;
            room = room.saturating_sub(length);
            fits
        });
        Ok(Response::new(v1::GetStatementsResponse { statements }))
    }

    async fn put_statements(
        &self,
        request: Request<v1::PutStatementsRequest>,
    ) -> Result<Response<v1::PutStatementsResponse>, Status> {
        let from = caller(&request)?.to_string();
        let statements = request.into_inner().statements;
        if statements.len() > STATEMENTS_MAX {
            return Err(malformed(Malformed::TooLarge {
                field: "statements",
                bound: STATEMENTS_MAX as u64,
            }));
        }
        let mut news = 0;
        for statement in statements {
            let offered = self.roster.offer(statement, &self.tls, &from).await;
            match offered.map_err(distrusted)? {
                Merge::News => news += 1,
                Merge::Known => {}
            }
        }
        Ok(Response::new(v1::PutStatementsResponse { news }))
    }

    async fn list_members(
        &self,
        _: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        let now = self.world.now().wall_ms;
        let register = &self.engine.node().register;
        let voters = register.voters(&self.engine.context().voters);
        let (alive, settled) = (self.swim.alive(), self.swim.is_settled());
        let members = self
            .roster
            .roster()
            .members()
            .into_iter()
            .map(|(name, entry)| {
                let own = name == *self.tls.node();
                v1::MemberInfo {
                    entry: Some((&entry).into()),
                    votes: voters.contains(&name),
                    alive: own || !settled || alive.contains(&name),
                    last_seen_wall_ms: match own {
                        true => now,
                        false => self.seen.last_wall_ms(&name).unwrap_or(0),
                    },
                    name: name.to_string(),
                }
            });
        Ok(Response::new(v1::ListMembersResponse {
            members: members.collect(),
        }))
    }

    async fn add_grant(
        &self,
        request: Request<v1::AddGrantRequest>,
    ) -> Result<Response<v1::AddGrantResponse>, Status> {
        let by = person(&request)?;
        let grant = required("grant", request.into_inner().grant).map_err(malformed)?;
        self.take_grant(grant, &by).await?;
        Ok(Response::new(v1::AddGrantResponse {}))
    }

    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        let from = request.extensions().get::<ConnectInfo>();
        let from = from.and_then(|info| info.address);
        let joined = self.join(request.into_inner(), from).await?;
        Ok(Response::new(joined))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewCertificateRequest>,
    ) -> Result<Response<v1::RenewCertificateResponse>, Status> {
        let caller = caller(&request)?;
        let csr = request.into_inner().csr;
        let certificate = self.renew_certificate(&csr, &caller).await?;
        Ok(Response::new(v1::RenewCertificateResponse { certificate }))
    }

    async fn get_trust(
        &self,
        _: Request<v1::GetTrustRequest>,
    ) -> Result<Response<v1::GetTrustResponse>, Status> {
        let trust = self.roster.signed([&Subject::Trust]).pop();
        Ok(Response::new(v1::GetTrustResponse { trust }))
    }

    async fn put_issuing(
        &self,
        request: Request<v1::PutIssuingRequest>,
    ) -> Result<Response<v1::PutIssuingResponse>, Status> {
        let by = person(&request)?;
        let changed = self.take_issuing(request.into_inner(), &by).await?;
        Ok(Response::new(v1::PutIssuingResponse { changed }))
    }

    async fn drop_issuing(
        &self,
        request: Request<v1::DropIssuingRequest>,
    ) -> Result<Response<v1::DropIssuingResponse>, Status> {
        let by = person(&request)?;
        Ok(Response::new(self.leave_issuing(&by).await?))
    }
}

impl Services {
    /// The register with the evidence for it.
    pub(super) async fn register_view(&self) -> v1::RegisterView {
        let node = self.engine.node();
        self.evidence.sign_votes(node.register.votes.values()).await;
        let view = node.register.view(&self.engine.context().voters);
        let mut message = v1::RegisterView::from(&view);
        message.evidence = self.evidence.all();
        message
    }

    pub(super) fn signed(&self) -> Signed {
        Signed::new(&self.tls, self.roster.roster())
    }
}

fn distrusted(error: OfferError) -> Status {
    let text = crate::error_chain(&error);
    match error {
        OfferError::Refused(Untrusted::Malformed(_)) => {
            refuse(Code::InvalidArgument, "malformed", text)
        }
        OfferError::Refused(Untrusted::Distrust(Distrust::Full)) => {
            refuse(Code::ResourceExhausted, "too_many", text)
        }
        OfferError::Refused(
            Untrusted::Signature(_) | Untrusted::Recovery | Untrusted::Distrust(_),
        ) => refuse(Code::PermissionDenied, "distrusted", text),
        OfferError::NotSaved(_) => refuse(Code::Unavailable, "not_saved", text),
    }
}
