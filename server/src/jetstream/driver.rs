//! The task that moves one data group: takes what waits, proposes it, answers when it is applied, keeps time.
//!
//! A few entries are on their way at one time: while one is being synced the next gathers. Answers are given in the
//! order of the entries, all of one entry inside one flush scope, so that a connection's acknowledgements become one
//! write. Flushes and maintenance of the store run on a thread for blocking work, never under the machine's lock, and a
//! flush does not wait for maintenance. What they need of the machine's state is prepared in short turns under the lock,
//! between which entries are applied.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use halyard_engine::{Job, JobDone, Retired, StreamId};
use halyard_raft as raft;
use halyard_runtime::task;
use halyard_runtime::time::{self, Instant, Timestamp};

use super::answer::Answers;
use super::api::errors::table;
use super::consumer::leader::Leader;
use super::erasure::orders::Bell;
use super::group::command::Kind;
use super::group::{Applied, Machine};
use super::handle::GroupHandle;
use super::inbox::{Gathered, Waiter};
use super::limits::{
    BYTES_IN_FLIGHT_MAX, ENTRIES_IN_FLIGHT_MAX, HALTED_FLUSHES_MAX, MAINTENANCE_INTERVAL,
    SCRUB_INTERVAL, STEP_STREAMS,
};
use super::progress::Progress;
use super::start::Tuning;
use super::stream::machine::Fault;
use crate::broker::FlushScope;

/// The longest sleep; everything that matters wakes the driver earlier.
const IDLE: Duration = Duration::from_secs(60);
/// How long work of the store that failed at damage is left alone.
const WORK_RETRY: Duration = Duration::from_secs(1);
/// The same where a file could not be opened, or space ran out after all.
const PASSING_RETRY: Duration = Duration::from_millis(100);
/// A flush that found no room is tried again after [`WORK_RETRY`], then after twice as long, and so on up to this, as each try
/// writes what there is room for; at once when there is more space than it found.
const FULL_RETRY_MAX: Duration = Duration::from_secs(8);
/// While space is short, how often the store looks for what gives some, and how often what was deleted is flushed.
const SHORT_INTERVAL: Duration = Duration::from_millis(100);
/// The disk is asked for its free space after so many seconds, or after so many parts of what there was room for have been
/// taken since.
const SPACE_LOOK: (Duration, u64) = (Duration::from_secs(1), 8);
/// A group counts as short of space for so long after it has refused a message.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// So many events are handled before what is being prepared has its next turn in any case.
const EVENTS_BEFORE_TURN: u8 = 16;

type Proposed = raft::Proposal<Applied>;

/// One entry on its way. A batch of marks alone has no proposal.
struct Flight {
    gathered: Gathered,
    proposal: Option<Proposed>,
}

/// Work of the store on another thread.
type Running = BoxFuture<'static, Result<JobDone, task::JoinError>>;

fn start(job: Job) -> Running {
    let progress = Progress::new(job.what());
    Box::pin(task::spawn_blocking(move || {
        let done = job.run();
        drop(progress);
        done
    }))
}

/// What a turn under the lock should begin.
#[derive(Default)]
struct Wanted {
    flush: bool,
    maintenance: bool,
    scrub: bool,
    /// Nothing that is ready is begun: the disk was full a moment ago, and what failed then is ready again.
    rests: bool,
}

/// What came of a turn under the lock.
struct Turn {
    jobs: Vec<Job>,
    /// There is more to prepare.
    more: bool,
    has_cut: bool,
    is_scrub: bool,
    /// What the last flush has left in memory.
    retired: Option<Retired>,
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

/// Which of the two jobs that may run at one time.
#[derive(Clone, Copy)]
enum Work {
    Flush,
    Maintenance,
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
    space_looked_at: Instant,
    /// Bytes proposed since then.
    space_taken: u64,
    /// Whether it was last said that space is short, and when.
    told_full: (bool, Instant),
    /// When messages were last refused for want of space.
    refused_at: Option<Instant>,
    /// The longest entry that was refused a moment ago, and when: room is made for it, though shorter ones may still have some.
    wanted: Option<(Instant, u64)>,
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
            space_looked_at: Instant::now(),
            space_taken: 0,
            told_full: (false, Instant::now()),
            refused_at: None,
            wanted: None,
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
            if gathered.has_messages() {
                match self.has_space(gathered.entry_bytes() as u64) {
                    true => self.note_taken(gathered.entry_bytes() as u64),
                    false => self.refuse_messages(&mut gathered),
                }
            }
            let proposal = self.propose(&mut gathered);
            self.bytes_in_flight += gathered.entry_bytes();
            self.space_taken += gathered.entry_bytes() as u64;
            self.flights.push_back(Flight { gathered, proposal });
        }
    }

    /// Whether messages of an entry so long have room in the store and in the log.
    fn has_space(&self, bytes: u64) -> bool {
        let is_full = self.seen.is_full || self.group.raft().is_full();
        !is_full && self.bytes_in_flight as u64 + bytes <= self.seen.room
    }

    /// Whether the log has no room for what is on its way: nobody knows when it will be written, and a stop waits no longer.
    /// Who waits for an answer gets none.
    fn waits_for_space(&self) -> bool {
        self.group.raft().is_full()
    }

    /// Whether space is what is missing.
    fn is_short(&self) -> bool {
        self.seen.is_full || self.group.raft().is_full() || self.wanted() > self.seen.room
    }

    /// Bytes of messages for which there was no room a moment ago.
    fn wanted(&self) -> u64 {
        let recent = self.wanted.filter(|(at, _)| at.elapsed() < REFUSED_FOR);
        recent.map_or(0, |(_, bytes)| bytes)
    }

    /// There was room for an entry so long.
    fn note_taken(&mut self, bytes: u64) {
        self.refused_at = None;
        self.wanted = self.wanted.filter(|(_, wanted)| *wanted > bytes);
    }

    /// Bytes that the next entry may have; one that is longer than all goes alone.
    fn room(&self) -> usize {
        if self.flights.is_empty() {
            return usize::MAX;
        }
        BYTES_IN_FLIGHT_MAX.saturating_sub(self.bytes_in_flight)
    }

    /// A full disk: tells who sent messages that they were not written. What is gathered with them goes on: deletes, purges
    /// and acknowledgements make room, and must not fail because somebody publishes at the same time.
    fn refuse_messages(&mut self, gathered: &mut Gathered) {
        let (now, bytes) = (Instant::now(), gathered.entry_bytes() as u64);
        self.refused_at = Some(now);
        self.wanted = Some((now, bytes.max(self.wanted())));
        self.note_space();
        let mut messages = gathered.take_messages();
        let scope = FlushScope::new();
        let refusal = table::INSUFFICIENT_RESOURCES.error();
        self.answers
            .refuse(&mut messages, &refusal, &mut self.leader);
        drop(scope);
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
        let wanted = self.wanted();
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

    /// Whether what is known of the free space is too old, or too much was written since.
    fn space_is_stale(&mut self) -> bool {
        let (seconds, part) = SPACE_LOOK;
        let taken = self.space_taken.saturating_mul(part) >= self.seen.room;
        let longest = if self.is_short() {
            SHORT_INTERVAL
        } else {
            seconds
        };
        if !taken && self.space_looked_at.elapsed() < longest {
            return false;
        }
        self.space_looked_at = Instant::now();
        self.space_taken = 0;
        true
    }

    /// Whether messages are refused, or were a moment ago: large ones may be where small ones still have room.
    fn note_space(&mut self) {
        let refused = self.refused_at.is_some_and(|at| at.elapsed() < REFUSED_FOR);
        let is_full = self.seen.is_full || refused;
        self.group.set_refusing(is_full);
        self.tell_space(is_full);
    }

    /// Says when messages begin to be refused, and when that is over, but not each time at the brink.
    fn tell_space(&mut self, is_full: bool) {
        let (told, since) = self.told_full;
        if is_full == told || since.elapsed() < SPACE_LOOK.0 {
            return;
        }
        self.told_full = (is_full, Instant::now());
        let name = self.group.name();
        if is_full {
            self.leader.out_of_storage();
            tracing::error!(
                "the {name} group: too little space is left: messages are refused until there is more; free some, or delete or \
                 purge streams"
            );
        } else {
            tracing::info!("the {name} group: there is space again, messages are taken");
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

    /// Begins a flush or maintenance if one is due and none runs.
    fn start_work(&mut self) {
        if self.group.failed() {
            return;
        }
        if self.stepping {
            self.waited += 1;
            if self.waited >= EVENTS_BEFORE_TURN {
                self.take_turn(&Wanted::default());
            }
            return;
        }
        if Instant::now() < self.rests_until {
            return;
        }
        let interval = if self.is_short() {
            SHORT_INTERVAL
        } else {
            MAINTENANCE_INTERVAL
        };
        // Entries are also applied that this driver has not proposed: those of an earlier life, after it was made.
        if self.group.orders().flush_to() > self.seen.applied.max(self.flushed_index) {
            self.look_at_machine();
        }
        let due = self.looks_at_once || self.looked_at.elapsed() >= interval;
        let looks = self.maintaining.is_none() && (due || self.erases());
        let wanted = Wanted {
            flush: self.flushing.is_none() && self.flush_due(),
            maintenance: looks,
            ..Wanted::default()
        };
        if looks {
            self.looked_at = Instant::now();
            self.looks_at_once = false;
        }
        if wanted.flush || wanted.maintenance {
            self.take_turn(&wanted);
        }
    }

    /// One turn under the lock: begins what is wanted, prepares some more of it, and starts what is ready.
    fn take_turn(&mut self, wanted: &Wanted) {
        if self.group.failed() {
            self.stepping = false;
            return;
        }
        self.waited = 0;
        let scrub = self.maintaining.is_none() && self.scrubbed_at.elapsed() >= SCRUB_INTERVAL;
        let rests = Instant::now() < self.rests_until;
        let wanted = Wanted {
            scrub,
            rests,
            ..*wanted
        };
        let turn = match self.group.write(|machine| turn(machine, &wanted)) {
            Ok(turn) => turn,
            Err(error) => {
                self.stepping = false;
                self.group.fail(&error.to_string());
                return;
            }
        };
        self.stepping = turn.more;
        if turn.has_cut {
            self.flushed_at = Instant::now();
            self.cut_bytes = self.seen.dirty_bytes;
            (self.seen.dirty_bytes, self.seen.logged_bytes) = (0, 0);
            self.seen.frees = false;
        }
        if turn.is_scrub {
            self.scrubbed_at = Instant::now();
        }
        if let Some(retired) = turn.retired {
            let group = Arc::clone(&self.group);
            let bytes = std::mem::take(&mut self.cut_bytes);
            drop(task::spawn(async move {
                task::spawn_blocking(move || drop(retired)).await.ok();
                group.inbox().admission().freed(bytes);
            }));
        }
        for job in turn.jobs {
            let place = match job.is_flush() {
                true => &mut self.flushing,
                false => &mut self.maintaining,
            };
            assert!(place.is_none(), "one flush and one piece of maintenance");
            *place = Some(start(job));
        }
    }

    /// Whether something is left to rewrite or overwrite that must not wait.
    fn erases(&self) -> bool {
        let Some(flush) = self.group.orders().rewrite_to() else {
            return false;
        };
        let left = self
            .group
            .read(|machine| machine.store().erasure_up_to(flush));
        if left.is_done() {
            self.group.orders().rewritten(flush);
        }
        left.files > 0 || left.segments > left.damaged
    }

    fn flush_due(&self) -> bool {
        let behind = self.seen.applied > self.flushed_index;
        if let Some((at, _)) = self.retry {
            return Instant::now() >= at || self.seen.free > self.retry_above;
        }
        let ordered = self.group.orders().flush_to();
        if ordered > self.flushed_index && self.seen.applied >= ordered {
            return true;
        }
        // What was deleted gives its space only after a flush, and so do the log's segments.
        let would_free = self.seen.frees || (behind && self.group.raft().is_full());
        (would_free && self.is_short() && self.flushed_at.elapsed() >= SHORT_INTERVAL)
            || self.seen.dirty_bytes >= self.tuning.flush_bytes
            // Where messages are consumed at once nothing gathers but the log: it is kept as short, for a start after a
            // crash, and so that its segments are used again and no new ones are made.
            || self.seen.logged_bytes >= self.tuning.flush_bytes as u64
            || (behind && self.flushed_at.elapsed() >= self.tuning.flush_interval)
    }

    fn finish_work(&mut self, done: Option<JobDone>, work: Work) {
        match work {
            Work::Flush => self.flushing = None,
            Work::Maintenance => self.maintaining = None,
        }
        // Streams take what was written, and what waited for this job may go on.
        self.stepping = true;
        let Some(done) = done else {
            self.group.fail("background work of the store panicked");
            return;
        };
        match self.group.write(|machine| machine.accept(done)) {
            Ok(finished) => {
                for damage in finished.damage {
                    let told = self.group.read(|machine| machine.tell_damage(&damage));
                    tracing::error!("the {} group: {told}", self.group.name());
                }
                if matches!(work, Work::Flush) {
                    self.flushed_at = Instant::now();
                    self.retry = None;
                }
                // What gives space is done without a pause.
                self.looks_at_once |= finished.has_changed && self.is_short();
                self.flushed_index = finished.applied;
                self.group.raft().flushed(finished.applied);
            }
            // Nothing is lost: what was to be flushed stays in memory and in the log, and is tried again.
            Err(error) if error.passes() => {
                self.rests_until = Instant::now() + PASSING_RETRY;
                if matches!(work, Work::Flush) {
                    self.put_flush_off(&error);
                } else {
                    tracing::debug!("the {} group: {error}", self.group.name());
                }
            }
            // What is damaged stays as it is, and a stream that cannot be written is halted; the rest keeps being served.
            Err(
                error @ (halyard_engine::Error::Corrupt { .. }
                | halyard_engine::Error::Broken { .. }),
            ) => {
                tracing::error!("the {} group: {error}", self.group.name());
                self.rests_until = Instant::now() + WORK_RETRY;
            }
            Err(error) => self.group.fail(&error.to_string()),
        }
        self.look_at_machine();
    }

    /// A flush has failed for now: it is tried again, less and less often.
    fn put_flush_off(&mut self, error: &halyard_engine::Error) {
        tracing::warn!("the {} group: {error}", self.group.name());
        self.retry_above = self.group.read(|machine| machine.store().free_bytes());
        let is_full = matches!(error, halyard_engine::Error::Full { .. });
        let first = if is_full { WORK_RETRY } else { PASSING_RETRY };
        let longer = |(_, pause): (Instant, Duration)| (pause * 2).min(FULL_RETRY_MAX);
        let pause = self.retry.map_or(first, longer);
        self.retry = Some((Instant::now() + pause, pause));
    }

    /// So that a start after an orderly stop has little to replay.
    async fn last_flush(&mut self) {
        self.come_home().await;
        // A cut that was being prepared is written first, then what came after it.
        for _ in 0..2 {
            if self.group.failed() {
                return;
            }
            match self.group.write(Machine::begin_flush) {
                Ok(job) => self.flushing = job.map(start),
                Err(error) => self.group.fail(&error.to_string()),
            }
            self.come_home().await;
        }
        if self.retry.is_some() {
            let why = "there was no space, or no file, for it; nothing is lost, a start reads it from the log";
            self.group.note_unwritten(why);
        }
    }

    /// Waits for what is out, and gives streams what it wrote.
    async fn come_home(&mut self) {
        if let Some(job) = self.flushing.take() {
            let done = job.await.ok();
            self.finish_work(done, Work::Flush);
        }
        if let Some(job) = self.maintaining.take() {
            let done = job.await.ok();
            self.finish_work(done, Work::Maintenance);
        }
    }
}

fn turn(machine: &mut Machine, wanted: &Wanted) -> Result<Turn, Fault> {
    // A flush first: once maintenance is being prepared there is no cut, and maintenance that finds no room is prepared
    // again and again, where a flush may be what makes room.
    let has_cut = wanted.flush && machine.cut()?;
    if wanted.maintenance {
        machine.store_mut().look_for_maintenance();
    }
    let more = machine.step(STEP_STREAMS)?;
    let store = machine.store_mut();
    let mut jobs: Vec<Job> = Vec::new();
    while !wanted.rests
        && let Some(job) = store.take_job()
    {
        jobs.push(job);
    }
    let scrub = (wanted.scrub && !wanted.rests && !more && jobs.is_empty())
        .then(|| store.begin_scrub())
        .flatten();
    let is_scrub = scrub.is_some();
    jobs.extend(scrub);
    let retired = store.take_retired();
    Ok(Turn {
        jobs,
        more,
        has_cut,
        is_scrub,
        retired,
    })
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
