//! One consumer, as every replica holds it: what was delivered, what waits for an ack, what goes out next.
//!
//! Pure: the log entry's command, the messages of the stream and the committed time decide everything. Waiting
//! requests, heartbeats and connections are the leader's own (`leader/`).
//!
//! The ack floor is the position below which everything delivered is done. It moves when the lowest unanswered
//! delivery is answered, as clients of the peer see it move; a message given up after `max_deliver` does not move it.

use std::collections::BTreeSet;

use halyard_engine::Filters;
use halyard_runtime::time::Timestamp;

use super::command::{Ack, ConsumerId, Verb};
use super::config::{AckPolicy, ConsumerConfig};
use super::cursor::Cursor;
use super::effect::Effect;
use super::messages::Messages;
use super::pending::{Entry, Pending, State};
use crate::jetstream::api::timestamp::Moment;

/// Messages given up that are remembered, so that a late ack still counts. The lowest are forgotten first.
const GIVEN_UP_MAX: usize = 16 * 1024;

/// A place in a consumer and the matching place in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub struct Position {
    /// Deliveries so far.
    pub consumer: u64,
    /// The sequence in the stream.
    pub stream: u64,
}

/// Where the changes of one command go.
pub struct Changes<'a> {
    /// Committed time of the entry.
    pub now: Timestamp,
    /// What the leader tells others.
    pub effects: &'a mut Vec<Effect>,
    /// Messages that this consumer is done with.
    pub released: &'a mut Vec<u64>,
}

/// One consumer's replicated state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    pub(super) id: ConsumerId,
    pub(super) config: ConsumerConfig,
    pub(super) filters: Filters,
    pub(super) created: Timestamp,
    pub(super) cursor: Cursor,
    pub(super) delivered: Position,
    pub(super) delivered_at: Option<Timestamp>,
    pub(super) floor: Position,
    pub(super) acked_at: Option<Timestamp>,
    pub(super) pending: Pending,
    pub(super) given_up: BTreeSet<u64>,
}

impl Consumer {
    /// A new consumer of the messages as they are now. `config` is resolved, `filters` are its own.
    pub fn new(
        id: ConsumerId,
        config: ConsumerConfig,
        filters: Filters,
        messages: &dyn Messages,
        now: Timestamp,
    ) -> Self {
        let cursor = Cursor::start(&config, &filters, messages);
        let start = Position {
            consumer: 0,
            stream: cursor.position() - 1,
        };
        Self {
            id,
            config,
            filters,
            created: now,
            cursor,
            delivered: start,
            delivered_at: None,
            floor: start,
            acked_at: None,
            pending: Pending::default(),
            given_up: BTreeSet::new(),
        }
    }

    /// Its number.
    pub const fn id(&self) -> ConsumerId {
        self.id
    }

    /// Its configuration, defaults filled in.
    pub const fn config(&self) -> &ConsumerConfig {
        &self.config
    }

    /// What it wants of the stream.
    pub const fn filters(&self) -> &Filters {
        &self.filters
    }

    /// When it was made.
    pub const fn created(&self) -> Timestamp {
        self.created
    }

    /// The last delivery.
    pub const fn delivered(&self) -> Position {
        self.delivered
    }

    /// When that was.
    pub const fn delivered_at(&self) -> Option<Timestamp> {
        self.delivered_at
    }

    /// The ack floor.
    pub const fn floor(&self) -> Position {
        self.floor
    }

    /// When the last ack came.
    pub const fn acked_at(&self) -> Option<Timestamp> {
        self.acked_at
    }

    /// Where it stands in the stream.
    pub const fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// Deliveries that wait for an ack.
    pub fn unacked(&self) -> usize {
        self.pending.len()
    }

    /// Deliveries that wait for an ack, by sequence in the stream.
    pub fn unanswered(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.pending.iter()
    }

    /// Messages that were given up, rising.
    pub fn given_up(&self) -> impl Iterator<Item = u64> {
        self.given_up.iter().copied()
    }

    /// Messages that were delivered more than once and are not done, given-up ones included.
    pub fn redelivered(&self) -> usize {
        if self.config.deliver_max() == Some(1) {
            return 0;
        }
        self.pending.redelivered() + self.given_up.len()
    }

    /// Messages that were never delivered and match. Exact.
    pub fn unseen(&self, messages: &dyn Messages) -> u64 {
        self.cursor.count(&self.filters, messages)
    }

    /// Messages that are still to go out: those, and the ones that go out again. Exact.
    pub fn to_come(&self, messages: &dyn Messages) -> u64 {
        self.unseen(messages)
            .saturating_add(self.pending.queued() as u64)
    }

    /// Whether it delivers nothing at that time.
    pub fn is_paused(&self, now: Timestamp) -> bool {
        self.config
            .pause_until
            .is_some_and(|until| until.timestamp() > now)
    }

    /// The next moment at which time alone changes it.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.pending.next_deadline()
    }

    /// Whether a message could go out now: a redelivery, or a new one with room for it.
    pub fn has_next(&self, messages: &dyn Messages, now: Timestamp) -> bool {
        if self.is_paused(now) {
            return false;
        }
        self.pending.queued() > 0
            || (self.has_room() && self.cursor.peek(&self.filters, messages).is_some())
    }

    /// Whether one more message may wait for an ack.
    pub fn has_room(&self) -> bool {
        self.config
            .pending_max()
            .is_none_or(|max| self.pending.len() < max)
    }

    /// Whether the message must be kept for it, on a stream that keeps what its consumers need. `subject` is asked for
    /// only where filters decide.
    pub fn needs(&self, seq: u64, subject: impl FnOnce() -> bool) -> bool {
        // What was given up stays until it is acknowledged after all, deleted, or the consumer goes.
        let is_open = self.cursor.covers(seq)
            || self.pending.get(seq).is_some()
            || self.given_up.contains(&seq);
        is_open && (self.filters.is_everything() || subject())
    }

    /// Replaces the configuration (checked before). It holds for what was delivered already, too: deadlines move by what
    /// the time to answer has changed, and what waits to go out again is given up if it went out often enough.
    ///
    /// With other filters the consumer goes on behind the last message that it was given: whatever is above that is still to
    /// come, though the filters before may have passed it over.
    pub fn update(&mut self, config: ConsumerConfig, filters: Filters, to: &mut Changes<'_>) {
        let before = std::mem::replace(&mut self.config, config);
        self.filters = filters;
        let config = &self.config;
        if before.ack_wait != config.ack_wait || before.backoff != config.backoff {
            self.pending
                .shift(|count| (before.wait_after(count), config.wait_after(count)));
        }
        if before.max_deliver != self.config.max_deliver {
            for seq in self.pending.all_queued() {
                self.give_up(seq, to);
            }
        }
    }

    /// Stops deliveries until a moment, or lets them go on.
    pub const fn pause(&mut self, until: Option<Moment>) {
        self.config.pause_until = until;
    }

    /// Takes one answer of a client. Late and repeated ones change nothing. False: it settles what was never delivered,
    /// and must not be confirmed.
    pub fn answer(&mut self, ack: &Ack<'_>, to: &mut Changes<'_>) -> bool {
        let settles = matches!(ack.verb, Verb::Ack | Verb::Term(_));
        if self.config.ack_policy == AckPolicy::None {
            return false;
        }
        if ack.stream_seq > self.delivered.stream {
            return !settles;
        }
        let seq = ack.stream_seq;
        let of_all = self.config.ack_policy == AckPolicy::All;
        if of_all && settles && seq == 0 {
            return false;
        }
        match ack.verb {
            Verb::Ack if of_all => self.ack_all(ack, to),
            Verb::Ack => {
                self.done(seq, to);
            }
            Verb::Term(reason) => {
                let reason = reason.to_owned();
                let ended = if of_all {
                    let open = self.pending.get(seq).copied();
                    self.ack_all(ack, to);
                    open.filter(|_| self.pending.get(seq).is_none())
                } else {
                    self.done(seq, to)
                };
                if let Some(entry) = ended {
                    to.effects.push(Effect::Terminated {
                        id: self.id,
                        stream_seq: seq,
                        // A client may say anything.
                        consumer_seq: ack.consumer_seq.min(self.delivered.consumer),
                        deliveries: entry.count,
                        reason,
                    });
                }
            }
            Verb::Nak(delay) => self.refuse(ack, delay, to),
            Verb::Progress => {
                if let Some(entry) = self.pending.get(seq) {
                    let due = to.now + self.config.wait_after(entry.count);
                    self.pending.postpone(seq, due);
                }
            }
        }
        true
    }

    /// The committed time is now `now`: deliveries without an answer go out again, or are given up.
    pub fn tick(&mut self, to: &mut Changes<'_>) {
        let mut ready = false;
        while let Some(seq) = self.pending.next_overdue(to.now) {
            ready = true;
            if !self.give_up(seq, to) {
                self.pending.queue(seq);
            }
        }
        if ready {
            to.effects.push(Effect::Ready { id: self.id });
        }
    }

    /// A consumer without acks got so far.
    pub fn progress(&mut self, reached: Position, messages: &dyn Messages, to: &mut Changes<'_>) {
        if self.config.ack_policy != AckPolicy::None || reached.consumer <= self.delivered.consumer
        {
            return;
        }
        while let Some(seq) = self.cursor.peek(&self.filters, messages) {
            if seq > reached.stream {
                break;
            }
            self.cursor.pass(seq);
            to.released.push(seq);
        }
        self.delivered = reached;
        self.delivered_at = Some(to.now);
        self.floor = reached;
    }

    /// Messages below `first_seq` are gone because of limits.
    pub fn trimmed(&mut self, first_seq: u64, to: &mut Changes<'_>) {
        self.cursor.raise(first_seq);
        while let Some((seq, _)) = self.pending.first().filter(|(seq, _)| *seq < first_seq) {
            self.lost(seq, to);
        }
        self.given_up = self.given_up.split_off(&first_seq);
    }

    /// Messages were purged: `first_seq` is the first that is left; others may have gone too.
    pub fn purged(&mut self, first_seq: u64, messages: &dyn Messages, to: &mut Changes<'_>) {
        self.cursor.raise(first_seq);
        self.cursor.retain(messages);
        let gone: Vec<u64> = self
            .pending
            .iter()
            .map(|(seq, _)| seq)
            .filter(|seq| *seq < first_seq || !messages.contains(*seq))
            .collect();
        for seq in &gone {
            if let Some(entry) = self.pending.remove(*seq) {
                self.lift_floor(&entry);
            }
        }
        self.given_up.retain(|seq| messages.contains(*seq));
        let below = first_seq.saturating_sub(1);
        if self.delivered.stream < below {
            self.delivered.stream = below;
        }
        if self.pending.is_empty() {
            self.floor = self.delivered;
        }
        if !gone.is_empty() {
            self.acked_at = Some(to.now);
            to.effects.push(Effect::Ready { id: self.id });
        }
    }

    /// One message was deleted.
    pub fn deleted(&mut self, seq: u64, to: &mut Changes<'_>) {
        self.cursor.forget(seq);
        self.given_up.remove(&seq);
        if self.pending.get(seq).is_some() {
            self.lost(seq, to);
        }
    }

    /// How often the message was sent, among those that wait for an ack.
    pub(super) fn sent_before(&self, seq: u64) -> u32 {
        self.pending.get(seq).map_or(0, |entry| entry.count)
    }

    /// Remembers a delivery.
    pub(super) fn deliver(&mut self, seq: u64, now: Timestamp) {
        self.delivered.consumer = self.delivered.consumer.saturating_add(1);
        self.delivered.stream = self.delivered.stream.max(seq);
        self.delivered_at = Some(now);
        let before = self.pending.get(seq).copied();
        let count = before.map_or(1, |entry| entry.count.saturating_add(1));
        let due = now + self.config.wait_after(count);
        let consumer_seq = before.map_or(self.delivered.consumer, |entry| entry.consumer_seq);
        self.pending.insert(
            seq,
            Entry {
                consumer_seq,
                sent: now,
                count,
                state: State::Due(due),
            },
        );
    }

    /// Removes a queued message that is no longer in the stream.
    pub(super) fn lost(&mut self, seq: u64, to: &mut Changes<'_>) {
        if let Some(entry) = self.done(seq, to) {
            to.effects.push(Effect::Terminated {
                id: self.id,
                stream_seq: seq,
                consumer_seq: entry.consumer_seq,
                deliveries: entry.count,
                reason: "Unacknowledged message was deleted".to_owned(),
            });
        }
    }

    /// One message is done: answered, terminated or gone.
    fn done(&mut self, seq: u64, to: &mut Changes<'_>) -> Option<Entry> {
        let was_full = !self.has_room();
        let Some(entry) = self.pending.remove(seq) else {
            // A late ack of a message that was given up still frees it.
            if self.given_up.remove(&seq) {
                to.released.push(seq);
            }
            return None;
        };
        self.acked_at = Some(to.now);
        to.released.push(seq);
        self.lift_floor(&entry);
        self.sample(seq, &entry, to);
        if was_full {
            to.effects.push(Effect::Ready { id: self.id });
        }
        Some(entry)
    }

    fn ack_all(&mut self, ack: &Ack<'_>, to: &mut Changes<'_>) {
        if ack.stream_seq <= self.floor.stream || ack.consumer_seq <= self.floor.consumer {
            return;
        }
        let was_full = !self.has_room();
        if let Some(entry) = self.pending.get(ack.stream_seq).copied() {
            self.sample(ack.stream_seq, &entry, to);
        }
        let released = &mut *to.released;
        // Not beyond what was delivered, which is bounded.
        let end = ack.stream_seq.saturating_add(1);
        self.pending.remove_below(end, |seq, _| released.push(seq));
        let kept = self.given_up.split_off(&end);
        to.released
            .extend(std::mem::replace(&mut self.given_up, kept));
        let consumer = ack
            .consumer_seq
            .clamp(self.floor.consumer, self.delivered.consumer);
        self.floor = Position {
            consumer,
            stream: ack.stream_seq,
        };
        self.acked_at = Some(to.now);
        if was_full {
            to.effects.push(Effect::Ready { id: self.id });
        }
    }

    /// A client wants the message again, later or at once. It names a delivery that is neither settled nor still to come, or
    /// it is ignored; the next delivery counts as one that was.
    fn refuse(&mut self, ack: &Ack<'_>, delay: u64, to: &mut Changes<'_>) {
        let next = self.delivered.consumer.saturating_add(1);
        if ack.consumer_seq <= self.floor.consumer || ack.consumer_seq > next {
            return;
        }
        let Some(entry) = self.pending.get(ack.stream_seq).copied() else {
            return;
        };
        // At once is what comes of it anyway; a delay takes it out of the queue.
        if delay == 0 && matches!(entry.state, State::Queued(_)) {
            return;
        }
        to.effects.push(Effect::Naked {
            id: self.id,
            stream_seq: ack.stream_seq,
            consumer_seq: ack.consumer_seq,
            deliveries: entry.count,
        });
        if delay > 0 {
            let due = to.now + std::time::Duration::from_nanos(delay);
            self.pending.delay(ack.stream_seq, due);
        } else if !self.give_up(ack.stream_seq, to) {
            self.pending.queue(ack.stream_seq);
            to.effects.push(Effect::Ready { id: self.id });
        }
    }

    /// Gives a message up if it was delivered as often as allowed.
    fn give_up(&mut self, seq: u64, to: &mut Changes<'_>) -> bool {
        let Some(max) = self.config.deliver_max() else {
            return false;
        };
        let Some(entry) = self.pending.get(seq).filter(|entry| entry.count >= max) else {
            return false;
        };
        to.effects.push(Effect::MaxDeliveries {
            id: self.id,
            stream_seq: seq,
            deliveries: entry.count,
        });
        self.pending.remove(seq);
        self.given_up.insert(seq);
        if self.given_up.len() > GIVEN_UP_MAX {
            self.given_up.pop_first();
        }
        true
    }

    /// After `gone` left the unanswered deliveries: the floor moves if it was the lowest.
    fn lift_floor(&mut self, gone: &Entry) {
        match self.pending.first() {
            None => self.floor = self.delivered,
            Some((seq, lowest)) if gone.consumer_seq == self.floor.consumer.saturating_add(1) => {
                self.floor = Position {
                    consumer: lowest
                        .consumer_seq
                        .saturating_sub(1)
                        .max(self.floor.consumer),
                    stream: seq.saturating_sub(1).max(self.floor.stream),
                };
            }
            Some(_) => {}
        }
    }

    fn sample(&self, seq: u64, entry: &Entry, to: &mut Changes<'_>) {
        if self.config.sample_freq.is_empty() {
            return;
        }
        to.effects.push(Effect::Acked {
            id: self.id,
            stream_seq: seq,
            consumer_seq: entry.consumer_seq,
            deliveries: entry.count,
            ack_nanos: u64::try_from((to.now - entry.sent).as_nanos()).unwrap_or(u64::MAX),
        });
    }
}
