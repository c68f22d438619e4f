//! What waits to be written to one connection, and how it gets out.
//!
//! Publishers append deliveries under a short lock and flush once for each batch, in their own task, without waiting:
//! most messages leave with no task switch at all. Only what the socket does not take is left to the connection's own
//! task ([`Outbound::is_blocked`]). One flush runs at a time and holds no lock while it writes.
//!
//! Bytes leave in the order in which they were appended. The sum of what waits is bounded by `max_pending`: whoever
//! exceeds it is closed as a slow consumer, and its buffers are dropped at once.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;

use futures::task::AtomicWaker;
use halyard_net::proto::CloseReason;
use halyard_net::proto::encoder;
use halyard_runtime::time::Instant;
use parking_lot::{Mutex, MutexGuard};

use super::connection::ClientNames;
use super::link::Link;
use super::output::{Output, Progress};
use crate::broker::{ClientId, Delivered, Pressure, Publish, Sink, Subscription, flush};
use crate::caps;
use crate::log::protocol;

/// The sending half of a connection.
pub(crate) struct Outbound {
    me: Weak<Self>,
    client: ClientId,
    /// The connection's name in logs.
    /// Its address and number.
    who: Box<str>,
    /// The same, and what it said and was let in as.
    known: OnceLock<Box<str>>,
    task: AtomicWaker,
    max_pending: AtomicUsize,
    /// The client gets its own messages back.
    echo: AtomicBool,
    /// The client understands header blocks.
    headers: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    link: Option<Arc<dyn Link>>,
    output: Output,
    /// Bytes that a running flush has taken out of `output`.
    in_flight: usize,
    /// A flush scope somewhere will flush.
    deferred: bool,
    /// A flush is running.
    writing: bool,
    /// The socket took less than offered, at this time; the connection's task continues.
    blocked: Option<Instant>,
    closed: Option<CloseReason>,
    /// Publishers that wait for this to drain.
    waiting: Vec<Waker>,
    /// Something was written since the last publisher began to wait.
    drained: bool,
    /// How often publishers have waited in vain since something was written. Too often: they do so no more.
    vain_waits: u32,
    messages: u64,
    bytes: u64,
    /// Sids of subscriptions that had their last message; the session forgets them.
    ended: Vec<Box<[u8]>>,
}

/// Counters of a connection's sending half.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OutboundCounters {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) pending: usize,
}

impl Outbound {
    /// The sending half of the connection `client`, called `who` in logs.
    pub(crate) fn new(
        client: ClientId,
        who: String,
        link: Arc<dyn Link>,
        max_pending: usize,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: Weak::clone(me),
            client,
            who: who.into_boxed_str(),
            known: OnceLock::new(),
            task: AtomicWaker::new(),
            max_pending: AtomicUsize::new(max_pending),
            echo: AtomicBool::new(true),
            headers: AtomicBool::new(false),
            state: Mutex::new(State {
                link: Some(link),
                ..State::default()
            }),
        })
    }

    /// What the client said in CONNECT.
    pub(crate) fn set_options(&self, echo: bool, headers: bool) {
        self.echo.store(echo, Ordering::Relaxed);
        self.headers.store(headers, Ordering::Relaxed);
    }

    /// The connection's name in logs.
    pub(crate) fn who(&self) -> &str {
        self.known.get().unwrap_or(&self.who)
    }

    /// What the client is called in logs from now on. The first CONNECT decides.
    pub(crate) fn set_names(&self, names: &ClientNames) {
        let mut known = self.who.to_string();
        let mut parts = vec![&*names.lang, &*names.name];
        parts.retain(|part| !part.is_empty());
        // Writing to a string cannot fail.
        if !names.version.is_empty() || !parts.is_empty() {
            let version = &names.version;
            let named = format!("v{version}:{}", parts.join(":"));
            let _ = write!(known, " - {:?}", named.trim_end_matches(':'));
        }
        if let Some(user) = &names.user {
            let _ = write!(known, " - {:?}", format!("{}/user:{user}", names.account));
        }
        self.known.set(known.into_boxed_str()).ok();
    }

    /// Appends protocol lines of the server itself; they leave with the next flush.
    pub(crate) fn send(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let first = {
            let mut state = self.state.lock();
            if state.closed.is_some() {
                return;
            }
            let line = state.output.append(write);
            if protocol::is_on() {
                self.trace(line);
            }
            self.end_append(&mut state)
        };
        self.defer_if(first);
    }

    /// Closes the connection: its task is woken and finishes it. The first reason stays.
    pub(crate) fn close(&self, reason: CloseReason) {
        let mut state = self.state.lock();
        Self::close_locked(&mut state, reason);
        drop(state);
        self.task.wake();
    }

    /// Whether it is closed, and why.
    pub(crate) fn closed(&self) -> Option<CloseReason> {
        self.state.lock().closed
    }

    /// The connection is gone: drops the socket and the buffers.
    pub(crate) fn shut(&self, reason: CloseReason) {
        let mut state = self.state.lock();
        Self::close_locked(&mut state, reason);
        state.output = Output::default();
        state.link = None;
        state.wake_waiting();
    }

    /// The waker of the connection's own task.
    pub(crate) fn register(&self, task: &Waker) {
        self.task.register(task);
    }

    /// Since when the socket has taken nothing while something waits for it.
    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        self.state.lock().blocked
    }

    /// Whether everything that was appended has been handed to the socket; if not, and it is not blocked, another thread is
    /// at it.
    pub(crate) fn is_written_out(&self) -> bool {
        let state = self.state.lock();
        state.pending() == 0 || state.link.is_none()
    }

    /// The connection's own task goes on writing after the socket has said that it takes more.
    pub(crate) fn resume(&self) -> Pressure {
        let mut state = self.state.lock();
        let since = state.blocked.take();
        let (pressure, written) = self.write_out(&mut state, true);
        if written == 0 && state.blocked.is_some() {
            // A false alarm does not buy a slow reader more time.
            state.blocked = since;
        }
        pressure
    }

    pub(crate) fn counters(&self) -> OutboundCounters {
        let state = self.state.lock();
        OutboundCounters {
            messages: state.messages,
            bytes: state.bytes,
            pending: state.pending(),
        }
    }

    /// Subscriptions that ended by themselves since the last call.
    pub(crate) fn take_ended(&self) -> Vec<Box<[u8]>> {
        std::mem::take(&mut self.state.lock().ended)
    }

    #[cold]
    fn trace(&self, line: &[u8]) {
        let line = line.trim_ascii();
        let end = line
            .iter()
            .position(|byte| *byte == b' ')
            .unwrap_or(line.len());
        let (operation, arguments) = line.split_at_checked(end).unwrap_or_default();
        let operation = String::from_utf8_lossy(operation);
        protocol::sent(&self.who(), &operation, arguments.trim_ascii());
    }

    #[cold]
    fn trace_message(&self, subscription: &Subscription, message: &Publish<'_>) {
        let mut line = Vec::new();
        let (sid, headers) = (subscription.sid(), message.headers.len());
        encoder::msg_head(
            &mut line,
            message.subject,
            sid,
            message.reply,
            headers,
            message.size(),
        );
        self.trace(&line);
        protocol::payload_sent(&self.who(), message.headers, message.payload);
    }

    fn close_locked(state: &mut State, reason: CloseReason) {
        state.closed.get_or_insert(reason);
    }

    fn defer_if(&self, first: bool) {
        if first && let Some(me) = self.me.upgrade() {
            flush::defer(me);
        }
    }

    /// Checks what was appended against the limit. Whether the caller has to have it flushed.
    #[inline]
    fn end_append(&self, state: &mut State) -> bool {
        let most = self.max_pending.load(Ordering::Relaxed);
        if state.pending() > most {
            let who = self.who();
            tracing::info!("{who} - Slow Consumer Detected: MaxPending of {most} Exceeded");
            self.give_up(state, CloseReason::SlowConsumerPendingBytes);
        }
        !std::mem::replace(&mut state.deferred, true)
    }

    /// Closes a connection to which nothing more can be said.
    #[cold]
    fn give_up(&self, state: &mut State, reason: CloseReason) {
        Self::close_locked(state, reason);
        state.output = Output::default();
        state.blocked = None;
        state.wake_waiting();
        self.task.wake();
    }

    /// Writes what waits as long as the socket takes it, without the lock meanwhile; also says how much has left.
    fn write_out(&self, state: &mut MutexGuard<'_, State>, own_task: bool) -> (Pressure, usize) {
        state.deferred = false;
        let mut written = 0;
        if state.writing || state.blocked.is_some() || state.output.is_empty() {
            return (self.pressure(state), written);
        }
        let Some(link) = state.link.clone() else {
            return (Pressure::Low, written);
        };
        state.writing = true;
        let mut progress = Progress::Done;
        for _ in 0..caps::WRITES_PER_FLUSH {
            let mut batch = std::mem::take(&mut state.output);
            state.in_flight = batch.len();
            progress = MutexGuard::unlocked(state, || batch.write(&*link));
            written += state.in_flight - batch.len();
            state.in_flight = 0;
            match progress {
                _ if state.is_given_up() => break,
                Progress::Failed => self.give_up(state, CloseReason::WriteError),
                Progress::Done | Progress::Blocked => {
                    batch.append_all(std::mem::take(&mut state.output));
                    state.output = batch;
                }
            }
            // What has come meanwhile under a scope that is still open is flushed when that ends, not piecemeal.
            if progress != Progress::Done || state.output.is_empty() || state.deferred {
                break;
            }
        }
        state.writing = false;
        if written > 0 {
            (state.drained, state.vain_waits) = (true, 0);
            if state.pending() <= self.soft_limit() / 2 {
                state.wake_waiting();
            }
        }
        let others_flush = state.deferred && progress == Progress::Done;
        if !state.output.is_empty() && !others_flush {
            state.blocked = Some(Instant::now());
            if !own_task {
                self.task.wake();
            }
        }
        (self.pressure(state), written)
    }

    fn pressure(&self, state: &State) -> Pressure {
        let (part, of) = caps::STALL_SHARE;
        let pending = state.pending();
        if pending > self.max_pending.load(Ordering::Relaxed) / of * part {
            Pressure::High
        } else if pending > self.soft_limit() && state.vain_waits < caps::VAIN_WAITS_MAX {
            Pressure::Soft
        } else {
            Pressure::Low
        }
    }

    fn soft_limit(&self) -> usize {
        caps::SOFT_PENDING_BYTES.min(self.max_pending.load(Ordering::Relaxed) / 2)
    }

    /// Appends one delivery.
    #[inline]
    fn append_message(&self, output: &mut Output, sid: &[u8], message: &Publish<'_>) {
        let Publish {
            subject,
            reply,
            payload,
            ..
        } = *message;
        let with_headers = self.headers.load(Ordering::Relaxed) || message.headers.is_empty();
        let headers = if with_headers { message.headers } else { &[] };
        let size = headers.len() + payload.len();
        if size < caps::SHARED_BODY_BYTES || !with_headers {
            output.append(|out| encoder::msg(out, subject, sid, reply, headers, payload));
        } else {
            let headers = headers.len();
            output.append(|out| encoder::msg_head(out, subject, sid, reply, headers, size));
            output.append_shared(message.shared_body());
        }
    }
}

impl Sink for Outbound {
    fn deliver(&self, subscription: &Subscription, message: &Publish<'_>) -> Delivered {
        if message.origin.client() == Some(self.client) && !self.echo.load(Ordering::Relaxed) {
            return Delivered::Refused;
        }
        let (first, last) = {
            let mut state = self.state.lock();
            if state.closed.is_some() {
                return Delivered::Refused;
            }
            let Some(last) = subscription.count() else {
                return Delivered::Refused;
            };
            if last {
                state.ended.push(subscription.sid().into());
            }
            self.append_message(&mut state.output, subscription.sid(), message);
            if protocol::is_on() {
                self.trace_message(subscription, message);
            }
            state.messages += 1;
            state.bytes += message.size() as u64;
            (self.end_append(&mut state), last)
        };
        self.defer_if(first);
        if last {
            Delivered::Last
        } else {
            Delivered::Accepted
        }
    }

    fn flush(&self) -> Pressure {
        self.write_out(&mut self.state.lock(), false).0
    }

    fn is_pressed(&self, waker: &Waker) -> bool {
        let mut state = self.state.lock();
        if state.pending() <= self.soft_limit() / 2 {
            return false;
        }
        if !state.waiting.iter().any(|held| held.will_wake(waker)) {
            if state.waiting.is_empty() {
                state.drained = false;
            }
            state.waiting.push(waker.clone());
        }
        true
    }

    fn waited_in_vain(&self) {
        let mut state = self.state.lock();
        if !state.drained {
            state.vain_waits = state.vain_waits.saturating_add(1);
        }
        state.waiting.clear();
    }
}

impl State {
    /// Bytes that are not written yet.
    #[inline]
    const fn pending(&self) -> usize {
        self.output.len() + self.in_flight
    }

    fn wake_waiting(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }

    /// Whether nothing more can be said. After an orderly close the last bytes (the reason of it) still leave.
    const fn is_given_up(&self) -> bool {
        matches!(
            self.closed,
            Some(CloseReason::SlowConsumerPendingBytes | CloseReason::WriteError)
        ) || self.link.is_none()
    }
}

#[cfg(test)]
#[path = "outbound_test.rs"]
mod tests;
