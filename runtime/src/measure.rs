//! What only measurements ask of the machine: processor time, memory, traffic with the disk, the page cache.
//!
//! Benchmarks and examples use this; nothing that ships does. All of it is of the real machine, also in a simulation.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};
use rustix::time::{ClockId, clock_gettime};

fn clock(id: ClockId) -> Duration {
    let time = clock_gettime(id);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// Processor time of the calling thread so far, in the kernel too.
pub fn thread_cpu() -> Duration {
    clock(ClockId::ThreadCPUTime)
}

/// Processor time of all threads of this process so far, in the kernel too.
pub fn process_cpu() -> Duration {
    clock(ClockId::ProcessCPUTime)
}

/// Bytes that this process moved to and from block devices so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Read from a device: zero where the page cache had it all.
    pub read: u64,
    /// Pages of files that this process made dirty, whole pages, as often as they became dirty again after a sync.
    pub written: u64,
}

/// The traffic of this process so far.
///
/// # Errors
/// When the kernel does not tell.
pub fn traffic() -> io::Result<Traffic> {
    let text = read("/proc/self/io")?;
    Ok(Traffic {
        read: number_after(&text, "read_bytes:")?,
        written: number_after(&text, "\nwrite_bytes:")?,
    })
}

/// Memory of this process that is in use and its own: private and touched, in bytes. Mapped files are not in it.
///
/// # Errors
/// When the kernel does not tell.
pub fn private_bytes() -> io::Result<u64> {
    Ok(number_after(&read("/proc/self/status")?, "RssAnon:")? * 1024)
}

/// How many processes wanted a processor in the last minute, on average.
///
/// # Errors
/// When the kernel does not tell.
pub fn load_average() -> io::Result<f64> {
    let text = read("/proc/loadavg")?;
    let first = text.split(' ').next().and_then(|text| text.parse().ok());
    first.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, text))
}

/// Takes a file out of the operating system's page cache, so that the next read goes to the device. What is not yet on
/// the device stays (sync it before), and so does what a process has mapped.
///
/// # Errors
/// When the file cannot be opened, or the kernel refuses.
#[expect(clippy::disallowed_methods, reason = "a door to the disk")]
pub fn forget_cached(path: &Path) -> io::Result<()> {
    let file = fs::File::open(path)?;
    Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
}

#[expect(clippy::disallowed_methods, reason = "a door to the system")]
fn read(path: &str) -> io::Result<String> {
    fs::read_to_string(path)
}

fn number_after(text: &str, name: &str) -> io::Result<u64> {
    let rest = text.split_once(name).map(|(_, rest)| rest.trim_start());
    let digits = rest.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    let number = digits.flatten().and_then(|digits| digits.parse().ok());
    number.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("no number after {name}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells() {
        let before = thread_cpu();
        let sum: u64 = std::hint::black_box((0..1_000_000u64).map(std::hint::black_box).sum());
        assert!(sum > 0 && thread_cpu() > before && process_cpu() >= before);
        assert!(private_bytes().unwrap() > 100_000);
        assert!(load_average().unwrap() >= 0.0);
        traffic().unwrap();
    }

    #[test]
    fn a_number_is_found_behind_its_name_only() {
        let text = "read_bytes: 12\nwrite_bytes: 34\ncancelled_write_bytes: 5\n";
        assert_eq!(number_after(text, "\nwrite_bytes:").unwrap(), 34);
        assert!(number_after(text, "rss:").is_err());
    }
}
