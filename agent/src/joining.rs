//! The arguments of `cbagent join`, and what it tells.

use anyhow::Context as _;
use cbagent::adapters::host;
use cbagent::join::{Joiner, join, read_token};
use cbddc_domain::id::NodeName;
use clap::Args;
use std::path::PathBuf;

/// What a host that joins is told.
#[derive(Args)]
pub(crate) struct Joining {
    /// Where the token's issuer listens, HOST:PORT.
    address: String,
    /// The token that `cbctl mesh token` printed, or `-` to read it from standard input.
    ///
    /// Other users of this host see arguments in the list of processes: use `-` where there are
    /// some.
    #[arg(long)]
    token: String,
    /// This host's name in the mesh. Default: the host's own name.
    #[arg(long)]
    name: Option<NodeName>,
    /// Where this host's agent listens, HOST:PORT, as the other members reach it.
    #[arg(long)]
    listen: String,
    /// The folder for certificate, key and mesh file.
    #[arg(long, default_value = "/etc/cbagent")]
    dir: PathBuf,
    /// Replace the identity that is there, such as one that a disk's image brought.
    #[arg(long)]
    replace: bool,
}

impl Joining {
    /// Joins, and says how to go on.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let joiner = Joiner {
            issuer: self.address,
            token: read_token(&self.token)?,
            name: self.name.map_or_else(own_name, Ok)?,
            address: self.listen,
            dir: self.dir,
            replace: self.replace,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.context("cannot start the runtime")?;
        let mesh = runtime.block_on(join(&joiner))?;
        let dir = joiner.dir.display();
        println!(
            "{} is a member of {} now; its identity is in {dir}",
            joiner.name, mesh.name
        );
        eprintln!(
            "hint: start the agent with `systemctl enable --now cbagent`, once {dir}/cbagent.toml is there"
        );
        eprintln!("hint: an admin lets it vote with `cbctl mesh voters`");
        Ok(())
    }
}

fn own_name() -> anyhow::Result<NodeName> {
    let own = host::name();
    own.parse().with_context(|| {
        format!("this host's name `{own}` cannot be a member's: choose one with --name")
    })
}
