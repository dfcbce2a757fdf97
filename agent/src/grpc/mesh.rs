//! What agents ask each other.

use super::{Services, caller, engine_error, malformed};
use crate::adapters::tls::PeerIdentity;
use cbddc_domain::node::{Event, Reply};
use cbddc_domain::register::Answer;
use cbddc_proto::convert::required;
use cbddc_proto::v1;
use cbddc_proto::v1::mesh_service_server::MeshService;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl MeshService for Services {
    async fn ask(
        &self,
        request: Request<v1::AskRequest>,
    ) -> Result<Response<v1::AskResponse>, Status> {
        let actor = match caller(&request)? {
            PeerIdentity::Person(name) => name,
            PeerIdentity::Node(name) => name.to_string(),
        };
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
        let register = self
            .engine
            .node()
            .register
            .view(&self.engine.context().voters);
        Ok(Response::new(v1::AskResponse {
            answer: v1::Answer::from(answer).into(),
            register: Some((&register).into()),
        }))
    }

    async fn get_record(
        &self,
        request: Request<v1::GetRecordRequest>,
    ) -> Result<Response<v1::GetRecordResponse>, Status> {
        caller(&request)?;
        let register = self
            .engine
            .node()
            .register
            .view(&self.engine.context().voters);
        Ok(Response::new(v1::GetRecordResponse {
            register: Some((&register).into()),
        }))
    }
}
