//! How far a consumer with acks has sent, ahead of what the log knows.
//!
//! A message goes out as soon as it is stored: no write stands between its acknowledgement and its delivery. What went
//! out is then told to the log ([`Sent`]). Until that is applied the consumer's replicated state does not know of it, so
//! it is kept here: nothing goes out twice, and no more than may wait for an ack.
//!
//! What goes out next is what the state as applied says, less what is on its way. An answer that was confirmed is in that
//! state, so the message is never chosen again. Everything here may be forgotten at any time: the worst is that messages
//! are sent again which nobody has answered yet.

use std::collections::VecDeque;

use crate::jetstream::consumer::command::{Command, ConsumerId};
use crate::jetstream::consumer::machine::{Consumer, Position};
use crate::jetstream::consumer::messages::Messages;
use crate::jetstream::consumer::sent::Sent;

/// Deliveries that the log does not know of yet, at most: then it is waited for.
pub const UNLOGGED_MAX: usize = 16 * 1024;

/// What goes out next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// Sequence in the stream.
    pub seq: u64,
    /// How often it was sent before.
    pub sent_before: u32,
    /// Its place among those that go out again; `None`: it is new.
    ticket: Option<u64>,
}

impl Next {
    /// Whether it was never sent before.
    pub const fn is_new(&self) -> bool {
        self.ticket.is_none()
    }
}

/// What was sent ahead of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Consumer sequence of the last delivery, and the highest stream sequence of a new message.
    reached: Position,
    /// The last place among those that go out again.
    ticket: Option<u64>,
    /// Deliveries on their way into the log: consumer sequence, and whether the message was new.
    unlogged: VecDeque<(u64, bool)>,
    unlogged_new: usize,
    /// What the log has to be told next.
    report: Sent,
}

impl Ahead {
    /// Forgets what the log knows by now.
    pub fn settle(&mut self, consumer: &Consumer) {
        let known = consumer.delivered().consumer;
        while let Some((seq, is_new)) = self.unlogged.front().copied() {
            if seq > known {
                return;
            }
            self.unlogged.pop_front();
            self.unlogged_new -= usize::from(is_new);
        }
        (self.reached, self.ticket) = (Position::default(), None);
    }

    /// Forgets everything: what was sent may go out again.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether the log does not know of some delivery.
    pub fn is_ahead(&self) -> bool {
        !self.unlogged.is_empty()
    }

    /// Whether so much is on its way into the log that it is waited for.
    pub fn is_far(&self) -> bool {
        self.unlogged.len() >= UNLOGGED_MAX
    }

    /// What goes out next: what goes out again first, then what the cursor finds, if one more may wait for an ack.
    /// Call [`Ahead::settle`] before.
    pub fn next(&self, consumer: &Consumer, messages: &dyn Messages) -> Option<Next> {
        if let Some((ticket, seq)) = consumer.pending.queued_after(self.ticket) {
            return Some(Next {
                seq,
                sent_before: consumer.sent_before(seq),
                ticket: Some(ticket),
            });
        }
        if !self.has_room(consumer) {
            return None;
        }
        let seq =
            consumer
                .cursor()
                .peek_after(self.reached.stream, consumer.filters(), messages)?;
        Some(Next {
            seq,
            sent_before: 0,
            ticket: None,
        })
    }

    /// Whether one more message may wait for an ack.
    pub fn has_room(&self, consumer: &Consumer) -> bool {
        let waiting = consumer.unacked() + self.unlogged_new;
        consumer
            .config()
            .pending_max()
            .is_none_or(|max| waiting < max)
    }

    /// How many messages were never sent and match. Exact.
    pub fn unseen(&self, consumer: &Consumer, messages: &dyn Messages) -> u64 {
        consumer
            .cursor()
            .count_after(self.reached.stream, consumer.filters(), messages)
    }

    /// The consumer sequence of the next delivery.
    pub fn next_consumer_seq(&self, consumer: &Consumer) -> u64 {
        let last = self.reached.consumer.max(consumer.delivered().consumer);
        last.saturating_add(1)
    }

    /// The last delivery.
    pub fn delivered(&self, consumer: &Consumer) -> Position {
        let known = consumer.delivered();
        Position {
            consumer: self.reached.consumer.max(known.consumer),
            stream: self.reached.stream.max(known.stream),
        }
    }

    /// Books a delivery, for the log too; its consumer sequence.
    pub fn send(&mut self, next: &Next, consumer: &Consumer) -> u64 {
        let consumer_seq = self.next_consumer_seq(consumer);
        self.reached.consumer = consumer_seq;
        match next.ticket {
            Some(ticket) => self.ticket = Some(ticket),
            None => self.reached.stream = next.seq,
        }
        self.unlogged.push_back((consumer_seq, next.is_new()));
        self.unlogged_new += usize::from(next.is_new());
        if self.report.is_empty() {
            self.report = Sent::starting_at(consumer_seq);
        }
        self.report.push(next.seq);
        consumer_seq
    }

    /// The command that tells the log what was sent since the last one.
    pub fn take_report(&mut self, id: ConsumerId) -> Option<Vec<u8>> {
        if self.report.is_empty() {
            return None;
        }
        let sent = std::mem::take(&mut self.report);
        Some(Command::Sent { id, sent }.to_bytes())
    }
}

#[cfg(test)]
#[path = "ahead_test.rs"]
mod tests;
