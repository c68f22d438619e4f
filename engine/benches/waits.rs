//! How long the store keeps its caller waiting: the longest single call under the machine's lock with a hundred thousand
//! streams, how long a flush waits for a merge, and counts of wildcard filters. `cargo bench -p halyard-engine --bench waits`.
//!
//! Times of calls are CPU time of the thread where that can be told, so that a busy machine does not show in them; the
//! disk is a real one under target/tmp, and waiting for it is not in them either. The time between two flushes is wall
//! time.
//! HALYARD_BENCH_STREAMS, HALYARD_BENCH_MERGE_MB and HALYARD_BENCH_SUBJECTS set the sizes (0 leaves a part out).

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program that prints a table"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use halyard_engine::{Append, Filters, Job, Options, Store, StreamId, Timestamp};
use halyard_runtime::disk::{Disk, RealDisk};
use halyard_runtime::time::Instant;

fn size(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn row(name: &str, value: impl std::fmt::Display) {
    println!("| {name} | {value} |");
}

fn millis(took: Duration) -> String {
    format!("{:.2} ms", took.as_secs_f64() * 1e3)
}

/// A number that looks random and is the same in every run.
fn scatter(number: u64) -> u64 {
    number
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(31)
        .wrapping_mul(0xBF58_476D_1CE4_E5B9)
        >> 8
}

/// A moment on two clocks.
#[derive(Clone, Copy)]
struct Moment {
    wall: Instant,
    cpu_nanos: u64,
}

impl Moment {
    #[expect(
        clippy::disallowed_methods,
        reason = "no door leads to a thread's CPU time, and only figures need it"
    )]
    fn now() -> Self {
        // The kernel brings the counter up to date when the thread gives way.
        std::thread::yield_now();
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        let cpu_nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
        Self {
            wall: Instant::now(),
            cpu_nanos: cpu_nanos.unwrap(),
        }
    }

    fn elapsed(self) -> Duration {
        let wall = self.wall.elapsed();
        let cpu = Duration::from_nanos(Self::now().cpu_nanos - self.cpu_nanos);
        if cpu.is_zero() { wall } else { cpu.min(wall) }
    }
}

/// Calls of one kind: how many, the longest, the sum.
#[derive(Default)]
struct Calls {
    count: u64,
    longest: Duration,
    sum: Duration,
}

impl Calls {
    fn time<T>(&mut self, run: impl FnOnce() -> T) -> T {
        let start = Moment::now();
        let value = run();
        let took = start.elapsed();
        self.count += 1;
        self.longest = self.longest.max(took);
        self.sum += took;
        value
    }
}

impl std::fmt::Display for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (longest, sum) = (millis(self.longest), millis(self.sum));
        write!(f, "longest {longest} of {}, together {sum}", self.count)
    }
}

struct Bench {
    dir: PathBuf,
    store: Store,
    applied: u64,
}

impl Bench {
    fn new(name: &str, options: Options) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("waits-{}-{name}", std::process::id()));
        let (store, _) = Store::open(Arc::new(RealDisk), &dir, options).unwrap();
        Self {
            dir,
            store,
            applied: 0,
        }
    }

    fn append(&mut self, stream: u64, subject: &str, payload: &[u8]) {
        self.applied += 1;
        let append = Append {
            record: Bytes::from([subject.as_bytes(), payload].concat()),
            subject_len: subject.len() as u16,
            headers_len: 0,
            time: Timestamp::from_nanos(self.applied as i64 * 1000),
            expires: None,
        };
        self.store.append(StreamId(stream), append).unwrap();
    }

    fn begin_flush(&mut self, calls: &mut Calls) -> Option<Job> {
        let applied = self.applied;
        calls.time(|| self.store.begin_flush(applied))
    }

    fn flush(&mut self) {
        if let Some(job) = self.store.begin_flush(self.applied) {
            self.store.finish(job.run()).unwrap();
        }
    }

    /// Steps, as a driver takes them.
    fn steps(&mut self, calls: &mut Waits) {
        while calls.step.time(|| self.store.step(STEP_STREAMS)) {}
    }

    /// Runs what is ready, and then what that makes ready.
    fn work(&mut self, calls: &mut Waits) {
        self.steps(calls);
        while let Some(job) = calls.take.time(|| self.store.take_job()) {
            let done = job.run();
            calls.accept.time(|| self.store.accept(done)).unwrap();
            self.steps(calls);
            drop(self.store.take_retired());
        }
    }
}

/// Streams of one step, as a server has it.
const STEP_STREAMS: usize = 1000;

/// Calls under the lock.
#[derive(Default)]
struct Waits {
    cut: Calls,
    look: Calls,
    step: Calls,
    take: Calls,
    accept: Calls,
}

impl Drop for Bench {
    fn drop(&mut self) {
        for file in RealDisk.list(&self.dir).unwrap() {
            RealDisk.remove_file(&self.dir.join(file.name)).unwrap();
        }
        RealDisk.remove_dir(&self.dir).unwrap();
    }
}

fn options() -> Options {
    Options {
        reserve_bytes: 0,
        overwrite_freed: false,
        ..Options::default()
    }
}

/// Every call that a driver makes under the lock while all streams change, flush and are merged.
fn many_streams(count: u64) {
    let mut bench = Bench::new("streams", options());
    for id in 1..=count {
        bench.store.create_stream(StreamId(id), 1).unwrap();
    }
    let mut calls = Waits::default();
    for round in 0..9u64 {
        for id in 1..=count {
            bench.append(id, "orders.1", &[b'x'; 128]);
        }
        let applied = bench.applied;
        assert!(calls.cut.time(|| bench.store.cut(applied)));
        bench.store.records_done();
        bench.work(&mut calls);
        for id in (1..=count).filter(|id| (id + round) % 3 == 0) {
            bench.store.remove_first(StreamId(id)).unwrap();
        }
        for _ in 0..4 {
            calls.look.time(|| bench.store.look_for_maintenance());
            bench.work(&mut calls);
        }
    }
    println!(
        "\n| {count} streams change, are flushed and merged: calls under the lock | figure |\n|---|---|"
    );
    row("cut", calls.cut);
    row("look for maintenance", calls.look);
    row(&format!("step of {STEP_STREAMS} streams"), calls.step);
    row("take a job", calls.take);
    row("accept a job", calls.accept);
}

/// Flushes that are due every quarter of a second while one merge of so many megabytes runs.
#[expect(
    clippy::disallowed_methods,
    reason = "a measurement: the merge has a thread of its own and no executor beside it"
)]
fn flush_beside_merge(megabytes: u64) {
    let options = Options {
        segment_bytes_max: 64 << 30,
        ..options()
    };
    let mut bench = Bench::new("merge", options);
    bench.store.create_stream(StreamId(1), 1).unwrap();
    let payload = vec![b'x'; 1000];
    for _ in 0..4 {
        for number in 0..megabytes * 1000 / 4 {
            bench.append(1, &format!("orders.{}", number % 1000), &payload);
        }
        bench.flush();
    }
    let start = Instant::now();
    let merge = bench.store.begin_maintenance().unwrap();
    let merge = std::thread::Builder::new()
        .spawn(move || merge.run())
        .unwrap();
    let (mut longest, mut flushes, mut tail) = (Duration::ZERO, 0, 0);
    let (mut begin, mut finish) = (Calls::default(), Calls::default());
    let mut due = Instant::now();
    let mut is_merging = true;
    let mut merge = Some(merge);
    while is_merging {
        for number in 0..1000u64 {
            bench.append(1, &format!("orders.{}", number % 1000), &payload);
        }
        tail = tail.max(bench.store.dirty_bytes());
        if merge.as_ref().is_some_and(|merge| merge.is_finished()) {
            let done = merge.take().unwrap().join().unwrap();
            bench.store.finish(done).unwrap();
            is_merging = false;
        }
        if due.elapsed() > Duration::from_millis(250)
            && let Some(job) = bench.begin_flush(&mut begin)
        {
            longest = longest.max(due.elapsed());
            let done = job.run();
            finish.time(|| bench.store.finish(done)).unwrap();
            flushes += 1;
            due = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    println!("\n| {megabytes} MB in one merge; a flush is due after 250 ms | figure |\n|---|---|");
    row("the merge", millis(start.elapsed()));
    row("flushes meanwhile", flushes);
    row("longest time between two flushes", millis(longest));
    row("largest tail in memory", format!("{} MB", tail >> 20));
}

fn counts(subjects: u64) {
    let mut bench = Bench::new("counts", options());
    bench.store.create_stream(StreamId(1), 1).unwrap();
    let messages = subjects * 8 / 5;
    for number in 0..messages {
        let subject = match number % 16 {
            0 => format!("other.{}", scatter(number) % 1000),
            1 => format!("orders.{}.paid", scatter(number) % subjects),
            _ => format!("orders.{}", scatter(number) % subjects),
        };
        bench.append(1, &subject, &[b'x'; 128]);
        if bench.store.dirty_bytes() > 64 << 20 {
            bench.flush();
        }
    }
    bench.flush();
    while let Some(job) = bench.store.begin_maintenance() {
        bench.store.finish(job.run()).unwrap();
    }
    let state = bench.store.state(StreamId(1)).unwrap();
    println!(
        "\n| {} messages over {} subjects | figure |\n|---|---|",
        state.messages, state.subjects
    );
    let index = bench.store.index_bytes(StreamId(1)) as f64 / state.subjects as f64;
    row("index bytes for each subject", format!("{index:.1}"));
    let (first, middle, end) = (1, messages / 2, messages - 5000);
    for texts in [
        &["orders.>"][..],
        &["orders.*"],
        &["orders.*.paid"],
        &["*.1"],
        &["orders.1*"],
        &["orders.*", "orders.*.paid"],
    ] {
        let filters = Filters::parse(texts).unwrap();
        for (place, from) in [("start", first), ("middle", middle), ("end", end)] {
            let (mut count, mut next) = (Calls::default(), Calls::default());
            let first = {
                let start = Instant::now();
                bench
                    .store
                    .count_matching(StreamId(1), &filters, from)
                    .unwrap();
                start.elapsed()
            };
            for step in 0..20 {
                count
                    .time(|| {
                        bench
                            .store
                            .count_matching(StreamId(1), &filters, from + step * 100)
                    })
                    .unwrap();
                next.time(|| {
                    bench
                        .store
                        .next_matching(StreamId(1), &filters, from + step)
                })
                .unwrap();
            }
            let value = format!(
                "count {} first, then {}; next match longest {}",
                millis(first),
                millis(count.sum / 20),
                millis(next.longest)
            );
            row(&format!("`{}` from the {place}", texts.join("`, `")), value);
        }
    }
    let everything = Filters::parse(&["orders.*"]).unwrap();
    let mut page = Calls::default();
    for _ in 0..3 {
        page.time(|| bench.store.subjects(StreamId(1), &everything, None, 1000))
            .unwrap();
    }
    row("a page of 1,000 subjects", page);
}

fn main() {
    let (streams, megabytes, subjects) = (
        size("HALYARD_BENCH_STREAMS", 100_000),
        size("HALYARD_BENCH_MERGE_MB", 2000),
        size("HALYARD_BENCH_SUBJECTS", 630_000),
    );
    if subjects > 0 {
        counts(subjects);
    }
    if streams > 0 {
        many_streams(streams);
    }
    if megabytes > 0 {
        flush_beside_merge(megabytes);
    }
}
