//! A person who quarantines nodes, and lets them go.

use super::Mesh;
use cbddc_domain::node::Event;
use cbddc_domain::stops::StopsChange;

impl Mesh {
    /// Now and then, where it is asked for; once nothing fails any more, all are let go.
    pub(super) fn stop_or_let_go(&mut self, host: usize) {
        let Some(stops) = &mut self.stops else { return };
        let is_stopped = self.hosts[host].node.stops.quarantined.is_some();
        let changes = match (self.healed, is_stopped) {
            (true, is_stopped) => is_stopped,
            (false, true) => stops.chance(60),
            (false, false) => stops.chance(15),
        };
        if changes && self.hosts[host].up {
            let event = Event::ChangeStops {
                change: StopsChange::Quarantined(!is_stopped),
                reason: "it forks".into(),
                by: "ana".into(),
            };
            self.handle(host, event);
        }
    }
}
