//! A store on the real disk that is filled, flushed and merged as a server does it, with every byte and pause counted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use halyard_engine::{Append, Options, Store, StreamId, Timestamp};
use halyard_runtime::disk::{Disk, OpenMode, RealDisk};
use halyard_runtime::measure;

use crate::meter::Cost;

pub(crate) const STREAM: StreamId = StreamId(1);
/// When a server flushes.
const FLUSH_BYTES: usize = 64 << 20;

pub(crate) fn disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

pub(crate) fn options() -> Options {
    Options {
        reserve_bytes: 0,
        overwrite_freed: false,
        ..Options::default()
    }
}

/// A directory that is gone with its value.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("bench-{}-{name}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        disk().create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn text(&self) -> String {
        self.0.to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let disk = disk();
        for file in disk.list(&self.0).unwrap() {
            disk.remove_file(&self.0.join(file.name)).unwrap();
        }
        disk.remove_dir(&self.0).unwrap();
    }
}

/// Takes all files of a directory out of the page cache.
pub(crate) fn forget(dir: &Path) {
    for file in disk().list(dir).unwrap() {
        measure::forget_cached(&dir.join(file.name)).unwrap();
    }
}

/// Files of a directory, and their bytes.
pub(crate) fn files(dir: &Path) -> (usize, u64) {
    let files = disk().list(dir).unwrap();
    (files.len(), files.iter().map(|file| file.len).sum())
}

/// The disk's own rate in bytes/s: 1 MiB at a time, to a new file, a sync each 64 MiB.
pub(crate) fn sequential_rate(dir: &Path) -> f64 {
    const TOTAL: u64 = 512 << 20;
    let path = dir.join("rate");
    let file = disk().open(&path, OpenMode::Create).unwrap();
    let piece = vec![b'x'; 1 << 20];
    let (cost, ()) = Cost::of(|| {
        for at in (0..TOTAL).step_by(piece.len()) {
            file.write_at(&piece, at).unwrap();
            if (at + (1 << 20)) % (64 << 20) == 0 {
                file.sync().unwrap();
            }
        }
    });
    disk().remove_file(&path).unwrap();
    TOTAL as f64 / cost.wall.as_secs_f64()
}

/// A number that looks random and is the same in every run.
pub(crate) fn scatter(number: u64) -> u64 {
    number
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(31)
        .wrapping_mul(0xBF58_476D_1CE4_E5B9)
        >> 8
}

/// Which subject message `number` is of: each of `subjects` (a power of ten) once a round, every round in another order.
pub(crate) fn subject_of(number: u64, subjects: u64) -> u64 {
    const STEPS: [u64; 4] = [611_953, 7_368_787, 2_750_159, 9_999_991];
    let round = number / subjects;
    let step = STEPS[(round % 4) as usize];
    (number % subjects * step + round * 104_729) % subjects
}

/// `orders.REGION.NUMBER`: a hundred regions.
pub(crate) fn name_of(subject: u64) -> String {
    format!("orders.{}.{subject}", subject % 100)
}

pub(crate) fn append(subject: &str, payload: &[u8], time: u64) -> Append {
    Append {
        record: Bytes::from([subject.as_bytes(), payload].concat()),
        subject_len: subject.len() as u16,
        headers_len: 0,
        time: Timestamp::from_nanos(time as i64 * 1000),
        expires: None,
    }
}

/// What filling a store took.
#[derive(Debug, Default)]
pub(crate) struct Filled {
    pub(crate) stored_bytes: u64,
    pub(crate) appending: Cost,
    pub(crate) flushing: Cost,
    pub(crate) merging: Cost,
    pub(crate) flush_bytes: u64,
    pub(crate) merge_bytes: u64,
    /// The costliest single calls, for which the store is not free: `begin_flush`, `begin_maintenance`, `finish`.
    pub(crate) longest: [Cost; 3],
}

pub(crate) struct Bench {
    pub(crate) store: Store,
    pub(crate) filled: Filled,
    applied: u64,
}

impl Bench {
    pub(crate) fn open(dir: &Path) -> Self {
        let (store, report) = Store::open(disk(), dir, options()).unwrap();
        Self {
            store,
            filled: Filled::default(),
            applied: report.applied,
        }
    }

    fn pause(&mut self, which: usize, cost: Cost) {
        let longest = &mut self.filled.longest[which];
        if cost.cpu > longest.cpu {
            *longest = cost;
        }
    }

    pub(crate) fn flush(&mut self) {
        self.applied += 1;
        let (begin, job) = Cost::of(|| self.store.begin_flush(self.applied));
        self.pause(0, begin);
        self.filled.flushing += begin;
        let Some(job) = job else { return };
        let (run, done) = Cost::of(|| job.run());
        let (finish, finished) = Cost::of(|| self.store.finish(done).unwrap());
        self.pause(2, finish);
        self.filled.flushing += run;
        self.filled.flushing += finish;
        self.filled.flush_bytes += finished.bytes_written;
    }

    pub(crate) fn maintain(&mut self) {
        loop {
            let (begin, job) = Cost::of(|| self.store.begin_maintenance());
            self.pause(1, begin);
            self.filled.merging += begin;
            let Some(job) = job else { return };
            let (run, done) = Cost::of(|| job.run());
            let (finish, finished) = Cost::of(|| self.store.finish(done).unwrap());
            self.pause(2, finish);
            self.filled.merging += run;
            self.filled.merging += finish;
            self.filled.merge_bytes += finished.bytes_written;
        }
    }

    /// Appends `count` messages over `subjects` subjects, flushing and merging as a server does.
    pub(crate) fn fill(&mut self, count: u64, subjects: u64, payload_bytes: usize) {
        let payload = vec![b'x'; payload_bytes];
        let mut done = 0;
        while done < count {
            let batch = (count - done).min(10_000);
            let appends: Vec<_> = (done..done + batch)
                .map(|number| append(&name_of(subject_of(number, subjects)), &payload, number))
                .collect();
            let bytes: usize = appends.iter().map(|append| append.record.len()).sum();
            self.filled.stored_bytes += bytes as u64;
            let (cost, ()) = Cost::of(|| {
                for append in appends {
                    self.store.append(STREAM, append).unwrap();
                }
            });
            self.filled.appending += cost;
            done += batch;
            if self.store.dirty_bytes() > FLUSH_BYTES {
                self.flush();
                self.maintain();
            }
        }
        self.flush();
        self.maintain();
    }
}
