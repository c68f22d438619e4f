//! Damage met while applying: the stream that has it halts, and nothing else.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot go on without ends it"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use halyard_engine::{Error, Options, Store, StreamId};
use halyard_raft::Machine as _;
use halyard_runtime::disk::{Disk, MemDisk, OpenMode};
use halyard_runtime::time::Timestamp;

use halyard_server::jetstream::config::{Defaults, StreamConfig, normalize};
use halyard_server::jetstream::group::command::{self, Kind, MessageDelete, Purge, StreamCreate};
use halyard_server::jetstream::group::{Machine, Reply};

const DAMAGED: StreamId = StreamId(1);
const SOUND: StreamId = StreamId(2);
const DIR: &str = "group";
const SECOND: i64 = 1_000_000_000;

struct Bench {
    disk: Arc<MemDisk>,
    machine: Machine,
    log: Vec<Bytes>,
}

fn open(disk: &Arc<MemDisk>) -> Machine {
    let options = Options {
        reserve_bytes: 0,
        ..Options::default()
    };
    let (store, _) = Store::open(disk.clone(), Path::new(DIR), options).unwrap();
    Machine::open(store).unwrap()
}

impl Bench {
    /// Two streams of 40 messages in one segment, and two more in memory. The page of the first stream is then damaged
    /// where its rows are, so that no message of it can be told apart, and the process starts again.
    fn new(config: &StreamConfig) -> Self {
        let disk = Arc::new(MemDisk::new());
        let machine = open(&disk);
        let log = Vec::new();
        let mut bench = Self { disk, machine, log };
        for (id, name) in [(DAMAGED, "A"), (SOUND, "B")] {
            let config = StreamConfig {
                name: name.into(),
                ..config.clone()
            };
            let create = StreamCreate {
                config: normalize(config, &Defaults::default()),
                created: SECOND,
            };
            assert!(matches!(
                bench.cold(Kind::StreamCreate, id, &create),
                Reply::Done
            ));
        }
        for _ in 0..40 {
            assert!(matches!(bench.publish(DAMAGED), Reply::Stored(_)));
            assert!(matches!(bench.publish(SOUND), Reply::Stored(_)));
        }
        let job = bench.machine.begin_flush().unwrap().unwrap();
        bench.machine.store_mut().finish(job.run()).unwrap();
        for _ in 0..2 {
            assert!(matches!(bench.publish(DAMAGED), Reply::Stored(_)));
        }
        bench.flip();
        bench.restart();
        bench
    }

    /// Damages the first block of the segment, or mends it again.
    fn flip(&self) {
        let entries = self.disk.list(Path::new(DIR)).unwrap();
        let name = entries
            .iter()
            .map(|entry| &entry.name)
            .find(|name| name.starts_with("segment-"))
            .unwrap();
        let path: PathBuf = Path::new(DIR).join(name);
        let file = self.disk.open(&path, OpenMode::ReadWrite).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 150).unwrap();
        file.write_at(&[byte[0] ^ 1], 150).unwrap();
    }

    fn restart(&mut self) {
        self.machine = open(&self.disk);
        let from = self.machine.applied();
        for (index, entry) in (1..).zip(&self.log).filter(|(index, _)| *index > from) {
            let at = halyard_raft::LogId {
                index,
                term: 1,
                ..Default::default()
            };
            self.machine.apply(at, entry);
        }
        assert!(self.machine.fault().is_none());
    }

    fn one(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Reply {
        let mut batch = Vec::new();
        command::start(&mut batch);
        fill(&mut batch);
        let index = self.log.len() as u64 + 1;
        let now = Timestamp::from_nanos(SECOND * index as i64);
        command::seal(&mut batch, now, 1);
        let entry = Bytes::from(batch);
        self.log.push(entry.clone());
        let at = halyard_raft::LogId {
            index,
            term: 1,
            ..Default::default()
        };
        let mut applied = self.machine.apply(at, &entry);
        assert!(self.machine.fault().is_none(), "the group goes on");
        assert_eq!(applied.replies.len(), 1);
        applied.replies.remove(0)
    }

    fn cold<T: serde::Serialize>(&mut self, kind: Kind, id: StreamId, body: &T) -> Reply {
        self.one(|batch| command::put(batch, kind, id, &command::encode_cold(body)))
    }

    fn publish(&mut self, id: StreamId) -> Reply {
        let subject = format!("s.{}", id.0);
        self.one(|batch| command::put_publish(batch, id, subject.as_bytes(), &[], b"payload"))
    }

    fn delete(&mut self, id: StreamId, seq: u64) -> Reply {
        self.cold(Kind::MessageDelete, id, &MessageDelete { seq, erase: true })
    }

    fn last_seq(&self, id: StreamId) -> u64 {
        self.machine.store().last_seq(id)
    }
}

fn plain() -> StreamConfig {
    StreamConfig {
        subjects: vec!["s.>".into()],
        ..StreamConfig::default()
    }
}

#[test]
fn only_the_damaged_stream_halts() {
    let mut bench = Bench::new(&plain());
    assert!(bench.machine.halted().is_empty(), "nobody has looked yet");
    let entry = bench.log.len() as u64 + 1;
    assert!(matches!(bench.delete(DAMAGED, 5), Reply::Unknown));
    let halt = bench.machine.halted()[&DAMAGED].clone();
    assert_eq!(halt.entry, entry);
    assert!(
        halt.damage.contains("segment-") && halt.damage.contains("messages 1 to 40 of stream A"),
        "{}",
        halt.damage
    );
    // It takes nothing more, and loses nothing.
    let last = bench.last_seq(DAMAGED);
    assert!(matches!(bench.publish(DAMAGED), Reply::Unknown));
    assert_eq!(bench.last_seq(DAMAGED), last);
    let store = bench.machine.store();
    assert!(store.get(DAMAGED, 41).unwrap().is_some());
    assert!(matches!(store.get(DAMAGED, 5), Err(Error::Corrupt { .. })));
    // Everybody else goes on; but what the halted stream has not taken stays in the log.
    assert!(matches!(bench.publish(SOUND), Reply::Stored(41)));
    assert!(matches!(bench.delete(SOUND, 5), Reply::Done));
    assert!(matches!(
        bench.one(|batch| command::put(batch, Kind::Tick, SOUND, &[])),
        Reply::Done
    ));
    assert!(bench.machine.begin_flush().unwrap().is_none());
    // With the good bytes back, the log is applied to it again from where it halted.
    bench.flip();
    bench.restart();
    assert!(bench.machine.halted().is_empty());
    assert!(bench.machine.store().get(DAMAGED, 5).unwrap().is_none());
    assert_eq!(bench.last_seq(DAMAGED), last + 1);
    assert!(matches!(bench.publish(DAMAGED), Reply::Stored(44)));
    assert!(matches!(bench.publish(SOUND), Reply::Stored(42)));
    let job = bench.machine.begin_flush().unwrap().unwrap();
    bench.machine.store_mut().finish(job.run()).unwrap();
    bench.machine.store().check().unwrap();
}

#[test]
fn a_replay_halts_it_again() {
    let mut bench = Bench::new(&plain());
    assert!(matches!(bench.delete(DAMAGED, 5), Reply::Unknown));
    assert!(matches!(bench.publish(SOUND), Reply::Stored(41)));
    let digest = bench.machine.store().digest();
    bench.restart();
    assert!(bench.machine.halted().contains_key(&DAMAGED));
    assert_eq!(bench.machine.store().digest(), digest);
}

#[test]
fn without_its_messages_it_is_whole_again() {
    let mut bench = Bench::new(&plain());
    assert!(matches!(bench.delete(DAMAGED, 5), Reply::Unknown));
    assert!(matches!(bench.publish(DAMAGED), Reply::Unknown));
    let partly = Purge {
        filter: "s.1".into(),
        below: 0,
        keep: 0,
    };
    assert!(matches!(
        bench.cold(Kind::Purge, DAMAGED, &partly),
        Reply::Unknown
    ));
    let whole = Purge {
        filter: String::new(),
        below: 0,
        keep: 0,
    };
    assert!(matches!(
        bench.cold(Kind::Purge, DAMAGED, &whole),
        Reply::Removed(42)
    ));
    assert!(bench.machine.halted().is_empty());
    // What was sent meanwhile may have been acknowledged in an earlier life: its sequences are not given again. The command
    // that met the damage counts as one, too.
    assert!(matches!(bench.publish(DAMAGED), Reply::Stored(45)));
    assert!(bench.machine.begin_flush().unwrap().is_some());
    bench.machine.store().check().unwrap();
}

#[test]
fn a_damaged_stream_can_be_deleted() {
    let mut bench = Bench::new(&plain());
    assert!(matches!(bench.delete(DAMAGED, 5), Reply::Unknown));
    assert!(matches!(
        bench.cold(Kind::StreamDelete, DAMAGED, &()),
        Reply::Done
    ));
    assert!(bench.machine.halted().is_empty());
    bench.machine.store().check().unwrap();
}

/// A stream with a limit of age reads its first message's time when it is opened.
#[test]
fn it_does_not_keep_the_group_from_starting() {
    let mut bench = Bench::new(&StreamConfig {
        max_age: 3600 * SECOND,
        ..plain()
    });
    assert!(bench.machine.halted().contains_key(&DAMAGED));
    assert!(matches!(bench.publish(DAMAGED), Reply::Unknown));
    assert!(matches!(bench.publish(SOUND), Reply::Stored(41)));
    // What was acknowledged before and stands in the log alone is not lost by it.
    bench.flip();
    bench.restart();
    assert_eq!(bench.last_seq(DAMAGED), 43);
    assert!(bench.machine.store().get(DAMAGED, 42).unwrap().is_some());
}
