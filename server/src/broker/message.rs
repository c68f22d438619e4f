//! One message on its way, and what takes it.

use std::cell::OnceCell;
use std::task::Waker;

use bytes::{Bytes, BytesMut};

use super::origin::Origin;
use super::subscription::Subscription;

/// Number of a connection (of any kind), unique while the server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// One message on its way to everybody who is interested. Borrowed: a sink copies what it keeps.
pub struct Publish<'a> {
    /// What is matched against interest.
    pub route: &'a [u8],
    /// What subscribers see as the subject. Differs from `route` where a stream or an import speaks.
    pub subject: &'a [u8],
    /// Where an answer is wanted.
    pub reply: Option<&'a [u8]>,
    /// The header block with its final empty line; empty if there is none.
    pub headers: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
    /// Who published it.
    pub origin: Origin<'a>,
    /// `headers ++ payload ++ CRLF`, made once for all who keep a reference in place of a copy.
    body: OnceCell<Bytes>,
}

impl<'a> Publish<'a> {
    /// A message without reply and headers, from the server itself.
    #[must_use]
    pub const fn new(subject: &'a [u8], payload: &'a [u8]) -> Self {
        Self {
            route: subject,
            subject,
            reply: None,
            headers: &[],
            payload,
            origin: Origin::Server,
            body: OnceCell::new(),
        }
    }

    /// Matched against interest in place of the subject shown.
    #[must_use]
    pub const fn with_route(mut self, route: &'a [u8]) -> Self {
        self.route = route;
        self
    }

    /// Where an answer is wanted.
    #[must_use]
    pub const fn with_reply(mut self, reply: Option<&'a [u8]>) -> Self {
        self.reply = reply;
        self
    }

    /// The header block, `NATS/1.0` line and final empty line included; empty for none.
    #[must_use]
    pub const fn with_headers(mut self, headers: &'a [u8]) -> Self {
        self.headers = headers;
        self
    }

    /// Who published it, if not the server itself.
    #[must_use]
    pub const fn with_origin(mut self, origin: Origin<'a>) -> Self {
        self.origin = origin;
        self
    }

    /// Bytes of headers and payload: what limits and counters see.
    #[must_use]
    #[inline]
    pub const fn size(&self) -> usize {
        self.headers.len() + self.payload.len()
    }

    /// `headers ++ payload ++ CRLF` as one counted buffer, copied on the first call only.
    pub fn shared_body(&self) -> Bytes {
        let make = || {
            let mut body = BytesMut::with_capacity(self.size() + 2);
            body.extend_from_slice(self.headers);
            body.extend_from_slice(self.payload);
            body.extend_from_slice(b"\r\n");
            body.freeze()
        };
        self.body.get_or_init(make).clone()
    }
}

/// What became of a message that was offered to a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// Taken.
    Accepted,
    /// Taken, and it was the last that the subscription asked for: the broker removes it.
    Last,
    /// Not taken (closed, own message without echo, ...): another member of a queue group may get it.
    Refused,
}

/// How much a sink holds back after a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Pressure {
    /// Publishers may go on.
    #[default]
    Low,
    /// More than is good for the caches: publishers better let it drain for an instant.
    Soft,
    /// It is about to be closed because it is too slow: publishers should pause.
    High,
    /// It takes no more for now, and says when it does again: publishers wait for that.
    Full,
}

/// What takes the messages of a subscription: a connection, a stream, a service of the server, an embedding program.
///
/// Called from whichever task publishes: it must not block, and must not publish or subscribe while it holds a lock
/// that its own `deliver` takes.
pub trait Sink: Send + Sync {
    /// Offers one message.
    fn deliver(&self, subscription: &Subscription, message: &Publish<'_>) -> Delivered;

    /// Sends on what `deliver` gathered. Called when the [`FlushScope`](super::FlushScope) ends to which the sink
    /// was [deferred](super::flush::defer).
    fn flush(&self) -> Pressure {
        Pressure::Low
    }

    /// Whether publishers, of whom one has met pressure in a flush, had better wait still; if so, `waker` is called once
    /// that is over. Without a word from the sink they wait as long as they do at most.
    fn is_pressed(&self, waker: &Waker) -> bool {
        let _ = waker;
        true
    }

    /// A publisher has waited as long as it would, and the sink is still pressed.
    fn waited_in_vain(&self) {}
}
