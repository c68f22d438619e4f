//! One group of one voter from outside: propose, restart, flush, over memory and over a real disk.

#![allow(clippy::panic, reason = "a test may panic")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use halyard_raft::{
    Error, Group, GroupId, LogId, Machine, Node, NodeId, NodeOptions, ProposeError, Unreadable,
};
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
    fn apply(&mut self, at: LogId, payload: &Bytes) -> u64 {
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

/// A machine of an older release: it does not know what begins with an `N`.
#[derive(Default)]
struct Older(Ledger);

impl Machine for Older {
    type Reply = u64;

    fn check(&self, payload: &Bytes) -> Result<(), Unreadable> {
        match payload.first() {
            Some(b'N') => Err(Unreadable("unknown kind N".to_owned())),
            _ => Ok(()),
        }
    }

    fn apply(&mut self, at: LogId, payload: &Bytes) -> u64 {
        self.0.apply(at, payload)
    }
}

#[test]
fn an_entry_of_a_newer_release_stops_its_group_and_no_other() {
    on_runtime(async {
        let disk: Arc<dyn Disk> = Arc::new(MemDisk::new());
        let node = Node::open(options(&disk, Path::new("/store"))).expect("a new log");
        let (other, _) = start(&node, 0).await;
        let machine = Arc::new(Mutex::new(Older::default()));
        let older = node.start_group(GroupId(8), Arc::clone(&machine), 0).await;
        let older = older.expect("it starts");
        let known = older.propose(Bytes::from_static(b"known"));
        let known = known.await.expect("applied");
        let (unknown, after) = (
            older.propose(Bytes::from_static(b"N")),
            older.propose(Bytes::from_static(b"after")),
        );
        for outcome in [unknown.await, after.await] {
            assert!(outcome.is_err(), "{outcome:?}");
        }
        let index = known + 1;
        let told =
            |error: &Error| matches!(error, Error::Unreadable { index: at, .. } if *at == index);
        assert!(older.poisoned().borrow().as_deref().is_some_and(told));
        assert_eq!(
            older.applied(),
            known,
            "nothing counts as applied that is not"
        );
        assert_eq!(machine.lock().0.entries.len(), 1, "nothing after it either");
        let refused = older.propose(Bytes::from_static(b"later")).await;
        assert!(
            matches!(refused, Err(ProposeError::Poisoned(_))),
            "{refused:?}"
        );
        let goes_on = other.propose(Bytes::from_static(b"N")).await;
        goes_on.expect("another group of the node is not concerned");
        node.shutdown().await;
        drop((node, other, older));

        // The same at a start, and then a release that knows it.
        let node = Node::open(options(&disk, Path::new("/store"))).expect("the log opens");
        let machine = Arc::new(Mutex::new(Older::default()));
        let started = node.start_group(GroupId(8), machine, 0).await.map(|_| ());
        assert!(started.as_ref().is_err_and(told), "{started:?}");
        let text = started.expect_err("refused").to_string();
        assert!(text.contains("newer release (unknown kind N)"), "{text}");
        node.shutdown().await;
        drop(node);
        let node = Node::open(options(&disk, Path::new("/store"))).expect("the log opens");
        let machine = Arc::new(Mutex::new(Ledger::default()));
        let newer = node.start_group(GroupId(8), Arc::clone(&machine), 0).await;
        newer.expect("it knows everything");
        assert_eq!(machine.lock().entries.len(), 3);
        node.shutdown().await;
    });
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
