//! How openraft is told about our types. What speaks with it names its types through the aliases here; what is written to the
//! log has types of its own (`ids`, `entry`, `members`), and `adapter` is between the two.

use std::any::Any;
use std::sync::Arc;

use openraft::raft::ClientWriteResult;
use openraft::raft::responder::Responder;
use openraft::type_config::alias;
use openraft::{OptionalSend, RaftTypeConfig};

use crate::entry::Command;
use crate::members::Peer;
use crate::runtime::Doors;

/// Our choice of types for openraft.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

impl RaftTypeConfig for Types {
    type D = Command;
    type R = ();
    type NodeId = u64;
    type Node = Peer;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<Command, u64, Peer>;
    type Entry = openraft::Entry<Self::LeaderId, Self::Payload>;
    type AsyncRuntime = Doors;
    type Responder<T>
        = Outcome
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type LeaderId = alias::LeaderIdOf<Types>;
pub(crate) type LogId = alias::LogIdOf<Types>;
pub(crate) type Vote = alias::VoteOf<Types>;
pub(crate) type Payload = alias::PayloadOf<Types>;
pub(crate) type Entry = alias::EntryOf<Types>;
pub(crate) type Members = openraft::Membership<u64, Peer>;
pub(crate) type StoredMembers = alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = alias::SnapshotMetaOf<Types>;

/// Why a proposal came to nothing, as openraft tells it.
pub(crate) enum Refusal {
    /// Not written: this node does not lead, or must first renew its lease.
    Forward {
        /// Who leads, if known.
        leader: Option<u64>,
        /// True when this node leads but must hear from a quorum first: a retry after a heartbeat will do.
        lease_expired: bool,
    },
    /// Written here, but its fate is decided elsewhere.
    Unknown,
}

/// Who is told when an entry is not going to be applied here under the leader that took it.
pub(crate) trait Waiters: Send + Sync + 'static {
    /// The proposal `ticket` failed. Does nothing if it was answered before.
    fn refuse(&self, ticket: u64, why: Refusal);
}

/// Carries a proposal's ticket through openraft, so that a refusal finds its way back. Success does not come this way:
/// the applied entry's own ticket does (`apply.rs`).
pub(crate) struct Outcome {
    ticket: u64,
    waiters: Option<Arc<dyn Waiters>>,
}

impl Outcome {
    pub(crate) fn new(ticket: u64, waiters: Arc<dyn Waiters>) -> Self {
        Self {
            ticket,
            waiters: Some(waiters),
        }
    }
}

impl<T: OptionalSend + 'static> Responder<Types, T> for Outcome {
    fn on_complete(mut self, result: T) {
        let Some(waiters) = self.waiters.take() else {
            return;
        };
        let why = match (&result as &dyn Any).downcast_ref::<ClientWriteResult<Types>>() {
            Some(Ok(_)) => return,
            Some(Err(openraft::errors::ClientWriteError::ForwardToLeader(forward))) => {
                Refusal::Forward {
                    leader: forward.leader_id,
                    lease_expired: forward.reason == openraft::errors::ForwardReason::LeaseExpired,
                }
            }
            _ => Refusal::Unknown,
        };
        waiters.refuse(self.ticket, why);
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        // Dropped without a word: the core stopped, or the entry was applied and answered long ago.
        if let Some(waiters) = self.waiters.take() {
            waiters.refuse(self.ticket, Refusal::Unknown);
        }
    }
}
