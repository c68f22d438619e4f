//! A naive store: ordered maps and full scans. What the real one does must be equal to this after every step.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use halyard_engine::{
    Append, Erase, Error, FOREVER, Filter, Filters, Options, Purge, Store, StreamId, StreamState,
};
use halyard_runtime::time::Timestamp;
use proptest::prelude::*;

/// One stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naive {
    pub time: i64,
    pub expires: Option<i64>,
    pub record: Bytes,
    pub subject_len: usize,
    pub headers_len: usize,
}

impl Naive {
    pub fn subject(&self) -> &[u8] {
        &self.record[..self.subject_len]
    }

    fn size(&self, options: &Options) -> u64 {
        let headers = if self.headers_len > 0 {
            options.overhead.headers_bytes
        } else {
            0
        };
        self.record.len() as u64 + u64::from(options.overhead.message_bytes + headers)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NaiveStream {
    pub messages: BTreeMap<u64, Naive>,
    pub last_seq: u64,
    pub last_time: i64,
}

impl NaiveStream {
    pub fn first_seq(&self) -> u64 {
        self.messages
            .keys()
            .next()
            .copied()
            .unwrap_or(self.last_seq + 1)
    }

    pub fn matching(&self, filters: &Filters) -> Vec<u64> {
        let hits = self
            .messages
            .iter()
            .filter(|(_, message)| filters.matches(message.subject()));
        hits.map(|(seq, _)| *seq).collect()
    }
}

/// All streams and records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub streams: BTreeMap<u64, NaiveStream>,
    pub records: BTreeMap<Vec<u8>, Bytes>,
    pub clock: i64,
}

/// One random change.
#[derive(Clone, Debug)]
pub enum Op {
    Create {
        stream: u64,
        first: u64,
    },
    Drop {
        stream: u64,
        erase: bool,
    },
    Append {
        stream: u64,
        subject: u8,
        headers: u8,
        payload: u16,
        ttl: Option<u8>,
    },
    AppendAt {
        stream: u64,
        gap: u8,
        subject: u8,
    },
    Skip {
        stream: u64,
        count: u8,
    },
    Delete {
        stream: u64,
        at: u16,
        erase: bool,
    },
    Purge {
        stream: u64,
        filter: u8,
        below: Option<u16>,
        keep: Option<u8>,
        erase: bool,
    },
    RemoveFirst {
        stream: u64,
    },
    Put {
        key: u8,
        len: u8,
    },
    Remove {
        key: u8,
    },
}

pub const SUBJECTS: [&str; 12] = [
    "a",
    "a.b",
    "a.b.c",
    "a.c",
    "b",
    "b.x.1",
    "b.x.2",
    "b.x.3",
    "b.y.1",
    "c.long.subject.name",
    "d",
    "zz.9",
];

pub const FILTERS: [&[&str]; 12] = [
    &[],
    &[">"],
    &["a"],
    &["a.*"],
    &["a.>"],
    &["b.x.*"],
    &["b.*.1"],
    &["*"],
    &["a.>", "b.>"],
    &["a.b", "a.*", "zz.9"],
    &["nothing.here"],
    &["c.long.>", "*.x.2"],
];

pub fn filters(number: u8) -> Filters {
    let texts = FILTERS[usize::from(number) % FILTERS.len()];
    Filters::new(
        texts
            .iter()
            .map(|text| Filter::parse(text.as_bytes()).unwrap())
            .collect(),
    )
}

/// A message whose bytes tell which one it is.
pub fn message(
    model: &Model,
    stream: u64,
    subject: u8,
    headers: u8,
    payload: u16,
    ttl: Option<u8>,
) -> Naive {
    let name = SUBJECTS[usize::from(subject) % SUBJECTS.len()];
    let mut record = name.as_bytes().to_vec();
    let headers_len = usize::from(headers);
    record.extend(std::iter::repeat_n(b'h', headers_len));
    let tag = format!("<{stream}:{}>", model.clock);
    record.extend(tag.bytes().cycle().take(usize::from(payload)));
    Naive {
        time: model.clock,
        // Some live for ever.
        expires: ttl.map(|ttl| match ttl % 4 {
            0 => FOREVER.as_nanos(),
            _ => model.clock + i64::from(ttl),
        }),
        record: record.into(),
        subject_len: name.len(),
        headers_len,
    }
}

pub fn append_of(message: &Naive) -> Append {
    Append {
        record: message.record.clone(),
        subject_len: message.subject_len as u16,
        headers_len: message.headers_len as u32,
        time: Timestamp::from_nanos(message.time),
        expires: message.expires.map(Timestamp::from_nanos),
    }
}

fn erase_of(erase: bool) -> Erase {
    if erase { Erase::Yes } else { Erase::No }
}

impl Model {
    fn insert(&mut self, stream: u64, seq: u64, message: Naive) {
        let target = self.streams.get_mut(&stream).unwrap();
        target.last_seq = seq;
        target.last_time = message.time;
        target.messages.insert(seq, message);
    }

    fn pick(&self, stream: u64, at: u16) -> u64 {
        let Some(target) = self.streams.get(&stream) else {
            return 1;
        };
        let (first, last) = (target.first_seq(), target.last_seq);
        first.saturating_sub(2) + u64::from(at) % (last + 4 - first.saturating_sub(2).min(last))
    }

    fn purge(
        &mut self,
        stream: u64,
        filters: &Filters,
        below: Option<u64>,
        keep: Option<u64>,
    ) -> u64 {
        let target = self.streams.get_mut(&stream).unwrap();
        let mut hits = target.matching(filters);
        hits.retain(|seq| below.is_none_or(|below| *seq < below));
        let spare = keep.map_or(0, |keep| keep as usize);
        hits.truncate(hits.len().saturating_sub(spare));
        for seq in &hits {
            target.messages.remove(seq);
        }
        hits.len() as u64
    }

    /// Applies a change to the model and to the store, and compares what they answer.
    pub fn apply(&mut self, store: &mut Store, op: &Op) {
        self.run(store, op).unwrap();
    }

    /// The same on a damaged store: an error that the model does not know of changes neither of the two.
    pub fn try_apply(&mut self, store: &mut Store, op: &Op) -> Result<(), Error> {
        let mut next = self.clone();
        next.run(store, op)?;
        *self = next;
        Ok(())
    }

    fn run(&mut self, store: &mut Store, op: &Op) -> Result<(), Error> {
        self.clock += 1;
        let id = |stream: &u64| StreamId(*stream);
        match op {
            Op::Create { stream, first } => {
                let result = store.create_stream(id(stream), *first);
                if self.streams.contains_key(stream) {
                    assert!(matches!(result, Err(Error::StreamExists(_))));
                } else {
                    result?;
                    let last_seq = first.saturating_sub(1);
                    self.streams.insert(
                        *stream,
                        NaiveStream {
                            last_seq,
                            ..Default::default()
                        },
                    );
                }
            }
            Op::Drop { stream, erase } => {
                let result = store.drop_stream(id(stream), erase_of(*erase));
                assert_eq!(result.is_ok(), self.streams.remove(stream).is_some());
            }
            Op::Append {
                stream,
                subject,
                headers,
                payload,
                ttl,
            } => {
                let message = message(self, *stream, *subject, *headers, *payload, *ttl);
                let result = store.append(id(stream), append_of(&message));
                match self.streams.get(stream).map(|target| target.last_seq + 1) {
                    Some(seq) => {
                        assert_eq!(result?, seq);
                        self.insert(*stream, seq, message);
                    }
                    None => assert!(matches!(result, Err(Error::NoSuchStream(_)))),
                }
            }
            Op::AppendAt {
                stream,
                gap,
                subject,
            } => {
                let Some(last) = self.streams.get(stream).map(|target| target.last_seq) else {
                    return Ok(());
                };
                let message = message(self, *stream, *subject, 0, 9, None);
                assert!(
                    store
                        .append_at(id(stream), last, append_of(&message))
                        .is_err()
                );
                let seq = last + 1 + u64::from(*gap);
                store.append_at(id(stream), seq, append_of(&message))?;
                self.insert(*stream, seq, message);
            }
            Op::Skip { stream, count } => {
                let Some(target) = self.streams.get_mut(stream) else {
                    return Ok(());
                };
                target.last_seq += u64::from(*count);
                assert_eq!(store.skip(id(stream), u64::from(*count))?, target.last_seq);
            }
            Op::Delete { stream, at, erase } => {
                let seq = self.pick(*stream, *at);
                let result = store.delete(id(stream), seq, erase_of(*erase));
                match self.streams.get_mut(stream) {
                    Some(target) => {
                        assert_eq!(result?, target.messages.remove(&seq).is_some());
                    }
                    None => assert!(result.is_err()),
                }
            }
            Op::Purge {
                stream,
                filter,
                below,
                keep,
                erase,
            } => {
                if !self.streams.contains_key(stream) {
                    return Ok(());
                }
                let below = below.map(|at| self.pick(*stream, at));
                let keep = keep.map(u64::from);
                let filters = filters(*filter);
                let want = self.purge(*stream, &filters, below, keep);
                let purge = Purge {
                    filters,
                    below,
                    keep,
                };
                assert_eq!(
                    store.purge(id(stream), &purge, erase_of(*erase))?,
                    want,
                    "{purge:?}"
                );
            }
            Op::RemoveFirst { stream } => {
                let Some(target) = self.streams.get_mut(stream) else {
                    return Ok(());
                };
                let first = target.messages.pop_first().map(|(seq, _)| seq);
                assert_eq!(store.remove_first(id(stream))?, first);
            }
            Op::Put { key, len } => {
                let (key, value) = (
                    vec![b'k', key % 8],
                    Bytes::from(vec![*len; usize::from(*len)]),
                );
                store.put(&key, value.clone())?;
                self.records.insert(key, value);
            }
            Op::Remove { key } => {
                let key = vec![b'k', key % 8];
                assert_eq!(store.remove(&key)?, self.records.remove(&key).is_some());
            }
        }
        Ok(())
    }

    /// Compares everything that can be asked.
    pub fn compare(&self, store: &Store, options: &Options) {
        self.compare_part(store, options, 0, 1);
    }

    /// Compares all messages, and what can be asked by every `parts`-th filter, from the `part`-th on.
    pub fn compare_part(&self, store: &Store, options: &Options, part: u8, parts: usize) {
        let ids: Vec<_> = store.stream_ids().map(|id| id.0).collect();
        assert_eq!(ids, self.streams.keys().copied().collect::<Vec<_>>());
        let records: Vec<_> = store
            .records(b"")
            .map(|(k, v)| (k.to_vec(), v.clone()))
            .collect();
        assert_eq!(
            records,
            self.records.clone().into_iter().collect::<Vec<_>>()
        );
        for (&stream, target) in &self.streams {
            compare_stream(store, StreamId(stream), target, options, part, parts);
        }
    }
}

fn compare_state(store: &Store, id: StreamId, target: &NaiveStream, options: &Options) {
    let subjects: BTreeSet<_> = target.messages.values().map(Naive::subject).collect();
    let first_seq = target.first_seq();
    let want = StreamState {
        messages: target.messages.len() as u64,
        bytes: target
            .messages
            .values()
            .map(|message| message.size(options))
            .sum(),
        first_seq,
        first_time: Timestamp::from_nanos(target.messages.values().next().map_or(0, |m| m.time)),
        last_seq: target.last_seq,
        last_time: Timestamp::from_nanos(target.last_time),
        subjects: subjects.len() as u64,
        deleted: target.last_seq + 1 - first_seq - target.messages.len() as u64,
    };
    assert_eq!(store.state(id).unwrap(), want, "{id:?}");
    let holes: Vec<_> = (first_seq..=target.last_seq)
        .filter(|s| !target.messages.contains_key(s))
        .collect();
    assert_eq!(store.deleted(id, 0..=u64::MAX, usize::MAX), holes);
    let expiry = target
        .messages
        .iter()
        .filter_map(|(seq, m)| Some((Timestamp::from_nanos(m.expires?), *seq)))
        .filter(|(time, _)| *time != FOREVER)
        .min();
    assert_eq!(store.next_expiry(id), expiry);
    let mut ageing = target
        .messages
        .iter()
        .filter(|(_, message)| message.expires != Some(FOREVER.as_nanos()))
        .map(|(seq, _)| *seq)
        .peekable();
    for from in first_seq.saturating_sub(1)..=target.last_seq + 1 {
        while ageing.next_if(|seq| *seq < from).is_some() {}
        assert_eq!(store.first_ageing(id, from), ageing.peek().copied());
    }
}

fn compare_stream(
    store: &Store,
    id: StreamId,
    target: &NaiveStream,
    options: &Options,
    part: u8,
    parts: usize,
) {
    compare_state(store, id, target, options);
    for (seq, message) in &target.messages {
        let have = store
            .get(id, *seq)
            .unwrap()
            .unwrap_or_else(|| panic!("message {seq} of {id:?} is gone"));
        assert_eq!(
            (have.seq, &have.record, have.time.as_nanos()),
            (*seq, &message.record, message.time)
        );
        assert_eq!(have.subject(), message.subject());
        let parts = (store.subject_of(id, *seq), store.time_of(id, *seq));
        assert_eq!(parts.0.unwrap().as_deref(), Some(message.subject()));
        assert_eq!(parts.1.unwrap(), Some(have.time));
        assert_eq!(have.headers().len(), message.headers_len);
        assert_eq!(have.expires.map(Timestamp::as_nanos), message.expires);
    }
    let first = target.first_seq().saturating_sub(1);
    let step = 1 + (target.last_seq - first.min(target.last_seq)) / 8;
    for number in (part..FILTERS.len() as u8).step_by(parts) {
        let filters = filters(number);
        let hits = target.matching(&filters);
        for from in (first..=target.last_seq + 1).step_by(step as usize) {
            let next = hits.iter().find(|seq| **seq >= from).copied();
            assert_eq!(
                store.next_matching(id, &filters, from).unwrap(),
                next,
                "{filters:?} from {from}"
            );
            let last = hits.iter().rfind(|seq| **seq <= from).copied();
            assert_eq!(
                store.last_matching(id, &filters, from).unwrap(),
                last,
                "{filters:?} up to {from}"
            );
            let count = hits.iter().filter(|seq| **seq >= from).count() as u64;
            assert_eq!(
                store.count_matching(id, &filters, from).unwrap(),
                count,
                "{filters:?} from {from}"
            );
        }
        compare_subjects(store, id, target, &filters);
    }
    for from in (first..=target.last_seq + 1).step_by(step as usize) {
        assert_eq!(
            store.first_at_or_after(id, from),
            target.messages.range(from..).next().map(|m| *m.0)
        );
        let time = target
            .messages
            .range(from..)
            .next()
            .map_or(0, |(_, message)| message.time);
        let want = target
            .messages
            .iter()
            .find(|m| m.1.time >= time)
            .map_or(target.last_seq + 1, |m| *m.0);
        assert_eq!(
            store.seq_at_time(id, Timestamp::from_nanos(time)).unwrap(),
            want
        );
    }
}

fn compare_subjects(store: &Store, id: StreamId, target: &NaiveStream, filters: &Filters) {
    let mut want: BTreeMap<&[u8], (u64, u64, u64)> = BTreeMap::new();
    for (seq, message) in &target.messages {
        if filters.matches(message.subject()) {
            let entry = want.entry(message.subject()).or_insert((0, *seq, *seq));
            *entry = (entry.0 + 1, entry.1, *seq);
        }
    }
    let mut have = Vec::new();
    let mut after: Option<Bytes> = None;
    loop {
        let page = store.subjects(id, filters, after.as_deref(), 3).unwrap();
        have.extend(page.iter().cloned());
        match page.last() {
            Some(last) => after = Some(last.subject.clone()),
            None => break,
        }
    }
    let have: Vec<_> = have
        .iter()
        .map(|t| (&*t.subject, (t.messages, t.first_seq, t.last_seq)))
        .collect();
    assert_eq!(
        have,
        want.iter().map(|(k, v)| (*k, *v)).collect::<Vec<_>>(),
        "{filters:?}"
    );
    for (subject, (messages, first, last)) in want {
        let totals = store.subject_totals(id, subject).unwrap().unwrap();
        assert_eq!(
            (totals.messages, totals.first_seq, totals.last_seq),
            (messages, first, last)
        );
        assert_eq!(store.last_for_subject(id, subject), Some(last));
        assert_eq!(store.subject_messages(id, subject), messages);
    }
}

/// Random changes to three streams.
pub fn ops() -> impl Strategy<Value = Op> {
    let stream = 1u64..4;
    prop_oneof![
        2 => (stream.clone(), prop_oneof![Just(1u64), 1u64..50]).prop_map(|(stream, first)| Op::Create { stream, first }),
        1 => (stream.clone(), any::<bool>()).prop_map(|(stream, erase)| Op::Drop { stream, erase }),
        30 => (stream.clone(), any::<u8>(), prop_oneof![Just(0u8), 1u8..20], 0u16..60, prop::option::weighted(0.1, any::<u8>()))
            .prop_map(|(stream, subject, headers, payload, ttl)| Op::Append { stream, subject, headers, payload, ttl }),
        2 => (stream.clone(), 0u8..9, any::<u8>()).prop_map(|(stream, gap, subject)| Op::AppendAt { stream, gap, subject }),
        1 => (stream.clone(), 0u8..9).prop_map(|(stream, count)| Op::Skip { stream, count }),
        10 => (stream.clone(), any::<u16>(), any::<bool>()).prop_map(|(stream, at, erase)| Op::Delete { stream, at, erase }),
        3 => (stream.clone(), any::<u8>(), prop::option::of(any::<u16>()), prop::option::of(0u8..6), any::<bool>())
            .prop_map(|(stream, filter, below, keep, erase)| Op::Purge { stream, filter, below, keep, erase }),
        4 => stream.prop_map(|stream| Op::RemoveFirst { stream }),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(key, len)| Op::Put { key, len }),
        1 => any::<u8>().prop_map(|key| Op::Remove { key }),
    ]
}
