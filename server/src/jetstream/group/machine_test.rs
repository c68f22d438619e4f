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

pub(super) const S: StreamId = StreamId(1);
pub(super) const SECOND: i64 = 1_000_000_000;

/// A machine, the log that made it, and the disk under it.
pub(super) struct Bench {
    disk: Arc<MemDisk>,
    pub(super) machine: Machine,
    log: Vec<Bytes>,
    pub(super) now: i64,
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
        self.machine
            .apply(halyard_raft::Applied { index, term: 1 }, &entry)
    }

    fn one(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Reply {
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
        match self.publish(subject, headers, payload) {
            Reply::Stored(seq) => format!("ok {seq}"),
            Reply::Duplicate(seq) => format!("dup {seq}"),
            Reply::Refused(refusal) => format!("{} {}", refusal.err_code, refusal.description),
            other => format!("{other:?}"),
        }
    }

    pub(super) fn flush(&mut self) {
        if let Some(job) = self.machine.begin_flush().unwrap() {
            let done = job.run();
            self.machine.store_mut().finish(done).unwrap();
        }
    }

    /// The process dies; the log is replayed over what had been flushed.
    pub(super) fn restart(&mut self) {
        let before = self.machine.store().digest();
        self.machine = open(&self.disk);
        let from = self.machine.applied();
        for (index, entry) in (1_u64..).zip(&self.log).filter(|(index, _)| *index > from) {
            self.machine
                .apply(halyard_raft::Applied { index, term: 1 }, entry);
        }
        assert_eq!(
            self.machine.store().digest(),
            before,
            "a replay decides the same"
        );
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
    assert_eq!(
        bench
            .machine
            .store()
            .records(b"")
            .filter(|(key, _)| *key != b"g")
            .count(),
        0
    );
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
        &[commit, ("Nats-Expected-Last-Subject-Sequence", "1")],
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
<<<<<<< HEAD
=======

/// What a person would write down: every message that should be there.
#[derive(Default)]
struct Naive {
    messages: BTreeMap<u64, (u8, u64)>,
    last: u64,
}

impl Naive {
    fn publish(&mut self, config: &StreamConfig, subject: u8, size: u64) {
        self.last += 1;
        self.messages.insert(self.last, (subject, size));
        self.fit(config);
    }

    fn fit(&mut self, config: &StreamConfig) {
        if let Some(max) = StreamConfig::limit(config.max_msgs_per_subject) {
            for subject in 0..4 {
                let of: Vec<u64> = self
                    .messages
                    .iter()
                    .filter(|(_, m)| m.0 == subject)
                    .map(|(seq, _)| *seq)
                    .collect();
                let over = (of.len() as u64).saturating_sub(max);
                of.iter().take(over as usize).for_each(|seq| {
                    self.messages.remove(seq);
                });
            }
        }
        let over = |naive: &Self| {
            let bytes: u64 = naive.messages.values().map(|(_, size)| size).sum();
            StreamConfig::limit(config.max_msgs)
                .is_some_and(|max| naive.messages.len() as u64 > max)
                || StreamConfig::limit(config.max_bytes).is_some_and(|max| bytes > max)
        };
        while over(self) {
            self.messages.pop_first();
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Publish(u8, usize),
    Delete(u64),
    Purge(Option<u8>, u64, u64),
    Limits(i64, i64, i64),
    Flush,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u8..4, 0_usize..60).prop_map(|(subject, size)| Step::Publish(subject, size)),
        1 => (1_u64..40).prop_map(Step::Delete),
        1 => (prop::option::of(0_u8..4), 0_u64..30, 0_u64..4)
            .prop_map(|(subject, below, keep)| Step::Purge(subject, if keep > 0 { 0 } else { below }, keep)),
        1 => (-1_i64..8, -1_i64..400, -1_i64..4).prop_map(|(msgs, bytes, per)| Step::Limits(msgs, bytes, per)),
        1 => Just(Step::Flush),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn limits_agree_with_a_naive_stream(steps in prop::collection::vec(step(), 1..80)) {
        let mut config = normalize(
            StreamConfig { name: "S".into(), max_msgs: 10, ..subjects(&["s.*"]) },
            &Defaults::default(),
        );
        let mut bench = Bench::with(config.clone());
        let mut naive = Naive::default();
        for step in steps {
            match step {
                Step::Publish(subject, size) => {
                    let name = format!("s.{subject}");
                    bench.publish(&name, &[], &vec![b'x'; size]);
                    naive.publish(&config, subject, (name.len() + size + 30) as u64);
                }
                Step::Delete(seq) => {
                    bench.cold(Kind::MessageDelete, &MessageDelete { seq, erase: false });
                    naive.messages.remove(&seq);
                }
                Step::Purge(subject, below, keep) => {
                    let filter = subject.map_or_else(String::new, |subject| format!("s.{subject}"));
                    bench.cold(Kind::Purge, &Purge { filter, below, keep });
                    let mut hit: Vec<u64> = naive
                        .messages
                        .iter()
                        .filter(|(seq, m)| subject.is_none_or(|s| s == m.0) && (below == 0 || **seq < below))
                        .map(|(seq, _)| *seq)
                        .collect();
                    hit.truncate(hit.len().saturating_sub(keep as usize));
                    hit.iter().for_each(|seq| { naive.messages.remove(seq); });
                }
                Step::Limits(msgs, bytes, per) => {
                    config = StreamConfig { max_msgs: msgs, max_bytes: bytes, max_msgs_per_subject: per, ..config };
                    config = normalize(config, &Defaults::default());
                    bench.cold(Kind::StreamUpdate, &StreamUpdate { config: config.clone() });
                    naive.fit(&config);
                }
                Step::Flush => bench.flush(),
                Step::Restart => bench.restart(),
            }
            let expected: Vec<u64> = naive.messages.keys().copied().collect();
            prop_assert_eq!(bench.sequences(), expected);
            let state = bench.machine.store().state(S).unwrap();
            prop_assert_eq!(state.last_seq, naive.last);
            prop_assert_eq!(state.bytes, naive.messages.values().map(|(_, size)| size).sum::<u64>());
        }
    }
}

/// A body that brings messages of these sequences to `s.1`, one second apart.
fn brings(seqs: &[u64], headers: &[u8]) -> Vec<u8> {
    use crate::jetstream::stream::restore::{Message, put_message, start_messages};
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
    use crate::jetstream::stream::restore::{deleted, finish};
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

#[test]
fn what_contradicts_itself_is_not_restored() {
    use crate::jetstream::stream::restore::finish;
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
        format!("restore failed: message {} comes after message 5", u64::MAX)
    );
    assert_eq!(
        said(&finish(9, 0)),
        "restore failed: it holds 1 messages, its state says 0"
    );
    assert_eq!(
        said(&finish(u64::MAX, 1)),
        "restore failed: its last sequence is beyond any stream"
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
>>>>>>> 19bf831 (backup: streams out and in by the snapshot API)
