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
use halyard_runtime::time::Timestamp;

use super::check::parse_filters;
use super::codec::{Reader, Unreadable, put_bytes, put_i64, put_u64};
use super::command::ConsumerId;
use super::config::ConsumerConfig;
use super::cursor::Cursor;
use super::machine::{Consumer, Position};
use super::pending::{Entry, Pending, State};

const VERSION: u8 = 1;
const DUE: u8 = 0;
const QUEUED: u8 = 1;

impl Consumer {
    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        let config = serde_json::to_vec(&self.config).unwrap_or_default();
        put_bytes(&mut out, &config);
        put_i64(&mut out, self.created.as_nanos());
        put_position(&mut out, self.delivered, self.delivered_at);
        put_position(&mut out, self.floor, self.acked_at);
        self.cursor.encode(&mut out);
        put_u64(&mut out, self.pending.next_ticket());
        put_u64(&mut out, self.pending.len() as u64);
        let mut before = 0;
        for (seq, entry) in self.pending.iter() {
            put_u64(&mut out, seq - before);
            put_entry(&mut out, entry);
            before = seq;
        }
        put_u64(&mut out, self.given_up.len() as u64);
        let mut before = 0;
        for seq in &self.given_up {
            put_u64(&mut out, seq - before);
            before = *seq;
        }
        out
    }

    /// Reads a record.
    ///
    /// # Errors
    /// The bytes are no record of this version: damage, or a newer server wrote it.
    pub fn decode(id: ConsumerId, bytes: &[u8]) -> Result<Self, Unreadable> {
        let mut reader = Reader::new(bytes, "record");
        if reader.u8()? != VERSION {
            return Err(reader.unreadable());
        }
        let config: ConsumerConfig =
            serde_json::from_slice(reader.bytes()?).map_err(|_| reader.unreadable())?;
        let filters = parse_filters(&config).map_err(|_| reader.unreadable())?;
        let created = Timestamp::from_nanos(reader.i64()?);
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
            return Err(reader.unreadable());
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
    put_u64(out, position.consumer);
    put_u64(out, position.stream);
    put_i64(out, at.map_or(0, Timestamp::as_nanos));
}

fn position(reader: &mut Reader<'_>) -> Result<(Position, Option<Timestamp>), Unreadable> {
    let position = Position {
        consumer: reader.u64()?,
        stream: reader.u64()?,
    };
    let at = reader.i64()?;
    Ok((position, (at != 0).then(|| Timestamp::from_nanos(at))))
}

fn put_entry(out: &mut impl BufMut, entry: &Entry) {
    put_u64(out, entry.consumer_seq);
    put_i64(out, entry.sent.as_nanos());
    put_u64(out, u64::from(entry.count));
    match entry.state {
        State::Due(at) => {
            out.put_u8(DUE);
            put_i64(out, at.as_nanos());
        }
        State::Queued(ticket) => {
            out.put_u8(QUEUED);
            put_u64(out, ticket);
        }
    }
}

fn pending(reader: &mut Reader<'_>) -> Result<Pending, Unreadable> {
    let mut pending = Pending::default();
    pending.skip_tickets(reader.u64()?);
    let mut before = None;
    for _ in 0..reader.count()? {
        let seq = reader.rising(&mut before)?;
        let entry = Entry {
            consumer_seq: reader.u64()?,
            sent: Timestamp::from_nanos(reader.i64()?),
            count: reader.u32()?,
            state: match reader.u8()? {
                DUE => State::Due(Timestamp::from_nanos(reader.i64()?)),
                QUEUED => State::Queued(reader.u64()?),
                _ => return Err(reader.unreadable()),
            },
        };
        let free = match entry.state {
            State::Queued(ticket) => pending.ticket_is_free(ticket),
            State::Due(_) => true,
        };
        if !free {
            return Err(reader.unreadable());
        }
        pending.insert(seq, entry);
    }
    Ok(pending)
}
