//! Taking over what runs, and letting it go.

use super::Turn;
use crate::node::{Held, Refusal};
use crate::phase::Phase;
use crate::release::Release;

impl Turn<'_> {
    /// The switch itself comes with the next release: until then the node runs as it did. Where the
    /// record orders another release for the node already, as on a host that was replaced, it follows
    /// at once, so that has to be asked for.
    pub(super) fn adopt(
        &mut self,
        release: Release,
        by: &str,
        may_switch: bool,
    ) -> Result<(), Refusal> {
        self.check_free()?;
        match self.node.phase.running() {
            Some(running) if *self.release_of(running) == release => return Ok(()),
            Some(running) => {
                let text = format!(
                    "generation {running}, {}, runs here already: what runs is taken over only once",
                    self.release_of(running)
                );
                return Err(Refusal::Unknown(text));
            }
            None => {}
        }
        let ordered = self.node.register.decided.as_ref();
        if let Some(ordered) = ordered.and_then(|record| record.release_for(&self.context.name))
            && *ordered != release
            && !may_switch
        {
            let text = format!(
                "the mesh has decided on {ordered} for this node, which would follow at once: \
                 `cbctl node adopt --switch` takes over what runs and lets it, and the service stops \
                 for a moment"
            );
            return Err(Refusal::Unknown(text));
        }
        let epoch = self.node.register.decided_epoch();
        let number = self.node.history.add(release, epoch, self.now.wall_ms, &[]);
        if let Some(generation) = self.node.history.get_mut(number) {
            // It has served so far: there is nothing better to go back to.
            generation.committed = Some(epoch);
            generation.known_good = true;
        }
        self.node.phase = Phase::Steady {
            running: Some(number),
        };
        // What failed, or was not to be tried, failed on a node that was not the agent's.
        self.node.held = None;
        self.node.fetch_retry = None;
        let release = self.release_of(number).clone();
        self.say(
            "adopted",
            format!("{by} had the agent take over what runs: it is generation {number}, {release}"),
        );
        Ok(())
    }

    /// What was decided for this node is not tried any more: nothing may switch it behind the back of
    /// whoever runs it now.
    pub(super) fn unadopt(&mut self, by: &str) -> Result<(), Refusal> {
        self.check_free()?;
        let Some(running) = self.node.phase.running() else {
            return Ok(());
        };
        let release = self.release_of(running).clone();
        self.say(
            "unadopted",
            format!("{by} had the agent let go of the node: {release} goes on without it"),
        );
        self.node.phase = Phase::Steady { running: None };
        self.node.held = Some(Held {
            epoch: self.node.register.decided_epoch(),
            cause: "the agent was told to let go of the node".to_owned(),
        });
        self.node.restart = None;
        self.node.bake = None;
        Ok(())
    }
}
