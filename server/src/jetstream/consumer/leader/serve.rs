//! Messages for whoever waits: selected from the state as applied and from what was sent since, and sent.

use std::sync::Arc;
use std::time::Duration;

use halyard_engine::StreamId;
use halyard_runtime::contain::panic_if_planted;
use halyard_runtime::time::{Instant, Timestamp};

use super::choose::{Batch, Stopped, select};
use super::clock::{end_impatient, end_unserved, expire};
use super::desk::{Desk, Flight, Host, View};
use super::intake::Address;
use super::pull::Request;
use super::status;
use super::worker::Worker;
use crate::jetstream::api::timestamp::Moment;
use crate::jetstream::consumer::check;
use crate::jetstream::consumer::machine::Consumer;
use crate::jetstream::consumer::over_store::StoreMessages;
use crate::jetstream::consumer::select::Outcome;

/// A message that nobody took is offered again after that, though somebody seems to listen.
const OFFER_AGAIN: Duration = Duration::from_millis(250);
/// A message for a push consumer that cannot be read is tried again after that.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// A consumer that is paused for longer is looked at again then.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

impl Desk {
    /// Serves whoever waits, if there is something for them.
    pub(super) fn serve(&mut self, at: Address, now: Instant, host: &dyn Host) {
        let (Some(worker), Some(place)) =
            (self.workers.get_mut(&at), self.places.get_mut(&at.stream))
        else {
            return;
        };
        if self.is_leaving {
            return;
        }
        panic_if_planted("panic-in-delivery", at.consumer == 1);
        let account = Arc::clone(place.directory.account());
        worker.drop_gone(&account);
        worker.note_use(now);
        // A request whose time is over gets no message, were it over in the moment in which it came.
        expire(worker, &account, &mut self.sender, Instant::now());
        if !worker.has_demand(now) {
            end_impatient(worker, &account, &mut self.sender);
            return;
        }
        let mut batch = Batch::default();
        host.look(at.stream, &mut |view| {
            let Some(consumer) = view.consumers.get(at.consumer) else {
                return;
            };
            if may_deliver(worker, consumer, at.stream, &view, now) {
                batch = select(worker, consumer, at.stream, &view);
            }
        });
        if let Some(body) = worker.ahead.take_report(at.consumer) {
            let token = self.fly(Flight::Sent(at));
            host.submit(at.stream, &body, token);
        }
        let stopped = std::mem::take(&mut batch.stopped);
        let all_taken = batch.is_nothing() || self.send(at, batch, now);
        let (Some(worker), Some(place)) =
            (self.workers.get_mut(&at), self.places.get_mut(&at.stream))
        else {
            return;
        };
        worker.is_blocked = false;
        match stopped {
            Stopped::Served => {}
            Stopped::AtLimit => {
                self.ready.insert(at);
            }
            Stopped::Empty => {
                place.hungry.insert(at.consumer);
                end_impatient(worker, &account, &mut self.sender);
            }
            Stopped::Blocked { is_through } => {
                place.hungry.insert(at.consumer);
                worker.is_blocked = true;
                if is_through {
                    end_unserved(worker, &account, &mut self.sender);
                }
            }
            Stopped::Held(until) => worker.held_until = Some(until),
            Stopped::Unreadable(seq, why) => {
                place.hungry.insert(at.consumer);
                let (stream, name) = (&place.name, &worker.config.name);
                if worker.unreadable.replace(seq) != Some(seq) {
                    tracing::error!(
                        "consumer {name} of stream {stream} waits: message {seq} cannot be read: {why}"
                    );
                }
                worker.resume_at = worker.push.is_some().then_some(now + READ_AGAIN);
                let text = format!("500 Message {seq} cannot be read: {why}");
                for request in worker.waiting.drain(..) {
                    self.sender.ended(&account, &request, &text);
                }
            }
        }
        if all_taken {
            return;
        }
        match worker.push {
            // Who seems to listen took nothing: they are going, or cannot be sent to.
            Some(_) => worker.resume_at = Some(now + OFFER_AGAIN),
            None => {
                self.ready.insert(at);
            }
        }
    }

    /// Sends messages, ends requests that are through and puts the others back. Whether each message was taken.
    fn send(&mut self, at: Address, batch: Batch, now: Instant) -> bool {
        let (Some(worker), Some(place)) = (self.workers.get_mut(&at), self.places.get(&at.stream))
        else {
            return true;
        };
        let requests: Vec<Request> = worker.waiting.drain(..).collect();
        let account = Arc::clone(place.directory.account());
        let mut served = vec![Served::default(); requests.len()];
        let mut missed = Vec::new();
        for (delivery, message) in &batch.messages {
            let grant = delivery.grant as usize;
            let route = match (&worker.push, requests.get(grant)) {
                (Some(push), _) => &push.subject,
                (None, Some(request)) => &request.reply,
                (None, None) => continue,
            };
            let only = worker.config.headers_only;
            let prefix = &worker.ack_prefix;
            let sent = self
                .sender
                .message(&account, route, prefix, delivery, message, only);
            if sent.is_none() {
                missed.push(delivery.stream_seq);
            }
            if check::replays_original(&worker.config) {
                worker.replayed = Some((message.time, now));
            }
            if let Some(push) = &mut worker.push {
                let bytes = sent.unwrap_or(0);
                push.sent(bytes, now);
                if let Some(reply) = push.flow.as_mut().and_then(|flow| flow.sent(bytes)) {
                    let to = &push.subject;
                    self.sender.status(&account, to, Some(&reply), |out| {
                        status::plain(out, "100 FlowControl Request");
                    });
                }
            } else if let Some(served) = served.get_mut(grant) {
                served.messages += 1;
                served.gone |= sent.is_none();
            }
        }
        if let Some(local) = &mut worker.local {
            local.take_back(&missed);
        }
        let mut turns = Vec::new();
        let outcomes = batch
            .outcomes
            .into_iter()
            .map(Some)
            .chain(std::iter::repeat(None));
        for ((mut request, outcome), served) in requests.into_iter().zip(outcomes).zip(served) {
            // Without an outcome nothing was decided: it waits as before.
            let ended = outcome.and_then(|outcome| settle(&mut request, outcome, served, now));
            match ended {
                None if served.gone || served.is_all(&request) => {}
                None => turns.push((served.messages > 0, request)),
                Some(text) => self.sender.ended(&account, &request, text),
            }
        }
        worker.put_back(turns);
        missed.is_empty()
    }
}

/// What one request got of a batch.
#[derive(Debug, Clone, Copy, Default)]
struct Served {
    messages: u32,
    /// Nobody took a message: its client is gone.
    gone: bool,
}

impl Served {
    /// Whether the request got all that it asked for, or the one message that each gets.
    const fn is_all(self, request: &Request) -> bool {
        self.messages > 0 && request.batch <= 0
    }
}

/// Books what a request got; the status that ends it before it got all.
fn settle(
    request: &mut Request,
    outcome: Outcome,
    served: Served,
    now: Instant,
) -> Option<&'static str> {
    let limited = request.max_bytes > 0;
    request.batch = request.batch.saturating_sub(i64::from(served.messages));
    if limited {
        request.max_bytes = i64::try_from(outcome.max_bytes).unwrap_or(i64::MAX);
        if request.max_bytes == 0 {
            // It has what it asked for to the last byte.
            request.batch = request.batch.min(0);
        }
    }
    if served.messages > 0 {
        request.was_served = true;
        request.heard(now);
    }
    if served.gone {
        return None;
    }
    if served.is_all(request) {
        // The client hears that no more comes for the bytes that are left.
        return (request.max_bytes > 0).then_some("409 Batch Completed");
    }
    outcome
        .too_big
        .then_some("409 Message Size Exceeds MaxBytes")
}

/// Whether a pause or the gaps of a replay let a message go now; if not, says when to look again.
fn may_deliver(
    worker: &mut Worker,
    consumer: &Consumer,
    stream: StreamId,
    view: &View<'_>,
    now: Instant,
) -> bool {
    let wall = Timestamp::now();
    let until = consumer.config().pause_until.map(Moment::timestamp);
    if let Some(until) = until.filter(|until| *until > wall) {
        worker.resume_at = Some(now + (until - wall).min(LOOK_AGAIN));
        return false;
    }
    if !check::replays_original(&worker.config) {
        return true;
    }
    let Some((stored, sent)) = worker.replayed else {
        return true;
    };
    let messages = StoreMessages::new(view.store, stream);
    worker.ahead.settle(consumer);
    let next = match &mut worker.local {
        Some(local) => local.next(consumer, &messages),
        None => worker.ahead.next(consumer, &messages).map(|next| next.seq),
    };
    let next = next.and_then(|seq| view.store.get(stream, seq).ok().flatten());
    let Some(message) = next else { return true };
    let due = sent + (message.time - stored);
    if due > now {
        worker.resume_at = Some(due);
    }
    due <= now
}
