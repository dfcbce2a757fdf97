//! Bringing an agent into the mesh over the admin's own ssh.
//!
//! In reading order: [`look`] is what a host says of itself; [`plan`] decides what is to be done there,
//! or refuses; [`brought`] is what the admin brings, [`bundle`] what is put into `/etc/cbagent`; [`deed`] does it and asks the agent whether
//! it is there. Deliberately absent: bringing what an agent needs beyond that, such as its node.

pub mod brought;
pub mod bundle;
pub mod deed;
pub mod look;
pub mod plan;
