//! One entry of a group's log.

use std::fmt;

use bytes::Bytes;

use crate::ids::LogId;
use crate::members::Members;

/// One proposed entry: the payload exactly as the log writes it, and who waits for the outcome on this node.
#[derive(Clone)]
pub(crate) struct Command {
    /// What the machine applies.
    pub(crate) payload: Bytes,
    /// Names the waiting [`Proposal`](crate::Proposal) on the node that proposed it; 0 elsewhere and after a restart.
    pub(crate) ticket: u64,
}

impl PartialEq for Command {
    fn eq(&self, other: &Self) -> bool {
        // The ticket is local bookkeeping: the same entry read back from the log has none.
        self.payload == other.payload
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.payload.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.payload.len())
    }
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Payload {
    /// Something for the machine.
    Normal(Command),
    /// Nothing: a new leader starts its term with it.
    Blank,
    /// The replicas from here on.
    Membership(Members),
}

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) id: LogId,
    pub(crate) payload: Payload,
}
