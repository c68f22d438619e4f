//! Which message ids a stream remembers, by committed time, so that a retry stores nothing twice.
//!
//! Ids lie in generations: all that came within a quarter of the window share one. A generation goes as a whole when
//! its last id is too old, so forgetting costs nothing, and only generations that changed are written with a flush:
//! the newest again and again, the older ones once.
//!
//! Of an id only its hash is kept ([`MessageId`]): it outlives the message.
//!
//! Record of one generation: `opened i64 | newest i64 | (time i64 | seq u64 | hash 16 B)*`, little endian.

use std::collections::{BTreeMap, VecDeque};

use halyard_runtime::time::Timestamp;

use super::message_id::{HASH_BYTES, MessageId};

/// Generations that share one window.
const GENERATIONS_PER_WINDOW: i64 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    time: Timestamp,
    seq: u64,
}

#[derive(Debug)]
struct Generation {
    /// Its number, part of its record's key.
    number: u32,
    opened: Timestamp,
    newest: Timestamp,
    ids: BTreeMap<MessageId, Known>,
    dirty: bool,
}

/// The ids of one stream.
#[derive(Debug, Default)]
pub struct Dedupe {
    /// Nanoseconds; 0 is off.
    window: i64,
    generations: VecDeque<Generation>,
    next_number: u32,
    /// Numbers of forgotten generations whose records still lie in the store.
    dropped: Vec<u32>,
}

/// What a flush must do about one generation.
#[derive(Debug, PartialEq, Eq)]
pub enum Record {
    /// Write it.
    Put(u32, Vec<u8>),
    /// It is gone.
    Remove(u32),
}

impl Dedupe {
    /// Remembers ids for `window` nanoseconds; 0 remembers nothing.
    #[must_use]
    pub fn new(window: i64) -> Self {
        Self {
            window,
            ..Self::default()
        }
    }

    /// Changes the window; ids that are too old for it are forgotten with the next [`remember`](Self::remember).
    pub fn set_window(&mut self, window: i64) {
        self.window = window;
    }

    /// Under which sequence `id` was stored, if that is not longer ago than the window.
    #[must_use]
    pub fn find(&self, id: MessageId, now: Timestamp) -> Option<u64> {
        if self.window <= 0 {
            return None;
        }
        self.generations.iter().rev().find_map(|generation| {
            let known = generation.ids.get(&id)?;
            (age(known.time, now) <= self.window).then_some(known.seq)
        })
    }

    /// Remembers `id`, and forgets what is too old.
    pub fn remember(&mut self, id: MessageId, seq: u64, now: Timestamp) {
        self.forget(now);
        if self.window <= 0 {
            return;
        }
        let span = self.window / GENERATIONS_PER_WINDOW;
        if self
            .generations
            .back()
            .is_none_or(|last| age(last.opened, now) > span)
        {
            self.generations.push_back(Generation {
                number: self.next_number,
                opened: now,
                newest: now,
                ids: BTreeMap::new(),
                dirty: true,
            });
            self.next_number = self.next_number.wrapping_add(1);
        }
        if let Some(last) = self.generations.back_mut() {
            last.ids.insert(id, Known { time: now, seq });
            last.newest = now;
            last.dirty = true;
        }
    }

    /// Drops generations whose every id is too old.
    pub fn forget(&mut self, now: Timestamp) {
        while let Some(first) = self.generations.front() {
            if self.window > 0 && age(first.newest, now) <= self.window {
                return;
            }
            self.dropped.push(first.number);
            self.generations.pop_front();
        }
    }

    /// Ids that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.generations
            .iter()
            .map(|generation| generation.ids.len())
            .sum()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What changed since the last call, for the flush that is about to begin.
    pub fn take_records(&mut self) -> Vec<Record> {
        let mut records: Vec<Record> = self.dropped.drain(..).map(Record::Remove).collect();
        for generation in self
            .generations
            .iter_mut()
            .filter(|generation| generation.dirty)
        {
            generation.dirty = false;
            records.push(Record::Put(generation.number, encode(generation)));
        }
        records
    }

    /// Takes back one record, in the order of their numbers. `false`: it is damaged.
    pub fn load(&mut self, number: u32, record: &[u8]) -> bool {
        self.take_back(number, decode(number, record))
    }

    /// The same for a record as it was before ids were hashed; it is written anew with the next flush.
    pub fn load_plain(&mut self, number: u32, record: &[u8]) -> bool {
        self.take_back(number, decode_plain(number, record))
    }

    fn take_back(&mut self, number: u32, generation: Option<Generation>) -> bool {
        let Some(generation) = generation else {
            return false;
        };
        self.next_number = number.wrapping_add(1);
        if halyard_runtime::planted("forgotten-ids") {
            return true;
        }
        self.generations.push_back(generation);
        true
    }
}

fn age(time: Timestamp, now: Timestamp) -> i64 {
    now.as_nanos().saturating_sub(time.as_nanos())
}

/// Reads the id of an entry; what follows it.
type ReadId = fn(&[u8]) -> Option<(MessageId, &[u8])>;

fn encode(generation: &Generation) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + generation.ids.len() * (16 + HASH_BYTES));
    out.extend_from_slice(&generation.opened.as_nanos().to_le_bytes());
    out.extend_from_slice(&generation.newest.as_nanos().to_le_bytes());
    for (id, known) in &generation.ids {
        out.extend_from_slice(&known.time.as_nanos().to_le_bytes());
        out.extend_from_slice(&known.seq.to_le_bytes());
        out.extend_from_slice(&id.0);
    }
    out
}

fn decode(number: u32, record: &[u8]) -> Option<Generation> {
    fn hashed(tail: &[u8]) -> Option<(MessageId, &[u8])> {
        let (hash, tail) = tail.split_first_chunk::<HASH_BYTES>()?;
        Some((MessageId(*hash), tail))
    }
    decode_with(number, record, false, hashed)
}

/// `opened i64 | newest i64 | (time i64 | seq u64 | len u32 | id)*`
fn decode_plain(number: u32, record: &[u8]) -> Option<Generation> {
    fn plain(tail: &[u8]) -> Option<(MessageId, &[u8])> {
        let (len, tail) = tail.split_first_chunk::<4>()?;
        let (id, tail) = tail.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        Some((MessageId::of(id), tail))
    }
    decode_with(number, record, true, plain)
}

fn decode_with(number: u32, record: &[u8], dirty: bool, id: ReadId) -> Option<Generation> {
    let (opened, rest) = record.split_first_chunk::<8>()?;
    let (newest, mut rest) = rest.split_first_chunk::<8>()?;
    let mut ids = BTreeMap::new();
    while !rest.is_empty() {
        let (time, tail) = rest.split_first_chunk::<8>()?;
        let (seq, tail) = tail.split_first_chunk::<8>()?;
        let (id, tail) = id(tail)?;
        let time = Timestamp::from_nanos(i64::from_le_bytes(*time));
        let seq = u64::from_le_bytes(*seq);
        ids.insert(id, Known { time, seq });
        rest = tail;
    }
    Some(Generation {
        number,
        opened: Timestamp::from_nanos(i64::from_le_bytes(*opened)),
        newest: Timestamp::from_nanos(i64::from_le_bytes(*newest)),
        ids,
        dirty,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(nanos: i64) -> Timestamp {
        Timestamp::from_nanos(nanos)
    }

    proptest! {
        /// Against a map that forgets nothing and looks at the clock; with a restart at any step.
        #[test]
        fn agrees_with_a_naive_map(steps in prop::collection::vec((0_u8..6, 0_i64..40, any::<bool>()), 1..200)) {
            let mut dedupe = Dedupe::new(100);
            let mut naive: BTreeMap<[u8; 1], (i64, u64)> = BTreeMap::new();
            let mut store: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
            let mut now = 1_000;
            for (seq, (id, pause, restart)) in (1_u64..).zip(steps) {
                now += pause;
                let name = [id];
                let id = MessageId::of(&name);
                let expected = naive.get(&name).filter(|(time, _)| now - time <= 100).map(|(_, seq)| *seq);
                prop_assert_eq!(dedupe.find(id, at(now)), expected);
                if expected.is_none() {
                    dedupe.remember(id, seq, at(now));
                    naive.insert(name, (now, seq));
                }
                prop_assert!(dedupe.generations.len() <= 6);
                if restart {
                    for record in dedupe.take_records() {
                        match record {
                            Record::Put(number, bytes) => store.insert(number, bytes),
                            Record::Remove(number) => store.remove(&number),
                        };
                    }
                    dedupe = Dedupe::new(100);
                    for (number, record) in &store {
                        prop_assert!(dedupe.load(*number, record));
                    }
                }
            }
        }
    }

    #[test]
    fn without_a_window_nothing_is_remembered() {
        let mut dedupe = Dedupe::new(0);
        let id = MessageId::of(b"a");
        dedupe.remember(id, 1, at(1));
        assert_eq!((dedupe.find(id, at(1)), dedupe.len()), (None, 0));
    }

    #[test]
    fn damage_is_noticed() {
        let mut dedupe = Dedupe::new(100);
        dedupe.remember(MessageId::of(b"abc"), 1, at(1));
        let Some(Record::Put(number, mut bytes)) = dedupe.take_records().pop() else {
            panic!("one record")
        };
        bytes.pop();
        assert!(!Dedupe::new(100).load(number, &bytes));
    }

    #[test]
    fn records_with_ids_in_the_clear_are_read_and_written_anew() {
        let mut record = Vec::new();
        for number in [1_i64, 2] {
            record.extend_from_slice(&number.to_le_bytes());
        }
        record.extend_from_slice(&2_i64.to_le_bytes());
        record.extend_from_slice(&7_u64.to_le_bytes());
        record.extend_from_slice(&5_u32.to_le_bytes());
        record.extend_from_slice(b"plain");
        let mut dedupe = Dedupe::new(100);
        assert!(dedupe.load_plain(3, &record));
        assert_eq!(dedupe.find(MessageId::of(b"plain"), at(3)), Some(7));
        let records = dedupe.take_records();
        let [Record::Put(3, written)] = records.as_slice() else {
            panic!("{records:?}")
        };
        assert!(!written.windows(5).any(|part| part == b"plain"));
        let mut again = Dedupe::new(100);
        assert!(again.load(3, written));
        assert_eq!(again.find(MessageId::of(b"plain"), at(3)), Some(7));
        record.pop();
        assert!(!Dedupe::new(100).load_plain(3, &record));
    }
}
