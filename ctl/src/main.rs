//! cbctl.
fn main() {}
