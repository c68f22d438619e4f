//! Counts of filters by every way there is, against a naive count; and what is remembered of them.

use std::path::Path;
use std::sync::Arc;

use halyard_runtime::disk::MemDisk;
use halyard_runtime::time::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::pending::Side;
use crate::{Append, Erase, Filter, Options, Purge, Store, StreamId};

const S: StreamId = StreamId(1);
const FILTERS: [&[&str]; 7] = [
    &["a.>"],
    &["a.*"],
    &["a.*.x"],
    &["*.1", "*.2"],
    &["a.*", "a.*.x"],
    &["a.>", "*.3"],
    &["b.*"],
];

#[derive(Debug, Clone)]
enum Op {
    Append(u8),
    Skip(u8),
    Delete(u8),
    RemoveFirst,
    Purge(u8, u8),
    Flush,
    Maintain,
    Ask(u8),
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        40 => any::<u8>().prop_map(Op::Append),
        1 => (0u8..20).prop_map(Op::Skip),
        8 => any::<u8>().prop_map(Op::Delete),
        2 => Just(Op::RemoveFirst),
        1 => any::<(u8, u8)>().prop_map(|(filter, at)| Op::Purge(filter, at)),
        2 => Just(Op::Flush),
        1 => Just(Op::Maintain),
        8 => any::<u8>().prop_map(Op::Ask),
    ]
}

fn name(number: u8) -> String {
    let token = number % 23;
    match number % 5 {
        0 => format!("b.{token}"),
        1 => format!("a.{token}.x"),
        2 => format!("a.{token}.y"),
        _ => format!("a.{token}"),
    }
}

fn filters(number: usize) -> Filters {
    let texts = FILTERS[number % FILTERS.len()];
    let parsed = texts.iter().map(|text| Filter::parse(text.as_bytes()));
    Filters::new(parsed.map(Result::unwrap).collect())
}

type Model = BTreeMap<u64, String>;

fn apply(store: &mut Store, model: &mut Model, op: &Op) {
    let last = store.last_seq(S);
    let at = |at: u8| last * u64::from(at) / 256 + 1;
    match op {
        Op::Append(number) => {
            let name = name(*number);
            let append = Append {
                record: name.clone().into(),
                subject_len: name.len() as u16,
                headers_len: 0,
                time: Timestamp::from_nanos(last as i64),
                expires: None,
            };
            model.insert(store.append(S, append).unwrap(), name);
        }
        Op::Skip(count) => drop(store.skip(S, u64::from(*count)).unwrap()),
        Op::Delete(seq) => {
            store.delete(S, at(*seq), Erase::No).unwrap();
            model.remove(&at(*seq));
        }
        Op::RemoveFirst => {
            store.remove_first(S).unwrap();
            model.pop_first();
        }
        Op::Purge(number, below) => {
            let purge = Purge {
                filters: filters(usize::from(*number)),
                below: Some(at(*below)),
                keep: None,
            };
            store.purge(S, &purge, Erase::No).unwrap();
            model.retain(|seq, name| *seq >= at(*below) || !purge.filters.matches(name.as_bytes()));
        }
        Op::Flush => {
            if let Some(job) = store.begin_flush(store.applied() + 1) {
                store.finish(job.run()).unwrap();
            }
        }
        Op::Maintain => {
            if let Some(job) = store.begin_maintenance() {
                store.finish(job.run()).unwrap();
            }
        }
        Op::Ask(from) => ask(store, model, at(*from)),
    }
}

fn ask(store: &Store, model: &Model, from: u64) {
    for number in 0..FILTERS.len() {
        let filters = filters(number);
        let matching = |(_, name): &(&u64, &String)| filters.matches(name.as_bytes());
        let want = model.range(from..).filter(matching).count() as u64;
        let have = store.count_matching(S, &filters, from).unwrap();
        assert_eq!(have, want, "{filters:?} from {from}");
        let want = model.range(from..).find(matching).map(|(seq, _)| *seq);
        let have = store.next_matching(S, &filters, from).unwrap();
        assert_eq!(have, want, "{filters:?} from {from}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn counts_are_those_of_a_scan(ops in prop::collection::vec(ops(), 1..400)) {
        let options = Options { merge_width: 3, ..Options::default() };
        let (mut store, _) = Store::open(Arc::new(MemDisk::new()), Path::new("s"), options).unwrap();
        store.create_stream(S, 1).unwrap();
        let mut model = Model::new();
        for op in &ops {
            apply(&mut store, &mut model, op);
        }
        let last = store.last_seq(S);
        for from in (0..=last + 1).step_by(3) {
            ask(&store, &model, from);
            ask_each_way(&store, &model, from);
        }
    }
}

/// By tables of either side and by rows: each must count what a look at each message does, whichever is cheaper.
fn ask_each_way(store: &Store, model: &Model, from: u64) {
    let stream = &store.streams[&S];
    let Some(from) = stream.first_at_or_after(from) else {
        return;
    };
    if from == stream.first_seq {
        return;
    }
    for number in 0..FILTERS.len() {
        let filters = filters(number);
        let matching = |(_, name): &(&u64, &String)| filters.matches(name.as_bytes());
        let want = model.range(from..).filter(matching).count() as u64;
        for side in [Side::After, Side::Before] {
            let count = |nanos_max| {
                let counted = stream.count_by_tables(&store.io, &filters, (from, side), nanos_max);
                counted.unwrap().map(|counted| counted.count)
            };
            assert_eq!(
                count(u64::MAX),
                Some(want),
                "{filters:?} {side:?} of {from}"
            );
            for nanos_max in [0, 10_000] {
                let counted = count(nanos_max);
                assert!(
                    counted.is_none_or(|count| count == want),
                    "{counted:?} and not {want}"
                );
            }
        }
        let mut fresh = Counts::default().take(&filters);
        for all in [None, Some(stream.matched(&filters))] {
            let plan = stream.plan(&mut fresh, from, all);
            let count = stream.count_by_plan(&store.io, &mut fresh, plan).unwrap();
            assert_eq!(count, want, "{filters:?} from {from} of {all:?}");
        }
    }
}

fn two_thousand() -> (Store, Model) {
    let (mut store, _) =
        Store::open(Arc::new(MemDisk::new()), Path::new("s"), Options::default()).unwrap();
    store.create_stream(S, 1).unwrap();
    let mut model = Model::new();
    for number in 0..2000u32 {
        apply(&mut store, &mut model, &Op::Append((number % 251) as u8));
    }
    (store, model)
}

/// What is counted a second time costs no reading, and a message that goes costs one bucket.
#[test]
fn counts_are_remembered() {
    let (mut store, model) = two_thousand();
    let filters = filters(4);
    let by_rows = |store: &Store| {
        let stream = &store.streams[&S];
        let mut set = stream.counts.take(&filters);
        let plan = stream.plan(&mut set, 500, None);
        let unread = plan.unread;
        let count = stream.count_by_plan(&store.io, &mut set, plan).unwrap();
        stream.counts.put(set);
        (count, unread)
    };
    let (count, unread) = by_rows(&store);
    assert_eq!(unread, 1501);
    // The buckets that the span cuts are read again.
    let (again, unread) = by_rows(&store);
    assert_eq!(again, count);
    assert!(unread < 2 * BUCKET_SEQS, "{unread}");
    let victim = *model
        .range(1000..)
        .find(|(_, name)| name.starts_with("a."))
        .unwrap()
        .0;
    store.delete(S, victim, Erase::No).unwrap();
    let is_matched = filters.matches(model[&victim].as_bytes());
    let (again, unread_now) = by_rows(&store);
    assert_eq!(unread_now, unread + BUCKET_SEQS - 1);
    assert_eq!(again, count - u64::from(is_matched));
}

/// As long as nothing dies, a count needs the rows between the last one and this, and those since.
#[test]
fn the_last_count_is_remembered() {
    let (mut store, mut model) = two_thousand();
    let filters = filters(4);
    let unread = |store: &Store, from| {
        let stream = &store.streams[&S];
        let mut set = stream.counts.take(&filters);
        let unread = stream.plan(&mut set, from, None).unread;
        stream.counts.put(set);
        unread
    };
    assert_eq!(unread(&store, 1000), 1001);
    store.count_matching(S, &filters, 1000).unwrap();
    assert_eq!(unread(&store, 1000), 0);
    assert_eq!(unread(&store, 990), 10);
    assert_eq!(unread(&store, 1003), 3);
    for number in 0..5 {
        apply(&mut store, &mut model, &Op::Append(number));
    }
    assert_eq!(unread(&store, 1003), 8);
    ask(&store, &model, 1003);
    ask(&store, &model, 990);
    // What died may have been counted: nothing of the last count holds.
    apply(&mut store, &mut model, &Op::Delete(200));
    assert!(unread(&store, 1003) > 900);
    ask(&store, &model, 1003);
}

/// Where messages die between counts, those by tables read some rows each time, until what is remembered of them does.
#[test]
fn counts_by_tables_end() {
    let (mut store, _) =
        Store::open(Arc::new(MemDisk::new()), Path::new("s"), Options::default()).unwrap();
    store.create_stream(S, 1).unwrap();
    let mut model = Model::new();
    for number in 0..4000u32 {
        apply(&mut store, &mut model, &Op::Append((number % 251) as u8));
        if number == 3000 {
            apply(&mut store, &mut model, &Op::Flush);
        }
    }
    let filters = filters(4);
    // What costs more than it may is given up, wherever that shows.
    let stream = &store.streams[&S];
    let by_tables = |nanos_max| {
        let counted = stream.count_by_tables(&store.io, &filters, (1003, Side::After), nanos_max);
        counted.unwrap().is_some()
    };
    assert_eq!([0, 10_000, u64::MAX].map(by_tables), [false, false, true]);
    let mut unread = Vec::new();
    for round in 0..30 {
        apply(&mut store, &mut model, &Op::Delete(200 + round));
        let stream = &store.streams[&S];
        let mut set = stream.counts.take(&filters);
        unread.push(stream.plan(&mut set, 1003, None).unread);
        stream.counts.put(set);
        let matching = model
            .range(1003..)
            .filter(|(_, name)| filters.matches(name.as_bytes()));
        let count = store.count_matching(S, &filters, 1003).unwrap();
        assert_eq!(count, matching.count() as u64);
    }
    assert!(
        unread[1] > 2900,
        "nothing is read ahead at first: {unread:?}"
    );
    assert!(unread[2] < unread[1] - 50, "{unread:?}");
    assert!(unread[29] < 5 * BUCKET_SEQS, "{unread:?}");
}
