//! The digest of a group's state: the same wherever the same entries were applied, and another where one record differs.

use halyard_engine::StreamId;

use super::command::{self, Erased, Kind, Limit};
use super::machine_test::Bench;
use crate::jetstream::config::StreamConfig;

const SECOND: i64 = 1_000_000_000;

fn bench() -> Bench {
    Bench::with(StreamConfig {
        subjects: vec!["a.>".into()],
        duplicate_window: 10 * SECOND,
        allow_atomic: true,
        ..StreamConfig::default()
    })
}

fn digest(bench: &mut Bench) -> u64 {
    let digest = bench.machine.digest().unwrap();
    digest.expect("nothing is in the way")
}

fn step(bench: &mut Bench, number: u64) {
    let id = format!("id-{number}");
    bench.now += SECOND;
    match number % 5 {
        0 => drop(bench.publish("a.b", &[("Nats-Msg-Id", &id)], b"x")),
        1 => drop(bench.publish("a.c", &[], b"y")),
        2 => drop(bench.cold(
            Kind::Limit,
            &Limit {
                bytes: Some(1 << 30),
            },
        )),
        3 => bench.tick(),
        _ => {
            let erased = Erased {
                node: 7,
                up_to: number,
                replicas: vec![7],
            };
            bench.cold(Kind::Erased, &erased);
        }
    }
}

#[test]
fn it_does_not_tell_how_often_there_was_a_flush() {
    let (mut often, mut once, mut never) = (bench(), bench(), bench());
    for number in 0..60 {
        for each in [&mut often, &mut once, &mut never] {
            step(each, number);
        }
        often.flush();
        if number == 30 {
            once.flush();
            once.reopen();
        }
        if number % 13 == 0 {
            assert_eq!(digest(&mut often), digest(&mut once), "after {number}");
        }
    }
    let expected = digest(&mut never);
    assert_eq!(digest(&mut often), expected);
    assert_eq!(digest(&mut once), expected);
    often.flush();
    often.reopen();
    assert_eq!(digest(&mut often), expected, "after a restart");
}

/// Each of these changes a record, and no message.
#[test]
fn one_record_that_differs_is_enough() {
    let changes: [fn(&mut Bench); 3] = [
        |bench| drop(bench.cold(Kind::Limit, &Limit { bytes: Some(99) })),
        |bench| {
            let erased = Erased {
                node: 8,
                up_to: 1,
                replicas: vec![7, 8],
            };
            bench.cold(Kind::Erased, &erased);
        },
        |bench| {
            let batch = [("Nats-Batch-Id", "b"), ("Nats-Batch-Sequence", "1")];
            bench.publish("a.b", &batch, b"it waits for the rest");
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let (mut one, mut other) = (bench(), bench());
        for number in 0..10 {
            step(&mut one, number);
            step(&mut other, number);
        }
        assert_eq!(digest(&mut one), digest(&mut other));
        let store = one.machine.store().digest();
        change(&mut one);
        // The same entry index and time, and nothing else.
        let tick = |batch: &mut Vec<u8>| command::put(batch, Kind::Tick, StreamId(1), &[]);
        other.one(tick);
        assert_eq!(one.machine.store().digest(), store, "{number}: no message");
        assert_ne!(digest(&mut one), digest(&mut other), "change {number}");
    }
}
