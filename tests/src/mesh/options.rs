//! What a mesh is told.

use crate::fixture::dialect::{self, Dialect};
use std::time::Duration;

/// How big and how fast a mesh is.
#[derive(Debug, Clone)]
pub struct MeshOptions {
    /// Its name.
    pub name: String,
    /// How many hosts it has, called n1, n2, ….
    pub nodes: usize,
    /// What its nodes are like; by default what the variable `CBDDC_LIKE` names, or what nodes are like
    /// that are told nothing.
    pub like: Dialect,
    /// How many of them hold the issuing authority, the first ones.
    pub issuers: usize,
    /// The sync cycle of the nodes.
    pub sync_interval: Duration,
    /// How often an agent measures a steady node.
    pub health_interval: Duration,
    /// How often an agent asks its peers what was decided.
    pub peers_poll: Duration,
    /// How often an agent probes some member.
    pub peers_probe: Duration,
    /// How long an agent waits for the voters at the end of a probation.
    pub ask_limit: Duration,
    /// The collections in which events must be seen; none: those that move.
    pub target_collections: Vec<String>,
    /// The line that says who writes an event for the mesh check, with `HTTP_PORT` for the node's.
    pub canary: &'static str,
    /// Whether the nodes are hosted servers of two clusters, `east` and `west`, that only respond.
    pub hosted: bool,
    /// The collections of the hosted clusters in which what is found is critical.
    pub critical_collections: Vec<String>,
    /// What rollouts are told.
    pub timing: Timing,
    /// Lines that are added to the end of each agent's configuration.
    pub extra_config: String,
}

impl Default for MeshOptions {
    fn default() -> Self {
        Self {
            name: "shop".into(),
            nodes: 3,
            like: dialect_wanted(),
            issuers: 0,
            sync_interval: Duration::from_millis(200),
            health_interval: Duration::from_millis(500),
            peers_poll: Duration::from_millis(500),
            peers_probe: Duration::from_millis(500),
            ask_limit: Duration::from_secs(1),
            target_collections: Vec::new(),
            canary: "",
            hosted: false,
            critical_collections: Vec::new(),
            timing: Timing::default(),
            extra_config: String::new(),
        }
    }
}

impl MeshOptions {
    /// The same with nodes whose database takes rows that are doubled, forked, or exchanged: that of 0.9 has
    /// unique indexes against them (`NODE.md`, section 8), so nodes are like 2.3 instead.
    #[must_use]
    pub fn with_odd_rows(self) -> Self {
        match self.like {
            Dialect::V0_9 => self.like(Dialect::V2_3),
            Dialect::None | Dialect::V2_3 | Dialect::V1_1 => self,
        }
    }

    /// The same with nodes that are like some release.
    #[must_use]
    pub fn like(self, like: Dialect) -> Self {
        Self { like, ..self }
    }
}

/// What the nodes of meshes are like for which nothing was said.
///
/// # Panics
/// When the variable names no release.
pub fn dialect_wanted() -> Dialect {
    match std::env::var("CBDDC_LIKE") {
        Ok(name) => name.parse().expect("CBDDC_LIKE names a release"),
        Err(_) => dialect::DEFAULT,
    }
}

/// The times of a rollout. By default short ones, for rollouts that are to fail, or whose client dies:
/// then somebody waits until they are over.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How long a wave may take to be healthy and checked.
    pub verify: Duration,
    /// How long a node must be healthy before it counts.
    pub healthy: Duration,
    /// How long a node waits for news before it goes back by itself.
    pub probation: Duration,
    /// How often probation is renewed.
    pub renew: Duration,
    /// How long the mesh check looks for events where nobody writes.
    pub patience: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            verify: Duration::from_secs(20),
            healthy: Duration::from_millis(500),
            probation: Duration::from_secs(4),
            renew: Duration::from_millis(500),
            patience: Duration::from_millis(400),
        }
    }
}

impl Timing {
    /// For rollouts that must succeed whatever runs beside them: nothing waits for these limits.
    pub const GENEROUS: Self = Self {
        verify: Duration::from_secs(60),
        healthy: Duration::from_millis(300),
        probation: Duration::from_secs(30),
        renew: Duration::from_millis(500),
        patience: Duration::from_millis(400),
    };

    /// The arguments that tell it to `cbctl rollout`.
    pub fn arguments(&self) -> Vec<String> {
        [
            ("--verify", self.verify),
            ("--healthy", self.healthy),
            ("--probation", self.probation),
            ("--renew", self.renew),
            ("--patience", self.patience),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), text_of(value)])
        .collect()
    }
}

/// A duration as command lines and configuration files take it.
pub fn text_of(duration: Duration) -> String {
    match duration.as_millis() {
        whole if whole % 1000 == 0 => format!("{}s", whole / 1000),
        parts => format!("{parts}ms"),
    }
}
