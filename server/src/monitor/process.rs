//! What this process uses of the machine: memory and processor time, from `/proc`.

use std::path::Path;

use halyard_runtime::disk::{Disk, OpenMode, RealDisk};
use halyard_runtime::time::{Duration, Instant};

/// Ticks of processor time in a second; the same on every Linux that we run on.
const TICKS_PER_SECOND: f64 = 100.0;
/// Bytes of a page of memory, where the system does not say otherwise.
const PAGE_BYTES: u64 = 4096;
/// Shortest time over which the use of processors is measured anew.
const SAMPLE: Duration = Duration::from_secs(1);

/// Measures this process.
#[derive(Debug)]
pub(super) struct Process {
    sampled: Instant,
    ticks: u64,
    cpu_percent: f64,
}

/// What was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Usage {
    /// Resident memory, bytes.
    pub(super) mem: u64,
    /// Use of processors since the sample before, in percent of one of them.
    pub(super) cpu: f64,
}

impl Process {
    pub(super) fn new() -> Self {
        Self {
            sampled: Instant::now(),
            ticks: ticks().unwrap_or(0),
            cpu_percent: 0.0,
        }
    }

    /// Measures. Zeros where the system does not tell.
    pub(super) fn usage(&mut self) -> Usage {
        let elapsed = self.sampled.elapsed();
        if elapsed >= SAMPLE {
            let ticks = ticks().unwrap_or(0);
            let used = ticks.saturating_sub(self.ticks) as f64 / TICKS_PER_SECOND;
            // One decimal, as tools show it.
            self.cpu_percent = (used / elapsed.as_secs_f64() * 1000.0).round() / 10.0;
            (self.sampled, self.ticks) = (Instant::now(), ticks);
        }
        Usage {
            mem: resident_bytes().unwrap_or(0),
            cpu: self.cpu_percent,
        }
    }
}

/// Processors that this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Processor time that the process has used so far.
fn ticks() -> Option<u64> {
    let text = read("/proc/self/stat")?;
    // The second field is the program's name in parentheses, which may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn resident_bytes() -> Option<u64> {
    let pages: u64 = read("/proc/self/statm")?
        .split_ascii_whitespace()
        .nth(1)?
        .parse()
        .ok()?;
    Some(pages * PAGE_BYTES)
}

/// The beginning of a file whose length the system does not tell.
fn read(path: &str) -> Option<String> {
    let file = RealDisk.open(Path::new(path), OpenMode::Read).ok()?;
    let mut bytes = [0; 2048];
    let len = file.read_at(&mut bytes, 0).ok()?;
    Some(String::from_utf8_lossy(bytes.get(..len)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory() {
        let usage = Process::new().usage();
        assert!(usage.mem > 100_000, "{usage:?}");
        assert!(ticks().is_some() && cores() > 0);
    }
}
