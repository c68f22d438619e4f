//! From committed entries to the machine, and from the machine's replies to whoever proposed them.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use halyard_runtime::contain::contain;
use halyard_runtime::watch;
use openraft::OptionalSend;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::adapter::IntoRaft;
use crate::error::{Error, ProposeError};
use crate::group::{PROPOSAL_BYTES_IN_FLIGHT_MAX, PROPOSALS_IN_FLIGHT_MAX};
use crate::ids::{LogId, NodeId};
use crate::machine::{Machine, Unreadable};
use crate::members::Membership;
use crate::standing::Standing;
use crate::types::{self, Payload, Refusal, SnapshotMeta, StoredMembers, Types, Waiters};
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
    /// Applies an entry, has that noted, and answers whoever holds its ticket. It is noted under the machine's lock, so that
    /// a snapshot is never ahead of what it says, and before the answer, so that what was answered counts as applied.
    ///
    /// # Errors
    /// See [`Machine::check`]; nothing is applied or noted then.
    fn apply(
        &self,
        at: LogId,
        payload: &Bytes,
        ticket: u64,
        note: &dyn Fn(),
    ) -> Result<(), Unreadable>;

    /// See [`Machine::membership`]; noted under the machine's lock, too.
    fn membership(&self, membership: &Membership, note: &dyn Fn());

    /// See [`Machine::snapshot`]; `progress` is read under the machine's lock, so that both are of one moment.
    fn snapshot(&self, progress: &Mutex<Progress>) -> io::Result<(Bytes, Progress)>;

    /// See [`Machine::restore`].
    fn restore(&self, standing: &Standing, snapshot: Bytes) -> io::Result<()>;

    /// Answers everybody who still waits with `error`.
    fn fail_all(&self, error: &ProposeError);

    /// What is notified when proposals wait to be sent again.
    fn refused(&self) -> Arc<Notify>;

    /// Sends again, in order, what was refused for an expired lease.
    fn send_again(&self, send: &dyn Fn(u64, Bytes, Arc<dyn Waiters>));
}

/// The machine of a group, and the proposals that wait for it.
pub(crate) struct Seat<M: Machine> {
    pub(crate) machine: Arc<Mutex<M>>,
    pub(crate) waiters: Arc<WaitList<M::Reply>>,
}

impl<M: Machine> Driven for Seat<M> {
    fn apply(
        &self,
        at: LogId,
        payload: &Bytes,
        ticket: u64,
        note: &dyn Fn(),
    ) -> Result<(), Unreadable> {
        let reply = {
            let mut machine = self.machine.lock();
            // A panic must not take the task that applies with it: who waits for the group, a start first of all, would
            // wait for ever. The machine knows itself that it did not come to the end.
            let checked = contain(|| machine.check(payload));
            checked.unwrap_or_else(|panic| {
                Err(Unreadable(format!("it cannot be decoded: {panic}")))
            })?;
            let reply = contain(|| machine.apply(at, payload));
            note();
            reply
        };
        match reply {
            Ok(reply) => self.waiters.answer(ticket, reply),
            Err(_) => self.waiters.refuse(ticket, Refusal::Unknown),
        }
        Ok(())
    }

    fn membership(&self, membership: &Membership, note: &dyn Fn()) {
        let mut machine = self.machine.lock();
        machine.membership(membership);
        note();
    }

    fn snapshot(&self, progress: &Mutex<Progress>) -> io::Result<(Bytes, Progress)> {
        let mut machine = self.machine.lock();
        let progress = progress.lock().clone();
        Ok((machine.snapshot()?, progress))
    }

    fn restore(&self, standing: &Standing, snapshot: Bytes) -> io::Result<()> {
        let mut machine = self.machine.lock();
        machine.restore(standing, snapshot)?;
        machine.membership(&standing.membership);
        Ok(())
    }

    fn fail_all(&self, error: &ProposeError) {
        self.waiters.fail_all(error);
    }

    fn refused(&self) -> Arc<Notify> {
        Arc::clone(&self.waiters.refused)
    }

    fn send_again(&self, send: &dyn Fn(u64, Bytes, Arc<dyn Waiters>)) {
        let waiters = &self.waiters;
        waiters.send_again(|ticket, payload| {
            send(ticket, payload, Arc::<WaitList<M::Reply>>::clone(waiters))
        });
    }
}

/// The machine of a group and what is known of its progress.
pub(crate) struct Applying {
    pub(crate) seat: Arc<dyn Driven>,
    pub(crate) log: Arc<GroupLog>,
    pub(crate) progress: Mutex<Progress>,
    /// Where the log is, for what is told of it.
    pub(crate) path: PathBuf,
    /// Told when the group cannot go on.
    pub(crate) poison: watch::Sender<Option<Arc<Error>>>,
    /// Why this replica has stopped by itself, if it has.
    pub(crate) halted: OnceLock<Arc<Error>>,
}

impl Applying {
    /// Stops before entry `at`, for good.
    fn halt(&self, at: LogId, why: Unreadable) -> io::Error {
        let error = Error::Unreadable {
            path: self.path.clone(),
            group: self.log.id,
            index: at.index,
            what: why.0,
        };
        tracing::error!("{error}; this replica of the group has stopped");
        let shared = Arc::new(error.clone());
        let _ = self.halted.set(Arc::clone(&shared));
        self.poison.send(Some(Arc::clone(&shared)));
        self.seat.fail_all(&ProposeError::Poisoned(shared));
        error.into()
    }
}

/// See [`Applying`].
#[derive(Clone, Default)]
pub(crate) struct Progress {
    /// Last entry applied.
    pub(crate) applied: Option<LogId>,
    /// The membership as of that entry.
    pub(crate) members: Membership,
    /// Last entry that the machine's own store holds durably, and the membership as of it.
    pub(crate) durable: Option<LogId>,
    pub(crate) durable_members: Membership,
    /// True once the group has started: only then may snapshots be asked of the machine.
    pub(crate) started: bool,
}

impl Progress {
    /// What is applied up to an entry, all of it durably.
    pub(crate) fn at(id: LogId, members: Membership) -> Self {
        Self {
            applied: Some(id),
            members: members.clone(),
            durable: Some(id),
            durable_members: members,
            started: false,
        }
    }
}

/// openraft's view of [`Applying`].
#[derive(Clone)]
pub(crate) struct Adapter(pub(crate) Arc<Applying>);

impl RaftStateMachine<Types> for Adapter {
    type SnapshotData = SnapshotBody;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<types::LogId>, StoredMembers), io::Error> {
        let progress = self.0.progress.lock();
        Ok((
            progress.applied.map(IntoRaft::into_raft),
            progress.members.clone().into_raft(),
        ))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let id = LogId::from(entry.log_id);
            let note = |members: Option<Membership>| {
                let mut progress = self.0.progress.lock();
                assert!(
                    progress.applied < Some(id),
                    "entries are applied once, in order"
                );
                progress.applied = Some(id);
                if let Some(members) = members {
                    progress.members = members;
                }
            };
            match entry.payload {
                Payload::Normal(command) => {
                    let seat = &self.0.seat;
                    seat.apply(id, &command.payload, command.ticket, &|| note(None))
                        .map_err(|unreadable| self.0.halt(id, unreadable))?;
                }
                Payload::Blank => note(None),
                Payload::Membership(members) => {
                    let membership = Membership {
                        since: Some(id),
                        members: (&members).into(),
                    };
                    let noted = || note(Some(membership.clone()));
                    self.0.seat.membership(&membership, &noted);
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
        let standing = Standing {
            at: id.into(),
            membership: (&meta.last_membership).into(),
        };
        self.0.seat.restore(&standing, snapshot)?;
        let mut progress = self.0.progress.lock();
        let (at, members) = (Some(standing.at), standing.membership);
        (progress.applied, progress.durable) = (at, at);
        (progress.members, progress.durable_members) = (members.clone(), members);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        if !self.0.progress.lock().started {
            return Ok(None);
        }
        let (snapshot, progress) = self.0.seat.snapshot(&self.0.progress)?;
        let meta = SnapshotMeta {
            last_log_id: progress.applied.map(IntoRaft::into_raft),
            last_membership: progress.members.into_raft(),
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
            last_log_id: progress.durable.map(IntoRaft::into_raft),
            last_membership: progress.durable_members.clone().into_raft(),
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
    /// Notified when proposals wait to be sent again.
    refused: Arc<Notify>,
}

struct List<R> {
    waiting: VecDeque<Waiting<R>>,
    last_ticket: u64,
    bytes: usize,
    /// True while refused proposals wait to be sent again: later ones queue up behind them.
    held: bool,
}

struct Waiting<R> {
    ticket: u64,
    payload: Bytes,
    /// True when it has to be sent (again).
    unsent: bool,
    reply: oneshot::Sender<Result<R, ProposeError>>,
}

impl<R> Default for WaitList<R> {
    fn default() -> Self {
        let list = List {
            waiting: VecDeque::new(),
            last_ticket: 0,
            bytes: 0,
            held: false,
        };
        Self {
            order: Mutex::new(()),
            list: Mutex::new(list),
            refused: Arc::new(Notify::new()),
        }
    }
}

impl<R: Send + 'static> WaitList<R> {
    /// Adds a waiter and calls `send` with its ticket; tickets are sent in order.
    ///
    /// # Errors
    /// [`ProposeError::Overloaded`] when too many proposals or bytes wait already.
    pub(crate) fn propose(
        &self,
        payload: &Bytes,
        send: impl FnOnce(u64),
    ) -> Result<oneshot::Receiver<Result<R, ProposeError>>, ProposeError> {
        let (reply, receiver) = oneshot::channel();
        let _order = self.order.lock();
        let mut list = self.list.lock();
        let fits =
            list.bytes + payload.len() <= PROPOSAL_BYTES_IN_FLIGHT_MAX || list.waiting.is_empty();
        if list.waiting.len() >= PROPOSALS_IN_FLIGHT_MAX || !fits {
            return Err(ProposeError::Overloaded);
        }
        list.last_ticket += 1;
        list.bytes += payload.len();
        let (ticket, unsent) = (list.last_ticket, list.held);
        assert!(
            list.waiting.back().is_none_or(|last| last.ticket < ticket),
            "who waits stands in the order of the tickets"
        );
        list.waiting.push_back(Waiting {
            ticket,
            payload: payload.clone(),
            unsent,
            reply,
        });
        drop(list);
        if !unsent {
            send(ticket);
        }
        Ok(receiver)
    }

    /// Sends what was refused, or held back behind it, in order.
    fn send_again(&self, send: impl Fn(u64, Bytes)) {
        let _order = self.order.lock();
        let unsent: Vec<(u64, Bytes)> = {
            let mut list = self.list.lock();
            list.held = false;
            let again = |waiting: &mut Waiting<R>| {
                let unsent = std::mem::take(&mut waiting.unsent);
                unsent.then(|| (waiting.ticket, waiting.payload.clone()))
            };
            list.waiting.iter_mut().filter_map(again).collect()
        };
        for (ticket, payload) in unsent {
            send(ticket, payload);
        }
    }

    /// Notes that a proposal has to be sent again.
    fn hold(&self, ticket: u64) {
        let mut list = self.list.lock();
        if let Ok(at) = list
            .waiting
            .binary_search_by_key(&ticket, |waiting| waiting.ticket)
            && let Some(waiting) = list.waiting.get_mut(at)
        {
            waiting.unsent = true;
            list.held = true;
            self.refused.notify_one();
        }
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
        list.bytes -= waiting.payload.len();
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
            Refusal::Forward {
                lease_expired: true,
                ..
            } => return self.hold(ticket),
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Machine for Nothing {
        type Reply = ();
        fn apply(&mut self, _: LogId, _: &Bytes) {}
    }

    #[test]
    fn a_snapshot_cannot_come_between_an_entry_and_its_note() {
        let machine = Arc::new(Mutex::new(Nothing));
        let seat = Seat {
            machine: Arc::clone(&machine),
            waiters: Arc::new(WaitList::default()),
        };
        let noted = std::cell::Cell::new(false);
        let applied = seat.apply(LogId::default(), &Bytes::new(), 1, &|| {
            assert!(machine.is_locked(), "a snapshot would take the lock");
            noted.set(true);
        });
        assert_eq!(applied, Ok(()));
        assert!(noted.get());
    }

    struct Panics;

    impl Machine for Panics {
        type Reply = ();
        fn apply(&mut self, _: LogId, _: &Bytes) {
            panic!("as planned by the test");
        }
    }

    #[test]
    fn a_panic_of_the_machine_does_not_end_the_one_who_applies() {
        let seat = Seat {
            machine: Arc::new(Mutex::new(Panics)),
            waiters: Arc::new(WaitList::default()),
        };
        let payload = Bytes::from_static(b"x");
        let mut sent = 0;
        let mut reply = seat
            .waiters
            .propose(&payload, |ticket| sent = ticket)
            .unwrap();
        let noted = std::cell::Cell::new(false);
        let applied = seat.apply(LogId::default(), &payload, sent, &|| noted.set(true));
        assert_eq!(applied, Ok(()));
        assert!(noted.get());
        assert!(matches!(reply.try_recv(), Ok(Err(ProposeError::Unknown))));
    }
}
