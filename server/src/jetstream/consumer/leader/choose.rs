//! Which messages go out next, and to whom: under the lock of the group's machine, so it only looks and reads.

use std::collections::VecDeque;
use std::time::Duration;

use halyard_engine::{Message, StreamId};
use halyard_runtime::time::{Instant, Timestamp};

use super::ahead::{Ahead, Next};
use super::desk::View;
use super::pull::Request;
use super::push::Push;
use super::status;
use super::worker::{Local, Worker};
use crate::jetstream::config::Retention;
use crate::jetstream::consumer::check;
use crate::jetstream::consumer::command::Grant;
use crate::jetstream::consumer::machine::{Consumer, Position};
use crate::jetstream::consumer::over_store::StoreMessages;
use crate::jetstream::consumer::select::{Delivery, Outcome, fitting};
use crate::jetstream::stream::machine::Fault;

/// Messages of a consumer that are read under one lock and sent in one go.
const MESSAGES_MAX: usize = 1024;
/// The same in bytes: with flow control, a window may be exceeded by this.
const BYTES_MAX: usize = 1024 * 1024;
/// How long the progress of a durable consumer without acks may stay out of the log.
const LOG_EVERY: Duration = Duration::from_secs(1);
/// The same where messages wait for it to be removed.
const LOG_SOON: Duration = Duration::from_millis(10);

/// Why no more was selected.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Stopped {
    /// There is nothing more to send.
    #[default]
    Empty,
    /// Nobody waits for more.
    Served,
    /// There may be more at once: it stopped at its own limit.
    AtLimit,
    /// Too much waits for an ack, or for the log.
    Blocked {
        /// There is nothing to send for now anyway.
        is_through: bool,
    },
    /// The next message goes out again, and the request whose turn it is came behind answers that are not applied yet: so
    /// many commands with answers are waited for.
    Held(u64),
    /// The next message is there and cannot be read: nothing behind it is sent before it.
    Unreadable(u64, String),
}

/// What is sent for one consumer after a look at the store.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) messages: Vec<(Delivery, Message)>,
    /// One for each request that waited.
    pub(super) outcomes: Vec<Outcome>,
    pub(super) stopped: Stopped,
}

impl Batch {
    /// Whether there is nothing to send and no request to end.
    pub(super) fn is_nothing(&self) -> bool {
        self.messages.is_empty() && !self.outcomes.iter().any(|outcome| outcome.too_big)
    }
}

/// Where messages come from: a consumer with acks has sent more than the log knows, one without acks is known here only.
enum Source<'a> {
    Acks(&'a mut Ahead),
    Local(&'a mut Local),
}

/// What a source offers next.
enum Offer {
    Again(Next),
    Local(u64),
}

impl Source<'_> {
    fn next(&mut self, consumer: &Consumer, messages: &StoreMessages<'_>) -> Option<Offer> {
        match self {
            Self::Acks(ahead) => ahead.next(consumer, messages).map(Offer::Again),
            Self::Local(local) => local.next(consumer, messages).map(Offer::Local),
        }
    }

    /// Whether a new message would have to wait, be there one or not.
    fn is_blocked(&self, consumer: &Consumer) -> bool {
        match self {
            Self::Acks(ahead) => !ahead.has_room(consumer),
            Self::Local(_) => false,
        }
    }

    fn is_far(&self) -> bool {
        match self {
            Self::Acks(ahead) => ahead.is_far(),
            Self::Local(_) => false,
        }
    }

    fn unseen(&self, consumer: &Consumer, messages: &StoreMessages<'_>) -> u64 {
        match self {
            Self::Acks(ahead) => ahead.unseen(consumer, messages),
            Self::Local(local) => local.unseen(consumer, messages),
        }
    }

    fn next_consumer_seq(&self, consumer: &Consumer) -> u64 {
        match self {
            Self::Acks(ahead) => ahead.next_consumer_seq(consumer),
            Self::Local(local) => local.reached.consumer.saturating_add(1),
        }
    }

    /// Books the delivery of what was offered.
    fn send(&mut self, offer: &Offer, delivery: &Delivery, consumer: &Consumer) {
        match (self, offer) {
            (Self::Acks(ahead), Offer::Again(next)) => {
                ahead.send(next, consumer);
            }
            (Self::Local(local), _) => {
                local.sent(Position {
                    consumer: delivery.consumer_seq,
                    stream: delivery.stream_seq,
                });
            }
            (Self::Acks(_), Offer::Local(_)) => {}
        }
    }
}

impl Offer {
    const fn seq(&self) -> u64 {
        match self {
            Self::Again(next) => next.seq,
            Self::Local(seq) => *seq,
        }
    }

    const fn sent_before(&self) -> u32 {
        match self {
            Self::Again(next) => next.sent_before,
            Self::Local(_) => 0,
        }
    }

    const fn is_new(&self) -> bool {
        match self {
            Self::Again(next) => next.is_new(),
            Self::Local(_) => true,
        }
    }
}

/// Selects messages for whoever waits, one for each in turn.
pub(super) fn select(
    worker: &mut Worker,
    consumer: &Consumer,
    stream: StreamId,
    view: &View<'_>,
) -> Batch {
    let messages = StoreMessages::new(view.store, stream);
    let one =
        check::replays_original(&worker.config) || worker.push.as_ref().is_some_and(Push::is_slow);
    let limit = if one { 1 } else { MESSAGES_MAX };
    let grants: Vec<Grant> = match &worker.push {
        Some(_) => vec![Grant {
            batch: u32::MAX,
            max_bytes: 0,
        }],
        None => worker.waiting.iter().map(Request::grant).collect(),
    };
    let mut outcomes: Vec<Outcome> = grants.iter().map(Outcome::of).collect();
    let mut turns: VecDeque<u32> = (0_u32..).take(grants.len()).collect();
    let ack_bytes = worker.ack_prefix.len() as u64;
    let headers_only = worker.config.headers_only;
    worker.ahead.settle(consumer);
    let mut source = match &mut worker.local {
        Some(local) => Source::Local(local),
        None => Source::Acks(&mut worker.ahead),
    };
    let mut unseen = None;
    let mut selected = Vec::new();
    let mut bytes = 0;
    let mut stopped = loop {
        if turns.is_empty() {
            break Stopped::Served;
        }
        if selected.len() >= limit || bytes >= BYTES_MAX {
            break Stopped::AtLimit;
        }
        if source.is_far() {
            break Stopped::Blocked { is_through: false };
        }
        let Some(offer) = source.next(consumer, &messages) else {
            break match source.is_blocked(consumer) {
                true => Stopped::Blocked {
                    is_through: source.unseen(consumer, &messages) == 0,
                },
                false => Stopped::Empty,
            };
        };
        if let Some(after) = turns
            .front()
            .and_then(|at| worker.waiting.get(*at as usize))
            .map(|request| request.after)
            .filter(|after| !offer.is_new() && *after > worker.acks_applied)
        {
            break Stopped::Held(after);
        }
        let seq = offer.seq();
        let before = *unseen.get_or_insert_with(|| source.unseen(consumer, &messages));
        let mut delivery = Delivery {
            stream_seq: seq,
            consumer_seq: source.next_consumer_seq(consumer),
            count: offer.sent_before().saturating_add(1),
            grant: 0,
            unseen: before.saturating_sub(u64::from(offer.is_new())),
        };
        let message = match view.store.get(stream, seq) {
            Ok(Some(message)) => message,
            Ok(None) => {
                // Gone: passed over, and the log is told as of one that was sent, so that it does not come again.
                source.send(&offer, &delivery, consumer);
                unseen = None;
                continue;
            }
            Err(error) => {
                break Stopped::Unreadable(seq, tell(view, stream, &error));
            }
        };
        let sent_bytes = match headers_only {
            true => {
                let headers = status::bytes_without_body(message.headers(), message.payload());
                message.subject().len() + headers
            }
            false => message.record.len(),
        };
        let size = sent_bytes as u64 + ack_bytes + delivery.ack_digits();
        let Some(grant) = fitting(&mut turns, &mut outcomes, size) else {
            break Stopped::Served;
        };
        delivery.grant = grant;
        source.send(&offer, &delivery, consumer);
        unseen = Some(delivery.unseen);
        bytes += message.record.len();
        selected.push((delivery, message));
    };
    if let Some(error) = messages.error() {
        // Where the next message lies cannot be read: it is not known to be absent.
        let from = selected
            .last()
            .map_or(0, |(delivery, _)| delivery.stream_seq);
        stopped = Stopped::Unreadable(from + 1, tell(view, stream, &error));
    }
    if !selected.is_empty() {
        worker.unreadable = None;
        note_progress(worker, view);
    }
    Batch {
        messages: selected,
        outcomes,
        stopped,
    }
}

/// A consumer without acks got further: when the log is to hear of it.
fn note_progress(worker: &mut Worker, view: &View<'_>) {
    let Some(local) = worker.local.as_mut() else {
        return;
    };
    local.at = Timestamp::now();
    let soon = view.config.retention == Retention::Interest;
    if worker.log_at.is_none() && (soon || worker.config.is_durable()) {
        let wait = if soon { LOG_SOON } else { LOG_EVERY };
        worker.log_at = Some(Instant::now() + wait);
    }
}

/// A damaged place, for people: what it takes is of this stream.
fn tell(view: &View<'_>, stream: StreamId, error: &Fault) -> String {
    let damage = view.store.describe(error);
    damage.tell(&|id| match id == stream {
        true => view.config.name.clone(),
        false => id.0.to_string(),
    })
}
