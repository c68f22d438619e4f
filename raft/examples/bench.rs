//! Measures the path propose -> consensus -> log -> apply -> reply on a real disk, beside a bare write-and-sync loop.
//!
//! `cargo run --release -p halyard-raft --example bench -- DIR [SECONDS] [WORKERS] [START OF A NAME]`

#![expect(clippy::print_stdout, reason = "a program that prints")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use halyard_raft::{Applied, Group, GroupId, Machine, Node, NodeId, NodeOptions};
use halyard_runtime::disk::{Disk, File, OpenMode, RealDisk};
use halyard_runtime::time::Instant;
use halyard_runtime::{task, time};
use parking_lot::Mutex;

/// Counts what it applies.
#[derive(Default)]
struct Sum(u64);

impl Machine for Sum {
    type Reply = u64;
    fn apply(&mut self, _: Applied, payload: &Bytes) -> u64 {
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

impl Run {
    fn print(mut self, messages_each: u64) {
        self.micros.sort_unstable();
        let count = self.micros.len();
        let at = |permille: usize| {
            self.micros
                .get(count * permille / 1000)
                .copied()
                .unwrap_or(0)
        };
        let rate = count as f64 / self.seconds;
        let messages = rate * messages_each as f64;
        let cpu = self.cpu_seconds * 1e6 / count.max(1) as f64;
        println!(
            "{:<34} {rate:>9.0} entries/s {messages:>10.0} msg/s  p50 {:>6} us  p99 {:>6} us  {cpu:>6.1} us CPU/entry  {} syncs",
            self.name,
            at(500),
            at(990),
            self.syncs,
        );
        let _ = std::io::stdout().flush();
    }
}

fn cpu_seconds() -> f64 {
    let stat = RealDisk
        .open(Path::new("/proc/self/stat"), OpenMode::Read)
        .and_then(|file| {
            let mut bytes = vec![0; 4096];
            let count = file.read_at(&mut bytes, 0)?;
            bytes.truncate(count);
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        });
    let stat = stat.unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / 100.0
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
fn bare_all(dir: &Path, length: Duration) -> std::io::Result<()> {
    const CAPACITY: u64 = 64 << 20;
    let fallocated = dir.join("fallocated");
    let made = std::process::Command::new("fallocate")
        .arg("-l")
        .arg(CAPACITY.to_string())
        .arg(&fallocated)
        .status()?;
    let zeroed = RealDisk.open(&dir.join("zeroed"), OpenMode::Create)?;
    zeroed.allocate(CAPACITY)?;
    zeroed.sync()?;
    let grown = RealDisk.open(&dir.join("grown"), OpenMode::Create)?;
    for (bytes, step) in [(512, 512), (65536, 65536)] {
        if made.success() {
            let file = RealDisk.open(&fallocated, OpenMode::ReadWrite)?;
            bare(
                &format!("bare {bytes} B, fallocated"),
                &file,
                bytes,
                step,
                CAPACITY,
                length,
            )?
            .print(1);
        }
        bare(
            &format!("bare {bytes} B, growing file"),
            &grown,
            bytes,
            step,
            u64::MAX,
            length,
        )?
        .print(1);
        bare(
            &format!("bare {bytes} B, zeroed or reused"),
            &zeroed,
            bytes,
            step,
            CAPACITY,
            length,
        )?
        .print(1);
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

fn main() {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(
        args.next()
            .expect("bench DIR [SECONDS] [WORKERS] [START OF A NAME]"),
    );
    let seconds = args.next().and_then(|arg| arg.parse().ok()).unwrap_or(3);
    let length = Duration::from_secs(seconds);
    RealDisk.create_dir_all(&dir).expect("a directory");
    let workers = args.next().and_then(|arg| arg.parse().ok()).unwrap_or(2);
    let only = args.next().unwrap_or_default();
    if only.is_empty() {
        bare_all(&dir, length).expect("a disk");
    }
    task::block_on(workers, async move {
        let opened = Instant::now();
        let node = Node::open(NodeOptions::new(
            Arc::new(RealDisk),
            dir.join("node"),
            NodeId(1),
        ))
        .expect("a node");
        let node = Arc::new(node);
        let machine = Arc::new(Mutex::new(Sum::default()));
        let group = node
            .start_group(GroupId(1), machine, 0)
            .await
            .expect("a group");
        println!("ready after {} ms", opened.elapsed().as_millis());
        // The segments let go by this are the spares of what follows.
        let flusher = {
            let (group, node) = (group.clone(), Arc::clone(&node));
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
            if !name.starts_with(&only) {
                continue;
            }
            propose(name, &node, &group, tasks, in_flight, bytes, length)
                .await
                .print(messages);
        }
        println!("{:?}", node.metrics());
        flusher.abort();
        let at = Instant::now();
        let cpu = cpu_seconds();
        time::sleep(Duration::from_secs(2)).await;
        println!(
            "idle: {:.2} % of a core",
            (cpu_seconds() - cpu) * 100.0 / at.elapsed().as_secs_f64()
        );
        node.shutdown().await;
    })
    .expect("a runtime");
}
