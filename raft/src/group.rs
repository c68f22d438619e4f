//! The handle of one group: propose, wait for the outcome, know who leads, say what is durable.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use halyard_runtime::{time, watch};
use openraft::async_runtime::WatchReceiver as _;
use openraft::raft::ReadPolicy;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::apply::{Applying, Raft, Seat, Snapshot};
use crate::entry::Command;
use crate::error::{Error, ProposeError};
use crate::ids::{GroupId, NodeId};
use crate::machine::Machine;
use crate::members::Members;
use crate::message::{Reply, Request};
use crate::types::{Outcome, Waiters};
use crate::wal::Wal;

/// Proposals that one group has in flight at most.
pub const PROPOSALS_IN_FLIGHT_MAX: usize = 4096;
/// Bytes of proposals that one group has in flight at most (one proposal may be larger).
pub const PROPOSAL_BYTES_IN_FLIGHT_MAX: usize = 16 << 20;
/// The longest entry, in bytes.
pub const ENTRY_BYTES_MAX: usize = 128 << 20;

/// How long a leader waits for the answers to a heartbeat before it sends refused proposals again.
const LEASE_RETRY: Duration = Duration::from_millis(2);

/// Who leads a group, as far as this node knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader, if known.
    pub leader: Option<NodeId>,
    /// The term that this node is in.
    pub term: u64,
    /// True while this node leads, and may propose.
    pub am_leader: bool,
}

/// One group on this node. Clones are the same group.
pub struct Group<M: Machine> {
    core: Arc<Core>,
    seat: Arc<Seat<M>>,
}

/// What a group is apart from the types of its machine.
pub(crate) struct Core {
    id: GroupId,
    me: NodeId,
    raft: Raft,
    wal: Arc<Wal>,
    applying: Arc<Applying>,
    leadership: watch::Receiver<Leadership>,
    poisoned: watch::Receiver<Option<Arc<Error>>>,
}

impl Core {
    pub(crate) fn new(
        (id, me): (GroupId, NodeId),
        raft: Raft,
        wal: Arc<Wal>,
        applying: Arc<Applying>,
        leads: watch::Sender<Leadership>,
    ) -> Arc<Self> {
        let poisoned = applying.poison.subscribe();
        let leadership = leads.subscribe();
        let hit = Arc::clone(&applying);
        wal.when_poisoned(move |error| {
            hit.poison.send(Some(Arc::clone(error)));
            leads.send_if_modified(|last| std::mem::take(&mut last.am_leader));
            let seat = &hit.seat;
            seat.fail_all(&ProposeError::Poisoned(Arc::clone(error)));
        });
        Arc::new(Self {
            id,
            me,
            raft,
            wal,
            applying,
            leadership,
            poisoned,
        })
    }

    fn submit(&self, command: Command, waiters: Arc<dyn Waiters>) {
        let outcome = Outcome::new(command.ticket, waiters);
        // Completes at its first poll: the queue has no bound (runtime/channel.rs). When the core has stopped, the
        // outcome is dropped and refuses the proposal.
        let _ = self
            .raft
            .client_write_ff(command, Some(outcome))
            .now_or_never();
    }

    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Sends proposals again that were refused because the leader had not heard from a quorum for too long: a heartbeat
    /// renews its lease. Only groups of several voters need it. Ends when the group is dropped.
    pub(crate) async fn renew_lease(group: Weak<Self>, refused: Arc<Notify>) {
        loop {
            refused.notified().await;
            let Some(core) = group.upgrade() else { return };
            // A core that has stopped refuses what is sent again.
            let _ = core.raft.trigger().heartbeat().await;
            time::sleep(LEASE_RETRY).await;
            core.applying.seat.send_again(&|ticket, payload, waiters| {
                core.submit(Command { payload, ticket }, waiters);
            });
        }
    }

    /// Has timers run while there are other replicas, and only then: a lone voter needs neither heartbeats nor elections, so an
    /// idle group costs nothing. Ends when the group is dropped.
    pub(crate) async fn follow_members(group: Weak<Self>) {
        let started = group.upgrade();
        let Some((me, mut metrics)) = started.map(|core| (core.me, core.raft.server_metrics()))
        else {
            return;
        };
        loop {
            let is_alone = {
                let metrics = metrics.borrow_watched();
                Members::from(metrics.membership_config.membership()).is_alone(me)
            };
            match group.upgrade() {
                Some(core) => core.raft.runtime_config().tick(!is_alone),
                None => return,
            }
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    pub(crate) const fn raft(&self) -> &Raft {
        &self.raft
    }

    /// See [`Group::barrier`].
    pub(crate) async fn barrier(&self) -> Result<(), ProposeError> {
        match self.raft.ensure_linearizable(ReadPolicy::ReadIndex).await {
            Ok(_) => Ok(()),
            Err(error) => Err(match error.api_error() {
                Some(openraft::errors::LinearizableReadError::ForwardToLeader(forward)) => {
                    ProposeError::NotLeader {
                        leader: forward.leader_id.map(NodeId),
                    }
                }
                Some(_) => ProposeError::Unknown,
                None => ProposeError::Stopped,
            }),
        }
    }

    /// See [`Group::flushed`].
    pub(crate) fn flushed(&self, applied: u64) {
        let log = self.applying.log.state.lock();
        let mut progress = self.applying.progress.lock();
        let last = progress.applied.map_or(0, |id| id.index);
        // The machine may be ahead of our note of it for an instant: what it holds beyond counts with the next flush.
        let index = log.settled(applied.min(last), last);
        let Some(id) = log.id_at(index) else { return };
        if progress.durable < Some(id) {
            (progress.durable, progress.durable_members) = (Some(id), log.members_at(index));
        }
        // Asked again where the log has not let go: openraft forgets what it is asked while it is at it for an earlier flush.
        if log.purged >= progress.durable {
            return;
        }
        drop((log, progress));
        // One message to the core: it builds a "snapshot", which is the store itself, and lets the log up to it go.
        let _ = self.raft.trigger().snapshot().now_or_never();
    }

    /// Lets go what a machine need not hold: entries without a payload after the last one that was flushed.
    pub(crate) fn settle(&self) {
        let durable = self
            .applying
            .progress
            .lock()
            .durable
            .map_or(0, |id| id.index);
        self.flushed(durable);
    }

    pub(crate) fn applied(&self) -> u64 {
        self.applying
            .progress
            .lock()
            .applied
            .map_or(0, |id| id.index)
    }

    pub(crate) fn poisoned(&self) -> watch::Receiver<Option<Arc<Error>>> {
        self.poisoned.clone()
    }

    /// Answers a request of another replica.
    pub(crate) async fn answer(&self, request: Request) -> Reply {
        let raft = &self.raft;
        let refused = |error: &dyn std::fmt::Display| Reply::Refused(error.to_string());
        match request {
            Request::Append(request) => raft
                .append_entries(request)
                .await
                .map_or_else(|e| refused(&e), Reply::Append),
            Request::Vote(request) => raft
                .vote(request)
                .await
                .map_or_else(|e| refused(&e), Reply::Vote),
            Request::PreVote(request) => raft
                .pre_vote(request)
                .await
                .map_or_else(|e| refused(&e), Reply::Vote),
            Request::Snapshot { vote, meta, body } => {
                let installed = raft
                    .install_full_snapshot(
                        vote,
                        Snapshot {
                            meta,
                            snapshot: body,
                        },
                    )
                    .await;
                installed.map_or_else(|e| refused(&e), |reply| Reply::Snapshot(reply.vote))
            }
            Request::Transfer(request) => raft
                .handle_transfer_leader(request)
                .await
                .map_or_else(|e| refused(&e), Reply::Transfer),
        }
    }

    pub(crate) async fn stop(&self) {
        // A core that has failed before is stopped as well.
        let _ = self.raft.shutdown().await;
        self.applying.seat.fail_all(&ProposeError::Stopped);
    }
}

impl<M: Machine> Clone for Group<M> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
            seat: Arc::clone(&self.seat),
        }
    }
}

impl<M: Machine> Group<M> {
    pub(crate) const fn new(core: Arc<Core>, seat: Arc<Seat<M>>) -> Self {
        Self { core, seat }
    }

    /// The group's id.
    pub fn id(&self) -> GroupId {
        self.core.id
    }

    /// This node's name in it.
    pub fn me(&self) -> NodeId {
        self.core.me
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// The machine. Lock it for short; `apply` waits meanwhile.
    pub fn machine(&self) -> &Arc<Mutex<M>> {
        &self.seat.machine
    }

    /// Hands an entry in. The order of the calls is the order of the log and of `apply`.
    ///
    /// The future resolves once the entry is on disk (on a quorum's disks) and applied. Dropping it changes nothing: the
    /// entry takes its way. While the disk is full, proposals are refused with [`ProposeError::Full`]; see
    /// [`Group::propose_urgent`].
    pub fn propose(&self, payload: Bytes) -> Proposal<M::Reply> {
        let wal = &self.core.wal;
        if wal.full.load(Ordering::Relaxed) {
            return Proposal::refused(ProposeError::Full {
                path: wal.dir.clone(),
            });
        }
        self.propose_urgent(payload)
    }

    /// Whether the disk is full: [`Group::propose`] refuses, and only what makes room should be proposed.
    pub fn is_full(&self) -> bool {
        self.core.wal.full.load(Ordering::Relaxed)
    }

    /// [`Group::propose`] for what makes room or must not wait: deletes, purges, acknowledgements. Taken on a full disk as
    /// well, from the space that the log keeps in reserve.
    pub fn propose_urgent(&self, payload: Bytes) -> Proposal<M::Reply> {
        let bytes = payload.len();
        if bytes > ENTRY_BYTES_MAX {
            return Proposal::refused(ProposeError::TooLarge {
                bytes,
                bytes_max: ENTRY_BYTES_MAX,
            });
        }
        let halted = || self.core.applying.halted.get().cloned();
        if let Some(error) = self.core.wal.poisoned().or_else(halted) {
            return Proposal::refused(ProposeError::Poisoned(error));
        }
        let waiters: Arc<dyn Waiters> =
            Arc::<crate::apply::WaitList<M::Reply>>::clone(&self.seat.waiters);
        let sent = self.seat.waiters.propose(&payload, |ticket| {
            let payload = payload.clone();
            self.core.submit(Command { payload, ticket }, waiters);
        });
        match sent {
            Ok(receiver) => Proposal {
                state: State::Waiting(receiver),
            },
            Err(error) => Proposal::refused(error),
        }
    }

    /// Who leads, now and whenever it changes.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.core.leadership()
    }

    /// Waits until everything that was acknowledged anywhere before the call has been applied here: reads of the machine
    /// after it are linearizable. Costs nothing on a group of one voter.
    ///
    /// # Errors
    /// [`ProposeError::NotLeader`] when this node does not lead, [`ProposeError::Stopped`].
    pub async fn barrier(&self) -> Result<(), ProposeError> {
        self.core.barrier().await
    }

    /// Says that the machine's own store holds everything up to entry `applied` durably: the log before it may go.
    ///
    /// Never more than the machine has applied; less than before has no effect. An entry that is just being applied may be
    /// left for the next call.
    pub fn flushed(&self, applied: u64) {
        self.core.flushed(applied);
    }

    /// The index of the last entry applied here; 0 before the first.
    pub fn applied(&self) -> u64 {
        self.core.applied()
    }

    /// Set once the node's log has failed, or an entry came that this release does not understand: the group takes nothing
    /// more until the process starts anew.
    pub fn poisoned(&self) -> watch::Receiver<Option<Arc<Error>>> {
        self.core.poisoned()
    }

    /// Stops the group on this node. What waits is answered with [`ProposeError::Stopped`] or `Unknown`.
    pub async fn stop(&self) {
        self.core.stop().await;
    }
}

/// The outcome of one proposal; see [`Group::propose`].
#[must_use = "the outcome is the acknowledgement"]
pub struct Proposal<R> {
    state: State<R>,
}

enum State<R> {
    Waiting(oneshot::Receiver<Result<R, ProposeError>>),
    Refused(Option<ProposeError>),
}

impl<R> Proposal<R> {
    fn refused(error: ProposeError) -> Self {
        Self {
            state: State::Refused(Some(error)),
        }
    }
}

impl<R> Unpin for Proposal<R> {}

impl<R> Future for Proposal<R> {
    type Output = Result<R, ProposeError>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().state {
            State::Waiting(receiver) => Pin::new(receiver)
                .poll(cx)
                .map(|sent| sent.unwrap_or(Err(ProposeError::Stopped))),
            State::Refused(error) => {
                Poll::Ready(Err(error.take().unwrap_or(ProposeError::Unknown)))
            }
        }
    }
}
