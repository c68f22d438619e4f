//! The log's writer and keeper on real threads, over a disk that takes its time: what the simulator, which runs one task at
//! a time and changes over only where one waits, cannot interleave.

#![allow(clippy::panic, reason = "a test may panic")]
#![allow(
    clippy::disallowed_methods,
    reason = "a disk blocks its thread; nothing here runs in simulated time"
)]

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use halyard_raft::{
    Error, Group, GroupId, LogId, Machine, Node, NodeId, NodeOptions, ProposeError,
};
use halyard_runtime::disk::{DirLock, Disk, Entry, File, MemDisk, OpenMode};
use halyard_runtime::{task, time};
use parking_lot::Mutex;

/// Keeps every payload.
#[derive(Default)]
struct Keep(Vec<Bytes>);

impl Machine for Keep {
    type Reply = ();
    fn apply(&mut self, _: LogId, payload: &Bytes) {
        self.0.push(payload.clone());
    }
}

/// What the disk does before each operation, which fails if this does.
type Before = dyn Fn(&'static str, &dyn File) -> io::Result<()> + Send + Sync;

/// A disk in memory with something to do before each operation on a file.
#[derive(Clone)]
struct Hooked {
    disk: Arc<MemDisk>,
    before: Arc<Before>,
    /// Every file that was ever opened, removed ones included.
    files: Arc<Mutex<Vec<Arc<dyn File>>>>,
}

impl Hooked {
    fn new(
        before: impl Fn(&'static str, &dyn File) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self {
            disk: Arc::new(MemDisk::new()),
            before: Arc::new(before),
            files: Arc::default(),
        }
    }

    /// Whether these bytes are in any file, or in space that one has given back.
    fn holds(&self, wanted: &[u8]) -> bool {
        self.files.lock().iter().any(|file| {
            let mut bytes = vec![0; file.len().expect("a length") as usize];
            // A file does not get shorter.
            file.read_exact_at(&mut bytes, 0).expect("its content");
            bytes.windows(wanted.len()).any(|window| window == wanted)
        })
    }
}

impl fmt::Debug for Hooked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hooked")
    }
}

struct HookedFile {
    file: Arc<dyn File>,
    before: Arc<Before>,
}

impl fmt::Debug for HookedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookedFile")
    }
}

impl HookedFile {
    fn before(&self, operation: &'static str) -> io::Result<&dyn File> {
        (self.before)(operation, &*self.file)?;
        Ok(&*self.file)
    }
}

impl File for HookedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.before("write")?.write_at(bytes, offset)
    }

    fn write_vectored_at(&self, pieces: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        self.before("write")?.write_vectored_at(pieces, offset)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.before("allocate")?.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn sync(&self) -> io::Result<()> {
        self.before("sync")?.sync()
    }
}

impl Disk for Hooked {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = self.disk.open(path, mode)?;
        self.files.lock().push(Arc::clone(&file));
        let before = Arc::clone(&self.before);
        Ok(Arc::new(HookedFile { file, before }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.disk.list(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<DirLock> {
        self.disk.lock(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }
}

const DIR: &str = "/store";

fn options(disk: &Hooked) -> NodeOptions {
    NodeOptions {
        segment_bytes: 16 << 10,
        first_segment_bytes: 8 << 10,
        ..NodeOptions::new(Arc::new(disk.clone()), DIR, NodeId(1))
    }
}

async fn start(node: &Node, durable: u64) -> (Group<Keep>, Arc<Mutex<Keep>>) {
    let machine = Arc::new(Mutex::new(Keep::default()));
    let group = node
        .start_group(GroupId(1), Arc::clone(&machine), durable)
        .await
        .expect("the group starts");
    (group, machine)
}

fn on_runtime<T>(test: impl Future<Output = T>) -> T {
    task::block_on(2, test).expect("a runtime")
}

/// A spare that is too short for the next batch is made longer, which takes a while: the keeper, which looks after the
/// spares every 100 ms meanwhile, must not make a second file of that number.
#[test]
fn a_segment_that_is_being_begun_is_nobody_elses() {
    on_runtime(async {
        let disk = Hooked::new(|operation, file| {
            let is_longer = operation == "allocate" && file.len().is_ok_and(|len| len > 0);
            if is_longer {
                std::thread::sleep(Duration::from_millis(400));
            }
            Ok(())
        });
        let node = Node::open(options(&disk)).expect("a new log");
        let (group, _) = start(&node, 0).await;
        let payloads: Vec<Bytes> = [100, 40_000, 200, 60_000, 300]
            .into_iter()
            .zip(1..)
            .map(|(bytes, byte)| Bytes::from(vec![byte; bytes]))
            .collect();
        for payload in &payloads {
            let proposed = time::timeout(Duration::from_secs(20), group.propose(payload.clone()));
            proposed.await.expect("in time").expect("applied");
        }
        node.shutdown().await;
        drop(node);
        let node = Node::open(options(&disk)).expect("a sound log");
        let (_, machine) = start(&node, 0).await;
        assert!(machine.lock().0 == payloads, "everything is read back");
        node.shutdown().await;
    });
}

/// Segments begun, let go and overwritten all the time, with pauses of any length in between.
#[test]
fn the_log_goes_round_while_it_is_overwritten_and_verified() {
    on_runtime(async {
        let state = AtomicU64::new(1);
        let disk = Hooked::new(move |_, _| {
            // A small generator of uneven numbers; the threads decide the order anyway.
            let step = |state: u64| {
                state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1)
            };
            let next = state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |s| Some(step(s)));
            std::thread::sleep(Duration::from_micros(next.unwrap_or_default() >> 55));
            Ok(())
        });
        let node = Arc::new(Node::open(options(&disk)).expect("a new log"));
        let (group, machine) = start(&node, 0).await;
        let verify = task::spawn_dedicated("verify", {
            let node = Arc::clone(&node);
            async move {
                let mut found = Vec::new();
                let mut pieces = 0;
                while Arc::strong_count(&node) > 1 {
                    found.extend(node.scrub_log(8 << 10).found);
                    pieces += 1;
                    std::thread::sleep(Duration::from_micros(50));
                }
                (pieces, found)
            }
        });
        let verify = verify.expect("a thread");
        let mut files = BTreeSet::new();
        let mut durable = 0;
        for n in 0..400u32 {
            if n % 8 == 3 {
                let position = node.retire_log();
                node.log_holders(position);
            }
            if n % 5 == 4 {
                durable = group.applied();
                group.flushed(durable);
            }
            let bytes = if n % 37 == 36 { 30_000 } else { 3000 };
            let payload = Bytes::from(vec![n as u8; bytes]);
            let proposed = time::timeout(Duration::from_secs(20), group.propose(payload));
            proposed.await.expect("in time").expect("applied");
            let list = disk.list(&Path::new(DIR).join("log")).expect("a directory");
            files.extend(list.into_iter().map(|entry| entry.name));
        }
        assert!(files.len() > 30, "the log went on: {} files", files.len());
        let applied = group.applied();
        node.shutdown().await;
        let written = std::mem::take(&mut machine.lock().0);
        drop((group, node));
        let (pieces, found) = verify.await.expect("no panic");
        assert!(pieces > 100, "verified in {pieces} pieces");
        assert!(found.is_empty(), "{found:?}");
        let node = Node::open(options(&disk)).expect("a sound log");
        // What the store behind does not have comes from the log.
        let (again, machine) = start(&node, durable).await;
        assert!(again.applied() >= applied);
        let read = std::mem::take(&mut machine.lock().0);
        assert_eq!(read.len() as u64, applied - durable);
        assert!(written.ends_with(&read), "read back as it was written");
        node.shutdown().await;
    });
}

/// A disk on which even overwriting needs room (one that copies on write) and has none for a while: what could not be
/// overwritten then is later, and nothing is said to be gone before.
#[test]
fn what_could_not_be_overwritten_is_not_forgotten() {
    const CANARY: [u8; 64] = [0xca; 64];
    on_runtime(async {
        let is_full = Arc::new(AtomicBool::new(false));
        let disk = Hooked::new({
            let is_full = Arc::clone(&is_full);
            move |operation, _| match operation == "write" && is_full.load(Ordering::Acquire) {
                // The log's own thread goes on: its segment has the room that it needs.
                true if std::thread::current().name() == Some("halyard-log-keep") => {
                    Err(io::ErrorKind::StorageFull.into())
                }
                _ => Ok(()),
            }
        });
        let node = Node::open(options(&disk)).expect("a new log");
        let (group, _) = start(&node, 0).await;
        let canary = Bytes::from(CANARY.repeat(40));
        for round in 0..6 {
            for _ in 0..20 {
                group.propose(canary.clone()).await.expect("applied");
            }
            // Some of it is in spares by then, some in segments that are to go.
            group.flushed(group.applied() - 5 * (round % 3));
            time::sleep(Duration::from_millis(50)).await;
            is_full.store(true, Ordering::Release);
            group.flushed(group.applied());
            let position = node.retire_log();
            time::sleep(Duration::from_millis(200)).await;
            assert!(node.log_retired() < position || !disk.holds(&CANARY));
            is_full.store(false, Ordering::Release);
            let began = time::Instant::now();
            while node.log_retired() < position {
                assert!(began.elapsed() < Duration::from_secs(20), "never");
                node.log_holders(position);
                time::sleep(Duration::from_millis(5)).await;
            }
            assert!(!disk.holds(&CANARY), "in round {round}");
        }
        assert!(node.poisoned().is_none());
        node.shutdown().await;
    });
}

/// Whoever waits for the log is told when its thread is no more.
#[test]
fn a_panic_of_the_logs_thread_is_an_end_and_no_silence() {
    on_runtime(async {
        let writes = AtomicU64::new(0);
        let disk = Hooked::new(move |operation, _| {
            let count = operation == "write" && writes.fetch_add(1, Ordering::AcqRel) > 20;
            assert!(!count, "as planned by the test");
            Ok(())
        });
        let node = Node::open(options(&disk)).expect("a new log");
        let (group, _) = start(&node, 0).await;
        let mut outcome = Ok(());
        for _ in 0..40 {
            let payload = Bytes::from(vec![1; 100]);
            let proposed = time::timeout(Duration::from_secs(20), group.propose(payload));
            outcome = proposed.await.expect("told");
            if outcome.is_err() {
                break;
            }
        }
        assert!(
            matches!(outcome, Err(ProposeError::Poisoned(_))),
            "{outcome:?}"
        );
        let poison = node.poisoned().expect("the log has failed");
        assert!(matches!(*poison, Error::Poisoned(_)), "{poison}");
        assert!(poison.to_string().contains("halyard-log"), "{poison}");
        node.shutdown().await;
    });
}
