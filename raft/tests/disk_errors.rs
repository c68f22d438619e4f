//! What a node says, and leaves alone, when the disk or its owner is at fault.

#![allow(clippy::panic, reason = "a test may panic")]

mod common;

use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use halyard_raft::{
    Cipher, Encryption, Error, Group, GroupId, Key, Node, NodeId, NodeOptions, ProposeError,
};
use halyard_runtime::disk::{Disk, MemDisk, OpenMode};
use halyard_runtime::sim::{self, DiskFaults, SimDisk};
use halyard_runtime::{task, time};
use parking_lot::Mutex;

use common::Count;

const DIR: &str = "/store";

fn options(disk: Arc<dyn Disk>) -> NodeOptions {
    NodeOptions {
        segment_bytes: 32 << 10,
        first_segment_bytes: 8 << 10,
        ..NodeOptions::new(disk, DIR, NodeId(1))
    }
}

async fn start(node: &Node) -> Group<Count> {
    node.start_group(GroupId(1), Arc::new(Mutex::new(Count::default())), 0)
        .await
        .expect("the group starts")
}

/// A log in memory that took a few proposals and was closed.
async fn written() -> Arc<dyn Disk> {
    written_with(20, 300).await
}

/// The same with so many proposals of so many bytes.
async fn written_with(count: u8, bytes: usize) -> Arc<dyn Disk> {
    let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
    let node = Node::open(options(Arc::clone(&disk))).expect("a new log");
    let group = start(&node).await;
    for n in 0..count {
        group
            .propose(Bytes::from(vec![n; bytes]))
            .await
            .expect("applied");
    }
    node.shutdown().await;
    disk
}

fn segment() -> PathBuf {
    Path::new(DIR).join("log/log-0000000000000001")
}

fn content(disk: &Arc<dyn Disk>) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(DIR).join("log");
    let list = disk.list(&dir).expect("a directory");
    list.into_iter()
        .map(|entry| {
            (
                entry.name.clone(),
                disk.read(&dir.join(&entry.name)).expect("a file"),
            )
        })
        .collect()
}

fn overwrite(disk: &Arc<dyn Disk>, offset: u64, bytes: &[u8]) {
    let file = disk
        .open(&segment(), OpenMode::ReadWrite)
        .expect("the segment");
    file.write_vectored_at(&[IoSlice::new(bytes)], offset)
        .expect("written");
}

fn refused(disk: &Arc<dyn Disk>) -> Error {
    let before = content(disk);
    let error = Node::open(options(Arc::clone(disk)))
        .map(|_| ())
        .expect_err("it is refused");
    assert!(content(disk) == before, "nothing was changed: {error}");
    error
}

fn on_runtime<T>(test: impl Future<Output = T>) -> T {
    task::block_on(2, test).expect("a runtime")
}

#[test]
fn a_log_of_a_newer_release_is_left_alone() {
    on_runtime(async {
        let disk = written().await;
        // docs/formats.md: the version, and its sum, which later formats have too.
        let mut head = disk.read(&segment()).expect("the segment");
        head[8..12].copy_from_slice(&7u32.to_le_bytes());
        let sum = crc32c::crc32c(&[&head[8..12], &head[16..64]].concat());
        head[12..16].copy_from_slice(&sum.to_le_bytes());
        overwrite(&disk, 8, &head[8..16]);
        let error = refused(&disk);
        assert!(matches!(&error, Error::NewerVersion { found: 7, path, .. } if *path == segment()));
        let text = error.to_string();
        assert!(
            text.contains("log-0000000000000001") && text.contains("run that release"),
            "{text}"
        );
    });
}

#[test]
fn a_damaged_record_is_named_and_left_alone() {
    on_runtime(async {
        let disk = written().await;
        let bytes = disk.read(&segment()).expect("the segment");
        let at = bytes
            .windows(8)
            .position(|window| window == [9; 8])
            .expect("a payload") as u64;
        overwrite(&disk, at, &[0xaa]);
        let error = refused(&disk);
        let Error::Corrupt { file, offset, .. } = &error else {
            panic!("{error}")
        };
        assert!(
            *file == segment() && *offset <= at && at - *offset < 512,
            "{error}"
        );
        let text = error.to_string();
        assert!(
            text.contains(&format!("damaged at byte {offset}"))
                && text.contains("restore this file"),
            "{text}"
        );
    });
}

#[test]
fn a_missing_segment_is_noticed() {
    on_runtime(async {
        let disk = written_with(40, 3000).await;
        for missing in ["log-0000000000000001", "log-0000000000000002"] {
            let path = Path::new(DIR).join("log").join(missing);
            let bytes = disk.read(&path).expect("a segment");
            disk.remove_file(&path).expect("removed");
            assert!(matches!(refused(&disk), Error::Corrupt { .. }));
            let file = disk.open(&path, OpenMode::CreateNew).expect("made");
            file.write_at(&bytes, 0).expect("written");
        }
        let node = Node::open(options(disk)).expect("whole again");
        let group = start(&node).await;
        assert_eq!(group.machine().lock().0, 40);
        node.shutdown().await;
    });
}

#[test]
fn a_log_of_another_node_is_left_alone() {
    on_runtime(async {
        let disk = written().await;
        let other = NodeOptions {
            node_id: Some(NodeId(2)),
            ..options(disk)
        };
        let error = Node::open(other).map(|_| ()).expect_err("it is refused");
        assert!(
            matches!(
                &error,
                Error::ForeignNode {
                    found: NodeId(1),
                    expected: NodeId(2),
                    ..
                }
            ),
            "{error}"
        );
    });
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    on_runtime(async {
        let disk: Arc<dyn Disk> = Arc::new(halyard_runtime::disk::RealDisk);
        let dir = Path::new("/dev/null/store");
        let error = Node::open(NodeOptions::new(disk, dir, NodeId(1)))
            .map(|_| ())
            .expect_err("it is refused");
        assert!(error.to_string().contains("/dev/null/store"), "{error}");
    });
}

/// Runs a test on a simulated machine with a disk.
fn simulated<F: Future<Output = ()> + Send + 'static>(
    test: impl FnOnce(SimDisk) -> F + Send + 'static,
) {
    let outcome = sim::run(1, Duration::from_secs(60), move || async move {
        let node = sim::Node::new("node", IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
        let disk = SimDisk::new(
            1,
            DiskFaults {
                sync_time: (Duration::ZERO, Duration::from_millis(1)),
                ..DiskFaults::default()
            },
        );
        node.attach(&disk);
        node.spawn(test(disk.clone())).await.expect("no panic");
    });
    outcome.result.expect("the test passes");
}

#[test]
fn a_full_disk_refuses_proposals_and_recovers() {
    simulated(|disk| async move {
        disk.set_faults(|faults| faults.capacity_bytes = 100 << 10);
        let node = Node::open(options(Arc::new(disk.clone()))).expect("there is space for a log");
        let group = start(&node).await;
        let mut taken = 0;
        let refused = loop {
            match group.propose(Bytes::from(vec![1; 2000])).await {
                Ok(_) => taken += 1,
                Err(error) => break error,
            }
            time::sleep(Duration::from_millis(5)).await;
        };
        assert!(
            matches!(&refused, ProposeError::Full { path } if path.starts_with(DIR)),
            "{refused}"
        );
        assert!(refused.to_string().contains("free space"), "{refused}");
        assert!(taken > 10, "{taken}");
        assert!(node.metrics().full && node.poisoned().is_none());
        for _ in 0..5 {
            group
                .propose_urgent(Bytes::from_static(b"a delete"))
                .await
                .expect("taken from the reserve");
        }
        // Either way out helps: a flush, which lets the log go, or more space.
        group.flushed(group.applied());
        time::sleep(Duration::from_secs(2)).await;
        group
            .propose(Bytes::from(vec![2; 2000]))
            .await
            .expect("there is space again");
        loop {
            if group.propose(Bytes::from(vec![1; 2000])).await.is_err() {
                break;
            }
            time::sleep(Duration::from_millis(5)).await;
        }
        disk.set_faults(|faults| faults.capacity_bytes = 1 << 20);
        time::sleep(Duration::from_secs(2)).await;
        group
            .propose(Bytes::from(vec![2; 2000]))
            .await
            .expect("there is space again");
        node.shutdown().await;
    });
}

/// For as long as there is no file descriptor for the next segment, what needs it waits; nothing was written, so nothing is
/// in doubt afterwards.
#[test]
fn no_file_for_the_next_segment_is_no_failure_of_the_log() {
    simulated(|disk| async move {
        let node = Node::open(options(Arc::new(disk.clone()))).expect("a new log");
        let group = start(&node).await;
        group
            .propose(Bytes::from_static(b"before"))
            .await
            .expect("applied");
        time::sleep(Duration::from_millis(50)).await;
        disk.set_faults(|faults| faults.open_error_ppm = 1_000_000);
        let mut taken = 0;
        let refused = loop {
            let proposal = group.propose(Bytes::from(vec![1; 2000]));
            match time::timeout(Duration::from_secs(1), proposal).await {
                // One may have been taken before it was known that it has to wait.
                Ok(Ok(_)) | Err(_) => taken += 1,
                Ok(Err(error)) => break error,
            }
            time::sleep(Duration::from_millis(5)).await;
        };
        assert!(matches!(refused, ProposeError::Full { .. }), "{refused}");
        assert!(taken > 3 && node.poisoned().is_none(), "{taken}");
        disk.set_faults(|faults| faults.open_error_ppm = 0);
        time::sleep(Duration::from_millis(300)).await;
        group
            .propose(Bytes::from(vec![2; 2000]))
            .await
            .expect("a file could be made");
        node.shutdown().await;
        drop((group, node));
        disk.power_loss();
        let node = Node::open(options(Arc::new(disk))).expect("a sound log");
        assert_eq!(start(&node).await.machine().lock().0, taken + 2);
        node.shutdown().await;
    });
}

/// One opening that fails is tried again before anybody notices.
#[test]
fn one_opening_that_fails_refuses_nothing() {
    simulated(|disk| async move {
        let node = Node::open(options(Arc::new(disk.clone()))).expect("a new log");
        let group = start(&node).await;
        disk.set_faults(|faults| faults.open_error_ppm = 300_000);
        for _ in 0..60 {
            group
                .propose(Bytes::from(vec![1; 2000]))
                .await
                .expect("applied");
            if group.applied() % 8 == 0 {
                group.flushed(group.applied());
            }
            time::sleep(Duration::from_millis(20)).await;
        }
        assert!(node.poisoned().is_none());
        node.shutdown().await;
    });
}

/// A log of little takes little: files begin short and grow with what is written.
#[test]
fn segments_grow_with_what_is_written() {
    simulated(|disk| async move {
        let options = NodeOptions {
            segment_bytes: 1 << 20,
            ..options(Arc::new(disk.clone()))
        };
        let node = Node::open(options).expect("a new log");
        let group = start(&node).await;
        time::sleep(Duration::from_millis(50)).await;
        let lengths = || {
            let files = disk.files().into_iter();
            let logs =
                files.filter(|(path, _)| path.starts_with("/store/log/") && !path.ends_with("end"));
            logs.map(|(_, len)| len >> 10).collect::<Vec<_>>()
        };
        assert_eq!(lengths(), [8, 8]);
        for _ in 0..300 {
            group
                .propose(Bytes::from(vec![1; 4000]))
                .await
                .expect("applied");
        }
        assert_eq!(lengths(), [8, 8, 32, 128, 512, 1024, 1024]);
        group.flushed(group.applied());
        time::sleep(Duration::from_millis(500)).await;
        // What is too short is not used again.
        assert_eq!(lengths(), [1024, 1024]);
        node.shutdown().await;
    });
}

#[test]
fn a_disk_that_is_full_from_the_start_is_named() {
    simulated(|disk| async move {
        disk.set_faults(|faults| faults.capacity_bytes = 1000);
        let error = Node::open(options(Arc::new(disk.clone())))
            .map(|_| ())
            .expect_err("it is refused");
        assert!(
            matches!(&error, Error::Full { path, .. } if *path == segment()),
            "{error}"
        );
        disk.set_faults(|faults| faults.capacity_bytes = 1 << 20);
        let node = Node::open(options(Arc::new(disk))).expect("there is space now");
        start(&node)
            .await
            .propose(Bytes::from_static(b"one"))
            .await
            .expect("applied");
        node.shutdown().await;
    });
}

#[test]
fn a_failed_sync_poisons_for_good() {
    simulated(|disk| async move {
        let node = Node::open(options(Arc::new(disk.clone()))).expect("a new log");
        let group = start(&node).await;
        group
            .propose(Bytes::from_static(b"before"))
            .await
            .expect("applied");
        disk.set_faults(|faults| faults.sync_error_ppm = 1_000_000);
        let lost = group
            .propose(Bytes::from_static(b"lost"))
            .await
            .expect_err("not on disk");
        assert!(matches!(lost, ProposeError::Poisoned(_)), "{lost}");
        disk.set_faults(|faults| faults.sync_error_ppm = 0);
        let after = group
            .propose(Bytes::from_static(b"after"))
            .await
            .expect_err("never again");
        assert!(after.to_string().contains("restart the server"), "{after}");
        assert!(group.poisoned().borrow().is_some() && node.poisoned().is_some());
        assert!(!group.leadership().borrow().am_leader);
        node.shutdown().await;
    });
}

/// After a failed sync the page cache shows what the disk does not have, and no later sync writes it. A new process that
/// takes it for a part of the log must write it again before anybody builds on it.
#[test]
fn what_a_failed_sync_left_in_memory_is_written_again() {
    simulated(|_| async move {
        for seed in 0..10 {
            let disk = SimDisk::new(seed, DiskFaults::default());
            let node = Node::open(options(Arc::new(disk.clone()))).expect("a new log");
            let group = start(&node).await;
            group
                .propose(Bytes::from_static(b"before"))
                .await
                .expect("applied");
            disk.set_faults(|faults| faults.sync_error_ppm = 1_000_000);
            group
                .propose(Bytes::from(vec![7; 3000]))
                .await
                .expect_err("not on disk");
            node.shutdown().await;
            drop((group, node));
            disk.process_died();
            disk.set_faults(|faults| faults.sync_error_ppm = 0);

            let node = Node::open(options(Arc::new(disk.clone()))).expect("a torn tail at most");
            let group = start(&node).await;
            group
                .propose(Bytes::from_static(b"after"))
                .await
                .expect("applied");
            let count = group.machine().lock().0;
            assert_eq!(count, 3, "the cache shows all of it");
            node.shutdown().await;
            drop((group, node));
            disk.power_loss();

            let node = Node::open(options(Arc::new(disk.clone()))).expect("a sound log");
            let group = start(&node).await;
            assert_eq!(group.machine().lock().0, count, "disk {seed}");
            node.shutdown().await;
        }
    });
}

#[test]
fn retired_bytes_are_nowhere_on_the_disk() {
    simulated(|disk| async move {
        let canary = b"a secret that must be forgotten";
        let node = Node::open(options(Arc::new(disk.clone()))).expect("a new log");
        let group = start(&node).await;
        for round in 0..8 {
            for _ in 0..10 {
                group
                    .propose(Bytes::from(vec![round; 1000]))
                    .await
                    .expect("applied");
            }
            group
                .propose(Bytes::from_static(canary))
                .await
                .expect("applied");
            if round % 3 == 2 {
                // Some of the canaries are in segments that become spares.
                group.flushed(group.applied());
            }
        }
        assert!(!disk.find(canary).is_empty());
        let position = node.retire_log();
        group
            .propose(Bytes::from_static(b"meanwhile"))
            .await
            .expect("applied");
        time::sleep(Duration::from_millis(500)).await;
        assert!(node.log_retired() < position, "the group was not flushed");
        for (id, index) in node.log_holders(position) {
            assert!(id == group.id() && index <= group.applied());
        }
        group.flushed(group.applied());
        time::sleep(Duration::from_millis(500)).await;
        assert!(node.log_retired() >= position);
        assert!(disk.find(canary).is_empty(), "{:?}", disk.find(canary));
        group
            .propose(Bytes::from_static(b"after"))
            .await
            .expect("applied");
        node.shutdown().await;
    });
}

#[test]
fn a_sealed_log_shows_nothing_and_opens_with_its_key_only() {
    simulated(|disk| async move {
        let key = [7; 32];
        let sealed = |key: &[u8; 32], previous: Option<&[u8; 32]>| NodeOptions {
            encryption: Some(Encryption {
                cipher: Cipher::ChaCha20Poly1305,
                key: Key(*key),
                previous: previous.copied().map(Key),
            }),
            ..options(Arc::new(disk.clone()))
        };
        let canary = [b"nobody may read this".as_slice(), &[9; 3000]].concat();
        let node = Node::open(sealed(&key, None)).expect("a new log");
        let group = start(&node).await;
        for _ in 0..30 {
            group
                .propose(Bytes::from(canary.clone()))
                .await
                .expect("applied");
        }
        node.shutdown().await;
        drop((group, node));
        assert!(disk.find(b"nobody may read").is_empty());

        let wrong = Node::open(sealed(&[8; 32], None))
            .map(|_| ())
            .expect_err("another key");
        assert!(
            matches!(&wrong, Error::WrongKey { file, .. } if *file == segment()),
            "{wrong}"
        );
        let none = Node::open(options(Arc::new(disk.clone())))
            .map(|_| ())
            .expect_err("no key");
        assert!(matches!(none, Error::WrongKey { .. }), "{none}");

        let rotated = Node::open(sealed(&[8; 32], Some(&key))).expect("the previous key opens");
        let group = start(&rotated).await;
        assert_eq!(group.machine().lock().0, 30);
        group.propose(Bytes::from(canary)).await.expect("applied");
        rotated.shutdown().await;
        assert!(disk.find(b"nobody may read").is_empty());
    });
}
