//! `cbctl mesh issue`.

use super::files::{
    cannot_issue, ensure_absent, folder, issuing, now, root_certificate, store, with_address,
    write_pair,
};
use super::show::print;
use crate::cli::{CommonArgs, IssueArgs};
use crate::context;
use crate::error::{CtlError, Exit};
use cbddc_domain::roster::ISSUER_LABEL;
use cbddc_pki::authority::Issued;

pub(super) fn run(arguments: &IssueArgs, common: &CommonArgs) -> Result<Exit, CtlError> {
    let (dir, context) = folder(arguments.dir.as_deref(), common)?;
    let known = context::read_mesh(&dir.join("mesh.toml"))?;
    let mut mesh = with_address(known.clone(), &arguments.node, arguments.address.as_deref())?;
    if arguments.issuer {
        // By this label the others know whom to ask for certificates.
        let mut members = mesh.members.iter_mut();
        if let Some(member) = members.find(|member| member.name == arguments.node) {
            let labels = &mut member.labels;
            labels.insert(ISSUER_LABEL.to_owned(), "yes".to_owned());
        }
    }
    let authority = issuing(&dir)?;
    let root = root_certificate(&dir)?;
    let issued = authority
        .issue_node(&mesh.name, &arguments.node, now())
        .map_err(cannot_issue)?;

    let out = arguments.out.clone();
    let out = out.unwrap_or_else(|| dir.join("nodes").join(arguments.node.as_str()));
    let mut files = vec!["node.pem", "node.key"];
    if arguments.issuer {
        files.extend(["issuing.pem", "issuing.key"]);
    }
    let hint = "nothing is overwritten: choose another --out, or move the old folder away";
    ensure_absent(&out, &files, hint)?;
    context::make_dir(&out)?;
    let text = context::mesh_text(&mesh)?;
    if store(&mesh, &known, &dir, context.as_ref())? {
        eprintln!("hint: the mesh file changed: copy it to agents that were issued before");
    }
    context::replace(&out.join("ca.pem"), root.as_bytes())?;
    context::replace(&out.join("mesh.toml"), text.as_bytes())?;
    if arguments.issuer {
        let own = Issued {
            cert: authority.certificate_pem(),
            key: authority.key_pem(),
        };
        write_pair(&out, "issuing", &own)?;
    }
    write_pair(&out, "node", &issued)?;
    eprintln!(
        "wrote what the agent of {} needs to {}",
        arguments.node,
        out.display()
    );
    let context = context.map_or_else(String::new, |context| context.name);
    print(&mesh, &context, &out, common)
}
