//! Deliveries that wait for an answer: until when, how often sent, and which go out again next.
//!
//! Invariants, checked by `check`: every entry either runs a deadline or stands in the queue of redeliveries; both
//! indexes name exactly the entries that say so. Sorted maps only: the order is the same on every replica.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use halyard_runtime::time::Timestamp;

/// One delivery without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Consumer sequence of its first delivery.
    pub consumer_seq: u64,
    /// When it was last sent (committed time).
    pub sent: Timestamp,
    /// How often it was sent.
    pub count: u32,
    /// What happens next.
    pub state: State,
}

/// What happens next to an unanswered delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It goes out again if there is no answer until then.
    Due(Timestamp),
    /// It goes out again when its turn comes: lower tickets first.
    Queued(u64),
}

/// All deliveries of one consumer without an answer, by stream sequence.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Pending {
    entries: BTreeMap<u64, Entry>,
    due: BTreeSet<(Timestamp, u64)>,
    queue: BTreeMap<u64, u64>,
    next_ticket: u64,
}

impl Pending {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of a message.
    pub fn get(&self, seq: u64) -> Option<&Entry> {
        self.entries.get(&seq)
    }

    /// The entry with the lowest stream sequence.
    pub fn first(&self) -> Option<(u64, &Entry)> {
        self.entries
            .first_key_value()
            .map(|(seq, entry)| (*seq, entry))
    }

    /// All entries, by stream sequence.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries.iter().map(|(seq, entry)| (*seq, entry))
    }

    /// How many wait to go out again.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// How many were sent more than once.
    pub fn redelivered(&self) -> usize {
        self.entries
            .values()
            .filter(|entry| entry.count > 1)
            .count()
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The message that goes out again next.
    pub fn next_queued(&self) -> Option<u64> {
        self.queue.first_key_value().map(|(_, seq)| *seq)
    }

    /// The place and the message that goes out again next behind a place in the queue.
    pub fn queued_after(&self, ticket: Option<u64>) -> Option<(u64, u64)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = ticket.map_or(Unbounded, Excluded);
        let mut behind = self.queue.range((from, Unbounded));
        behind.next().map(|(ticket, seq)| (*ticket, *seq))
    }

    /// A message deadline that has passed, the earliest first.
    pub fn next_overdue(&self, now: Timestamp) -> Option<u64> {
        self.due
            .first()
            .filter(|(at, _)| *at <= now)
            .map(|(_, seq)| *seq)
    }

    /// Whether no message holds this place in the queue.
    pub fn ticket_is_free(&self, ticket: u64) -> bool {
        ticket < u64::MAX && !self.queue.contains_key(&ticket)
    }

    /// The place in the queue that is given next.
    pub fn next_ticket(&self) -> u64 {
        self.next_ticket
    }

    /// Gives no place below this one any longer.
    pub fn skip_tickets(&mut self, next: u64) {
        self.next_ticket = self.next_ticket.max(next);
    }

    /// Takes or replaces the entry of a message.
    pub fn insert(&mut self, seq: u64, entry: Entry) {
        if let Some(old) = self.entries.insert(seq, entry) {
            self.unlink(seq, old.state);
        }
        match entry.state {
            State::Due(at) => {
                self.due.insert((at, seq));
            }
            State::Queued(ticket) => {
                let clash = self.queue.insert(ticket, seq);
                assert!(
                    clash.is_none_or(|other| other == seq),
                    "a ticket is given once"
                );
                self.next_ticket = self.next_ticket.max(ticket.saturating_add(1));
            }
        }
    }

    /// Removes the entry of a message.
    pub fn remove(&mut self, seq: u64) -> Option<Entry> {
        let entry = self.entries.remove(&seq)?;
        self.unlink(seq, entry.state);
        Some(entry)
    }

    /// Removes every entry below `end`, lowest first.
    pub fn remove_below(&mut self, end: u64, mut gone: impl FnMut(u64, Entry)) {
        while let Some((seq, _)) = self.first().filter(|(seq, _)| *seq < end) {
            if let Some(entry) = self.remove(seq) {
                gone(seq, entry);
            }
        }
    }

    /// Has the message go out again when its turn comes, after those that wait already.
    pub fn queue(&mut self, seq: u64) {
        let Some(entry) = self.entries.get(&seq).copied() else {
            return;
        };
        if matches!(entry.state, State::Due(_)) {
            let ticket = self.next_ticket;
            self.insert(
                seq,
                Entry {
                    state: State::Queued(ticket),
                    ..entry
                },
            );
        }
    }

    /// Gives the message a new deadline, unless it waits to go out again already.
    pub fn postpone(&mut self, seq: u64, due: Timestamp) {
        let Some(entry) = self.entries.get(&seq).copied() else {
            return;
        };
        if matches!(entry.state, State::Due(_)) {
            self.delay(seq, due);
        }
    }

    /// Gives the message a new deadline, and takes it out of the queue if it waits there.
    pub fn delay(&mut self, seq: u64, due: Timestamp) {
        let Some(entry) = self.entries.get(&seq).copied() else {
            return;
        };
        let state = State::Due(due);
        self.insert(seq, Entry { state, ..entry });
    }

    /// Moves every deadline by the difference of two times to answer, which `waits` gives for a number of deliveries.
    pub fn shift(&mut self, waits: impl Fn(u32) -> (Duration, Duration)) {
        let nanos = |wait: Duration| i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX);
        self.due.clear();
        for (seq, entry) in &mut self.entries {
            if let State::Due(at) = &mut entry.state {
                let (old, new) = waits(entry.count);
                let moved = at.as_nanos().saturating_sub(nanos(old));
                *at = Timestamp::from_nanos(moved.saturating_add(nanos(new)));
                self.due.insert((*at, *seq));
            }
        }
    }

    /// The messages that wait to go out again, in the order of their turns.
    pub fn all_queued(&self) -> Vec<u64> {
        self.queue.values().copied().collect()
    }

    fn unlink(&mut self, seq: u64, state: State) {
        let known = match state {
            State::Due(at) => self.due.remove(&(at, seq)),
            State::Queued(ticket) => self.queue.remove(&ticket).is_some(),
        };
        assert!(known, "an entry and its index agree");
    }

    /// Cross-checks the indexes. For tests: it takes time.
    #[cfg(test)]
    pub fn check(&self) {
        let mut due = BTreeSet::new();
        let mut queue = BTreeMap::new();
        for (seq, entry) in &self.entries {
            match entry.state {
                State::Due(at) => assert!(due.insert((at, *seq))),
                State::Queued(ticket) => assert!(queue.insert(ticket, *seq).is_none()),
            }
        }
        assert_eq!((&due, &queue), (&self.due, &self.queue));
    }
}
