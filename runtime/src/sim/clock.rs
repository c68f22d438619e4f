//! A node's clocks: how they run against true time, and timers on them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::World;

/// How a node's clocks differ from true time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// How much too fast (or, negative, too slow) it runs, in parts per million.
    pub drift_ppm: i64,
    /// How far the wall clock is ahead (or, negative, behind), in nanoseconds.
    pub skew_nanos: i64,
}

/// Where wall clocks start: 2026-01-01 00:00:00 UTC.
const WALL_START_NANOS: i64 = 1_767_225_600_000_000_000;

/// Where monotonic clocks start; each node's is moved on by something of its own.
const MONOTONIC_START_NANOS: u64 = 1 << 50;

/// A clock that stays continuous when its drift changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    clock: Clock,
    /// What the monotonic clock showed when the simulation began.
    origin_nanos: u64,
    since_nanos: u64,
    local_nanos: u64,
}

impl Running {
    pub(super) fn new(ordinal: u64) -> Self {
        let origin_nanos = MONOTONIC_START_NANOS + ordinal * 1_000_000_007;
        Self {
            clock: Clock::default(),
            origin_nanos,
            since_nanos: 0,
            local_nanos: origin_nanos,
        }
    }

    pub(super) fn set(&mut self, clock: Clock, now_nanos: u64) {
        assert!(
            clock.drift_ppm > -1_000_000,
            "a clock cannot stand still or run backwards"
        );
        self.local_nanos = self.monotonic(now_nanos);
        self.since_nanos = now_nanos;
        self.clock = clock;
    }

    pub(super) fn monotonic(&self, now_nanos: u64) -> u64 {
        let passed = i128::from(now_nanos - self.since_nanos);
        let local = passed * i128::from(1_000_000 + self.clock.drift_ppm) / 1_000_000;
        self.local_nanos + u64::try_from(local).unwrap_or(0)
    }

    pub(super) fn wall(&self, now_nanos: u64) -> i64 {
        let passed = self.monotonic(now_nanos) - self.origin_nanos;
        WALL_START_NANOS
            .saturating_add(i64::try_from(passed).unwrap_or(i64::MAX))
            .saturating_add(self.clock.skew_nanos)
    }

    /// How much true time passes while this clock counts `local`.
    fn true_duration(&self, local: Duration) -> Duration {
        let rate = u128::try_from(1_000_000 + self.clock.drift_ppm).unwrap_or(1);
        let nanos = local.as_nanos().saturating_mul(1_000_000).div_ceil(rate);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// The monotonic clock of the node that runs now.
pub(crate) fn monotonic_nanos() -> u64 {
    World::with(|world| {
        world
            .nodes
            .lock()
            .current_clock()
            .monotonic(world.now_nanos())
    })
}

/// The wall clock of the node that runs now.
pub(crate) fn wall_nanos() -> i64 {
    World::with(|world| world.nodes.lock().current_clock().wall(world.now_nanos()))
}

/// The longest that anything sleeps; virtual time ends long before.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The shortest: time must pass in a loop that only sleeps.
const SHORTEST: Duration = Duration::from_micros(1);

/// Waits on the clock of the node that made it.
pub(crate) struct SimSleep {
    sleep: madsim::time::Sleep,
    /// Who is woken by the timer that was set last. A timer is set for each poll of madsim's sleep; this keeps
    /// tasks that are polled often from setting thousands.
    waiting: Option<Waker>,
}

impl SimSleep {
    pub(crate) fn new(local: Duration) -> Self {
        let clock = World::with(|world| world.nodes.lock().current_clock());
        Self::for_true(clock.true_duration(local))
    }

    /// Waits for a duration of true time.
    pub(super) fn for_true(duration: Duration) -> Self {
        let deadline =
            World::with(|world| world.time.now_instant()) + duration.clamp(SHORTEST, FOREVER);
        let mut sleep = madsim::time::sleep_until(deadline);
        // madsim rounds what is shorter up to a millisecond when a sleep is made, but not when it is reset.
        Pin::new(&mut sleep).reset(deadline);
        Self {
            sleep,
            waiting: None,
        }
    }
}

impl Future for SimSleep {
    type Output = ();
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let set = this
            .waiting
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()));
        if set && !this.sleep.is_elapsed() {
            return Poll::Pending;
        }
        this.waiting = Some(cx.waker().clone());
        Pin::new(&mut this.sleep).poll(cx)
    }
}
