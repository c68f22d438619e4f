//! What a sync costs on the disk under a directory, by how the file's space was reserved.
//!
//! `cargo run --release -p halyard-runtime --example disk_sync -- DIR [writes]`: appends 4 KiB at a time, each followed
//! by fdatasync, to a growing file, to one reserved by fallocate, and to one reserved by writing zeros.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a measuring tool")]
#![expect(clippy::disallowed_methods, reason = "fallocate needs the bare file")]

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use halyard_runtime::disk::{Disk, OpenMode, RealDisk};
use halyard_runtime::time::Instant;

const PAGE: [u8; 4096] = [0xA5; 4096];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().unwrap_or_else(|| ".".into()));
    let writes: u64 = arguments.next().map_or(2000, |n| n.parse().unwrap());
    for round in 0..3 {
        for way in ["growing", "fallocate", "zeros"] {
            let path = dir.join(format!("disk-sync-{way}"));
            let start = Instant::now();
            match way {
                "fallocate" => {
                    let file = std::fs::File::create(&path).unwrap();
                    let flags = rustix::fs::FallocateFlags::empty();
                    rustix::fs::fallocate(&file, flags, 0, writes * 4096).unwrap();
                    file.sync_all().unwrap();
                }
                "zeros" => {
                    let file = RealDisk.open(&path, OpenMode::CreateNew).unwrap();
                    file.allocate(writes * 4096).unwrap();
                }
                _ => drop(std::fs::File::create(&path).unwrap()),
            }
            let reserve = start.elapsed();
            RealDisk.sync_dir(&dir).unwrap();
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            let mut took: Vec<Duration> = (0..writes)
                .map(|page| {
                    let start = Instant::now();
                    file.write_all_at(&PAGE, page * 4096).unwrap();
                    file.sync_data().unwrap();
                    start.elapsed()
                })
                .collect();
            took.sort();
            let at = |share: usize| took[took.len() * share / 100].as_micros();
            println!(
                "round {round} {way:>9}: reserve {reserve:?}, sync p50 {} us, p99 {} us",
                at(50),
                at(99)
            );
            RealDisk.remove_file(&path).unwrap();
        }
    }
}
