//! What connections bring in: pull requests, acks, flow-control replies, interest. Gathered by their threads, taken by
//! the group's driver in one go.

use std::sync::Arc;

use bytes::Bytes;
use futures::channel::oneshot;
use halyard_engine::StreamId;
use halyard_runtime::time::Timestamp;
use parking_lot::Mutex;

use crate::broker::{ClientId, Delivered, Pressure, Publish, Sink, Subscription, flush};
use crate::jetstream::consumer::command::{ConsumerId, Verb};
use crate::jetstream::consumer::info::Presence;

/// Events that wait for the driver; with more, connections that bring them pause.
const EVENTS_HIGH: usize = 64 * 1024;

/// Which consumer of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// Its stream.
    pub stream: StreamId,
    /// Its number in the stream.
    pub consumer: ConsumerId,
}

/// What an ack says, kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Done.
    Ack,
    /// Again, after so many nanoseconds.
    Nak(u64),
    /// Still working.
    Progress,
    /// Never again, and why.
    Term(Box<str>),
    /// Done; and a pull request, its answers going to the reply.
    Next(Bytes),
}

impl Said {
    /// As the log has it.
    pub fn verb(&self) -> Verb<'_> {
        match self {
            Self::Ack | Self::Next(_) => Verb::Ack,
            Self::Nak(delay) => Verb::Nak(*delay),
            Self::Progress => Verb::Progress,
            Self::Term(reason) => Verb::Term(reason),
        }
    }
}

/// The delivery that an ack names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// Sequence in the stream.
    pub stream_seq: u64,
    /// Sequence in the consumer.
    pub consumer_seq: u64,
    /// When the message was stored, if the ack says it.
    pub stored: Option<Timestamp>,
}

/// One thing that came in.
#[derive(Debug)]
pub enum Event {
    /// A pull request.
    Pull {
        /// For whom.
        at: Address,
        /// Whose request it is.
        client: Option<ClientId>,
        /// Where the messages go.
        reply: Bytes,
        /// It demands a newer API than there is.
        needs_newer: bool,
        /// Its body.
        body: Bytes,
    },
    /// An answer to a delivery.
    Ack {
        /// For whom.
        at: Address,
        /// To which delivery.
        of: Named,
        /// What it says.
        said: Said,
        /// Who says it.
        client: Option<ClientId>,
        /// Where a confirmation is wanted.
        reply: Option<Bytes>,
    },
    /// The client took what a window held.
    Flow {
        /// For whom.
        at: Address,
        /// Which flow-control request it answers.
        id: u64,
    },
    /// Interest in a deliver subject came or went.
    Interest {
        /// For whom.
        at: Address,
    },
    /// A stream is served from now on: its consumers are, too.
    Served {
        /// Which.
        stream: StreamId,
    },
    /// The server closes a connection, or stops: requests that wait end.
    Leaving {
        /// Whose; `None`: all, and nothing is sent any more.
        client: Option<ClientId>,
        /// Told when it is done.
        to: oneshot::Sender<()>,
    },
    /// Somebody wants to know what only the leader knows.
    Presence {
        /// Of whom.
        of: Vec<Address>,
        /// The answers, in the same order.
        to: oneshot::Sender<Vec<Presence>>,
    },
}

impl Event {
    /// The consumer that it is for, if it is for one.
    pub(super) const fn address(&self) -> Option<Address> {
        match self {
            Self::Pull { at, .. }
            | Self::Ack { at, .. }
            | Self::Flow { at, .. }
            | Self::Interest { at } => Some(*at),
            Self::Served { .. } | Self::Leaving { .. } | Self::Presence { .. } => None,
        }
    }
}

#[derive(Default)]
struct Waiting {
    events: Vec<Event>,
    /// The driver is gone.
    is_closed: bool,
}

/// Where events wait for the driver.
pub struct Intake {
    waiting: Mutex<Waiting>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Intake {
    /// An empty one; `wake` has the driver call `Desk::poll` soon.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::default(),
            wake: Box::new(wake),
        })
    }

    /// Adds an event. The driver is woken once, when the read that brought it has been worked through. False: the driver is
    /// gone, and nobody takes the event.
    pub fn push(self: &Arc<Self>, event: Event) -> bool {
        let first = {
            let mut waiting = self.waiting.lock();
            if waiting.is_closed {
                return false;
            }
            waiting.events.push(event);
            waiting.events.len() == 1
        };
        if first {
            flush::defer(self.clone());
        }
        true
    }

    /// Takes all; `spare` is an empty buffer to fill next.
    pub fn take(&self, spare: &mut Vec<Event>) {
        std::mem::swap(&mut self.waiting.lock().events, spare);
    }

    /// The driver is gone: what waits for it, and what comes, is dropped.
    pub fn close(&self) {
        *self.waiting.lock() = Waiting {
            is_closed: true,
            ..Waiting::default()
        };
    }

    /// Waits until the driver has taken everything that was added before: a stream that is served now, for instance.
    pub async fn caught_up(self: &Arc<Self>) {
        let _ = self.presence(Vec::new()).await;
    }

    /// Ends the requests of a connection that is about to be closed, or all and every delivery.
    pub async fn leave(self: &Arc<Self>, client: Option<ClientId>) {
        let (to, done) = oneshot::channel();
        self.push(Event::Leaving { client, to });
        // Where the driver is gone, so are the requests.
        let _ = done.await;
    }

    /// What the leader knows of these consumers. Empty when the leader is gone.
    pub async fn presence(self: &Arc<Self>, of: Vec<Address>) -> Vec<Presence> {
        let (to, answer) = oneshot::channel();
        self.push(Event::Presence { of, to });
        answer.await.unwrap_or_default()
    }
}

/// Something that is flushed: a burst of acks wakes the driver once.
impl Sink for Intake {
    fn deliver(&self, _: &Subscription, _: &Publish<'_>) -> Delivered {
        Delivered::Refused
    }

    fn flush(&self) -> Pressure {
        (self.wake)();
        let high = self.waiting.lock().events.len() > EVENTS_HIGH;
        if high { Pressure::High } else { Pressure::Low }
    }
}
