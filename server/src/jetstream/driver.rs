//! The task that moves one data group: takes what waits, proposes it, answers when it is applied, keeps time.
//!
//! A few entries are on their way at one time: while one is being synced the next gathers. Answers are given in the
//! order of the entries, all of one entry inside one flush scope, so that a connection's acknowledgements become one
//! write. Flushes and maintenance of the store run on a thread for blocking work, never under the machine's lock.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use halyard_engine::{Job, JobDone, StreamId};
use halyard_raft as raft;
use halyard_runtime::task;
use halyard_runtime::time::{self, Instant, Timestamp};

use super::answer::Answers;
use super::api::errors::table;
use super::consumer::leader::Leader;
use super::group::command::Kind;
use super::group::{Applied, Machine};
use super::handle::GroupHandle;
use super::inbox::{Gathered, Waiter};
use super::limits::{
    BYTES_IN_FLIGHT_MAX, ENTRIES_IN_FLIGHT_MAX, HALTED_FLUSHES_MAX, MAINTENANCE_INTERVAL,
    SCRUB_INTERVAL,
};
use super::start::Tuning;
use crate::broker::FlushScope;

/// The longest sleep; everything that matters wakes the driver earlier.
const IDLE: Duration = Duration::from_secs(60);

type Proposed = raft::Proposal<Applied>;

/// One entry on its way. A batch of marks alone has no proposal.
struct Flight {
    gathered: Gathered,
    proposal: Option<Proposed>,
}

/// Work of the store on another thread.
struct Running {
    job: BoxFuture<'static, Result<JobDone, task::JoinError>>,
    flush: bool,
}

impl Running {
    fn new(job: Job, flush: bool) -> Self {
        Self {
            job: Box::pin(task::spawn_blocking(move || job.run())),
            flush,
        }
    }
}

/// The machine as it was after the last answered entry.
#[derive(Default)]
struct Seen {
    /// When a tick has something to do.
    deadline: Option<Timestamp>,
    /// Committed time, which may be ahead of a clock that was set back.
    time: Timestamp,
    dirty_bytes: usize,
    applied: u64,
    /// A flush found no room, or too much waits for a halted stream's repair: messages are refused meanwhile.
    is_full: bool,
}

/// What woke the driver.
enum Event {
    Answered(Result<Applied, raft::ProposeError>),
    Filled,
    Worked(Option<JobDone>),
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
    running: Option<Running>,
    tick_in_flight: bool,
    seen: Seen,
    leader_deadline: Option<Timestamp>,
    flushed_at: Instant,
    flushed_index: u64,
    looked_at: Instant,
    scrubbed_at: Instant,
    /// Streams that were seen to take no more changes.
    halted: Vec<StreamId>,
}

impl Driver {
    pub(super) fn new(group: Arc<GroupHandle>, leader: Leader, tuning: Tuning) -> Self {
        let flushed_index = group.read(|machine| machine.store().applied());
        Self {
            answers: Answers::new(group.clone()),
            group,
            leader,
            tuning,
            flights: VecDeque::new(),
            bytes_in_flight: 0,
            recycled: None,
            running: None,
            tick_in_flight: false,
            seen: Seen::default(),
            leader_deadline: None,
            flushed_at: Instant::now(),
            flushed_index,
            looked_at: Instant::now(),
            scrubbed_at: Instant::now(),
            halted: Vec::new(),
        }
    }

    /// Runs until [`GroupHandle::stop`]; then everything taken has been answered and the store is flushed.
    pub(super) async fn run(mut self) {
        self.look_at_machine();
        loop {
            self.propose_waiting();
            self.poll_leader();
            self.propose_waiting();
            if self.group.is_stopping() && self.flights.is_empty() {
                break;
            }
            self.start_work();
            match self.next_event().await {
                Event::Answered(outcome) => self.answer(outcome),
                Event::Filled => {}
                Event::Worked(done) => self.finish_work(done),
                Event::Time => self.tick(),
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
            if gathered.has_messages() && self.seen.is_full {
                self.refuse(gathered);
                continue;
            }
            let proposal = self.propose(&mut gathered);
            self.bytes_in_flight += gathered.entry_bytes();
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

    /// Tells everybody of a batch that nothing of it was written.
    fn refuse(&mut self, mut gathered: Gathered) {
        let scope = FlushScope::new();
        let refusal = table::INSUFFICIENT_RESOURCES.error();
        self.answers
            .refuse(&mut gathered, &refusal, &mut self.leader);
        drop(scope);
        self.tick_in_flight = false;
        self.release(gathered);
    }

    /// Tells those who waited for all before it, and keeps the buffers.
    fn release(&mut self, mut gathered: Gathered) {
        for mark in gathered.marks.drain(..) {
            // The one who waited may have gone.
            mark.send(()).ok();
        }
        self.recycled = Some(gathered);
        if self.flights.is_empty() {
            self.group.inbox().idle();
        }
    }

    /// Deletes, purges and acknowledgements go through even when the disk is full: they make room.
    fn propose(&self, gathered: &mut Gathered) -> Option<Proposed> {
        if gathered.is_empty() {
            return None;
        }
        let entry = gathered.seal(Timestamp::now());
        Some(if gathered.has_messages() {
            self.group.raft().propose(entry)
        } else {
            self.group.raft().propose_urgent(entry)
        })
    }

    fn poll_leader(&mut self) {
        let scope = FlushScope::new();
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
            running,
            ..
        } = self;
        poll_fn(|cx| {
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
            if let Some(work) = running
                && let Poll::Ready(done) = work.job.as_mut().poll(cx)
            {
                return Poll::Ready(Event::Worked(done.ok()));
            }
            sleep.as_mut().poll(cx).map(|()| Event::Time)
        })
        .await
    }

    /// How long nothing is due.
    fn until_next(&self) -> Duration {
        let now = Timestamp::now();
        let due = |at: Timestamp| {
            Duration::from_nanos(u64::try_from(at.as_nanos() - now.as_nanos()).unwrap_or(0))
        };
        let mut wait = if self.running.is_some() {
            IDLE
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
        drop(scope);
        self.release(gathered);
        self.look_at_machine();
    }

    /// Looks once at what decides the next steps: `apply` waits for each look.
    fn look_at_machine(&mut self) {
        let unflushed_max = self.tuning.flush_bytes.saturating_mul(HALTED_FLUSHES_MAX);
        let (seen, fault, halted) = self.group.read(|machine| {
            let store = machine.store();
            let seen = Seen {
                deadline: machine.next_deadline(),
                time: machine.time(),
                dirty_bytes: store.dirty_bytes(),
                applied: machine.applied(),
                is_full: matches!(store.accepting(), Err(halyard_engine::Error::Full { .. }))
                    || (!machine.halted().is_empty() && store.dirty_bytes() >= unflushed_max),
            };
            let halted: Vec<StreamId> = machine.halted().keys().copied().collect();
            (seen, machine.fault().map(ToString::to_string), halted)
        });
        self.seen = seen;
        if halted != self.halted {
            self.group.set_halted(&halted);
            self.halted = halted;
        }
        if let Some(fault) = fault {
            self.group.fail(&fault);
        }
    }

    fn tick(&mut self) {
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

    /// Starts a flush or maintenance if one is due and none runs.
    fn start_work(&mut self) {
        if self.running.is_some() || self.group.failed() {
            return;
        }
        if let Some(job) = self.flush_due().then(|| self.begin_flush()).flatten() {
            self.running = Some(Running::new(job, true));
            return;
        }
        if self.looked_at.elapsed() >= MAINTENANCE_INTERVAL {
            self.looked_at = Instant::now();
            let scrub = self.scrubbed_at.elapsed() >= SCRUB_INTERVAL;
            let job = self.group.write(|machine| {
                let store = machine.store_mut();
                let job = store.begin_maintenance();
                job.or_else(|| scrub.then(|| store.begin_scrub()).flatten())
            });
            if scrub {
                self.scrubbed_at = Instant::now();
            }
            self.running = job.map(|job| Running::new(job, false));
        }
    }

    fn flush_due(&self) -> bool {
        let behind = self.seen.applied > self.flushed_index;
        self.seen.dirty_bytes >= self.tuning.flush_bytes
            || (behind && self.flushed_at.elapsed() >= self.tuning.flush_interval)
    }

    fn begin_flush(&mut self) -> Option<Job> {
        self.flushed_at = Instant::now();
        let job = self.group.write(Machine::begin_flush);
        match job {
            Ok(job) => job,
            Err(error) => {
                self.group.fail(&error.to_string());
                None
            }
        }
    }

    fn finish_work(&mut self, done: Option<JobDone>) {
        let flush = self.running.take().is_some_and(|running| running.flush);
        let Some(done) = done else {
            self.group.fail("background work of the store panicked");
            return;
        };
        match self.group.write(|machine| machine.store_mut().finish(done)) {
            Ok(finished) => {
                if let Some(damage) = finished.damage {
                    tracing::error!("the {} group: {damage}", self.group.name());
                }
                let applied = self.group.read(|machine| machine.store().applied());
                if flush {
                    self.flushed_at = Instant::now();
                }
                self.flushed_index = applied;
                self.group.raft().flushed(applied);
            }
            // Nothing is lost: what was to be flushed stays in memory and in the log, and is tried again.
            Err(error @ halyard_engine::Error::Full { .. }) => {
                tracing::warn!("the {} group: {error}", self.group.name());
            }
            // What is damaged stays as it is; the rest keeps being served.
            Err(error @ halyard_engine::Error::Corrupt { .. }) => {
                tracing::error!("the {} group: {error}", self.group.name());
            }
            Err(error) => self.group.fail(&error.to_string()),
        }
        self.look_at_machine();
    }

    /// So that a start after an orderly stop has little to replay.
    async fn last_flush(&mut self) {
        if let Some(running) = self.running.take() {
            let done = running.job.await.ok();
            self.running = None;
            self.finish_work(done);
        }
        if self.group.failed() {
            return;
        }
        if let Some(job) = self.begin_flush() {
            let done = task::spawn_blocking(move || job.run()).await.ok();
            self.finish_work(done);
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
