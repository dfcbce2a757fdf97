//! `cbctl mesh`: makes and shows the mesh, and says who is in it.

mod change;
mod enrol;
mod files;
mod init;
mod issue;
mod issuer;
mod label;
mod members;
mod people;
mod recover;
mod remove;
mod rotate;
mod show;
mod token;
mod user;
mod voters;

use super::{open, stops, until_interrupted};
use crate::cli::{CaCommand, CommonArgs, IssuerCommand, MeshCommand, UserCommand};
use crate::error::{CtlError, Exit};
use crate::mesh::Session;

pub(super) fn run(command: MeshCommand, common: &CommonArgs) -> Result<Exit, CtlError> {
    match command {
        MeshCommand::Init(arguments) => init::run(&arguments, common),
        MeshCommand::Issue(arguments) => issue::run(&arguments, common),
        MeshCommand::Enrol(arguments) => enrol::run(&arguments, common),
        MeshCommand::User(UserCommand::Add(arguments)) => user::add(&arguments, common),
        MeshCommand::Show => show::run(common),
        MeshCommand::Recover(arguments) => recover::run(&arguments, common),
        asks @ (MeshCommand::Token(_)
        | MeshCommand::Members
        | MeshCommand::Label(_)
        | MeshCommand::Remove(_)
        | MeshCommand::Replace(_)
        | MeshCommand::Voters(_)
        | MeshCommand::Issuer(_)
        | MeshCommand::Ca(_)
        | MeshCommand::Freeze(_)
        | MeshCommand::Thaw(_)
        | MeshCommand::User(
            UserCommand::List | UserCommand::Remove(_) | UserCommand::Push(_),
        )) => {
            let session = open(common)?;
            let learnt = async {
                let session = session.learn().await;
                dispatch(asks, &session, common).await
            };
            until_interrupted(&session, learnt)
        }
    }
}

/// What speaks to the members.
async fn dispatch(
    command: MeshCommand,
    session: &Session,
    common: &CommonArgs,
) -> Result<Exit, CtlError> {
    let output = common.output;
    match command {
        MeshCommand::Token(arguments) => token::run(&arguments, session, output).await,
        MeshCommand::Freeze(arguments) => stops::freeze(&arguments, session, output).await,
        MeshCommand::Thaw(arguments) => stops::thaw(&arguments, session, output).await,
        MeshCommand::Members => members::run(session, output).await,
        MeshCommand::Label(arguments) => label::run(&arguments, session, output).await,
        MeshCommand::Remove(arguments) => remove::run(&arguments, session, output).await,
        MeshCommand::Replace(arguments) => token::replace(&arguments, session, output).await,
        MeshCommand::Voters(arguments) => voters::run(&arguments, session, output).await,
        MeshCommand::Issuer(IssuerCommand::Add(arguments)) => {
            issuer::add(&arguments, session, common).await
        }
        MeshCommand::Issuer(IssuerCommand::Remove(arguments)) => {
            issuer::remove(&arguments, session, output).await
        }
        MeshCommand::Ca(CaCommand::Rotate(arguments)) => {
            rotate::run(&arguments, session, common).await
        }
        MeshCommand::User(UserCommand::List) => people::list(session, output).await,
        MeshCommand::User(UserCommand::Remove(arguments)) => {
            people::remove(&arguments, session, output).await
        }
        MeshCommand::User(UserCommand::Push(arguments)) => {
            people::push(&arguments, session, common).await
        }
        MeshCommand::Init(_)
        | MeshCommand::Issue(_)
        | MeshCommand::Enrol(_)
        | MeshCommand::Recover(_)
        | MeshCommand::User(UserCommand::Add(_))
        | MeshCommand::Show => Err(CtlError::failed("this command speaks to no member")),
    }
}
