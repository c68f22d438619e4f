//! The whole durable path of a stream without sockets: batches through consensus and the node's log, applied to a store,
//! acknowledged when they are on disk; flushes and merges beside it as in a server.
//!
//! Rates are sustained ones: the clock stops when everything is also in segments. Bytes are what the log, the flushes and
//! the merges say that they wrote, and what the kernel counted for the process altogether (the zeros that the log fills
//! its first files with are only in that).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use halyard_engine::{Append, JobDone, Options, Store, StreamId, Timestamp};
use halyard_raft::{Group, GroupId, LogId, Machine, Node};
use halyard_runtime::disk::{Disk, OpenMode, RealDisk};
use halyard_runtime::time::{self, Instant};
use halyard_runtime::{measure, task};
use parking_lot::Mutex;

const STREAM: StreamId = StreamId(1);
const BATCH: u64 = 500;
/// When a server flushes, and how many entries it has in flight.
const FLUSH_BYTES: usize = 64 << 20;
const IN_FLIGHT: usize = 4;

/// A store as a machine. An entry is the time and (subject length u16, record length u32, record)*; an empty one removes
/// as many messages as a batch has, as acknowledgements on a work queue do.
struct Storing {
    store: Store,
    applied: u64,
}

impl Machine for Storing {
    type Reply = ();

    fn apply(&mut self, at: LogId, payload: &Bytes) {
        self.applied = at.index;
        if payload.is_empty() {
            for _ in 0..BATCH {
                self.store.remove_first(STREAM).expect("a message");
            }
            return;
        }
        let (head, _) = payload.split_first_chunk::<8>().expect("a time");
        let time = Timestamp::from_nanos(i64::from_le_bytes(*head));
        let mut at = 8;
        while at < payload.len() {
            let subject_len = u16::from_le_bytes([payload[at], payload[at + 1]]);
            let len = payload[at + 2..at + 6].first_chunk().expect("a length");
            let start = at + 6;
            at = start + u32::from_le_bytes(*len) as usize;
            let append = Append {
                record: payload.slice(start..at),
                subject_len,
                headers_len: 0,
                time,
                expires: None,
            };
            self.store.append(STREAM, append).expect("appended");
        }
    }
}

fn batch(number: u64, subjects: u64, payload: &[u8]) -> Bytes {
    let mut entry = BytesMut::with_capacity(BATCH as usize * (payload.len() + 40));
    entry.put_i64_le(number as i64);
    for message in number * BATCH..(number + 1) * BATCH {
        let subject = format!("orders.{}", message.wrapping_mul(611_953) % subjects);
        entry.put_u16_le(subject.len() as u16);
        entry.put_u32_le((subject.len() + payload.len()) as u32);
        entry.put_slice(subject.as_bytes());
        entry.put_slice(payload);
    }
    entry.freeze()
}

/// Flushes and merges while the load runs.
struct Keeper {
    group: Group<Storing>,
    flushed: AtomicU64,
    merged: AtomicU64,
    longest_pause: Mutex<Duration>,
    stop: AtomicBool,
}

impl Keeper {
    fn with<T>(&self, work: impl FnOnce(&mut Storing) -> T) -> T {
        let mut machine = self.group.machine().lock();
        let start = Instant::now();
        let result = work(&mut machine);
        let mut longest = self.longest_pause.lock();
        *longest = start.elapsed().max(*longest);
        result
    }

    fn finish(&self, done: JobDone, count: &AtomicU64) {
        let finished = self.with(|machine| machine.store.finish(done).expect("finished"));
        count.fetch_add(finished.bytes_written, Ordering::Relaxed);
        self.group.flushed(finished.applied);
    }

    fn flush(&self) {
        if let Some(job) = self.with(|machine| machine.store.begin_flush(machine.applied)) {
            self.finish(job.run(), &self.flushed);
        }
    }

    fn maintain(&self) -> bool {
        let job = self.with(|machine| machine.store.begin_maintenance());
        let found = job.is_some();
        if let Some(job) = job {
            self.finish(job.run(), &self.merged);
        }
        found
    }

    async fn run(self: Arc<Self>) {
        while !self.stop.load(Ordering::Relaxed) {
            if self.group.machine().lock().store.dirty_bytes() >= FLUSH_BYTES {
                self.flush();
            } else if !self.maintain() {
                time::sleep(Duration::from_millis(5)).await;
            }
        }
        self.flush();
    }
}

/// The disk's own rate in bytes/s: 1 MiB at a time, to a new file, a sync each 64 MiB.
fn sequential_rate(dir: &Path) -> std::io::Result<f64> {
    const TOTAL: u64 = 1 << 30;
    let path = dir.join("rate");
    let file = RealDisk.open(&path, OpenMode::Create)?;
    let piece = vec![b'x'; 1 << 20];
    let start = Instant::now();
    for at in (0..TOTAL).step_by(piece.len()) {
        file.write_at(&piece, at)?;
        if (at + (1 << 20)) % (64 << 20) == 0 {
            file.sync()?;
        }
    }
    let rate = TOTAL as f64 / start.elapsed().as_secs_f64();
    RealDisk.remove_file(&path)?;
    Ok(rate)
}

/// One load.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) name: &'static str,
    subjects: u64,
    payload: usize,
    in_flight: usize,
    /// Each batch is removed by the entry after it, as if it was consumed and acknowledged.
    consumed: bool,
}

const fn load(name: &'static str, subjects: u64, payload: usize, in_flight: usize) -> Load {
    Load {
        name,
        subjects,
        payload,
        in_flight,
        consumed: false,
    }
}

pub(crate) const LOADS: [Load; 7] = [
    load("500 x 128 B, 1 in flight", 1000, 128, 1),
    load("500 x 128 B, 4 in flight", 1000, 128, IN_FLIGHT),
    load("500 x 128 B, 1 M subjects", 1_000_000, 128, IN_FLIGHT),
    load("500 x 1 KiB, 1 in flight", 1000, 1024, 1),
    load("500 x 1 KiB, 4 in flight", 1000, 1024, IN_FLIGHT),
    Load {
        consumed: true,
        ..load("500 x 128 B, consumed at once", 1000, 128, IN_FLIGHT)
    },
    Load {
        consumed: true,
        ..load("500 x 1 KiB, consumed at once", 1000, 1024, IN_FLIGHT)
    },
];

/// The head of the table that [`Load::run`] gives rows of.
pub(crate) const HEAD: &str = "| batches | messages/s | stored MB/s, of the disk's own rate | p50, p99 of a batch \
| CPU of a message | written for each stored byte: log + flush (+ merges); counted by the kernel | longest pause |\n\
|---|---|---|---|---|---|---|";

impl Load {
    /// Offers batches for so long; the microseconds of each, the messages, and the bytes of their records.
    async fn offer(self, group: &Group<Storing>, length: Duration) -> (Vec<u64>, u64, u64) {
        let (payload, mut waiting) = (vec![b'x'; self.payload], std::collections::VecDeque::new());
        let (mut micros, mut batches, mut stored) = (Vec::new(), 0, 0);
        let start = Instant::now();
        while start.elapsed() < length || !waiting.is_empty() {
            while start.elapsed() < length && waiting.len() < self.in_flight {
                let entry = batch(batches, self.subjects, &payload);
                stored += entry.len() as u64 - 8 - 6 * BATCH;
                let at = Instant::now();
                let proposal = group.propose(entry);
                if self.consumed {
                    // Behind the batch in the log; nobody waits for it.
                    drop(group.propose(Bytes::new()));
                }
                waiting.push_back((at, proposal));
                batches += 1;
            }
            if let Some((at, proposal)) = waiting.pop_front() {
                proposal.await.expect("applied");
                micros.push(at.elapsed().as_micros() as u64);
            }
        }
        if self.consumed {
            // When this is applied, all removals are.
            let last = batch(batches, self.subjects, &payload);
            group.propose(last).await.expect("applied");
        }
        (micros, batches * BATCH, stored)
    }

    /// Runs it on a group of its own; a row of the table.
    pub(crate) async fn run(self, node: &Node, dir: &Path, id: u32, length: Duration) -> String {
        let dir: PathBuf = dir.join(format!("store-{id}"));
        let disk_rate = sequential_rate(dir.parent().expect("a parent")).expect("a disk");
        let options = Options {
            reserve_bytes: 0,
            overwrite_freed: false,
            ..Options::default()
        };
        let (mut store, _) = Store::open(Arc::new(RealDisk), &dir, options).expect("a store");
        store.create_stream(STREAM, 1).expect("a stream");
        let machine = Arc::new(Mutex::new(Storing { store, applied: 0 }));
        let group = node
            .start_group(GroupId(id), machine, 0)
            .await
            .expect("a group");
        let keeper = Arc::new(Keeper {
            group: group.clone(),
            flushed: AtomicU64::new(0),
            merged: AtomicU64::new(0),
            longest_pause: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let log = node.metrics().bytes_written;
        let traffic = measure::traffic().expect("counters").written;
        let (cpu, start) = (measure::process_cpu(), Instant::now());
        let beside = task::spawn_dedicated("keeper", Arc::clone(&keeper).run()).expect("a thread");
        let (mut micros, messages, stored) = self.offer(&group, length).await;
        let log = node.metrics().bytes_written - log;
        keeper.stop.store(true, Ordering::Relaxed);
        beside.await.expect("no panic");
        let (seconds, cpu) = (start.elapsed().as_secs_f64(), measure::process_cpu() - cpu);
        while keeper.maintain() {}
        let traffic = measure::traffic().expect("counters").written - traffic;
        let stored = stored as f64;
        micros.sort_unstable();
        let at = |permille: usize| micros[(micros.len() - 1) * permille / 1000];
        let for_each = |bytes: u64| bytes as f64 / stored;
        let (flushed, merged) = (
            for_each(keeper.flushed.load(Ordering::Relaxed)),
            for_each(keeper.merged.load(Ordering::Relaxed)),
        );
        let row = format!(
            "| {} | {:.0} | {:.0}, {:.0} % of {:.0} | {} us, {} us | {:.2} us | {:.2} + {flushed:.2} (+ {merged:.2}); {:.2} | {:.0} ms |",
            self.name,
            messages as f64 / seconds,
            stored / seconds / 1e6,
            100.0 * stored / seconds / disk_rate,
            disk_rate / 1e6,
            at(500),
            at(990),
            cpu.as_secs_f64() * 1e6 / messages as f64,
            for_each(log),
            for_each(traffic),
            keeper.longest_pause.lock().as_secs_f64() * 1e3,
        );
        drop(keeper);
        node.drop_group(GroupId(id)).await.expect("dropped");
        remove(&dir);
        row
    }
}

fn remove(dir: &Path) {
    for file in RealDisk.list(dir).expect("a directory") {
        RealDisk.remove_file(&dir.join(file.name)).expect("removed");
    }
    RealDisk.remove_dir(dir).expect("removed");
}
