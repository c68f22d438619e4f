//! All consumers of one stream: who they are, what a command does to them, and which messages they still need.

use std::collections::{BTreeMap, BTreeSet};

use halyard_format::codec::{Malformed, Reader, put_varint};
use halyard_runtime::contain::panic_if_planted;
use halyard_runtime::time::Timestamp;

use super::check;
use super::claims::Claims;
use super::command::{Ack, Action, Command, ConsumerId, Grant, Seen};
use super::config::ConsumerConfig;
use super::effect::Effect;
use super::machine::{Changes, Consumer, Position};
use super::messages::Messages;
use super::restored::Restored;
use super::select::Selection;
use crate::jetstream::api::errors::{ApiError, table};
use crate::jetstream::config::{Retention, StreamConfig};

/// The record of the set itself: the next id.
const SET_RECORD: ConsumerId = 0;

/// What a command may look at, and where its changes go.
pub struct Ctx<'a> {
    /// The stream's messages, as of this command.
    pub messages: &'a dyn Messages,
    /// The stream's configuration.
    pub stream: &'a StreamConfig,
    /// Committed time of the entry.
    pub now: Timestamp,
    /// Messages that nobody needs any longer, for streams that keep what is needed: the stream removes them after the
    /// call. May name one twice.
    pub removed: &'a mut Vec<u64>,
    /// What the leader tells others; dropped on replay.
    pub effects: &'a mut Vec<Effect>,
    /// Set when a consumer has other filters than before: messages may have lost their last reader.
    pub narrowed: bool,
}

/// How a new consumer starts, before anything is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// What counts as delivered and acknowledged.
    pub at: Position,
    /// Messages that are to come.
    pub unseen: u64,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Nothing, because of this.
    Refused(ApiError),
    /// The consumer is there as asked for.
    Created {
        /// Its number.
        id: ConsumerId,
        /// How it starts, if it was not there before.
        start: Option<Start>,
    },
    /// Nothing: another has the name than was seen when the command was proposed.
    Changed,
    /// It is gone.
    Deleted,
    /// What waiting requests get.
    Selected(Selection),
    /// Answers were taken.
    Answered {
        /// The numbers, rising, of those that settle what was never delivered.
        unknown: Vec<u32>,
    },
    /// Done.
    Done,
}

/// All consumers of one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Consumers {
    by_id: BTreeMap<ConsumerId, Consumer>,
    by_name: BTreeMap<String, ConsumerId>,
    /// What they want.
    claims: Claims,
    last_id: ConsumerId,
    /// Deadlines as of the last change of each consumer.
    deadlines: BTreeSet<(Timestamp, ConsumerId)>,
    deadline_of: BTreeMap<ConsumerId, Timestamp>,
    /// Consumers that changed, or went, since their records were written.
    dirty: BTreeSet<ConsumerId>,
}

impl Consumers {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// A consumer by number.
    pub fn get(&self, id: ConsumerId) -> Option<&Consumer> {
        self.by_id.get(&id)
    }

    /// A consumer by name.
    pub fn find(&self, name: &str) -> Option<&Consumer> {
        self.by_id.get(self.by_name.get(name)?)
    }

    /// All, in the order in which they were made.
    pub fn iter(&self) -> impl Iterator<Item = &Consumer> {
        self.by_id.values()
    }

    /// Names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    /// Carries out one command. Total: what cannot be is a refusal.
    pub fn apply(&mut self, body: &[u8], ctx: &mut Ctx<'_>) -> Reply {
        let command = match Command::decode(body) {
            Ok(command) => command,
            Err(error) => return Reply::Refused(table::CONSUMER_CREATE.with(error)),
        };
        match command {
            Command::Create {
                action,
                name,
                config,
                seen,
            } => {
                if seen.is_some_and(|seen| seen != self.seen(name)) {
                    return Reply::Changed;
                }
                match self.create(action, name, config, ctx) {
                    Ok((id, start)) => Reply::Created { id, start },
                    Err(refusal) => Reply::Refused(refusal),
                }
            }
            Command::Delete { id } => self.delete(id, ctx),
            Command::Deliver { id, grants } => self.deliver(id, &grants, ctx),
            Command::Acks { id, acks } => self.acks(id, &acks, ctx),
            Command::Progress {
                id,
                consumer_seq,
                stream_seq,
            } => {
                let reached = Position {
                    consumer: consumer_seq,
                    stream: stream_seq,
                };
                self.change(id, ctx, |consumer, messages, to| {
                    consumer.progress(reached, messages, to);
                })
            }
            Command::Pause { id, until } => self.change(id, ctx, |consumer, _, to| {
                consumer.pause(until);
                to.effects.push(Effect::Ready { id });
            }),
            Command::Sent { id, sent } => self.change(id, ctx, |consumer, messages, to| {
                consumer.sent(&sent, messages, to);
            }),
        }
    }

    /// Takes a consumer of a backup, by the rules of a new one.
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn restore(&mut self, restored: Restored, ctx: &Ctx<'_>) -> Result<(), ApiError> {
        let config = &restored.config;
        let filters = check::parse_filters(config)?;
        if self.by_name.contains_key(&config.name) {
            return Err(table::CONSUMER_ALREADY_EXISTS.error());
        }
        self.check_work_queue(SET_RECORD, config, ctx.stream)?;
        self.last_id += 1;
        let (id, name) = (self.last_id, config.name.clone());
        let consumer = Consumer::restored(id, restored, filters, ctx.messages, ctx.now);
        self.claims.add(id, consumer.config());
        self.by_id.insert(id, consumer);
        self.by_name.insert(name, id);
        self.note_deadline(id);
        self.dirty.extend([SET_RECORD, id]);
        Ok(())
    }

    /// Whether any consumer still needs the message.
    pub fn is_needed(&self, seq: u64, subject: &[u8]) -> bool {
        self.by_id
            .values()
            .any(|one| one.needs(seq, || one.filters().matches(subject)))
    }

    /// Whether a consumer needs every message from there on.
    pub fn want_all_from(&self, seq: u64) -> bool {
        let all = self.by_id.values();
        let mut all = all.filter(|one| one.filters().is_everything());
        all.any(|one| seq >= one.cursor().next())
    }

    /// Whether any consumer wants messages of the subject.
    pub fn has_interest(&self, subject: &[u8]) -> bool {
        self.by_id
            .values()
            .any(|one| one.filters().matches(subject))
    }

    /// Messages below `first_seq` went because of limits.
    pub fn trimmed(&mut self, first_seq: u64, ctx: &mut Ctx<'_>) {
        self.change_all(ctx, |consumer, _, to| {
            let touched = consumer.cursor().position() < first_seq
                || consumer
                    .pending
                    .first()
                    .is_some_and(|(seq, _)| seq < first_seq);
            if touched {
                consumer.trimmed(first_seq, to);
            }
            touched
        });
    }

    /// Messages were purged.
    pub fn purged(&mut self, ctx: &mut Ctx<'_>) {
        let first_seq = ctx.messages.first_seq();
        self.change_all(ctx, |consumer, messages, to| {
            consumer.purged(first_seq, messages, to);
            true
        });
    }

    /// One message was removed.
    pub fn deleted(&mut self, seq: u64, ctx: &mut Ctx<'_>) {
        self.change_all(ctx, |consumer, _, to| {
            // Removed by its own ack, on a stream that keeps what is needed: nothing to do, and the usual case.
            let touched = consumer.pending.get(seq).is_some()
                || consumer.given_up.contains(&seq)
                || consumer.cursor().lists(seq);
            if touched {
                consumer.deleted(seq, to);
            }
            touched
        });
    }

    /// The earliest moment at which time alone changes a consumer.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Runs what is due at `ctx.now`.
    pub fn tick(&mut self, ctx: &mut Ctx<'_>) {
        while let Some((_, id)) = self
            .deadlines
            .first()
            .filter(|(at, _)| *at <= ctx.now)
            .copied()
        {
            self.change(id, ctx, |consumer, _, to| consumer.tick(to));
        }
    }

    /// Hands out the records that changed since the last call; `None`: the record is to be removed. Called just before
    /// a flush of the store.
    pub fn take_dirty(&mut self, mut put: impl FnMut(ConsumerId, Option<Vec<u8>>)) {
        for id in std::mem::take(&mut self.dirty) {
            if id == SET_RECORD {
                let mut own = Vec::new();
                put_varint(&mut own, u64::from(self.last_id));
                put(id, Some(own));
            } else {
                put(id, self.by_id.get(&id).map(Consumer::encode));
            }
        }
    }

    /// Reads one record back, at start. Records may come in any order.
    ///
    /// # Errors
    /// The bytes are no record of this version.
    pub fn load(&mut self, id: ConsumerId, bytes: &[u8]) -> Result<(), Malformed> {
        if id == SET_RECORD {
            let mut reader = Reader::new(bytes);
            self.last_id = self.last_id.max(reader.varint_u32()?);
            return Ok(());
        }
        let consumer = Consumer::decode(id, bytes)?;
        self.last_id = self.last_id.max(id);
        self.by_name.insert(consumer.config().name.clone(), id);
        self.claims.add(id, consumer.config());
        self.by_id.insert(id, consumer);
        self.note_deadline(id);
        Ok(())
    }

    fn create(
        &mut self,
        action: Action,
        name: &str,
        config: &[u8],
        ctx: &mut Ctx<'_>,
    ) -> Result<(ConsumerId, Option<Start>), ApiError> {
        let mut config: ConsumerConfig =
            serde_json::from_slice(config).map_err(|error| table::INVALID_JSON.with(error))?;
        name.clone_into(&mut config.name);
        let filters = check::parse_filters(&config)?;
        if let Some(id) = self.by_name.get(name).copied() {
            self.update(id, action, config, ctx)?;
            return Ok((id, None));
        }
        if action == Action::Update {
            return Err(table::CONSUMER_DOES_NOT_EXIST.error());
        }
        let max = usize::try_from(ctx.stream.max_consumers)
            .ok()
            .filter(|max| *max > 0);
        if max.is_some_and(|max| self.by_id.len() >= max) {
            return Err(table::MAXIMUM_CONSUMERS_LIMIT.error());
        }
        self.check_work_queue(SET_RECORD, &config, ctx.stream)?;
        config.fill_in_threshold();
        self.last_id += 1;
        let id = self.last_id;
        let consumer = Consumer::new(id, config, filters, ctx.messages, ctx.now);
        let start = Start {
            at: consumer.delivered(),
            unseen: consumer.unseen(ctx.messages),
        };
        self.claims.add(id, consumer.config());
        self.by_id.insert(id, consumer);
        self.by_name.insert(name.to_owned(), id);
        self.dirty.extend([SET_RECORD, id]);
        ctx.effects.push(Effect::Changed { id, is_new: true });
        Ok((id, Some(start)))
    }

    /// What has a name, for who asks the leader before the log decides.
    pub fn seen(&self, name: &str) -> Seen<'_> {
        self.find(name).map_or_else(Seen::default, |one| Seen {
            id: one.id(),
            deliver_subject: &one.config().deliver_subject,
        })
    }

    fn update(
        &mut self,
        id: ConsumerId,
        action: Action,
        mut config: ConsumerConfig,
        ctx: &mut Ctx<'_>,
    ) -> Result<(), ApiError> {
        let Some(old) = self.by_id.get(&id) else {
            return Err(table::CONSUMER_NOT_FOUND.error());
        };
        // Only a request to pause changes a pause.
        config.pause_until = old.config().pause_until;
        if action == Action::Create && !check::is_same(old.config(), &config) {
            return Err(table::CONSUMER_ALREADY_EXISTS.error());
        }
        // One that was durable outlives its users until somebody says otherwise, and so does what follows it.
        if old.config().inactive_threshold > 0 && !old.config().is_durable() {
            config.fill_in_threshold();
        }
        if check::is_same(old.config(), &config) {
            return Ok(());
        }
        check::check_update(old.config(), &config)?;
        self.check_work_queue(id, &config, ctx.stream)?;
        let filters = check::parse_filters(&config)?;
        ctx.narrowed |= !old.config().filters().eq(config.filters());
        self.claims.remove(id, old.config());
        self.claims.add(id, &config);
        self.change(id, ctx, |consumer, _, to| {
            consumer.update(config, filters, to);
            to.effects.push(Effect::Changed { id, is_new: false });
        });
        Ok(())
    }

    /// On a work queue each message belongs to one consumer.
    fn check_work_queue(
        &self,
        own: ConsumerId,
        config: &ConsumerConfig,
        stream: &StreamConfig,
    ) -> Result<(), ApiError> {
        if stream.retention != Retention::WorkQueue {
            return Ok(());
        }
        if config.filters().next().is_none() {
            return match self.by_id.keys().find(|id| **id != own) {
                Some(_) => Err(table::CONSUMER_WQ_MULTIPLE_UNFILTERED.error()),
                None => Ok(()),
            };
        }
        if self.claims.clash(config, own) {
            return Err(table::CONSUMER_WQ_CONSUMER_NOT_UNIQUE.error());
        }
        Ok(())
    }

    fn delete(&mut self, id: ConsumerId, ctx: &mut Ctx<'_>) -> Reply {
        let Some(gone) = self.by_id.remove(&id) else {
            return Reply::Refused(table::CONSUMER_NOT_FOUND.error());
        };
        self.by_name.remove(&gone.config().name);
        self.claims.remove(id, gone.config());
        self.note_deadline(id);
        self.dirty.insert(id);
        ctx.effects.push(Effect::Deleted { id });
        if ctx.stream.retention == Retention::Interest {
            let pending = gone.pending.iter().map(|(seq, _)| seq);
            let seen: Vec<u64> = pending.chain(gone.given_up.iter().copied()).collect();
            self.release(id, &seen, ctx);
            let mut cursor = gone.cursor().clone();
            while let Some(seq) = cursor.peek(gone.filters(), ctx.messages) {
                cursor.pass(seq);
                self.release(id, &[seq], ctx);
            }
        }
        Reply::Deleted
    }

    fn deliver(&mut self, id: ConsumerId, grants: &[Grant], ctx: &mut Ctx<'_>) -> Reply {
        let mut selection = Selection::default();
        let stream = &ctx.stream.name;
        let reply = self.change(id, ctx, |consumer, messages, to| {
            selection = consumer.select(grants, stream, messages, to);
        });
        if reply == Reply::Done {
            Reply::Selected(selection)
        } else {
            reply
        }
    }

    fn acks(&mut self, id: ConsumerId, acks: &[Ack<'_>], ctx: &mut Ctx<'_>) -> Reply {
        let mut unknown = Vec::new();
        let reply = self.change(id, ctx, |consumer, _, to| {
            for (number, ack) in (0_u32..).zip(acks) {
                if !consumer.answer(ack, to) {
                    unknown.push(number);
                }
            }
        });
        if reply == Reply::Done {
            Reply::Answered { unknown }
        } else {
            reply
        }
    }

    /// Changes one consumer, then releases what it is done with.
    fn change(
        &mut self,
        id: ConsumerId,
        ctx: &mut Ctx<'_>,
        change: impl FnOnce(&mut Consumer, &dyn Messages, &mut Changes<'_>),
    ) -> Reply {
        let Some(consumer) = self.by_id.get_mut(&id) else {
            return Reply::Refused(table::CONSUMER_NOT_FOUND.error());
        };
        let mut released = Vec::new();
        let mut to = Changes {
            now: ctx.now,
            effects: ctx.effects,
            released: &mut released,
        };
        change(consumer, ctx.messages, &mut to);
        panic_if_planted("panic-in-consumer", true);
        self.note_deadline(id);
        self.dirty.insert(id);
        self.release(id, &released, ctx);
        Reply::Done
    }

    fn change_all(
        &mut self,
        ctx: &mut Ctx<'_>,
        mut change: impl FnMut(&mut Consumer, &dyn Messages, &mut Changes<'_>) -> bool,
    ) {
        // What is gone already needs no release.
        let mut released = Vec::new();
        let mut touched = Vec::new();
        for (id, consumer) in &mut self.by_id {
            let mut to = Changes {
                now: ctx.now,
                effects: ctx.effects,
                released: &mut released,
            };
            if change(consumer, ctx.messages, &mut to) {
                touched.push(*id);
            }
        }
        for id in touched {
            self.note_deadline(id);
            self.dirty.insert(id);
        }
    }

    /// `id` is done with the messages: those that nobody else needs may go.
    fn release(&self, id: ConsumerId, done: &[u64], ctx: &mut Ctx<'_>) {
        match ctx.stream.retention {
            Retention::Limits => {}
            Retention::WorkQueue => ctx.removed.extend_from_slice(done),
            Retention::Interest => {
                for seq in done {
                    let matches = |one: &Consumer| {
                        let mut matches = false;
                        let look = &mut |subject: &[u8]| matches = one.filters().matches(subject);
                        ctx.messages.with_subject(*seq, look) && matches
                    };
                    let mut others = self.by_id.values().filter(|one| one.id() != id);
                    if !others.any(|one| one.needs(*seq, || matches(one))) {
                        ctx.removed.push(*seq);
                    }
                }
            }
        }
    }

    fn note_deadline(&mut self, id: ConsumerId) {
        let new = self.by_id.get(&id).and_then(Consumer::next_deadline);
        let old = match new {
            Some(at) => self.deadline_of.insert(id, at),
            None => self.deadline_of.remove(&id),
        };
        if old == new {
            return;
        }
        if let Some(at) = old {
            self.deadlines.remove(&(at, id));
        }
        if let Some(at) = new {
            self.deadlines.insert((at, id));
        }
    }
}
