//! Who replicates a group: learners, voters, leadership handed over. Asked of the leader, decided by the group's log.
//!
//! A node joins as a learner, catches up, and becomes a voter by a joint change of the voters. One change is in flight at
//! a time; a second one is refused.

use std::collections::BTreeSet;

use crate::error::ProposeError;
use crate::group::Group;
use crate::ids::NodeId;
use crate::machine::Machine;
use crate::members::{Peer, Replicas};
use crate::types::Types;

/// Why a change of the replicas was not made.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// See [`ProposeError`]; an unknown outcome can be looked up with [`Group::replicas`].
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// The group refuses it, for example because another change is in flight.
    #[error("the change of replicas is refused: {0}")]
    Refused(String),
}

type Failure = openraft::errors::RaftError<Types, openraft::errors::ClientWriteError<Types>>;

fn failure(error: &Failure) -> ChangeError {
    match error.api_error() {
        Some(openraft::errors::ClientWriteError::ForwardToLeader(forward)) => {
            ProposeError::NotLeader {
                leader: forward.leader_id.map(NodeId),
            }
            .into()
        }
        Some(openraft::errors::ClientWriteError::ChangeMembershipError(refused)) => {
            ChangeError::Refused(refused.to_string())
        }
        Some(_) => ProposeError::Unknown.into(),
        None => ProposeError::Stopped.into(),
    }
}

impl<M: Machine> Group<M> {
    /// The replicas, as far as this node knows.
    pub fn replicas(&self) -> Replicas {
        let raft = self.core().raft();
        Replicas {
            voters: raft.voter_ids().map(NodeId).collect(),
            learners: raft.learner_ids().map(NodeId).collect(),
        }
    }

    /// Adds a node that follows the log without a vote. Resolves when the change is committed and the node has caught up.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn add_learner(&self, node: NodeId, peer: Peer) -> Result<(), ChangeError> {
        let added = self.core().raft().add_learner(node.0, peer, true).await;
        added.map(|_| ()).map_err(|error| failure(&error))
    }

    /// Makes `voters` the voters, by a joint change: each must be a voter or a learner already. Old voters that are not in
    /// the set leave the group.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn change_voters(&self, voters: &BTreeSet<NodeId>) -> Result<(), ChangeError> {
        let voters: BTreeSet<u64> = voters.iter().map(|node| node.0).collect();
        let changed = self.core().raft().change_membership(voters, false).await;
        changed.map(|_| ()).map_err(|error| failure(&error))
    }

    /// Asks the leader, which must be this node, to hand leadership to `node`. Watch [`Group::leadership`] for the outcome.
    ///
    /// # Errors
    /// [`ProposeError::Stopped`].
    pub async fn transfer_leadership(&self, node: NodeId) -> Result<(), ProposeError> {
        self.core()
            .raft()
            .trigger()
            .transfer_leader(node.0)
            .await
            .map_err(|_| ProposeError::Stopped)
    }
}
