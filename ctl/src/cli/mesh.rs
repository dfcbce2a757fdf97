//! `cbctl mesh`.

use super::{
    CaCommand, EnrolArgs, FreezeArgs, IssuerCommand, LabelArgs, RecoverArgs, RemoveArgs,
    ReplaceArgs, ThawArgs, TokenArgs, UserPushArgs, UserRemoveArgs, VotersArgs, values,
};
use cbddc_domain::access::Role;
use cbddc_domain::id::NodeName;
use cbddc_domain::mesh::Environment;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `cbctl mesh`.
#[derive(Debug, Subcommand)]
pub enum MeshCommand {
    /// Makes a mesh: its authorities, its member list, its recovery key, and your own certificate.
    /// Touches no host.
    ///
    /// The root authority's key (ca.key) is encrypted with a passphrase, which is asked for twice. The
    /// issuing authority's (issuing.key) is not: it can only issue agents' certificates. The recovery
    /// key is shown once, for paper.
    Init(InitArgs),
    /// Issues a node's certificate and writes all that its agent needs: node.pem, node.key, ca.pem,
    /// mesh.toml.
    Issue(IssueArgs),
    /// Gives hosts their certificates over your own ssh, starts their agents, and checks that they
    /// answer.
    ///
    /// Looks at every host first and says what would be done. A host's private key is made here and
    /// goes through ssh straight into its /etc/cbagent: it is in no file and no argument list on the
    /// way. One host's error never stops the others.
    Enrol(Box<EnrolArgs>),
    /// Makes a token that lets a host join: a secret for whoever brings it there.
    ///
    /// Prints the token and nothing else; what to run on the host stands on stderr. The issuer that
    /// admits the host keeps only the token's hash.
    Token(TokenArgs),
    /// Who is in the mesh, as one member that can be reached knows it.
    Members,
    /// Changes a member's labels, or whether the mesh counts on it.
    Label(LabelArgs),
    /// Takes a host out of the mesh: every member that can be reached refuses it from then on.
    ///
    /// The others hear of it when they are back. Stops nothing on the host itself.
    Remove(RemoveArgs),
    /// Makes a token for a host with a new disk: it takes the old one's place, whose key is refused
    /// from then on.
    Replace(ReplaceArgs),
    /// Says whose votes decide: all required members, or those that --set names.
    Voters(VotersArgs),
    /// Who admits hosts and renews certificates: the members that hold the issuing authority.
    #[command(subcommand)]
    Issuer(IssuerCommand),
    /// The mesh's root authority.
    #[command(subcommand)]
    Ca(CaCommand),
    /// Makes a new root authority and a new admin with the recovery key, when all admins or the root's
    /// key are lost. Run it as root on the host of an issuer.
    ///
    /// The recovery key is asked for, or read from a file; it is never an argument. Speaks to this
    /// host's agent alone; the other members hear of it from that one.
    Recover(RecoverArgs),
    /// Refuses rollouts on every member that can be reached, for a while. Rollbacks pass.
    Freeze(FreezeArgs),
    /// Lets rollouts begin again, and takes note of triggers that ask for a person.
    Thaw(ThawArgs),
    /// The people of the mesh.
    #[command(subcommand)]
    User(UserCommand),
    /// The members of the mesh, and who you are in it.
    Show,
}

/// `cbctl mesh init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// The mesh's name, also the context's.
    #[arg(long)]
    pub name: String,
    /// Which rules apply: local, staging or production.
    #[arg(long, default_value = "local", value_parser = values::environment)]
    pub environment: Environment,
    /// The folder to make. It holds the authorities' keys: keep it safe, it cannot be replaced.
    #[arg(long)]
    pub dir: PathBuf,
    /// A member and where its agent listens. May be repeated.
    #[arg(long, value_name = "NAME=HOST:PORT", value_parser = values::member)]
    pub member: Vec<(NodeName, String)>,
    /// Your own name; you become an admin. Default: the login name.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// Takes the root key's passphrase from the first line of this file instead of asking for it.
    #[arg(long, value_name = "FILE", conflicts_with = "no_passphrase")]
    pub passphrase_file: Option<PathBuf>,
    /// Does not encrypt the root key. For --environment local only.
    #[arg(long)]
    pub no_passphrase: bool,
    /// Writes the recovery key to a new file instead of showing it.
    #[arg(long, value_name = "FILE")]
    pub recovery_file: Option<PathBuf>,
    /// Makes only the root's key and a request (ca.csr) that another authority can certify.
    #[arg(long, conflicts_with_all = ["ca_cert", "recovery_file"])]
    pub csr_only: bool,
    /// Goes on after --csr-only, with the certificate that the other authority made.
    #[arg(long, value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,
}

/// `cbctl mesh issue`.
#[derive(Debug, Clone, Args)]
pub struct IssueArgs {
    /// The node, as the mesh file lists it.
    pub node: NodeName,
    /// Where its agent listens, HOST:PORT; adds the node to the mesh file, or changes its address.
    #[arg(long, value_name = "HOST:PORT")]
    pub address: Option<String>,
    /// The folder to write to. Default: nodes/NODE in the mesh's folder.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Adds the issuing authority (issuing.pem, issuing.key): this agent may admit hosts and renew
    /// certificates.
    #[arg(long)]
    pub issuer: bool,
    /// The mesh's folder, as `mesh init` made it. Default: the one that the context remembers.
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

/// `cbctl mesh user`.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Issues a person's certificate and writes what belongs into that person's context: user.pem,
    /// user.key, ca.pem, mesh.toml. Takes the root key, and its passphrase.
    Add(UserAddArgs),
    /// The people that the members know of.
    List,
    /// Takes a person out: every member that can be reached refuses them from then on.
    ///
    /// What the person had signed about hosts and people is signed anew by you, so that members that
    /// were away believe it.
    Remove(UserRemoveArgs),
    /// Tells the members of a person's newest certificate, where `user add` could not.
    Push(UserPushArgs),
}

/// `cbctl mesh user add`.
#[derive(Debug, Clone, Args)]
pub struct UserAddArgs {
    /// The person's name.
    pub name: String,
    /// What the person may do: viewer, operator, approver or admin.
    #[arg(long, value_parser = values::role)]
    pub role: Role,
    /// Signs the key of this request (PEM) instead of making one: the person keeps the key.
    #[arg(long, value_name = "FILE")]
    pub csr: Option<PathBuf>,
    /// The folder to write to. Default: users/NAME in the mesh's folder.
    #[arg(long)]
    pub out: Option<PathBuf>,
    /// Takes the root key's passphrase from the first line of this file instead of asking for it.
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// The mesh's folder, as `mesh init` made it. Default: the one that the context remembers.
    #[arg(long)]
    pub dir: Option<PathBuf>,
}
