//! A consumer's state in a backup, in either format.
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

use halyard_format::Malformed;
use halyard_format::codec::{self, Reader};
use serde::{Deserialize, Serialize};

use crate::item::Refused;

/// Numbers of a delivery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Position {
    /// How many the consumer had made, with it.
    #[serde(rename = "consumer_seq")]
    pub consumer: u64,
    /// The message's sequence in the stream.
    #[serde(rename = "stream_seq")]
    pub stream: u64,
}

/// One unanswered delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Sequence in the consumer.
    pub consumer_seq: u64,
    /// When the ack wait began, in nanoseconds since the Unix epoch.
    pub since: i64,
}

/// How far a consumer got.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "StateJson")]
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
pub(crate) struct StateJson {
    #[serde(default)]
    delivered: Position,
    #[serde(default)]
    ack_floor: Position,
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

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PendingJson {
    sequence: u64,
    timestamp: i64,
}

impl TryFrom<StateJson> for State {
    type Error = Refused;

    /// As the JSON says, unless a key is no sequence.
    fn try_from(json: StateJson) -> Result<Self, Refused> {
        let damaged = || Refused::because("the state of a consumer names a sequence that is none");
        let seq = |text: &str| text.parse::<u64>().ok().filter(|seq| *seq > 0);
        let mut state = Self {
            delivered: json.delivered,
            floor: json.ack_floor,
            first: json.halyard_first,
            next: json.halyard_next,
            ..Self::default()
        };
        for (key, one) in json.pending.unwrap_or_default() {
            let pending = Pending {
                consumer_seq: one.sequence,
                since: one.timestamp,
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
}

impl State {
    pub(crate) fn to_json(&self) -> StateJson {
        let pending = self.pending.iter().map(|(seq, one)| {
            let json = PendingJson {
                sequence: one.consumer_seq,
                timestamp: one.since,
            };
            (seq.to_string(), json)
        });
        let redelivered = self.redelivered.iter();
        let redelivered = redelivered.map(|(seq, count)| (seq.to_string(), u64::from(*count)));
        StateJson {
            delivered: self.delivered,
            ack_floor: self.floor,
            pending: (!self.pending.is_empty()).then(|| pending.collect()),
            redelivered: (!self.redelivered.is_empty()).then(|| redelivered.collect()),
            halyard_first: self.first.clone(),
            halyard_next: self.next,
        }
    }

    /// Reads an `o.dat`.
    ///
    /// # Errors
    /// It is none, or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.array()? != [22, 2] {
            return Err(Malformed(
                "no state of a consumer, or another version of one",
            ));
        }
        let mut position = || {
            Ok(Position {
                consumer: reader.varint()?,
                stream: reader.varint()?,
            })
        };
        let (floor, delivered) = (position()?, position()?);
        let mut state = Self {
            delivered,
            floor,
            ..Self::default()
        };
        let beyond = Malformed("a time beyond 64 bits");
        let count = reader.varint()?;
        let base = if count > 0 { reader.signed()? } else { 0 };
        for _ in 0..count {
            let seq = codec::sum(floor.stream, reader.varint()?)?;
            let consumer_seq = codec::sum(floor.consumer, reader.varint()?)?;
            let seconds = base.checked_sub(reader.signed()?).ok_or(beyond)?;
            let since = seconds.checked_mul(1_000_000_000).ok_or(beyond)?;
            let pending = Pending {
                consumer_seq,
                since,
            };
            state.pending.insert(seq, pending);
        }
        for _ in 0..reader.varint()? {
            let seq = codec::sum(floor.stream, reader.varint()?)?;
            let count = reader.varint_u32()?;
            state.redelivered.insert(seq, count);
        }
        reader.end()?;
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile_test::unhex;

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
        assert_eq!(state.pending[&2].since, 1_795_778_110_000_000_000);
        assert_eq!(state.redelivered, BTreeMap::from([(2, 1)]));
        for cut in 0..bytes.len() {
            assert!(State::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let many = unhex("1602 0101 0504 ffffffff0f 02");
        assert!(State::decode(&many).is_err(), "a count beyond the bytes");
    }
}
