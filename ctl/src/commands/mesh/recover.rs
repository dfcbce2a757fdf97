//! `cbctl mesh recover`: a new root and a new admin by the recovery key, on the host of an issuer.
//!
//! The key on paper is the last thing that all members believe when nobody's certificate is left. It
//! signs two statements, that the new root is trusted beside the old ones and who the new admin is, and
//! is forgotten again. Nothing is made or changed before it has proved to be the mesh's.

use super::files::{cannot_issue, ensure_absent, now, plain, read_pem, write_pair};
use super::init::root_passphrase;
use super::issuer;
use crate::cli::{CommonArgs, RecoverArgs};
use crate::commands::{SOCKET, confirm, until_interrupted};
use crate::context::{self, Context};
use crate::error::{CtlError, Exit};
use crate::learn::{self, Heard};
use crate::mesh::{Session, client};
use crate::passphrase;
use crate::render::{self, Table};
use crate::roster::signed;
use cbddc_domain::access::Role;
use cbddc_domain::id::NodeName;
use cbddc_domain::mesh::MeshFile;
use cbddc_domain::roster::{
    ISSUER_LABEL, MemberEntry, ROOTS_MAX, Says, Statement, Subject, TrustEntry, UserEntry,
};
use cbddc_pki::authority::{Issued, Issuing, Root};
use cbddc_pki::certificate;
use cbddc_pki::recovery::RecoveryKey;
use cbddc_pki::signature::Signer;
use cbddc_proto::convert::roster as wire;
use cbddc_proto::v1;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What `mesh recover` prints as JSON.
#[derive(Debug, Serialize)]
struct RecoverJson {
    mesh: String,
    admin: String,
    /// The folder with the new authorities.
    folder: PathBuf,
    /// The context of the new admin.
    context: PathBuf,
}

/// What this host's agent knows.
struct Known {
    node: NodeName,
    members: Heard,
    /// The newest version of each statement.
    versions: BTreeMap<Subject, u64>,
    /// The authorities that are trusted, in DER.
    roots: Vec<Vec<u8>>,
}

/// What takes the place of what was lost.
struct Made {
    root: Root,
    issuing: Issuing,
    person: Issued,
}

pub(super) fn run(arguments: &RecoverArgs, common: &CommonArgs) -> Result<Exit, CtlError> {
    let user = plain("user", &arguments.user)?;
    let file = context::read_mesh(&arguments.mesh_file).map_err(|error| {
        error.hint("run it on an issuer's host, or name its agent's mesh file with --mesh-file")
    })?;
    let files = ["ca.pem", "ca.key", "issuing.pem", "user.pem", "mesh.toml"];
    ensure_absent(&arguments.dir, &files, "choose another --dir")?;
    Context::ensure_absent(&file.name)?;
    let key = recovery_key(arguments, &file)?;
    let socket = common.socket.as_deref().unwrap_or(Path::new(SOCKET));
    let opening = Session::open_socket(socket, common.jobs, common.timeout);
    let session = crate::runtime()?.block_on(opening)?;
    if session.mesh().name != file.name {
        return Err(CtlError::failed(format!(
            "this host's agent belongs to the mesh {}, and {} is of {}",
            session.mesh().name,
            arguments.mesh_file.display(),
            file.name
        )));
    }
    let question = format!(
        "Make a new root authority, and {user} an admin, of the mesh {}?",
        file.name
    );
    if let Some(exit) = confirm(&question, arguments.confirm)? {
        return Ok(exit);
    }
    let recovering = recover(arguments, common, &session, &file, &user, &key);
    until_interrupted(&session, recovering)
}

/// The recovery key, once it has proved to be this mesh's.
fn recovery_key(arguments: &RecoverArgs, file: &MeshFile) -> Result<RecoveryKey, CtlError> {
    let unchanged = "nothing was changed";
    let public = file.recovery.as_ref().ok_or_else(|| {
        CtlError::failed(format!(
            "the mesh {} was made without a recovery key",
            file.name
        ))
    })?;
    let text = passphrase::recovery(arguments.recovery_file.as_deref())?;
    let key = RecoveryKey::parse(text.reveal()).map_err(|fault| {
        CtlError::new(Exit::Refused, "this is no recovery key")
            .because(fault)
            .hint(unchanged)
    })?;
    let spki: String = key
        .public_spki()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if spki == *public {
        return Ok(key);
    }
    let why = format!("this is not the recovery key of the mesh {}", file.name);
    Err(CtlError::new(Exit::Refused, why).hint(unchanged))
}

async fn recover(
    arguments: &RecoverArgs,
    common: &CommonArgs,
    session: &Session,
    file: &MeshFile,
    user: &str,
    key: &RecoveryKey,
) -> Result<Exit, CtlError> {
    let mesh = &file.name;
    let known = ask(session, &arguments.mesh_file).await?;
    let made = make(arguments, file, user)?;
    let context = write(arguments, file, &known, &made)?;
    session.set_standing("the new authorities may be trusted by now; the folder is complete");
    let new = certificate::from_pem(made.root.certificate_pem().as_bytes()).map_err(unusable)?;
    let mut roots = [new, known.roots.clone()].concat();
    roots.truncate(ROOTS_MAX);
    let admin = certificate::from_pem(made.person.cert.as_bytes())
        .and_then(|chain| certificate::facts(&chain[0], mesh))
        .map_err(unusable)?;
    let entry = UserEntry {
        role: Role::Admin,
        key: admin.key,
    };
    let trust = TrustEntry {
        roots,
        former: Vec::new(),
    };
    let reason = "recovered with the recovery key";
    let said = |subject: Subject, says| Statement {
        mesh: mesh.clone(),
        version: known.versions.get(&subject).copied().unwrap_or(0) + 1,
        subject,
        says,
        reason: reason.to_owned(),
    };
    let by_key = |statement: &Statement| {
        let bytes = wire::statement_bytes(statement);
        let bytes_signed = key.sign(&wire::statement_message(&bytes));
        v1::SignedStatement {
            statement: bytes.into(),
            signature: Some(v1::Signature {
                chain: Vec::new(),
                bytes: bytes_signed.into(),
            }),
            grant: None,
            second: None,
        }
    };
    let person = Subject::User(user.to_owned());
    let mut statements = vec![
        by_key(&said(Subject::Trust, Says::Trust(trust))),
        by_key(&said(person, Says::User(entry))),
    ];
    let own = known.members.of(&known.node).map(|one| one.entry.clone());
    statements.extend(own.and_then(|own| labelled(&made, &known.node, own, said)));
    let putting = session.call(&known.node, session.timeout(), |channel| async move {
        let request = v1::PutStatementsRequest { statements };
        client::mesh(channel).put_statements(request).await
    });
    let put = putting.await;
    if put.ok().is_none() {
        return Err(
            CtlError::failed("this host's agent did not take the new authorities")
                .detail(format!("{}: {}", put.word(), put.why()))
                .hint("the folder and the context that were made are of no use: remove them"),
        );
    }
    let given = issuer::give(session, &known.node, &made.issuing).await;
    if given.ok().is_none() {
        eprintln!(
            "this host's agent did not take the issuing authority ({}: {}): go on with `cbctl mesh issuer \
             add {}`",
            given.word(),
            given.why(),
            known.node
        );
    }
    let json = RecoverJson {
        mesh: mesh.clone(),
        admin: user.to_owned(),
        folder: arguments.dir.clone(),
        context: context.dir,
    };
    render::print(common.output, &json, || {
        let mut table = Table::new(&["MESH", "ADMIN", "FOLDER"]);
        let folder = json.folder.display().to_string();
        table.row([json.mesh.clone(), json.admin.clone(), folder]);
        table.render()
    })?;
    eprintln!("{user} is an admin of the mesh {mesh}, and its members hear of it from this host");
    eprintln!(
        "then: take out whoever must not be an admin any more with `cbctl mesh user remove`; drop the old \
         root with `cbctl mesh ca rotate --finish`; move {} to a safe place",
        json.folder.display()
    );
    Ok(if given.ok().is_some() {
        Exit::Done
    } else {
        Exit::Partial
    })
}

/// The statement, by the new admin, that this host is an issuer, where it was none.
fn labelled(
    made: &Made,
    node: &NodeName,
    mut entry: MemberEntry,
    said: impl Fn(Subject, Says) -> Statement,
) -> Option<v1::SignedStatement> {
    let label = entry
        .labels
        .insert(ISSUER_LABEL.to_owned(), "yes".to_owned());
    if label.is_some() {
        return None;
    }
    let signer = Signer::from_pem(made.person.cert.as_bytes(), made.person.key.as_bytes()).ok()?;
    let statement = said(Subject::Member(node.clone()), Says::Member(entry));
    Some(signed(&signer, &statement))
}

async fn ask(session: &Session, mesh_file: &Path) -> Result<Known, CtlError> {
    let silent = |why: &str| CtlError::failed(format!("this host's agent does not answer: {why}"));
    let nodes = session.nodes();
    let node = nodes.into_iter().next().ok_or_else(|| silent("no name"))?;
    let listing = session.call(&node, session.timeout(), learn::list).await;
    let members = listing.ok().cloned().ok_or_else(|| silent(listing.why()))?;
    let asking = session.call(&node, session.timeout(), |channel| async move {
        let request = v1::GetStatementsRequest::default();
        let answer = client::mesh(channel).get_statements(request).await?;
        Ok(answer.into_inner().statements)
    });
    let asked = asking.await;
    let held = asked.ok().ok_or_else(|| silent(asked.why()))?;
    let statements = held
        .iter()
        .filter_map(|one| wire::statement(&one.statement).ok());
    let (mut versions, mut roots) = (BTreeMap::new(), None);
    for statement in statements {
        if let Says::Trust(entry) = &statement.says {
            roots = Some(entry.roots.clone());
        }
        versions.insert(statement.subject, statement.version);
    }
    let roots = match roots {
        Some(roots) => roots,
        None => {
            let beside = mesh_file.with_file_name("ca.pem");
            let pem = read_pem(&beside, "the mesh's authority lies beside its mesh file")?;
            certificate::from_pem(pem.as_bytes()).map_err(unusable)?
        }
    };
    let members = Heard {
        from: node.clone(),
        members,
    };
    Ok(Known {
        node,
        members,
        versions,
        roots,
    })
}

fn make(arguments: &RecoverArgs, file: &MeshFile, user: &str) -> Result<Made, CtlError> {
    let passphrase = arguments.passphrase_file.as_deref();
    let passphrase = root_passphrase(passphrase, arguments.no_passphrase, file.environment)?;
    let mesh = &file.name;
    let make = || {
        let root = Root::create(mesh, now())?;
        let made = Made {
            issuing: root.create_issuing(mesh, now())?,
            person: root.issue_person(mesh, user, Role::Admin, now())?,
            root,
        };
        Ok((made.root.seal(passphrase.as_ref())?, made))
    };
    let (key, made) = make().map_err(cannot_issue)?;
    context::make_dir(&arguments.dir)?;
    context::write_new(&arguments.dir.join("ca.key"), key.as_bytes())?;
    Ok(made)
}

/// Writes the rest of the folder, and the new admin's context.
fn write(
    arguments: &RecoverArgs,
    file: &MeshFile,
    known: &Known,
    made: &Made,
) -> Result<Context, CtlError> {
    let dir = &arguments.dir;
    let pem = made.root.certificate_pem();
    context::write_new(&dir.join("ca.pem"), pem.as_bytes())?;
    let issuing = Issued {
        cert: made.issuing.certificate_pem(),
        key: made.issuing.key_pem(),
    };
    write_pair(dir, "issuing", &issuing)?;
    write_pair(dir, "user", &made.person)?;
    // As after the first step of a rotation, of which the second one is left to do.
    let old = certificate::to_pem(&known.roots);
    context::make_dir(&dir.join("old"))?;
    context::write_new(&dir.join("old/ca.pem"), old.as_bytes())?;
    let mesh = context::checked(learn::merged(file, &known.members))?;
    let text = context::mesh_text(&mesh)?;
    context::write_new(&dir.join("mesh.toml"), text.as_bytes())?;
    let context = Context::register(&file.name, dir)?;
    context::replace(&context.dir.join("ca.pem"), (pem + &old).as_bytes())?;
    Ok(context)
}

fn unusable(fault: certificate::CertificateFault) -> CtlError {
    CtlError::failed("a certificate cannot be used").because(fault)
}
