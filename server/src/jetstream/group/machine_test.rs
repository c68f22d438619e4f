//! The machine through its commands, and through restarts: what is applied twice or read back is the same.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use halyard_engine::{Options, Store, StreamId};
use halyard_raft::Machine as _;
use halyard_runtime::disk::MemDisk;
use halyard_runtime::time::Timestamp;

use super::command::{self, Kind, MessageDelete, Purge, StreamCreate, StreamUpdate};
use super::{Applied, Machine, Reply};
use crate::jetstream::config::{Defaults, Discard, StreamConfig, normalize};
use crate::jetstream::stream::machine::Fault;

pub(super) const S: StreamId = StreamId(1);
pub(super) const SECOND: i64 = 1_000_000_000;

/// A machine, the log that made it, and the disk under it.
pub(super) struct Bench {
    disk: Arc<MemDisk>,
    pub(super) machine: Machine,
    log: Vec<Bytes>,
    pub(super) now: i64,
}

/// A reply in short.
pub(super) fn tell(reply: &Reply) -> String {
    match reply {
        Reply::Stored(seq) => format!("ok {seq}"),
        Reply::Duplicate(seq) => format!("dup {seq}"),
        Reply::Refused(refusal) => format!("{} {}", refusal.err_code, refusal.description),
        other => format!("{other:?}"),
    }
}

impl Bench {
    fn new() -> Self {
        let disk = Arc::new(MemDisk::new());
        let machine = open(&disk);
        Self {
            disk,
            machine,
            log: Vec::new(),
            now: 1_000 * SECOND,
        }
    }

    pub(super) fn with(config: StreamConfig) -> Self {
        let mut bench = Self::new();
        bench.create(config);
        bench
    }

    fn create(&mut self, config: StreamConfig) {
        let config = normalize(
            StreamConfig {
                name: "S".into(),
                ..config
            },
            &Defaults::default(),
        );
        let create = StreamCreate {
            config,
            created: self.now,
        };
        assert!(matches!(
            self.cold(Kind::StreamCreate, &create),
            Reply::Done
        ));
    }

    pub(super) fn apply(&mut self, fill: impl FnOnce(&mut Vec<u8>) -> u32) -> Applied {
        let mut batch = Vec::new();
        command::start(&mut batch);
        let count = fill(&mut batch);
        command::seal(&mut batch, Timestamp::from_nanos(self.now), count);
        let entry = Bytes::from(batch);
        self.log.push(entry.clone());
        let index = self.log.len() as u64;
        self.machine.apply(
            halyard_raft::LogId {
                index,
                term: 1,
                ..Default::default()
            },
            &entry,
        )
    }

    pub(super) fn one(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Reply {
        let mut applied = self.apply(|batch| {
            fill(batch);
            1
        });
        assert_eq!(applied.replies.len(), 1);
        applied.replies.remove(0)
    }

    pub(super) fn cold<T: serde::Serialize>(&mut self, kind: Kind, body: &T) -> Reply {
        self.one(|batch| command::put(batch, kind, S, &command::encode_cold(body)))
    }

    pub(super) fn tick(&mut self) {
        assert!(matches!(
            self.one(|batch| command::put(batch, Kind::Tick, S, &[])),
            Reply::Done
        ));
    }

    pub(super) fn publish(
        &mut self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: &[u8],
    ) -> Reply {
        let mut block = Vec::new();
        if !headers.is_empty() {
            block.extend_from_slice(b"NATS/1.0\r\n");
            for (name, value) in headers {
                block.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
            }
            block.extend_from_slice(b"\r\n");
        }
        self.one(|batch| command::put_publish(batch, S, subject.as_bytes(), &block, payload))
    }

    /// `ok N`, `dup N` or the refusal's number and text.
    pub(super) fn said(
        &mut self,
        subject: &str,
        headers: &[(&str, &str)],
        payload: &[u8],
    ) -> String {
        tell(&self.publish(subject, headers, payload))
    }

    pub(super) fn flush(&mut self) {
        if let Some(job) = self.machine.begin_flush().unwrap() {
            let done = job.run();
            self.machine.store_mut().finish(done).unwrap();
        }
    }

    /// The same, whatever a replay decides.
    pub(super) fn reopen(&mut self) {
        self.machine = open(&self.disk);
        let from = self.machine.applied();
        for (index, entry) in (1_u64..).zip(&self.log).filter(|(index, _)| *index > from) {
            self.machine.apply(
                halyard_raft::LogId {
                    index,
                    term: 1,
                    ..Default::default()
                },
                entry,
            );
        }
    }

    /// The process dies; the log is replayed over what had been flushed.
    pub(super) fn restart(&mut self) {
        let before = self.machine.store().digest();
        self.reopen();
        assert_eq!(
            self.machine.store().digest(),
            before,
            "a replay decides the same"
        );
    }

    /// The one replica is done with all that was asked for.
    fn erased(&mut self) {
        let erased = command::Erased {
            node: 1,
            up_to: self.log.len() as u64,
            replicas: vec![1],
        };
        assert!(matches!(self.cold(Kind::Erased, &erased), Reply::Done));
    }

    /// The entry of the last request that the one replica is not done with.
    fn asked(&self) -> Option<u64> {
        self.machine.erasures().pending(1)
    }

    pub(super) fn sequences(&self) -> Vec<u64> {
        let mut next = 0;
        std::iter::from_fn(|| {
            let seq = self.machine.store().first_at_or_after(S, next)?;
            next = seq + 1;
            Some(seq)
        })
        .collect()
    }
}

fn open(disk: &Arc<MemDisk>) -> Machine {
    let (store, _) = Store::open(disk.clone(), Path::new("/g"), Options::default()).unwrap();
    Machine::open(store).unwrap()
}

pub(super) fn subjects(list: &[&str]) -> StreamConfig {
    StreamConfig {
        subjects: list.iter().map(ToString::to_string).collect(),
        ..StreamConfig::default()
    }
}

#[test]
fn an_entry_that_was_not_applied_to_its_end_is_not_flushed() {
    let mut bench = Bench::with(subjects(&["s.>"]));
    assert_eq!(bench.said("s.1", &[], b"x"), "ok 1");
    // As a panic in the middle leaves it.
    bench.machine.is_applying = true;
    assert!(matches!(bench.machine.fault(), Some(Fault::Panicked)));
    assert!(!bench.machine.cut().unwrap());
    assert!(bench.machine.begin_flush().is_err());
    let at = halyard_raft::LogId {
        index: 9,
        term: 1,
        ..Default::default()
    };
    bench.machine.apply(at, &Bytes::new());
    assert!(bench.machine.applied() < 9);
    assert_eq!(bench.sequences(), [1]);
}

#[test]
fn conditions_are_checked_against_the_committed_state() {
    let mut bench = Bench::with(subjects(&["s.>"]));
    let mut said = |headers: &[(&str, &str)]| bench.said("s.1", headers, b"x");
    assert_eq!(said(&[]), "ok 1");
    assert_eq!(said(&[("Nats-Msg-Id", "a")]), "ok 2");
    assert_eq!(said(&[("Nats-Msg-Id", "a")]), "dup 2");
    assert_eq!(
        said(&[("Nats-Expected-Stream", "Z")]),
        "10060 expected stream does not match"
    );
    assert_eq!(
        said(&[("Nats-Expected-Last-Sequence", "9")]),
        "10071 wrong last sequence: 2"
    );
    assert_eq!(
        said(&[("Nats-Expected-Last-Sequence", "x")]),
        "10071 wrong last sequence: 2"
    );
    assert_eq!(
        said(&[("Nats-Expected-Last-Msg-Id", "z")]),
        "10070 wrong last msg ID: a"
    );
    assert_eq!(said(&[("Nats-Expected-Last-Msg-Id", "a")]), "ok 3");
    assert_eq!(
        said(&[("Nats-Expected-Last-Subject-Sequence", "2")]),
        "10071 wrong last sequence: 3"
    );
    assert_eq!(
        said(&[("Nats-Expected-Last-Subject-Sequence", "3")]),
        "ok 4"
    );
    let missing = "10193 missing sequence for expected last sequence per subject";
    assert_eq!(
        said(&[("Nats-Expected-Last-Subject-Sequence-Subject", "s.1")]),
        missing
    );
    let zero = ("Nats-Expected-Last-Subject-Sequence", "0");
    assert_eq!(
        said(&[zero, ("Nats-Expected-Last-Subject-Sequence-Subject", "z.*")]),
        "ok 5"
    );
    assert_eq!(
        said(&[zero, ("Nats-Expected-Last-Subject-Sequence-Subject", "s.*")]),
        "10071 wrong last sequence: 5"
    );
    assert_eq!(
        said(&[("Nats-Rollup", "sub")]),
        "10111 rollup not permitted"
    );
    assert_eq!(
        said(&[("Nats-TTL", "5s")]),
        "10166 per-message TTL is disabled"
    );
    assert_eq!(
        said(&[("Nats-Incr", "5")]),
        "10168 message counters is disabled"
    );
}

#[test]
fn a_rollup_replaces_what_came_before() {
    let config = StreamConfig {
        allow_rollup_hdrs: true,
        ..subjects(&["k.>"])
    };
    let mut bench = Bench::with(config);
    for subject in ["k.a", "k.b", "k.a"] {
        bench.publish(subject, &[], b"v");
    }
    assert_eq!(bench.said("k.a", &[("Nats-Rollup", "sub")], b"v"), "ok 4");
    assert_eq!(bench.sequences(), [2, 4]);
    assert_eq!(bench.said("k.c", &[("Nats-Rollup", "all")], b"v"), "ok 5");
    assert_eq!(bench.sequences(), [5]);
    let wrong = bench.said("k.c", &[("Nats-Rollup", "some")], b"v");
    assert_eq!(wrong, "10111 rollup value invalid: \"some\"");
}

#[test]
fn what_asks_to_be_erased_is_noted_until_it_is_done() {
    let mut bench = Bench::with(StreamConfig {
        allow_rollup_hdrs: true,
        max_msgs: 3,
        ..subjects(&["s.>"])
    });
    for _ in 0..6 {
        bench.publish("s.a", &[], b"v");
    }
    let delete = |seq, erase| MessageDelete { seq, erase };
    bench.cold(Kind::MessageDelete, &delete(4, false));
    bench.cold(Kind::MessageDelete, &delete(99, true));
    bench.publish("s.b", &[("Nats-Rollup", "sub")], b"v");
    let none = Purge {
        filter: "s.none".into(),
        ..Purge::default()
    };
    bench.cold(Kind::Purge, &none);
    assert_eq!(bench.asked(), None, "nothing of that erases");

    let mut last = 0;
    for round in 0..4 {
        bench.publish("s.c", &[], b"v");
        let newest = bench.sequences().pop().unwrap();
        match round {
            0 => bench.cold(Kind::MessageDelete, &delete(newest, true)),
            1 => bench.publish("s.c", &[("Nats-Rollup", "sub")], b"v"),
            2 => bench.cold(Kind::Purge, &Purge::default()),
            _ => bench.one(|b| command::put(b, Kind::StreamDelete, S, b"ACCOUNT")),
        };
        last = bench.log.len() as u64;
        assert_eq!(bench.asked(), Some(last), "round {round}");
        bench.restart();
        bench.flush();
        bench.restart();
        assert_eq!(bench.asked(), Some(last), "round {round}");
    }
    let erasures = bench.machine.erasures();
    assert_eq!(erasures.dropped_as("ACCOUNT", "S").count(), 1);
    bench.erased();
    assert_eq!(bench.asked(), None);
    bench.flush();
    bench.restart();
    let erasures = bench.machine.erasures();
    assert_eq!((bench.asked(), erasures.waiting(1)), (None, (0, None)));
    assert!(erasures.done_by(1).up_to >= last);
}

#[test]
fn a_message_id_is_in_no_record() {
    let mut bench = Bench::with(subjects(&["s"]));
    let id = [("Nats-Msg-Id", "canary-id")];
    assert_eq!(bench.said("s", &id, b""), "ok 1");
    bench.cold(
        Kind::MessageDelete,
        &MessageDelete {
            seq: 1,
            erase: true,
        },
    );
    bench.flush();
    for (key, record) in bench.machine.store().records(b"") {
        let key = key.escape_ascii();
        assert!(!record.windows(6).any(|part| part == b"canary"), "{key}");
    }
    let wrong = [("Nats-Expected-Last-Msg-Id", "z")];
    let text = bench.said("s", &wrong, b"");
    assert_eq!(
        text, "10070 wrong last msg ID: canary-id",
        "as the peer says"
    );
    bench.restart();
    assert_eq!(bench.said("s", &id, b""), "dup 1");
    // The peer forgets it, too, when the message has gone before a restart. The condition still holds.
    assert_eq!(bench.said("s", &wrong, b""), "10070 wrong last msg ID: ");
    let right = [("Nats-Expected-Last-Msg-Id", "canary-id")];
    assert_eq!(bench.said("s", &right, b""), "ok 2");
    assert_eq!(bench.said("s", &[("Nats-Msg-Id", "kept")], b""), "ok 3");
    bench.flush();
    bench.restart();
    assert_eq!(
        bench.said("s", &wrong, b""),
        "10070 wrong last msg ID: kept"
    );
}

#[test]
fn ids_are_forgotten_after_the_window_and_not_by_a_restart() {
    let mut bench = Bench::with(StreamConfig {
        duplicate_window: 10 * SECOND,
        ..subjects(&["s"])
    });
    let id = [("Nats-Msg-Id", "a")];
    assert_eq!(bench.said("s", &id, b""), "ok 1");
    bench.flush();
    bench.restart();
    bench.now += 10 * SECOND;
    assert_eq!(bench.said("s", &id, b""), "dup 1");
    bench.restart();
    assert_eq!(bench.said("s", &id, b""), "dup 1");
    bench.now += 1;
    assert_eq!(bench.said("s", &id, b""), "ok 2");
}

#[test]
fn time_takes_what_is_too_old() {
    let config = StreamConfig {
        max_age: 10 * SECOND,
        allow_msg_ttl: true,
        ..subjects(&["s"])
    };
    let mut bench = Bench::with(config);
    bench.publish("s", &[("Nats-TTL", "never")], b"");
    bench.publish("s", &[], b"");
    bench.publish("s", &[("Nats-TTL", "2s")], b"");
    bench.now += SECOND;
    bench.publish("s", &[], b"");
    let deadline = |bench: &Bench| bench.machine.next_deadline().unwrap().as_nanos() - bench.now;
    assert_eq!(
        deadline(&bench),
        SECOND,
        "the shortest life span comes first"
    );
    bench.now += SECOND;
    bench.tick();
    assert_eq!(bench.sequences(), [1, 2, 4]);
    bench.now += 8 * SECOND;
    bench.tick();
    assert_eq!(bench.sequences(), [1, 4], "the first lives for ever");
    assert!(
        deadline(&bench) > 0,
        "a message that lives for ever is not due at once again"
    );
    bench.now += 8 * SECOND;
    bench.restart();
    bench.tick();
    assert_eq!(bench.sequences(), [1]);
    // The clock of a new leader may be behind: committed time does not go back.
    bench.now -= 100 * SECOND;
    bench.publish("s", &[], b"");
    let last = bench.machine.store().get(S, 5).unwrap().unwrap();
    assert_eq!(last.time.as_nanos(), bench.now + 100 * SECOND);
}

#[test]
fn discard_new_refuses_and_a_smaller_limit_trims() {
    let mut bench = Bench::with(StreamConfig {
        discard: Discard::New,
        max_msgs: 3,
        max_msgs_per_subject: 2,
        ..subjects(&["s.>"])
    });
    assert_eq!(bench.said("s.a", &[], b""), "ok 1");
    assert_eq!(bench.said("s.a", &[], b""), "ok 2");
    assert_eq!(bench.said("s.b", &[], b""), "ok 3");
    assert_eq!(
        bench.said("s.c", &[], b""),
        "10077 maximum messages exceeded"
    );
    assert_eq!(
        bench.said("s.a", &[], b""),
        "ok 4",
        "its own oldest makes room"
    );
    assert_eq!(bench.sequences(), [2, 3, 4]);
    let mut config = bench.machine.stream(S).unwrap().config().clone();
    config.max_msgs_per_subject = 1;
    config.discard_new_per_subject = true;
    assert!(matches!(
        bench.cold(Kind::StreamUpdate, &StreamUpdate { config }),
        Reply::Done
    ));
    assert_eq!(bench.sequences(), [3, 4]);
    assert_eq!(
        bench.said("s.a", &[], b""),
        "10077 maximum messages per subject exceeded"
    );
}

#[test]
fn deletes_purges_and_what_is_denied() {
    let mut bench = Bench::with(subjects(&["s.>"]));
    for subject in ["s.a", "s.b", "s.a", "s.b", "s.a"] {
        bench.publish(subject, &[], b"");
    }
    let delete = |seq| MessageDelete { seq, erase: true };
    assert!(matches!(
        bench.cold(Kind::MessageDelete, &delete(2)),
        Reply::Done
    ));
    assert!(
        matches!(bench.cold(Kind::MessageDelete, &delete(2)), Reply::Refused(r) if r.err_code == 10043)
    );
    assert!(
        matches!(bench.cold(Kind::MessageDelete, &delete(9)), Reply::Refused(r) if r.err_code == 10057)
    );
    let purge = Purge {
        filter: "s.a".into(),
        keep: 1,
        ..Purge::default()
    };
    assert!(matches!(bench.cold(Kind::Purge, &purge), Reply::Removed(2)));
    assert_eq!(bench.sequences(), [4, 5]);
    assert!(matches!(
        bench.cold(
            Kind::Purge,
            &Purge {
                below: 5,
                ..Purge::default()
            }
        ),
        Reply::Removed(1)
    ));
    assert!(matches!(
        bench.cold(Kind::Purge, &Purge::default()),
        Reply::Removed(1)
    ));
    let state = bench.machine.store().state(S).unwrap();
    assert_eq!((state.first_seq, state.last_seq), (6, 5));
    let mut config = bench.machine.stream(S).unwrap().config().clone();
    config.sealed = true;
    bench.cold(Kind::StreamUpdate, &StreamUpdate { config });
    assert_eq!(
        bench.said("s.a", &[], b""),
        "10109 invalid operation on sealed stream"
    );
    assert!(
        matches!(bench.cold(Kind::Purge, &Purge::default()), Reply::Refused(r) if r.err_code == 10109)
    );
}

#[test]
fn a_dropped_stream_leaves_nothing_and_bad_bytes_change_nothing() {
    let mut bench = Bench::with(subjects(&["s"]));
    bench.publish("s", &[("Nats-Msg-Id", "a")], b"");
    bench.flush();
    assert!(matches!(
        bench.one(|b| command::put(b, Kind::StreamDelete, S, &[])),
        Reply::Done
    ));
    assert!(matches!(
        bench.one(|b| command::put(b, Kind::StreamDelete, S, &[])),
        Reply::NoStream
    ));
    bench.flush();
    bench.restart();
    assert_eq!(bench.machine.streams().count(), 0);
    bench.erased();
    bench.flush();
    bench.restart();
    let records = bench.machine.store().records(b"");
    let keys: Vec<&[u8]> = records.map(|(key, _)| key).collect();
    assert_eq!(keys, [b"e", b"g"], "the group's own");
    assert!(matches!(bench.publish("s", &[], b""), Reply::NoStream));
    let before = bench.machine.store().digest();
    let garbage = bench.one(|batch| batch.extend_from_slice(&[99, 0, 0, 0, 0]));
    assert!(matches!(garbage, Reply::Unknown));
    assert_eq!(bench.machine.store().digest(), before);
}

#[test]
fn an_atomic_batch_is_stored_whole_or_not_at_all() {
    let mut bench = Bench::with(StreamConfig {
        allow_atomic: true,
        allow_rollup_hdrs: true,
        ..subjects(&["s.>"])
    });
    let member = |bench: &mut Bench, seq: &str, subject: &str, more: &[(&str, &str)]| {
        let mut headers = vec![("Nats-Batch-Id", "B"), ("Nats-Batch-Sequence", seq)];
        headers.extend_from_slice(more);
        bench.said(subject, &headers, b"x")
    };
    let commit = ("Nats-Batch-Commit", "1");
    assert_eq!(member(&mut bench, "1", "s.a", &[]), "Staged");
    bench.flush();
    bench.restart();
    assert_eq!(
        member(
            &mut bench,
            "2",
            "s.b",
            &[("Nats-Expected-Last-Subject-Sequence", "0")]
        ),
        "Staged"
    );
    assert!(bench.sequences().is_empty());
    let last = member(
        &mut bench,
        "3",
        "s.a",
        &[commit, ("Nats-Expected-Last-Sequence", "")],
    );
    assert!(last.starts_with("Batch { last: 3, count: 3"), "{last}");
    assert_eq!(bench.sequences(), [1, 2, 3]);
    // A condition of one member fails: none is stored.
    member(&mut bench, "1", "s.c", &[]);
    let wrong = member(
        &mut bench,
        "2",
        "s.b",
        &[commit, ("Nats-Expected-Last-Subject-Sequence", "7")],
    );
    assert_eq!(wrong, "10071 wrong last sequence: 2");
    assert_eq!(bench.sequences(), [1, 2, 3]);
    // A gap, a pause, and a member of nothing.
    member(&mut bench, "1", "s.c", &[]);
    assert_eq!(
        member(&mut bench, "3", "s.c", &[]),
        "10176 atomic publish batch is incomplete"
    );
    member(&mut bench, "1", "s.c", &[]);
    bench.now += 11 * SECOND;
    assert_eq!(
        member(&mut bench, "2", "s.c", &[commit]),
        "10176 atomic publish batch is incomplete"
    );
    // A first member twice, and conditions that a batch does not know: the whole batch is refused.
    member(&mut bench, "1", "s.c", &[]);
    assert_eq!(
        member(&mut bench, "1", "s.c", &[]),
        "10176 atomic publish batch is incomplete"
    );
    // What a member expects of what another one writes was not known to the publisher.
    for (name, value, refusal) in [
        (
            "Nats-Expected-Last-Subject-Sequence",
            "4",
            "10164 wrong last sequence",
        ),
        (
            "Nats-Expected-Last-Sequence",
            "4",
            "10164 wrong last sequence",
        ),
        (
            "Nats-Expected-Last-Sequence",
            "3",
            "10071 wrong last sequence: 4",
        ),
        ("Nats-Rollup", "sub", "10111 batch rollup sub invalid"),
        ("Nats-Rollup", "all", "10111 batch rollup all invalid"),
        (
            "Nats-Required-Api-Level",
            "99",
            "10185 JetStream minimum api level required",
        ),
    ] {
        assert_eq!(member(&mut bench, "1", "s.c", &[]), "Staged");
        let said = member(&mut bench, "2", "s.c", &[commit, (name, value)]);
        assert_eq!(said, refusal, "{name}");
    }
    let alone = member(&mut bench, "1", "s.c", &[("Nats-Batch-Commit", "eob")]);
    assert_eq!(alone, "10176 atomic publish batch is incomplete");
    assert_eq!(bench.sequences(), [1, 2, 3]);
    let strange = ("Nats-Expected-Last-Msg-Id", "x");
    let refused = member(&mut bench, "1", "s.c", &[strange, commit]);
    assert!(refused.starts_with("10177 "), "{refused}");
    // The end without a message of its own.
    member(&mut bench, "1", "s.d", &[]);
    let end = member(&mut bench, "2", "s.d", &[("Nats-Batch-Commit", "eob")]);
    assert!(end.starts_with("Batch { last: 4, count: 1"), "{end}");
    bench.flush();
    bench.restart();
    assert_eq!(bench.sequences(), [1, 2, 3, 4]);
    let last = bench.machine.store().get(S, 4).unwrap().unwrap();
    assert!(
        last.headers()
            .ends_with(b"1\r\nNats-Batch-Commit: 1\r\n\r\n")
    );
    assert_eq!(last.payload(), b"x");
}

/// The records of a flush are of its cut, whatever is applied before a stream has had its turn.
#[test]
fn what_changes_after_the_cut_is_of_the_next_flush() {
    let mut bench = Bench::with(subjects(&["s"]));
    bench.publish("s", &[("Nats-Msg-Id", "before")], b"");
    assert!(bench.machine.cut().unwrap());
    assert_eq!(bench.said("s", &[("Nats-Msg-Id", "after")], b""), "ok 2");
    let mut config = bench.machine.stream(S).unwrap().config().clone();
    config.description = "after".into();
    bench.cold(Kind::StreamUpdate, &StreamUpdate { config });
    while bench.machine.step(1).unwrap() {}
    let job = bench.machine.store_mut().take_job().unwrap();
    assert_eq!(bench.said("s", &[("Nats-Msg-Id", "third")], b""), "ok 3");
    bench.machine.store_mut().accept(job.run()).unwrap();
    while bench.machine.step(1).unwrap() {}
    // Of what is on the disk.
    let old = open(&bench.disk);
    assert_eq!((old.applied(), old.store().last_seq(S)), (2, 1));
    let stream = old.stream(S).unwrap();
    assert_eq!(stream.remembered_ids(), 1);
    assert_eq!(stream.config().description, "");
    bench.restart();
    assert_eq!(bench.said("s", &[("Nats-Msg-Id", "after")], b""), "dup 2");
    // A stream that is dropped before its turn is still in the flush of the cut, and then goes.
    assert!(bench.machine.cut().unwrap());
    bench.one(|batch| command::put(batch, Kind::StreamDelete, S, &[]));
    while bench.machine.step(1).unwrap() {}
    let job = bench.machine.store_mut().take_job().unwrap();
    bench.machine.store_mut().accept(job.run()).unwrap();
    assert_eq!(open(&bench.disk).stream(S).unwrap().remembered_ids(), 3);
    while bench.machine.step(1).unwrap() {}
    bench.flush();
    bench.restart();
    assert_eq!(bench.machine.streams().count(), 0);
}
