//! Work of the store beside the entries: flushes, maintenance, scrubbing. Begun when it is due, prepared in short turns under the
//! machine's lock, done on a thread for blocking work, and taken over when it is done.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use halyard_engine::{Job, JobDone, Retired};
use halyard_runtime::task;
use halyard_runtime::time::Instant;

use super::{Driver, SHORT_INTERVAL};
use crate::jetstream::group::Machine;
use crate::jetstream::limits::{MAINTENANCE_INTERVAL, SCRUB_INTERVAL, STEP_STREAMS};
use crate::jetstream::progress::Progress;
use crate::jetstream::stream::machine::Fault;

/// How long work of the store that failed at damage is left alone.
const WORK_RETRY: Duration = Duration::from_secs(1);
/// The same where a file could not be opened, or space ran out after all.
const PASSING_RETRY: Duration = Duration::from_millis(100);
/// A flush that could not open a file is tried again after [`PASSING_RETRY`], later less often, up to this: files come back
/// without a sign.
const PASSING_RETRY_MAX: Duration = Duration::from_millis(500);
/// A flush that found no room is tried again after [`WORK_RETRY`], then after twice as long, and so on up to this, as each try
/// writes what there is room for; at once when there is more space than it found.
const FULL_RETRY_MAX: Duration = Duration::from_secs(8);
/// So many events are handled before what is being prepared has its next turn in any case.
const EVENTS_BEFORE_TURN: u8 = 16;

/// Which of the two jobs that may run at one time.
#[derive(Clone, Copy)]
pub(super) enum Work {
    Flush,
    Maintenance,
}

/// Work of the store on another thread.
pub(super) type Running = BoxFuture<'static, Result<JobDone, task::JoinError>>;

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
pub(super) struct Wanted {
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

impl Driver {
    /// Begins a flush or maintenance if one is due and none runs.
    pub(super) fn start_work(&mut self) {
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
    pub(super) fn take_turn(&mut self, wanted: &Wanted) {
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

    /// Takes over what a job has done.
    pub(super) fn finish_work(&mut self, done: Option<JobDone>, work: Work) {
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
        let (first, most) = match is_full {
            true => (WORK_RETRY, FULL_RETRY_MAX),
            false => (PASSING_RETRY, PASSING_RETRY_MAX),
        };
        let longer = |(_, pause): (Instant, Duration)| (pause * 2).min(most);
        let pause = self.retry.map_or(first, longer);
        self.retry = Some((Instant::now() + pause, pause));
    }

    /// So that a start after an orderly stop has little to replay.
    pub(super) async fn last_flush(&mut self) {
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
