//! The figures of the store, as a table for docs/performance.md: `cargo bench -p halyard-engine`.
//!
//! A plain program and no benchmark harness: the questions are of one large store (open it, purge one subject of a
//! million, flush a hundred thousand streams), each asked once or a few thousand times, and harnesses repeat small
//! functions. HALYARD_BENCH_MESSAGES=1000000,10000000 sets the sizes; the directory is a real one under target/tmp.
//! Times are CPU time of the thread (from /proc), so that a busy machine does not show in them (below 20 ms: wall time); waiting for the disk is
//! therefore not in them either, the copying from its cache is. "cold" is a store that was just opened: its own cache is empty, the operating system's may not be.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program that prints a table"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use halyard_engine::{Append, Erase, Filter, Filters, Options, Purge, Store, StreamId, Timestamp};
use halyard_runtime::disk::{Disk, RealDisk};

const STREAM: StreamId = StreamId(1);
const FLUSH_BYTES: usize = 64 << 20;

fn disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

fn options() -> Options {
    Options {
        reserve_bytes: 0,
        overwrite_freed: false,
        ..Options::default()
    }
}

/// A moment on two clocks.
#[derive(Clone, Copy)]
struct Instant {
    wall: halyard_runtime::time::Instant,
    cpu_nanos: u64,
}

impl Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "no door leads to a thread's CPU time, and only figures need it"
    )]
    fn now() -> Self {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        let cpu_nanos = text
            .split(' ')
            .next()
            .and_then(|nanos| nanos.parse().ok())
            .unwrap();
        Self {
            wall: halyard_runtime::time::Instant::now(),
            cpu_nanos,
        }
    }

    /// CPU time since then; the kernel counts it in ticks of some milliseconds, so short times are wall time.
    fn elapsed(self) -> Duration {
        let now = Self::now();
        let cpu = Duration::from_nanos(now.cpu_nanos - self.cpu_nanos);
        if cpu.as_millis() >= 20 {
            cpu
        } else {
            now.wall - self.wall
        }
    }
}

struct Bench {
    dir: PathBuf,
    store: Store,
    applied: u64,
    written: u64,
    flushing: Duration,
    merging: Duration,
    longest_begin: Duration,
}

impl Bench {
    fn new(name: &str) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("bench-{}-{name}", std::process::id()));
        let (store, _) = Store::open(disk(), &dir, options()).unwrap();
        let zero = Duration::ZERO;
        Self {
            dir,
            store,
            applied: 0,
            written: 0,
            flushing: zero,
            merging: zero,
            longest_begin: zero,
        }
    }

    fn flush(&mut self) {
        let start = Instant::now();
        self.applied += 1;
        let job = self.store.begin_flush(self.applied);
        self.longest_begin = self.longest_begin.max(start.elapsed());
        if let Some(job) = job {
            self.written += self.store.finish(job.run()).unwrap().bytes_written;
        }
        self.flushing += start.elapsed();
    }

    fn maintain(&mut self) {
        let start = Instant::now();
        while let Some(job) = self.store.begin_maintenance() {
            self.written += self.store.finish(job.run()).unwrap().bytes_written;
        }
        self.merging += start.elapsed();
    }

    fn reopen(&mut self) -> Duration {
        let start = Instant::now();
        let (store, _) = Store::open(disk(), &self.dir, options()).unwrap();
        let took = start.elapsed();
        self.store = store;
        took
    }

    fn files(&self) -> (usize, u64) {
        let files = disk().list(&self.dir).unwrap();
        (files.len(), files.iter().map(|file| file.len).sum())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let disk = disk();
        for file in disk.list(&self.dir).unwrap() {
            disk.remove_file(&self.dir.join(file.name)).unwrap();
        }
        disk.remove_dir(&self.dir).unwrap();
    }
}

fn record(subject: &str, payload: &[u8]) -> (Bytes, u16) {
    (
        [subject.as_bytes(), payload].concat().into(),
        subject.len() as u16,
    )
}

/// A number that looks random and is the same in every run.
fn scatter(number: u64) -> u64 {
    number
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(31)
        .wrapping_mul(0xBF58_476D_1CE4_E5B9)
        >> 8
}

fn row(name: &str, value: impl std::fmt::Display) {
    println!("| {name} | {value} |");
}

fn each(took: Duration, count: u64) -> String {
    let nanos = took.as_nanos() as f64 / count as f64;
    if nanos < 10_000.0 {
        format!("{nanos:.0} ns")
    } else {
        format!("{:.1} us", nanos / 1000.0)
    }
}

/// Appends `count` messages over `subjects` subjects, flushing as a server does; returns the time in `append` alone.
fn fill(bench: &mut Bench, count: u64, subjects: u64, payload_bytes: usize) -> Duration {
    let payload = vec![b'x'; payload_bytes];
    let mut appending = Duration::ZERO;
    let mut done = 0;
    while done < count {
        let batch = (count - done).min(10_000);
        let records: Vec<_> = (done..done + batch)
            .map(|number| record(&format!("orders.{}", scatter(number) % subjects), &payload))
            .collect();
        let start = Instant::now();
        for (number, (record, subject_len)) in records.into_iter().enumerate() {
            let time = Timestamp::from_nanos((done + number as u64) as i64 * 1000);
            let append = Append {
                record,
                subject_len,
                headers_len: 0,
                time,
                expires: None,
            };
            bench.store.append(STREAM, append).unwrap();
        }
        appending += start.elapsed();
        done += batch;
        if bench.store.dirty_bytes() > FLUSH_BYTES {
            bench.flush();
            bench.maintain();
        }
    }
    bench.flush();
    appending
}

fn append_figures() {
    println!("\n| append | figure |\n|---|---|");
    for (payload, subjects, count) in [
        (128, 10, 1_000_000),
        (128, 1_000_000, 1_000_000),
        (1024, 10, 200_000),
    ] {
        let mut bench = Bench::new("append");
        bench.store.create_stream(STREAM, 1).unwrap();
        let took = fill(&mut bench, count, subjects, payload);
        let stored = count * (payload as u64 + 13);
        let name = format!("{payload} B, {subjects} subjects: append");
        row(&name, each(took, count));
        let flush = bench.flushing.as_secs_f64();
        let name = format!(
            "{payload} B, {subjects} subjects: flush, its bytes for each stored byte, longest begin_flush"
        );
        let (rate, amplification) = (
            stored as f64 / flush / 1e6,
            bench.written as f64 / stored as f64,
        );
        row(
            &name,
            format!(
                "{rate:.0} MB/s, {amplification:.2}, {:.1} ms",
                bench.longest_begin.as_secs_f64() * 1e3
            ),
        );
    }
}

fn large_store(count: u64) {
    let mut bench = Bench::new("large");
    bench.store.create_stream(STREAM, 1).unwrap();
    let subjects = 1_000_000;
    let took = fill(&mut bench, count, subjects, 128);
    bench.maintain();
    println!("\n| {count} messages of 128 B over {subjects} subjects | figure |\n|---|---|");
    row("append, mean", each(took, count));
    let (files, bytes) = bench.files();
    row("files, bytes", format!("{files}, {} MB", bytes >> 20));
    row(
        "written for each stored byte, merges included",
        format!("{:.2}", bench.written as f64 / (count * 141) as f64),
    );
    row("merging", format!("{:.1} s", bench.merging.as_secs_f64()));
    row(
        "open",
        format!("{:.0} ms", bench.reopen().as_secs_f64() * 1e3),
    );
    let found = bench.store.state(STREAM).unwrap();
    row(
        "index bytes for each subject",
        format!(
            "{:.0}",
            bench.store.index_bytes(STREAM) as f64 / found.subjects as f64
        ),
    );
    let start = Instant::now();
    for number in 0..2000 {
        bench
            .store
            .get(STREAM, 1 + scatter(number) % count)
            .unwrap()
            .unwrap();
    }
    row("random get", each(start.elapsed(), 2000));
    let start = Instant::now();
    for seq in 1..=100_000 {
        bench.store.get(STREAM, seq).unwrap().unwrap();
    }
    row("sequential get", each(start.elapsed(), 100_000));
    for state in ["cold", "warm"] {
        let start = Instant::now();
        for number in 0..200 {
            let name = format!("orders.{}", scatter(number) % subjects);
            let filters = Filters::from(Filter::parse(name.as_bytes()).unwrap());
            bench
                .store
                .next_matching(STREAM, &filters, count / 3)
                .unwrap();
        }
        row(
            &format!("next match of one subject in a million, {state}"),
            each(start.elapsed(), 200),
        );
    }
    for text in [">", "orders.>", "orders.*"] {
        let filters = Filters::from(Filter::parse(text.as_bytes()).unwrap());
        for (place, from) in [("the start", 1), ("the middle", count / 2)] {
            let start = Instant::now();
            bench.store.count_matching(STREAM, &filters, from).unwrap();
            row(
                &format!("count of `{text}` from {place}"),
                each(start.elapsed(), 1),
            );
        }
    }
    let filters = Filters::from(Filter::parse(b"orders.1*").unwrap());
    let start = Instant::now();
    bench
        .store
        .next_matching(STREAM, &filters, count / 2)
        .unwrap();
    row(
        "next match of a filter that matches nothing",
        each(start.elapsed(), 1),
    );
    let start = Instant::now();
    for number in 0..100 {
        let name = format!("orders.{}", scatter(number) % subjects);
        let filters = Filters::from(Filter::parse(name.as_bytes()).unwrap());
        bench
            .store
            .purge(
                STREAM,
                &Purge {
                    filters,
                    ..Purge::default()
                },
                Erase::No,
            )
            .unwrap();
    }
    row(
        "purge of one subject among a million",
        each(start.elapsed(), 100),
    );
    let start = Instant::now();
    for _ in 0..20_000 {
        bench.store.remove_first(STREAM).unwrap();
    }
    row("remove_first (limits)", each(start.elapsed(), 20_000));
    let start = Instant::now();
    bench
        .store
        .purge(STREAM, &Purge::default(), Erase::No)
        .unwrap();
    row("purge of everything", each(start.elapsed(), 1));
}

fn many_streams(count: u64) {
    let mut bench = Bench::new("streams");
    println!("\n| {count} streams in one store, one message each | figure |\n|---|---|");
    let start = Instant::now();
    for id in 1..=count {
        bench.store.create_stream(StreamId(id), 1).unwrap();
    }
    row("create", each(start.elapsed(), count));
    let (record, subject_len) = record("orders.1", &[b'x'; 128]);
    let start = Instant::now();
    for id in 1..=count {
        let time = Timestamp::from_nanos(id as i64);
        let append = Append {
            record: record.clone(),
            subject_len,
            headers_len: 0,
            time,
            expires: None,
        };
        bench.store.append(StreamId(id), append).unwrap();
    }
    row(
        "append, each to another stream",
        each(start.elapsed(), count),
    );
    bench.flush();
    row(
        "flush of all",
        format!("{:.0} ms", bench.flushing.as_secs_f64() * 1e3),
    );
    row(
        "begin_flush (the store waits)",
        format!("{:.0} ms", bench.longest_begin.as_secs_f64() * 1e3),
    );
    let (files, bytes) = bench.files();
    row(
        "files, bytes for each stream",
        format!("{files}, {}", bytes / count),
    );
    row(
        "open",
        format!("{:.0} ms", bench.reopen().as_secs_f64() * 1e3),
    );
}

fn main() {
    let sizes = std::env::var("HALYARD_BENCH_MESSAGES").unwrap_or_else(|_| "1000000".into());
    append_figures();
    for size in sizes.split(',').filter_map(|text| text.parse().ok()) {
        large_store(size);
    }
    many_streams(100_000);
}
