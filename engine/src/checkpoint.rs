//! Which state a flush writes: the applied index, and what replication keeps beside it.

use bytes::Bytes;

/// The place in the group's log that a state is of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Log index of the last applied entry.
    pub applied: u64,
    /// What else replication must know of that place, in its own encoding; durable with the index and given back by
    /// [`Store::standing`](crate::Store::standing). Empty for nothing.
    pub standing: Bytes,
}

impl From<u64> for Checkpoint {
    fn from(applied: u64) -> Self {
        Self {
            applied,
            standing: Bytes::new(),
        }
    }
}
