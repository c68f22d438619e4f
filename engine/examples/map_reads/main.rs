//! Positioned reads against a memory map, on the sealed segments of a real store: what docs/decisions/positioned-reads.md
//! rests on.
//!
//! `cargo run --release -p halyard-engine --example map_reads -- DIR [--messages N] [--write]`
//!
//! DIR is made and lies on the disk to be measured. Builds a store there (4 M messages of 128 B over 1 M subjects if
//! nothing is said, 0.8 GB), then reads random blocks of each kind in each way, verifying every checksum as the store
//! does: with all files in the page cache ("warm"), after they were dropped from it ("cold"), alone and beside a thread
//! that writes and syncs all the time. At last a file is cut under a map, in a process of its own. About 2 minutes.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program that prints a table"
)]

mod blocks;
mod ways;
mod whole;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use halyard_runtime::disk::{Disk, OpenMode, RealDisk};
use halyard_runtime::time::Instant;
use halyard_runtime::{measure, task};

use blocks::Block;
use ways::Way;

/// A number that looks random and is the same in every run.
fn scatter(number: u64) -> u64 {
    number
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .rotate_left(31)
        .wrapping_mul(0xBF58_476D_1CE4_E5B9)
        >> 8
}

/// Writes and syncs until told to stop, as flushes and merges do.
fn writer(path: PathBuf, stop: Arc<AtomicBool>) -> task::JoinHandle<()> {
    let write = move || {
        let file = RealDisk.open(&path, OpenMode::Create).unwrap();
        let piece = vec![b'x'; 1 << 20];
        for number in 0u64.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            file.write_at(&piece, number % 256 * (1 << 20)).unwrap();
            if number % 16 == 15 {
                file.sync().unwrap();
            }
        }
        drop(file);
        RealDisk.remove_file(&path).unwrap();
    };
    task::spawn_dedicated("writer", async move { write() }).unwrap()
}

/// CPU and wall time of one operation; medians of the rounds.
struct Each {
    cpu: Duration,
    wall: Duration,
    /// Bytes from the device for each operation.
    device: u64,
}

impl Each {
    fn of(rounds: u64, count: u64, mut before: impl FnMut(), mut work: impl FnMut(u64)) -> Self {
        let (mut cpus, mut walls, mut device) = (Vec::new(), Vec::new(), 0);
        for round in 0..rounds {
            before();
            let read = measure::traffic().unwrap().read;
            let (cpu, wall) = (measure::thread_cpu(), Instant::now());
            (round * count..(round + 1) * count).for_each(&mut work);
            cpus.push((measure::thread_cpu() - cpu) / count as u32);
            walls.push(wall.elapsed() / count as u32);
            device += measure::traffic().unwrap().read - read;
        }
        cpus.sort_unstable();
        walls.sort_unstable();
        Self {
            cpu: cpus[cpus.len() / 2],
            wall: walls[walls.len() / 2],
            device: device / (rounds * count),
        }
    }
}

impl std::fmt::Display for Each {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let micros = |time: Duration| time.as_nanos() as f64 / 1000.0;
        write!(f, "{:.2}; {:.2}", micros(self.cpu), micros(self.wall))?;
        if self.device > 0 {
            write!(f, " ({} KiB)", self.device >> 10)?;
        }
        Ok(())
    }
}

/// One row for each way of reading blocks of one kind.
fn compare(dir: &Path, name: &str, files: &[PathBuf], blocks: &[Block], lines: &mut Vec<String>) {
    let bytes: u64 = blocks.iter().map(|block| u64::from(block.len)).sum();
    let mean = bytes as f64 / blocks.len() as f64 / 1024.0;
    for way in Way::ALL {
        let mut cells = vec![format!("{name}, {mean:.1} KiB"), way.name().to_owned()];
        for is_cold in [false, true] {
            for is_written in [false, true] {
                let stop = Arc::new(AtomicBool::new(false));
                let beside = is_written.then(|| writer(dir.join("beside"), Arc::clone(&stop)));
                cells.push(read_blocks(way, files, blocks, is_cold).to_string());
                stop.store(true, Ordering::Relaxed);
                while beside.as_ref().is_some_and(|thread| !thread.is_finished()) {
                    std::hint::spin_loop();
                }
            }
        }
        let line = format!("| {} |", cells.join(" | "));
        println!("{line}");
        lines.push(line);
    }
}

fn read_blocks(way: Way, files: &[PathBuf], blocks: &[Block], is_cold: bool) -> Each {
    let (rounds, count) = if is_cold { (3, 200) } else { (5, 4000) };
    let opened = std::cell::RefCell::new(way.open(files));
    let before = || {
        if is_cold {
            // A mapped page stays in the page cache: unmap first.
            opened.borrow_mut().clear();
            files
                .iter()
                .for_each(|file| measure::forget_cached(file).unwrap());
            *opened.borrow_mut() = way.open(files);
        }
    };
    let read = |number: u64| {
        let block = blocks[(scatter(number) % blocks.len() as u64) as usize];
        opened.borrow_mut()[block.file].verify(block);
    };
    if !is_cold {
        // Into the page cache, and into the page tables of a map.
        let mut all = way.open(files);
        blocks
            .iter()
            .for_each(|&block| all[block.file].verify(block));
        drop(all);
        blocks
            .iter()
            .for_each(|&block| opened.borrow_mut()[block.file].verify(block));
    }
    Each::of(rounds, count, before, read)
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let dir = PathBuf::from(
        args.first()
            .expect("map_reads DIR [--messages N] [--write]"),
    );
    if args.iter().any(|arg| arg == "--cut") {
        return ways::read_a_cut_file(&dir);
    }
    let messages = args.iter().position(|arg| arg == "--messages");
    let messages = messages.map_or(4_000_000, |at| args[at + 1].parse().unwrap());
    RealDisk.create_dir_all(&dir).unwrap();
    let store = dir.join("store");
    whole::build(&store, messages);
    let (files, blocks) = blocks::walk(&store);
    let mut lines = vec![
        format!(
            "{messages} messages, {} segments, load average {:.1}, {}. Microseconds of CPU; wall (KiB from the device) for each read.\n",
            files.len(),
            measure::load_average().unwrap(),
            if cfg!(debug_assertions) { "DEBUG build" } else { "release build" },
        ),
        "| blocks, mean size | read | warm | warm, beside a writer | cold | cold, beside a writer |".into(),
        "|---|---|---|---|---|---|".into(),
    ];
    for (name, kinds) in [
        ("subject tables", &[3][..]),
        ("posting lists", &[4, 5]),
        ("rows", &[1, 11]),
        ("bodies", &[2]),
    ] {
        let of_kind: Vec<Block> = blocks
            .iter()
            .copied()
            .filter(|block| kinds.contains(&block.kind))
            .collect();
        if of_kind.len() > 50 {
            compare(&dir, name, &files, &of_kind, &mut lines);
        }
    }
    lines.push(String::new());
    lines.extend(whole::compare(&store, messages));
    lines.push(String::new());
    lines.push(ways::cut_a_file(&dir));
    println!("{}", lines[lines.len() - 8..].join("\n"));
    if args.iter().any(|arg| arg == "--write") {
        write_page(&lines.join("\n"));
    }
    for file in RealDisk.list(&store).unwrap() {
        RealDisk.remove_file(&store.join(file.name)).unwrap();
    }
    RealDisk.remove_dir(&store).unwrap();
}

fn write_page(lines: &str) {
    const BEGIN: &str = "<!-- map_reads: begin -->";
    const END: &str = "<!-- map_reads: end -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/decisions/positioned-reads.md");
    let text = String::from_utf8(RealDisk.read(&path).unwrap()).unwrap();
    let (head, rest) = text.split_once(BEGIN).expect("the begin marker");
    let (_, tail) = rest.split_once(END).expect("the end marker");
    let text = format!("{head}{BEGIN}\n{lines}\n{END}{tail}");
    let file = RealDisk.open(&path, OpenMode::ReadWrite).unwrap();
    file.set_len(0).unwrap();
    file.write_at(text.as_bytes(), 0).unwrap();
}
