//! Age, life spans and the markers that they leave: what is stored, when, in which order, and what it costs.

use halyard_engine::{Message, StreamId};

use super::command::{self, Kind, MessageDelete, Purge, StreamUpdate};
use super::machine_test::{Bench, S, SECOND, subjects};
use crate::jetstream::config::{Defaults, Discard, StreamConfig, normalize};
use crate::jetstream::consumer::Effect;
use crate::jetstream::limits::EXPIRED_PER_TICK_MAX;

fn marked(seconds: i64) -> StreamConfig {
    StreamConfig {
        subject_delete_marker_ttl: seconds * SECOND,
        ..subjects(&["s.>"])
    }
}

fn held(bench: &Bench) -> Vec<Message> {
    let get = |seq| bench.machine.store().get(S, seq).unwrap().unwrap();
    bench.sequences().into_iter().map(get).collect()
}

/// `3 s.b marker` or `4 s.c x`.
fn shown(bench: &Bench) -> Vec<String> {
    let show = |message: Message| {
        let is_marker = message
            .headers()
            .starts_with(b"NATS/1.0\r\nNats-Marker-Reason:");
        let payload = String::from_utf8_lossy(message.payload()).into_owned();
        let subject = String::from_utf8_lossy(message.subject()).into_owned();
        let what = if is_marker { "marker".into() } else { payload };
        format!("{} {subject} {what}", message.seq)
    };
    held(bench).into_iter().map(show).collect()
}

#[test]
fn a_marker_takes_the_place_of_the_last_message() {
    let mut bench = Bench::with(marked(1));
    for (subject, ttl) in [("s.a", "1"), ("s.b", "2"), ("s.b", "1"), ("s.c", "1s")] {
        bench.publish(subject, &[("Nats-TTL", ttl)], b"x");
    }
    bench.publish("s.d", &[], b"x");
    bench.publish("s.d", &[("Nats-TTL", "1")], b"y");
    bench.now += SECOND;
    let applied = bench.apply(|batch| {
        command::put(batch, Kind::Tick, StreamId(0), &[]);
        1
    });
    // Those that were the only ones of their subject have one; the consumers are told once.
    let expected = ["2 s.b x", "5 s.d x", "7 s.a marker", "8 s.c marker"];
    assert_eq!(shown(&bench), expected);
    assert_eq!(applied.effects, [(S, Effect::Stored)]);
    let marker = bench.machine.store().get(S, 7).unwrap().unwrap();
    assert_eq!(
        marker.headers(),
        b"NATS/1.0\r\nNats-Marker-Reason: MaxAge\r\nNats-TTL: 1s\r\nNats-Rollup: sub\r\n\r\n"
    );
    assert_eq!(
        (marker.payload(), marker.time.as_nanos()),
        (&b""[..], bench.now)
    );
    // It ends by itself and leaves nothing.
    bench.now += SECOND;
    bench.restart();
    bench.tick();
    assert_eq!(shown(&bench), ["5 s.d x", "9 s.b marker"]);
    bench.now += SECOND;
    bench.tick();
    assert_eq!(shown(&bench), ["5 s.d x"]);
    assert_eq!(
        bench.machine.next_deadline(),
        None,
        "nothing is due any more"
    );
}

#[test]
fn age_leaves_markers_and_takes_them() {
    let config = StreamConfig {
        max_age: SECOND,
        ..marked(3)
    };
    let mut bench = Bench::with(config);
    for subject in ["s.3", "s.1", "s.2", "s.1"] {
        bench.publish(subject, &[], b"x");
    }
    bench.publish("s.never", &[("Nats-TTL", "never")], b"x");
    bench.publish("s.long", &[("Nats-TTL", "10s")], b"x");
    bench.flush();
    bench.now += SECOND;
    bench.tick();
    let expected = [
        "5 s.never x",
        "7 s.3 marker",
        "8 s.2 marker",
        "9 s.1 marker",
        "10 s.long marker",
    ];
    assert_eq!(shown(&bench), expected);
    bench.now += SECOND;
    bench.tick();
    assert_eq!(shown(&bench), ["5 s.never x"]);
}

#[test]
fn what_says_itself_that_it_is_the_end_gets_no_marker() {
    let mut bench = Bench::with(marked(1));
    let ttl = ("Nats-TTL", "1");
    let each = [
        ("Nats-Marker-Reason", "Purge"),
        ("KV-Operation", "PURGE"),
        ("KV-Operation", "DEL"),
        ("KV-Operation", "purge"),
        ("Nats-Marker-Reason", ""),
        ("nats-marker-reason", "x"),
        ("Nats-Rollup", "sub"),
    ];
    for (at, header) in each.into_iter().enumerate() {
        bench.publish(&format!("s.{at}"), &[ttl, header], b"");
    }
    bench.now += SECOND;
    bench.tick();
    let expected = [
        "8 s.2 marker",
        "9 s.3 marker",
        "10 s.4 marker",
        "11 s.5 marker",
        "12 s.6 marker",
    ];
    assert_eq!(shown(&bench), expected);
}

#[test]
fn a_shorter_life_than_a_markers_becomes_the_markers() {
    let mut bench = Bench::with(StreamConfig {
        subject_delete_marker_ttl: 90 * SECOND + SECOND / 2,
        ..subjects(&["s.>"])
    });
    let said = |bench: &Bench| {
        let message = held(bench).pop().unwrap();
        let life = message.expires.map(|end| end.as_nanos() - bench.now);
        (
            String::from_utf8_lossy(message.headers()).into_owned(),
            life,
        )
    };
    bench.publish(
        "s.a",
        &[("A", "1"), ("Nats-TTL", "5"), ("B", "2"), ("Nats-TTL", "9")],
        b"x",
    );
    let block = "NATS/1.0\r\nA: 1\r\nB: 2\r\nNats-TTL: 90\r\n\r\n";
    assert_eq!(said(&bench), (block.into(), Some(90 * SECOND)));
    assert_eq!(held(&bench)[0].payload(), b"x");
    bench.publish("s.b", &[("Nats-TTL", "1m30s")], b"");
    assert_eq!(said(&bench).0, "NATS/1.0\r\nNats-TTL: 1m30s\r\n\r\n");
    bench.publish("s.c", &[("Nats-TTL", "never")], b"");
    assert_eq!(said(&bench).0, "NATS/1.0\r\nNats-TTL: never\r\n\r\n");
    // With one message a subject nothing older can come to light.
    let mut bench = Bench::with(StreamConfig {
        max_msgs_per_subject: 1,
        ..marked(90)
    });
    bench.publish("s.a", &[("Nats-TTL", "5")], b"x");
    assert_eq!(said(&bench).1, Some(5 * SECOND));
    // So it is in an atomic batch.
    let mut bench = Bench::with(StreamConfig {
        allow_atomic: true,
        ..marked(90)
    });
    let member = [
        ("Nats-Batch-Id", "b"),
        ("Nats-Batch-Sequence", "1"),
        ("Nats-TTL", "2s"),
    ];
    bench.publish("s.a", &member, b"1");
    let commit = [
        ("Nats-Batch-Id", "b"),
        ("Nats-Batch-Sequence", "2"),
        ("Nats-Batch-Commit", "1"),
    ];
    bench.publish("s.b", &commit, b"2");
    let first = bench.machine.store().get(S, 1).unwrap().unwrap();
    assert!(first.headers().ends_with(b"1\r\nNats-TTL: 90\r\n\r\n"));
    assert_eq!(first.expires.unwrap().as_nanos() - bench.now, 90 * SECOND);
}

#[test]
fn refusals_come_in_the_peers_order() {
    let ttl = |value| ("Nats-TTL", value);
    let disabled = "10166 per-message TTL is disabled";
    let invalid = "10165 invalid per-message TTL";
    let mut bench = Bench::with(StreamConfig {
        max_msg_size: 100,
        allow_atomic: true,
        ..subjects(&["s"])
    });
    bench.publish("s", &[("Nats-Msg-Id", "a")], b"");
    assert_eq!(
        bench.said("s", &[ttl("bad"), ("Nats-Msg-Id", "a")], b""),
        "dup 1"
    );
    assert_eq!(
        bench.said("s", &[ttl("5"), ("Nats-Msg-Id", "a")], b""),
        disabled
    );
    assert_eq!(
        bench.said("s", &[ttl("5"), ("Nats-Rollup", "sub")], b""),
        disabled
    );
    assert_eq!(bench.said("s", &[ttl("bad")], b""), invalid);
    assert_eq!(bench.said("s", &[ttl("")], b""), "ok 2");
    let large = bench.said("s", &[ttl("5")], &[b'x'; 200]);
    assert_eq!(large, "10054 message size exceeds maximum allowed");
    let commit = [
        ("Nats-Batch-Id", "b"),
        ("Nats-Batch-Sequence", "1"),
        ("Nats-Batch-Commit", "1"),
        ttl("bad"),
    ];
    assert_eq!(bench.said("s", &commit, b""), disabled);
    let mut bench = Bench::with(StreamConfig {
        allow_msg_ttl: true,
        allow_atomic: true,
        ..subjects(&["s"])
    });
    assert_eq!(bench.said("s", &commit, b""), invalid);
    let rollup = bench.said("s", &[ttl("bad"), ("Nats-Rollup", "sub")], b"");
    assert_eq!(rollup, "10111 rollup not permitted");
    let expected = bench.said(
        "s",
        &[ttl("bad"), ("Nats-Expected-Last-Sequence", "7")],
        b"",
    );
    assert_eq!(expected, "10071 wrong last sequence: 0");
}

#[test]
fn a_full_or_sealed_stream_lets_go_without_a_marker() {
    let mut bench = Bench::with(StreamConfig {
        max_bytes: 70,
        discard: Discard::New,
        ..marked(1)
    });
    assert_eq!(bench.said("s.a", &[("Nats-TTL", "1")], b"x"), "ok 1");
    bench.now += SECOND;
    bench.tick();
    assert_eq!(shown(&bench), Vec::<String>::new());
    // Where the oldest make room, a marker that is larger than all pushes itself out.
    let mut bench = Bench::with(StreamConfig {
        max_bytes: 70,
        ..marked(1)
    });
    bench.publish("s.a", &[("Nats-TTL", "1")], b"x");
    bench.now += SECOND;
    bench.tick();
    let state = bench.machine.store().state(S).unwrap();
    assert_eq!((state.first_seq, state.last_seq), (3, 2));
    // One that counts messages has room: the marker replaces what went. The size of a message is the publishers' limit.
    let mut bench = Bench::with(StreamConfig {
        max_msgs: 1,
        max_msg_size: 30,
        discard: Discard::New,
        ..marked(1)
    });
    assert_eq!(bench.said("s.a", &[("Nats-TTL", "1")], b""), "ok 1");
    bench.now += SECOND;
    bench.tick();
    assert_eq!(shown(&bench), ["2 s.a marker"]);
    let mut bench = Bench::with(marked(1));
    bench.publish("s.a", &[("Nats-TTL", "1")], b"x");
    let sealed = StreamConfig {
        name: "S".into(),
        sealed: true,
        ..marked(1)
    };
    let config = normalize(sealed, &Defaults::default());
    bench.cold(Kind::StreamUpdate, &StreamUpdate { config });
    bench.now += SECOND;
    bench.tick();
    assert_eq!(shown(&bench), Vec::<String>::new());
}

#[test]
fn what_people_remove_leaves_no_marker() {
    let mut bench = Bench::with(marked(1));
    for subject in ["s.a", "s.b", "s.c"] {
        bench.publish(subject, &[("Nats-TTL", "1")], b"x");
    }
    bench.cold(
        Kind::MessageDelete,
        &MessageDelete {
            seq: 1,
            erase: false,
        },
    );
    let purge = Purge {
        filter: "s.b".into(),
        below: 0,
        keep: 0,
    };
    bench.cold(Kind::Purge, &purge);
    bench.publish("s.c", &[("Nats-TTL", "2"), ("Nats-Rollup", "sub")], b"y");
    bench.now += SECOND;
    bench.tick();
    assert_eq!(shown(&bench), ["4 s.c y"]);
}

#[test]
fn a_marker_is_the_last_message_for_who_asks_by_id() {
    let mut bench = Bench::with(marked(1));
    bench.publish("s.a", &[("Nats-TTL", "1"), ("Nats-Msg-Id", "one")], b"x");
    bench.now += SECOND;
    bench.tick();
    let expected = bench.said("s.a", &[("Nats-Expected-Last-Msg-Id", "one")], b"");
    assert_eq!(expected, "10070 wrong last msg ID: ");
    // The id is remembered all the same.
    assert_eq!(bench.said("s.a", &[("Nats-Msg-Id", "one")], b""), "dup 1");
}

#[test]
fn one_entry_removes_so_many_and_the_rest_is_due_at_once() {
    let config = StreamConfig {
        max_age: 10 * SECOND,
        ..marked(1)
    };
    let mut bench = Bench::with(config);
    let count = EXPIRED_PER_TICK_MAX as u32 + 10;
    bench.apply(|batch| {
        for number in 0..count {
            let subject = format!("s.{number}");
            command::put_publish(batch, S, subject.as_bytes(), b"", b"");
        }
        count
    });
    bench.flush();
    bench.now += 10 * SECOND;
    bench.restart();
    bench.tick();
    let state = bench.machine.store().state(S).unwrap();
    assert_eq!(
        state.last_seq - u64::from(count),
        EXPIRED_PER_TICK_MAX as u64
    );
    assert!(bench.machine.next_deadline().unwrap().as_nanos() <= bench.now);
    bench.tick();
    let state = bench.machine.store().state(S).unwrap();
    assert_eq!(
        (state.messages, state.last_seq),
        (count.into(), 2 * u64::from(count))
    );
    assert_eq!(
        bench.machine.next_deadline().unwrap().as_nanos(),
        bench.now + SECOND
    );
}

#[test]
fn many_that_live_for_ever_are_passed_over_in_one_step() {
    let config = StreamConfig {
        max_age: 10 * SECOND,
        allow_msg_ttl: true,
        ..subjects(&["s"])
    };
    let mut bench = Bench::with(config);
    for _ in 0..2_000 {
        bench.publish("s", &[("Nats-TTL", "never")], b"");
    }
    bench.now += SECOND;
    bench.publish("s", &[], b"");
    bench.now += 9 * SECOND;
    bench.tick();
    let due = bench.machine.next_deadline().unwrap().as_nanos();
    assert_eq!(
        due,
        bench.now + SECOND,
        "exactly when the last one is too old"
    );
    bench.flush();
    bench.restart();
    bench.now += SECOND;
    bench.tick();
    let state = bench.machine.store().state(S).unwrap();
    assert_eq!((state.messages, state.last_seq), (2_000, 2_001));
    assert_eq!(bench.machine.next_deadline(), None);
}
