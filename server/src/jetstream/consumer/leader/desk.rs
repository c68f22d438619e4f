//! The leader's side of all consumers of one group. Owned by the group's driver and called by it alone; never waits.
//!
//! The driver calls [`Desk::poll`] when something came in or a moment has come, and tells what the machine did:
//! [`Desk::applied`] for commands of its own, [`Desk::stored`] for new messages, [`Desk::effects`] for the rest.
//! It answers by [`Host::submit`] and by publishing, so everything runs inside the driver's flush scopes.
//!
//! What is stored goes out at once, and the log is told behind it (`ahead`). A consumer that has nothing to send is
//! `hungry`: it costs nothing until its stream stores a message.
//!
//! A panic where a request, an answer or a delivery of one consumer is handled takes that one away, and no other.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use halyard_engine::{Store, StreamId};
use halyard_runtime::contain::contain;
use halyard_runtime::time::{Instant, Timestamp};

use super::Token;
use super::clock::log_progress;
use super::directory::Directory;
use super::intake::{Address, Event, Intake, Named, Said};
use super::pull::Request;
use super::push::Push;
use super::send::Sender;
use super::status;
use super::worker::{Confirm, Worker};
use crate::broker::ClientId;
use crate::jetstream::config::StreamConfig;
use crate::jetstream::consumer::command::{Ack, ConsumerId};
use crate::jetstream::consumer::config::AckPolicy;
use crate::jetstream::consumer::effect::Effect;
use crate::jetstream::consumer::info::Presence;
use crate::jetstream::consumer::machine::Consumer;
use crate::jetstream::consumer::over_store::StoreMessages;
use crate::jetstream::consumer::set::{Consumers, Reply};

/// Consumers that are served in one go with the acknowledgements of what they get.
const SERVED_WITH_ACKS: usize = 8;
/// What a pull request is answered whose stream takes no changes, so that no delivery could be noted.
pub const HALTED: &str = "409 Stream Halted";
/// After the log did not take what was sent, nothing is sent for so long.
const NOT_LOGGED_REST: Duration = Duration::from_secs(1);

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

/// What a rate limit lets go at once on a stream whose messages have no limit: the largest message of most servers.
const BURST_BYTES: u64 = 1 << 20;

/// The time of the oldest message that the stream holds.
fn oldest(view: &View<'_>, stream: StreamId) -> Option<Timestamp> {
    let first = view.store.first_at_or_after(stream, 1)?;
    view.store.time_of(stream, first).ok().flatten()
}

/// What the driver offers.
pub trait Host {
    /// Has the command logged, behind all that were submitted before; [`Desk::applied`] gets its reply. An answer to a
    /// delivery must not overtake the delivery.
    fn submit(&self, stream: StreamId, body: &[u8], token: Token);
    /// Looks at a stream; nothing happens when it is gone.
    fn look(&self, stream: StreamId, look: &mut dyn FnMut(View<'_>));
    /// A consumer is served no more because of a bug; for people.
    fn set_aside(&self, at: Address, why: String);
    /// Such consumers among these are served again, or gone.
    fn set_back(&self, these: RangeInclusive<Address>);
    /// Name of a stream that is served, and the consumers of its account.
    fn stream(&self, stream: StreamId) -> Option<(String, Arc<Directory>)>;
}

/// A stream with consumers.
pub(super) struct Place {
    pub(super) name: String,
    pub(super) directory: Arc<Directory>,
    /// Consumers that wait for a message.
    pub(super) hungry: BTreeSet<ConsumerId>,
}

/// A command under way.
pub(super) enum Flight {
    /// Tells the log what was sent.
    Sent(Address),
    Acks {
        at: Address,
        confirms: Vec<Confirm>,
    },
    Other,
}

/// The leader's side of one group.
pub struct Desk {
    intake: Arc<Intake>,
    events: Vec<Event>,
    pub(super) places: BTreeMap<StreamId, Place>,
    pub(super) workers: BTreeMap<Address, Worker>,
    /// To be looked at in this poll.
    pub(super) ready: BTreeSet<Address>,
    /// With answers that are not submitted yet.
    answered: BTreeSet<Address>,
    pub(super) timers: BTreeSet<(Instant, Address)>,
    flights: BTreeMap<u64, Flight>,
    last_token: u64,
    /// The server stops: nothing is sent any more.
    pub(super) is_leaving: bool,
    pub(super) sender: Sender,
}

/// A pull request as it came.
struct Pull<'a> {
    client: Option<ClientId>,
    reply: Bytes,
    needs_newer: bool,
    body: &'a [u8],
}

/// What a request that waits hears when the server goes, or its client would wait for ever.
const SHUTDOWN: &str = "409 Server Shutdown";

impl Desk {
    /// The side of a group whose consumers are announced by [`Desk::attach`].
    pub fn new(intake: Arc<Intake>, domain: Option<String>) -> Self {
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
            is_leaving: false,
            sender: Sender::new(domain),
        }
    }

    /// Serves a consumer from now on; of one that is served already, takes over the new configuration.
    pub fn attach(&mut self, at: Address, now: Instant, host: &dyn Host) {
        let place = match self.places.entry(at.stream) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let Some((name, directory)) = host.stream(at.stream) else {
                    return;
                };
                new.insert(Place {
                    name,
                    directory,
                    hungry: BTreeSet::new(),
                })
            }
        };
        let mut made = None;
        let mut burst = 0;
        host.look(at.stream, &mut |view| {
            burst = StreamConfig::limit(view.config.max_msg_size).unwrap_or(BURST_BYTES);
            made = view.consumers.get(at.consumer).map(|one| {
                let oldest = oldest(&view, at.stream).unwrap_or_else(|| one.created());
                Worker::new(&place.name, one, oldest, now)
            });
        });
        let Some(mut worker) = made else { return };
        host.set_back(at..=at);
        let (name, subject) = (
            worker.config.name.clone(),
            worker.config.deliver_subject.clone(),
        );
        if let Some(known) = self.workers.get_mut(&at) {
            let moved = known.config.deliver_subject != subject
                || known.config.deliver_group != worker.config.deliver_group;
            known.config = worker.config;
            known.used_at = now;
            if !moved {
                if let Some(push) = &mut known.push {
                    push.limit(known.config.rate_limit_bps, burst);
                }
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
            let notify = move |_| {
                intake.push(Event::Interest { at });
            };
            let account = place.directory.account();
            let group = worker.config.listeners();
            let watch = account.watch_listeners(subject.as_bytes(), group, notify);
            worker.push = Some(Push::new(&place.name, &worker.config, burst, watch));
        }
        let takes_acks = worker.config.ack_policy != AckPolicy::None;
        place
            .directory
            .insert(&place.name, &name, at, &self.intake, takes_acks);
        self.workers.insert(at, worker);
        self.ready.insert(at);
        self.set_timer(at);
    }

    /// Does what is to do; the moment at which it wants to be called again at the latest.
    pub fn poll(&mut self, now: Instant, host: &dyn Host) -> Option<Instant> {
        let mut events = std::mem::take(&mut self.events);
        self.intake.take(&mut events);
        for event in events.drain(..) {
            match event.address() {
                Some(at) => self.contained(at, host, |desk| desk.take(event, now, host)),
                None => self.take(event, now, host),
            }
        }
        self.events = events;
        while let Some((_, at)) = self.timers.first().filter(|(due, _)| *due <= now).copied() {
            // Also where it ends early it is not due again.
            self.timers.pop_first();
            self.contained(at, host, |desk| desk.on_time(at, now, host));
        }
        for at in std::mem::take(&mut self.answered) {
            self.contained(at, host, |desk| desk.submit_acks(at, host));
        }
        let ready = std::mem::take(&mut self.ready);
        for at in ready {
            self.serve_contained(at, now, host);
        }
        self.sender.settle();
        if self.ready.is_empty() {
            self.timers.first().map(|(due, _)| *due)
        } else {
            Some(now)
        }
    }

    /// Serves a few consumers that are ready, so that acknowledgements that wait for it leave soon.
    pub fn serve_some(&mut self, now: Instant, host: &dyn Host) {
        let some: Vec<Address> = self.ready.iter().take(SERVED_WITH_ACKS).copied().collect();
        for at in some {
            self.ready.remove(&at);
            self.serve_contained(at, now, host);
        }
        self.sender.settle();
    }

    fn serve_contained(&mut self, at: Address, now: Instant, host: &dyn Host) {
        self.contained(at, host, |desk| {
            desk.serve(at, now, host);
            desk.set_timer(at);
        });
    }

    /// Does something for one consumer. Should that panic, it is served no more, and all others are: nothing that its worker
    /// says is believed, and what was sent and not logged may go out again.
    fn contained(&mut self, at: Address, host: &dyn Host, run: impl FnOnce(&mut Self)) {
        let Err(panic) = contain(|| run(&mut *self)) else {
            return;
        };
        let name = |desk: &Self| {
            let stream = &desk.places.get(&at.stream)?.name;
            Some(format!(
                "{} of stream {stream}",
                desk.workers.get(&at)?.config.name
            ))
        };
        let name = name(self).unwrap_or_else(|| format!("{at:?}"));
        // The worker may be in any state.
        if contain(|| self.detach(at, HALTED)).is_err() {
            self.workers.remove(&at);
        }
        // A worker that is made anew counts its own commands only. Who waits to be told that an answer was taken is not told.
        self.flights.retain(|_, flight| match flight {
            Flight::Sent(of) | Flight::Acks { at: of, .. } => *of != at,
            Flight::Other => true,
        });
        host.set_aside(
            at,
            format!(
                "consumer {name} has panicked ({panic}), which is a bug: it is not served until it is updated or the server \
                 starts again"
            ),
        );
    }

    /// A command of its own was applied.
    pub fn applied(&mut self, token: Token, reply: Reply, now: Instant) {
        let flight = self.flights.remove(&token.0);
        if let Some(Flight::Sent(at) | Flight::Acks { at, .. }) = &flight
            && let Some(worker) = self.workers.get_mut(at)
        {
            worker.under_way = worker.under_way.saturating_sub(1);
            if matches!(flight, Some(Flight::Acks { .. }))
                && worker.acks_done(worker.acks_applied + 1)
            {
                self.ready.insert(*at);
            }
        }
        match flight {
            Some(Flight::Sent(at)) => self.logged(at, reply == Reply::Done, now),
            // Refused (a full disk) or lost: the acks were not taken, and their senders must not be told that they were.
            Some(Flight::Acks { at, confirms }) => {
                let (Some(place), Reply::Answered { unknown }) =
                    (self.places.get(&at.stream), reply)
                else {
                    return;
                };
                let known = |confirm: &Confirm| unknown.binary_search(&confirm.number).is_err();
                for confirm in confirms.into_iter().filter(known) {
                    self.sender.empty(place.directory.account(), &confirm.reply);
                }
            }
            Some(Flight::Other) | None => {}
        }
    }

    /// The log knows what was sent, or (a full disk) does not take it.
    fn logged(&mut self, at: Address, is_done: bool, now: Instant) {
        let Some(worker) = self.workers.get_mut(&at) else {
            return;
        };
        if !is_done {
            // It may go out again, but not over and over.
            worker.ahead.reset();
            worker.resume_at = Some(now + NOT_LOGGED_REST);
            self.set_timer(at);
        } else if worker.is_blocked {
            self.ready.insert(at);
        }
    }

    /// Entries were lost sight of: nobody knows whether its commands were applied. What was sent may be sent again.
    pub fn lost(&mut self) {
        self.flights.clear();
        for (at, worker) in &mut self.workers {
            worker.under_way = 0;
            worker.acks_done(worker.acks_submitted);
            worker.ahead.reset();
            self.ready.insert(*at);
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
            Effect::Changed { id, is_new } => self.contained(at(id), host, |desk| {
                desk.attach(at(id), now, host);
                if *is_new {
                    desk.advise(at(id), effect);
                }
            }),
            Effect::Deleted { id } => self.contained(at(id), host, |desk| {
                desk.advise(at(id), effect);
                desk.detach(at(id), "409 Consumer Deleted");
                host.set_back(at(id)..=at(id));
            }),
            Effect::StreamDeleted => self.stream_deleted(stream, host),
            Effect::Stored => self.stored(stream),
            // No consumer's.
            Effect::BatchAbandoned { .. } => {}
            Effect::Ready { id } => {
                if let Some(worker) = self.workers.get_mut(&at(id)) {
                    worker.resume_at = None;
                }
                self.ready.insert(at(id));
            }
            Effect::MaxDeliveries { id, .. }
            | Effect::Naked { id, .. }
            | Effect::Terminated { id, .. }
            | Effect::Acked { id, .. } => {
                self.contained(at(id), host, |desk| desk.advise(at(id), effect));
            }
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
    pub fn stream_deleted(&mut self, stream: StreamId, host: &dyn Host) {
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
            self.advise(at, &Effect::Deleted { id: at.consumer });
            self.detach(at, "409 Consumer Deleted");
        }
        self.places.remove(&stream);
        host.set_back(from..=until);
    }

    /// Serves it no more; `status` is what waiting requests are told.
    fn detach(&mut self, at: Address, status: &str) {
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
        for request in &worker.waiting {
            self.sender.status(account, &request.reply, None, |out| {
                status::plain(out, status);
            });
        }
    }

    fn take(&mut self, event: Event, now: Instant, host: &dyn Host) {
        match event {
            Event::Pull {
                at,
                client,
                reply,
                needs_newer,
                body,
            } => {
                let pull = Pull {
                    client,
                    reply,
                    needs_newer,
                    body: &body,
                };
                self.take_pull(at, pull, now, host);
            }
            Event::Ack {
                at,
                of,
                said,
                client,
                reply,
            } => {
                if self.names_a_message(at, &of, host) {
                    self.take_ack(at, of, said, (client, reply), now, host);
                }
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
            Event::Interest { at } => self.take_interest(at, now),
            Event::Served { stream } => {
                let mut known = Vec::new();
                host.look(stream, &mut |view| {
                    known = view.consumers.iter().map(Consumer::id).collect();
                });
                for consumer in known {
                    let at = Address { stream, consumer };
                    self.contained(at, host, |desk| desk.attach(at, now, host));
                }
            }
            Event::Leaving { client, to } => {
                self.leave(client, host);
                // Whoever asked may have gone.
                let _ = to.send(());
            }
            Event::Presence { of, to } => {
                let all = of.into_iter().map(|at| self.presence(at, host)).collect();
                // Whoever asked may have gone.
                let _ = to.send(all);
            }
        }
    }

    /// Ends the requests of one connection, or all; then the log hears how far those without acks are.
    fn leave(&mut self, client: Option<ClientId>, host: &dyn Host) {
        self.is_leaving |= client.is_none();
        let is_meant = |request: &Request| client.is_none() || request.client == client;
        for (at, worker) in &mut self.workers {
            let Some(place) = self.places.get(&at.stream) else {
                continue;
            };
            let account = place.directory.account();
            worker.waiting.retain(|request| {
                let ends = is_meant(request);
                if ends {
                    self.sender.ended(account, request, SHUTDOWN);
                }
                !ends
            });
        }
        if client.is_some() {
            return;
        }
        let stands = |(at, worker): (&Address, &mut Worker)| {
            let durable = worker.config.is_durable();
            Some((*at, log_progress(worker, at.consumer).filter(|_| durable)?))
        };
        let reports: Vec<_> = self.workers.iter_mut().filter_map(stands).collect();
        for (at, body) in reports {
            let token = self.fly(Flight::Other);
            host.submit(at.stream, &body, token);
        }
    }

    /// A stream, or every one, is halted: nothing can be delivered of it, so who waits is told.
    pub fn halted(&mut self, stream: Option<StreamId>) {
        for (at, worker) in &mut self.workers {
            let Some(place) = self.places.get(&at.stream) else {
                continue;
            };
            if stream.is_some_and(|stream| stream != at.stream) {
                continue;
            }
            let account = place.directory.account();
            for request in worker.waiting.drain(..) {
                self.sender.status(account, &request.reply, None, |out| {
                    status::plain(out, HALTED)
                });
            }
        }
    }

    /// Who listens changed. How it is now is looked at, since what was told may be of a deliver subject of before.
    fn take_interest(&mut self, at: Address, now: Instant) {
        let (Some(worker), Some(place)) = (self.workers.get_mut(&at), self.places.get(&at.stream))
        else {
            return;
        };
        worker.used_at = now;
        if let Some(push) = &mut worker.push {
            let account = place.directory.account();
            let present = account.listens(&push.subject, worker.config.listeners());
            push.bind(present, now);
            self.ready.insert(at);
        }
        self.set_timer(at);
    }

    fn presence(&mut self, at: Address, host: &dyn Host) -> Presence {
        // Whoever has answered may ask what became of it.
        self.submit_acks(at, host);
        let (Some(worker), Some(place)) = (self.workers.get_mut(&at), self.places.get(&at.stream))
        else {
            return Presence::default();
        };
        worker.drop_gone(place.directory.account());
        let mut presence = Presence {
            waiting: worker.waiting.len(),
            is_behind: worker.under_way > 0,
            push_bound: worker.push.as_ref().is_some_and(|push| push.bound),
            ..Presence::default()
        };
        if let Some(local) = &worker.local {
            presence.reached = Some((local.reached, local.at));
            host.look(at.stream, &mut |view| {
                let messages = StoreMessages::new(view.store, at.stream);
                let consumer = view.consumers.get(at.consumer);
                presence.unseen = consumer.map(|one| local.unseen(one, &messages));
            });
        }
        presence
    }

    fn take_pull(&mut self, at: Address, pull: Pull<'_>, now: Instant, host: &dyn Host) {
        let Pull { client, reply, .. } = pull;
        let (Some(worker), Some(place)) = (self.workers.get_mut(&at), self.places.get(&at.stream))
        else {
            return;
        };
        let account = place.directory.account();
        let refused = if worker.push.is_some() {
            Err("409 Consumer is push based".to_owned())
        } else if pull.needs_newer {
            Err("412 Required Api Level".to_owned())
        } else {
            Request::parse(pull.body, reply.clone(), &worker.config, now)
        };
        let refused = refused.map(|request| Request { client, ..request });
        let request = match refused {
            Ok(request) => request,
            Err(text) => {
                self.sender
                    .status(account, &reply, None, |out| status::plain(out, &text));
                return;
            }
        };
        let max = usize::try_from(worker.config.max_waiting).unwrap_or(usize::MAX);
        if worker.waiting.len() >= max {
            worker.drop_gone(account);
        }
        let is_held_back = worker.is_held_back(now);
        let is_refused = worker.waiting.len() >= max && request.expires.is_none();
        if request.no_wait && (is_held_back || is_refused) {
            let mut there = 0;
            host.look(at.stream, &mut |view| {
                let messages = StoreMessages::new(view.store, at.stream);
                let consumer = view.consumers.get(at.consumer);
                there = consumer.map_or(0, |one| one.to_come(&messages));
            });
            let text = match there {
                0 if request.expires.is_none() => Some("404 No Messages"),
                // Others will take all that is there.
                1.. if is_held_back && worker.asked() > there => Some("408 Requests Pending"),
                _ => None,
            };
            if let Some(text) = text {
                self.sender
                    .status(account, &reply, None, |out| status::plain(out, text));
                return;
            }
        }
        if worker.waiting.len() >= max {
            // A client that asked for signs of life learns from their absence.
            if request.heartbeat.is_none() {
                self.sender.status(account, &reply, None, |out| {
                    status::plain(out, "409 Exceeded MaxWaiting");
                });
            }
            return;
        }
        if self.is_leaving {
            self.sender.ended(account, &request, SHUTDOWN);
            return;
        }
        worker.used_at = now;
        let after = worker.acks_said();
        worker.waiting.push_back(Request { after, ..request });
        self.ready.insert(at);
    }

    fn take_ack(
        &mut self,
        at: Address,
        of: Named,
        said: Said,
        (client, reply): (Option<ClientId>, Option<Bytes>),
        now: Instant,
        host: &dyn Host,
    ) {
        let Some(worker) = self.workers.get_mut(&at) else {
            return;
        };
        worker.used_at = now;
        let number = u32::try_from(worker.acks.len()).unwrap_or(u32::MAX);
        worker.acks.push(&Ack {
            stream_seq: of.stream_seq,
            consumer_seq: of.consumer_seq,
            verb: said.verb(),
        });
        self.answered.insert(at);
        match (said, reply) {
            (Said::Next(body), Some(reply)) => {
                let pull = Pull {
                    client,
                    reply,
                    needs_newer: false,
                    body: &body,
                };
                self.take_pull(at, pull, now, host);
            }
            (_, Some(reply)) => worker.confirms.push(Confirm { number, reply }),
            (_, None) => {}
        }
    }

    /// Whether an answer is about a message of this stream, not one of the same number that a former stream of the same
    /// name had: a message's time tells. Only what is older than the stream when its consumer came is looked at.
    fn names_a_message(&self, at: Address, of: &Named, host: &dyn Host) -> bool {
        let since = self.workers.get(&at).map(|worker| worker.since);
        let Some(stored) = of.stored.filter(|stored| Some(*stored) < since) else {
            return true;
        };
        let mut is_another = false;
        host.look(at.stream, &mut |view| {
            let held = view.store.time_of(at.stream, of.stream_seq);
            is_another = matches!(held, Ok(Some(time)) if time != stored);
        });
        !is_another
    }

    fn submit_acks(&mut self, at: Address, host: &dyn Host) {
        let Some(worker) = self.workers.get_mut(&at) else {
            return;
        };
        if worker.acks.is_empty() {
            return;
        }
        let mut confirms = std::mem::take(&mut worker.confirms);
        if halyard_runtime::planted("ack-confirmed-early")
            && let Some(place) = self.places.get(&at.stream)
        {
            for confirm in confirms.drain(..) {
                self.sender.empty(place.directory.account(), &confirm.reply);
            }
        }
        let mut body = Vec::new();
        worker.acks.finish(&mut body);
        worker.acks_submitted += 1;
        let token = self.fly(Flight::Acks { at, confirms });
        host.submit(at.stream, &body, token);
    }

    pub(super) fn fly(&mut self, flight: Flight) -> Token {
        if let Flight::Sent(at) | Flight::Acks { at, .. } = &flight
            && let Some(worker) = self.workers.get_mut(at)
        {
            worker.under_way += 1;
        }
        self.last_token += 1;
        self.flights.insert(self.last_token, flight);
        Token(self.last_token)
    }

    pub(super) fn set_timer(&mut self, at: Address) {
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
}
