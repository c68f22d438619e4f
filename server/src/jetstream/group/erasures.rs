//! What was asked to be erased in a group, and which replica is done with it. Replicated state.
//!
//! A delete, purge or drop that erases is noted with the index of its entry. When a replica has overwritten every copy of
//! what was asked for up to some entry, it says so in an entry of its own ([`Erased`]); from then on everybody knows. Both
//! are in the log and in the store's records, so an erasure that a crash interrupted is known to be unfinished.
//!
//! Records: `e` holds the replicas, `e | stream id` one stream (postcard).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use halyard_engine::StreamId;
use halyard_runtime::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::command::Erased;
use crate::jetstream::plain;

/// Requests of one stream within this many nanoseconds share a mark.
const MARK_SPAN: i64 = 1_000_000_000;
/// Marks that one stream keeps at most; with more, the latest ones are merged.
const MARKS_MAX: usize = 64;

/// Requests that came closely one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// When the first of them was committed, nanoseconds since the Unix epoch.
    since: i64,
    /// Entry of the last of them.
    last: u64,
}

/// What was asked for in one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Entry of the last request.
    pub last: u64,
    /// When it was committed, nanoseconds since the Unix epoch.
    pub time: i64,
    /// Requests that not every replica is done with, oldest first.
    marks: VecDeque<Mark>,
    /// Set when the stream was dropped: the account and the name that it had.
    pub dropped: Option<(String, String)>,
}

impl Asked {
    /// When the oldest request that a replica is not done with was committed; `done` is up to where it is.
    #[must_use]
    pub fn since(&self, done: u64) -> Option<Timestamp> {
        let first = self.marks.iter().find(|mark| mark.last > done)?;
        Some(Timestamp::from_nanos(first.since))
    }
}

/// How far a replica is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// It is done with everything that was asked for up to this entry.
    pub up_to: u64,
    /// When that was committed, nanoseconds since the Unix epoch; 0 for never.
    pub time: i64,
}

/// What of the group outlives the process beside the streams' own records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Replicas {
    done: BTreeMap<u64, Done>,
    /// Those that must be done before a request is forgotten.
    needed: BTreeSet<u64>,
}

/// What of a flush's records changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// The replicas.
    Replicas(Vec<u8>),
    /// One stream.
    Stream(StreamId, Vec<u8>),
    /// Nothing more is to be known of a stream.
    Forgotten(StreamId),
}

/// The erasures of one group.
#[derive(Debug, Default)]
pub struct Erasures {
    streams: BTreeMap<StreamId, Asked>,
    replicas: Replicas,
    /// Entry of the last request of all streams.
    last: u64,
    dirty: BTreeSet<StreamId>,
    dirty_replicas: bool,
}

impl Erasures {
    /// Entry `index`, committed at `now`, erased messages of a stream.
    pub fn ask(&mut self, stream: StreamId, index: u64, now: Timestamp) {
        let asked = self.streams.entry(stream).or_default();
        let now = now.as_nanos();
        (asked.last, asked.time) = (index, now);
        let full = asked.marks.len() >= MARKS_MAX;
        match asked.marks.back_mut() {
            Some(mark) if full || now.saturating_sub(mark.since) < MARK_SPAN => mark.last = index,
            _ => asked.marks.push_back(Mark {
                since: now,
                last: index,
            }),
        }
        self.last = self.last.max(index);
        self.dirty.insert(stream);
    }

    /// The stream was dropped: what is left of it is known by its name until every replica is done.
    pub fn dropped(&mut self, stream: StreamId, account: &str, name: &str) {
        if let Some(asked) = self.streams.get_mut(&stream) {
            asked.dropped = Some((account.to_owned(), name.to_owned()));
            self.dirty.insert(stream);
        }
    }

    /// The stream was dropped, and nothing of it is left to erase.
    pub fn forget(&mut self, stream: StreamId) {
        if self.streams.remove(&stream).is_some() {
            self.dirty.insert(stream);
        }
    }

    /// A replica is done with something.
    pub fn done(&mut self, erased: &Erased, now: Timestamp) {
        self.replicas.needed = erased.replicas.iter().copied().collect();
        let done = self.replicas.done.entry(erased.node).or_default();
        if erased.up_to > done.up_to {
            *done = Done {
                up_to: erased.up_to,
                time: now.as_nanos(),
            };
        }
        self.dirty_replicas = true;
        let all = self.done_by_all();
        for (stream, asked) in &mut self.streams {
            let before = asked.marks.len();
            asked.marks.retain(|mark| mark.last > all);
            if asked.marks.len() != before {
                self.dirty.insert(*stream);
            }
        }
        self.streams
            .retain(|_, asked| asked.dropped.is_none() || !asked.marks.is_empty());
    }

    fn done_by_all(&self) -> u64 {
        let done = |node: &u64| self.done_by(*node).up_to;
        self.replicas.needed.iter().map(done).min().unwrap_or(0)
    }

    /// How far a replica is.
    #[must_use]
    pub fn done_by(&self, node: u64) -> Done {
        self.replicas.done.get(&node).copied().unwrap_or_default()
    }

    /// The replicas of which anything is known.
    pub fn replicas(&self) -> impl Iterator<Item = u64> + '_ {
        self.replicas.done.keys().copied()
    }

    /// Entry of the last request that `node` is not done with.
    #[must_use]
    pub fn pending(&self, node: u64) -> Option<u64> {
        (self.last > self.done_by(node).up_to).then_some(self.last)
    }

    /// Whether any replica has something left to do for a stream.
    #[must_use]
    pub fn pending_in(&self, stream: StreamId) -> bool {
        let asked = self.streams.get(&stream);
        asked.is_some_and(|asked| !asked.marks.is_empty())
    }

    /// Streams with requests that `node` is not done with, dropped ones included, and since when the oldest waits.
    #[must_use]
    pub fn waiting(&self, node: u64) -> (usize, Option<Timestamp>) {
        let done = self.done_by(node).up_to;
        let since = self.streams.values().filter_map(|asked| asked.since(done));
        since.fold((0, None), |(count, oldest), since| {
            let oldest = oldest.map_or(since, |oldest: Timestamp| oldest.min(since));
            (count + 1, Some(oldest))
        })
    }

    /// What was asked for in a stream.
    #[must_use]
    pub fn stream(&self, stream: StreamId) -> Option<&Asked> {
        self.streams.get(&stream)
    }

    /// Dropped streams of that name that a replica is not done with, oldest first.
    pub fn dropped_as<'a>(
        &'a self,
        account: &'a str,
        name: &'a str,
    ) -> impl Iterator<Item = &'a Asked> + 'a {
        self.streams.values().filter(move |asked| {
            let had = asked.dropped.as_ref();
            had.is_some_and(|(of, had)| of == account && had == name)
        })
    }

    /// What changed since the last call, for the flush that is about to begin.
    pub(super) fn take_records(&mut self) -> Vec<Record> {
        let mut records = Vec::new();
        if std::mem::take(&mut self.dirty_replicas) {
            records.push(Record::Replicas(plain::record(&self.replicas)));
        }
        for stream in std::mem::take(&mut self.dirty) {
            records.push(match self.streams.get(&stream) {
                Some(asked) => Record::Stream(stream, plain::record(asked)),
                None => Record::Forgotten(stream),
            });
        }
        records
    }

    /// Takes a record back; whether it could be read.
    pub(super) fn load(&mut self, stream: Option<StreamId>, record: &[u8]) -> bool {
        if halyard_runtime::planted("erasure-forgotten") {
            return true;
        }
        let Some(stream) = stream else {
            return postcard::from_bytes(record)
                .map(|replicas| self.replicas = replicas)
                .is_ok();
        };
        let Ok(asked) = postcard::from_bytes::<Asked>(record) else {
            return false;
        };
        self.last = self.last.max(asked.last);
        self.streams.insert(stream, asked);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: StreamId = StreamId(1);
    const T: StreamId = StreamId(2);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    fn erased(node: u64, up_to: u64, replicas: &[u64]) -> Erased {
        Erased {
            node,
            up_to,
            replicas: replicas.to_vec(),
        }
    }

    fn restarted(erasures: &mut Erasures, store: &mut BTreeMap<Option<StreamId>, Vec<u8>>) {
        for record in erasures.take_records() {
            match record {
                Record::Replicas(bytes) => store.insert(None, bytes),
                Record::Stream(stream, bytes) => store.insert(Some(stream), bytes),
                Record::Forgotten(stream) => store.remove(&Some(stream)),
            };
        }
        *erasures = Erasures::default();
        for (stream, record) in store {
            assert!(erasures.load(*stream, record));
        }
    }

    #[test]
    fn the_oldest_open_request_is_what_counts() {
        let mut erasures = Erasures::default();
        for (index, second) in [(10, 1), (11, 1), (20, 5), (30, 9)] {
            erasures.ask(S, index, at(second));
        }
        assert_eq!(erasures.pending(1), Some(30));
        assert_eq!(erasures.waiting(1), (1, Some(at(1))));
        erasures.done(&erased(1, 10, &[1]), at(10));
        assert_eq!(erasures.waiting(1), (1, Some(at(1))), "11 came with 10");
        erasures.done(&erased(1, 25, &[1]), at(11));
        assert_eq!(erasures.waiting(1), (1, Some(at(9))));
        erasures.done(&erased(1, 30, &[1]), at(12));
        assert_eq!(
            (erasures.pending(1), erasures.waiting(1)),
            (None, (0, None))
        );
        assert_eq!(erasures.stream(S).map(|asked| asked.last), Some(30));
        assert_eq!(erasures.done_by(1).up_to, 30);
        erasures.done(&erased(1, 7, &[1]), at(13));
        assert_eq!(erasures.done_by(1).up_to, 30, "it never goes back");
    }

    #[test]
    fn a_dropped_stream_is_known_until_the_last_replica_is_done() {
        let mut erasures = Erasures::default();
        erasures.ask(S, 5, at(1));
        erasures.dropped(S, "A", "ORDERS");
        erasures.done(&erased(1, 9, &[1, 2]), at(2));
        assert_eq!(erasures.pending(1), None);
        assert_eq!(erasures.pending(2), Some(5));
        assert_eq!(erasures.dropped_as("A", "ORDERS").count(), 1);
        assert_eq!(erasures.dropped_as("B", "ORDERS").count(), 0);
        erasures.done(&erased(2, 9, &[1, 2]), at(3));
        assert_eq!(erasures.dropped_as("A", "ORDERS").count(), 0);
        assert_eq!(erasures.stream(S), None);
    }

    #[test]
    fn all_of_it_survives_a_restart() {
        let (mut erasures, mut store) = (Erasures::default(), BTreeMap::new());
        erasures.ask(S, 5, at(1));
        erasures.ask(T, 6, at(2));
        restarted(&mut erasures, &mut store);
        assert_eq!(erasures.pending(1), Some(6));
        erasures.dropped(T, "A", "T");
        erasures.done(&erased(1, 5, &[1]), at(3));
        restarted(&mut erasures, &mut store);
        assert_eq!(erasures.waiting(1), (1, Some(at(2))));
        assert_eq!(
            erasures.done_by(1),
            Done {
                up_to: 5,
                time: 3_000_000_000
            }
        );
        erasures.done(&erased(1, 6, &[1]), at(4));
        restarted(&mut erasures, &mut store);
        assert_eq!(erasures.pending(1), None);
        assert_eq!(store.len(), 2, "the dropped stream's record went");
        assert!(!Erasures::default().load(None, &[9]));
    }

    #[test]
    fn many_requests_cost_little() {
        let mut erasures = Erasures::default();
        for index in 1..10_000_u64 {
            erasures.ask(S, index, at(index as i64));
        }
        let asked = erasures.stream(S).expect("asked");
        assert_eq!(asked.marks.len(), MARKS_MAX);
        assert_eq!(asked.since(0), Some(at(1)));
        assert_eq!(asked.since(9_998), Some(at(MARKS_MAX as i64)));
        assert_eq!(asked.since(9_999), None);
    }
}
