//! A stream from a backup, entry by entry: what it becomes, what is refused, and a replay that decides the same.

use halyard_engine::SEQUENCE_MAX;
use halyard_runtime::time::Timestamp;

use super::Reply;
use super::command::{self, Kind};
use super::machine_test::{Bench, S, SECOND, subjects};
use crate::jetstream::config::StreamConfig;
use crate::jetstream::stream::restore::{Message, deleted, finish, put_message, start_messages};

/// A body that brings messages of these sequences to `s.1`, one second apart.
fn brings(seqs: &[u64], headers: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    start_messages(&mut body);
    let record = [b"s.1", headers, b"x"].concat();
    for seq in seqs {
        let message = Message {
            seq: *seq,
            time: Timestamp::from_nanos((900 + *seq as i64) * SECOND),
            subject_len: 3,
            headers_len: headers.len() as u32,
            record: &record,
        };
        put_message(&mut body, &message);
    }
    body
}

#[test]
fn a_restored_stream_is_as_it_was() {
    let mut bench = Bench::with(StreamConfig {
        allow_msg_ttl: true,
        max_msgs: 4,
        duplicate_window: 99 * SECOND,
        ..subjects(&["s.>"])
    });
    let put = |bench: &mut Bench, body: &[u8]| {
        bench.one(|batch| command::put(batch, Kind::Restore, S, body))
    };
    let ids = b"NATS/1.0\r\nNats-Msg-Id: a\r\nNats-TTL: 200\r\n\r\n";
    assert!(matches!(
        put(&mut bench, &brings(&[3, 4], ids)),
        Reply::Done
    ));
    assert!(matches!(
        put(&mut bench, &brings(&[7, 8, 9, 20], b"")),
        Reply::Done
    ));
    assert!(matches!(
        put(&mut bench, &deleted(&[8, 1, 99])),
        Reply::Done
    ));
    assert_eq!(
        bench.sequences(),
        [3, 4, 7, 9, 20],
        "limits wait for the end"
    );
    bench.flush();
    assert!(matches!(put(&mut bench, &finish(25, 5)), Reply::Done));
    assert_eq!(bench.sequences(), [4, 7, 9, 20]);
    bench.restart();
    let state = bench.machine.store().state(S).unwrap();
    assert_eq!(
        (state.first_seq, state.last_seq, state.deleted),
        (4, 25, 18)
    );
    let held = bench.machine.store().get(S, 4).unwrap().unwrap();
    assert_eq!(held.time.as_nanos(), 904 * SECOND);
    assert_eq!(
        held.expires.unwrap().as_nanos(),
        1104 * SECOND,
        "from its own time on"
    );
    // Message 4 is 96 seconds old: its id is remembered as if it had been published then.
    assert_eq!(bench.said("s.1", &[("Nats-Msg-Id", "a")], b"x"), "dup 4");
    bench.now += 4 * SECOND;
    assert_eq!(bench.said("s.1", &[("Nats-Msg-Id", "a")], b"x"), "ok 26");
}

/// The clock of who made the backup was ahead. Ids are forgotten in the order of their times, so one of later than now would
/// be remembered for longer than the window.
#[test]
fn an_id_from_the_future_is_not_remembered() {
    let mut bench = Bench::with(subjects(&["s.>"]));
    let body = brings(&[150], b"NATS/1.0\r\nNats-Msg-Id: a\r\n\r\n");
    let reply = bench.one(|batch| command::put(batch, Kind::Restore, S, &body));
    assert!(matches!(reply, Reply::Done));
    assert_eq!(bench.said("s.1", &[("Nats-Msg-Id", "a")], b"x"), "ok 151");
}

#[test]
fn what_contradicts_itself_is_not_restored() {
    let mut bench = Bench::with(subjects(&["s.>"]));
    let mut said = |body: &[u8]| {
        let reply = bench.one(|batch| command::put(batch, Kind::Restore, S, body));
        match reply {
            Reply::Refused(refusal) => refusal.description.into_owned(),
            other => format!("{other:?}"),
        }
    };
    assert_eq!(said(&brings(&[5], b"")), "Done");
    assert_eq!(
        said(&brings(&[5], b"")),
        "restore failed: message 5 comes after message 5"
    );
    assert_eq!(
        said(&brings(&[u64::MAX], b"")),
        format!(
            "restore failed: message {}: sequence beyond {SEQUENCE_MAX}",
            u64::MAX
        )
    );
    assert_eq!(
        said(&finish(9, 0)),
        "restore failed: it holds 1 messages, its state says 0"
    );
    assert_eq!(
        said(&finish(u64::MAX, 1)),
        format!("restore failed: its last sequence is beyond {SEQUENCE_MAX}")
    );
    let cut = brings(&[6], b"");
    assert_eq!(
        said(&cut[..cut.len() - 1]),
        "restore failed: a message of another version"
    );
    assert_eq!(
        said(&[3, 9, 9]),
        "restore failed: a consumer of another version"
    );
    assert_eq!(said(&[9]), "restore failed: a step of another version");
    assert_eq!(said(&[]), "restore failed: a step of another version");
}
