//! A consumer that comes from a backup: its configuration and how far it got, as it stands in the log.
//!
//! ```text
//! version u8 = 1 | config (JSON) | has position u8, if so: delivered (2 x u64) | floor (2 x u64)
//!   | count, (first delta)* | next | count, (seq delta, consumer_seq, sent i64, count, due i64)* | count, (given-up delta)*
//! ```
//!
//! LEB128 integers. Without a position the consumer starts as its configuration says.

use std::collections::BTreeSet;

use halyard_engine::{Filters, SEQUENCE_MAX};
use halyard_format::codec::{Malformed, Reader, put_bytes, put_signed, put_varint};
use halyard_runtime::time::Timestamp;

use super::command::ConsumerId;
use super::config::ConsumerConfig;
use super::cursor::Cursor;
use super::machine::{Consumer, Position};
use super::messages::Messages;
use super::pending::{Entry, Pending, State};
use crate::jetstream::limits::DELIVERIES_MAX;
use crate::jetstream::plain;

const VERSION: u8 = 1;

/// A consumer that is to be there again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Its resolved configuration, its name in it.
    pub config: ConsumerConfig,
    /// The last delivery and the ack floor; `None`: as new.
    pub position: Option<(Position, Position)>,
    /// Messages that go out before all after the last delivery; rising.
    pub first: Vec<u64>,
    /// Where it goes on after these, if that is not right behind them and the last delivery; 0 if it is.
    pub next: u64,
    /// Unanswered deliveries, rising; all of them run a deadline.
    pub pending: Vec<(u64, Entry)>,
    /// Messages that were given up, rising.
    pub given_up: Vec<u64>,
}

impl Restored {
    /// A consumer without a past.
    #[must_use]
    pub const fn new(config: ConsumerConfig) -> Self {
        Self {
            config,
            position: None,
            first: Vec::new(),
            next: 0,
            pending: Vec::new(),
            given_up: Vec::new(),
        }
    }

    /// Its bytes in the log.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_bytes(&mut out, &plain::json(&self.config));
        out.push(u8::from(self.position.is_some()));
        if let Some((delivered, floor)) = self.position {
            for number in [
                delivered.consumer,
                delivered.stream,
                floor.consumer,
                floor.stream,
            ] {
                put_varint(&mut out, number);
            }
        }
        put_rising(&mut out, &self.first);
        put_varint(&mut out, self.next);
        put_varint(&mut out, self.pending.len() as u64);
        let mut before = 0;
        for (seq, entry) in &self.pending {
            put_varint(&mut out, seq.wrapping_sub(before));
            put_varint(&mut out, entry.consumer_seq);
            put_signed(&mut out, entry.sent.as_nanos());
            put_varint(&mut out, u64::from(entry.count));
            let due = match entry.state {
                State::Due(due) => due,
                State::Queued(_) => entry.sent,
            };
            put_signed(&mut out, due.as_nanos());
            before = *seq;
        }
        put_rising(&mut out, &self.given_up);
        out
    }

    /// Reads it.
    ///
    /// # Errors
    /// The bytes are not of this version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Malformed("a restored consumer of another version"));
        }
        let config: ConsumerConfig = serde_json::from_slice(reader.bytes()?)
            .map_err(|_| Malformed("no consumer's configuration"))?;
        let mut restored = Self::new(config);
        restored.position = match reader.u8()? {
            0 => None,
            1 => Some((position(&mut reader)?, position(&mut reader)?)),
            _ => return Err(Malformed("positions that are neither there nor not")),
        };
        restored.first = rising(&mut reader)?;
        restored.next = reader.varint()?;
        let mut before = None;
        for _ in 0..reader.count()? {
            let seq = reader.rising(&mut before)?;
            let entry = Entry {
                consumer_seq: reader.varint()?,
                sent: Timestamp::from_nanos(reader.signed()?),
                count: reader.varint_u32()?,
                state: State::Due(Timestamp::from_nanos(reader.signed()?)),
            };
            restored.pending.push((seq, entry));
        }
        restored.given_up = rising(&mut reader)?;
        if reader.is_empty() && restored.is_possible() {
            Ok(restored)
        } else {
            Err(Malformed(
                "more behind a restored consumer, or one that cannot be",
            ))
        }
    }
}

impl Restored {
    /// Whether a consumer can be there: a log of before may hold one that could not go on.
    fn is_possible(&self) -> bool {
        let (delivered, floor) = self.position.unwrap_or_default();
        let numbers = [
            delivered.consumer,
            delivered.stream,
            floor.consumer,
            floor.stream,
            self.next,
        ];
        let listed = self.first.last().into_iter().chain(self.given_up.last());
        let pending = self.pending.iter();
        numbers.iter().chain(listed).all(|seq| *seq <= SEQUENCE_MAX)
            && pending
                .clone()
                .all(|(seq, entry)| *seq <= SEQUENCE_MAX && entry.consumer_seq <= SEQUENCE_MAX)
            && pending
                .clone()
                .all(|(_, entry)| entry.count <= DELIVERIES_MAX)
    }
}

fn position(reader: &mut Reader<'_>) -> Result<Position, Malformed> {
    Ok(Position {
        consumer: reader.varint()?,
        stream: reader.varint()?,
    })
}

fn put_rising(out: &mut Vec<u8>, sequences: &[u64]) {
    put_varint(out, sequences.len() as u64);
    let mut before = 0;
    for seq in sequences {
        put_varint(out, seq.wrapping_sub(before));
        before = *seq;
    }
}

fn rising(reader: &mut Reader<'_>) -> Result<Vec<u64>, Malformed> {
    let (count, mut before) = (reader.count()?, None);
    (0..count).map(|_| reader.rising(&mut before)).collect()
}

impl Consumer {
    /// A consumer of a backup, over the messages that were restored with it.
    pub fn restored(
        id: ConsumerId,
        restored: Restored,
        filters: Filters,
        messages: &dyn Messages,
        now: Timestamp,
    ) -> Self {
        let mut consumer = Self::new(id, restored.config, filters, messages, now);
        let Some((delivered, floor)) = restored.position else {
            return consumer;
        };
        let listed = restored.first.last().copied().unwrap_or(0);
        let behind = delivered.stream.max(listed).saturating_add(1);
        let next = behind.max(restored.next).max(messages.first_seq());
        consumer.cursor = Cursor::resume(next, restored.first);
        consumer.cursor.retain(messages);
        consumer.delivered = delivered;
        consumer.floor = floor;
        let mut pending = Pending::default();
        for (seq, entry) in restored.pending {
            if messages.contains(seq) {
                pending.insert(seq, entry);
            }
        }
        consumer.pending = pending;
        let held = restored.given_up.into_iter();
        consumer.given_up = held
            .filter(|seq| messages.contains(*seq))
            .collect::<BTreeSet<_>>();
        consumer
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_round_trips() {
        let config = ConsumerConfig {
            name: "c".into(),
            ..ConsumerConfig::default()
        };
        let position = |consumer, stream| Position { consumer, stream };
        let entry = |consumer_seq, due| Entry {
            consumer_seq,
            sent: Timestamp::from_nanos(-7),
            count: 3,
            state: State::Due(Timestamp::from_nanos(due)),
        };
        let mut restored = Restored::new(config);
        assert_eq!(Restored::decode(&restored.to_bytes()), Ok(restored.clone()));
        restored.position = Some((position(9, 8), position(2, 1)));
        restored.first = vec![4, 90];
        restored.next = 95;
        restored.pending = vec![(3, entry(1, 77)), (400, entry(2, i64::MAX))];
        restored.given_up = vec![1, 2, 1 << 60];
        let bytes = restored.to_bytes();
        assert_eq!(Restored::decode(&bytes), Ok(restored));
        for cut in 0..bytes.len() {
            assert!(Restored::decode(&bytes[..cut]).is_err());
        }
    }

    proptest! {
        #[test]
        fn garbage_is_refused(bytes: Vec<u8>) {
            let _ = Restored::decode(&bytes);
        }
    }
}
