//! The task of one connection: reads for its session, and writes what publishers could not.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use halyard_net::proto::CloseReason;
use halyard_runtime::time::{self, Instant, Sleep};

use super::buffers;
use super::connection::Connection;
use super::front::Front;
use super::link::Link;
use super::session::Session;
use crate::broker::{FlushScope, Pressed, Pressure, Sink, Visitor};
use crate::caps;

/// Serves one client until the connection ends.
pub(crate) async fn serve(front: Arc<Front>, connection: Arc<Connection>, link: Arc<dyn Link>) {
    let seat = Seat::new(front.clone(), connection.clone());
    let mut driver = Driver {
        session: greet(&front, &connection),
        armed: Instant::now() + NEVER,
        connection: Arc::clone(&connection),
        link: Arc::clone(&link),
        partial: Vec::new(),
        need: 1,
        paused: None,
        visitor: front.broker.admission().visitor(),
        write_deadline: front.settings().write_deadline,
    };
    let mut sleep = pin!(time::sleep_until(driver.armed));
    let reason = poll_fn(|cx| driver.poll(cx, sleep.as_mut())).await;
    driver.session.close();
    drop(driver);
    turn_away(seat, link, reason).await;
}

/// A connection's place among those that there are: given up when this is dropped, whatever ends its task.
pub(crate) struct Seat {
    front: Arc<Front>,
    connection: Arc<Connection>,
    reason: CloseReason,
}

impl Seat {
    /// The place of a connection that is in the registry.
    pub(crate) const fn new(front: Arc<Front>, connection: Arc<Connection>) -> Self {
        Self {
            front,
            connection,
            reason: CloseReason::ServerShutdown,
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Self {
            front,
            connection,
            reason,
        } = self;
        let who = connection.outbound.who();
        if std::thread::panicking() {
            *reason = CloseReason::ReadError;
            tracing::error!("{who} - its task has panicked, which is a bug: it is closed");
        }
        connection.outbound.shut(*reason);
        let keep = front.settings().limits.max_closed_clients;
        front.registry.remove(connection, *reason, keep);
        tracing::debug!("{who} - Client connection closed: {reason}");
    }
}

/// Ends a connection: what was said to it last still leaves, if it takes it.
pub(crate) async fn turn_away(mut seat: Seat, link: Arc<dyn Link>, reason: CloseReason) {
    seat.reason = reason;
    linger(&seat.connection, &*link, reason).await;
}

/// Until the timer is set for the first time.
const NEVER: time::Duration = time::Duration::from_secs(1 << 30);

fn greet(front: &Arc<Front>, connection: &Arc<Connection>) -> Session {
    let _scope = FlushScope::new();
    Session::new(front, connection, Instant::now())
}

/// For whom a publisher waits, and until when at most.
struct Pause(Vec<(Instant, Arc<dyn Sink>)>);

struct Driver {
    session: Session,
    connection: Arc<Connection>,
    link: Arc<dyn Link>,
    /// The beginning of an operation whose end has not come yet.
    partial: Vec<u8>,
    /// Bytes without which `partial` makes no sense.
    need: usize,
    /// The client is not read for a moment, because a receiver of its messages is slow.
    paused: Option<Pause>,
    /// Where a message that is longer than one read asks for its room.
    visitor: Visitor,
    /// What the timer is set to.
    armed: Instant,
    write_deadline: time::Duration,
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>, mut sleep: Pin<&mut Sleep>) -> Poll<CloseReason> {
        self.connection.outbound.register(cx.waker());
        let now = Instant::now();
        let done = self.advance(cx, now);
        if let Err(reason) = done {
            return Poll::Ready(reason);
        }
        let next = self.next_deadline();
        if next < self.armed || now >= self.armed {
            self.armed = next;
            sleep.set(time::sleep_until(next));
            if sleep.poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    fn advance(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), CloseReason> {
        self.write(cx, now)?;
        self.visitor.look(now);
        if now >= self.session.deadline() {
            if self.paused.is_some() || !self.is_admitted(cx, now) {
                // It is not read: what it says meanwhile is not heard.
                self.session.bear_with(now);
            }
            let _scope = FlushScope::new();
            self.session.timeout(now)?;
        }
        if self.is_paused(cx, now) {
            return Ok(());
        }
        self.read(cx, now)?;
        // The client's own answers may have met a full socket: its writability is awaited in this very poll.
        self.write(cx, now)
    }

    /// Goes on writing what publishers had to leave.
    fn write(&self, cx: &mut Context<'_>, now: Instant) -> Result<(), CloseReason> {
        let outbound = &self.connection.outbound;
        loop {
            if let Some(reason) = outbound.closed() {
                return Err(reason);
            }
            let Some(since) = outbound.blocked_since() else {
                return Ok(());
            };
            match self.link.poll_write_ready(cx) {
                Poll::Ready(Ok(())) => {
                    outbound.resume();
                }
                Poll::Ready(Err(_)) => return Err(CloseReason::WriteError),
                Poll::Pending if now - since >= self.write_deadline => {
                    let (who, deadline) = (outbound.who(), self.write_deadline);
                    tracing::info!(
                        "{who} - Slow Consumer Detected: WriteDeadline of {deadline:?} exceeded"
                    );
                    return Err(CloseReason::SlowConsumerWriteDeadline);
                }
                Poll::Pending => return Ok(()),
            }
        }
    }

    /// Whether the client is still not read.
    fn is_paused(&mut self, cx: &Context<'_>, now: Instant) -> bool {
        let Some(pause) = &mut self.paused else {
            return false;
        };
        pause.0.retain(|(until, sink)| {
            let is_pressed = sink.is_pressed(cx.waker());
            if is_pressed && now >= *until {
                sink.waited_in_vain();
            }
            is_pressed && now < *until
        });
        if pause.0.is_empty() {
            self.paused = None;
        }
        self.paused.is_some()
    }

    fn read(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), CloseReason> {
        for _ in 0..caps::READS_PER_TURN {
            if !self.is_admitted(cx, now) {
                return Ok(());
            }
            let read = buffers::with_scratch(|scratch| self.read_once(cx, scratch, now));
            let Poll::Ready(pressed) = read else {
                return Ok(());
            };
            let Pressed { sinks, pressure } = pressed?;
            match pressure {
                Pressure::Low => continue,
                Pressure::Soft => {}
                Pressure::High | Pressure::Full => {
                    let stalls = &self.connection.traffic.stalls;
                    stalls.fetch_add(1, Ordering::Relaxed);
                }
            }
            let until = |(pressure, sink)| (now + longest_pause(pressure), sink);
            self.paused = Some(Pause(sinks.into_iter().map(until).collect()));
            if self.is_paused(cx, now) {
                return Ok(());
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// Whether there is room for what is being read; if not, the task is woken when there may be.
    fn is_admitted(&mut self, cx: &Context<'_>, now: Instant) -> bool {
        self.need <= caps::READ_BYTES || self.visitor.enter(self.need, now, cx.waker())
    }

    /// One read, and what it brings.
    fn read_once(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        now: Instant,
    ) -> Poll<Result<Pressed, CloseReason>> {
        // A short beginning goes in front of the new bytes; a long one (a large payload) is completed where it lies.
        let in_place = self.partial.len() <= scratch.len() / 2 && self.need <= scratch.len();
        let kept = if in_place { self.partial.len() } else { 0 };
        let Some((front, free)) = scratch.split_at_mut_checked(kept) else {
            return Poll::Ready(Err(CloseReason::ReadError));
        };
        let count = match self.link.poll_read(cx, free) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(0)) => return Poll::Ready(Err(CloseReason::ClientClosed)),
            Poll::Ready(Ok(count)) => count,
            Poll::Ready(Err(_)) => return Poll::Ready(Err(CloseReason::ReadError)),
        };
        let scope = FlushScope::new();
        let result = if in_place {
            front.copy_from_slice(&self.partial);
            self.partial.clear();
            let input = scratch.get(..kept + count);
            let input = input.expect("no more is read than there is room for");
            self.take(input, now)
        } else {
            // At once for all of it: growing step by step leaves holes of every size.
            self.partial
                .reserve_exact(self.need.saturating_sub(self.partial.len()));
            self.partial.extend_from_slice(
                free.get(..count)
                    .expect("no more is read than there is room for"),
            );
            self.take_partial(now)
        };
        let pressed = scope.finish();
        Poll::Ready(result.map(|()| pressed))
    }

    /// Feeds the session; what it leaves becomes the next beginning.
    fn take(&mut self, input: &[u8], now: Instant) -> Result<(), CloseReason> {
        let taken = self.session.input(input, now)?;
        self.need = taken.need;
        let rest = input.get(taken.consumed..);
        let rest = rest.expect("no more is consumed than came");
        if rest.is_empty() {
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(rest);
        }
        Ok(())
    }

    fn take_partial(&mut self, now: Instant) -> Result<(), CloseReason> {
        if self.partial.len() < self.need {
            return Ok(());
        }
        let input = std::mem::take(&mut self.partial);
        let taken = self.take(&input, now);
        self.visitor.leave();
        taken
    }

    fn next_deadline(&self) -> Instant {
        let mut next = self.session.deadline();
        if let Some(pause) = &self.paused {
            next = pause
                .0
                .iter()
                .fold(next, |next, (until, _)| next.min(*until));
        }
        if let Some(until) = self.visitor.deadline() {
            next = next.min(until);
        }
        if let Some(since) = self.connection.outbound.blocked_since() {
            next = next.min(since + self.write_deadline);
        }
        next
    }
}

/// How long a publisher waits at most for a sink under such pressure.
const fn longest_pause(pressure: Pressure) -> time::Duration {
    match pressure {
        Pressure::Low => time::Duration::ZERO,
        Pressure::Soft => caps::SOFT_PAUSE,
        Pressure::High => caps::STALL,
        Pressure::Full => caps::FULL_PAUSE,
    }
}

/// Lets the last bytes leave, the reason of the closing among them, and then ends the stream.
async fn linger(connection: &Connection, link: &dyn Link, reason: CloseReason) {
    let outbound = &connection.outbound;
    // Nobody is there, or whoever is there does not read: nothing to wait for.
    if matches!(
        reason,
        CloseReason::WriteError
            | CloseReason::ReadError
            | CloseReason::SlowConsumerPendingBytes
            | CloseReason::SlowConsumerWriteDeadline
    ) {
        return;
    }
    let drained = poll_fn(|cx| {
        loop {
            outbound.resume();
            if outbound.is_written_out() {
                break;
            }
            if outbound.blocked_since().is_none() {
                // A publisher's thread is writing at this moment.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match link.poll_write_ready(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => break,
                Poll::Pending => return Poll::Pending,
            }
        }
        link.shutdown_write();
        if reason == CloseReason::ClientClosed || reason == CloseReason::ServerShutdown {
            return Poll::Ready(());
        }
        // Bytes left unread would make the system reset the connection, and the client lose our last words.
        loop {
            match buffers::with_scratch(|scratch| link.poll_read(cx, scratch)) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    // Whoever does not take them in time does without them.
    let _ = time::timeout(caps::CLOSE_LINGER, drained).await;
}
