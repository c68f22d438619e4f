//! One stream of the store against an ordered map: appends, deletes, purges, flushes, merges, restarts in any order.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot go on without ends it"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bolero::TypeGenerator;
use bytes::Bytes;
use halyard_engine::{Append, Erase, Filter, Filters, Options, Purge, Store, StreamId, Timestamp};
use halyard_runtime::disk::{Disk, MemDisk};

const STREAM: StreamId = StreamId(1);
const FILTERS: [&str; 6] = [">", "a.*", "a.b", "a.>", "*.c", "none"];
const SUBJECTS: [&str; 5] = ["a", "a.b", "a.c", "b.c", "a.b.c"];

#[derive(Clone, Debug, TypeGenerator)]
enum Op {
    Append {
        subject: u8,
        payload: u8,
    },
    Skip(u8),
    Delete(u8),
    Purge {
        filter: u8,
        below: Option<u8>,
        keep: Option<u8>,
    },
    Flush,
    Maintain,
    /// Everything after the last flush is lost, as without a log.
    Restart,
}

type Model = (BTreeMap<u64, (&'static str, Bytes)>, u64);

fn open(disk: &Arc<dyn Disk>) -> Store {
    let options = Options {
        reserve_bytes: 0,
        merge_width: 2,
        ..Options::default()
    };
    Store::open(disk.clone(), Path::new("store"), options)
        .unwrap()
        .0
}

fn filters(number: u8) -> Filters {
    Filters::from(Filter::parse(FILTERS[usize::from(number) % FILTERS.len()].as_bytes()).unwrap())
}

fn apply(store: &mut Store, (messages, last): &mut Model, op: &Op) {
    match op {
        Op::Append { subject, payload } => {
            let subject = SUBJECTS[usize::from(*subject) % SUBJECTS.len()];
            let record =
                Bytes::from([subject.as_bytes(), &vec![*payload; usize::from(*payload)]].concat());
            *last += 1;
            messages.insert(*last, (subject, record.clone()));
            let time = Timestamp::from_nanos(*last as i64);
            let subject_len = subject.len() as u16;
            let append = Append {
                record,
                subject_len,
                headers_len: 0,
                time,
                expires: None,
            };
            assert_eq!(store.append(STREAM, append).unwrap(), *last);
        }
        Op::Skip(count) => {
            *last += u64::from(*count);
            assert_eq!(store.skip(STREAM, u64::from(*count)).unwrap(), *last);
        }
        Op::Delete(seq) => {
            let seq = u64::from(*seq);
            assert_eq!(
                store.delete(STREAM, seq, Erase::Yes).unwrap(),
                messages.remove(&seq).is_some()
            );
        }
        Op::Purge {
            filter,
            below,
            keep,
        } => {
            let (filters, below, keep) =
                (filters(*filter), below.map(u64::from), keep.map(u64::from));
            let mut gone: Vec<u64> = messages
                .iter()
                .filter(|(seq, message)| {
                    filters.matches(message.0.as_bytes()) && below.is_none_or(|below| **seq < below)
                })
                .map(|(seq, _)| *seq)
                .collect();
            gone.truncate(gone.len().saturating_sub(keep.unwrap_or(0) as usize));
            gone.iter().for_each(|seq| drop(messages.remove(seq)));
            let purge = Purge {
                filters,
                below,
                keep,
            };
            assert_eq!(
                store.purge(STREAM, &purge, Erase::No).unwrap(),
                gone.len() as u64
            );
        }
        Op::Flush | Op::Maintain | Op::Restart => {}
    }
}

fn compare(store: &Store, (messages, last): &Model) {
    let state = store.state(STREAM).unwrap();
    assert_eq!(
        (state.messages, state.last_seq),
        (messages.len() as u64, *last)
    );
    for (seq, (_, record)) in messages {
        assert_eq!(&store.get(STREAM, *seq).unwrap().unwrap().record, record);
    }
    for number in 0..FILTERS.len() as u8 {
        let filters = filters(number);
        let hits: Vec<u64> = messages
            .iter()
            .filter(|(_, message)| filters.matches(message.0.as_bytes()))
            .map(|(seq, _)| *seq)
            .collect();
        for from in [0, *last / 3, *last / 2, *last] {
            let after = hits.iter().filter(|seq| **seq >= from);
            assert_eq!(
                store.next_matching(STREAM, &filters, from).unwrap(),
                after.clone().next().copied()
            );
            assert_eq!(
                store.count_matching(STREAM, &filters, from).unwrap(),
                after.count() as u64
            );
        }
    }
    store.check().unwrap();
}

#[test]
fn store_equals_the_model() {
    bolero::check!().with_type::<Vec<Op>>().for_each(|ops| {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let mut store = open(&disk);
        let mut model: Model = Model::default();
        store.create_stream(STREAM, 1).unwrap();
        let job = store.begin_flush(1).unwrap();
        store.finish(job.run()).unwrap();
        let mut durable = model.clone();
        for (number, op) in ops.iter().enumerate() {
            match op {
                Op::Flush => {
                    if let Some(job) = store.begin_flush(number as u64 + 2) {
                        store.finish(job.run()).unwrap();
                        durable = model.clone();
                    }
                }
                Op::Maintain => {
                    if let Some(job) = store.begin_maintenance() {
                        store.finish(job.run()).unwrap();
                    }
                }
                Op::Restart => {
                    store = open(&disk);
                    model = durable.clone();
                    compare(&store, &model);
                }
                change => apply(&mut store, &mut model, change),
            }
        }
        compare(&store, &model);
    });
}
