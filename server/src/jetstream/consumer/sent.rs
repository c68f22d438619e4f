//! What the leader has sent, as the log hears of it.
//!
//! A message goes out as soon as it is stored; that it did is logged behind it. So the log may hold what happened in
//! between: the message was deleted, or an answer to an earlier delivery of it came. Whatever it was, the state becomes
//! what it would have been had the log known of the delivery first. A crash before the entry is on disk loses the count of
//! a delivery: the message is sent again as if for the first time. No answer is lost that way, since a client's answer to a
//! delivery stands behind it in the log.

use bytes::BufMut;

use halyard_format::codec::{Malformed, Reader, put_signed, put_varint};

use super::config::AckPolicy;
use super::machine::{Changes, Consumer};
use super::messages::Messages;

/// Messages of one command at most: applying it must stay short.
pub const SENT_MESSAGES_MAX: u64 = 64 * 1024;

/// Deliveries of one consumer, in the order in which they were sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    /// Consumer sequence of the first one.
    first: u64,
    count: u64,
    /// Stream sequences as runs: the first of each, and how many follow each other.
    runs: Vec<(u64, u64)>,
}

impl Sent {
    /// Nothing yet; the first delivery has this consumer sequence.
    pub const fn starting_at(first: u64) -> Self {
        Self {
            first,
            count: 0,
            runs: Vec::new(),
        }
    }

    /// Whether it names no delivery.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds the delivery of a message.
    pub fn push(&mut self, seq: u64) {
        self.count += 1;
        match self.runs.last_mut() {
            Some((start, length)) if start.checked_add(*length) == Some(seq) => *length += 1,
            _ => self.runs.push((seq, 1)),
        }
    }

    /// Consumer and stream sequence of each.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        let seqs = self
            .runs
            .iter()
            .flat_map(|(start, length)| (0..*length).map(move |step| start.saturating_add(step)));
        (0..)
            .zip(seqs)
            .map(|(step, seq)| (self.first.saturating_add(step), seq))
    }

    pub(super) fn encode(&self, out: &mut impl BufMut) {
        put_varint(out, self.first);
        put_varint(out, self.runs.len() as u64);
        let mut end = 0_u64;
        for (start, length) in &self.runs {
            put_signed(out, start.wrapping_sub(end).cast_signed());
            put_varint(out, *length);
            end = start.wrapping_add(*length);
        }
    }

    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut sent = Self::starting_at(reader.varint()?);
        let runs = reader.count()?;
        sent.runs.reserve(runs);
        let mut end = 0_u64;
        for _ in 0..runs {
            let start = end.wrapping_add(reader.signed()?.cast_unsigned());
            let length = reader.varint()?;
            sent.count = sent.count.saturating_add(length);
            if length == 0 || sent.count > SENT_MESSAGES_MAX {
                return Err(Malformed("deliveries without a message, or too many"));
            }
            sent.runs.push((start, length));
            end = start.wrapping_add(length);
        }
        Ok(sent)
    }
}

impl Consumer {
    /// Remembers deliveries that the leader has made.
    pub fn sent(&mut self, sent: &Sent, messages: &dyn Messages, to: &mut Changes<'_>) {
        if self.config.ack_policy == AckPolicy::None {
            return;
        }
        for (consumer_seq, seq) in sent.iter() {
            if seq == 0 || seq > messages.last_seq() {
                // No message ever had it: nothing that a leader sends.
                continue;
            }
            let is_again = self.pending.get(seq).is_some();
            let is_new = !is_again && self.cursor.covers(seq);
            if is_new {
                self.cursor.pass(seq);
            }
            let before = consumer_seq.saturating_sub(1);
            self.delivered.consumer = self.delivered.consumer.max(before);
            if is_new || is_again {
                self.deliver(seq, to.now);
                if !messages.contains(seq) {
                    self.lost(seq, to);
                }
                continue;
            }
            // Answered before the log heard of this delivery, or gone with all that was before it.
            self.delivered.consumer = self.delivered.consumer.max(consumer_seq);
            if self.pending.is_empty() {
                self.floor = self.delivered;
            }
        }
    }
}
