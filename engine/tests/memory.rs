//! Random operations against the naive model, without crashes.

mod model;

use std::path::Path;
use std::sync::Arc;

use halyard_engine::{Options, Store};
use halyard_runtime::disk::MemDisk;
use model::{Model, Op};
use proptest::prelude::*;

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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn store_equals_the_model(ops in prop::collection::vec(ops(), 1..160)) {
        let options = Options::default();
        let (mut store, _) = Store::open(Arc::new(MemDisk::new()), Path::new("store"), options.clone()).unwrap();
        let mut model = Model::default();
        for stream in 1..4 {
            model.apply(&mut store, &Op::Create { stream, first: 1 });
        }
        for (number, op) in ops.iter().enumerate() {
            model.apply(&mut store, op);
            if number % 16 == 0 {
                model.compare(&store, &options);
            }
        }
        model.compare(&store, &options);
    }
}
