//! The leader's side of all consumers of one group. Owned by the group's driver and called by it alone; never waits.
//!
//! The driver calls [`Desk::poll`] when something came in or a moment has come, and tells what the machine did:
//! [`Desk::applied`] for commands of its own, [`Desk::stored`] for new messages, [`Desk::effects`] for the rest.
//! It answers by [`Host::submit`] and by publishing, so everything runs inside the driver's flush scopes.
//!
//! One deliver command of a consumer is under way at a time; meanwhile requests gather for the next. A consumer that
//! has nothing to send is `hungry`: it costs nothing until its stream stores a message.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use halyard_engine::{Store, StreamId};
use halyard_runtime::time::{Instant, Timestamp};

use super::Token;
use super::directory::Directory;
use super::intake::{Address, Event, Intake, Said};
use super::pull::Request;
use super::push::Push;
use super::send::Sender;
use super::status;
use super::worker::Worker;
use crate::broker::Account;
use crate::jetstream::config::{Retention, StreamConfig};
use crate::jetstream::consumer::check;
use crate::jetstream::consumer::command::{Ack, Command, ConsumerId, Grant};
use crate::jetstream::consumer::effect::Effect;
use crate::jetstream::consumer::info::Presence;
use crate::jetstream::consumer::machine::{Consumer, Position};
use crate::jetstream::consumer::over_store::StoreMessages;
use crate::jetstream::consumer::select::{Delivery, Outcome, Selection, fitting};
use crate::jetstream::consumer::set::{Consumers, Reply};

/// Messages of a consumer without acks that are read under one lock and sent in one go.
const LOCAL_MESSAGES_MAX: usize = 1024;
/// The same in bytes.
const LOCAL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Answers of clients in one command.
const ACKS_MAX: u64 = 16 * 1024;
/// How long the progress of a durable consumer without acks may stay out of the log.
const LOG_EVERY: Duration = Duration::from_secs(1);
/// A consumer that is paused for longer is looked at again then.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

/// The state that the leader reads, under the machine's lock.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The stream's consumers.
    pub consumers: &'a Consumers,
    /// The stream's configuration.
    pub config: &'a StreamConfig,
    /// The group's store.
    pub store: &'a Store,
}

/// What the driver offers.
pub trait Host {
    /// Has the command logged; [`Desk::applied`] gets its reply.
    fn submit(&self, stream: StreamId, body: &[u8], token: Token);
    /// Looks at a stream; nothing happens when it is gone.
    fn look(&self, stream: StreamId, look: &mut dyn FnMut(View<'_>));
    /// Name of a stream that is served, and the consumers of its account.
    fn stream(&self, stream: StreamId) -> Option<(String, Arc<Directory>)>;
}

/// A stream with consumers.
struct Place {
    name: String,
    directory: Arc<Directory>,
    /// Consumers that wait for a message.
    hungry: BTreeSet<ConsumerId>,
}

/// A command under way.
enum Flight {
    Deliver(Address),
    Acks { at: Address, confirms: Vec<Bytes> },
    Other,
}

/// The leader's side of one group.
pub struct Desk {
    intake: Arc<Intake>,
    events: Vec<Event>,
    places: BTreeMap<StreamId, Place>,
    workers: BTreeMap<Address, Worker>,
    /// To be looked at in this poll.
    ready: BTreeSet<Address>,
    /// With answers that are not submitted yet.
    answered: BTreeSet<Address>,
    timers: BTreeSet<(Instant, Address)>,
    flights: BTreeMap<u64, Flight>,
    last_token: u64,
    sender: Sender,
}

/// What is sent for one consumer after a look at the store.
struct Batch {
    messages: Vec<(Delivery, halyard_engine::Message)>,
    outcomes: Vec<Outcome>,
    more: bool,
}

impl Desk {
    /// The side of a group whose consumers are announced by [`Desk::attach`].
    pub fn new(intake: Arc<Intake>) -> Self {
        Self {
            intake,
            events: Vec::new(),
            places: BTreeMap::new(),
            workers: BTreeMap::new(),
            ready: BTreeSet::new(),
            answered: BTreeSet::new(),
            timers: BTreeSet::new(),
            flights: BTreeMap::new(),
            last_token: 0,
            sender: Sender::default(),
        }
    }

    /// Serves a consumer from now on; of one that is served already, takes over the new configuration.
    pub fn attach(&mut self, at: Address, now: Instant, host: &dyn Host) {
        if !self.places.contains_key(&at.stream) {
            let Some((name, directory)) = host.stream(at.stream) else {
                return;
            };
            self.places.insert(
                at.stream,
                Place {
                    name,
                    directory,
                    hungry: BTreeSet::new(),
                },
            );
        }
        let Some(place) = self.places.get(&at.stream) else {
            return;
        };
        let mut made = None;
        host.look(at.stream, &mut |view| {
            made = view
                .consumers
                .get(at.consumer)
                .map(|one| Worker::new(&place.name, one, now));
        });
        let Some(mut worker) = made else { return };
        let (name, subject) = (
            worker.config.name.clone(),
            worker.config.deliver_subject.clone(),
        );
        if let Some(known) = self.workers.get_mut(&at) {
            let moved = known.config.deliver_subject != subject;
            known.config = worker.config;
            if !moved {
                self.ready.insert(at);
                return;
            }
            worker = match self.workers.remove(&at) {
                Some(known) => known,
                None => return,
            };
        }
        if !subject.is_empty() {
            let intake = Arc::clone(&self.intake);
            let notify = move |present| intake.push(Event::Interest { at, present });
            let account = place.directory.account();
            let watch = account.watch_interest(subject.as_bytes(), notify);
            worker.push = Some(Push::new(&place.name, &worker.config, watch));
        }
        place.directory.insert(&place.name, &name, at, &self.intake);
        self.workers.insert(at, worker);
        self.ready.insert(at);
        self.set_timer(at);
    }

    /// Does what is to do; the moment at which it wants to be called again at the latest.
    pub fn poll(&mut self, now: Instant, host: &dyn Host) -> Option<Instant> {
        let mut events = std::mem::take(&mut self.events);
        self.intake.take(&mut events);
        for event in events.drain(..) {
            self.take(event, now, host);
        }
        self.events = events;
        while let Some((_, at)) = self.timers.first().filter(|(due, _)| *due <= now).copied() {
            self.on_time(at, now, host);
        }
        for at in std::mem::take(&mut self.answered) {
            self.submit_acks(at, host);
        }
        let ready = std::mem::take(&mut self.ready);
        for at in ready {
            self.serve(at, now, host);
            self.set_timer(at);
        }
        self.sender.settle();
        if self.ready.is_empty() {
            self.timers.first().map(|(due, _)| *due)
        } else {
            Some(now)
        }
    }

    /// A command of its own was applied.
    pub fn applied(&mut self, token: Token, reply: Reply, now: Instant, host: &dyn Host) {
        match self.flights.remove(&token.0) {
            Some(Flight::Deliver(at)) => {
                let selection = match reply {
                    Reply::Selected(selection) => selection,
                    _ => Selection::default(),
                };
                self.selected(at, selection, now, host);
                self.set_timer(at);
            }
            Some(Flight::Acks { at, confirms }) => {
                let Some(place) = self.places.get(&at.stream) else {
                    return;
                };
                for confirm in confirms {
                    self.sender.empty(place.directory.account(), &confirm);
                }
            }
            Some(Flight::Other) | None => {}
        }
    }

    /// Entries were lost sight of: nobody knows whether its commands were applied. What was selected in vain goes out
    /// again after the ack wait; requests under way wait again.
    pub fn lost(&mut self) {
        self.flights.clear();
        for (at, worker) in &mut self.workers {
            if let Some(requests) = worker.flying.take() {
                for request in requests.into_iter().rev() {
                    worker.waiting.push_front(request);
                }
                self.ready.insert(*at);
            }
        }
    }

    /// A stream has new messages.
    pub fn stored(&mut self, stream: StreamId) {
        if let Some(place) = self.places.get_mut(&stream) {
            let hungry = std::mem::take(&mut place.hungry);
            self.ready.extend(
                hungry
                    .into_iter()
                    .map(|consumer| Address { stream, consumer }),
            );
        }
    }

    /// Whether [`Desk::poll`] has something to do at once.
    pub fn is_ready(&self) -> bool {
        !self.ready.is_empty() || !self.answered.is_empty()
    }

    /// What the machine did to a consumer.
    pub fn effect(&mut self, stream: StreamId, effect: &Effect, now: Instant, host: &dyn Host) {
        let at = |id: &ConsumerId| Address {
            stream,
            consumer: *id,
        };
        match effect {
            Effect::Changed { id, is_new } => {
                self.attach(at(id), now, host);
                if *is_new {
                    self.advise(at(id), effect);
                }
            }
            Effect::Deleted { id } => {
                self.advise(at(id), effect);
                self.detach(at(id));
            }
            Effect::StreamDeleted => self.stream_deleted(stream),
            Effect::Ready { id } => {
                if let Some(worker) = self.workers.get_mut(&at(id)) {
                    worker.resume_at = None;
                }
                self.ready.insert(at(id));
            }
            Effect::MaxDeliveries { id, .. }
            | Effect::Naked { id, .. }
            | Effect::Terminated { id, .. }
            | Effect::Acked { id, .. } => self.advise(at(id), effect),
        }
    }

    /// Tells who listens what happened.
    fn advise(&mut self, at: Address, effect: &Effect) {
        let (Some(place), Some(worker)) = (self.places.get(&at.stream), self.workers.get(&at))
        else {
            return;
        };
        self.sender.advisory(
            place.directory.account(),
            &place.name,
            &worker.config.name,
            effect,
            worker.config.sample_percent(),
        );
    }

    /// A stream is gone, and its consumers with it.
    pub fn stream_deleted(&mut self, stream: StreamId) {
        let from = Address {
            stream,
            consumer: 0,
        };
        let until = Address {
            stream,
            consumer: ConsumerId::MAX,
        };
        let gone: Vec<Address> = self
            .workers
            .range(from..=until)
            .map(|(at, _)| *at)
            .collect();
        for at in gone {
            self.detach(at);
        }
        self.places.remove(&stream);
    }

    fn detach(&mut self, at: Address) {
        let Some(worker) = self.workers.remove(&at) else {
            return;
        };
        if let Some(due) = worker.timer {
            self.timers.remove(&(due, at));
        }
        self.ready.remove(&at);
        self.answered.remove(&at);
        let Some(place) = self.places.get_mut(&at.stream) else {
            return;
        };
        place.hungry.remove(&at.consumer);
        place.directory.remove(&place.name, &worker.config.name, at);
        let account = place.directory.account();
        for request in worker.waiting.iter().chain(worker.flying.iter().flatten()) {
            self.sender.status(account, &request.reply, None, |out| {
                status::plain(out, "409 Consumer Deleted");
            });
        }
    }

    fn take(&mut self, event: Event, now: Instant, host: &dyn Host) {
        match event {
            Event::Pull { at, reply, body } => self.take_pull(at, reply, &body, now),
            Event::Ack {
                at,
                stream_seq,
                consumer_seq,
                said,
                reply,
            } => {
                self.take_ack(at, stream_seq, consumer_seq, said, reply, now);
            }
            Event::Flow { at, id } => {
                let push = self
                    .workers
                    .get_mut(&at)
                    .and_then(|worker| worker.push.as_mut());
                let flow = push.and_then(|push| push.flow.as_mut());
                if flow.is_some_and(|flow| flow.answered(id)) {
                    self.ready.insert(at);
                }
            }
            Event::Interest { at, present } => {
                let Some(worker) = self.workers.get_mut(&at) else {
                    return;
                };
                worker.used_at = now;
                if let Some(push) = &mut worker.push {
                    push.bind(present, now);
                    self.ready.insert(at);
                }
                self.set_timer(at);
            }
            Event::Served { stream } => {
                let mut known = Vec::new();
                host.look(stream, &mut |view| {
                    known = view.consumers.iter().map(Consumer::id).collect();
                });
                for consumer in known {
                    self.attach(Address { stream, consumer }, now, host);
                }
            }
            Event::Presence { of, to } => {
                let all = of.into_iter().map(|at| self.presence(at, host)).collect();
                // Whoever asked may have gone.
                let _ = to.send(all);
            }
        }
    }

    fn presence(&mut self, at: Address, host: &dyn Host) -> Presence {
        let (Some(worker), Some(place)) = (self.workers.get_mut(&at), self.places.get(&at.stream))
        else {
            return Presence::default();
        };
        worker.drop_gone(place.directory.account());
        let mut presence = Presence {
            waiting: worker.waiting.len() + worker.flying.as_ref().map_or(0, Vec::len),
            push_bound: worker.push.as_ref().is_some_and(|push| push.bound),
            ..Presence::default()
        };
        if let Some(local) = &worker.local {
            presence.reached = Some((local.reached, local.at));
            host.look(at.stream, &mut |view| {
                let messages = StoreMessages::new(view.store, at.stream);
                let consumer = view.consumers.get(at.consumer);
                presence.unseen = consumer.map(|one| local.cursor.count(one.filters(), &messages));
            });
        }
        presence
    }

    fn take_pull(&mut self, at: Address, reply: Bytes, body: &[u8], now: Instant) {
        let (Some(worker), Some(place)) = (self.workers.get_mut(&at), self.places.get(&at.stream))
        else {
            return;
        };
        let account = place.directory.account();
        worker.used_at = now;
        let refused = if worker.push.is_some() {
            Err("409 Consumer is push based".to_owned())
        } else {
            Request::parse(body, reply.clone(), &worker.config, now)
        };
        let request = match refused {
            Ok(request) => request,
            Err(text) => {
                self.sender
                    .status(account, &reply, None, |out| status::plain(out, &text));
                return;
            }
        };
        let max = usize::try_from(worker.config.max_waiting).unwrap_or(usize::MAX);
        let waiting =
            |worker: &Worker| worker.waiting.len() + worker.flying.as_ref().map_or(0, Vec::len);
        if waiting(worker) >= max {
            worker.drop_gone(account);
        }
        if waiting(worker) >= max {
            // A client that asked for signs of life learns from their absence.
            if request.heartbeat.is_none() {
                self.sender.status(account, &reply, None, |out| {
                    status::plain(out, "409 Exceeded MaxWaiting");
                });
            }
            return;
        }
        worker.waiting.push_back(request);
        self.ready.insert(at);
    }

    fn take_ack(
        &mut self,
        at: Address,
        stream_seq: u64,
        consumer_seq: u64,
        said: Said,
        reply: Option<Bytes>,
        now: Instant,
    ) {
        let Some(worker) = self.workers.get_mut(&at) else {
            return;
        };
        worker.used_at = now;
        worker.acks.push(&Ack {
            stream_seq,
            consumer_seq,
            verb: said.verb(),
        });
        self.answered.insert(at);
        match (said, reply) {
            (Said::Next(body), Some(reply)) => self.take_pull(at, reply, &body, now),
            (_, Some(reply)) => worker.confirms.push(reply),
            (_, None) => {}
        }
    }

    fn submit_acks(&mut self, at: Address, host: &dyn Host) {
        let Some(worker) = self.workers.get_mut(&at) else {
            return;
        };
        if worker.acks.is_empty() {
            return;
        }
        debug_assert!(
            worker.acks.len() < ACKS_MAX * 16,
            "the intake is emptied often"
        );
        let confirms = std::mem::take(&mut worker.confirms);
        let mut body = Vec::new();
        worker.acks.finish(&mut body);
        let token = self.fly(Flight::Acks { at, confirms });
        host.submit(at.stream, &body, token);
    }

    fn fly(&mut self, flight: Flight) -> Token {
        self.last_token += 1;
        self.flights.insert(self.last_token, flight);
        Token(self.last_token)
    }

    fn set_timer(&mut self, at: Address) {
        let Some(worker) = self.workers.get_mut(&at) else {
            return;
        };
        let due = worker.deadline();
        if worker.timer == due {
            return;
        }
        if let Some(old) = std::mem::replace(&mut worker.timer, due) {
            self.timers.remove(&(old, at));
        }
        if let Some(due) = due {
            self.timers.insert((due, at));
        }
    }

    /// The moment has come that a consumer waited for.
    fn on_time(&mut self, at: Address, now: Instant, host: &dyn Host) {
        let (Some(worker), Some(place)) = (self.workers.get_mut(&at), self.places.get(&at.stream))
        else {
            return;
        };
        if let Some(due) = worker.timer.take() {
            self.timers.remove(&(due, at));
        }
        let account = Arc::clone(place.directory.account());
        if worker.resume_at.is_some_and(|due| due <= now) {
            worker.resume_at = None;
            self.ready.insert(at);
        }
        if let Some(push) = &mut worker.push {
            if push.free_at.is_some_and(|due| due <= now) {
                push.free_at = None;
                self.ready.insert(at);
            }
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
            worker.drop_gone(&account);
            // Whatever comes of it, look again only after another such time.
            let in_use = worker.is_in_use();
            worker.used_at = now;
            if !in_use {
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

    /// Serves whoever waits, if there is something for them.
    fn serve(&mut self, at: Address, now: Instant, host: &dyn Host) {
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
    fn selected(&mut self, at: Address, selection: Selection, now: Instant, host: &dyn Host) {
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
        let account = place.directory.account();
        let mut served = vec![false; requests.len()];
        let mut gone = vec![false; requests.len()];
        for (delivery, message) in &batch.messages {
            let grant = delivery.grant as usize;
            let route = match (&worker.push, requests.get(grant)) {
                (Some(push), _) => &push.subject,
                (None, Some(request)) => &request.reply,
                (None, None) => continue,
            };
            let bytes = self.sender.message(
                account,
                route,
                &worker.ack_prefix,
                delivery,
                message,
                worker.config.headers_only,
            );
            if check::replays_original(&worker.config) {
                worker.replayed = Some((message.time, now));
            }
            if let Some(push) = &mut worker.push {
                push.sent(bytes.unwrap_or(0), now);
                let ask = push
                    .flow
                    .as_mut()
                    .and_then(|flow| flow.sent(bytes.unwrap_or(0)));
                if let Some(reply) = ask {
                    self.sender
                        .status(account, &push.subject, Some(&reply), |out| {
                            status::plain(out, "100 FlowControl Request");
                        });
                }
                continue;
            }
            let (Some(served), Some(gone)) = (served.get_mut(grant), gone.get_mut(grant)) else {
                continue;
            };
            (*served, *gone) = (true, *gone || bytes.is_none());
        }
        if batch.more || (worker.local.is_some() && !batch.messages.is_empty()) {
            self.ready.insert(at);
        }
        let outcomes = batch
            .outcomes
            .into_iter()
            .map(Some)
            .chain(std::iter::repeat(None));
        let mut turns = Vec::new();
        for (((mut request, outcome), served), gone) in
            requests.into_iter().zip(outcomes).zip(served).zip(gone)
        {
            let Some(outcome) = outcome else {
                worker.waiting.push_front(request);
                continue;
            };
            let limited = request.max_bytes > 0;
            (request.batch, request.max_bytes) = (outcome.batch, outcome.max_bytes);
            if served {
                request.was_served = true;
                request.heard(now);
            }
            if gone || outcome.batch == 0 {
                continue;
            }
            if outcome.too_big {
                let text = if limited && outcome.max_bytes == 0 {
                    "409 Batch Completed"
                } else {
                    "409 Message Size Exceeds MaxBytes"
                };
                let (batch, bytes) = (u64::from(outcome.batch), outcome.max_bytes);
                self.sender.status(account, &request.reply, None, |out| {
                    status::ended(out, text, batch, bytes);
                });
                continue;
            }
            turns.push((served, request));
        }
        // Those that got nothing come first again, then those that came meanwhile, then those that got something.
        let (served, unserved): (Vec<_>, Vec<_>) =
            turns.into_iter().partition(|(served, _)| *served);
        for (_, request) in unserved.into_iter().rev() {
            worker.waiting.push_front(request);
        }
        worker
            .waiting
            .extend(served.into_iter().map(|(_, request)| request));
    }
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
            consumer_seq: local.reached.consumer + 1,
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
            let wait = if soon {
                Duration::from_millis(10)
            } else {
                LOG_EVERY
            };
            worker.log_at = Some(Instant::now() + wait);
        }
    }
    Some(Batch {
        messages: selected,
        outcomes,
        more: false,
    })
}

/// What the log should know of a consumer without acks.
fn log_progress(worker: &mut Worker, id: ConsumerId) -> Option<Vec<u8>> {
    let local = worker.local.as_mut()?;
    if local.logged == local.reached.consumer {
        return None;
    }
    local.logged = local.reached.consumer;
    let Position { consumer, stream } = local.reached;
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
fn end_impatient(worker: &mut Worker, account: &Arc<Account>, sender: &mut Sender) {
    worker.waiting.retain(|request| {
        let ends = request.no_wait && (request.expires.is_none() || request.was_served);
        if ends {
            sender.status(account, &request.reply, None, |out| {
                status::plain(out, "404 No Messages");
            });
        }
        !ends
    });
}

/// Ends requests whose time is over.
fn expire(worker: &mut Worker, account: &Arc<Account>, sender: &mut Sender, now: Instant) {
    worker.waiting.retain(|request| {
        let over = request.expires.is_some_and(|end| end <= now);
        if over {
            let (batch, bytes) = (u64::from(request.batch), request.max_bytes);
            sender.status(account, &request.reply, None, |out| {
                status::ended(out, "408 Request Timeout", batch, bytes);
            });
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
            last = view
                .consumers
                .get(at.consumer)
                .map_or(last, Consumer::delivered);
        });
    }
    if let Some(push) = worker.push.as_mut().filter(|_| push_due) {
        let owed = push.flow.as_ref().and_then(super::push::Flow::owed);
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
