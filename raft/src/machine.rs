//! What a group replicates: a deterministic machine that takes committed entries in order.

use std::io;

use bytes::Bytes;

/// Where a committed entry stands in its group's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Applied {
    /// Position in the group's log; increases by one for each entry, though the machine sees only its own entries.
    pub index: u64,
    /// Term of the leader that proposed it.
    pub term: u64,
}

/// The state that a group replicates.
///
/// Everything that `apply` decides comes from the machine's state and the entry alone: no clock, no randomness, no
/// hash-map order. Every replica then decides the same.
pub trait Machine: Send + 'static {
    /// What the proposer gets back.
    type Reply: Send + 'static;

    /// Applies one committed entry.
    ///
    /// Called once for each entry, in log order. `payload` is the very buffer that was proposed and written to the log
    /// (or was read back from it after a restart); keeping a slice of it costs no copy. Total: a refusal is a reply.
    fn apply(&mut self, at: Applied, payload: &Bytes) -> Self::Reply;

    /// A full copy of the state after the last applied entry, for a replica that is too far behind to follow the log.
    ///
    /// # Errors
    /// When the copy cannot be made; the replica is then retried later. The default says that it is not supported.
    fn snapshot(&mut self) -> io::Result<Bytes> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this machine has no snapshots",
        ))
    }

    /// Replaces the state by a copy that another replica's [`Machine::snapshot`] made after applying `at`.
    ///
    /// The new state must be durable before this returns: the log before `at` may be gone.
    ///
    /// # Errors
    /// When the copy cannot be read or written; the group then stops. The default says that it is not supported.
    fn restore(&mut self, at: Applied, snapshot: Bytes) -> io::Result<()> {
        let _ = (at, snapshot);
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this machine has no snapshots",
        ))
    }
}
