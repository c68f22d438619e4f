//! The replicas of a group, as its log says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::ids::{LogId, NodeId};

/// What the membership says about a node besides its id: how the transport reaches it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Address in the transport's own notation; empty for a node that is reached by its id alone.
    pub address: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// The replicas of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replicas {
    /// Nodes whose disks count for a commit. During a change, those of the old and of the new set.
    pub voters: BTreeSet<NodeId>,
    /// Nodes that follow the log without a vote.
    pub learners: BTreeSet<NodeId>,
}

/// Who replicates, and which majorities count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    /// The voters: one set, or the old one and the new one during a change.
    pub(crate) configs: Vec<BTreeSet<u64>>,
    /// Everybody, with how to reach them.
    pub(crate) nodes: BTreeMap<u64, Peer>,
}

impl Members {
    /// One voter and nobody else.
    pub(crate) fn alone(node: NodeId) -> Self {
        Self {
            configs: vec![BTreeSet::from([node.0])],
            nodes: BTreeMap::from([(node.0, Peer::default())]),
        }
    }

    /// Whether a node decides by itself, and nobody follows.
    pub(crate) fn is_alone(&self, node: NodeId) -> bool {
        let is_only = |config: &BTreeSet<u64>| config.iter().eq([&node.0]);
        !self.configs.is_empty()
            && self.configs.iter().all(is_only)
            && self.nodes.keys().all(|other| *other == node.0)
    }

    /// Has `now` in place of one of its `former` names that is alone in here. Whether it was so.
    pub(crate) fn rename(&mut self, former: &[NodeId], now: NodeId) -> bool {
        let is_own = former.iter().any(|node| self.is_alone(*node));
        if is_own {
            *self = Self::alone(now);
        }
        is_own
    }

    pub(crate) fn replicas(&self) -> Replicas {
        let voters: BTreeSet<NodeId> = self.configs.iter().flatten().copied().map(NodeId).collect();
        let all = self.nodes.keys().copied().map(NodeId);
        Replicas {
            learners: all.filter(|node| !voters.contains(node)).collect(),
            voters,
        }
    }
}

/// The membership of a group at some entry of its log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The entry that said so; none before the first.
    pub(crate) since: Option<LogId>,
    pub(crate) members: Members,
}

impl Membership {
    /// Voters and learners.
    #[must_use]
    pub fn replicas(&self) -> Replicas {
        self.members.replicas()
    }
}
