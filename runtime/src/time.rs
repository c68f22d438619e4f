//! Time: a monotonic clock, a wall clock, sleeping and time-outs.
//!
//! Nothing replicated may read these clocks (DESIGN section 2): only drivers do, and the leader puts what it read into
//! the log entry. In a simulation each node has its own clock, with skew and drift against the others.

use std::fmt;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub};
use std::pin::Pin;
use std::task::{Context, Poll};
pub use std::time::Duration;

/// A point on this node's monotonic clock, in nanoseconds from an origin that means nothing.
///
/// Comparable only with instants of the same node and the same run of the process. Arithmetic saturates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

/// Where real instants start: far enough from zero that subtracting an hour from a fresh one does not saturate.
const ORIGIN_NANOS: u64 = 1 << 50;

impl Instant {
    /// The monotonic clock, now.
    #[inline]
    pub fn now() -> Self {
        #[cfg(feature = "sim")]
        if crate::in_sim() {
            return Self(crate::sim::monotonic_nanos());
        }
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        let start = START.get_or_init(real_instant);
        let elapsed = real_instant().saturating_duration_since(*start);
        Self(ORIGIN_NANOS.saturating_add(nanos_u64(elapsed)))
    }

    /// How long ago this was; zero for a point in the future.
    pub fn elapsed(self) -> Duration {
        Self::now() - self
    }

    /// From `earlier` to this; zero when `earlier` is later.
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        self - earlier
    }
}

#[expect(clippy::disallowed_methods, reason = "the door to the monotonic clock")]
fn real_instant() -> std::time::Instant {
    std::time::Instant::now()
}

fn nanos_u64(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(nanos_u64(rhs)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(nanos_u64(rhs)))
    }
}

impl std::ops::SubAssign<Duration> for Instant {
    fn sub_assign(&mut self, rhs: Duration) {
        *self = *self - rhs;
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, rhs: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(rhs.0))
    }
}

/// Wall-clock time: nanoseconds since the Unix epoch (1970 to 2262; arithmetic saturates at the ends).
///
/// It may jump in either direction when somebody sets the clock: never use it to measure a duration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);
    /// The last moment that can be expressed.
    pub const MAX: Self = Self(i64::MAX);

    /// The wall clock, now.
    #[inline]
    pub fn now() -> Self {
        #[cfg(feature = "sim")]
        if crate::in_sim() {
            return Self(crate::sim::wall_nanos());
        }
        Self(real_wall_nanos())
    }

    /// From nanoseconds since the Unix epoch.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }
}

#[expect(clippy::disallowed_methods, reason = "the door to the wall clock")]
fn real_wall_nanos() -> i64 {
    match std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos),
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(rhs.as_nanos()).unwrap_or(i64::MAX)),
        )
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, rhs: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(i64::try_from(rhs.as_nanos()).unwrap_or(i64::MAX)),
        )
    }
}

/// The time from `rhs` to `self`; zero when `rhs` is later.
impl Sub for Timestamp {
    type Output = Duration;
    fn sub(self, rhs: Self) -> Duration {
        let nanos = i128::from(self.0) - i128::from(rhs.0);
        Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    }
}

pin_project_lite::pin_project! {
    /// Resolves once its moment has come; see [`sleep`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Sleep {
        #[pin]
        inner: Inner,
    }
}

pin_project_lite::pin_project! {
    #[project = InnerProjection]
    enum Inner {
        Real { #[pin] sleep: tokio::time::Sleep },
        Simulated { #[pin] sleep: SimSleep },
    }
}

#[cfg(feature = "sim")]
use crate::sim::SimSleep;

/// Without the simulator there is no simulated sleep, and this variant is never made.
#[cfg(not(feature = "sim"))]
type SimSleep = std::future::Pending<()>;

impl Future for Sleep {
    type Output = ();
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.project().inner.project() {
            InnerProjection::Real { sleep } => sleep.poll(cx),
            InnerProjection::Simulated { sleep } => sleep.poll(cx),
        }
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sleep")
    }
}

/// Waits for `duration`, never less. The production timer has a resolution of one millisecond.
///
/// Must be called on a runtime (or on a dedicated thread that was spawned from one).
#[expect(clippy::disallowed_methods, reason = "the door to the timer")]
pub fn sleep(duration: Duration) -> Sleep {
    #[cfg(feature = "sim")]
    if crate::in_sim() {
        return Sleep {
            inner: Inner::Simulated {
                sleep: SimSleep::new(duration),
            },
        };
    }
    Sleep {
        inner: Inner::Real {
            sleep: tokio::time::sleep(duration),
        },
    }
}

/// Waits until this node's monotonic clock has reached `deadline`.
pub fn sleep_until(deadline: Instant) -> Sleep {
    sleep(deadline - Instant::now())
}

/// The time that [`timeout`] allowed has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("deadline has elapsed")
    }
}

impl std::error::Error for Elapsed {}

impl From<Elapsed> for std::io::Error {
    fn from(elapsed: Elapsed) -> Self {
        Self::new(std::io::ErrorKind::TimedOut, elapsed)
    }
}

pin_project_lite::pin_project! {
    /// A future with a deadline; see [`timeout`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Timeout<F> {
        #[pin]
        future: F,
        #[pin]
        sleep: Sleep,
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // The future first: an answer that came in time is never thrown away.
        if let Poll::Ready(value) = this.future.poll(cx) {
            return Poll::Ready(Ok(value));
        }
        this.sleep.poll(cx).map(|()| Err(Elapsed))
    }
}

/// Runs `future` for at most `duration`; a future that does not end in time is dropped with the returned one.
pub fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    Timeout {
        future,
        sleep: sleep(duration),
    }
}

/// [`timeout`] with a deadline instead of a duration.
pub fn timeout_at<F: Future>(deadline: Instant, future: F) -> Timeout<F> {
    Timeout {
        future,
        sleep: sleep_until(deadline),
    }
}
