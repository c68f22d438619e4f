//! Measures the path propose -> consensus -> log -> apply -> reply on a real disk, beside a bare write-and-sync loop; then
//! the same path into a store, with flushes and merges beside it (`store`).
//!
//! `cargo run --release -p halyard-raft --example bench -- DIR [--seconds N] [--only PART OF A NAME] [--write]`
//!
//! DIR is made, and lies on the disk to be measured. Each of about 20 loads runs for N seconds (3): about 2 minutes, 10 GB
//! of disk for a while. `--write` puts the tables into docs/performance.md.

#![expect(clippy::print_stdout, reason = "a program that prints")]

mod store;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use halyard_raft::{Group, GroupId, LogId, Machine, Node, NodeId, NodeOptions};
use halyard_runtime::disk::{Disk, File, OpenMode, RealDisk};
use halyard_runtime::time::Instant;
use halyard_runtime::{measure, task, time};
use parking_lot::Mutex;

/// Counts what it applies.
#[derive(Default)]
struct Sum(u64);

impl Machine for Sum {
    type Reply = u64;
    fn apply(&mut self, _: LogId, payload: &Bytes) -> u64 {
        self.0 += payload.len() as u64;
        self.0
    }
}

/// Latencies of one run.
struct Run {
    name: String,
    micros: Vec<u64>,
    seconds: f64,
    cpu_seconds: f64,
    syncs: u64,
}

const HEAD: &str = "| load | entries/s | messages/s | p50, p99 | CPU of an entry | syncs/s |\n|---|---|---|---|---|---|";

impl Run {
    fn row(mut self, messages_each: u64) -> String {
        self.micros.sort_unstable();
        let count = self.micros.len();
        let at = |permille: usize| {
            self.micros
                .get(count * permille / 1000)
                .copied()
                .unwrap_or(0)
        };
        let rate = count as f64 / self.seconds;
        format!(
            "| {} | {rate:.0} | {:.0} | {} us, {} us | {:.1} us | {:.0} |",
            self.name,
            rate * messages_each as f64,
            at(500),
            at(990),
            self.cpu_seconds * 1e6 / count.max(1) as f64,
            self.syncs as f64 / self.seconds,
        )
    }
}

fn cpu_seconds() -> f64 {
    measure::process_cpu().as_secs_f64()
}

/// The tables of this run, printed as they grow.
#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, line: &str) {
        println!("{line}");
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn write(&self) -> std::io::Result<()> {
        const BEGIN: &str = "<!-- raft bench: begin -->";
        const END: &str = "<!-- raft bench: end -->";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
        let text = String::from_utf8_lossy(&RealDisk.read(&path)?).into_owned();
        let (head, rest) = text.split_once(BEGIN).expect("the begin marker");
        let (_, tail) = rest.split_once(END).expect("the end marker");
        let text = format!("{head}{BEGIN}\n{}{END}{tail}", self.0);
        let file = RealDisk.open(&path, OpenMode::ReadWrite)?;
        file.set_len(0)?;
        file.write_at(text.as_bytes(), 0)
    }
}

/// A bare loop: one write, one sync.
fn bare(
    name: &str,
    file: &Arc<dyn File>,
    bytes: usize,
    step: u64,
    capacity: u64,
    length: Duration,
) -> std::io::Result<Run> {
    let payload = vec![7; bytes];
    let (mut micros, mut offset) = (Vec::new(), 0);
    let (started, cpu) = (Instant::now(), cpu_seconds());
    while started.elapsed() < length {
        let at = Instant::now();
        file.write_at(&payload, offset)?;
        file.sync()?;
        micros.push(at.elapsed().as_micros() as u64);
        offset = (offset + step) % (capacity - bytes as u64);
    }
    let syncs = micros.len() as u64;
    Ok(Run {
        name: name.to_owned(),
        micros,
        seconds: started.elapsed().as_secs_f64(),
        cpu_seconds: cpu_seconds() - cpu,
        syncs,
    })
}

/// The same loop over files made in three ways.
fn bare_all(page: &mut Page, dir: &Path, length: Duration) -> std::io::Result<()> {
    const CAPACITY: u64 = 64 << 20;
    let fallocated = dir.join("fallocated");
    let made = std::process::Command::new("fallocate")
        .arg("-l")
        .arg(CAPACITY.to_string())
        .arg(&fallocated)
        .status()?;
    page.line(HEAD);
    let zeroed = RealDisk.open(&dir.join("zeroed"), OpenMode::Create)?;
    zeroed.allocate(CAPACITY)?;
    zeroed.sync()?;
    let grown = RealDisk.open(&dir.join("grown"), OpenMode::Create)?;
    for (bytes, step) in [(512, 512), (65536, 65536)] {
        if made.success() {
            let file = RealDisk.open(&fallocated, OpenMode::ReadWrite)?;
            let name = format!("bare {bytes} B, fallocated");
            page.line(&bare(&name, &file, bytes, step, CAPACITY, length)?.row(1));
        }
        let name = format!("bare {bytes} B, growing file");
        page.line(&bare(&name, &grown, bytes, step, u64::MAX, length)?.row(1));
        let name = format!("bare {bytes} B, zeroed or reused");
        page.line(&bare(&name, &zeroed, bytes, step, CAPACITY, length)?.row(1));
    }
    Ok(())
}

/// `tasks` proposers, each with `in_flight` entries of `bytes` in flight.
async fn propose(
    name: &str,
    node: &Arc<Node>,
    group: &Group<Sum>,
    tasks: usize,
    in_flight: usize,
    bytes: usize,
    length: Duration,
) -> Run {
    let stop = Arc::new(AtomicBool::new(false));
    let (started, cpu, syncs) = (Instant::now(), cpu_seconds(), node.metrics().syncs);
    let workers: Vec<_> = (0..tasks)
        .map(|_| {
            let (group, stop) = (group.clone(), Arc::clone(&stop));
            task::spawn(async move {
                let (mut micros, mut waiting) = (Vec::new(), std::collections::VecDeque::new());
                while !stop.load(Ordering::Relaxed) {
                    while waiting.len() < in_flight {
                        waiting.push_back((
                            Instant::now(),
                            group.propose(Bytes::from(vec![7; bytes])),
                        ));
                    }
                    if let Some((at, proposal)) = waiting.pop_front() {
                        proposal.await.expect("applied");
                        micros.push(at.elapsed().as_micros() as u64);
                    }
                }
                for (_, proposal) in waiting {
                    proposal.await.expect("applied");
                }
                micros
            })
        })
        .collect();
    time::sleep(length).await;
    stop.store(true, Ordering::Relaxed);
    let mut micros = Vec::new();
    for worker in workers {
        micros.extend(worker.await.expect("no panic"));
    }
    let seconds = started.elapsed().as_secs_f64();
    let syncs = node.metrics().syncs - syncs;
    Run {
        name: name.to_owned(),
        micros,
        seconds,
        cpu_seconds: cpu_seconds() - cpu,
        syncs,
    }
}

/// Entries into a machine that only counts.
async fn log_loads(
    page: &mut Page,
    node: &Arc<Node>,
    length: Duration,
    wanted: &impl Fn(&str) -> bool,
) {
    let machine = Arc::new(Mutex::new(Sum::default()));
    let group = node
        .start_group(GroupId(1), machine, 0)
        .await
        .expect("a group");
    // The segments let go by this are the spares of what follows.
    let flusher = {
        let (group, node) = (group.clone(), Arc::clone(node));
        task::spawn(async move {
            loop {
                time::sleep(Duration::from_millis(100)).await;
                if node.log_bytes() > 96 << 20 {
                    group.flushed(group.applied());
                }
            }
        })
    };
    for (name, tasks, in_flight, bytes, messages) in [
        ("1 at a time, 128 B", 1, 1, 170, 1),
        ("16 at a time, 128 B", 16, 1, 170, 1),
        ("1 in flight, 500 x 128 B", 1, 1, 500 * 150, 500),
        ("4 in flight, 500 x 128 B", 1, 4, 500 * 150, 500),
        ("16 in flight, 500 x 128 B", 1, 16, 500 * 150, 500),
        ("4 x 64 in flight, 128 B", 4, 64, 170, 1),
        ("8 in flight, 64 x 1 KiB", 1, 8, 64 * 1060, 64),
    ] {
        if wanted(name) {
            let run = propose(name, node, &group, tasks, in_flight, bytes, length).await;
            page.line(&run.row(messages));
        }
    }
    flusher.abort();
    group.flushed(group.applied());
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let usage = "bench DIR [--seconds N] [--only PART OF A NAME] [--write]";
    let dir = PathBuf::from(args.first().expect(usage));
    let value = |flag: &str| {
        let at = args.iter().position(|arg| arg == flag)?;
        args.get(at + 1)
    };
    let seconds = value("--seconds").map_or(3, |text| text.parse().expect(usage));
    let only = value("--only").cloned().unwrap_or_default();
    let wanted = move |name: &str| name.contains(&only);
    let length = Duration::from_secs(seconds);
    RealDisk.create_dir_all(&dir).expect("a directory");
    let mut page = Page::default();
    let load = measure::load_average().expect("a load average");
    page.line(&format!(
        "One round of {seconds} s each; load average before: {load:.1}; {}.\n",
        if cfg!(debug_assertions) {
            "DEBUG build"
        } else {
            "release build"
        },
    ));
    if wanted("bare") {
        bare_all(&mut page, &dir, length).expect("a disk");
    } else {
        page.line(HEAD);
    }
    let page = task::block_on(2, async move {
        let opened = Instant::now();
        let node = Node::open(NodeOptions::new(
            Arc::new(RealDisk),
            dir.join("node"),
            NodeId(1),
        ))
        .expect("a node");
        let node = Arc::new(node);
        println!("ready after {} ms", opened.elapsed().as_millis());
        log_loads(&mut page, &node, length, &wanted).await;
        page.line("");
        page.line(store::HEAD);
        for (number, load) in store::LOADS.into_iter().enumerate() {
            if wanted(load.name) {
                page.line(&load.run(&node, &dir, 2 + number as u32, length).await);
            }
        }
        println!("{:?}", node.metrics());
        let (at, cpu) = (Instant::now(), cpu_seconds());
        time::sleep(Duration::from_secs(2)).await;
        let idle = (cpu_seconds() - cpu) * 100.0 / at.elapsed().as_secs_f64();
        page.line(&format!("\nIn the two seconds after the last load, while the log is let go: {idle:.2} % of a core."));
        node.shutdown().await;
        page
    })
    .expect("a runtime");
    if args.iter().any(|arg| arg == "--write") {
        page.write().expect("docs/performance.md");
    }
}
