//! A panic in the middle of one stream's command, step or flush: that stream stops, all others go on, also after restarts.

use halyard_engine::{SEQUENCE_MAX, StreamId};
use halyard_runtime::sim::plant_here;

use super::Reply;
use super::command::{self, Kind, MessageDelete, StreamCreate, encode_cold};
use super::machine_test::{Bench, S, SECOND, subjects};
use crate::jetstream::config::StreamConfig;
use crate::jetstream::consumer::command::{Ack, Action, Command, Verb};

/// A neighbour in the same group.
const T: StreamId = StreamId(2);

fn cold<T: serde::Serialize>(bench: &mut Bench, kind: Kind, id: StreamId, body: &T) -> Reply {
    bench.one(|batch| command::put(batch, kind, id, &encode_cold(body)))
}

fn create(bench: &mut Bench, id: StreamId, config: StreamConfig) -> Reply {
    let create = StreamCreate {
        config,
        created: bench.now,
    };
    cold(bench, Kind::StreamCreate, id, &create)
}

fn publish(bench: &mut Bench, id: StreamId, body: &[u8]) -> Option<u64> {
    match bench.one(|batch| command::put_publish(batch, id, b"s", b"", body)) {
        Reply::Stored(seq) => Some(seq),
        _ => None,
    }
}

fn consume(bench: &mut Bench, command: &Command<'_>) -> Reply {
    let body = command.to_bytes();
    bench.one(|batch| command::put(batch, Kind::Consumer, S, &body))
}

fn delete(bench: &mut Bench, id: StreamId) -> Reply {
    bench.one(|batch| command::put(batch, Kind::StreamDelete, id, b"$G"))
}

/// Whether something was written.
fn flush(bench: &mut Bench) -> bool {
    let Some(job) = bench.machine.begin_flush().unwrap() else {
        return false;
    };
    let done = job.run();
    let finished = bench.machine.accept(done);
    while bench.machine.step(usize::MAX).unwrap() {}
    finished.is_ok()
}

fn messages(bench: &Bench, id: StreamId) -> u64 {
    let state = bench.machine.store().state(id);
    state.map_or(0, |state| state.messages)
}

/// Two streams with a flush behind them, and messages after it; the first has a consumer and an age limit.
fn bench() -> Bench {
    let mut bench = Bench::with(StreamConfig {
        max_age: 100 * SECOND,
        ..subjects(&["s"])
    });
    assert!(matches!(
        create(&mut bench, T, subjects(&["t"])),
        Reply::Done
    ));
    let config =
        br#"{"name":"c","durable_name":"c","ack_policy":"explicit","ack_wait":30000000000}"#;
    let command = Command::Create {
        action: Action::Create,
        name: "c",
        config,
        seen: None,
    };
    assert!(matches!(consume(&mut bench, &command), Reply::Consumer(_)));
    for id in [S, T] {
        assert_eq!(publish(&mut bench, id, b"one"), Some(1));
    }
    assert!(flush(&mut bench));
    for id in [S, T] {
        assert_eq!(publish(&mut bench, id, b"two"), Some(2));
    }
    bench
}

fn is_broken(bench: &Bench) -> bool {
    assert!(
        bench.machine.fault().is_none(),
        "{:?}",
        bench.machine.fault()
    );
    let halted = bench.machine.halted();
    halted.len() == 1 && halted.get(&S).is_some_and(|halt| halt.is_broken)
}

/// What breaks the stream, with the bug planted.
fn provoke(bench: &mut Bench, bug: &str) {
    match bug {
        "panic-in-append" => assert_eq!(publish(bench, S, b"x"), None),
        "panic-in-delete" => {
            let asked = MessageDelete {
                seq: 1,
                erase: true,
            };
            let reply = cold(bench, Kind::MessageDelete, S, &asked);
            assert!(matches!(reply, Reply::Unknown), "{reply:?}");
        }
        "panic-in-consumer" => {
            let ack = Ack {
                stream_seq: 1,
                consumer_seq: 1,
                verb: Verb::Ack,
            };
            let acks = Command::Acks {
                id: 1,
                acks: vec![ack],
            };
            assert!(matches!(consume(bench, &acks), Reply::Unknown));
        }
        "panic-in-tick" => {
            bench.now += 200 * SECOND;
            bench.tick();
        }
        _ => assert!(!flush(bench)),
    }
}

const BUGS: [&str; 7] = [
    "panic-in-append",
    "panic-in-delete",
    "panic-in-consumer",
    "panic-in-tick",
    "panic-in-records",
    "panic-in-freeze",
    "panic-in-flush",
];

#[test]
fn a_panic_halts_one_stream_and_its_delete_ends_that() {
    for bug in BUGS {
        let mut bench = bench();
        let planted = plant_here(bug);
        provoke(&mut bench, bug);
        assert!(is_broken(&bench), "{bug}");
        let halt = format!("{:?}", bench.machine.halted());
        assert!(halt.contains(&format!("planted: {bug}")), "{halt}");
        // Nothing of it is taken, the neighbour is served, nothing is flushed.
        assert_eq!(publish(&mut bench, S, b"x"), None, "{bug}");
        let config = bench.machine.stream(S).unwrap().config().clone();
        let update = command::StreamUpdate { config };
        let updated = cold(&mut bench, Kind::StreamUpdate, S, &update);
        assert!(matches!(updated, Reply::Done), "{updated:?}");
        assert_eq!(publish(&mut bench, T, b"three"), Some(3), "{bug}");
        assert!(!flush(&mut bench), "{bug}");
        // The next start meets it again.
        bench.reopen();
        if !is_broken(&bench) {
            assert!(!flush(&mut bench), "{bug}");
        }
        assert!(is_broken(&bench), "{bug}");
        assert_eq!(messages(&bench, T), 3, "{bug}");
        assert_eq!(publish(&mut bench, T, b"four"), Some(4), "{bug}");
        // Gone with the stream, bug or not.
        assert!(matches!(delete(&mut bench, S), Reply::Done), "{bug}");
        assert!(bench.machine.halted().is_empty(), "{bug}");
        assert_eq!(publish(&mut bench, T, b"five"), Some(5), "{bug}");
        assert!(flush(&mut bench), "{bug}");
        while flush(&mut bench) {}
        assert_eq!(bench.machine.store().applied(), bench.machine.applied());
        drop(planted);
        bench.restart();
        assert!(bench.machine.halted().is_empty(), "{bug}");
        assert!(bench.machine.stream(S).is_none() && !bench.machine.store().has_stream(S));
        assert_eq!(messages(&bench, T), 5, "{bug}");
        for seq in 1..=5 {
            assert!(
                bench.machine.store().get(T, seq).unwrap().is_some(),
                "{bug}"
            );
        }
        assert!(
            !bench.machine.store().erasure_pending().waits_for_flush,
            "{bug}"
        );
    }
}

#[test]
fn a_mended_program_has_the_whole_stream() {
    for bug in BUGS {
        let mut bench = bench();
        let planted = plant_here(bug);
        provoke(&mut bench, bug);
        assert_eq!(publish(&mut bench, S, b"late"), None, "{bug}");
        drop(planted);
        bench.reopen();
        assert!(bench.machine.halted().is_empty(), "{bug}");
        let expected = match bug {
            "panic-in-append" => 4,
            "panic-in-delete" => 2,
            // All but the last are too old.
            "panic-in-tick" => 1,
            _ => 3,
        };
        assert_eq!(messages(&bench, S), expected, "{bug}");
        assert!(flush(&mut bench));
        bench.restart();
        assert_eq!(messages(&bench, S), expected, "{bug}");
    }
}

#[test]
fn a_flush_that_is_half_prepared_waits_until_the_broken_stream_is_gone() {
    let mut bench = bench();
    // The cut is made, and the stream breaks before its turn.
    assert!(bench.machine.cut().unwrap());
    let planted = plant_here("panic-in-append");
    assert_eq!(publish(&mut bench, S, b"x"), None);
    assert!(is_broken(&bench));
    while bench.machine.step(1).unwrap() {}
    assert!(bench.machine.store_mut().take_job().is_none());
    assert!(!bench.machine.cut().unwrap());
    assert_eq!(publish(&mut bench, T, b"three"), Some(3));
    assert!(matches!(delete(&mut bench, S), Reply::Done));
    while flush(&mut bench) {}
    assert_eq!(bench.machine.store().applied(), bench.machine.applied());
    bench.restart();
    drop(planted);
    assert_eq!(messages(&bench, T), 3);
}

#[test]
fn the_digest_does_not_tell_when_there_was_a_flush() {
    let digest = |flushes: bool| {
        let mut bench = bench();
        if flushes {
            assert!(flush(&mut bench));
        }
        assert!(matches!(delete(&mut bench, S), Reply::Done));
        bench.machine.store().digest()
    };
    assert_eq!(digest(false), digest(true));
}

#[test]
fn a_log_with_sequences_beyond_the_end_starts() {
    let mut bench = Bench::with(subjects(&["s"]));
    assert!(matches!(delete(&mut bench, S), Reply::Done));
    assert!(matches!(
        create(&mut bench, T, subjects(&["t"])),
        Reply::Done
    ));
    // As versions wrote it that had no bound at the door.
    let config = StreamConfig {
        name: "M".into(),
        first_seq: u64::MAX,
        ..subjects(&["m"])
    };
    assert!(matches!(create(&mut bench, S, config), Reply::Done));
    for _ in 0..2 {
        assert_eq!(publish(&mut bench, S, b"x"), None);
        assert!(publish(&mut bench, T, b"x").is_some());
    }
    for _ in 0..2 {
        assert!(is_broken(&bench));
        assert!(bench.machine.halted()[&S].damage.contains("beyond"));
        assert!(bench.machine.store().state(S).is_ok());
        bench.reopen();
        assert_eq!(messages(&bench, T), 2);
    }
    assert!(matches!(delete(&mut bench, S), Reply::Done));
    assert!(flush(&mut bench));
    bench.restart();
    assert_eq!(messages(&bench, T), 2);
}

#[test]
fn the_last_sequence_is_an_end_and_no_fault() {
    let mut bench = Bench::with(StreamConfig {
        first_seq: SEQUENCE_MAX,
        allow_atomic: true,
        ..subjects(&["s"])
    });
    let member = |commit: &'static str| {
        let mut headers = vec![("Nats-Batch-Id", "b"), ("Nats-Batch-Sequence", "1")];
        if !commit.is_empty() {
            headers[1].1 = "2";
            headers.push(("Nats-Batch-Commit", commit));
        }
        headers
    };
    assert_eq!(bench.said("s", &member(""), b"x"), "Staged");
    let refused = bench.said("s", &member("1"), b"x");
    assert!(refused.starts_with("10077 "), "{refused}");
    assert_eq!(bench.said("s", &[], b"x"), format!("ok {SEQUENCE_MAX}"));
    let refused = bench.said("s", &[], b"x");
    assert!(refused.starts_with("10077 sequence is above"), "{refused}");
    let config = br#"{"name":"c","durable_name":"c","ack_policy":"all","deliver_policy":"new"}"#;
    let command = Command::Create {
        action: Action::Create,
        name: "c",
        config,
        seen: None,
    };
    assert!(matches!(consume(&mut bench, &command), Reply::Consumer(_)));
    assert!(flush(&mut bench));
    bench.restart();
    assert!(bench.machine.halted().is_empty());
    assert_eq!(messages(&bench, S), 1);
}
