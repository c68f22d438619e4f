//! A new log for groups whose stores hold everything: in place of one of which a part that nobody needs any more is damaged.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::error::Error;
use crate::ids::{GroupId, LogId, Vote};
use crate::members::{Members, Membership};
use crate::node::{Node, NodeOptions};
use crate::wal::image::{GroupLog, GroupState};
use crate::wal::{Done, Item};

/// Where a group's new log starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The last entry of the old log.
    pub id: LogId,
    /// Index after the last entry that had a payload; the group's store holds everything before it.
    pub payload_end: u64,
}

/// Makes a log in an empty directory in which each group is alone on this node and starts after its last entry. Durable when it
/// returns.
///
/// # Errors
/// As [`Node::open`].
pub async fn renew(options: NodeOptions, groups: &BTreeMap<GroupId, Renewed>) -> Result<(), Error> {
    let node = Node::open(options)?;
    let me = node.identity().node;
    let mut written = Vec::new();
    for (id, renewed) in groups {
        let last = renewed.id;
        let mut state = GroupState::default();
        state.vote = Some(Vote {
            term: renewed.id.term,
            node: me,
            committed: true,
        });
        state.purged = Some(last);
        state.payload_end = renewed.payload_end;
        state.members = Membership {
            since: Some(last),
            members: Members::alone(me),
        };
        state.committed = Some(last);
        let (draft, start) = (state.checkpoint(*id), state.start());
        let log = Arc::new(GroupLog {
            id: *id,
            state: Mutex::new(state),
        });
        let (sender, done) = tokio::sync::oneshot::channel();
        node.wal().submit([Item {
            draft,
            of: Some((log, Some(start))),
            done: Done::Waiter(sender),
        }]);
        written.push(done);
    }
    for done in written {
        match done.await {
            Ok(outcome) => outcome.map_err(|error| error.as_ref().clone())?,
            Err(_) => return Err(Error::Stopped),
        }
    }
    node.shutdown().await;
    Ok(())
}
