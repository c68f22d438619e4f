//! One group of one voter from outside: propose, restart, flush, over memory and over a real disk.

#![allow(clippy::panic, reason = "a test may panic")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use halyard_raft::{Applied, Error, Group, GroupId, Machine, Node, NodeId, NodeOptions};
use halyard_runtime::disk::{Disk, MemDisk, RealDisk};
use halyard_runtime::{task, time};
use parking_lot::Mutex;

/// Remembers every entry.
#[derive(Default)]
struct Ledger {
    entries: Vec<(u64, Bytes)>,
}

impl Machine for Ledger {
    type Reply = u64;
    fn apply(&mut self, at: Applied, payload: &Bytes) -> u64 {
        assert!(
            self.entries
                .last()
                .is_none_or(|(index, _)| *index < at.index)
        );
        self.entries.push((at.index, payload.clone()));
        at.index
    }
}

fn options(disk: &Arc<dyn Disk>, dir: &Path) -> NodeOptions {
    NodeOptions {
        segment_bytes: 256 << 10,
        first_segment_bytes: 64 << 10,
        ..NodeOptions::new(Arc::clone(disk), dir, NodeId(1))
    }
}

async fn start(node: &Node, durable: u64) -> (Group<Ledger>, Arc<Mutex<Ledger>>) {
    let machine = Arc::new(Mutex::new(Ledger::default()));
    let group = node
        .start_group(GroupId(7), Arc::clone(&machine), durable)
        .await
        .expect("the group starts");
    (group, machine)
}

fn on_runtime<T>(test: impl Future<Output = T>) -> T {
    task::block_on(2, async {
        time::timeout(Duration::from_secs(60), test)
            .await
            .expect("the test ends")
    })
    .expect("a runtime")
}

async fn proposals_survive_a_restart(disk: Arc<dyn Disk>, dir: &Path) {
    let node = Node::open(options(&disk, dir)).expect("a new log");
    let (group, machine) = start(&node, 0).await;
    assert!(group.leadership().borrow().am_leader);
    let proposals: Vec<_> = (0..1000u32)
        .map(|n| group.propose(Bytes::from(vec![n as u8; n as usize * 7 % 5000])))
        .collect();
    let mut last = 0;
    for proposal in proposals {
        let index = proposal.await.expect("applied");
        assert!(index > last);
        last = index;
    }
    group.barrier().await.expect("a leader");
    let before = machine.lock().entries.clone();
    assert_eq!(before.len(), 1000);
    node.shutdown().await;
    drop((group, node));

    let node = Node::open(options(&disk, dir)).expect("the log opens");
    assert_eq!(node.found_groups(), [GroupId(7)]);
    let (group, machine) = start(&node, 0).await;
    assert!(
        machine.lock().entries == before,
        "the same entries in the same order"
    );
    group
        .propose(Bytes::from_static(b"one more"))
        .await
        .expect("applied");
    node.shutdown().await;
}

#[test]
fn proposals_survive_a_restart_in_memory() {
    on_runtime(proposals_survive_a_restart(
        Arc::new(MemDisk::new()),
        Path::new("/store"),
    ));
}

#[test]
fn proposals_survive_a_restart_on_a_real_disk() {
    let dir = scratch("restart");
    on_runtime(proposals_survive_a_restart(Arc::new(RealDisk), &dir));
}

#[test]
fn what_was_answered_counts_as_applied() {
    on_runtime(async {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let node = Node::open(options(&disk, Path::new("/store"))).expect("a new log");
        let (group, _machine) = start(&node, 0).await;
        let before = group.applied();
        for number in 1..=2000 {
            let proposal = group.propose(Bytes::from_static(b"one"));
            proposal.await.expect("applied");
            assert_eq!(group.applied(), before + number);
        }
        node.shutdown().await;
    });
}

#[test]
fn a_flushed_log_goes() {
    on_runtime(async {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let dir = Path::new("/store");
        let node = Node::open(options(&disk, dir)).expect("a new log");
        let (group, machine) = start(&node, 0).await;
        for round in 0..20 {
            let proposals: Vec<_> = (0..100)
                .map(|_| group.propose(Bytes::from(vec![round; 2000])))
                .collect();
            for proposal in proposals {
                proposal.await.expect("applied");
            }
            group.flushed(group.applied());
        }
        let flushed = group.applied();
        wait_until(|| node.log_bytes() < 1 << 20).await;
        assert!(node.log_pressure().len() <= 1);
        group
            .propose(Bytes::from_static(b"tail"))
            .await
            .expect("applied");
        assert_eq!(machine.lock().entries.len(), 2001);
        node.shutdown().await;
        drop((group, node));

        let node = Node::open(options(&disk, dir)).expect("the log opens");
        let (_group, machine) = start(&node, flushed).await;
        assert_eq!(machine.lock().entries.len(), 1);
        let behind = node
            .start_group(GroupId(8), Arc::new(Mutex::new(Ledger::default())), 5)
            .await;
        assert!(matches!(behind, Err(Error::Mismatch { applied: 5, .. })));
        node.shutdown().await;
        drop(node);

        let node = Node::open(options(&disk, dir)).expect("the log opens");
        let early = node
            .start_group(GroupId(7), Arc::new(Mutex::new(Ledger::default())), 3)
            .await;
        assert!(
            matches!(early, Err(Error::Mismatch { applied: 3, .. })),
            "its first entries are gone"
        );
        node.shutdown().await;
    });
}

/// A second flush that ends while the log is letting go for the first counts, too, with nothing to come after it.
#[test]
fn flushes_that_end_at_once_all_count() {
    on_runtime(async {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let node = Node::open(options(&disk, Path::new("/store"))).expect("a new log");
        let (group, _machine) = start(&node, 0).await;
        for round in 0..300 {
            let proposals: Vec<_> = (0..20)
                .map(|_| group.propose(Bytes::from(vec![1; 20_000])))
                .collect();
            for proposal in proposals {
                proposal.await.expect("applied");
            }
            // At any distance in time from one another.
            for before in (0..8).rev() {
                group.flushed(group.applied() - before);
                for n in 0..round * 300 {
                    std::hint::black_box(n);
                }
            }
            let all = node.retire_log();
            wait_until(|| {
                // Whoever waits for it asks who is in the way.
                node.log_holders(all);
                node.log_retired() >= all
            })
            .await;
        }
        node.shutdown().await;
    });
}

#[test]
fn a_directory_in_use_is_refused() {
    on_runtime(async {
        let dir = scratch("in-use");
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let node = Node::open(options(&disk, &dir)).expect("a new log");
        let second = Node::open(options(&disk, &dir)).map(|_| ());
        assert!(
            matches!(&second, Err(Error::InUse { path }) if *path == dir),
            "{second:?}"
        );
        node.shutdown().await;
    });
}

async fn wait_until(condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never came to pass");
}

/// A fresh directory below the target directory's scratch space.
fn scratch(name: &str) -> std::path::PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::process::Command::new("rm")
        .arg("-rf")
        .arg(&dir)
        .status();
    dir
}
