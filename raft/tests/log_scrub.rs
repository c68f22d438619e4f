//! Damage to the log of a running node: found by reading it again, told, and gone once the log goes.

#![allow(clippy::panic, reason = "a test may panic")]

mod common;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use halyard_raft::{
    Cipher, Encryption, Error, Group, GroupId, Key, LogDamage, LogScrub, Node, NodeId, NodeOptions,
};
use halyard_runtime::sim::{self, DiskFaults, SimDisk};
use halyard_runtime::time;
use parking_lot::Mutex;

use common::Count;

const DIR: &str = "/store";

struct Bench {
    disk: SimDisk,
    node: Node,
    groups: [Group<Count>; 2],
}

fn options(disk: &SimDisk, sealed: bool) -> NodeOptions {
    NodeOptions {
        segment_bytes: 32 << 10,
        first_segment_bytes: 8 << 10,
        encryption: sealed.then_some(Encryption {
            cipher: Cipher::ChaCha20Poly1305,
            key: Key([7; 32]),
            previous: None,
        }),
        ..NodeOptions::new(Arc::new(disk.clone()), DIR, NodeId(1))
    }
}

async fn start(node: &Node, id: u32, durable: u64) -> Group<Count> {
    node.start_group(GroupId(id), Arc::new(Mutex::new(Count::default())), durable)
        .await
        .expect("the group starts")
}

fn file(sequence: u64) -> PathBuf {
    Path::new(DIR).join(format!("log/log-{sequence:016x}"))
}

/// Offset in a segment of the record whose payload is all `byte`.
fn place(disk: &SimDisk, sequence: u64, byte: u8) -> u64 {
    use halyard_runtime::disk::Disk;
    let bytes = disk.read(&file(sequence)).expect("the segment");
    let found = bytes.windows(64).position(|window| window == [byte; 64]);
    found.expect("the payload is there") as u64
}

impl Bench {
    /// Two groups, 40 entries of 3000 bytes each in turn: several segments.
    async fn new(disk: SimDisk, sealed: bool) -> Self {
        let node = Node::open(options(&disk, sealed)).expect("a new log");
        let groups = [start(&node, 1, 0).await, start(&node, 2, 0).await];
        let bench = Self { disk, node, groups };
        for n in 0..40 {
            bench.propose(n).await;
        }
        bench
    }

    async fn propose(&self, n: u8) {
        for group in &self.groups {
            let payload = Bytes::from(vec![n + 100 * (group.id().0 as u8 - 1); 3000]);
            group.propose(payload).await.expect("applied");
        }
    }

    fn scrub(&self) -> LogScrub {
        self.node.scrub_log(u64::MAX)
    }

    /// Flushes what holds the damaged part of the log, and waits until it has gone.
    async fn let_go(&self) {
        for _ in 0..100 {
            let Some(position) = self.node.log_damaged_before() else {
                return;
            };
            for (id, entry) in self.node.log_holders(position) {
                let group = self.groups.iter().find(|group| group.id() == id);
                let group = group.expect("a group of this test");
                assert!(entry <= group.applied());
                group.flushed(group.applied());
            }
            time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the damage stays: {:?}", self.node.log_damage());
    }

    async fn restart(self) -> Result<(), Error> {
        let applied: Vec<u64> = self.groups.iter().map(Group::applied).collect();
        self.node.shutdown().await;
        drop(self.node);
        let node = Node::open(options(&self.disk, false))?;
        for (id, durable) in (1..).zip(applied) {
            drop(start(&node, id, durable).await);
        }
        node.shutdown().await;
        Ok(())
    }
}

fn simulated<F: Future<Output = ()> + Send + 'static>(
    test: impl FnOnce(SimDisk) -> F + Send + 'static,
) {
    let outcome = sim::run(1, Duration::from_secs(60), move || async move {
        let node = sim::Node::new("node", IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
        let disk = SimDisk::new(1, DiskFaults::default());
        node.attach(&disk);
        node.spawn(test(disk.clone())).await.expect("no panic");
    });
    outcome.result.expect("the test passes");
}

fn only(found: &[LogDamage]) -> &LogDamage {
    let [damage] = found else {
        panic!("one damaged place: {found:?}")
    };
    damage
}

#[test]
fn a_sound_log_is_read_to_its_end_in_pieces() {
    simulated(|disk| async move {
        for sealed in [false, true] {
            let disk = SimDisk::new(2 + u64::from(sealed), DiskFaults::default());
            let bench = Bench::new(disk, sealed).await;
            let whole = bench.scrub();
            assert!(whole.is_round && whole.found.is_empty(), "{whole:?}");
            assert!(whole.bytes > 2 * 40 * 3000, "{whole:?}");
            let mut bytes = 0;
            let mut calls = 0;
            loop {
                let piece = bench.node.scrub_log(10_000);
                assert!(piece.found.is_empty(), "{piece:?}");
                assert!(piece.bytes < 10_000 + 4096, "{piece:?}");
                (bytes, calls) = (bytes + piece.bytes, calls + 1);
                if piece.is_round {
                    break;
                }
                // What comes meanwhile is verified, too.
                if calls == 5 {
                    bench.propose(50).await;
                }
            }
            assert!(bytes > whole.bytes && calls > 20, "{bytes} in {calls}");
            bench.node.shutdown().await;
        }
        drop(disk);
    });
}

#[test]
fn rot_in_a_sealed_segment_is_found_told_and_let_go() {
    simulated(|disk| async move {
        let bench = Bench::new(disk, false).await;
        // The fourth entry of one group and the next of the other.
        let at = place(&bench.disk, 3, 3);
        assert!(bench.disk.damage(&file(3), at + 2900, &[0x55; 400]));
        let scrub = bench.scrub();
        let damage = only(&scrub.found).clone();
        assert_eq!(damage.file, file(3));
        assert!(damage.offset <= at && at - damage.offset < 512, "{damage}");
        let groups: Vec<_> = damage.entries.iter().map(|(group, _)| group.0).collect();
        assert_eq!(groups, [1, 2], "{damage}");
        // The first entries of each are the vote's and the membership's.
        let entries = &damage.entries[0].1;
        assert!(
            entries.start() == entries.end() && (4..8).contains(entries.start()),
            "{damage}"
        );
        assert!(damage.to_string().contains("of group 2"), "{damage}");
        // The node goes on; what is known is not told again.
        assert!(bench.node.poisoned().is_none());
        assert_eq!(bench.node.metrics().damaged, 1);
        bench.propose(60).await;
        assert!(bench.scrub().found.is_empty());
        assert_eq!(bench.node.log_damage(), [damage]);
        bench.let_go().await;
        assert_eq!(bench.node.metrics().damaged, 0);
        let again = bench.scrub();
        assert!(again.is_round && again.found.is_empty(), "{again:?}");
        bench.restart().await.expect("the log is sound");
    });
}

#[test]
fn without_it_the_next_opening_fails_at_the_same_place() {
    simulated(|disk| async move {
        let bench = Bench::new(disk, false).await;
        let at = place(&bench.disk, 3, 3);
        assert!(bench.disk.damage(&file(3), at + 10, &[0x55]));
        let damage = only(&bench.scrub().found).clone();
        let error = bench.restart().await.expect_err("it is damaged");
        assert!(
            matches!(&error, Error::Corrupt { file, offset, .. }
                if *file == damage.file && *offset == damage.offset),
            "{error}; {damage}"
        );
    });
}

#[test]
fn rot_in_the_segment_in_use_is_let_go_too() {
    simulated(|disk| async move {
        let bench = Bench::new(disk, false).await;
        let last = bench.node.metrics().segments;
        let at = place(&bench.disk, last, 39);
        assert!(bench.disk.damage(&file(last), at + 10, &[0x55]));
        assert_eq!(only(&bench.scrub().found).file, file(last));
        bench.let_go().await;
        bench.propose(60).await;
        assert!(bench.scrub().found.is_empty());
        bench.restart().await.expect("the log is sound");
    });
}

#[test]
fn unreadable_headerless_and_missing_segments_are_told() {
    simulated(|disk| async move {
        let bench = Bench::new(disk, false).await;
        assert!(bench.disk.break_sector(&file(2), 4096));
        assert!(bench.disk.damage(&file(3), 20, &[0x55; 8]));
        assert!(bench.disk.lose_name(&file(4)));
        let scrub = bench.scrub();
        let what = |sequence| {
            let of = scrub
                .found
                .iter()
                .find(|damage| damage.file == file(sequence));
            of.map(ToString::to_string).unwrap_or_default()
        };
        assert!(what(2).contains("unreadable"), "{scrub:?}");
        assert!(what(3).contains("header"), "{scrub:?}");
        assert!(what(4).contains("cannot be opened"), "{scrub:?}");
        assert_eq!(scrub.found.len(), 3, "{scrub:?}");
    });
}

#[test]
fn what_was_unreadable_for_a_moment_is_no_damage() {
    simulated(|disk| async move {
        let bench = Bench::new(disk, false).await;
        let at = place(&bench.disk, 3, 3);
        assert!(bench.disk.damage(&file(3), at + 10, &[0x55]));
        assert_eq!(bench.scrub().found.len(), 1);
        assert!(bench.disk.damage(&file(3), at + 10, &[3]));
        assert!(bench.scrub().found.is_empty());
        assert!(bench.node.log_damage().is_empty());
        assert!(bench.node.log_damaged_before().is_none());
        bench.restart().await.expect("the log is sound");
    });
}
