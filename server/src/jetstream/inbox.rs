//! What waits to become a group's next log entry.
//!
//! A publish is encoded once, by the thread of the connection that sent it, straight into the batch that the log will
//! write; who waits for its answer lies beside it, the reply subjects one after the other in one arena. There is no
//! delay: the driver takes what is there. The inbox announces itself when the read that filled it has been worked
//! through (a [`flush`](crate::broker::flush) scope), so a burst of publishes is one batch.
//!
//! What does not fit into the next entry waits in a backlog, where streams and connections take turns: a flood delays
//! itself, and a connection that has much waiting is not read until that has gone. Commands of the server itself (acks, API
//! calls, ticks) are few; they are always taken, and go before the backlog.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use futures::channel::oneshot;
use futures::task::AtomicWaker;
use halyard_engine::StreamId;
use parking_lot::Mutex;

use super::backlog::{Backlog, Put, Source};
use super::gathered::Mark;
pub use super::gathered::{Gathered, Waiter};
use super::group::Reply;
use super::group::command::{self, Kind};
use super::limits::BATCH_BYTES_MAX;
use super::stream::block;
use crate::broker::{
    Admission, ClientId, Delivered, Pressure, Publish, Sink, Subscription, WriteNumber, flush,
};

/// The inbox is full; nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many commands wait for the group")]
pub struct Full;

#[derive(Default)]
struct Filling {
    /// The next entry.
    current: Gathered,
    /// Messages that found `current` full, or others waiting here.
    backlog: Backlog,
    /// An empty batch whose buffers have grown to the usual size.
    spare: Option<Gathered>,
    /// The driver has been or will be woken.
    announced: bool,
    /// Commands that were taken and are not answered yet.
    in_flight: bool,
    /// The last message of a client that was taken.
    last_write: WriteNumber,
    closed: bool,
}

/// The inbox of one group.
pub struct Inbox {
    filling: Mutex<Filling>,
    driver: AtomicWaker,
    /// Clients' messages up to this one have been answered.
    answered: AtomicU64,
    /// Told what waits in the backlog.
    admission: Arc<Admission>,
}

impl Inbox {
    /// An empty inbox.
    #[must_use]
    pub fn new(admission: Arc<Admission>) -> Arc<Self> {
        Arc::new(Self {
            filling: Mutex::default(),
            driver: AtomicWaker::new(),
            answered: AtomicU64::new(0),
            admission,
        })
    }

    /// Takes one message for `stream`.
    ///
    /// # Errors
    /// [`Full`].
    pub fn publish(
        self: &Arc<Self>,
        stream: StreamId,
        message: &Publish<'_>,
        answer: bool,
    ) -> Result<(), Full> {
        let reply = message.reply.filter(|_| answer).unwrap_or_default();
        let reply_len = u16::try_from(reply.len()).map_err(|_| Full)?;
        if message.subject.len() > usize::from(u16::MAX) {
            return Err(Full);
        }
        let headers = block::stored(message.headers);
        let put = |batch: &mut Gathered| {
            command::put_publish(
                &mut batch.bytes,
                stream,
                message.subject,
                &headers,
                message.payload,
            );
            if halyard_runtime::planted("flipped-byte")
                && let Some(last) = batch.bytes.last_mut()
            {
                *last ^= 1;
            }
            batch.replies.extend_from_slice(reply);
            batch.pushed(Waiter::Publisher(stream, reply_len), true);
        };
        let mut pauses = None;
        let announce = {
            let mut filling = self.filling.lock();
            if filling.closed {
                return Err(Full);
            }
            if filling.backlog.is_empty() && filling.current.command_bytes() < BATCH_BYTES_MAX {
                put(&mut filling.current);
            } else {
                let client = message.origin.client().map_or(0, |ClientId(client)| client);
                let source = Source { stream, client };
                let bytes = command::publish_bytes(message.subject, message.size());
                let before = filling.backlog.cost();
                match filling.backlog.put(source, bytes, put) {
                    Put::Taken => {}
                    Put::Pause => pauses = Some(source),
                    Put::Refused => return Err(Full),
                }
                self.admission.hold(filling.backlog.cost() - before);
            }
            if let Some(publisher) = message.origin.publisher() {
                filling.last_write = WriteNumber::next();
                publisher.wrote(filling.last_write);
            }
            !std::mem::replace(&mut filling.announced, true)
        };
        if let Some(source) = pauses {
            let inbox = Arc::clone(self);
            flush::defer(Arc::new(Crowd { inbox, source }));
        }
        if announce {
            flush::defer(self.clone());
        }
        Ok(())
    }

    /// Takes any other command. Nothing happens once the inbox is closed; a waiting call is then dropped.
    pub fn submit(self: &Arc<Self>, kind: Kind, stream: StreamId, body: &[u8], waiter: Waiter) {
        let announce = {
            let mut filling = self.filling.lock();
            if filling.closed {
                return;
            }
            command::put(&mut filling.current.bytes, kind, stream, body);
            // A full disk refuses restored messages as it does published ones.
            filling.current.pushed(waiter, kind == Kind::Restore);
            !std::mem::replace(&mut filling.announced, true)
        };
        if announce {
            flush::defer(self.clone());
        }
    }

    /// [`submit`](Self::submit) that waits for the answer. `None`: the group stopped, nobody knows.
    pub async fn call(
        self: &Arc<Self>,
        kind: Kind,
        stream: StreamId,
        body: &[u8],
    ) -> Option<Reply> {
        let (sender, receiver) = oneshot::channel();
        self.submit(kind, stream, body, Waiter::Call(sender));
        receiver.await.ok()
    }

    /// Waits until everything that was taken before this call has been answered: messages of all streams, or of this one.
    pub async fn caught_up(&self, stream: Option<StreamId>) {
        let answered = {
            let mut filling = self.filling.lock();
            let nothing = filling.current.is_empty() && filling.backlog.is_empty();
            if filling.closed || (nothing && !filling.in_flight) {
                return;
            }
            let (mark, answered) = Mark::new();
            filling.backlog.mark(stream, &mark);
            filling.current.marks.push(mark);
            answered
        };
        self.driver.wake();
        // Where the group has stopped, the caller will notice by itself.
        answered.await.ok();
    }

    /// The next batch, if a command or a mark waits and it is no longer than `room`. `recycled` is an answered batch
    /// whose buffers may serve again.
    pub fn take(&self, recycled: Option<Gathered>, room: usize) -> Option<Gathered> {
        let mut woken = Vec::new();
        let mut filling = self.filling.lock();
        if let Some(mut recycled) = recycled {
            recycled.clear();
            filling.spare = Some(recycled);
        }
        if !filling.fits(room) {
            return None;
        }
        filling.announced = false;
        filling.in_flight = true;
        let fresh = filling.spare.take().unwrap_or_default();
        let mut batch = std::mem::replace(&mut filling.current, fresh);
        let before = filling.backlog.cost();
        let most = room.min(BATCH_BYTES_MAX);
        while let Some(bytes) = filling.backlog.next_bytes()
            && (batch.entry_bytes() + bytes <= most || batch.is_empty() && goes_alone(bytes, room))
            && let Some(turn) = filling.backlog.take(&mut woken)
        {
            batch.add(turn);
        }
        self.admission.free(before - filling.backlog.cost());
        if filling.backlog.is_empty() {
            batch.covers = filling.last_write;
        }
        drop(filling);
        woken.into_iter().for_each(Waker::wake);
        Some(batch)
    }

    /// The driver has answered a batch.
    pub fn answered(&self, batch: &Gathered) {
        self.answered
            .fetch_max(batch.covers.get(), Ordering::AcqRel);
    }

    /// Whether messages that a client had sent by then may still be on their way. It may be so for others' messages alone.
    #[must_use]
    pub fn is_behind(&self, last_write: WriteNumber) -> bool {
        last_write.get() > self.answered.load(Ordering::Acquire)
    }

    /// The driver has answered everything that it took.
    pub fn idle(&self) {
        self.filling.lock().in_flight = false;
    }

    /// Nothing has happened for a while: memory that only a burst needed goes back.
    pub fn shrink(&self) {
        let mut filling = self.filling.lock();
        filling.spare.iter_mut().for_each(Gathered::shrink);
        if filling.current.is_empty() {
            filling.current.shrink();
        }
    }

    /// Whether [`take`](Self::take) would find something. If not, `waker` is woken when more comes.
    pub fn poll_filled(&self, waker: &Waker, room: usize) -> bool {
        self.driver.register(waker);
        self.filling.lock().fits(room)
    }

    /// Remembers whom to wake.
    pub fn register(&self, waker: &Waker) {
        self.driver.register(waker);
    }

    /// Makes the driver look.
    pub fn wake(&self) {
        self.driver.wake();
    }

    /// Refuses everything from now on, and drops who waits here.
    pub fn close(&self) {
        let (current, mut backlog);
        {
            let mut filling = self.filling.lock();
            filling.closed = true;
            current = std::mem::take(&mut filling.current);
            backlog = std::mem::take(&mut filling.backlog);
        }
        self.admission.free(backlog.cost());
        backlog.take_wakers().into_iter().for_each(Waker::wake);
        drop((current, backlog));
        self.driver.wake();
    }

    /// Where memory is counted.
    pub(super) const fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// Bytes that wait, with what commands cost beside their bytes.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let filling = self.filling.lock();
        filling.current.cost() + filling.backlog.cost()
    }
}

/// Whether a turn that is longer than a batch may be an entry of its own now.
const fn goes_alone(bytes: usize, room: usize) -> bool {
    bytes.saturating_add(command::BATCH_HEADER_BYTES) <= room
}

impl Filling {
    /// Whether there is something, and its beginning is no longer than `room`.
    fn fits(&self, room: usize) -> bool {
        if !self.current.is_empty() || !self.current.marks.is_empty() {
            return self.current.entry_bytes() <= room;
        }
        let next = self.backlog.next_bytes();
        next.is_some_and(|bytes| goes_alone(bytes, room))
    }
}

/// The inbox as something that is flushed: the driver is woken once for all that one read brought.
impl Sink for Inbox {
    fn deliver(&self, _: &Subscription, _: &Publish<'_>) -> Delivered {
        Delivered::Refused
    }

    fn flush(&self) -> Pressure {
        self.driver.wake();
        Pressure::Low
    }
}

/// What one connection has waiting for one stream, as something that its connection waits for.
struct Crowd {
    inbox: Arc<Inbox>,
    source: Source,
}

impl Sink for Crowd {
    fn deliver(&self, _: &Subscription, _: &Publish<'_>) -> Delivered {
        Delivered::Refused
    }

    fn flush(&self) -> Pressure {
        let mut filling = self.inbox.filling.lock();
        match filling.backlog.told(self.source) {
            true => Pressure::Full,
            false => Pressure::Low,
        }
    }

    fn is_pressed(&self, waker: &Waker) -> bool {
        let mut filling = self.inbox.filling.lock();
        filling.backlog.waits(self.source, waker)
    }
}

#[cfg(test)]
#[path = "inbox_test.rs"]
mod tests;
