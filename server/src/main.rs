//! The `halyard` binary.

fn main() {}
