//! A consumer's state in a backup, in either format, and how it becomes a consumer of ours.
//!
//! ```text
//! JSON   {"delivered": position, "ack_floor": position, "pending": {"<sequence>": {"Sequence": n, "Timestamp": nanos}},
//!         "redelivered": {"<sequence>": deliveries before}}      position: {"consumer_seq": n, "stream_seq": n}
//! o.dat  22 | version 2 | ack floor: consumer, stream | delivered: consumer, stream
//!        | pending: count, if any: base seconds, (sequence, consumer's sequence, base - seconds)*
//!        | redelivered: count, (sequence, deliveries before)*
//! ```
//!
//! The numbers of `o.dat` are LEB128, its times zigzag; sequences count from the ack floor. A pending message is due again
//! when the ack wait has passed since its timestamp; a redelivered one that is not pending was given up.

use std::collections::BTreeMap;

use halyard_runtime::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::item::Refused;
use crate::jetstream::config::StreamConfig;
use crate::jetstream::consumer::Restored;
use crate::jetstream::consumer::pending::{Entry, State as Next};
use crate::jetstream::consumer::{Consumer, ConsumerConfig, DeliverPolicy, Position, check};
use crate::jetstream::limits::{DELIVERIES_MAX, SEQUENCE_ASKED_MAX};

/// One unanswered delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Sequence in the consumer.
    pub consumer_seq: u64,
    /// When the ack wait began.
    pub since: Timestamp,
}

/// How far a consumer got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The last delivery.
    pub delivered: Position,
    /// Below it everything is answered.
    pub floor: Position,
    /// Unanswered deliveries, by sequence in the stream.
    pub pending: BTreeMap<u64, Pending>,
    /// How often messages were delivered before their last delivery, or until they were given up.
    pub redelivered: BTreeMap<u64, u32>,
    /// Messages that go out before all after the last delivery: what is left of a start with the last of each subject.
    pub first: Vec<u64>,
    /// Where it goes on after these: what lies between them and is not one of them was superseded. 0: right behind them.
    pub next: u64,
}

/// [`State`] as JSON has it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StateJson {
    #[serde(default)]
    delivered: PositionJson,
    #[serde(default)]
    ack_floor: PositionJson,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pending: Option<BTreeMap<String, PendingJson>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    redelivered: Option<BTreeMap<String, u64>>,
    /// Ours; others pass it over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    halyard_first: Vec<u64>,
    /// The same.
    #[serde(default, skip_serializing_if = "is_zero")]
    halyard_next: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct PositionJson {
    #[serde(default)]
    consumer_seq: u64,
    #[serde(default)]
    stream_seq: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PendingJson {
    sequence: u64,
    timestamp: i64,
}

impl From<Position> for PositionJson {
    fn from(position: Position) -> Self {
        Self {
            consumer_seq: position.consumer,
            stream_seq: position.stream,
        }
    }
}

impl From<PositionJson> for Position {
    fn from(json: PositionJson) -> Self {
        Self {
            consumer: json.consumer_seq,
            stream: json.stream_seq,
        }
    }
}

impl State {
    /// As the JSON says.
    ///
    /// # Errors
    /// A key is no sequence.
    pub(super) fn from_json(json: StateJson) -> Result<Self, Refused> {
        let damaged = || Refused::because("the state of a consumer names a sequence that is none");
        let seq = |text: &str| text.parse::<u64>().ok().filter(|seq| *seq > 0);
        let mut state = Self {
            delivered: json.delivered.into(),
            floor: json.ack_floor.into(),
            first: json.halyard_first,
            next: json.halyard_next,
            ..Self::default()
        };
        for (key, one) in json.pending.unwrap_or_default() {
            let pending = Pending {
                consumer_seq: one.sequence,
                since: Timestamp::from_nanos(one.timestamp),
            };
            let key = seq(&key).ok_or_else(damaged)?;
            state.pending.insert(key, pending);
        }
        for (key, count) in json.redelivered.unwrap_or_default() {
            let key = seq(&key).ok_or_else(damaged)?;
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            state.redelivered.insert(key, count);
        }
        Ok(state)
    }

    pub(super) fn to_json(&self) -> StateJson {
        let pending = self.pending.iter().map(|(seq, one)| {
            let json = PendingJson {
                sequence: one.consumer_seq,
                timestamp: one.since.as_nanos(),
            };
            (seq.to_string(), json)
        });
        let redelivered = self.redelivered.iter();
        let redelivered = redelivered.map(|(seq, count)| (seq.to_string(), u64::from(*count)));
        StateJson {
            delivered: self.delivered.into(),
            ack_floor: self.floor.into(),
            pending: (!self.pending.is_empty()).then(|| pending.collect()),
            redelivered: (!self.redelivered.is_empty()).then(|| redelivered.collect()),
            halyard_first: self.first.clone(),
            halyard_next: self.next,
        }
    }

    /// Reads an `o.dat`. `None`: it is none, or of another version.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<2>()?;
        if *head != [22, 2] {
            return None;
        }
        let mut reader = Leb(rest);
        let mut position = || {
            Some(Position {
                consumer: reader.next()?,
                stream: reader.next()?,
            })
        };
        let (floor, delivered) = (position()?, position()?);
        let mut state = Self {
            delivered,
            floor,
            ..Self::default()
        };
        let count = reader.next()?;
        let base = if count > 0 { reader.signed()? } else { 0 };
        for _ in 0..count {
            let seq = floor.stream.checked_add(reader.next()?)?;
            let consumer_seq = floor.consumer.checked_add(reader.next()?)?;
            let seconds = base.checked_sub(reader.signed()?)?;
            let since = Timestamp::from_nanos(seconds.checked_mul(1_000_000_000)?);
            let pending = Pending {
                consumer_seq,
                since,
            };
            state.pending.insert(seq, pending);
        }
        for _ in 0..reader.next()? {
            let seq = floor.stream.checked_add(reader.next()?)?;
            let count = u32::try_from(reader.next()?).ok()?;
            state.redelivered.insert(seq, count);
        }
        reader.0.is_empty().then_some(state)
    }

    /// As a consumer of ours is; `now` is when what waits for redelivery counts as due.
    #[must_use]
    pub fn of(consumer: &Consumer, now: Timestamp) -> Self {
        let config = consumer.config();
        let mut state = Self {
            delivered: consumer.delivered(),
            floor: consumer.floor(),
            first: consumer.cursor().first().collect(),
            ..Self::default()
        };
        if !state.first.is_empty() {
            state.next = consumer.cursor().next();
        }
        for (seq, entry) in consumer.unanswered() {
            let due = match entry.state {
                Next::Due(due) => due,
                Next::Queued(_) => now,
            };
            let wait = i64::try_from(config.wait_after(entry.count).as_nanos()).unwrap_or(i64::MAX);
            let since = Timestamp::from_nanos(due.as_nanos().saturating_sub(wait));
            let consumer_seq = entry.consumer_seq;
            state.pending.insert(
                seq,
                Pending {
                    consumer_seq,
                    since,
                },
            );
            if entry.count > 1 {
                state.redelivered.insert(seq, entry.count - 1);
            }
        }
        let given_up = config.deliver_max().unwrap_or(1);
        for seq in consumer.given_up() {
            state.redelivered.insert(seq, given_up);
        }
        state
    }
}

/// A consumer of a backup as a record of ours, checked as a request to create it would be.
///
/// # Errors
/// Its configuration is not one that this server serves, or its state contradicts itself or the stream.
pub fn restored(
    found: super::item::Consumer,
    stream: &StreamConfig,
    last_seq: u64,
    now: Timestamp,
) -> Result<Restored, Refused> {
    let name = found.name;
    let refuse = |why: String| Refused::with(format!("consumer {name:?}: {why}"));
    let mut config: ConsumerConfig = crate::jetstream::api::json::from_value(found.config, false)
        .map_err(|error| refuse(error.to_string()))?;
    config.metadata.retain(|key, _| !key.starts_with("_nats."));
    if config.name.is_empty() && config.durable_name.is_empty() {
        config.name.clone_from(&name);
    }
    let own = if config.name.is_empty() {
        &config.durable_name
    } else {
        &config.name
    };
    if *own != name || (config.is_durable() && config.durable_name != name) {
        return Err(refuse("the archive has it under another name".to_owned()));
    }
    let config =
        check::resolve(config, stream, false).map_err(|error| refuse(error.to_string()))?;
    let Some(state) = found.state else {
        return Ok(Restored::new(config));
    };
    let contradiction = |what: &str| Err(refuse(format!("its state contradicts itself: {what}")));
    if state.delivered.stream > last_seq {
        return contradiction("it is ahead of the stream");
    }
    if state.floor.stream > state.delivered.stream
        || state.floor.consumer > state.delivered.consumer
    {
        return contradiction("the ack floor is ahead of what was delivered");
    }
    if state.delivered.consumer > SEQUENCE_ASKED_MAX
        || state
            .redelivered
            .values()
            .any(|count| *count > DELIVERIES_MAX)
    {
        return contradiction("it has delivered more often than can be");
    }
    let beyond = |seq: &u64| *seq > state.delivered.stream;
    if state.pending.keys().any(beyond) || state.redelivered.keys().any(beyond) {
        return contradiction("a message waits for an ack that was not delivered");
    }
    if state
        .pending
        .values()
        .any(|one| one.consumer_seq > state.delivered.consumer)
    {
        return contradiction("a delivery has a number that was not given");
    }
    let rising = state
        .first
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if a < b));
    if !rising || state.first.last().is_some_and(|last| *last > last_seq) {
        return contradiction("what it begins with is not in order");
    }
    let behind = state.first.last().map_or(1, |last| last + 1);
    if state.next != 0 && !(behind..=last_seq + 1).contains(&state.next) {
        return contradiction("it goes on before what it begins with, or ahead of the stream");
    }
    let mut restored = Restored::new(config);
    let started = state.delivered.consumer > 0;
    // One that never delivered and starts with the last of each subject looks them up anew.
    let lists = restored.config.deliver_policy == DeliverPolicy::LastPerSubject;
    restored.position = (started || !lists).then_some((state.delivered, state.floor));
    restored.first = state.first;
    restored.next = state.next;
    for (seq, one) in &state.pending {
        let before = state.redelivered.get(seq).copied().unwrap_or(0);
        let count = before.saturating_add(1);
        let wait = i64::try_from(restored.config.wait_after(count).as_nanos()).unwrap_or(i64::MAX);
        let due = Timestamp::from_nanos(one.since.as_nanos().saturating_add(wait).max(1));
        let entry = Entry {
            consumer_seq: one.consumer_seq,
            sent: one.since.min(now),
            count,
            state: Next::Due(due),
        };
        restored.pending.push((*seq, entry));
    }
    let pending = &state.pending;
    let given_up = state
        .redelivered
        .keys()
        .filter(|seq| !pending.contains_key(seq));
    restored.given_up = given_up.copied().collect();
    Ok(restored)
}

/// Reads LEB128.
struct Leb<'a>(&'a [u8]);

impl Leb<'_> {
    fn next(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let value = self.next()?;
        Some((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::hostile_test::unhex;
    use super::*;

    #[test]
    fn a_state_of_an_old_server() {
        // Consumer c1 of the sample, written by nats-server 2.12.8.
        let bytes = unhex("1602 0101 0504 02 8299cbb00d 010106 030206 01 0101");
        let state = State::decode(&bytes).unwrap();
        assert_eq!((state.floor.consumer, state.floor.stream), (1, 1));
        assert_eq!((state.delivered.consumer, state.delivered.stream), (5, 4));
        let pending: Vec<_> = state
            .pending
            .iter()
            .map(|(seq, one)| (*seq, one.consumer_seq))
            .collect();
        assert_eq!(pending, [(2, 2), (4, 3)]);
        assert_eq!(
            state.pending[&2].since.as_nanos(),
            1_795_778_110_000_000_000
        );
        assert_eq!(state.redelivered, BTreeMap::from([(2, 1)]));
        for cut in 0..bytes.len() {
            assert_eq!(State::decode(&bytes[..cut]), None, "cut at {cut}");
        }
        let many = unhex("1602 0101 0504 ffffffff0f 02");
        assert_eq!(State::decode(&many), None, "a count beyond the bytes");
    }
}
