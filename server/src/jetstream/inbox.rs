//! What waits to become a group's next log entry.
//!
//! A publish is encoded once, by the thread of the connection that sent it, straight into the batch that the log will
//! write; who waits for its answer lies beside it, the reply subjects one after the other in one arena. There is no
//! delay: the driver takes what is there. The inbox announces itself when the read that filled it has been worked
//! through (a [`flush`](crate::broker::flush) scope), so a burst of publishes is one batch.
//!
//! Bounded: beyond [`INBOX_MESSAGES_MAX`] commands or [`INBOX_BYTES_MAX`] bytes a publish is refused; commands of the
//! server itself (acks, API calls, ticks) are few and always taken.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use bytes::Bytes;
use futures::channel::oneshot;
use futures::task::AtomicWaker;
use halyard_engine::StreamId;
use halyard_runtime::time::Timestamp;
use parking_lot::Mutex;

use super::consumer::leader::Token;
use super::group::Reply;
use super::group::command::{self, Kind};
use super::limits::{BATCH_BYTES_MAX, INBOX_BYTES_MAX, INBOX_MESSAGES_MAX};
use crate::broker::{Delivered, Pressure, Publish, Sink, Subscription, flush};

/// Who gets the answer to a command.
#[derive(Debug)]
pub enum Waiter {
    /// A publisher: the next so many bytes of the batch's arena are its reply subject; 0 wants no answer.
    Publisher(StreamId, u16),
    /// A call inside the server.
    Call(oneshot::Sender<Reply>),
    /// The consumers' leader side.
    Consumer(Token),
    /// The driver's own tick.
    Tick,
}

/// The inbox is full; nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many commands wait for the group")]
pub struct Full;

/// One batch and those who wait for it, in the order of its commands.
#[derive(Debug, Default)]
pub struct Gathered {
    bytes: Vec<u8>,
    count: u32,
    /// Messages among the commands.
    publishes: u32,
    /// Bytes of commands that the inbox has counted.
    booked: usize,
    /// One for each command.
    pub waiters: Vec<Waiter>,
    /// Reply subjects of the publishers, one after the other.
    pub replies: Vec<u8>,
    /// Told when this batch and all before it have been answered.
    pub marks: Vec<oneshot::Sender<()>>,
}

impl Gathered {
    /// The entry to propose, with the leader's time. An exact copy: the store keeps slices of it for long.
    #[must_use]
    pub fn seal(&mut self, time: Timestamp) -> Bytes {
        command::seal(&mut self.bytes, time, self.count);
        Bytes::copy_from_slice(&self.bytes)
    }

    /// Whether it holds messages to store: what a full disk refuses.
    #[must_use]
    pub const fn has_messages(&self) -> bool {
        self.publishes > 0
    }

    /// Takes the messages out, with who waits for them; the other commands and the marks stay, in their order.
    #[must_use]
    pub fn take_messages(&mut self) -> Self {
        let (mut messages, mut others) = (Self::default(), Self::default());
        messages.clear();
        others.clear();
        let mut reply_at = 0;
        let waiters = std::mem::take(&mut self.waiters);
        for (waiter, (place, is_message)) in waiters.into_iter().zip(command::places(&self.bytes)) {
            let to = if is_message {
                &mut messages
            } else {
                &mut others
            };
            if let Waiter::Publisher(_, len) = waiter {
                let reply = reply_at..reply_at + usize::from(len);
                reply_at = reply.end;
                let reply = self.replies.get(reply).unwrap_or_default();
                to.replies.extend_from_slice(reply);
            }
            to.bytes
                .extend_from_slice(self.bytes.get(place).unwrap_or_default());
            to.waiters.push(waiter);
            to.count += 1;
            to.publishes += u32::from(is_message);
        }
        assert_eq!(
            messages.count + others.count,
            self.count,
            "each command has a place"
        );
        others.marks = std::mem::take(&mut self.marks);
        *self = others;
        messages
    }

    /// Bytes of the entry that it becomes.
    #[must_use]
    pub const fn entry_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it holds no command.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn command_bytes(&self) -> usize {
        self.bytes.len().saturating_sub(command::BATCH_HEADER_BYTES)
    }

    fn clear(&mut self) {
        command::start(&mut self.bytes);
        self.booked = 0;
        self.publishes = 0;
        self.count = 0;
        self.waiters.clear();
        self.replies.clear();
        self.marks.clear();
    }
}

#[derive(Default)]
struct Filling {
    /// Batches that are as large as an entry may be.
    full: VecDeque<Gathered>,
    current: Gathered,
    /// An empty batch whose buffers have grown to the usual size.
    spare: Option<Gathered>,
    messages: usize,
    bytes: usize,
    /// The driver has been or will be woken.
    announced: bool,
    /// Commands that were taken and are not answered yet.
    in_flight: bool,
    closed: bool,
}

/// The inbox of one group.
#[derive(Default)]
pub struct Inbox {
    filling: Mutex<Filling>,
    driver: AtomicWaker,
}

impl Inbox {
    /// An empty inbox.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let inbox = Self::default();
        inbox.filling.lock().current.clear();
        Arc::new(inbox)
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
        let announce = {
            let mut filling = self.filling.lock();
            if filling.closed
                || filling.messages >= INBOX_MESSAGES_MAX
                || filling.bytes >= INBOX_BYTES_MAX
            {
                return Err(Full);
            }
            let current = &mut filling.current;
            command::put_publish(
                &mut current.bytes,
                stream,
                message.subject,
                message.headers,
                message.payload,
            );
            if halyard_runtime::planted("flipped-byte")
                && let Some(last) = current.bytes.last_mut()
            {
                *last ^= 1;
            }
            current.replies.extend_from_slice(reply);
            current.publishes += 1;
            filling.pushed(Waiter::Publisher(stream, reply_len))
        };
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
            filling.current.publishes += u32::from(kind == Kind::Restore);
            filling.pushed(waiter)
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

    /// Waits until everything that was taken before this call has been answered.
    pub async fn caught_up(&self) {
        let receiver = {
            let mut filling = self.filling.lock();
            if filling.closed || (filling.messages == 0 && !filling.in_flight) {
                return;
            }
            let (sender, receiver) = oneshot::channel();
            filling.current.marks.push(sender);
            receiver
        };
        self.driver.wake();
        // An error means that the group stopped: the caller will notice by itself.
        receiver.await.ok();
    }

    /// The next batch, if a command or a mark waits and it is no longer than `room`. `recycled` is an answered batch
    /// whose buffers may serve again.
    pub fn take(&self, recycled: Option<Gathered>, room: usize) -> Option<Gathered> {
        let mut filling = self.filling.lock();
        if let Some(mut recycled) = recycled {
            recycled.clear();
            filling.spare = Some(recycled);
        }
        let next = filling.full.front().unwrap_or(&filling.current);
        if next.bytes.len() > room {
            return None;
        }
        filling.announced = false;
        let batch = match filling.full.pop_front() {
            Some(batch) => batch,
            None if filling.current.is_empty() && filling.current.marks.is_empty() => return None,
            None => {
                let fresh = filling.fresh();
                std::mem::replace(&mut filling.current, fresh)
            }
        };
        filling.messages -= batch.count as usize;
        filling.bytes -= batch.command_bytes();
        filling.in_flight = true;
        Some(batch)
    }

    /// The driver has answered everything that it took.
    pub fn idle(&self) {
        self.filling.lock().in_flight = false;
    }

    /// Whether [`take`](Self::take) would find something. If not, `waker` is woken when more comes.
    pub fn poll_filled(&self, waker: &Waker, room: usize) -> bool {
        self.driver.register(waker);
        let filling = self.filling.lock();
        let next = filling.full.front().unwrap_or(&filling.current);
        next.bytes.len() <= room && !(next.is_empty() && next.marks.is_empty())
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
        let (full, current);
        {
            let mut filling = self.filling.lock();
            filling.closed = true;
            full = std::mem::take(&mut filling.full);
            current = std::mem::take(&mut filling.current);
            filling.messages = 0;
            filling.bytes = 0;
        }
        drop((full, current));
        self.driver.wake();
    }

    /// Commands and bytes that wait.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        let filling = self.filling.lock();
        (filling.messages, filling.bytes)
    }
}

impl Filling {
    /// Books the command that was just put; whether the driver has to be woken for it.
    fn pushed(&mut self, waiter: Waiter) -> bool {
        let before = self.current.booked;
        self.current.booked = self.current.command_bytes();
        self.bytes += self.current.booked - before;
        self.current.count += 1;
        self.current.waiters.push(waiter);
        self.messages += 1;
        if self.current.bytes.len() >= BATCH_BYTES_MAX {
            let fresh = self.fresh();
            let full = std::mem::replace(&mut self.current, fresh);
            self.full.push_back(full);
        }
        !std::mem::replace(&mut self.announced, true)
    }

    fn fresh(&mut self) -> Gathered {
        let mut fresh = self.spare.take().unwrap_or_default();
        fresh.clear();
        fresh
    }
}

/// The inbox as something that is flushed: the driver is woken once for all that one read brought.
impl Sink for Inbox {
    fn deliver(&self, _: &Subscription, _: &Publish<'_>) -> Delivered {
        Delivered::Refused
    }

    fn flush(&self) -> Pressure {
        self.driver.wake();
        let (messages, bytes) = self.waiting();
        let high = messages > INBOX_MESSAGES_MAX / 2 || bytes > INBOX_BYTES_MAX / 2;
        if high { Pressure::High } else { Pressure::Low }
    }
}
