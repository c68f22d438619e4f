//! A group's state machine, driven as clients can drive it: what the doors of the API let through becomes an entry, what they
//! refuse does not. Commands of any bytes come, too: a log entry must never end the machine.
//!
//! Every entry is applied by two machines. One flushes, merges and restarts, the other only applies: their digests stay
//! equal, and no stream of either halts.

mod op;
mod world;

pub use op::Op;
pub use world::World;
