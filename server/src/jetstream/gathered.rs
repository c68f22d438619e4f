//! Commands on their way into one entry of a group's log, and those who wait for them.

use bytes::Bytes;
use futures::channel::oneshot;
use halyard_engine::StreamId;
use halyard_runtime::time::Timestamp;
use std::sync::Arc;

use super::consumer::leader::Token;
use super::group::Reply;
use super::group::command;
use crate::broker::WriteNumber;

/// Bytes that a waiter takes beside its command, about: what many small commands cost.
const WAITER_BYTES: usize = 64;
/// Buffers that are kept for the next batch are no longer than that while nothing happens.
const KEPT_BYTES: usize = 64 * 1024;

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

/// Held by every batch that one waits for; told when the last of them has been answered, or dropped.
#[derive(Debug)]
pub struct Mark(Option<oneshot::Sender<()>>);

impl Mark {
    /// A mark, and what waits for its end.
    pub(super) fn new() -> (Arc<Self>, oneshot::Receiver<()>) {
        let (sender, receiver) = oneshot::channel();
        (Arc::new(Self(Some(sender))), receiver)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            // The one who waited may have gone.
            sender.send(()).ok();
        }
    }
}

/// Commands and those who wait for them, in the same order.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Encoded commands.
    pub(super) bytes: Vec<u8>,
    /// More of them, behind `bytes`: the buffers of other batches that were added as they were.
    parts: Vec<Vec<u8>>,
    part_bytes: usize,
    count: u32,
    /// Messages among the commands.
    publishes: u32,
    /// One for each command.
    pub waiters: Vec<Waiter>,
    /// Reply subjects of the publishers, one after the other.
    pub replies: Vec<u8>,
    /// Every message up to this one is in it or was before it; none: messages wait that came earlier.
    pub(super) covers: WriteNumber,
    /// Dropped when this batch has been answered.
    pub marks: Vec<Arc<Mark>>,
}

impl Gathered {
    /// The entry to propose, with the leader's time. An exact copy: the store keeps slices of it for long.
    #[must_use]
    pub fn seal(&mut self, time: Timestamp) -> Bytes {
        let mut entry = Vec::with_capacity(self.entry_bytes());
        command::start(&mut entry);
        entry.extend_from_slice(&self.bytes);
        for part in self.parts.drain(..) {
            entry.extend_from_slice(&part);
        }
        command::seal(&mut entry, time, self.count);
        Bytes::from(entry)
    }

    /// Whether it holds messages to store: what a full disk refuses.
    #[must_use]
    pub const fn has_messages(&self) -> bool {
        self.publishes > 0
    }

    /// Takes the messages out, with who waits for them; the other commands and the marks stay, in their order.
    #[must_use]
    pub fn take_messages(&mut self) -> Self {
        for part in self.parts.drain(..) {
            self.bytes.extend_from_slice(&part);
        }
        let (mut messages, mut others) = (Self::default(), Self::default());
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
                let reply = self.replies.get(reply);
                to.replies
                    .extend_from_slice(reply.expect("each publisher has its reply subject"));
            }
            let command = self.bytes.get(place);
            to.bytes
                .extend_from_slice(command.expect("places lie in the bytes"));
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
        others.covers = self.covers;
        *self = others;
        messages
    }

    /// Notes who waits for the command that was just put into `bytes`, and whether it is a message.
    pub(super) fn pushed(&mut self, waiter: Waiter, is_message: bool) {
        self.count += 1;
        self.publishes += u32::from(is_message);
        self.waiters.push(waiter);
    }

    /// Adds everything of another batch behind what is here.
    pub(super) fn add(&mut self, other: Self) {
        self.part_bytes += other.bytes.len() + other.part_bytes;
        self.parts.push(other.bytes);
        self.parts.extend(other.parts);
        self.count += other.count;
        self.publishes += other.publishes;
        self.waiters.extend(other.waiters);
        self.replies.extend_from_slice(&other.replies);
        self.marks.extend(other.marks);
    }

    /// Bytes of the entry that it becomes.
    #[must_use]
    pub const fn entry_bytes(&self) -> usize {
        command::BATCH_HEADER_BYTES + self.command_bytes()
    }

    /// Bytes of its commands.
    pub(super) const fn command_bytes(&self) -> usize {
        self.bytes.len() + self.part_bytes
    }

    /// Memory that it takes, about.
    pub(super) const fn cost(&self) -> usize {
        self.command_bytes() + self.count as usize * WAITER_BYTES
    }

    /// Whether it holds no command.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Empty again, with its buffers.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.parts.clear();
        self.part_bytes = 0;
        self.publishes = 0;
        self.count = 0;
        self.covers = WriteNumber::NONE;
        self.waiters.clear();
        self.replies.clear();
        self.marks.clear();
    }

    /// Gives memory back that only a burst needed. It is empty.
    pub(super) fn shrink(&mut self) {
        self.bytes.shrink_to(KEPT_BYTES);
        self.replies.shrink_to(KEPT_BYTES);
        self.parts = Vec::new();
        self.waiters
            .shrink_to(KEPT_BYTES / std::mem::size_of::<Waiter>());
    }
}

/// Bytes that one command of so many bytes counts in the inbox.
pub(super) const fn cost_of(bytes: usize) -> usize {
    bytes + WAITER_BYTES
}
