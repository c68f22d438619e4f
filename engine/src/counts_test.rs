use std::path::Path;
use std::sync::Arc;

use halyard_runtime::disk::MemDisk;
use halyard_runtime::time::Timestamp;
use proptest::prelude::*;

use super::*;
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
        }
    }
}

/// What is counted a second time costs no reading, and a message that goes costs one bucket.
#[test]
fn counts_are_remembered() {
    let (mut store, _) =
        Store::open(Arc::new(MemDisk::new()), Path::new("s"), Options::default()).unwrap();
    store.create_stream(S, 1).unwrap();
    let mut model = Model::new();
    for number in 0..2000u32 {
        apply(&mut store, &mut model, &Op::Append((number % 251) as u8));
    }
    let filters = filters(4);
    let stream = &store.streams[&S];
    let count = stream
        .count_by_spans(&store.io, &filters, 500, None)
        .unwrap();
    let set = stream.counts.take(&filters);
    let after = Span {
        from: 501,
        to: 1990,
    };
    assert!(stream.unread(&set, after) <= 2 * GROUP_SEQS);
    stream.counts.put(set);
    let victim = *model
        .range(1000..)
        .find(|(_, name)| name.starts_with("a."))
        .unwrap()
        .0;
    store.delete(S, victim, Erase::No).unwrap();
    let stream = &store.streams[&S];
    let set = stream.counts.take(&filters);
    let group = Span::of_group(victim / GROUP_SEQS);
    assert_eq!(stream.unread(&set, group), GROUP_SEQS - 1);
    stream.counts.put(set);
    let is_matched = filters.matches(model[&victim].as_bytes());
    let again = stream
        .count_by_spans(&store.io, &filters, 500, None)
        .unwrap();
    assert_eq!(again, count - u64::from(is_matched));
}
