//! What streams hold: the limit of their group, updates that lower limits, what lost its last reader, batches that wait.

use halyard_engine::{Overhead, StreamId};

use super::Reply;
use super::command::{self, Kind, Limit, MessageDelete, Purge, StreamCreate, StreamUpdate};
use super::machine::Machine;
use super::machine_test::{Bench, S, SECOND, subjects};
use crate::jetstream::config::{Defaults, Discard, Retention, StreamConfig, normalize};
use crate::jetstream::consumer::command::{Ack, Verb};
use crate::jetstream::consumer::{AckPolicy, Action, Command, ConsumerConfig, Grant};
use crate::jetstream::limits::{BATCHES_OPEN_MAX, GROUP_BATCHES_OPEN_MAX, SWEPT_PER_ENTRY_MAX};
use crate::jetstream::stream::restore::{Message, put_message, start_messages};

const FULL: &str = "10023 insufficient resources";
const T: StreamId = StreamId(2);

fn limit(bench: &mut Bench, bytes: Option<u64>) {
    assert!(matches!(
        bench.cold(Kind::Limit, &Limit { bytes }),
        Reply::Done
    ));
}

fn update(bench: &mut Bench, config: StreamConfig) {
    let config = StreamConfig {
        name: "S".into(),
        ..config
    };
    let config = normalize(config, &Defaults::default());
    let reply = bench.cold(Kind::StreamUpdate, &StreamUpdate { config });
    assert!(matches!(reply, Reply::Done), "{reply:?}");
}

fn held(machine: &Machine) -> u64 {
    machine.held().bytes
}

/// The sum that is kept is the sum of the streams.
#[track_caller]
fn check_sums(bench: &Bench) {
    let machine = &bench.machine;
    let ids = machine.streams().map(crate::jetstream::stream::Stream::id);
    let sum: u64 = ids.map(|id| machine.store().stream_bytes(id)).sum();
    assert_eq!(held(machine), sum);
    let batches = machine.streams().map(|stream| stream.open_batches());
    assert_eq!(machine.held().batches, batches.sum::<usize>());
}

/// Bytes that a message to `s.1` with so many bytes of payload counts for.
fn size(payload: usize) -> u64 {
    Overhead::FILE.size("s.1".len() + payload, 0)
}

#[test]
fn a_group_refuses_what_comes_beyond_its_limit() {
    let mut bench = Bench::with(subjects(&["s.>"]));
    let payload = vec![b'x'; 1000];
    limit(&mut bench, Some(3 * size(1000)));
    for seq in 1..=4 {
        assert_eq!(bench.said("s.1", &[], &payload), format!("ok {seq}"));
    }
    assert_eq!(bench.said("s.1", &[], b""), FULL, "the fourth crossed it");
    check_sums(&bench);
    // Also in another stream, after a restart over the log, and over a flush.
    let config = normalize(subjects(&["t"]), &Defaults::default());
    let create = command::encode_cold(&StreamCreate { config, created: 0 });
    bench.one(|batch| command::put(batch, Kind::StreamCreate, T, &create));
    for step in 0..3 {
        let reply = bench.one(|batch| command::put_publish(batch, T, b"t", b"", b""));
        assert!(matches!(reply, Reply::Refused(_)), "{reply:?}");
        assert_eq!(bench.said("s.1", &[], b""), FULL, "{step}");
        if step == 0 {
            bench.restart();
        } else {
            bench.flush();
            bench.restart();
        }
        check_sums(&bench);
    }
    // What makes room is taken, and what is known is known.
    let delete = MessageDelete {
        seq: 1,
        erase: false,
    };
    assert!(matches!(
        bench.cold(Kind::MessageDelete, &delete),
        Reply::Done
    ));
    assert_eq!(bench.said("s.1", &[("Nats-Msg-Id", "a")], b""), "ok 5");
    assert_eq!(bench.said("s.1", &[], b""), FULL);
    assert_eq!(bench.said("s.1", &[("Nats-Msg-Id", "a")], b""), "dup 5");
    limit(&mut bench, Some(1 << 20));
    assert_eq!(bench.said("s.1", &[], b""), "ok 6");
    limit(&mut bench, None);
    bench.cold(Kind::Purge, &Purge::default());
    assert_eq!(held(&bench.machine), 0);
    limit(&mut bench, Some(0));
    assert_eq!(bench.said("s.1", &[], b""), "ok 7");
    assert_eq!(bench.said("s.1", &[], b""), FULL);
    bench.one(|batch| command::put(batch, Kind::StreamDelete, S, b""));
    check_sums(&bench);
    assert_eq!(held(&bench.machine), 0);
}

#[test]
fn a_stream_that_turns_over_goes_on_at_the_limit() {
    let bytes = 4 * size(100);
    let mut bench = Bench::with(StreamConfig {
        max_bytes: bytes as i64,
        allow_atomic: true,
        ..subjects(&["s.>"])
    });
    limit(&mut bench, Some(bytes));
    for seq in 1..=9 {
        assert_eq!(bench.said("s.1", &[], &[b'x'; 100]), format!("ok {seq}"));
    }
    assert_eq!(batch(&mut bench, "b", 3), "Batch 12 of 3");
    check_sums(&bench);
}

/// Sends a batch of so many messages; what its end was answered.
fn batch(bench: &mut Bench, id: &str, count: usize) -> String {
    for number in 1..count {
        let seq = number.to_string();
        let headers = [("Nats-Batch-Id", id), ("Nats-Batch-Sequence", &seq)];
        let said = bench.said("s.1", &headers, &[b'x'; 50]);
        assert_eq!(said, "Staged");
    }
    let seq = count.to_string();
    let headers = [
        ("Nats-Batch-Id", id),
        ("Nats-Batch-Sequence", &*seq),
        ("Nats-Batch-Commit", "1"),
    ];
    match bench.publish("s.1", &headers, &[b'x'; 50]) {
        Reply::Batch { last, count, .. } => format!("Batch {last} of {count}"),
        Reply::Refused(refusal) => format!("{} {}", refusal.err_code, refusal.description),
        other => format!("{other:?}"),
    }
}

#[test]
fn batches_and_restores_are_held_to_the_limit() {
    let mut bench = Bench::with(StreamConfig {
        allow_atomic: true,
        ..subjects(&["s.>"])
    });
    limit(&mut bench, Some(500));
    assert_eq!(batch(&mut bench, "large", 20), FULL);
    assert_eq!(held(&bench.machine), 0, "all or nothing");
    assert_eq!(batch(&mut bench, "small", 3), "Batch 3 of 3");
    assert_eq!(bench.said("s.1", &[], &[b'x'; 500]), "ok 4");
    assert_eq!(
        bench.said(
            "s.1",
            &[("Nats-Batch-Id", "none"), ("Nats-Batch-Sequence", "1")],
            b""
        ),
        FULL
    );
    let mut body = Vec::new();
    start_messages(&mut body);
    put_message(
        &mut body,
        &Message {
            seq: 9,
            time: halyard_runtime::time::Timestamp::EPOCH,
            subject_len: 3,
            headers_len: 0,
            record: b"s.1",
        },
    );
    let reply = bench.one(|batch| command::put(batch, Kind::Restore, S, &body));
    assert!(
        matches!(&reply, Reply::Refused(refusal) if refusal.err_code == 10047),
        "{reply:?}"
    );
    bench.restart();
    check_sums(&bench);
}

#[test]
fn batches_that_wait_are_counted_and_end() {
    let config = || StreamConfig {
        allow_atomic: true,
        ..subjects(&["s.>"])
    };
    let mut bench = Bench::with(config());
    let open = |bench: &mut Bench, stream: u64, id: usize| {
        let block = format!("NATS/1.0\r\nNats-Batch-Id: {id}\r\nNats-Batch-Sequence: 1\r\n\r\n");
        let reply = bench.one(|batch| {
            command::put_publish(batch, StreamId(stream), b"s.1", block.as_bytes(), b"");
        });
        match reply {
            Reply::Staged => true,
            Reply::Refused(refusal) if refusal.err_code == 10210 => false,
            other => panic!("{other:?}"),
        }
    };
    let streams = (GROUP_BATCHES_OPEN_MAX / BATCHES_OPEN_MAX) as u64;
    for stream in 2..=streams + 1 {
        let config = normalize(config(), &Defaults::default());
        let create = command::encode_cold(&StreamCreate { config, created: 0 });
        bench.one(|batch| command::put(batch, Kind::StreamCreate, StreamId(stream), &create));
    }
    for stream in 1..=streams {
        for id in 0..BATCHES_OPEN_MAX {
            assert!(open(&mut bench, stream, id));
        }
        assert!(!open(&mut bench, stream, BATCHES_OPEN_MAX));
    }
    assert!(!open(&mut bench, streams + 1, 0), "too many in all");
    check_sums(&bench);
    bench.flush();
    bench.restart();
    assert!(!open(&mut bench, streams + 1, 0));
    // Nobody goes on with them: they end by themselves.
    let due = bench.machine.next_deadline().unwrap();
    assert!(due.as_nanos() > bench.now && due.as_nanos() <= bench.now + 11 * SECOND);
    bench.now = due.as_nanos();
    bench.tick();
    assert_eq!(bench.machine.held().batches, 0);
    assert_eq!(bench.machine.next_deadline(), None);
    assert!(open(&mut bench, streams + 1, 0));
}

#[test]
fn a_stream_that_refuses_keeps_what_it_has_when_limits_are_lowered() {
    let refusing = |config: StreamConfig| StreamConfig {
        discard: Discard::New,
        ..config
    };
    let mut bench = Bench::with(refusing(subjects(&["s.>"])));
    for number in 0..10 {
        bench.said(&format!("s.{}", number % 3), &[], b"x");
    }
    let of = |messages: i64, bytes: i64| {
        refusing(StreamConfig {
            max_msgs: messages,
            max_bytes: bytes,
            ..subjects(&["s.>"])
        })
    };
    update(&mut bench, of(5, 0));
    assert_eq!(bench.sequences().len(), 10);
    assert_eq!(
        bench.said("s.1", &[], b"x"),
        "10077 maximum messages exceeded"
    );
    update(&mut bench, of(0, 100));
    assert_eq!(bench.sequences().len(), 10);
    assert_eq!(bench.said("s.1", &[], b"x"), "10077 maximum bytes exceeded");
    bench.restart();
    // A publish that takes the place of another is no reason to push more out.
    update(
        &mut bench,
        StreamConfig {
            max_msgs_per_subject: 3,
            ..of(5, 0)
        },
    );
    assert_eq!(
        bench.sequences().len(),
        9,
        "the limit of a subject always holds"
    );
    assert_eq!(bench.said("s.1", &[], b"x"), "ok 11");
    assert_eq!(bench.sequences().len(), 9);
    // One that pushes out takes what it has to.
    update(
        &mut bench,
        StreamConfig {
            max_msgs: 2,
            ..subjects(&["s.>"])
        },
    );
    assert_eq!(bench.sequences(), [10, 11]);
}

#[test]
fn a_rollup_takes_the_place_of_a_subject_that_is_full() {
    let mut bench = Bench::with(StreamConfig {
        discard: Discard::New,
        discard_new_per_subject: true,
        max_msgs_per_subject: 1,
        max_msgs: 2,
        allow_rollup_hdrs: true,
        ..subjects(&["s.>"])
    });
    let (sub, all) = (("Nats-Rollup", "sub"), ("Nats-Rollup", "all"));
    assert_eq!(bench.said("s.1", &[], b"x"), "ok 1");
    assert_eq!(bench.said("s.2", &[], b"x"), "ok 2");
    let full = "10077 maximum messages per subject exceeded";
    assert_eq!(bench.said("s.1", &[], b"x"), full);
    let purged = [sub, ("KV-Operation", "PURGE")];
    assert_eq!(bench.said("s.1", &purged, b""), "ok 3");
    assert_eq!(bench.sequences(), [2, 3]);
    assert_eq!(
        bench.said("s.3", &[sub], b""),
        "10077 maximum messages exceeded",
        "it takes nobody's place"
    );
    assert_eq!(bench.said("s.1", &[all], b""), "ok 4");
    assert_eq!(bench.sequences(), [4]);
}

#[test]
fn a_purge_ahead_of_the_stream_moves_it() {
    let mut bench = Bench::with(subjects(&["s.>"]));
    let purge = |bench: &mut Bench, filter: &str, below: u64| {
        let purge = Purge {
            filter: filter.into(),
            below,
            keep: 0,
        };
        match bench.cold(Kind::Purge, &purge) {
            Reply::Removed(removed) => removed,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(purge(&mut bench, "", 50), 0);
    assert_eq!(bench.said("s.1", &[], b""), "ok 50");
    assert_eq!(purge(&mut bench, ">", 60), 1);
    assert_eq!(bench.said("s.1", &[], b""), "ok 60");
    assert_eq!(purge(&mut bench, "s.1", 90), 1);
    assert_eq!(bench.said("s.1", &[], b""), "ok 61");
    assert_eq!(purge(&mut bench, "a..b", 0), 0);
    assert_eq!(purge(&mut bench, "", u64::MAX), 1);
    assert_eq!(bench.said("s.1", &[], b""), "ok 62", "not to the end");
    bench.restart();
}

fn consumer(bench: &mut Bench, name: &str, config: ConsumerConfig) {
    let config = serde_json::to_vec(&ConsumerConfig {
        name: name.into(),
        ack_policy: AckPolicy::Explicit,
        ack_wait: 30 * SECOND,
        ..config
    })
    .unwrap();
    let create = Command::Create {
        action: Action::CreateOrUpdate,
        name,
        config: &config,
        seen: None,
    };
    consume(bench, &create);
}

fn consume(bench: &mut Bench, command: &Command<'_>) {
    let reply = bench.one(|batch| command::put(batch, Kind::Consumer, S, &command.to_bytes()));
    assert!(
        matches!(
            &reply,
            Reply::Consumer(reply) if !matches!(reply, crate::jetstream::consumer::Reply::Refused(_))
        ),
        "{reply:?}"
    );
}

fn deliver(bench: &mut Bench, id: u32, batch: u32) {
    let grants = vec![Grant {
        batch,
        max_bytes: 0,
    }];
    consume(bench, &Command::Deliver { id, grants });
}

fn filtered(filter: &str) -> ConsumerConfig {
    ConsumerConfig {
        filter_subject: filter.into(),
        ..ConsumerConfig::default()
    }
}

fn by_interest() -> StreamConfig {
    StreamConfig {
        retention: Retention::Interest,
        ..subjects(&["s.>"])
    }
}

#[test]
fn a_stream_that_begins_to_keep_by_interest_drops_what_nobody_needs() {
    let mut bench = Bench::with(subjects(&["s.>"]));
    let publish = |bench: &mut Bench| {
        for subject in ["s.a", "s.b", "s.c", "s.a", "s.b", "s.c"] {
            bench.said(subject, &[], b"");
        }
    };
    publish(&mut bench);
    update(&mut bench, by_interest());
    assert_eq!(bench.sequences(), [0; 0], "there is no consumer");
    update(&mut bench, subjects(&["s.>"]));
    consumer(&mut bench, "A", filtered("s.a"));
    consumer(&mut bench, "B", filtered("s.b"));
    publish(&mut bench);
    deliver(&mut bench, 1, 2);
    let acks = vec![Ack {
        stream_seq: 7,
        consumer_seq: 1,
        verb: Verb::Ack,
    }];
    consume(&mut bench, &Command::Acks { id: 1, acks });
    assert_eq!(bench.sequences().len(), 6);
    update(&mut bench, by_interest());
    assert_eq!(bench.sequences(), [8, 9, 10, 11, 12], "A is done with 7");
    bench.flush();
    bench.restart();
    // Other filters, also of what was delivered and waits for an ack.
    consumer(&mut bench, "A", filtered("s.x"));
    assert_eq!(bench.sequences(), [8, 11]);
    assert_eq!(
        bench
            .machine
            .stream(S)
            .unwrap()
            .consumers()
            .find("A")
            .unwrap()
            .unacked(),
        0
    );
    consumer(&mut bench, "B", filtered("s.>"));
    assert_eq!(bench.sequences(), [8, 11], "what is gone stays so");
    consume(&mut bench, &Command::Delete { id: 2 });
    assert_eq!(bench.sequences(), [0; 0]);
    check_sums(&bench);
}

#[test]
fn what_was_given_up_goes_with_its_consumer() {
    let mut bench = Bench::with(by_interest());
    let once = ConsumerConfig {
        max_deliver: 1,
        ..ConsumerConfig::default()
    };
    consumer(&mut bench, "A", once);
    consumer(&mut bench, "B", filtered("s.>"));
    bench.said("s.a", &[], b"");
    deliver(&mut bench, 1, 1);
    bench.now += 60 * SECOND;
    bench.tick();
    consume(&mut bench, &Command::Delete { id: 2 });
    assert_eq!(bench.sequences(), [1], "A may still acknowledge it");
    consume(&mut bench, &Command::Delete { id: 1 });
    assert_eq!(bench.sequences(), [0; 0]);
}

#[test]
fn a_long_search_for_what_nobody_needs_goes_on_with_ticks() {
    let mut bench = Bench::with(by_interest());
    consumer(&mut bench, "A", ConsumerConfig::default());
    let count = 2 * SWEPT_PER_ENTRY_MAX + 10;
    bench.apply(|batch| {
        for number in 0..count {
            let subject = if number % 2 == 0 { b"s.a" } else { b"s.b" };
            command::put_publish(batch, S, subject, b"", b"");
        }
        count as u32
    });
    consumer(&mut bench, "A", filtered("s.a"));
    assert_eq!(bench.sequences().len(), count - SWEPT_PER_ENTRY_MAX / 2);
    bench.flush();
    bench.restart();
    let mut ticks = 0;
    while bench.machine.next_deadline().is_some() {
        bench.tick();
        ticks += 1;
    }
    assert_eq!((bench.sequences().len(), ticks), (count / 2, 2));
    check_sums(&bench);
}
