//! What a group replicates: a deterministic machine that takes committed entries in order.

use std::io;

use bytes::Bytes;

use crate::ids::LogId;
use crate::members::Membership;
use crate::standing::Standing;

/// An entry that this release does not understand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

/// The state that a group replicates.
///
/// Everything that `apply` decides comes from the machine's state and the entry alone: no clock, no randomness, no
/// hash-map order. Every replica then decides the same.
pub trait Machine: Send + 'static {
    /// What the proposer gets back.
    type Reply: Send + 'static;

    /// Whether this release knows everything that an entry asks for. Called before [`Machine::apply`], and must cost little.
    ///
    /// # Errors
    /// What it does not know. The group stops on this node before the entry: a replica that skipped what others apply would
    /// differ from them for ever.
    fn check(&self, payload: &Bytes) -> Result<(), Unreadable> {
        let _ = payload;
        Ok(())
    }

    /// Applies one committed entry.
    ///
    /// Called once for each entry, in log order. `payload` is the very buffer that was proposed and written to the log
    /// (or was read back from it after a restart); keeping a slice of it costs no copy. Total: a refusal is a reply.
    fn apply(&mut self, at: LogId, payload: &Bytes) -> Self::Reply;

    /// Who replicates the group from now on. Told at the start, between the entries before and after the change, and after
    /// [`Machine::restore`]. What is kept durably of it belongs beside the last entry applied: see [`Standing`].
    fn membership(&mut self, membership: &Membership) {
        let _ = membership;
    }

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

    /// Replaces the state by a copy that another replica's [`Machine::snapshot`] made at `standing`.
    ///
    /// The new state and `standing` must be durable before this returns: the log before it may be gone.
    ///
    /// # Errors
    /// When the copy cannot be read or written; the group then stops. The default says that it is not supported.
    fn restore(&mut self, standing: &Standing, snapshot: Bytes) -> io::Result<()> {
        let _ = (standing, snapshot);
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this machine has no snapshots",
        ))
    }
}
