//! What a client sees of a node.

use cbddc_domain::node::Node;
use cbddc_domain::phase::Phase;
use cbddc_domain::proposer::View;

/// What the API shows of a node.
pub(super) fn view_of(node: &Node) -> View {
    let (probation, clean) = match &node.phase {
        Phase::Probation(probation) => (Some(probation.epoch), probation.clean),
        Phase::Steady { .. }
        | Phase::Prepared { .. }
        | Phase::Switching(_)
        | Phase::Reverting(_)
        | Phase::Stuck { .. } => (None, false),
    };
    let running = node
        .phase
        .running()
        .and_then(|number| node.history.get(number));
    let drift = node.held.as_ref().map(|held| held.cause.clone());
    View {
        unhealthy: None,
        starting: false,
        probation,
        clean,
        last_rollout: node
            .rollouts
            .last()
            .map(|entry| (entry.epoch, entry.outcome.clone())),
        running: running.map(|generation| generation.release.clone()),
        steady: matches!(node.phase, Phase::Steady { .. }),
        decided: node.register.decided_epoch(),
        stuck: match &node.phase {
            Phase::Stuck { cause, .. } => Some(cause.clone()),
            Phase::Steady { .. }
            | Phase::Prepared { .. }
            | Phase::Switching(_)
            | Phase::Probation(_)
            | Phase::Reverting(_) => None,
        },
        drift,
    }
}
