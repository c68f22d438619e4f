//! Damaged and hostile files of the node's log: whatever stands in them, a start ends, in groups that hold entries in their
//! order or in a typed error.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test cannot go on without ends it"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bolero::TypeGenerator;
use bytes::Bytes;
use halyard_raft::{GroupId, LogId, Machine, Node, NodeId, NodeOptions};
use halyard_runtime::disk::{Disk, OpenMode};
use halyard_runtime::sim::{self, DiskFaults, SimDisk};
use halyard_runtime::time;

const GROUPS: u32 = 2;

/// What is changed in a file.
#[derive(Clone, Debug, TypeGenerator)]
enum Change {
    Byte {
        at: u32,
        xor: u8,
    },
    Bytes {
        at: u32,
        bytes: Vec<u8>,
    },
    /// A piece of the log stands somewhere else, too.
    Copy {
        from: u16,
        to: u16,
        count: u16,
    },
    Cut(u32),
    Remove,
    /// A sector of zeros.
    Zeros(u16),
}

#[derive(Clone, Debug, TypeGenerator)]
struct Life {
    entries: Vec<(bool, u16)>,
    flushed: u8,
    changes: Vec<(u8, Change)>,
}

#[derive(Default)]
struct List(Vec<u64>);

impl Machine for List {
    type Reply = ();
    fn apply(&mut self, at: LogId, _: &Bytes) {
        assert!(
            self.0.last().is_none_or(|last| *last < at.index),
            "in order, once"
        );
        self.0.push(at.index);
    }
}

fn options(disk: &SimDisk) -> NodeOptions {
    NodeOptions {
        segment_bytes: 16 << 10,
        first_segment_bytes: 4 << 10,
        ..NodeOptions::new(Arc::new(disk.clone()), Path::new("/store"), NodeId(1))
    }
}

async fn start(disk: &SimDisk) -> Option<(Node, Vec<halyard_raft::Group<List>>)> {
    let node = Node::open(options(disk)).ok()?;
    let mut groups = Vec::new();
    for id in 1..=GROUPS {
        let machine = Arc::new(parking_lot::Mutex::new(List::default()));
        groups.push(node.start_group(GroupId(id), machine, 0).await.ok()?);
    }
    Some((node, groups))
}

async fn write(disk: SimDisk, life: Life) {
    let (node, groups) = start(&disk).await.expect("an empty disk");
    for (other, bytes) in life.entries.iter().take(60) {
        let group = &groups[usize::from(*other)];
        let payload = vec![*bytes as u8; usize::from(*bytes % 3000)];
        group
            .propose(Bytes::from(payload))
            .await
            .expect("it is stored");
    }
    if life.flushed.is_multiple_of(4) {
        groups[0].flushed(groups[0].applied());
        time::sleep(Duration::from_millis(50)).await;
    }
    node.shutdown().await;
}

fn files(disk: &SimDisk) -> Vec<PathBuf> {
    let dir = Path::new("/store/log");
    let listed = disk.list(dir).unwrap_or_default();
    listed
        .into_iter()
        .map(|entry| dir.join(entry.name))
        .collect()
}

fn change(disk: &SimDisk, path: &Path, change: &Change) {
    if matches!(change, Change::Remove) {
        disk.remove_file(path).unwrap();
        return;
    }
    let mut bytes = disk.read(path).unwrap();
    if bytes.is_empty() {
        return;
    }
    let len = bytes.len();
    match change {
        Change::Byte { at, xor } => bytes[*at as usize % len] ^= xor,
        Change::Bytes { at, bytes: new } => {
            let at = *at as usize % len;
            let count = new.len().min(len - at);
            bytes[at..at + count].copy_from_slice(&new[..count]);
        }
        Change::Copy { from, to, count } => {
            let (from, to) = (usize::from(*from) % len, usize::from(*to) % len);
            let count = usize::from(*count).min(len - from).min(len - to);
            bytes.copy_within(from..from + count, to);
        }
        Change::Cut(at) => bytes.truncate(*at as usize % len),
        Change::Zeros(sector) => {
            let at = usize::from(*sector) * 512 % len / 512 * 512;
            let end = (at + 512).min(len);
            bytes[at..end].fill(0);
        }
        Change::Remove => {}
    }
    let file = disk.open(path, OpenMode::Create).unwrap();
    file.set_len(0).unwrap();
    file.write_at(&bytes, 0).unwrap();
    file.sync().unwrap();
}

fn run(life: Life) {
    let outcome = sim::run(1, Duration::from_secs(600), move || async move {
        let node = sim::Node::new("node", IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
        let disk = SimDisk::new(1, DiskFaults::default());
        node.attach(&disk);
        node.spawn(write(disk.clone(), life.clone())).await.unwrap();
        let changed = disk.clone();
        let again = node.spawn(async move {
            let all = files(&changed);
            for (number, one) in life.changes.iter().take(8) {
                let path = &all[usize::from(*number) % all.len()];
                if changed.exists(path).unwrap() {
                    change(&changed, path, one);
                }
            }
            drop(start(&changed).await);
        });
        let ended = time::timeout(Duration::from_secs(60), again).await;
        assert!(matches!(ended, Ok(Ok(()))), "a start ends: {ended:?}");
    });
    outcome.result.unwrap();
}

#[test]
fn log_files() {
    bolero::check!()
        .with_iterations(100)
        .with_shrink_time(Duration::from_secs(10))
        .with_type::<Life>()
        .for_each(|life| run(life.clone()));
}
