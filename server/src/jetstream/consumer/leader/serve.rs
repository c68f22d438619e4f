//! Messages for whoever waits: selected by the log, or here for consumers without acks, and sent.

use std::sync::Arc;
use std::time::Duration;

use halyard_engine::{Message, StreamId};
use halyard_runtime::time::{Instant, Timestamp};

use super::clock::end_impatient;
use super::desk::{Desk, Flight, Host, View};
use super::intake::Address;
use super::pull::Request;
use super::push::Push;
use super::status;
use super::worker::Worker;
use crate::jetstream::config::Retention;
use crate::jetstream::consumer::check;
use crate::jetstream::consumer::command::{Command, Grant};
use crate::jetstream::consumer::machine::{Consumer, Position};
use crate::jetstream::consumer::over_store::StoreMessages;
use crate::jetstream::consumer::select::{Delivery, Outcome, Selection, fitting};

/// Messages of a consumer without acks that are read under one lock and sent in one go.
const LOCAL_MESSAGES_MAX: usize = 1024;
/// The same in bytes: with flow control, a window may be exceeded by this.
const LOCAL_BYTES_MAX: usize = 1024 * 1024;
/// How long the progress of a durable consumer without acks may stay out of the log.
const LOG_EVERY: Duration = Duration::from_secs(1);
/// The same where messages wait for it to be removed.
const LOG_SOON: Duration = Duration::from_millis(10);
/// A consumer that is paused for longer is looked at again then.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// What is sent for one consumer after a look at the store.
struct Batch {
    messages: Vec<(Delivery, Message)>,
    outcomes: Vec<Outcome>,
    more: bool,
}

impl Desk {
    /// Serves whoever waits, if there is something for them.
    pub(super) fn serve(&mut self, at: Address, now: Instant, host: &dyn Host) {
        let (Some(worker), Some(place)) =
            (self.workers.get_mut(&at), self.places.get_mut(&at.stream))
        else {
            return;
        };
        let account = Arc::clone(place.directory.account());
        if worker.flying.is_some() {
            return;
        }
        worker.drop_gone(&account);
        if !worker.has_demand(now) {
            end_impatient(worker, &account, &mut self.sender);
            return;
        }
        let mut ask = None;
        let mut batch = None;
        host.look(at.stream, &mut |view| {
            let Some(consumer) = view.consumers.get(at.consumer) else {
                return;
            };
            let messages = StoreMessages::new(view.store, at.stream);
            if !may_deliver(worker, consumer, at.stream, &view, now) {
                return;
            }
            if worker.local.is_some() {
                batch = select_locally(worker, consumer, at.stream, &view);
            } else if consumer.has_next(&messages, Timestamp::now()) {
                let one = check::replays_original(&worker.config);
                ask = Some(worker.take_grants(one));
            }
        });
        if let Some((grants, requests)) = ask {
            worker.flying = Some(requests);
            let body = Command::Deliver {
                id: at.consumer,
                grants,
            }
            .to_bytes();
            let token = self.fly(Flight::Deliver(at));
            host.submit(at.stream, &body, token);
        } else if let Some(batch) = batch {
            let requests: Vec<Request> = worker.waiting.drain(..).collect();
            self.send(at, batch, requests, now);
        } else {
            place.hungry.insert(at.consumer);
            end_impatient(worker, &account, &mut self.sender);
        }
    }

    /// Messages were selected for the requests under way.
    pub(super) fn selected(
        &mut self,
        at: Address,
        selection: Selection,
        now: Instant,
        host: &dyn Host,
    ) {
        let Some(worker) = self.workers.get_mut(&at) else {
            return;
        };
        let requests = worker.flying.take().unwrap_or_default();
        let mut messages = Vec::with_capacity(selection.deliveries.len());
        host.look(at.stream, &mut |view| {
            for delivery in &selection.deliveries {
                // One that went meanwhile is left out; the machine was told too.
                if let Ok(Some(message)) = view.store.get(at.stream, delivery.stream_seq) {
                    messages.push((*delivery, message));
                }
            }
        });
        self.ready.insert(at);
        self.send(
            at,
            Batch {
                messages,
                outcomes: selection.outcomes,
                more: selection.more,
            },
            requests,
            now,
        );
    }

    /// Sends messages, ends requests that are through and puts the others back.
    fn send(&mut self, at: Address, batch: Batch, requests: Vec<Request>, now: Instant) {
        let (Some(worker), Some(place)) = (self.workers.get_mut(&at), self.places.get(&at.stream))
        else {
            return;
        };
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
        if batch.more || (worker.local.is_some() && !batch.messages.is_empty()) {
            self.ready.insert(at);
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
                None if served.gone || request.batch == 0 => {}
                None => turns.push((served.messages > 0, request)),
                Some(text) => {
                    let (batch, bytes) = (u64::from(request.batch), request.max_bytes);
                    self.sender.status(&account, &request.reply, None, |out| {
                        status::ended(out, text, batch, bytes);
                    });
                }
            }
        }
        worker.put_back(turns);
    }
}

/// What one request got of a batch.
#[derive(Debug, Clone, Copy, Default)]
struct Served {
    messages: u32,
    /// Nobody took a message: its client is gone.
    gone: bool,
}

/// Books what a request got; the status that ends it before it got all.
fn settle(
    request: &mut Request,
    outcome: Outcome,
    served: Served,
    now: Instant,
) -> Option<&'static str> {
    let limited = request.max_bytes > 0;
    request.batch = request.batch.saturating_sub(served.messages);
    request.max_bytes = outcome.max_bytes;
    if served.messages > 0 {
        request.was_served = true;
        request.heard(now);
    }
    if !outcome.too_big || served.gone || request.batch == 0 {
        return None;
    }
    let used_up = limited && outcome.max_bytes == 0;
    Some(if used_up {
        "409 Batch Completed"
    } else {
        "409 Message Size Exceeds MaxBytes"
    })
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
    if let Some(until) = consumer.config().pause_until.filter(|until| *until > wall) {
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
    let cursor = worker
        .local
        .as_ref()
        .map_or_else(|| consumer.cursor(), |local| &local.cursor);
    let next = cursor.peek(consumer.filters(), &messages);
    let next = next.and_then(|seq| view.store.get(stream, seq).ok().flatten());
    let Some(message) = next else { return true };
    let due = sent + (message.time - stored);
    if due > now {
        worker.resume_at = Some(due);
    }
    due <= now
}

/// Selects for a consumer without acks, from its local cursor. `None`: there is nothing.
fn select_locally(
    worker: &mut Worker,
    consumer: &Consumer,
    stream: StreamId,
    view: &View<'_>,
) -> Option<Batch> {
    let messages = StoreMessages::new(view.store, stream);
    let one =
        check::replays_original(&worker.config) || worker.push.as_ref().is_some_and(Push::is_slow);
    let limit = if one { 1 } else { LOCAL_MESSAGES_MAX };
    let grants: Vec<Grant> = match &worker.push {
        Some(_) => vec![Grant {
            batch: u32::MAX,
            max_bytes: 0,
        }],
        None => worker.waiting.iter().map(Request::grant).collect(),
    };
    let mut outcomes: Vec<Outcome> = grants.iter().map(Outcome::of).collect();
    let mut turns = (0_u32..).take(grants.len()).collect();
    let ack_bytes = worker.ack_prefix.len() as u64;
    let local = worker.local.as_mut()?;
    let mut unseen = None;
    let mut selected = Vec::new();
    let mut bytes = 0;
    while selected.len() < limit && bytes < LOCAL_BYTES_MAX {
        let Some(seq) = local.cursor.peek(consumer.filters(), &messages) else {
            break;
        };
        let Ok(Some(message)) = view.store.get(stream, seq) else {
            // It cannot be read; the store has said why. The next one may be.
            local.cursor.pass(seq);
            continue;
        };
        let before =
            *unseen.get_or_insert_with(|| local.cursor.count(consumer.filters(), &messages));
        let mut delivery = Delivery {
            stream_seq: seq,
            consumer_seq: local.reached.consumer.saturating_add(1),
            count: 1,
            grant: 0,
            unseen: before.saturating_sub(1),
        };
        let size = message.record.len() as u64 + ack_bytes + delivery.ack_digits();
        let Some(grant) = fitting(&mut turns, &mut outcomes, size) else {
            break;
        };
        delivery.grant = grant;
        local.cursor.pass(seq);
        local.reached = Position {
            consumer: delivery.consumer_seq,
            stream: seq,
        };
        unseen = Some(delivery.unseen);
        bytes += message.record.len();
        selected.push((delivery, message));
    }
    let ended = outcomes.iter().any(|outcome| outcome.too_big);
    if selected.is_empty() && !ended {
        return None;
    }
    if !selected.is_empty() {
        local.at = Timestamp::now();
        let soon = view.config.retention == Retention::Interest;
        if worker.log_at.is_none() && (soon || worker.config.is_durable()) {
            let wait = if soon { LOG_SOON } else { LOG_EVERY };
            worker.log_at = Some(Instant::now() + wait);
        }
    }
    Some(Batch {
        messages: selected,
        outcomes,
        more: false,
    })
}
