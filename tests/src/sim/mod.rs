//! Simulated meshes: the domain's state machines in a world that loses messages and power.
//!
//! A seed determines everything: the mesh, its builds, its clients, every delay and every fault.
//! [`mesh`] runs the agents, [`client`] the proposers, [`checker`] holds every step to the rules,
//! [`world`] is what effects act upon. Nothing here runs a process or reads a clock.

pub mod calm;
pub mod checker;
pub mod client;
pub mod mesh;
pub mod meshes;
pub mod random;
pub mod world;
