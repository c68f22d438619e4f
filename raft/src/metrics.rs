//! What monitoring may see of the log.

use std::sync::atomic::{AtomicU64, Ordering};

use halyard_runtime::time::Duration;

/// Running totals, kept by the log's writer.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    syncs: AtomicU64,
    records: AtomicU64,
    bytes: AtomicU64,
    busy_nanos: AtomicU64,
    slowest_nanos: AtomicU64,
}

impl Counters {
    /// One batch was written and synced, which took so long.
    pub(crate) fn batch(&self, records: u64, bytes: u64, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.busy_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.slowest_nanos.fetch_max(nanos, Ordering::Relaxed);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The state of a node's log at one moment. Counts are since the node was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogMetrics {
    /// Batches that were synced.
    pub syncs: u64,
    /// Records written.
    pub records: u64,
    /// Bytes written, headers and padding included.
    pub bytes_written: u64,
    /// Time that writing and syncing took, all batches together.
    pub busy: Duration,
    /// The same of the slowest batch.
    pub slowest: Duration,
    /// Bytes that the log holds now.
    pub bytes_held: u64,
    /// Segment files in use.
    pub segments: u64,
    /// True while the disk is full and proposals are refused.
    pub full: bool,
    /// Damaged places that were found and are still in the log.
    pub damaged: u64,
}

impl LogMetrics {
    pub(crate) fn of(counters: &Counters) -> Self {
        Self {
            syncs: counters.syncs.load(Ordering::Relaxed),
            records: counters.records.load(Ordering::Relaxed),
            bytes_written: counters.bytes.load(Ordering::Relaxed),
            busy: Duration::from_nanos(counters.busy_nanos.load(Ordering::Relaxed)),
            slowest: Duration::from_nanos(counters.slowest_nanos.load(Ordering::Relaxed)),
            ..Self::default()
        }
    }
}
