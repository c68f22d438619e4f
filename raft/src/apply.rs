//! From committed entries to the machine, and from the machine's replies to whoever proposed them.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::error::ProposeError;
use crate::ids::NodeId;
use crate::machine::{Applied, Machine};
use crate::types::{LogId, Payload, Refusal, SnapshotMeta, StoredMembers, Types, Waiters};
use crate::wal::image::GroupLog;

/// A snapshot on its way: the machine's full copy, or nothing where only the log is to be shortened.
pub(crate) type SnapshotBody = Bytes;
/// openraft over our types.
pub(crate) type Raft = openraft::Raft<Types, Adapter>;
pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<Types, SnapshotBody>;

/// A machine and those who wait for its replies, without their types.
///
/// openraft's core is generic over its state machine. Behind this door it is compiled once, here, and not again for
/// each machine in whatever crate starts a group.
pub(crate) trait Driven: Send + Sync + 'static {
    /// Applies an entry and answers whoever holds its ticket.
    fn apply(&self, at: Applied, payload: &Bytes, ticket: u64);

    /// See [`Machine::snapshot`]; `progress` is read under the machine's lock, so that both are of one moment.
    fn snapshot(&self, progress: &Mutex<Progress>) -> io::Result<(Bytes, Progress)>;

    /// See [`Machine::restore`].
    fn restore(&self, at: Applied, snapshot: Bytes) -> io::Result<()>;

    /// Answers everybody who still waits with `error`.
    fn fail_all(&self, error: &ProposeError);
}

/// The machine of a group, and the proposals that wait for it.
pub(crate) struct Seat<M: Machine> {
    pub(crate) machine: Arc<Mutex<M>>,
    pub(crate) waiters: Arc<WaitList<M::Reply>>,
}

impl<M: Machine> Driven for Seat<M> {
    fn apply(&self, at: Applied, payload: &Bytes, ticket: u64) {
        let reply = self.machine.lock().apply(at, payload);
        self.waiters.answer(ticket, reply);
    }

    fn snapshot(&self, progress: &Mutex<Progress>) -> io::Result<(Bytes, Progress)> {
        let mut machine = self.machine.lock();
        let progress = progress.lock().clone();
        Ok((machine.snapshot()?, progress))
    }

    fn restore(&self, at: Applied, snapshot: Bytes) -> io::Result<()> {
        self.machine.lock().restore(at, snapshot)
    }

    fn fail_all(&self, error: &ProposeError) {
        self.waiters.fail_all(error);
    }
}

/// The machine of a group and what is known of its progress.
pub(crate) struct Applying {
    pub(crate) seat: Arc<dyn Driven>,
    pub(crate) log: Arc<GroupLog>,
    pub(crate) progress: Mutex<Progress>,
}

/// See [`Applying`].
#[derive(Clone, Default)]
pub(crate) struct Progress {
    /// Last entry applied.
    pub(crate) applied: Option<LogId>,
    /// The membership as of that entry.
    pub(crate) members: StoredMembers,
    /// Last entry that the machine's own store holds durably, and the membership as of it.
    pub(crate) durable: Option<LogId>,
    pub(crate) durable_members: StoredMembers,
    /// True once the group has started: only then may snapshots be asked of the machine.
    pub(crate) started: bool,
}

/// openraft's view of [`Applying`].
#[derive(Clone)]
pub(crate) struct Adapter(pub(crate) Arc<Applying>);

impl RaftStateMachine<Types> for Adapter {
    type SnapshotData = SnapshotBody;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembers), io::Error> {
        let progress = self.0.progress.lock();
        Ok((progress.applied, progress.members.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let id = entry.log_id;
            let members = match entry.payload {
                Payload::Normal(command) => {
                    let at = Applied {
                        index: id.index,
                        term: id.leader_id.term,
                    };
                    self.0.seat.apply(at, &command.payload, command.ticket);
                    None
                }
                Payload::Blank => None,
                Payload::Membership(members) => Some(StoredMembers::new(Some(id), members)),
            };
            {
                let mut progress = self.0.progress.lock();
                assert!(
                    progress.applied < Some(id),
                    "entries are applied once, in order"
                );
                progress.applied = Some(id);
                if let Some(members) = members {
                    progress.members = members;
                }
            }
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotBody,
    ) -> Result<(), io::Error> {
        let Some(id) = meta.last_log_id else {
            return Ok(());
        };
        let at = Applied {
            index: id.index,
            term: id.leader_id.term,
        };
        self.0.seat.restore(at, snapshot)?;
        let mut progress = self.0.progress.lock();
        let members = meta.last_membership.clone();
        (progress.applied, progress.durable) = (Some(id), Some(id));
        (progress.members, progress.durable_members) = (members.clone(), members);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        if !self.0.progress.lock().started {
            return Ok(None);
        }
        let (snapshot, progress) = self.0.seat.snapshot(&self.0.progress)?;
        let meta = SnapshotMeta {
            last_log_id: progress.applied,
            last_membership: progress.members,
        };
        Ok(Some(Snapshot { meta, snapshot }))
    }
}

impl RaftSnapshotBuilder<Types> for Adapter {
    type SnapshotData = SnapshotBody;

    /// What openraft calls a snapshot is here the machine's own durable store: nothing is copied, the log up to it may go.
    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let progress = self.0.progress.lock();
        let meta = SnapshotMeta {
            last_log_id: progress.durable,
            last_membership: progress.durable_members.clone(),
        };
        Ok(Snapshot {
            meta,
            snapshot: Bytes::new(),
        })
    }
}

/// Who waits for which entry, in the order of the proposals, which is the order of the log.
pub(crate) struct WaitList<R> {
    /// Held from taking a ticket until it is sent, so that tickets are sent in order. A refusal takes only the list's
    /// lock: sending may refuse at once.
    order: Mutex<()>,
    list: Mutex<List<R>>,
}

struct List<R> {
    waiting: VecDeque<Waiting<R>>,
    last_ticket: u64,
    bytes: usize,
}

struct Waiting<R> {
    ticket: u64,
    bytes: usize,
    reply: oneshot::Sender<Result<R, ProposeError>>,
}

impl<R> Default for WaitList<R> {
    fn default() -> Self {
        Self {
            order: Mutex::new(()),
            list: Mutex::new(List {
                waiting: VecDeque::new(),
                last_ticket: 0,
                bytes: 0,
            }),
        }
    }
}

impl<R: Send + 'static> WaitList<R> {
    /// Adds a waiter and calls `send` with its ticket; tickets are sent in order.
    ///
    /// # Errors
    /// [`ProposeError::Overloaded`] when `count_max` proposals or `bytes_max` bytes wait already.
    pub(crate) fn propose(
        &self,
        bytes: usize,
        count_max: usize,
        bytes_max: usize,
        send: impl FnOnce(u64),
    ) -> Result<oneshot::Receiver<Result<R, ProposeError>>, ProposeError> {
        let (reply, receiver) = oneshot::channel();
        let _order = self.order.lock();
        let mut list = self.list.lock();
        let fits = list.bytes + bytes <= bytes_max || list.waiting.is_empty();
        if list.waiting.len() >= count_max || !fits {
            return Err(ProposeError::Overloaded);
        }
        list.last_ticket += 1;
        list.bytes += bytes;
        let ticket = list.last_ticket;
        list.waiting.push_back(Waiting {
            ticket,
            bytes,
            reply,
        });
        drop(list);
        send(ticket);
        Ok(receiver)
    }

    fn take(&self, ticket: u64) -> Option<oneshot::Sender<Result<R, ProposeError>>> {
        if ticket == 0 {
            return None;
        }
        let mut list = self.list.lock();
        let at = list
            .waiting
            .binary_search_by_key(&ticket, |waiting| waiting.ticket)
            .ok()?;
        let waiting = list.waiting.remove(at)?;
        list.bytes -= waiting.bytes;
        Some(waiting.reply)
    }

    /// The entry with this ticket was applied.
    pub(crate) fn answer(&self, ticket: u64, reply: R) {
        if let Some(waiter) = self.take(ticket) {
            // The proposer may have gone away, which is no error.
            let _ = waiter.send(Ok(reply));
        }
    }

    /// Answers everybody who still waits with `error`.
    pub(crate) fn fail_all(&self, error: &ProposeError) {
        let waiting = {
            let mut list = self.list.lock();
            list.bytes = 0;
            std::mem::take(&mut list.waiting)
        };
        for each in waiting {
            let _ = each.reply.send(Err(error.clone()));
        }
    }
}

impl<R: Send + 'static> Waiters for WaitList<R> {
    fn refuse(&self, ticket: u64, why: Refusal) {
        let error = match why {
            Refusal::Forward { leader, .. } => ProposeError::NotLeader {
                leader: leader.map(NodeId),
            },
            Refusal::Unknown => ProposeError::Unknown,
        };
        if let Some(waiter) = self.take(ticket) {
            let _ = waiter.send(Err(error));
        }
    }
}
