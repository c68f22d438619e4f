//! What waits to be written to one connection, and how it gets out.
//!
//! Publishers append deliveries under a short lock and flush once for each batch, in their own task, without waiting:
//! most messages leave with no task switch at all. Only what the socket does not take is left to the connection's own
//! task ([`Outbound::is_blocked`]). One flush runs at a time and holds no lock while it writes.
//!
//! Bytes leave in the order in which they were appended. The sum of what waits is bounded by `max_pending`: whoever
//! exceeds it is closed as a slow consumer, and its buffers are dropped at once.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::Waker;

use bytes::Bytes;
use futures::task::AtomicWaker;
use halyard_net::proto::CloseReason;
use halyard_net::proto::encoder;
use halyard_runtime::time::Instant;
use parking_lot::{Mutex, MutexGuard};

use super::buffers;
use super::link::Link;
use crate::broker::{ClientId, Delivered, Pressure, Publish, Sink, Subscription, flush};
use crate::caps;
use crate::log::protocol;

/// The sending half of a connection.
pub(crate) struct Outbound {
    me: Weak<Self>,
    client: ClientId,
    /// The connection's name in logs.
    who: Box<str>,
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
    queue: VecDeque<Chunk>,
    tail: Vec<u8>,
    pending: usize,
    /// A flush scope somewhere will flush.
    deferred: bool,
    /// A flush is writing; it holds chunks that are counted in `pending`.
    writing: bool,
    /// The socket took less than offered, at this time; the connection's task continues.
    blocked: Option<Instant>,
    closed: Option<CloseReason>,
    messages: u64,
    bytes: u64,
    /// Sids of subscriptions that had their last message; the session forgets them.
    ended: Vec<Box<[u8]>>,
}

/// A piece of the output.
enum Chunk {
    Owned(Vec<u8>),
    Shared(Bytes),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
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
        &self.who
    }

    /// Appends protocol lines of the server itself; they leave with the next flush.
    pub(crate) fn send(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let first = {
            let mut state = self.state.lock();
            if state.closed.is_some() {
                return;
            }
            state.begin_append();
            let before = state.tail.len();
            write(&mut state.tail);
            if protocol::is_on() {
                self.trace(state.tail.get(before..).unwrap_or_default());
            }
            let added = state.tail.len() - before;
            self.end_append(&mut state, added)
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
        state.drop_buffers();
        state.link = None;
    }

    /// The waker of the connection's own task.
    pub(crate) fn register(&self, task: &Waker) {
        self.task.register(task);
    }

    /// Since when the socket has taken nothing while something waits for it.
    pub(crate) fn blocked_since(&self) -> Option<Instant> {
        self.state.lock().blocked
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
            pending: state.pending,
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
        protocol::sent(&self.who, &operation, arguments.trim_ascii());
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
    }

    fn close_locked(state: &mut State, reason: CloseReason) {
        state.closed.get_or_insert(reason);
    }

    fn defer_if(&self, first: bool) {
        if first && let Some(me) = self.me.upgrade() {
            flush::defer(me);
        }
    }

    /// Counts what was appended. Whether the caller has to have it flushed.
    #[inline]
    fn end_append(&self, state: &mut State, added: usize) -> bool {
        state.pending += added;
        if state.pending > self.max_pending.load(Ordering::Relaxed) {
            let most = self.max_pending.load(Ordering::Relaxed);
            tracing::info!(
                "{} - Slow Consumer Detected: MaxPending of {most} Exceeded",
                self.who
            );
            Self::close_locked(state, CloseReason::SlowConsumerPendingBytes);
            state.drop_buffers();
            self.task.wake();
        }
        !std::mem::replace(&mut state.deferred, true)
    }

    /// Writes what waits as long as the socket takes it, without the lock meanwhile; also says how much has left.
    fn write_out(&self, state: &mut MutexGuard<'_, State>, own_task: bool) -> (Pressure, usize) {
        state.deferred = false;
        let mut written = 0;
        if state.writing || state.blocked.is_some() || state.closed_for_writing() {
            return (self.pressure(state), written);
        }
        let Some(link) = state.link.clone() else {
            return (Pressure::Low, written);
        };
        state.writing = true;
        let mut progress = Progress::More;
        for _ in 0..caps::WRITES_PER_FLUSH {
            let Some(mut batch) = state.take_batch() else {
                break;
            };
            progress = MutexGuard::unlocked(state, || batch.write(&*link));
            written += batch.written;
            state.put_back(batch);
            if progress != Progress::More {
                break;
            }
        }
        state.writing = false;
        if progress == Progress::Failed {
            Self::close_locked(state, CloseReason::WriteError);
            state.drop_buffers();
            self.task.wake();
        } else if state.pending > 0 {
            state.blocked = Some(Instant::now());
            if !own_task {
                self.task.wake();
            }
        }
        (self.pressure(state), written)
    }

    fn pressure(&self, state: &State) -> Pressure {
        let (part, of) = caps::STALL_SHARE;
        let high = self.max_pending.load(Ordering::Relaxed) / of * part;
        if state.pending > high {
            Pressure::High
        } else {
            Pressure::Low
        }
    }

    /// Appends one delivery; the number of bytes that it takes.
    #[inline]
    fn append_message(&self, state: &mut State, sid: &[u8], message: &Publish<'_>) -> usize {
        let headers = if self.headers.load(Ordering::Relaxed) {
            message.headers
        } else {
            &[]
        };
        let (subject, reply) = (message.subject, message.reply);
        let size = headers.len() + message.payload.len();
        state.begin_append();
        let before = state.tail.len();
        if size < caps::SHARED_BODY_BYTES || headers.len() != message.headers.len() {
            encoder::msg(
                &mut state.tail,
                subject,
                sid,
                reply,
                headers,
                message.payload,
            );
            return state.tail.len() - before;
        }
        encoder::msg_head(&mut state.tail, subject, sid, reply, headers.len(), size);
        let head = state.tail.len() - before;
        state.seal_tail();
        let body = message.shared_body();
        let added = head + body.len();
        state.queue.push_back(Chunk::Shared(body));
        added
    }
}

impl Sink for Outbound {
    fn deliver(&self, subscription: &Subscription, message: &Publish<'_>) -> Delivered {
        if message.origin == Some(self.client) && !self.echo.load(Ordering::Relaxed) {
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
            let added = self.append_message(&mut state, subscription.sid(), message);
            if protocol::is_on() {
                self.trace_message(subscription, message);
            }
            state.messages += 1;
            state.bytes += message.size() as u64;
            (self.end_append(&mut state, added), last)
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
}

impl State {
    /// Makes the tail fit for one more message.
    #[inline]
    fn begin_append(&mut self) {
        if self.tail.len() >= caps::CHUNK_BYTES {
            let full = std::mem::replace(&mut self.tail, buffers::take());
            self.queue.push_back(Chunk::Owned(full));
        } else if self.tail.capacity() == 0 {
            self.tail = buffers::take();
        }
    }

    /// Moves the tail to the queue, so that a shared chunk may follow it.
    fn seal_tail(&mut self) {
        if self.tail.is_empty() {
            return;
        }
        // A control line alone must not keep a large buffer waiting with it.
        if self.tail.len() < self.tail.capacity() / 4 {
            self.queue
                .push_back(Chunk::Owned(self.tail.as_slice().to_vec()));
            self.tail.clear();
        } else {
            self.queue
                .push_back(Chunk::Owned(std::mem::take(&mut self.tail)));
        }
    }

    /// Everything that waits, for a flush to write without the lock.
    fn take_batch(&mut self) -> Option<Batch> {
        if self.pending == 0 {
            return None;
        }
        let tail = std::mem::take(&mut self.tail);
        Some(Batch {
            queue: std::mem::take(&mut self.queue),
            tail,
            written: 0,
        })
    }

    /// Takes back what was not written, in front of what has come since.
    fn put_back(&mut self, mut batch: Batch) {
        if self.closed_for_writing() {
            return;
        }
        assert!(
            batch.written <= self.pending,
            "only what was counted is written"
        );
        self.pending -= batch.written;
        batch.drop_written();
        if batch.tail.is_empty() {
            buffers::give(std::mem::take(&mut batch.tail));
        }
        if batch.queue.is_empty() && batch.tail.is_empty() {
            return;
        }
        if self.queue.is_empty() && self.tail.is_empty() {
            self.tail = batch.tail;
            self.queue = batch.queue;
            return;
        }
        if !batch.tail.is_empty() {
            batch.queue.push_back(Chunk::Owned(batch.tail));
        }
        batch.queue.append(&mut self.queue);
        self.queue = batch.queue;
    }

    fn closed_for_writing(&self) -> bool {
        // After an orderly close the last bytes (the reason of it) still leave; after these, nothing can.
        matches!(
            self.closed,
            Some(
                CloseReason::SlowConsumerPendingBytes
                    | CloseReason::SlowConsumerWriteDeadline
                    | CloseReason::WriteError
            )
        ) || self.link.is_none()
    }

    fn drop_buffers(&mut self) {
        self.queue = VecDeque::new();
        self.tail = Vec::new();
        self.pending = 0;
        self.blocked = None;
    }
}

/// What one flush has in its hands.
struct Batch {
    queue: VecDeque<Chunk>,
    tail: Vec<u8>,
    written: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// All of it left.
    More,
    /// The socket took less.
    Blocked,
    /// The connection is broken.
    Failed,
}

impl Batch {
    fn write(&mut self, link: &dyn Link) -> Progress {
        loop {
            let (count, progress) = if self.queue.is_empty() {
                let rest = self.tail.get(self.written..).unwrap_or_default();
                write_once(link, &[IoSlice::new(rest)], rest.len())
            } else {
                let mut pieces = [IoSlice::new(&[]); caps::WRITE_PIECES];
                let (count, whole) = self.gather(&mut pieces);
                write_once(link, pieces.get(..count).unwrap_or_default(), whole)
            };
            self.written += count;
            if progress != Progress::More || self.written == self.length() {
                return progress;
            }
        }
    }

    fn length(&self) -> usize {
        let queued: usize = self.queue.iter().map(|chunk| chunk.bytes().len()).sum();
        queued + self.tail.len()
    }

    /// The next pieces behind what is written, their number and their length.
    fn gather<'a>(&'a self, pieces: &mut [IoSlice<'a>]) -> (usize, usize) {
        let (mut skip, mut count, mut whole) = (self.written, 0, 0);
        let chunks = self
            .queue
            .iter()
            .map(Chunk::bytes)
            .chain([self.tail.as_slice()]);
        let mut places = pieces.iter_mut();
        for chunk in chunks {
            let rest = chunk.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(chunk.len());
            if rest.is_empty() {
                continue;
            }
            let Some(place) = places.next() else { break };
            *place = IoSlice::new(rest);
            count += 1;
            whole += rest.len();
        }
        (count, whole)
    }

    /// Drops the bytes that were written.
    fn drop_written(&mut self) {
        let mut written = self.written;
        while let Some(front) = self.queue.front() {
            let length = front.bytes().len();
            if written < length {
                break;
            }
            written -= length;
            if let Some(Chunk::Owned(buffer)) = self.queue.pop_front() {
                buffers::give(buffer);
            }
        }
        if written == 0 {
            return;
        }
        match self.queue.front_mut() {
            Some(Chunk::Shared(bytes)) => *bytes = bytes.slice(written..),
            Some(Chunk::Owned(bytes)) => drop_front(bytes, written),
            None => drop_front(&mut self.tail, written),
        }
    }
}

/// Drops the first `count` bytes; what stays small leaves its large buffer to others.
fn drop_front(buffer: &mut Vec<u8>, count: usize) {
    let rest = buffer.get(count..).unwrap_or_default();
    if rest.is_empty() {
        buffer.clear();
    } else if rest.len() < buffer.capacity() / 4 {
        let rest = rest.to_vec();
        buffers::give(std::mem::replace(buffer, rest));
    } else {
        buffer.drain(..count);
    }
}

fn write_once(link: &dyn Link, pieces: &[IoSlice<'_>], whole: usize) -> (usize, Progress) {
    loop {
        return match link.try_write(pieces) {
            Ok(count) if count == whole => (count, Progress::More),
            Ok(count) => (count, Progress::Blocked),
            Err(error) if error.kind() == ErrorKind::WouldBlock => (0, Progress::Blocked),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => (0, Progress::Failed),
        };
    }
}
