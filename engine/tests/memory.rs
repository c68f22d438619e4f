//! Random operations against the naive model, without crashes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod model;

use std::path::Path;
use std::sync::Arc;

use halyard_engine::{Options, Store};
use halyard_runtime::disk::MemDisk;
use model::{Model, Op, ops};
use proptest::prelude::*;

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
