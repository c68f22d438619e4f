//! Logs that earlier releases wrote open for ever. HALYARD_GOLDEN=NAME makes the one of that name new, with the format of
//! now: once for each version.

#![allow(clippy::panic, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use halyard_raft::{
    Cipher, Encryption, Group, GroupId, Key, LogId, Machine, Node, NodeId, NodeOptions,
};
use halyard_runtime::disk::{Disk, MemDisk, OpenMode, RealDisk};
use halyard_runtime::{task, time};
use parking_lot::Mutex;

const GROUPS: [u32; 2] = [1, 7];
const ENTRIES: u64 = 9;

/// Remembers every entry.
#[derive(Default)]
struct Ledger(Vec<Bytes>);

impl Machine for Ledger {
    type Reply = ();
    fn apply(&mut self, _: LogId, payload: &Bytes) {
        self.0.push(payload.clone());
    }
}

fn sealed(cipher: Cipher) -> Option<Encryption> {
    Some(Encryption {
        cipher,
        key: Key([3; 32]),
        previous: None,
    })
}

fn options(disk: Arc<dyn Disk>, dir: &Path, encryption: Option<Encryption>) -> NodeOptions {
    NodeOptions {
        segment_bytes: 4 << 10,
        first_segment_bytes: 4 << 10,
        encryption,
        ..NodeOptions::new(disk, dir, NodeId(1))
    }
}

fn payload(group: u32, number: u64) -> Bytes {
    Bytes::from(format!("golden {group} {number} ").repeat(number as usize * 7 + 1))
}

async fn start(node: &Node, id: u32) -> Group<Ledger> {
    let machine = Arc::new(Mutex::new(Ledger::default()));
    node.start_group(GroupId(id), machine, 0)
        .await
        .expect("the group starts")
}

fn golden_dir(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("testdata")
        .join(name)
}

/// Writes a log of two groups over several files.
async fn write(dir: &Path, encryption: Option<Encryption>) {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let node = Node::open(options(disk, dir, encryption)).expect("a new log");
    for id in GROUPS {
        let group = start(&node, id).await;
        for number in 0..ENTRIES {
            group.propose(payload(id, number)).await.expect("applied");
        }
    }
    node.shutdown().await;
}

/// The files of a directory on the real disk, on one in memory: opening a log writes to it.
fn copy(from: &Path, to: &MemDisk, dir: &Path) {
    to.create_dir_all(dir).expect("a directory");
    for entry in RealDisk.list(from).expect("the golden log is there") {
        let bytes = RealDisk.read(&from.join(&entry.name)).expect("readable");
        let file = to.open(&dir.join(&entry.name), OpenMode::CreateNew);
        file.expect("a new file")
            .write_at(&bytes, 0)
            .expect("room in memory");
    }
}

#[test]
fn golden_logs_open() {
    let logs = [
        ("log-v1", None),
        ("log-v1-chacha", sealed(Cipher::ChaCha20Poly1305)),
        ("log-v1-aes", sealed(Cipher::Aes256Gcm)),
        ("log-v2-chacha", sealed(Cipher::ChaCha20Poly1305)),
        ("log-v2-aes", sealed(Cipher::Aes256Gcm)),
    ];
    let run = async {
        for (name, encryption) in logs {
            let dir = golden_dir(name);
            if std::env::var("HALYARD_GOLDEN").is_ok_and(|wanted| wanted == name) {
                write(&dir, encryption.clone()).await;
            }
            for id in [Some(NodeId(1)), None] {
                open(&dir, name, id, encryption.clone()).await;
            }
        }
    };
    task::block_on(2, async {
        time::timeout(Duration::from_secs(60), run)
            .await
            .expect("the test ends");
    })
    .expect("a runtime");
}

/// Opens a copy of a log as the node that it names, or as one that is given a name.
async fn open(dir: &Path, name: &str, id: Option<NodeId>, encryption: Option<Encryption>) {
    let (disk, root) = (MemDisk::new(), Path::new("/node"));
    copy(&dir.join("log"), &disk, &root.join("log"));
    let options = NodeOptions {
        node_id: id,
        ..options(Arc::new(disk), root, encryption)
    };
    let node = Node::open(options).expect(name);
    assert_eq!(node.found_groups(), GROUPS.map(GroupId), "{name}");
    for id in GROUPS {
        let group = start(&node, id).await;
        let expected: Vec<Bytes> = (0..ENTRIES).map(|number| payload(id, number)).collect();
        assert_eq!(group.machine().lock().0, expected, "{name}, group {id}");
        group
            .propose(Bytes::from_static(b"and it goes on"))
            .await
            .expect("applied");
    }
    node.shutdown().await;
}
