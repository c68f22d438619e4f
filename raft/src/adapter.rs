//! Between our types, which are what the log holds, and openraft's. Nothing else converts one into the other.

#![expect(
    private_interfaces,
    reason = "nobody outside of the crate can name openraft's types over ours"
)]

use crate::codec::{self, Decoded};
use crate::entry;
use crate::ids;
use crate::members::{self, Membership};
use crate::types::{Entry, LeaderId, LogId, Members, Payload, StoredMembers, Vote};
use halyard_format::codec::{Fields, Reader};
use openraft::vote::RaftLeaderId as _;

/// The way to openraft. Not [`Into`]: its implementations for types of another crate are seen by every crate.
pub(crate) trait IntoRaft<T> {
    fn into_raft(self) -> T;
}

impl From<LogId> for ids::LogId {
    fn from(id: LogId) -> Self {
        Self {
            term: id.leader_id.term,
            leader: ids::NodeId(id.leader_id.node_id),
            index: id.index,
        }
    }
}

impl IntoRaft<LogId> for ids::LogId {
    fn into_raft(self) -> LogId {
        LogId::new(LeaderId::new(self.term, self.leader.0), self.index)
    }
}

impl From<Vote> for ids::Vote {
    fn from(vote: Vote) -> Self {
        Self {
            term: vote.leader_id.term,
            node: ids::NodeId(vote.leader_id.node_id),
            committed: vote.committed,
        }
    }
}

impl IntoRaft<Vote> for ids::Vote {
    fn into_raft(self) -> Vote {
        let mut out = Vote::new(self.term, self.node.0);
        out.committed = self.committed;
        out
    }
}

impl From<&Members> for members::Members {
    fn from(members: &Members) -> Self {
        let nodes = members.nodes();
        Self {
            configs: members.get_joint_config().clone(),
            nodes: nodes.map(|(node, peer)| (*node, peer.clone())).collect(),
        }
    }
}

impl IntoRaft<Members> for members::Members {
    fn into_raft(self) -> Members {
        if self.configs.is_empty() {
            return Members::default();
        }
        let made = Members::new(self.configs, self.nodes);
        // What is read from a log or a message is checked there.
        made.expect("a membership whose voters are among its nodes")
    }
}

impl From<&StoredMembers> for Membership {
    fn from(stored: &StoredMembers) -> Self {
        Self {
            since: stored.log_id().map(Into::into),
            members: stored.membership().into(),
        }
    }
}

impl IntoRaft<StoredMembers> for Membership {
    fn into_raft(self) -> StoredMembers {
        let since = self.since.map(IntoRaft::into_raft);
        StoredMembers::new(since, self.members.into_raft())
    }
}

impl From<Entry> for entry::Entry {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.log_id.into(),
            payload: match entry.payload {
                Payload::Normal(command) => entry::Payload::Normal(command),
                Payload::Blank => entry::Payload::Blank,
                Payload::Membership(members) => entry::Payload::Membership((&members).into()),
            },
        }
    }
}

impl IntoRaft<Entry> for entry::Entry {
    fn into_raft(self) -> Entry {
        Entry {
            log_id: self.id.into_raft(),
            payload: match self.payload {
                entry::Payload::Normal(command) => Payload::Normal(command),
                entry::Payload::Blank => Payload::Blank,
                entry::Payload::Membership(members) => Payload::Membership(members.into_raft()),
            },
        }
    }
}

// The same for what nodes say to each other: written as the log writes it.

pub(crate) fn put_log_id(out: &mut Fields, id: &LogId) {
    codec::put_log_id(out, &(*id).into());
}

pub(crate) fn log_id(input: &mut Reader<'_>) -> Decoded<LogId> {
    codec::log_id(input).map(IntoRaft::into_raft)
}

pub(crate) fn put_vote(out: &mut Fields, vote: &Vote) {
    codec::put_vote(out, &(*vote).into());
}

pub(crate) fn vote(input: &mut Reader<'_>) -> Decoded<Vote> {
    codec::vote(input).map(IntoRaft::into_raft)
}

pub(crate) fn put_members(out: &mut Fields, members: &Members) {
    codec::put_members(out, &members.into());
}

pub(crate) fn members(input: &mut Reader<'_>) -> Decoded<Members> {
    codec::members(input).map(IntoRaft::into_raft)
}

pub(crate) fn put_stored(out: &mut Fields, stored: &StoredMembers) {
    codec::put_stored(out, &stored.into());
}

pub(crate) fn stored(input: &mut Reader<'_>) -> Decoded<StoredMembers> {
    codec::stored(input).map(IntoRaft::into_raft)
}
