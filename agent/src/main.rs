//! cbagent.
fn main() {}
