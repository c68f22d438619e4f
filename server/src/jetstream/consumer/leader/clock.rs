//! What the desk does when a moment has come: signs of life, requests that end, idle consumers, progress for the log.

use std::sync::Arc;

use halyard_runtime::time::Instant;

use super::desk::{Desk, Flight, Host};
use super::intake::Address;
use super::pull::Request;
use super::push::Flow;
use super::send::Sender;
use super::status;
use super::worker::Worker;
use crate::broker::Account;
use crate::jetstream::consumer::command::{Command, ConsumerId};
use crate::jetstream::consumer::machine::Position;

impl Desk {
    /// The moment has come that a consumer waited for.
    pub(super) fn on_time(&mut self, at: Address, now: Instant, host: &dyn Host) {
        let (Some(worker), Some(place)) = (self.workers.get_mut(&at), self.places.get(&at.stream))
        else {
            return;
        };
        if let Some(due) = worker.timer.take() {
            self.timers.remove(&(due, at));
        }
        let account = Arc::clone(place.directory.account());
        if worker.idle_max().is_some() {
            worker.drop_gone(&account);
            worker.note_use(now);
        }
        if worker.resume_at.is_some_and(|due| due <= now) {
            worker.resume_at = None;
            self.ready.insert(at);
        }
        let slow = worker.push.as_mut();
        if let Some(push) = slow.filter(|push| push.free_at.is_some_and(|due| due <= now)) {
            push.free_at = None;
            self.ready.insert(at);
        }
        beat(worker, at, &account, &mut self.sender, now, host);
        expire(worker, &account, &mut self.sender, now);
        let mut body = None;
        if worker.log_at.is_some_and(|due| due <= now) {
            worker.log_at = None;
            body = log_progress(worker, at.consumer);
        }
        if let Some(idle) = worker
            .idle_max()
            .filter(|idle| worker.used_at + *idle <= now)
        {
            // Whatever comes of it, look again only after another such time.
            worker.used_at = now;
            if !is_awaited(at, host) {
                tracing::debug!(
                    "consumer {} is idle for {idle:?}: deleted",
                    worker.config.name
                );
                body = Some(Command::Delete { id: at.consumer }.to_bytes());
            }
        }
        if let Some(body) = body {
            let token = self.fly(Flight::Other);
            host.submit(at.stream, &body, token);
        }
        self.set_timer(at);
    }
}

/// Whether a client still has time to answer a delivery.
fn is_awaited(at: Address, host: &dyn Host) -> bool {
    let mut awaited = false;
    host.look(at.stream, &mut |view| {
        let consumer = view.consumers.get(at.consumer);
        awaited = consumer.is_some_and(|one| one.next_deadline().is_some());
    });
    awaited
}

/// What the log should know of a consumer without acks.
pub(super) fn log_progress(worker: &mut Worker, id: ConsumerId) -> Option<Vec<u8>> {
    let local = worker.local.as_mut()?;
    if local.logged == local.reached.consumer {
        return None;
    }
    local.logged = local.reached.consumer;
    let Position { consumer, stream } = local.complete();
    Some(
        Command::Progress {
            id,
            consumer_seq: consumer,
            stream_seq: stream,
        }
        .to_bytes(),
    )
}

/// Ends requests that do not wait.
pub(super) fn end_impatient(worker: &mut Worker, account: &Arc<Account>, sender: &mut Sender) {
    worker.end(
        |request| request.no_wait && (request.expires.is_none() || request.was_served),
        |request| nothing(request, account, sender),
    );
}

/// Ends requests that do not wait and got nothing.
pub(super) fn end_unserved(worker: &mut Worker, account: &Arc<Account>, sender: &mut Sender) {
    worker.end(
        |request| request.no_wait && request.expires.is_none() && !request.was_served,
        |request| nothing(request, account, sender),
    );
}

fn nothing(request: &Request, account: &Arc<Account>, sender: &mut Sender) {
    sender.status(account, &request.reply, None, |out| {
        status::plain(out, "404 No Messages");
    });
}

/// Ends requests whose time is over.
pub(super) fn expire(
    worker: &mut Worker,
    account: &Arc<Account>,
    sender: &mut Sender,
    now: Instant,
) {
    worker.waiting.retain(|request| {
        let over = request.expires.is_some_and(|end| end <= now);
        if over {
            sender.ended(account, request, "408 Request Timeout");
        }
        !over
    });
}

/// Gives the signs of life that are due.
fn beat(
    worker: &mut Worker,
    at: Address,
    account: &Arc<Account>,
    sender: &mut Sender,
    now: Instant,
    host: &dyn Host,
) {
    let due = |beat: Option<Instant>| beat.is_some_and(|beat| beat <= now);
    let push_due = worker
        .push
        .as_ref()
        .is_some_and(|push| due(push.next_heartbeat));
    let pull_due = worker
        .waiting
        .iter()
        .any(|request| due(request.next_heartbeat));
    if !push_due && !pull_due {
        return;
    }
    let mut last = worker
        .local
        .as_ref()
        .map_or_else(Position::default, |local| local.reached);
    if worker.local.is_none() {
        host.look(at.stream, &mut |view| {
            if let Some(consumer) = view.consumers.get(at.consumer) {
                last = worker.ahead.delivered(consumer);
            }
        });
    }
    if let Some(push) = worker.push.as_mut().filter(|_| push_due) {
        let owed = push.flow.as_ref().and_then(Flow::owed);
        sender.status(account, &push.subject, None, |out| {
            status::heartbeat(out, last.consumer, last.stream, owed.as_deref());
        });
        push.sent(0, now);
    }
    for request in &mut worker.waiting {
        if due(request.next_heartbeat) {
            sender.status(account, &request.reply, None, |out| {
                status::heartbeat(out, last.consumer, last.stream, None);
            });
            request.heard(now);
        }
    }
}
