//! A consumer's state as one record of the store, written with each flush of the store.
//!
//! ```text
//! version u8 = 1 | config (JSON) | created i64 | delivered (2 x u64) | delivered_at i64 | floor (2 x u64) | acked_at i64
//!   | cursor | next ticket | count, (seq delta, consumer_seq, sent i64, count, state u8, due i64 or ticket)* | count, (given-up delta)*
//! ```
//!
//! LEB128 integers; a time that is not set is 0. The record of id 0 is the set's own: the next id to give.

use std::collections::BTreeSet;

use bytes::BufMut;
use halyard_format::codec::{Malformed, Reader, put_bytes, put_signed, put_varint};
use halyard_runtime::time::Timestamp;

use super::check::parse_filters;
use super::command::ConsumerId;
use super::config::ConsumerConfig;
use super::cursor::Cursor;
use super::machine::{Consumer, Position};
use super::pending::{Entry, Pending, State};
use crate::jetstream::plain;

const VERSION: u8 = 1;
const DUE: u8 = 0;
const QUEUED: u8 = 1;

impl Consumer {
    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        let config = plain::json(&self.config);
        put_bytes(&mut out, &config);
        put_signed(&mut out, self.created.as_nanos());
        put_position(&mut out, self.delivered, self.delivered_at);
        put_position(&mut out, self.floor, self.acked_at);
        self.cursor.encode(&mut out);
        put_varint(&mut out, self.pending.next_ticket());
        put_varint(&mut out, self.pending.len() as u64);
        let mut before = 0;
        for (seq, entry) in self.pending.iter() {
            put_varint(&mut out, seq - before);
            put_entry(&mut out, entry);
            before = seq;
        }
        put_varint(&mut out, self.given_up.len() as u64);
        let mut before = 0;
        for seq in &self.given_up {
            put_varint(&mut out, seq - before);
            before = *seq;
        }
        out
    }

    /// Reads a record.
    ///
    /// # Errors
    /// The bytes are no record of this version: damage, or a newer server wrote it.
    pub fn decode(id: ConsumerId, bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Malformed("a consumer of another version"));
        }
        let config: ConsumerConfig = serde_json::from_slice(reader.bytes()?)
            .map_err(|_| Malformed("no consumer's configuration"))?;
        let filters =
            parse_filters(&config).map_err(|_| Malformed("filters that no consumer has"))?;
        let created = Timestamp::from_nanos(reader.signed()?);
        let (delivered, delivered_at) = position(&mut reader)?;
        let (floor, acked_at) = position(&mut reader)?;
        let cursor = Cursor::decode(&mut reader)?;
        let pending = pending(&mut reader)?;
        let mut given_up = BTreeSet::new();
        let mut before = None;
        for _ in 0..reader.count()? {
            given_up.insert(reader.rising(&mut before)?);
        }
        if !reader.is_empty() {
            return Err(Malformed("more behind a consumer"));
        }
        Ok(Self {
            id,
            config,
            filters,
            created,
            cursor,
            delivered,
            delivered_at,
            floor,
            acked_at,
            pending,
            given_up,
        })
    }
}

fn put_position(out: &mut impl BufMut, position: Position, at: Option<Timestamp>) {
    put_varint(out, position.consumer);
    put_varint(out, position.stream);
    put_signed(out, at.map_or(0, Timestamp::as_nanos));
}

fn position(reader: &mut Reader<'_>) -> Result<(Position, Option<Timestamp>), Malformed> {
    let position = Position {
        consumer: reader.varint()?,
        stream: reader.varint()?,
    };
    let at = reader.signed()?;
    Ok((position, (at != 0).then(|| Timestamp::from_nanos(at))))
}

fn put_entry(out: &mut impl BufMut, entry: &Entry) {
    put_varint(out, entry.consumer_seq);
    put_signed(out, entry.sent.as_nanos());
    put_varint(out, u64::from(entry.count));
    match entry.state {
        State::Due(at) => {
            out.put_u8(DUE);
            put_signed(out, at.as_nanos());
        }
        State::Queued(ticket) => {
            out.put_u8(QUEUED);
            put_varint(out, ticket);
        }
    }
}

fn pending(reader: &mut Reader<'_>) -> Result<Pending, Malformed> {
    let mut pending = Pending::default();
    pending.skip_tickets(reader.varint()?);
    let mut before = None;
    for _ in 0..reader.count()? {
        let seq = reader.rising(&mut before)?;
        let entry = Entry {
            consumer_seq: reader.varint()?,
            sent: Timestamp::from_nanos(reader.signed()?),
            count: reader.varint_u32()?,
            state: match reader.u8()? {
                DUE => State::Due(Timestamp::from_nanos(reader.signed()?)),
                QUEUED => State::Queued(reader.varint()?),
                _ => return Err(Malformed("a pending message in no known state")),
            },
        };
        let free = match entry.state {
            State::Queued(ticket) => pending.ticket_is_free(ticket),
            State::Due(_) => true,
        };
        if !free {
            return Err(Malformed("two pending messages in one place of the queue"));
        }
        pending.insert(seq, entry);
    }
    Ok(pending)
}
