//! The task that moves one data group: takes what waits, proposes it, answers when it is applied, keeps time.
//!
//! A few entries are on their way at one time: while one is being synced the next gathers. Answers are given in the
//! order of the entries, all of one entry inside one flush scope, so that a connection's acknowledgements become one
//! write. Flushes and maintenance of the store run on a thread for blocking work, never under the machine's lock, and a
//! flush does not wait for maintenance. What they need of the machine's state is prepared in short turns under the lock,
//! between which entries are applied (`work`). What has no room is refused (`space`).

mod space;
mod work;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use halyard_engine::{JobDone, StreamId};
use halyard_raft as raft;
use halyard_runtime::task;
use halyard_runtime::time::{self, Instant, Timestamp};

use self::space::Space;
use self::work::{Running, Wanted, Work};
use crate::broker::FlushScope;
use crate::jetstream::answer::Answers;
use crate::jetstream::api::errors::table;
use crate::jetstream::consumer::leader::Leader;
use crate::jetstream::erasure::orders::Bell;
use crate::jetstream::group::Applied;
use crate::jetstream::group::command::Kind;
use crate::jetstream::handle::GroupHandle;
use crate::jetstream::inbox::{Gathered, Waiter};
use crate::jetstream::limits::{
    BYTES_IN_FLIGHT_MAX, ENTRIES_IN_FLIGHT_MAX, HALTED_FLUSHES_MAX, MAINTENANCE_INTERVAL,
};
use crate::jetstream::start::Tuning;

/// The longest sleep; everything that matters wakes the driver earlier.
const IDLE: Duration = Duration::from_secs(60);
/// While space is short, how often the store looks for what gives some, and how often what was deleted is flushed.
const SHORT_INTERVAL: Duration = Duration::from_millis(100);

type Proposed = raft::Proposal<Applied>;

/// One entry on its way. A batch of marks alone has no proposal.
struct Flight {
    gathered: Gathered,
    proposal: Option<Proposed>,
}

/// The machine as it was after the last answered entry.
#[derive(Default)]
struct Seen {
    /// When a tick has something to do.
    deadline: Option<Timestamp>,
    /// Committed time, which may be ahead of a clock that was set back.
    time: Timestamp,
    dirty_bytes: usize,
    /// See [`Machine::logged_bytes`].
    logged_bytes: u64,
    applied: u64,
    /// Bytes of messages that the store may still take: see [`halyard_engine::Store::room`].
    room: u64,
    /// Free bytes of the disk, as far as it was asked.
    free: u64,
    /// There is no such room, or too much waits for a halted stream's repair or a file: messages are refused meanwhile.
    is_full: bool,
    /// A flush makes something durable that was removed, which gives space.
    frees: bool,
    /// Entry of the last request to erase that is not done; 0 for none.
    asked: u64,
}

/// What woke the driver.
enum Event {
    Answered(Result<Applied, raft::ProposeError>),
    Filled,
    Worked(Option<JobDone>, Work),
    /// Nothing else: the next turn of what is being prepared.
    Step,
    Time,
}

/// Moves one group until it is stopped.
pub(super) struct Driver {
    group: Arc<GroupHandle>,
    leader: Leader,
    tuning: Tuning,
    answers: Answers,
    flights: VecDeque<Flight>,
    bytes_in_flight: usize,
    recycled: Option<Gathered>,
    flushing: Option<Running>,
    maintaining: Option<Running>,
    /// Something is being prepared in turns.
    stepping: bool,
    /// Events that came before the next turn: it does not wait for ever.
    waited: u8,
    tick_in_flight: bool,
    seen: Seen,
    leader_deadline: Option<Timestamp>,
    flushed_at: Instant,
    flushed_index: u64,
    /// Bytes of messages in memory when the last flush began: freed once it is done.
    cut_bytes: usize,
    looked_at: Instant,
    scrubbed_at: Instant,
    /// Streams that were seen to take no more changes.
    halted: Vec<StreamId>,
    /// No work of the store begins before.
    rests_until: Instant,
    /// When a flush that found no room is tried again, and how long that was put off.
    retry: Option<(Instant, Duration)>,
    /// What was free when that flush had failed.
    retry_above: u64,
    /// The store has just done something that may let it do more.
    looks_at_once: bool,
    space: Space,
    bell: Arc<Bell>,
}

impl Driver {
    pub(super) fn new(
        group: Arc<GroupHandle>,
        leader: Leader,
        tuning: Tuning,
        bell: Arc<Bell>,
    ) -> Self {
        let flushed_index = group.read(|machine| machine.store().applied());
        Self {
            answers: Answers::new(group.clone()),
            group,
            leader,
            tuning,
            flights: VecDeque::new(),
            bytes_in_flight: 0,
            recycled: None,
            flushing: None,
            maintaining: None,
            stepping: false,
            waited: 0,
            tick_in_flight: false,
            seen: Seen::default(),
            leader_deadline: None,
            flushed_at: Instant::now(),
            flushed_index,
            cut_bytes: 0,
            looked_at: Instant::now(),
            scrubbed_at: Instant::now(),
            halted: Vec::new(),
            rests_until: Instant::now(),
            retry: None,
            retry_above: u64::MAX,
            looks_at_once: false,
            space: Space::new(),
            bell,
        }
    }

    /// Runs until [`GroupHandle::stop`]; then everything taken has been answered and the store is flushed.
    pub(super) async fn run(mut self) {
        self.look_at_machine();
        loop {
            self.propose_waiting();
            self.poll_leader();
            self.propose_waiting();
            if self.group.is_stopping() && (self.flights.is_empty() || self.waits_for_space()) {
                break;
            }
            self.start_work();
            match self.next_event().await {
                Event::Answered(outcome) => self.answer(outcome),
                Event::Filled => {}
                Event::Worked(done, work) => self.finish_work(done, work),
                Event::Step => {
                    // Entries that wait for the lock are applied between two turns.
                    task::yield_now().await;
                    self.take_turn(&Wanted::default());
                }
                Event::Time => {
                    self.tick();
                    self.give_back();
                }
            }
        }
        self.last_flush().await;
        self.group.inbox().close();
    }

    /// Turns what waits into entries.
    fn propose_waiting(&mut self) {
        while self.flights.len() < ENTRIES_IN_FLIGHT_MAX {
            let room = self.room();
            let Some(mut gathered) = self.group.inbox().take(self.recycled.take(), room) else {
                return;
            };
            self.make_sure_of_space(&mut gathered);
            let proposal = self.propose(&mut gathered);
            self.bytes_in_flight += gathered.entry_bytes();
            self.space.took(gathered.entry_bytes() as u64);
            self.flights.push_back(Flight { gathered, proposal });
        }
    }

    /// Bytes that the next entry may have; one that is longer than all goes alone.
    fn room(&self) -> usize {
        if self.flights.is_empty() {
            return usize::MAX;
        }
        BYTES_IN_FLIGHT_MAX.saturating_sub(self.bytes_in_flight)
    }

    /// Tells those who waited for all before it, and keeps the buffers.
    fn release(&mut self, mut gathered: Gathered) {
        self.group.inbox().answered(&gathered);
        gathered.clear();
        self.recycled = Some(gathered);
        if self.flights.is_empty() {
            self.group.inbox().idle();
        }
    }

    /// Also on a full disk: what must not be written then was taken out before.
    fn propose(&self, gathered: &mut Gathered) -> Option<Proposed> {
        if gathered.is_empty() {
            return None;
        }
        let entry = gathered.seal(Timestamp::now());
        Some(self.group.raft().propose_urgent(entry))
    }

    fn poll_leader(&mut self) {
        let scope = FlushScope::new();
        if self.group.failed() {
            self.leader.halted(None);
        }
        self.leader_deadline = self.leader.poll(Timestamp::now());
        drop(scope);
    }

    async fn next_event(&mut self) -> Event {
        let sleep = time::sleep(self.until_next());
        let mut sleep = pin!(sleep);
        let room = self.room();
        let Self {
            group,
            flights,
            flushing,
            maintaining,
            stepping,
            ..
        } = self;
        poll_fn(|cx| {
            if let Some(Poll::Ready(done)) = flushing.as_mut().map(|job| job.as_mut().poll(cx)) {
                return Poll::Ready(Event::Worked(done.ok(), Work::Flush));
            }
            if let Some(Poll::Ready(done)) = maintaining.as_mut().map(|job| job.as_mut().poll(cx)) {
                return Poll::Ready(Event::Worked(done.ok(), Work::Maintenance));
            }
            if let Some(event) = poll_front(flights, cx) {
                return Poll::Ready(event);
            }
            if flights.len() < ENTRIES_IN_FLIGHT_MAX && group.inbox().poll_filled(cx.waker(), room)
            {
                return Poll::Ready(Event::Filled);
            }
            group.inbox().register(cx.waker());
            if group.take_woken() {
                return Poll::Ready(Event::Filled);
            }
            if *stepping {
                return Poll::Ready(Event::Step);
            }
            sleep.as_mut().poll(cx).map(|()| Event::Time)
        })
        .await
    }

    /// How long nothing is due.
    fn until_next(&self) -> Duration {
        let now = Timestamp::now();
        let due = |at: Timestamp| at - now;
        let mut wait = if self.flushing.is_some() && self.maintaining.is_some() {
            IDLE
        } else if self.is_short() {
            SHORT_INTERVAL
        } else {
            MAINTENANCE_INTERVAL
        };
        if let Some(deadline) = self.seen.deadline.filter(|_| !self.tick_in_flight) {
            let overdue = deadline <= self.seen.time;
            wait = wait.min(if overdue {
                Duration::ZERO
            } else {
                due(deadline)
            });
        }
        if let Some(deadline) = self.leader_deadline {
            wait = wait.min(due(deadline));
        }
        wait
    }

    /// Answers everyone who waited for the first entry.
    fn answer(&mut self, outcome: Result<Applied, raft::ProposeError>) {
        let Some(flight) = self.flights.pop_front() else {
            return;
        };
        let mut gathered = flight.gathered;
        assert!(
            self.bytes_in_flight >= gathered.entry_bytes(),
            "what is answered was in flight"
        );
        self.bytes_in_flight -= gathered.entry_bytes();
        let scope = FlushScope::new();
        match outcome {
            Ok(applied) => {
                self.answers.give(
                    &mut gathered,
                    applied,
                    &mut self.leader,
                    &mut self.tick_in_flight,
                );
            }
            Err(error) if is_refusal(&error) => {
                tracing::warn!("the {} group refused an entry: {error}", self.group.name());
                let refusal = table::INSUFFICIENT_RESOURCES.error();
                self.answers
                    .refuse(&mut gathered, &refusal, &mut self.leader);
                self.tick_in_flight = false;
            }
            Err(error) => {
                // Nobody knows whether it was committed: silence. Calls notice by their dropped sender.
                tracing::warn!(
                    "an entry of group {} was not answered: {error}",
                    self.group.name()
                );
                self.tick_in_flight = false;
                self.leader.lost();
                if matches!(error, raft::ProposeError::Poisoned(_)) {
                    self.group.fail(&error.to_string());
                }
            }
        }
        // What was stored goes out with its acknowledgement: to a few consumers even before it, by the time of a write each.
        self.leader.serve_some();
        scope.turn_round();
        drop(scope);
        self.release(gathered);
        self.look_at_machine();
    }

    /// Looks once at what decides the next steps: `apply` waits for each look.
    fn look_at_machine(&mut self) {
        let unflushed_max = self.tuning.flush_bytes.saturating_mul(HALTED_FLUSHES_MAX);
        let asks = self.space_is_stale();
        let is_late = self.retry.is_some();
        let wanted = self.space.wanted();
        let me = self.group.raft().me().0;
        let (seen, fault, halted) = self.group.write(|machine| {
            if asks {
                machine.store_mut().look_at_space();
            }
            machine.store_mut().want_room(wanted);
            let store = machine.store();
            let waits = is_late || !machine.halted().is_empty();
            let seen = Seen {
                deadline: machine.next_deadline(),
                time: machine.time(),
                dirty_bytes: store.dirty_bytes(),
                logged_bytes: machine.logged_bytes(),
                applied: machine.applied(),
                room: store.room(),
                free: store.free_bytes(),
                is_full: matches!(store.accepting(), Err(halyard_engine::Error::Full { .. }))
                    || (waits && store.dirty_bytes() >= unflushed_max),
                frees: store.frees_by_flush(),
                asked: machine.erasures().pending(me).unwrap_or(0),
            };
            let halted: Vec<StreamId> = machine.halted().keys().copied().collect();
            (seen, machine.fault().map(ToString::to_string), halted)
        });
        if seen.asked > self.seen.asked {
            self.bell.ring();
        }
        self.seen = seen;
        self.note_space();
        if halted != self.halted {
            self.group.set_halted(&halted);
            let new = halted.iter().filter(|id| !self.halted.contains(id));
            new.for_each(|id| self.leader.halted(Some(*id)));
            self.halted = halted;
        }
        if let Some(fault) = fault {
            self.group.fail(&fault);
        }
    }

    /// Memory of buffers that only a burst needed.
    fn give_back(&mut self) {
        if self.flights.is_empty() {
            self.recycled.iter_mut().for_each(Gathered::shrink);
            self.group.inbox().shrink();
        }
    }

    fn tick(&mut self) {
        self.note_space();
        if self.is_short() {
            self.look_at_machine();
        }
        let due = self
            .seen
            .deadline
            .is_some_and(|deadline| deadline <= Timestamp::now().max(self.seen.time));
        if due && !self.tick_in_flight && !self.group.is_stopping() {
            self.tick_in_flight = true;
            self.group
                .inbox()
                .submit(Kind::Tick, StreamId(0), &[], Waiter::Tick);
        }
    }
}

/// Whether nothing was written, for certain: those who wait may be told so.
const fn is_refusal(error: &raft::ProposeError) -> bool {
    use raft::ProposeError::{Full, NotLeader, Overloaded, TooLarge};
    matches!(
        error,
        Full { .. } | NotLeader { .. } | Overloaded | TooLarge { .. }
    )
}

fn poll_front(flights: &mut VecDeque<Flight>, cx: &mut Context<'_>) -> Option<Event> {
    let first = flights.front_mut()?;
    match &mut first.proposal {
        None => Some(Event::Answered(Ok(Applied::default()))),
        Some(proposal) => match Pin::new(proposal).poll(cx) {
            Poll::Ready(outcome) => Some(Event::Answered(outcome)),
            Poll::Pending => None,
        },
    }
}
