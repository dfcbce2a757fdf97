//! Does on one host what was planned, over ssh; then asks the agent, as any client would, whether it
//! is there.

use crate::enrol::bundle::Bundle;
use crate::enrol::look::{self, Look, LookFault};
use crate::error::chain;
use crate::mesh::client;
use crate::outcome::{bounded, outcome_of};
use crate::ssh::{Ssh, SshError};
use crate::tls;
use cbddc_domain::id::NodeName;
use cbddc_proto::v1;
use rustls::ClientConfig;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a host may take to say what it has.
const LOOK_LIMIT: Duration = Duration::from_secs(60);
/// How long a package may take, some 10 MB over a slow line included.
const INSTALL_LIMIT: Duration = Duration::from_secs(600);
/// How long putting the files may take.
const PUT_LIMIT: Duration = Duration::from_secs(60);
/// How long the start may take; the script itself gives up after 60 s.
const START_LIMIT: Duration = Duration::from_secs(90);
/// Added to each where somebody may be asked for a passphrase.
const ASKING_LIMIT: Duration = Duration::from_secs(120);
/// How long the agent may take to answer after systemd said that it runs.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How long one question may take.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// How often it is asked.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// What went wrong on one host, and how far it had come.
#[derive(Debug, thiserror::Error)]
pub enum DeedError {
    /// The host could not be looked at.
    #[error("cannot look at the host")]
    Look(#[source] SshError),
    /// Its answer is not one.
    #[error("cannot look at the host")]
    Answer(#[source] LookFault),
    /// The package was not installed.
    #[error("the package was not installed")]
    Install(#[source] SshError),
    /// The files were not put.
    #[error("its files were not put into /etc/cbagent")]
    Put(#[source] SshError),
    /// The agent does not run.
    #[error("it has its certificate, but the agent does not run")]
    Start(#[source] SshError),
    /// It runs and does not answer.
    #[error(
        "it has its certificate and cbagent runs there, but does not answer at {address}: {why}; {said}"
    )]
    Answers {
        /// Where it was asked.
        address: String,
        /// Why it counts as no answer.
        why: String,
        /// What its journal says, or how to see it.
        said: String,
    },
}

impl DeedError {
    /// The word for machines: `unreachable`, `timed_out` or `failed`.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Look(error) | Self::Install(error) | Self::Put(error) | Self::Start(error) => {
                match error {
                    SshError::Unreachable(_) => "unreachable",
                    SshError::TimedOut(_) => "timed_out",
                    SshError::Start { .. } | SshError::Pipe(_) | SshError::Failed(_) => "failed",
                }
            }
            Self::Answer(_) => "failed",
            Self::Answers { .. } => "unreachable",
        }
    }
}

/// One host, as ssh finds it.
#[derive(Debug, Clone)]
pub struct Host {
    /// How ssh is started.
    pub ssh: Arc<Ssh>,
    /// Where it goes.
    pub destination: String,
}

impl Host {
    async fn run(&self, script: &str, payload: &[u8], limit: Duration) -> Result<String, SshError> {
        let more = if self.ssh.may_ask {
            ASKING_LIMIT
        } else {
            Duration::ZERO
        };
        self.ssh
            .run(&self.destination, script, payload, limit + more)
            .await
    }

    /// Says what the host has. Changes nothing there.
    pub async fn look(&self) -> Result<Look, DeedError> {
        let said = self.run(look::SCRIPT, &[], LOOK_LIMIT).await;
        Look::parse(&said.map_err(DeedError::Look)?).map_err(DeedError::Answer)
    }

    /// Installs the agent's package.
    pub async fn install(&self, package: &[u8]) -> Result<(), DeedError> {
        let script = format!("SIZE={}\n{}", package.len(), include_str!("install.sh"));
        let done = self.run(&script, package, INSTALL_LIMIT).await;
        done.map(drop).map_err(DeedError::Install)
    }

    /// Puts files into the agent's folder, all or none. Returns the certificate of a host that joins.
    pub async fn put(&self, bundle: &Bundle, replace: bool) -> Result<String, DeedError> {
        let done = self
            .run(&bundle.script(replace), &bundle.payload(), PUT_LIMIT)
            .await;
        done.map_err(DeedError::Put)
    }

    /// Starts the agent, now and at each boot.
    pub async fn start(&self) -> Result<(), DeedError> {
        let done = self.run(include_str!("start.sh"), &[], START_LIMIT).await;
        done.map(drop).map_err(DeedError::Start)
    }

    /// What the agent said last, for somebody who has to find out why it does not answer.
    async fn journal(&self) -> String {
        let said = self.run(include_str!("journal.sh"), &[], LOOK_LIMIT).await;
        match said {
            Ok(said) => {
                let lines: Vec<&str> = said.lines().collect();
                format!("its journal ends with: {}", bounded(&lines.join("; ")))
            }
            Err(_) => "see `journalctl -u cbagent` there".to_owned(),
        }
    }
}

/// An agent as clients find it.
#[derive(Clone)]
pub struct Agent {
    /// Who asks.
    pub tls: Arc<ClientConfig>,
    /// Where it listens.
    pub address: String,
    /// Its name.
    pub node: NodeName,
}

impl Agent {
    /// Waits until the agent answers under its name and with this certificate, in DER. Another
    /// certificate ends the waiting: the agent was started after its own was put.
    pub async fn answers(&self, certificate: &[u8], host: &Host) -> Result<(), DeedError> {
        let until = Instant::now() + ANSWER_LIMIT;
        loop {
            let asked = tokio::time::timeout(ASK_LIMIT, self.ask(certificate)).await;
            let (why, is_final) = match asked {
                Ok(Ok(true)) => return Ok(()),
                Ok(Ok(false)) => (
                    "it shows another certificate than the one it was given; does [tls] in its \
                     cbagent.toml name other files than node.pem and node.key?"
                        .to_owned(),
                    true,
                ),
                Ok(Err(why)) => (why, false),
                Err(_) => ("no answer in time".to_owned(), false),
            };
            if is_final || Instant::now() >= until {
                return Err(DeedError::Answers {
                    address: self.address.clone(),
                    why,
                    said: host.journal().await,
                });
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Whether it answers with this certificate rather than with another one.
    async fn ask(&self, certificate: &[u8]) -> Result<bool, String> {
        let shown = tls::shown_certificate(Arc::clone(&self.tls), &self.address, &self.node).await;
        let shown = shown.map_err(|error| chain(&error))?;
        if shown != certificate {
            return Ok(false);
        }
        let channel = tls::connect(Arc::clone(&self.tls), &self.address, &self.node);
        let channel = channel.await.map_err(|error| chain(&error))?;
        let answer = client::node(channel)
            .get_status(v1::GetStatusRequest {})
            .await;
        let outcome = outcome_of(answer);
        match outcome.ok() {
            Some(status) if status.get_ref().node == self.node.as_str() => Ok(true),
            Some(status) => Err(format!("it says it is {}", bounded(&status.get_ref().node))),
            None => Err(outcome.why().to_owned()),
        }
    }
}
