//! What the machine gives where the configuration does not say: how much streams may hold.

use std::path::Path;

use halyard_runtime::disk::{Disk, OpenMode, RealDisk};

use super::settings::JetStream;

/// The share of memory, and of free disk, that streams may take (numerator, denominator).
const SHARE: (u64, u64) = (3, 4);
/// What memory streams may hold on a machine that does not tell how much memory it has, bytes.
const MEMORY_FALLBACK_BYTES: u64 = 256 * 1024 * 1024;
/// What file streams may hold on a disk that does not tell how much is free, bytes.
const STORAGE_FALLBACK_BYTES: u64 = 1024 * 1024 * 1024 * 1024;
/// What a control group without a limit says.
const MEMORY_LIMIT_FILE: &str = "/sys/fs/cgroup/memory.max";

impl JetStream {
    /// Fills in the limits that the user left to the machine: 75 % of its memory (or of what the control group allows)
    /// and of what is free on the disk of the store (beside what streams hold there already). In a simulation nothing of the real machine may be seen: no limit.
    pub fn fill_limits(&mut self, disk: &dyn Disk) {
        if halyard_runtime::in_sim() {
            return;
        }
        let share = |bytes: u64| bytes / SHARE.1 * SHARE.0;
        self.max_memory_store = Some(
            self.max_memory_store
                .unwrap_or_else(|| memory_bytes().map_or(MEMORY_FALLBACK_BYTES, share)),
        );
        let dir = self.data_dir();
        self.max_file_store_is_share |= self.max_file_store.is_none();
        self.max_file_store = Some(
            self.max_file_store
                .unwrap_or_else(|| free_bytes(disk, &dir).map_or(STORAGE_FALLBACK_BYTES, share)),
        );
    }
}

/// Memory that this process may use, bytes.
fn memory_bytes() -> Option<u64> {
    let text = read("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let limit = read(MEMORY_LIMIT_FILE).and_then(|text| text.trim().parse().ok());
    Some(limit.unwrap_or(u64::MAX).min(kib * 1024))
}

/// Free bytes where `dir` is, or will be.
fn free_bytes(disk: &dyn Disk, dir: &Path) -> Option<u64> {
    dir.ancestors()
        .map(|dir| {
            if dir == Path::new("") {
                Path::new(".")
            } else {
                dir
            }
        })
        .find_map(|dir| disk.free_bytes(dir).ok())
}

/// The beginning of a file whose length the system does not tell.
fn read(path: &str) -> Option<String> {
    let file = RealDisk.open(Path::new(path), OpenMode::Read).ok()?;
    let mut bytes = [0; 4096];
    let len = file.read_at(&mut bytes, 0).ok()?;
    Some(String::from_utf8_lossy(bytes.get(..len)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_come_from_the_machine_unless_given() {
        let mut settings = JetStream {
            store_dir: Some("/nonexistent/a/b".into()),
            max_memory_store: Some(5),
            ..JetStream::default()
        };
        settings.fill_limits(&RealDisk);
        assert_eq!(settings.max_memory_store, Some(5));
        let free = RealDisk.free_bytes(Path::new("/")).unwrap();
        let limit = settings.max_file_store.unwrap();
        assert!(limit <= free && limit > free / 2, "{limit} of {free}");
        assert!(memory_bytes().unwrap() > 1 << 20);
    }
}
