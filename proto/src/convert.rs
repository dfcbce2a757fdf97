//! Messages to domain types and back. Everything that arrives is bounded and checked here, before
//! anything else sees it.

mod register;
pub mod replication;
pub mod roster;

pub use register::{
    answer, revocations_from_proto, revocations_to_proto, starts_from_proto, starts_to_proto,
};

use crate::v1;
use cbddc_domain::build::{BuildId, BuildRef};
use cbddc_domain::id::{InvalidName, NodeName};
use cbddc_domain::node::ProposalKind;
use cbddc_domain::plan::{Plan, Timing};
use cbddc_domain::register::Epoch;
use cbddc_domain::release::{Release, SetRef};
use std::collections::BTreeSet;

/// The most nodes in one message: far above any mesh that has no orchestrator.
pub const NODES_MAX: usize = 1024;
/// The most revocations in one message.
pub const REVOCATIONS_MAX: usize = 4096;
/// The longest reason or cause, in bytes.
pub const TEXT_BYTES_MAX: usize = 1024;
/// The longest time that anything may be asked to last: one day, in milliseconds.
pub const DURATION_MS_MAX: u64 = 24 * 3600 * 1000;

/// A message that does not make sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A field that must be there is not.
    #[error("the field `{0}` is missing")]
    Missing(&'static str),
    /// A name is not valid.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// An enum has a value that is not known or not said.
    #[error("the field `{0}` has an unknown value: client and agent differ in version")]
    UnknownValue(&'static str),
    /// Something is longer or larger than its bound.
    #[error("the field `{field}` is beyond its bound of {bound}")]
    TooLarge {
        /// Which.
        field: &'static str,
        /// The bound.
        bound: u64,
    },
    /// Something must be above zero.
    #[error("the field `{0}` must be above zero")]
    Zero(&'static str),
    /// Columns of one table differ in length.
    #[error("the columns of `{0}` do not fit together")]
    Uneven(&'static str),
    /// A node stands in two waves.
    #[error("node {0} stands in the plan twice")]
    Twice(NodeName),
}

/// Takes a text of at most [`TEXT_BYTES_MAX`] bytes.
pub fn text(field: &'static str, text: String) -> Result<String, Malformed> {
    bounded(field, text.len(), TEXT_BYTES_MAX)?;
    Ok(text)
}

/// Takes a time between 1 ms and [`DURATION_MS_MAX`].
pub fn duration_ms(field: &'static str, given: u64) -> Result<u64, Malformed> {
    match given {
        0 => Err(Malformed::Zero(field)),
        1..=DURATION_MS_MAX => Ok(given),
        _ => Err(Malformed::TooLarge {
            field,
            bound: DURATION_MS_MAX,
        }),
    }
}

/// Takes a field that must be there.
pub fn required<T>(field: &'static str, given: Option<T>) -> Result<T, Malformed> {
    given.ok_or(Malformed::Missing(field))
}

fn bounded(field: &'static str, length: usize, bound: usize) -> Result<(), Malformed> {
    if length > bound {
        return Err(Malformed::TooLarge {
            field,
            bound: bound as u64,
        });
    }
    Ok(())
}

fn names<T: FromIterator<NodeName>>(
    field: &'static str,
    given: Vec<String>,
) -> Result<T, Malformed> {
    bounded(field, given.len(), NODES_MAX)?;
    given
        .into_iter()
        .map(|name| Ok(name.parse::<NodeName>()?))
        .collect()
}

impl From<Epoch> for v1::Epoch {
    fn from(epoch: Epoch) -> Self {
        Self {
            counter: epoch.counter,
            nonce: epoch.nonce,
        }
    }
}

impl From<v1::Epoch> for Epoch {
    fn from(epoch: v1::Epoch) -> Self {
        Self {
            counter: epoch.counter,
            nonce: epoch.nonce,
        }
    }
}

impl From<&BuildRef> for v1::BuildRef {
    fn from(build: &BuildRef) -> Self {
        Self {
            id: build.id.to_string(),
            digest: build.digest.to_string(),
        }
    }
}

impl TryFrom<v1::BuildRef> for BuildRef {
    type Error = Malformed;

    fn try_from(build: v1::BuildRef) -> Result<Self, Malformed> {
        Ok(Self {
            id: build.id.parse()?,
            digest: build.digest.parse()?,
        })
    }
}

impl From<&SetRef> for v1::SetRef {
    fn from(set: &SetRef) -> Self {
        Self {
            id: set.id.to_string(),
            digest: set.digest.to_string(),
        }
    }
}

impl TryFrom<v1::SetRef> for SetRef {
    type Error = Malformed;

    fn try_from(set: v1::SetRef) -> Result<Self, Malformed> {
        Ok(Self {
            id: set.id.parse::<BuildId>()?,
            digest: set.digest.parse()?,
        })
    }
}

impl From<&Release> for v1::Release {
    fn from(release: &Release) -> Self {
        Self {
            build: Some((&release.build).into()),
            config: release.config.as_ref().map(Into::into),
            secrets: release.secrets.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<v1::Release> for Release {
    type Error = Malformed;

    fn try_from(release: v1::Release) -> Result<Self, Malformed> {
        Ok(Self {
            build: required("release.build", release.build)?.try_into()?,
            config: release.config.map(TryInto::try_into).transpose()?,
            secrets: release.secrets.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<&Plan> for v1::Plan {
    fn from(plan: &Plan) -> Self {
        let wave = |nodes: &Vec<NodeName>| v1::Wave {
            nodes: nodes.iter().map(ToString::to_string).collect(),
        };
        let timing = plan.timing;
        Self {
            id: plan.id.clone(),
            release: Some((&plan.release).into()),
            waves: plan.waves.iter().map(wave).collect(),
            whole_mesh: plan.whole_mesh,
            timing: Some(v1::Timing {
                verify_ms: timing.verify_ms,
                healthy_ms: timing.healthy_ms,
                probation_ms: timing.probation_ms,
                renew_ms: timing.renew_ms,
                soak_ms: timing.soak_ms,
                bake_ms: timing.bake_ms,
            }),
            started_by: plan.started_by.clone(),
            reason: plan.reason.clone(),
            accepted: plan.accepted.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<v1::Timing> for Timing {
    type Error = Malformed;

    fn try_from(timing: v1::Timing) -> Result<Self, Malformed> {
        let may_be_zero = |field, given| {
            if given == 0 {
                Ok(0)
            } else {
                duration_ms(field, given)
            }
        };
        Ok(Self {
            verify_ms: duration_ms("timing.verify_ms", timing.verify_ms)?,
            healthy_ms: may_be_zero("timing.healthy_ms", timing.healthy_ms)?,
            probation_ms: duration_ms("timing.probation_ms", timing.probation_ms)?,
            renew_ms: duration_ms("timing.renew_ms", timing.renew_ms)?,
            soak_ms: may_be_zero("timing.soak_ms", timing.soak_ms)?,
            bake_ms: may_be_zero("timing.bake_ms", timing.bake_ms)?,
        })
    }
}

impl TryFrom<v1::Plan> for Plan {
    type Error = Malformed;

    fn try_from(plan: v1::Plan) -> Result<Self, Malformed> {
        bounded("plan.id", plan.id.len(), 32)?;
        bounded("plan.waves", plan.waves.len(), NODES_MAX)?;
        let waves = plan
            .waves
            .into_iter()
            .map(|wave| names("plan.waves", wave.nodes));
        let waves = waves.collect::<Result<Vec<Vec<NodeName>>, _>>()?;
        let mut seen = BTreeSet::new();
        if let Some(twice) = waves.iter().flatten().find(|node| !seen.insert(*node)) {
            return Err(Malformed::Twice(twice.clone()));
        }
        bounded("plan.waves", seen.len(), NODES_MAX)?;
        Ok(Self {
            id: plan.id,
            release: required("plan.release", plan.release)?.try_into()?,
            waves,
            whole_mesh: plan.whole_mesh,
            timing: required("plan.timing", plan.timing)?.try_into()?,
            started_by: text("plan.started_by", plan.started_by)?,
            reason: text("plan.reason", plan.reason)?,
            accepted: plan.accepted.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<ProposalKind> for v1::ProposalKind {
    fn from(kind: ProposalKind) -> Self {
        match kind {
            ProposalKind::Rollout => Self::Rollout,
            ProposalKind::Rollback => Self::Rollback,
            ProposalKind::Resume => Self::Resume,
            ProposalKind::Abort => Self::Abort,
            ProposalKind::Amend => Self::Amend,
        }
    }
}

/// What a proposer wants, from a message.
pub fn proposal_kind(kind: i32) -> Result<ProposalKind, Malformed> {
    match v1::ProposalKind::try_from(kind) {
        Ok(v1::ProposalKind::Rollout) => Ok(ProposalKind::Rollout),
        Ok(v1::ProposalKind::Rollback) => Ok(ProposalKind::Rollback),
        Ok(v1::ProposalKind::Resume) => Ok(ProposalKind::Resume),
        Ok(v1::ProposalKind::Abort) => Ok(ProposalKind::Abort),
        Ok(v1::ProposalKind::Amend) => Ok(ProposalKind::Amend),
        Ok(v1::ProposalKind::Unspecified) | Err(_) => Err(Malformed::UnknownValue("kind")),
    }
}

/// Bytes from hexadecimal digits; nothing where it is no such text.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}
