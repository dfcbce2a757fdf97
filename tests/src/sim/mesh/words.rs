//! Events and phases as the trace shows them.

use super::short;
use cbddc_domain::node::Event;
use cbddc_domain::phase::Phase;

pub(super) fn event_words(event: &Event) -> String {
    match event {
        Event::Tick => "tick".into(),
        Event::Learn(record) => format!("learn {}", short(record.epoch)),
        Event::Hear { voter, record } => format!("hear {voter} voted {}", short(record.epoch)),
        Event::Vote(record) => format!(
            "vote {} for {}",
            short(record.epoch),
            record
                .release
                .as_ref()
                .map_or("-".into(), |r| r.build.id.to_string())
        ),
        Event::VoteBack(record) => format!("vote back {}", short(record.epoch)),
        Event::Observed {
            generation,
            observation,
        } => format!(
            "observed g{generation} unhealthy={} {:?}",
            observation.unhealthy.is_some(),
            observation.found.keys()
        ),
        Event::Prepare(prepare) => format!("prepare {} {:?}", short(prepare.epoch), prepare.kind),
        Event::Activate { epoch, release, .. } => {
            format!("activate {} {}", short(*epoch), release.build.id)
        }
        Event::HearRevocations(_) => "hear revocations".into(),
        Event::Renew { .. }
        | Event::Revert { .. }
        | Event::Ask(_)
        | Event::Answered { .. }
        | Event::Done { .. }
        | Event::Failed { .. }
        | Event::Clean(_)
        | Event::CheckFailed { .. }
        | Event::RollbackTried { .. }
        | Event::ChangeStops { .. }
        | Event::Exited { .. }
        | Event::Restore { .. }
        | Event::Adopt { .. }
        | Event::Unadopt { .. }
        | Event::Started { .. }
        | Event::Force(_)
        | Event::PeerStarts { .. }
        | Event::Recalled { .. }
        | Event::Fence(_)
        | Event::Fenced { .. }
        | Event::Met => {
            let text = format!("{event:?}");
            text.chars().take(160).collect()
        }
    }
}

pub(super) fn phase_words(phase: &Phase) -> String {
    match phase {
        Phase::Steady { running } => format!("steady g{}", running.unwrap_or(0)),
        Phase::Prepared { running, .. } => format!("prepared g{}", running.unwrap_or(0)),
        Phase::Switching(s) => format!("switching to g{} at {:?} for {:?}", s.to, s.at, s.purpose),
        Phase::Probation(p) => format!(
            "probation g{} {} asking={}",
            p.running,
            short(p.epoch),
            p.asking.is_some()
        ),
        Phase::Reverting(r) => format!(
            "reverting g{} to {:?} at {:?} {:?}",
            r.left, r.to, r.at, r.cause.kind
        ),
        Phase::Stuck { .. } => "stuck".into(),
    }
}
