//! Records, votes, and what an agent knows of them.

use super::{Malformed, NODES_MAX, REVOCATIONS_MAX, bounded, names, required, text};
use crate::v1;
use cbddc_domain::build::Digest;
use cbddc_domain::id::NodeName;
use cbddc_domain::register::{
    Answer, HeardVotes, Record, RecordKind, RegisterView, Revocation, Revocations,
};
use cbddc_domain::starts::{STARTS_MAX, Start};
use std::collections::BTreeMap;

impl From<RecordKind> for v1::RecordKind {
    fn from(kind: RecordKind) -> Self {
        match kind {
            RecordKind::Rollout => Self::Rollout,
            RecordKind::Rollback => Self::Rollback,
            RecordKind::Voters => Self::Voters,
            RecordKind::Trust => Self::Trust,
        }
    }
}

fn record_kind(kind: i32) -> Result<RecordKind, Malformed> {
    match v1::RecordKind::try_from(kind) {
        Ok(v1::RecordKind::Rollout) => Ok(RecordKind::Rollout),
        Ok(v1::RecordKind::Rollback) => Ok(RecordKind::Rollback),
        Ok(v1::RecordKind::Voters) => Ok(RecordKind::Voters),
        Ok(v1::RecordKind::Trust) => Ok(RecordKind::Trust),
        Ok(v1::RecordKind::Unspecified) | Err(_) => Err(Malformed::UnknownValue("record.kind")),
    }
}

fn reasons_to_proto(reasons: &BTreeMap<Digest, String>) -> BTreeMap<String, String> {
    let pair = |(build, why): (&Digest, &String)| (build.to_string(), why.clone());
    reasons.iter().map(pair).collect()
}

fn reasons(
    field: &'static str,
    given: BTreeMap<String, String>,
) -> Result<BTreeMap<Digest, String>, Malformed> {
    bounded(field, given.len(), 64)?;
    let pair = |(build, why): (String, String)| Ok((build.parse()?, text(field, why)?));
    given.into_iter().map(pair).collect()
}

impl From<&Record> for v1::Record {
    fn from(record: &Record) -> Self {
        let text_of = |name: &NodeName| name.to_string();
        Self {
            epoch: Some(record.epoch.into()),
            kind: v1::RecordKind::from(record.kind).into(),
            release: record.release.as_ref().map(Into::into),
            exceptions: record
                .exceptions
                .iter()
                .map(|(n, r)| (n.to_string(), r.into()))
                .collect(),
            voters: record.voters.iter().map(text_of).collect(),
            previous: record.previous.as_ref().map(|nodes| v1::VoterSet {
                names: nodes.iter().map(text_of).collect(),
            }),
            forced: record.forced,
            revokes: reasons_to_proto(&record.revokes),
            lifts: reasons_to_proto(&record.lifts),
            restores: record.restores.iter().map(text_of).collect(),
            proposed_by: record.proposed_by.clone(),
            reason: record.reason.clone(),
        }
    }
}

impl TryFrom<v1::Record> for Record {
    type Error = Malformed;

    fn try_from(record: v1::Record) -> Result<Self, Malformed> {
        bounded("record.exceptions", record.exceptions.len(), NODES_MAX)?;
        let exceptions = record.exceptions.into_iter();
        let previous = record.previous;
        Ok(Self {
            epoch: required("record.epoch", record.epoch)?.into(),
            kind: record_kind(record.kind)?,
            release: record.release.map(TryInto::try_into).transpose()?,
            exceptions: exceptions
                .map(|(name, release)| Ok((name.parse()?, release.try_into()?)))
                .collect::<Result<BTreeMap<_, _>, Malformed>>()?,
            voters: names("record.voters", record.voters)?,
            previous: previous
                .map(|set| names("record.previous", set.names))
                .transpose()?,
            forced: record.forced,
            revokes: reasons("record.revokes", record.revokes)?,
            lifts: reasons("record.lifts", record.lifts)?,
            restores: names("record.restores", record.restores)?,
            proposed_by: text("record.proposed_by", record.proposed_by)?,
            reason: text("record.reason", record.reason)?,
        })
    }
}

/// Revocations as a message.
pub fn revocations_to_proto(revocations: &Revocations) -> Vec<v1::Revocation> {
    let message = |(build, revocation): (&Digest, &Revocation)| v1::Revocation {
        build_digest: build.to_string(),
        epoch: Some(revocation.epoch.into()),
        lifted: revocation.lifted,
        reason: revocation.reason.clone(),
    };
    revocations.iter().map(message).collect()
}

/// Revocations from a message.
pub fn revocations_from_proto(given: Vec<v1::Revocation>) -> Result<Revocations, Malformed> {
    bounded("revocations", given.len(), REVOCATIONS_MAX)?;
    let revocation = |message: v1::Revocation| {
        let epoch = required("revocation.epoch", message.epoch)?.into();
        let reason = text("revocation.reason", message.reason)?;
        let lifted = message.lifted;
        Ok((
            message.build_digest.parse()?,
            Revocation {
                epoch,
                lifted,
                reason,
            },
        ))
    };
    given.into_iter().map(revocation).collect()
}

impl From<Answer> for v1::Answer {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Voted => Self::Voted,
            Answer::No => Self::No,
            Answer::Decided => Self::Decided,
        }
    }
}

/// An answer, from a message.
pub fn answer(answer: i32) -> Result<Answer, Malformed> {
    match v1::Answer::try_from(answer) {
        Ok(v1::Answer::Voted) => Ok(Answer::Voted),
        Ok(v1::Answer::No) => Ok(Answer::No),
        Ok(v1::Answer::Decided) => Ok(Answer::Decided),
        Ok(v1::Answer::Unspecified) | Err(_) => Err(Malformed::UnknownValue("answer")),
    }
}

impl From<&HeardVotes> for v1::HeardVotes {
    fn from(heard: &HeardVotes) -> Self {
        Self {
            record: Some((&heard.record).into()),
            voters: heard.voters.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<v1::HeardVotes> for HeardVotes {
    type Error = Malformed;

    fn try_from(heard: v1::HeardVotes) -> Result<Self, Malformed> {
        Ok(Self {
            record: required("heard.record", heard.record)?.try_into()?,
            voters: names("heard.voters", heard.voters)?,
        })
    }
}

/// An agent's starts as messages.
pub fn starts_to_proto(starts: &[Start]) -> Vec<v1::Start> {
    starts.iter().copied().map(Into::into).collect()
}

/// An agent's starts, from messages; at most [`STARTS_MAX`].
pub fn starts_from_proto(starts: Vec<v1::Start>) -> Result<Vec<Start>, Malformed> {
    bounded("starts", starts.len(), STARTS_MAX)?;
    Ok(starts.into_iter().map(Into::into).collect())
}

impl From<Start> for v1::Start {
    fn from(start: Start) -> Self {
        Self {
            number: start.number,
            nonce: start.nonce,
        }
    }
}

impl From<v1::Start> for Start {
    fn from(start: v1::Start) -> Self {
        Self {
            number: start.number,
            nonce: start.nonce,
        }
    }
}

impl From<&RegisterView> for v1::RegisterView {
    fn from(view: &RegisterView) -> Self {
        Self {
            // Its keeper adds what there is.
            evidence: Vec::new(),
            promised: Some(view.promised.into()),
            votes: view.votes.iter().map(Into::into).collect(),
            decided: view.decided.as_ref().map(Into::into),
            elected: view.elected.as_ref().map(Into::into),
            heard: view.heard.iter().map(Into::into).collect(),
            revocations: revocations_to_proto(&view.revocations),
            voters: view.voters.iter().map(ToString::to_string).collect(),
            highest: Some(view.highest.into()),
        }
    }
}

impl TryFrom<v1::RegisterView> for RegisterView {
    type Error = Malformed;

    fn try_from(view: v1::RegisterView) -> Result<Self, Malformed> {
        bounded(
            "register.votes",
            view.votes.len(),
            cbddc_domain::register::VOTES_MAX,
        )?;
        bounded(
            "register.heard",
            view.heard.len(),
            cbddc_domain::register::VOTES_MAX,
        )?;
        Ok(Self {
            promised: required("register.promised", view.promised)?.into(),
            votes: view
                .votes
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            decided: view.decided.map(TryInto::try_into).transpose()?,
            elected: view.elected.map(TryInto::try_into).transpose()?,
            heard: view
                .heard
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            revocations: revocations_from_proto(view.revocations)?,
            voters: names("register.voters", view.voters)?,
            highest: required("register.highest", view.highest)?.into(),
        })
    }
}
